//! Accuracy against cost, case by case, and against the cases' axis.

use super::axis::Axis;
use super::looks::Looks;
use super::plot::{DASHES, Level, Line, MAX_LINES, Plot, Point};
use super::{Figure, Place};
use crate::error::Result;
use crate::numbers::{fixed, of_them, percent, percents};
use crate::results::{CaseResults, Results, RowResult, Stat};
use crate::standing::{ONE_NETWORK, best, compared, ensemble, one_to_one, singles_average};
use std::collections::BTreeSet;
use zipit::report::RowKind;

const SHORT: [i32; 2] = [3, 4];

/// What a curve is of.
#[derive(Clone, Copy)]
struct Curve {
    stem: &'static str,
    cost: &'static str,
    along: fn(&RowResult) -> f64,
    accuracy: &'static str,
    of: for<'a> fn(&CaseResults, &'a RowResult) -> Option<&'a Stat>,
}

const FLOPS: Curve = Curve {
    stem: "flops",
    cost: "FLOPs",
    along: |row| row.relative_macs,
    accuracy: "task average",
    of: |case, row| Some(compared(case, row)),
};
const PARAMETERS: Curve = Curve { stem: "parameters", cost: "parameters", along: |row| row.relative_params, ..FLOPS };
const JOINT: Curve = Curve { stem: "joint", accuracy: "joint accuracy", of: |_, row| row.joint.as_ref(), ..FLOPS };

/// The curves of one case.
pub fn of_case(case: &CaseResults, index: usize, joint: bool, looks: &Looks) -> Result<Vec<Figure>> {
    let curves = [Some(FLOPS), Some(PARAMETERS), joint.then_some(JOINT)];
    let figures: Result<Vec<Option<Figure>>> =
        curves.into_iter().flatten().map(|c| c.figure(case, index, looks)).collect();
    Ok(figures?.into_iter().flatten().collect())
}

impl Curve {
    fn figure(self, case: &CaseResults, index: usize, looks: &Looks) -> Result<Option<Figure>> {
        let (mut lines, others) = self.lines(case);
        looks.give(&mut lines);
        let all: Vec<f64> = lines.iter().flat_map(|line| &line.points).chain(&others).map(|point| point.x).collect();
        let Some(x) = Axis::linear(&format!("{} relative to one network", self.cost), &all) else { return Ok(None) };
        let plot =
            Plot { x, y_title: self.accuracy.to_owned(), lines, others, levels: self.levels(case), ..Plot::default() };
        let Some(drawing) = plot.draw()? else { return Ok(None) };
        let title = format!("{}: {} against {}", case.name, self.accuracy, self.cost);
        let name = format!("{}-{}", self.stem, case.name);
        Ok(Some(Figure::new(Place::Case(index), &name, &title, &self.alt(case), &drawing)))
    }

    fn points<'a>(self, case: &CaseResults, rows: impl Iterator<Item = &'a RowResult>) -> Vec<Point> {
        let mut points: Vec<Point> =
            rows.filter_map(|row| Point::new((self.along)(row), (self.of)(case, row)?)).collect();
        points.sort_by(|a, b| a.x.total_cmp(&b.x));
        points
    }

    /// Curves of several points first, then single rows as far as there are colours.
    fn lines(self, case: &CaseResults) -> (Vec<Line>, Vec<Point>) {
        let merged = || case.rows.iter().filter(|row| row.kind == RowKind::Merged);
        let mut seen = BTreeSet::new();
        let (mut curves, mut single) = (Vec::new(), Vec::new());
        for row in merged() {
            let alone = row.series.is_empty() || merged().filter(|other| other.series == row.series).count() == 1;
            if alone {
                single.push(Line { points: self.points(case, std::iter::once(row)), ..named(row, &row.model) });
            } else if seen.insert(&row.series) {
                let rows = merged().filter(|other| other.series == row.series);
                curves.push(Line { points: self.points(case, rows), ..named(row, &row.series) });
            }
        }
        curves.extend(single);
        curves.retain(|line| !line.points.is_empty());
        let others = curves.split_off(curves.len().min(MAX_LINES));
        (curves, others.into_iter().flat_map(|line| line.points).collect())
    }

    fn levels(self, case: &CaseResults) -> Vec<Level> {
        let mut levels = Vec::new();
        let side_by_side = ensemble(case).and_then(|row| Some((row, (self.of)(case, row)?.mean)));
        if let Some((row, share)) = side_by_side.filter(|(_, share)| share.is_finite()) {
            let name = format!("ensemble ({} × the {})", fixed((self.along)(row)), self.cost);
            levels.push(Level { name, share, pattern: DASHES });
        }
        if self.accuracy == FLOPS.accuracy {
            alone(&mut levels, singles_average(case));
        }
        levels
    }

    fn alt(self, case: &CaseResults) -> String {
        let of = |row: &RowResult| (self.of)(case, row).map_or_else(String::new, percents);
        let mut text = format!(
            "{} in % of {} against {} relative to one network.",
            capital(self.accuracy),
            of_them(
                case.rows.iter().filter(|row| row.kind == RowKind::Merged).count(),
                "merged network",
                "merged networks"
            ),
            self.cost
        );
        for row in
            [best(case, ONE_NETWORK), best(case, f64::INFINITY), one_to_one(case), ensemble(case)].into_iter().flatten()
        {
            let said = format!(" {}: {} % at {} times.", row.model, of(row), fixed((self.along)(row)));
            if (self.of)(case, row).is_some() && !text.contains(&said) {
                text += &said;
            }
        }
        text
    }
}

