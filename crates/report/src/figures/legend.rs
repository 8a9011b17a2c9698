//! What the marks of a figure mean, in rows below it.

use super::paper::{INK, Sheet, Side, TEXT, WIDTH, fitted, ink, width, write};
use super::pen::{Shape, dashes, fill, line, mark};
use crate::error::Result;
use plotters::style::RGBColor;

/// What stands before a name.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Sample {
    /// A line with marks.
    Line(Shape, RGBColor),
    /// A mark.
    Mark(Shape, RGBColor),
    /// Dashes and gaps of ink.
    Dashes([i32; 2]),
    /// A box.
    Box(RGBColor),
}

const ROW: i32 = 20;
const LEFT: i32 = 16;
const SAMPLE: i32 = 34;
const GAP: i32 = 20;

/// Names and where they stand.
#[derive(Debug, Clone, PartialEq)]
pub struct Legend {
    entries: Vec<(Sample, String, (i32, i32))>,
    rows: i32,
}

impl Legend {
    /// In as many rows as it takes.
    pub fn new(entries: impl IntoIterator<Item = (Sample, String)>) -> Self {
        let room = WIDTH as i32 - 2 * LEFT;
        let (mut x, mut row, mut placed) = (0, 0, Vec::new());
        for (sample, name) in entries {
            let name = fitted(&name, TEXT, room - SAMPLE);
            let wide = SAMPLE + width(&name, TEXT);
            if x > 0 && x + wide > room {
                (x, row) = (0, row + 1);
            }
            placed.push((sample, name, (LEFT + x, row)));
            x += wide + GAP;
        }
        Self { rows: if placed.is_empty() { 0 } else { row + 1 }, entries: placed }
    }

    /// In pixels, with the space above it.
    pub fn height(&self) -> u32 {
        if self.rows == 0 { 0 } else { (self.rows * ROW + 10) as u32 }
    }

    /// Below `top`.
    pub fn draw(&self, sheet: &Sheet<'_>, top: i32) -> Result<()> {
        for (sample, name, (x, row)) in &self.entries {
            let (x, y) = (*x, top + row * ROW + ROW / 2);
            let (middle, end) = (x + 13, x + 26);
            match *sample {
                Sample::Line(shape, colour) => {
                    line(sheet, &[(x, y), (end, y)], &colour, 2)?;
                    mark(sheet, shape, (middle, y), colour)?;
                }
                Sample::Mark(shape, colour) => mark(sheet, shape, (middle, y), colour)?,
                Sample::Dashes(pattern) => dashes(sheet, [(x, y), (end, y)], &INK, pattern)?,
                Sample::Box(colour) => fill(sheet, [(x + 8, y - 6), (x + 22, y + 6)], &colour)?,
            }
            write(sheet, name, &ink(TEXT), Side::Right, (x + SAMPLE, y))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_on_in_the_next_row_and_stay_on_the_sheet() {
        let entry = |i: usize| (Sample::Mark(Shape::Dot, INK), format!("a rather long name of a line, number {i}"));
        let legend = Legend::new((0..5).map(entry));
        assert!(legend.rows > 1);
        assert!(legend.entries.iter().all(|(_, name, (x, _))| x + SAMPLE + width(name, TEXT) <= WIDTH as i32));
        assert_eq!(Legend::new([]).height(), 0);
    }
}
