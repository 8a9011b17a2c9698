//! A chart whose rows have names: numbers along, names down the left side.

use super::axis::Axis;
use super::paper::{INK, SMALL, Sheet, Side, TEXT, WIDTH, bold, draw, fitted, ink, width, write};
use super::pen::{Corners, faint, fill, line};
use super::{legend::Legend, paper::Drawing};
use crate::error::Result;
use plotters::style::RGBColor;

/// The frame of such a chart.
pub struct Rows<'a> {
    /// Along.
    pub x: &'a Axis,
    /// Down; a heading has no mark.
    pub names: &'a [Name],
    /// Room for a text at the end of each row, in pixels.
    pub right: i32,
    /// Below.
    pub legend: &'a Legend,
}

/// What stands before a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Name {
    /// Of the row.
    Row(String),
    /// Over the rows that follow.
    Heading(String),
}

/// Where things are on the sheet.
pub struct Field {
    left: i32,
    right: i32,
    low: f64,
    high: f64,
}

const TOP: i32 = 8;
const STEP: i32 = 20;
const BELOW: i32 = 44;

impl Field {
    /// Where a number stands.
    pub fn x(&self, number: f64) -> i32 {
        self.left + (f64::from(self.right - self.left) * (number - self.low) / (self.high - self.low)).round() as i32
    }

    /// The middle of a row.
    pub fn y(row: usize) -> i32 {
        TOP + STEP * row as i32 + STEP / 2
    }

    /// A box in a row from one number to another.
    pub fn bar(&self, row: usize, from: f64, to: f64) -> Corners {
        [(self.x(from), Self::y(row) - 7), (self.x(to), Self::y(row) + 7)]
    }
}

impl Rows<'_> {
    /// The chart with what `paint` puts into it.
    pub fn draw(&self, paint: impl FnOnce(&Sheet<'_>, &Field) -> Result<()>) -> Result<Drawing> {
        let bottom = TOP + STEP * self.names.len() as i32;
        draw((bottom + BELOW) as u32 + self.legend.height(), |sheet| {
            let field = self.axes(sheet, bottom)?;
            paint(sheet, &field)?;
            self.legend.draw(sheet, bottom + BELOW + 4)
        })
    }

    fn axes(&self, sheet: &Sheet<'_>, bottom: i32) -> Result<Field> {
        const ROOM: i32 = 180;
        let widest = self.names.iter().map(|name| match name {
            Name::Row(name) => width(&fitted(name, SMALL, ROOM), SMALL),
            Name::Heading(_) => 60,
        });
        let left = widest.max().unwrap_or(0) + 18;
        let field = Field { left, right: WIDTH as i32 - 16 - self.right, low: self.x.low, high: self.x.high };
        for (at, text) in &self.x.ticks {
            let x = field.x(*at);
            line(sheet, &[(x, TOP), (x, bottom + 4)], &faint(INK, 0.12), 1)?;
            write(sheet, text, &ink(SMALL), Side::Middle, (x, bottom + 13))?;
        }
        write(sheet, &self.x.title, &ink(TEXT), Side::Middle, (i32::midpoint(field.left, field.right), bottom + 32))?;
        for (row, name) in self.names.iter().enumerate() {
            match name {
                Name::Row(name) => {
                    let name = fitted(name, SMALL, ROOM);
                    write(sheet, &name, &ink(SMALL), Side::Left, (left - 8, Field::y(row)))?;
                }
                Name::Heading(name) => {
                    let name = fitted(name, SMALL, WIDTH as i32 - 40);
                    write(sheet, &name, &bold(SMALL, INK), Side::Right, (10, Field::y(row)))?;
                }
            }
        }
        line(sheet, &[(left, TOP), (left, bottom)], &faint(INK, 0.5), 1)?;
        Ok(field)
    }
}

/// Boxes of one row, one after the other.
pub fn stack(sheet: &Sheet<'_>, field: &Field, row: usize, parts: &[(f64, RGBColor)]) -> Result<()> {
    let mut from = 0.0;
    for (length, colour) in parts.iter().filter(|(length, _)| *length > 0.0) {
        fill(sheet, field.bar(row, from, from + length), colour)?;
        from += length;
    }
    Ok(())
}
