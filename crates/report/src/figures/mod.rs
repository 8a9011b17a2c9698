//! Figures: drawn once as SVG, for the page, for a file of its own and as PNG.

mod axis;
mod bars;
mod choice;
mod classes;
mod correlation;
mod curves;
mod groups;
mod legend;
mod looks;
mod palette;
mod paper;
mod pen;
mod plot;
mod raster;
mod time;

use crate::error::Result;
use crate::numbers::line;
use crate::results::{HeatMap, Results};
use minijinja::HtmlEscape;
use paper::{Drawing, FONTS, INK_HEX, WIDTH, wrapped};
use std::collections::BTreeSet;

/// A figure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Figure {
    /// The stem of its files' names.
    pub name: String,
    /// Its heading.
    pub title: String,
    /// What it shows, with its most important numbers, for those who do not see it.
    pub alt: String,
    /// A file of its own: dark ink on white paper, under the heading.
    pub svg: String,
    /// What part of the page it belongs to.
    pub place: Place,
    /// For the page: without paper and heading, in the page's ink.
    pub inline: String,
}

/// The parts of the page that have figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// All cases together.
    Axis,
    /// The results of a case.
    Case(usize),
    /// What was chosen in a case.
    Choice(usize),
    /// A look into a merged network of a case.
    Inside(usize),
    /// Where the time went.
    Time,
}

impl Figure {
    fn new(place: Place, name: &str, title: &str, alt: &str, drawing: &Drawing) -> Self {
        let (title, alt) = (line(title), line(alt));
        let Drawing { height, body } = drawing;
        let heading = wrapped(&title, 15.0 * 1.08, WIDTH as i32 - 36);
        let above = 20 * heading.len() as u32 + 18;
        let (said, described) = (HtmlEscape(&title), HtmlEscape(&alt));
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{}\" viewBox=\"0 -{above} {WIDTH} {0}\" \
             role=\"img\" font-family=\"{FONTS}\">\n<title>{said}</title>\n<desc>{described}</desc>\n\
             <rect x=\"0\" y=\"-{above}\" width=\"{WIDTH}\" height=\"{0}\" fill=\"#FFFFFF\"/>\n",
            height + above + 8
        );
        for (i, text) in heading.iter().enumerate() {
            let y = 28 + 20 * i as i32 - above as i32;
            svg += &format!(
                "<text x=\"16\" y=\"{y}\" font-size=\"15\" font-weight=\"bold\" fill=\"{INK_HEX}\">{}</text>\n",
                HtmlEscape(text)
            );
        }
        svg += &format!("{body}</svg>\n");
        let inline = format!(
            "<svg viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" role=\"img\" \
             aria-label=\"{described}\">\n{}</svg>",
            body.replace(INK_HEX, "currentColor")
        );
        Self { name: stem(name), title, alt, svg, place, inline }
    }
}

/// Lower-case letters, digits and dashes: safe in every file system.
fn stem(name: &str) -> String {
    let plain: String =
        name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { ' ' }).collect();
    let words: Vec<&str> = plain.split_whitespace().collect();
    if words.is_empty() { "figure".to_owned() } else { words.join("-") }
}

