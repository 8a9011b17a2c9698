//! Every class before and after merging.

use super::axis::Axis;
use super::bars::{Field, Name, Rows};
use super::legend::{Legend, Sample};
use super::palette::{GREY, SERIES};
use super::pen::{Shape, line, mark};
use super::{Figure, Place};
use crate::error::Result;
use crate::numbers::percent;
use crate::results::{CaseResults, RowResult};
use crate::standing::{ONE_NETWORK, best, singles};

struct Change<'a> {
    task: &'a str,
    class: &'a str,
    before: f64,
    after: f64,
}

/// More would not fit on a screen.
const MOST: usize = 50;

/// The networks alone, and the row that is looked into or else the best one of their cost.
pub fn figure(case: &CaseResults, index: usize) -> Result<Option<Figure>> {
    let shown = case.shown.as_ref().and_then(|shown| case.rows.iter().find(|row| row.model == shown.model));
    let Some(after) = shown.or_else(|| best(case, ONE_NETWORK)) else { return Ok(None) };
    let mut changes = changes(case, after);
    let n_classes = changes.len();
    // The largest losses, in the order of the classes.
    let mut losses: Vec<f64> = changes.iter().map(|change| change.before - change.after).collect();
    losses.sort_by(|a, b| b.total_cmp(a));
    if let Some(least) = losses.get(MOST - 1).copied().filter(|_| n_classes > MOST) {
        changes.retain(|change| change.before - change.after >= least);
        changes.truncate(MOST);
    }
    let places: Vec<f64> = changes.iter().flat_map(|change| [change.before, change.after]).map(|x| 100.0 * x).collect();
    let Some(x) = Axis::linear("accuracy of the class, %", &places) else { return Ok(None) };
    let legend = Legend::new([
        (Sample::Mark(Shape::Ring, GREY), "before: its own network".to_owned()),
        (Sample::Mark(Shape::Disc, SERIES[0]), format!("after: {}", after.model)),
    ]);
    let mut names = Vec::new();
    let mut rows = Vec::new();
    for (i, change) in changes.iter().enumerate() {
        if i == 0 || changes[i - 1].task != change.task {
            names.push(Name::Heading(change.task.to_owned()));
        }
        rows.push(names.len());
        names.push(Name::Row(change.class.to_owned()));
    }
    let drawing = Rows { x: &x, names: &names, right: 0, legend: &legend }.draw(|sheet, field| {
        for (change, row) in changes.iter().zip(&rows) {
            let at = |share: f64| (field.x(100.0 * share), Field::y(*row));
            let ((before, y), (after, _)) = (at(change.before), at(change.after));
            // Up to the ring, not into it.
            let edge = before + 5 * (after - before).signum();
            if (after - before).abs() > 5 {
                line(sheet, &[(edge, y), (after, y)], &GREY, 2)?;
            }
            mark(sheet, Shape::Ring, at(change.before), GREY)?;
            mark(sheet, Shape::Disc, at(change.after), SERIES[0])?;
        }
        Ok(())
    })?;
    let most =
        if n_classes > MOST { format!(", the {MOST} of {n_classes} classes that lost most") } else { String::new() };
    let title = format!("{}: every class before and after merging{most}", case.name);
    let alt = alt(&changes, &after.model);
    Ok(Some(Figure::new(Place::Case(index), &format!("classes-{}", case.name), &title, &alt, &drawing)))
}

fn changes<'a>(case: &'a CaseResults, after: &'a RowResult) -> Vec<Change<'a>> {
    let before = |task: &str, class: &str| {
        let mut all = singles(case).flat_map(|row| &row.classes);
        all.find(|c| c.task == task && c.class == class).map(|c| c.accuracy)
    };
    let both = after.classes.iter().filter_map(|c| {
        let before = before(&c.task, &c.class)?;
        let is_known = before.is_finite() && c.accuracy.is_finite();
        is_known.then_some(Change { task: &c.task, class: &c.class, before, after: c.accuracy })
    });
    both.collect()
}

fn alt(changes: &[Change<'_>], model: &str) -> String {
    let mean = |of: fn(&Change<'_>) -> f64| changes.iter().map(of).sum::<f64>() / changes.len().max(1) as f64;
    let mut text = format!(
        "Accuracy of {} classes: {} % on average by their own networks, {} % by {model}.",
        changes.len(),
        percent(mean(|change| change.before)),
        percent(mean(|change| change.after))
    );
    let loss = |change: &&Change<'_>| change.before - change.after;
    if let Some(worst) = changes.iter().max_by(|a, b| loss(a).total_cmp(&loss(b))) {
        let (from, to) = (percent(worst.before), percent(worst.after));
        text += &format!(" The largest loss is {}’s, from {from} to {to} %.", worst.class);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invented;
    use crate::results::ClassAccuracy;

    #[test]
    fn many_classes_are_cut_to_those_that_lost_most() {
        let mut case = invented::results().cases.remove(0);
        let many = |accuracy: f64| {
            let of = move |i: usize| accuracy - accuracy.powi(9) * i as f64 / 1000.0;
            (0..120)
                .map(|i| ClassAccuracy { task: "low".into(), class: format!("class {i}"), accuracy: of(i) })
                .collect()
        };
        case.rows.iter_mut().for_each(|row| row.classes = many(row.task_avg.mean));
        let figure = figure(&case, 0).unwrap().unwrap();
        assert!(figure.title.contains("50 of 120"), "{}", figure.title);
    }

    #[test]
    fn without_classes_there_is_no_figure() {
        assert_eq!(figure(&invented::bare().cases[0], 0).unwrap(), None);
    }
}
