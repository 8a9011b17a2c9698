//! What is drawn on paper: lines, boxes and marks, in pixels.

use super::paper::Sheet;
use crate::error::{Error, Result};
use plotters::element::{Circle, DashedPathElement, PathElement, Polygon, Rectangle};
use plotters::style::{Color, RGBAColor, RGBColor, ShapeStyle};

/// From top left to bottom right.
pub type Corners = [(i32, i32); 2];

/// A colour through which what is below shows.
pub fn faint(colour: RGBColor, share: f64) -> RGBAColor {
    colour.mix(share)
}

/// A line through points.
pub fn line(sheet: &Sheet<'_>, points: &[(i32, i32)], colour: &impl Color, width: u32) -> Result<()> {
    sheet.draw(&PathElement::new(points, colour.stroke_width(width))).map_err(Error::draw)
}

/// A line of dashes.
pub fn dashes(sheet: &Sheet<'_>, ends: Corners, colour: &impl Color, [dash, gap]: [i32; 2]) -> Result<()> {
    let style: ShapeStyle = colour.stroke_width(2);
    sheet.draw(&DashedPathElement::new(ends, dash, gap, style)).map_err(Error::draw)
}

/// A box.
pub fn fill(sheet: &Sheet<'_>, corners: Corners, colour: &impl Color) -> Result<()> {
    sheet.draw(&Rectangle::new(corners, colour.filled())).map_err(Error::draw)
}

/// The outline of a box.
pub fn frame(
    sheet: &Sheet<'_>,
    [(left, top), (right, bottom)]: Corners,
    colour: &impl Color,
    width: u32,
) -> Result<()> {
    line(sheet, &[(left, top), (right, top), (right, bottom), (left, bottom), (left, top), (right, top)], colour, width)
}

/// The shapes that tell lines apart where colour does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    Disc,
    Square,
    Triangle,
    Diamond,
    Upended,
    Ring,
    Plus,
    Cross,
    Dot,
}

/// As many as there are colours for lines.
pub const SHAPES: [Shape; 8] = [
    Shape::Disc,
    Shape::Square,
    Shape::Triangle,
    Shape::Diamond,
    Shape::Upended,
    Shape::Ring,
    Shape::Plus,
    Shape::Cross,
];

/// A mark at a point.
pub fn mark(sheet: &Sheet<'_>, shape: Shape, (x, y): (i32, i32), colour: RGBColor) -> Result<()> {
    let polygon = |points: &[(i32, i32)]| {
        let points: Vec<_> = points.iter().map(|(dx, dy)| (x + dx, y + dy)).collect();
        sheet.draw(&Polygon::new(points, colour.filled())).map_err(Error::draw)
    };
    let stroke = |a: (i32, i32), b: (i32, i32)| line(sheet, &[(x + a.0, y + a.1), (x + b.0, y + b.1)], &colour, 3);
    match shape {
        Shape::Disc => sheet.draw(&Circle::new((x, y), 5, colour.filled())).map_err(Error::draw),
        Shape::Dot => sheet.draw(&Circle::new((x, y), 3, colour.filled())).map_err(Error::draw),
        Shape::Ring => sheet.draw(&Circle::new((x, y), 4, colour.stroke_width(2))).map_err(Error::draw),
        Shape::Square => polygon(&[(-4, -4), (5, -4), (5, 5), (-4, 5)]),
        Shape::Triangle => polygon(&[(0, -6), (6, 5), (-6, 5)]),
        Shape::Upended => polygon(&[(0, 6), (6, -5), (-6, -5)]),
        Shape::Diamond => polygon(&[(0, -6), (6, 0), (0, 6), (-6, 0)]),
        Shape::Plus => stroke((-5, 0), (5, 0)).and_then(|()| stroke((0, -5), (0, 5))),
        Shape::Cross => stroke((-4, -4), (4, 4)).and_then(|()| stroke((-4, 4), (4, -4))),
    }
}
