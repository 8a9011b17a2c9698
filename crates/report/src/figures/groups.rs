//! The groups of a merged network: how many, of what, and how large.

use super::axis::Axis;
use super::bars::{Field, Name, Rows, stack};
use super::legend::{Legend, Sample};
use super::palette::{GREY, SERIES};
use super::paper::{INK, SMALL, Side, TEXT, WIDTH, draw, ink, write};
use super::pen::{faint, fill, line};
use super::{Figure, Place};
use crate::error::Result;
use crate::numbers::{count, of_them};
use crate::results::Shown;
use std::collections::BTreeMap;

/// Groups of one feature, of one network's features, of several networks' features: bars, merge point by merge point.
pub fn kinds(shown: &Shown, case: &str, index: usize) -> Result<Option<Figure>> {
    let totals: Vec<f64> = shown.points.iter().map(|p| (p.single + p.within + p.across) as f64).collect();
    let Some(x) = Axis::from_zero("groups (features of all networks → groups)", &totals) else { return Ok(None) };
    let colours = [SERIES[0], SERIES[4], GREY];
    let texts = ["of several networks", "within one network", "a single feature"];
    let legend =
        Legend::new(colours.into_iter().zip(texts).map(|(colour, text)| (Sample::Box(colour), text.to_owned())));
    let names: Vec<Name> = shown.points.iter().map(|point| Name::Row(point.name.clone())).collect();
    let rows = Rows { x: &x, names: &names, right: 74, legend: &legend };
    let drawing = rows.draw(|sheet, field| {
        for (row, (point, total)) in shown.points.iter().zip(&totals).enumerate() {
            let parts = [point.across, point.within, point.single].map(|n| n as f64).into_iter().zip(colours);
            stack(sheet, field, row, &parts.collect::<Vec<_>>())?;
            let text = format!("{} → {total}", point.n_features);
            write(sheet, &text, &ink(SMALL), Side::Right, (field.x(*total) + 6, Field::y(row)))?;
        }
        Ok(())
    })?;
    let sum = |part: fn(&crate::results::PointGroups) -> usize| shown.points.iter().map(part).sum::<usize>();
    let alt = format!(
        "Groups at {} of {}: {} of features of several networks, {} of several features of one network, {} of one feature.",
        of_them(shown.points.len(), "merge point", "merge points"),
        shown.model,
        sum(|point| point.across),
        sum(|point| point.within),
        sum(|point| point.single)
    );
    let title = format!("{case}, {}: what was merged, by merge point", shown.model);
    Ok(Some(Figure::new(Place::Inside(index), &format!("groups-{case}"), &title, &alt, &drawing)))
}

const MOST: usize = 14;

/// How many groups there are of each size; the largest together.
pub fn sizes(shown: &Shown, case: &str, index: usize) -> Result<Option<Figure>> {
    let mut all: BTreeMap<usize, usize> = BTreeMap::new();
    for (size, n) in shown.points.iter().flat_map(|point| &point.sizes).filter(|(_, n)| **n > 0) {
        *all.entry(*size).or_default() += n;
    }
    let Some(largest) = all.keys().next_back().copied() else { return Ok(None) };
    let last = largest.min(MOST);
    let bars: Vec<(String, usize)> = (1..=last)
        .map(|size| match size {
            MOST if largest > MOST => (format!("≥ {MOST}"), all.range(MOST..).map(|(_, n)| n).sum()),
            _ => (size.to_string(), all.get(&size).copied().unwrap_or(0)),
        })
        .collect();
    let most = bars.iter().map(|(_, n)| *n).max().unwrap_or(1).max(1);
    let drawing = draw(280, |sheet| {
        let (middle, top, bottom) = (WIDTH as i32 / 2, 26, 230);
        let step = ((WIDTH as i32 - 60) / bars.len() as i32).min(110);
        let left = middle - step * bars.len() as i32 / 2;
        for (i, (text, n)) in bars.iter().enumerate() {
            let at = left + step * i as i32 + step / 2;
            let height = (f64::from(bottom - top) * *n as f64 / most as f64).round() as i32;
            let half = (step * 7 / 20).min(26);
            if *n > 0 {
                fill(sheet, [(at - half, bottom - height), (at + half, bottom)], &SERIES[0])?;
                write(sheet, &count(*n as u64), &ink(SMALL), Side::Middle, (at, bottom - height - 10))?;
            }
            write(sheet, text, &ink(SMALL), Side::Middle, (at, bottom + 12))?;
        }
        let end = left + step * bars.len() as i32;
        line(sheet, &[(left, bottom), (end, bottom)], &faint(INK, 0.5), 1)?;
        let title = "features in a group (number of groups above the bars)";
        write(sheet, title, &ink(TEXT), Side::Middle, (middle, bottom + 34))
    })?;
    let n: usize = all.values().sum();
    let spelled: Vec<String> =
        bars.iter().filter(|(_, n)| *n > 0).map(|(size, n)| format!("{n} of size {size}")).collect();
    let alt = format!("Sizes of the {n} groups of {}: {}.", shown.model, spelled.join(", "));
    let title = format!("{case}, {}: sizes of the groups, all merge points", shown.model);
    Ok(Some(Figure::new(Place::Inside(index), &format!("group-sizes-{case}"), &title, &alt, &drawing)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invented;

    #[test]
    fn the_largest_groups_share_a_bar() {
        let mut shown = invented::results().cases.remove(0).shown.unwrap();
        shown.points[0].sizes.insert(40, 2);
        shown.points[0].sizes.insert(30, 1);
        let figure = sizes(&shown, "5 + 5", 0).unwrap().unwrap();
        assert!(figure.alt.contains("3 of size ≥ 14"), "{}", figure.alt);
        shown.points.clear();
        assert_eq!((sizes(&shown, "5 + 5", 0).unwrap(), kinds(&shown, "5 + 5", 0).unwrap()), (None, None));
    }
}
