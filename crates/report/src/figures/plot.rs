//! Accuracies against a number: lines with error bars, levels across, and a legend.

use super::axis::{Axis, Scale};
use super::legend::{Legend, Sample};
use super::palette::{GREY, SERIES};
use super::paper::{Drawing, INK, SMALL, Sheet, TEXT, draw, ink};
use super::pen::{SHAPES, Shape, dashes, faint, line, mark};
use crate::error::{Error, Result};
use crate::results::Stat;
use plotters::chart::ChartBuilder;
use plotters::style::RGBColor;

/// One accuracy at one place.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// Along.
    pub x: f64,
    /// Share in 0…1.
    pub mean: f64,
    /// Its standard deviation.
    pub std: Option<f64>,
}

impl Point {
    /// `None` where it is not a number.
    pub fn new(x: f64, stat: &Stat) -> Option<Self> {
        let point = Self { x, mean: stat.mean, std: stat.std.filter(|std| std.is_finite() && *std > 0.0) };
        (x.is_finite() && stat.mean.is_finite()).then_some(point)
    }

    fn ends(self) -> [f64; 2] {
        let std = self.std.unwrap_or(0.0);
        [(self.mean - std).max(0.0), (self.mean + std).min(1.0)]
    }
}

/// Points that belong together.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Line {
    /// What it is called.
    pub name: String,
    /// What it has in common with lines of other figures.
    pub kind: String,
    /// Which colour and shape.
    pub look: usize,
    /// From left to right.
    pub points: Vec<Point>,
}

/// An accuracy whatever the place.
#[derive(Debug, Clone, PartialEq)]
pub struct Level {
    /// What it is called.
    pub name: String,
    /// Share in 0…1.
    pub share: f64,
    /// Dash and gap.
    pub pattern: [i32; 2],
}

/// A whole plot.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plot {
    /// Along.
    pub x: Axis,
    /// What the accuracies are.
    pub y_title: String,
    /// At most as many as there are colours.
    pub lines: Vec<Line>,
    /// What the lines are compared with.
    pub reference: Option<Line>,
    /// Those of which there are too many to name.
    pub others: Vec<Point>,
    /// Across.
    pub levels: Vec<Level>,
}

/// So many lines can be told apart.
pub const MAX_LINES: usize = SERIES.len();
const HEIGHT: u32 = 360;
/// Dash and gap of the ensemble's line.
pub const DASHES: [i32; 2] = [9, 5];

impl Plot {
    /// `None` without a point.
    pub fn draw(&self) -> Result<Option<Drawing>> {
        let points = self.lines.iter().chain(&self.reference).flat_map(|line| &line.points).chain(&self.others);
        let ends = points.flat_map(|point| point.ends());
        let shares: Vec<f64> = ends.chain(self.levels.iter().map(|level| level.share)).collect();
        if self.lines.iter().all(|line| line.points.is_empty()) {
            return Ok(None);
        }
        let Some((y, scale)) = Axis::accuracy(&self.y_title, &shares) else { return Ok(None) };
        let legend = self.legend();
        draw(HEIGHT + legend.height(), |sheet| {
            self.paint(sheet, &y, scale)?;
            legend.draw(sheet, HEIGHT as i32 + 4)
        })
        .map(Some)
    }

    fn legend(&self) -> Legend {
        let lines = self.looks().map(|(line, shape, colour)| {
            let sample = if line.points.len() > 1 { Sample::Line(shape, colour) } else { Sample::Mark(shape, colour) };
            (sample, line.name.clone())
        });
        let others = (!self.others.is_empty()).then(|| (Sample::Mark(Shape::Dot, GREY), "other rows".to_owned()));
        let levels = self.levels.iter().map(|level| (Sample::Dashes(level.pattern), level.name.clone()));
        let reference = self.reference.iter().map(|line| (Sample::Dashes(DASHES), line.name.clone()));
        Legend::new(lines.chain(others).chain(levels).chain(reference))
    }

    fn looks(&self) -> impl Iterator<Item = (&Line, Shape, RGBColor)> {
        self.lines.iter().map(|line| (line, SHAPES[line.look % MAX_LINES], SERIES[line.look % MAX_LINES]))
    }

    fn paint(&self, sheet: &Sheet<'_>, y: &Axis, scale: Scale) -> Result<()> {
        let (top, _) = sheet.split_vertically(HEIGHT);
        let mut chart = ChartBuilder::on(&top)
            .margin_top(10)
            .margin_right(16)
            .margin_left(6)
            .x_label_area_size(44)
            .y_label_area_size(58)
            .build_cartesian_2d(self.x.clone(), y.clone())
            .map_err(Error::draw)?;
        chart
            .configure_mesh()
            .light_line_style(faint(INK, 0.0))
            .bold_line_style(faint(INK, 0.12))
            .axis_style(faint(INK, 0.5))
            .label_style(ink(SMALL))
            .axis_desc_style(ink(TEXT))
            .x_desc(self.x.title.as_str())
            .y_desc(y.title.as_str())
            .draw()
            .map_err(Error::draw)?;
        let place = |x: f64, share: f64| chart.backend_coord(&(x, scale.at(share)));
        for level in &self.levels {
            let ends = [place(self.x.low, level.share), place(self.x.high, level.share)];
            dashes(sheet, ends, &INK, level.pattern)?;
        }
        if let Some(Line { points, .. }) = &self.reference {
            for ends in points.windows(2) {
                dashes(sheet, [place(ends[0].x, ends[0].mean), place(ends[1].x, ends[1].mean)], &INK, DASHES)?;
            }
            for point in points {
                bar(sheet, point.ends().map(|share| place(point.x, share)), INK)?;
                mark(sheet, Shape::Dot, place(point.x, point.mean), INK)?;
            }
        }
        for point in &self.others {
            bar(sheet, point.ends().map(|share| place(point.x, share)), GREY)?;
            mark(sheet, Shape::Dot, place(point.x, point.mean), GREY)?;
        }
        for (drawn, shape, colour) in self.looks() {
            let places: Vec<(i32, i32)> = drawn.points.iter().map(|point| place(point.x, point.mean)).collect();
            if places.len() > 1 {
                line(sheet, &places, &colour, 2)?;
            }
            for (point, at) in drawn.points.iter().zip(places) {
                bar(sheet, point.ends().map(|share| place(point.x, share)), colour)?;
                mark(sheet, shape, at, colour)?;
            }
        }
        Ok(())
    }
}

/// From one end to the other of what one standard deviation spans.
fn bar(sheet: &Sheet<'_>, [low, high]: [(i32, i32); 2], colour: RGBColor) -> Result<()> {
    if low.1 == high.1 {
        return Ok(());
    }
    for (x, y) in [low, high] {
        line(sheet, &[(x - 4, y), (x + 4, y)], &colour, 1)?;
    }
    line(sheet, &[low, high], &colour, 1)
}
