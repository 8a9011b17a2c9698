//! How the features at one merge point correlate, group by group.

use super::legend::{Legend, Sample};
use super::palette::{BLACK, SERIES, diverging};
use super::paper::{Drawing, INK, SMALL, Sheet, Side, TEXT, draw, ink, write};
use super::pen::{faint, fill, frame, line};
use super::{Figure, Place};
use crate::error::{Error, Result};
use crate::numbers::{fixed, of_them};
use crate::results::HeatMap;
use base64::Engine;
use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::{ExtendedColorType, ImageEncoder};
use ndarray::Array2;
use std::collections::BTreeSet;

const LEFT: i32 = 30;
const TOP: i32 = 30;
const SIDE: i32 = 440;
/// More places than that do not show on a page.
const MOST: usize = 440;

/// The map; `None` of no features.
pub fn figure(map: &HeatMap, index: usize) -> Result<Option<Figure>> {
    let n = map.correlation.nrows();
    if map.correlation.ncols() != n || map.group.len() != n || map.network.len() != n {
        let (groups, networks) = (map.group.len(), map.network.len());
        return Err(Error::HeatMap(map.point.clone(), map.correlation.dim(), groups, networks));
    }
    if n == 0 {
        return Ok(None);
    }
    let pool = n.div_ceil(MOST);
    let networks: BTreeSet<u32> = map.network.iter().copied().collect();
    let entries = networks.iter().map(|i| (Sample::Box(colour(*i)), format!("network {}", i + 1)));
    let legend = Legend::new(entries);
    let bottom = TOP + SIDE;
    let mut drawing = draw((bottom + 14) as u32 + legend.height(), |sheet| {
        outlines(sheet, map)?;
        strips(sheet, map)?;
        scale(sheet)?;
        legend.draw(sheet, bottom + 8)
    })?;
    put_below(&mut drawing, &picture(map, pool)?);
    let groups: BTreeSet<u32> = map.group.iter().copied().collect();
    let mut alt = format!(
        "Correlation of {n} features of {} at {}, in the order of their {}: {}.",
        of_them(networks.len(), "network", "networks"),
        map.point,
        of_them(groups.len(), "group", "groups"),
        inside_and_outside(map)
    );
    if pool > 1 {
        alt += &format!(" Every spot shows the strongest of {pool} × {pool} correlations.");
    }
    let title = format!("{}: correlation of the features at {}, by group", map.case, map.point);
    let name = format!("correlation-{}-{}", map.case, map.point);
    Ok(Some(Figure::new(Place::Inside(index), &name, &title, &alt, &drawing)))
}

fn colour(network: u32) -> plotters::style::RGBColor {
    SERIES[network as usize % SERIES.len()]
}

/// Where a place of the map is along its sides.
fn along(i: usize, n: usize) -> i32 {
    (SIDE as usize * i).div_euclid(n) as i32
}

/// Beginning and end of every run of equal numbers.
fn runs(numbers: &[u32]) -> Vec<(usize, usize, u32)> {
    let mut runs: Vec<(usize, usize, u32)> = Vec::new();
    for (i, number) in numbers.iter().enumerate() {
        match runs.last_mut() {
            Some((_, end, last)) if last == number => *end = i + 1,
            _ => runs.push((i, i + 1, *number)),
        }
    }
    runs
}

/// A frame around every group of several features; with few groups, lines between them all.
fn outlines(sheet: &Sheet<'_>, map: &HeatMap) -> Result<()> {
    let (n, groups) = (map.group.len(), runs(&map.group));
    if groups.len() <= 24 {
        for (start, ..) in groups.iter().skip(1) {
            let at = along(*start, n);
            line(sheet, &[(LEFT + at, TOP), (LEFT + at, TOP + SIDE)], &faint(BLACK, 0.25), 1)?;
            line(sheet, &[(LEFT, TOP + at), (LEFT + SIDE, TOP + at)], &faint(BLACK, 0.25), 1)?;
        }
    }
    for (start, end, _) in groups.iter().filter(|(start, end, _)| end - start > 1) {
        let (from, to) = (along(*start, n), along(*end, n));
        frame(sheet, [(LEFT + from, TOP + from), (LEFT + to, TOP + to)], &faint(BLACK, 0.7), 1)?;
    }
    frame(sheet, [(LEFT, TOP), (LEFT + SIDE, TOP + SIDE)], &faint(INK, 0.5), 1)
}

/// Which network each feature is of, along two sides.
fn strips(sheet: &Sheet<'_>, map: &HeatMap) -> Result<()> {
    let n = map.network.len();
    for (start, end, network) in runs(&map.network) {
        let (from, to) = (along(start, n), along(end, n));
        fill(sheet, [(LEFT + from, TOP - 10), (LEFT + to, TOP - 3)], &colour(network))?;
        fill(sheet, [(LEFT - 10, TOP + from), (LEFT - 3, TOP + to)], &colour(network))?;
    }
    Ok(())
}