/// A line without points.
fn named(row: &RowResult, name: &str) -> Line {
    let kind = if row.series.is_empty() { &row.model } else { &row.series };
    Line { name: name.to_owned(), kind: kind.clone(), ..Line::default() }
}

/// The looks of every line of every case.
pub fn looks(results: &Results) -> Looks {
    let mut looks = Looks::default();
    for case in &results.cases {
        looks.note(&FLOPS.lines(case).0);
    }
    looks
}

/// The networks' own average, where no line is there yet.
fn alone(levels: &mut Vec<Level>, share: Option<f64>) {
    let name = "the networks, each on its own task".to_owned();
    match (levels.first_mut(), share) {
        (Some(level), Some(share)) if (level.share - share).abs() < 5e-4 => {
            level.name = level.name.replacen("ensemble", "the networks alone, and their ensemble", 1);
        }
        (_, Some(share)) => levels.push(Level { name, share, pattern: SHORT }),
        _ => {}
    }
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// What becomes of the rows from case to case.
pub fn along_axis(results: &Results, looks: &Looks) -> Result<Option<Figure>> {
    let Some(title) = &results.axis else { return Ok(None) };
    let mut placed: Vec<(f64, &CaseResults)> =
        results.cases.iter().filter_map(|case| case.x.map(|x| (x, case))).filter(|(x, _)| x.is_finite()).collect();
    placed.sort_by(|a, b| a.0.total_cmp(&b.0));
    let points = |wanted: &dyn Fn(&CaseResults, &RowResult) -> bool| -> Vec<Point> {
        let point = |x: f64, case: &CaseResults| {
            let row = case.rows.iter().find(|row| wanted(case, row))?;
            Point::new(x, compared(case, row))
        };
        placed.iter().filter_map(|(x, case)| point(*x, case)).collect()
    };
    // Networks of one network's cost first: they can be compared with each other.
    let rows = || placed.iter().flat_map(|(_, case)| case.rows.iter().map(move |row| (*case, row)));
    let merged = || rows().filter(|(_, row)| row.kind == RowKind::Merged);
    let cheap = merged().filter(|(_, row)| row.relative_macs <= ONE_NETWORK);
    let dear = merged().filter(|(_, row)| row.relative_macs > ONE_NETWORK);
    let mut seen = BTreeSet::new();
    let firsts = cheap.chain(dear).filter(|(case, row)| seen.insert(way(case, row)));
    let side_by_side = points(&|_, row| row.kind == RowKind::Ensemble);
    let ensemble = Line { name: "ensemble".to_owned(), points: side_by_side, ..Line::default() };
    let reference = Some(ensemble).filter(|line| line.points.len() > 1);
    let merged = firsts.map(|(of, first)| {
        let same =
            |case: &CaseResults, row: &RowResult| row.kind == RowKind::Merged && way(case, row) == way(of, first);
        Line { points: points(&same), ..named(first, way(of, first)) }
    });
    let mut lines: Vec<Line> = merged.filter(|line| line.points.len() > 1).collect();
    let n_left_out = lines.len().saturating_sub(MAX_LINES);
    lines.truncate(MAX_LINES);
    looks.give(&mut lines);
    let places: Vec<f64> = placed.iter().map(|(x, _)| *x).collect();
    let Some(x) = Axis::at_numbers(title, &places) else { return Ok(None) };
    let alt = axis_alt(title, reference.iter().chain(&lines), n_left_out);
    let plot = Plot { x, y_title: "task average".to_owned(), lines, reference, ..Plot::default() };
    let heading = format!("Task average against {title}");
    Ok(plot.draw()?.map(|drawing| Figure::new(Place::Axis, "axis", &heading, &alt, &drawing)))
}

/// What a row is called whichever case it is of: what was chosen may be another way to merge in every case.
fn way<'a>(case: &'a CaseResults, row: &'a RowResult) -> &'a str {
    let names = case.choices.iter().map(|choice| choice.name.as_str());
    let mut chosen = names.filter(|name| row.model.strip_prefix(name).is_some_and(|rest| rest.starts_with(": ")));
    chosen.next().unwrap_or(&row.model)
}

fn axis_alt<'a>(title: &str, lines: impl Iterator<Item = &'a Line>, n_left_out: usize) -> String {
    let mut text = format!("Task average in % against {title}.");
    for line in lines {
        if let (Some(first), Some(last)) = (line.points.first(), line.points.last()) {
            let (from, to) = (percent(first.mean), percent(last.mean));
            text += &format!(" {}: {from} at {}, {to} at {}.", line.name, first.x, last.x);
        }
    }
    if n_left_out > 0 {
        text += &format!(" {} more are in the tables.", of_them(n_left_out, "row", "rows"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invented;
    use crate::results::ChoiceResult;

    #[test]
    fn every_merged_row_is_drawn_once() {
        let results = invented::results();
        let case = &results.cases[0];
        let (lines, others) = FLOPS.lines(case);
        let n: usize = lines.iter().map(|line| line.points.len()).sum();
        assert_eq!(n + others.len(), case.rows.iter().filter(|row| row.kind == RowKind::Merged).count());
        let ours = lines.iter().find(|line| line.name == "ward refit").unwrap();
        assert!(ours.points.len() == 5 && ours.points.is_sorted_by(|a, b| a.x <= b.x));
        assert!(
            lines.iter().position(|line| line.points.len() == 1)
                >= lines.iter().rposition(|line| line.points.len() > 1)
        );
    }

    #[test]
    fn joint_has_its_figure_only_where_it_was_measured() {
        let results = invented::results();
        assert_eq!(of_case(&results.cases[0], 0, true, &Looks::default()).unwrap().len(), 3);
        assert_eq!(of_case(&results.cases[0], 0, false, &Looks::default()).unwrap().len(), 2);
        assert_eq!(of_case(&invented::bare().cases[0], 0, true, &Looks::default()).unwrap().len(), 2);
    }

    #[test]
    fn the_axis_takes_two_cases() {
        let mut results = invented::results();
        let figure = along_axis(&results, &looks(&results)).unwrap().unwrap();
        assert!(figure.alt.contains("ward refit: 95."), "{}", figure.alt);
        // What was chosen is one line, another choice in every case or not.
        for (i, case) in results.cases.iter_mut().enumerate() {
            let model = format!("ways, chosen: way {i}");
            case.choices =
                vec![ChoiceResult { name: "ways, chosen".into(), n_sets: 1, best: model.clone(), candidates: vec![] }];
            case.rows.iter_mut().find(|row| row.model == "ward refit").unwrap().model = model;
        }
        let figure = along_axis(&results, &looks(&results)).unwrap().unwrap();
        assert!(figure.alt.contains("ways, chosen: 95.") && !figure.alt.contains("way 0"), "{}", figure.alt);
        results.cases.truncate(1);
        assert_eq!(along_axis(&results, &looks(&results)).unwrap(), None);
    }

    #[test]
    fn equal_levels_are_one() {
        let mut levels = vec![Level { name: "ensemble (2.00 × the FLOPs)".into(), share: 0.97, pattern: DASHES }];
        alone(&mut levels, Some(0.970_01));
        assert_eq!(levels.len(), 1);
        alone(&mut levels, Some(0.9));
        assert_eq!(levels.len(), 2);
    }
}