/// Every figure that there is data for, in the order of the page.
///
/// # Errors
/// A heat map whose parts do not fit each other; what plotters cannot draw.
pub fn all(results: &Results, heat_maps: &[HeatMap]) -> Result<Vec<Figure>> {
    let mut figures: Vec<Figure> = Vec::new();
    let looks = curves::looks(results);
    figures.extend(curves::along_axis(results, &looks)?);
    for (i, case) in results.cases.iter().enumerate() {
        figures.extend(curves::of_case(case, i, results.joint, &looks)?);
        figures.extend(classes::figure(case, i)?);
        for choice in &case.choices {
            figures.extend(choice::figure(choice, &case.name, i)?);
        }
        if let Some(shown) = &case.shown {
            figures.extend(groups::kinds(shown, &case.name, i)?);
            figures.extend(groups::sizes(shown, &case.name, i)?);
        }
        for map in heat_maps.iter().filter(|map| map.case == case.name) {
            figures.extend(correlation::figure(map, i)?);
        }
    }
    figures.extend(time::figure(results)?);
    let mut taken = BTreeSet::new();
    for figure in &mut figures {
        let stem = figure.name.clone();
        let mut names = std::iter::once(stem.clone()).chain((2_u32..).map(|i| format!("{stem}-{i}")));
        figure.name = names.find(|name| !taken.contains(name)).unwrap_or(stem);
        taken.insert(figure.name.clone());
    }
    Ok(figures)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invented;
    use ndarray::Array2;

    fn heat_map() -> HeatMap {
        let correlation = Array2::from_shape_fn((6, 6), |(i, j)| if i == j { 1.0 } else { 0.1 });
        let (case, point) = ("5 + 5".into(), "layer1".into());
        HeatMap { case, point, group: vec![0, 0, 1, 1, 2, 3], network: vec![0, 1, 0, 1, 0, 1], correlation }
    }

    #[test]
    fn every_figure_is_there_once_under_a_name_of_its_own() {
        let figures = all(&invented::results(), &[heat_map()]).unwrap();
        let names: Vec<&str> = figures.iter().map(|figure| figure.name.as_str()).collect();
        assert_eq!(
            names,
            [
                "axis",
                "flops-5-5",
                "parameters-5-5",
                "joint-5-5",
                "classes-5-5",
                "choice-5-5",
                "groups-5-5",
                "group-sizes-5-5",
                "correlation-5-5-layer1",
                "flops-3-4-3",
                "parameters-3-4-3",
                "joint-3-4-3",
                "classes-3-4-3",
                "time"
            ]
        );
        let mut twice = invented::results();
        twice.cases[1].name = "5+5".into();
        assert!(all(&twice, &[]).unwrap().iter().any(|figure| figure.name == "flops-5-5-2"));
    }

    #[test]
    fn the_same_results_give_the_same_bytes() {
        let (once, again) = (all(&invented::results(), &[heat_map()]), all(&invented::results(), &[heat_map()]));
        assert_eq!(once.unwrap(), again.unwrap());
    }

    #[test]
    fn what_is_missing_is_not_drawn_and_what_is_no_number_never_printed() {
        let mut results = invented::bare();
        assert_eq!(all(&results, &[]).unwrap().len(), 2);
        for row in &mut results.cases[0].rows {
            row.task_avg.mean = f64::NAN;
        }
        assert_eq!(all(&results, &[]).unwrap(), []);
        results = invented::results();
        results.cases[0].rows[4].task_avg.mean = f64::NAN;
        results.cases[0].rows[5].relative_macs = f64::INFINITY;
        results.time[0].seconds = f64::NAN;
        for figure in all(&results, &[]).unwrap() {
            for text in [&figure.svg, &figure.inline, &figure.alt] {
                assert!(!text.contains("NaN") && !text.contains("inf"), "{}", figure.name);
            }
        }
    }

    #[test]
    fn names_cannot_break_out() {
        let mut results = invented::results();
        results.cases[0].name = "../../<script>alert(\"1\")</script>\u{1}".into();
        results.cases[0].rows[5].model = "<script>\n&".into();
        results.cases[0].shown.as_mut().unwrap().points[0].name = "<b>".into();
        for figure in all(&results, &[]).unwrap() {
            assert!(!figure.svg.contains("<script") && !figure.svg.contains("<b>"), "{}", figure.svg);
            assert!(!figure.name.contains(['/', '.', '<']), "{}", figure.name);
            assert!(figure.png().is_ok(), "{}", figure.name);
        }
    }

    #[test]
    fn the_page_gets_no_paper_and_its_own_ink() {
        for figure in all(&invented::results(), &[heat_map()]).unwrap() {
            assert!(!figure.inline.contains(INK_HEX) && figure.inline.contains("currentColor"), "{}", figure.name);
            assert!(figure.svg.contains("fill=\"#FFFFFF\"") && figure.inline.contains("role=\"img\""));
        }
    }
}