fn scale(sheet: &Sheet<'_>) -> Result<()> {
    const STEPS: i32 = 55;
    let (left, right) = (LEFT + SIDE + 34, LEFT + SIDE + 50);
    for i in 0..STEPS {
        // Each reaches to the end, so that no gap shows between them.
        fill(
            sheet,
            [(left, TOP + SIDE * i / STEPS), (right, TOP + SIDE)],
            &diverging(1.0 - 2.0 * f64::from(i) / f64::from(STEPS - 1)),
        )?;
    }
    frame(sheet, [(left, TOP), (right, TOP + SIDE)], &faint(INK, 0.5), 1)?;
    for (i, text) in ["1", "0.5", "0", "−0.5", "−1"].iter().enumerate() {
        write(sheet, text, &ink(SMALL), Side::Right, (right + 7, TOP + SIDE * i as i32 / 4))?;
    }
    write(sheet, "correlation", &ink(TEXT), Side::Right, (left - 4, TOP - 14))
}

/// One pixel per place, or per `pool` × `pool` places; packed into the SVG, where as many boxes would weigh megabytes.
fn picture(map: &HeatMap, pool: usize) -> Result<String> {
    let n = map.correlation.nrows().div_ceil(pool);
    let strongest = Array2::from_shape_fn((n, n), |(i, j)| {
        let end = |k: usize| ((k + 1) * pool).min(map.correlation.nrows());
        let part =
            (i * pool..end(i)).flat_map(|row| (j * pool..end(j)).map(move |column| map.correlation[(row, column)]));
        part.fold(0.0, |most: f64, r| if r.abs() > most.abs() { r } else { most })
    });
    // Colours that the eye does not tell apart are one: a third of the bytes.
    let pixels: Vec<u8> =
        strongest.iter().map(|r| diverging((r * 24.0).round() / 24.0)).flat_map(|c| [c.0, c.1, c.2]).collect();
    let mut png = Vec::new();
    PngEncoder::new_with_quality(&mut png, CompressionType::Best, FilterType::NoFilter)
        .write_image(&pixels, n as u32, n as u32, ExtendedColorType::Rgb8)
        .map_err(|error| Error::Png(map.point.clone(), error.to_string()))?;
    Ok(format!(
        "<image x=\"{LEFT}\" y=\"{TOP}\" width=\"{SIDE}\" height=\"{SIDE}\" preserveAspectRatio=\"none\" \
         style=\"image-rendering:pixelated\" href=\"data:image/png;base64,{}\"/>\n",
        base64::engine::general_purpose::STANDARD.encode(png)
    ))
}

fn put_below(drawing: &mut Drawing, picture: &str) {
    drawing.body.insert_str(0, picture);
}

fn inside_and_outside(map: &HeatMap) -> String {
    let mut sums = [(0.0, 0_u32); 2];
    for ((i, j), r) in map.correlation.indexed_iter().filter(|((i, j), r)| i != j && r.is_finite()) {
        let sum = &mut sums[usize::from(map.group[i] != map.group[j])];
        *sum = (sum.0 + r, sum.1 + 1);
    }
    let mean = |(sum, n): (f64, u32)| if n == 0 { "none".to_owned() } else { fixed(sum / f64::from(n)) };
    format!("{} on average within groups, {} between them", mean(sums[0]), mean(sums[1]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(n: usize) -> HeatMap {
        HeatMap {
            case: "5 + 5".into(),
            point: "layer1".into(),
            group: (0..n as u32).map(|i| i / 2).collect(),
            network: (0..n as u32).map(|i| i % 2).collect(),
            correlation: Array2::from_shape_fn((n, n), |(i, j)| if i / 2 == j / 2 { 0.8 } else { -0.1 }),
        }
    }

    #[test]
    fn a_map_says_what_it_shows() {
        let figure = figure(&map(8), 0).unwrap().unwrap();
        assert!(
            figure.alt.contains("8 features of 2 networks at layer1, in the order of their 4 groups"),
            "{}",
            figure.alt
        );
        assert!(figure.alt.contains("0.80 on average within groups, -0.10 between"), "{}", figure.alt);
        assert_eq!(runs(&[1, 1, 0]), [(0, 2, 1), (2, 3, 0)]);
    }

    #[test]
    fn what_does_not_fit_is_refused_and_large_maps_are_pooled() {
        assert_eq!(figure(&map(0), 0).unwrap(), None);
        assert!(figure(&map(900), 0).unwrap().unwrap().alt.contains("3 × 3"));
        let torn = HeatMap { group: vec![0], ..map(4) };
        assert!(figure(&torn, 0).unwrap_err().to_string().contains("`layer1`"));
    }
}
