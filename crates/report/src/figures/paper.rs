//! The paper that figures are drawn on: ink, type, and a sheet that becomes SVG.

use crate::error::{Error, Result};
use plotters::coord::Shift;
use plotters::prelude::{DrawingArea, IntoDrawingArea, RGBColor, SVGBackend};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{FontDesc, FontFamily, FontStyle, TextStyle, register_font};
use std::sync::LazyLock;

/// The one colour of text and axes. No other mark has it, so that a page can turn it into the text's colour.
pub const INK: RGBColor = RGBColor(0x1d, 0x1f, 0x23);
/// The same as plotters spells it.
pub const INK_HEX: &str = "#1D1F23";
/// What text is set in; the first one is built in.
pub const FONTS: &str = "DejaVu Sans, Verdana, sans-serif";
/// Width of every figure.
pub const WIDTH: u32 = 640;
/// Height of ordinary text.
pub const TEXT: f64 = 12.0;
/// Of what is beside the point.
pub const SMALL: f64 = 11.0;

/// What is drawn on.
pub type Sheet<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// What was drawn: the inside of an SVG element.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drawing {
    /// In pixels; it is [`WIDTH`] wide.
    pub height: u32,
    /// SVG elements.
    pub body: String,
}

static REGISTERED: LazyLock<bool> = LazyLock::new(|| {
    let regular = register_font(FONTS, FontStyle::Normal, dejavu::sans::regular());
    let bold = register_font(FONTS, FontStyle::Bold, dejavu::sans::bold());
    regular.is_ok() && bold.is_ok()
});

/// A drawing of that height.
pub fn draw(height: u32, paint: impl FnOnce(&Sheet<'_>) -> Result<()>) -> Result<Drawing> {
    if !*REGISTERED {
        return Err(Error::Draw("the built-in font cannot be read".to_owned()));
    }
    let mut svg = String::new();
    {
        let sheet = SVGBackend::with_string(&mut svg, (WIDTH, height)).into_drawing_area();
        paint(&sheet)?;
        sheet.present().map_err(Error::draw)?;
    }
    let inside = svg.split_once(">\n").and_then(|(_, rest)| rest.rsplit_once("</svg>"));
    let (body, _) = inside.ok_or_else(|| Error::Draw("plotters wrote no SVG".to_owned()))?;
    // The family is said once, around everything.
    Ok(Drawing { height, body: body.replace(&format!(" font-family=\"{FONTS}\""), "") })
}

impl Error {
    /// What plotters says.
    pub fn draw(error: impl std::fmt::Display) -> Self {
        Self::Draw(error.to_string())
    }
}

fn font(size: f64, style: FontStyle) -> FontDesc<'static> {
    // plotters divides by this again where it writes SVG.
    FontDesc::new(FontFamily::Name(FONTS), size * 1.24, style)
}

/// Ink of that size.
pub fn ink(size: f64) -> TextStyle<'static> {
    font(size, FontStyle::Normal).color(&INK)
}

/// The same in another colour.
pub fn coloured(size: f64, colour: RGBColor) -> TextStyle<'static> {
    font(size, FontStyle::Normal).color(&colour)
}

/// Bold ink, or of another colour.
pub fn bold(size: f64, colour: RGBColor) -> TextStyle<'static> {
    font(size, FontStyle::Bold).color(&colour)
}

/// Where a text stands beside its point, horizontally; it is centred vertically.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// To the right of it.
    Right,
    /// To the left of it.
    Left,
    /// Over it.
    Middle,
}

impl Side {
    /// What a text that stands there is anchored by.
    pub fn anchor(self) -> Pos {
        let h_pos = match self {
            Self::Right => HPos::Left,
            Self::Left => HPos::Right,
            Self::Middle => HPos::Center,
        };
        Pos::new(h_pos, VPos::Center)
    }
}

/// Writes a text.
pub fn write(sheet: &Sheet<'_>, text: &str, style: &TextStyle<'_>, side: Side, at: (i32, i32)) -> Result<()> {
    sheet.draw_text(text, &style.pos(side.anchor()), at).map_err(Error::draw)
}

/// How wide a text is.
pub fn width(text: &str, size: f64) -> i32 {
    let measured = if *REGISTERED { font(size, FontStyle::Normal).box_size(text).ok() } else { None };
    measured.map_or((text.chars().count() as f64 * size * 0.65) as i32, |(w, _)| w as i32)
}

/// The text, shortened to fit.
pub fn fitted(text: &str, size: f64, room: i32) -> String {
    let text = crate::numbers::line(text);
    if width(&text, size) <= room {
        return text;
    }
    let letters: Vec<char> = text.chars().collect();
    let short = |n: usize| letters[..n].iter().collect::<String>().trim_end().to_owned() + "…";
    let n = (1..letters.len()).rev().find(|n| width(&short(*n), size) <= room).unwrap_or(1);
    short(n.min(letters.len()))
}

/// The text in lines that fit.
pub fn wrapped(text: &str, size: f64, room: i32) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in crate::numbers::line(text).split_whitespace() {
        match lines.last_mut() {
            Some(last) if width(&format!("{last} {word}"), size) <= room => *last += &format!(" {word}"),
            _ => lines.push(fitted(word, size, room)),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ink_is_spelled_as_plotters_does() {
        let drawing = draw(20, |sheet| write(sheet, "a < b", &ink(TEXT), Side::Right, (0, 10))).unwrap();
        assert!(drawing.body.contains(&format!("fill=\"{INK_HEX}\"")), "{}", drawing.body);
        assert!(drawing.body.contains("a &lt; b") && !drawing.body.contains("font-family"));
    }

    #[test]
    fn what_is_too_long_is_shortened() {
        assert_eq!(fitted("short", TEXT, 200), "short");
        let long = fitted("a name that is much too long", TEXT, 80);
        assert!(long.ends_with('…') && width(&long, TEXT) <= 80, "{long}");
        assert_eq!(wrapped("one two three", TEXT, 55).len(), 2);
        assert_eq!(fitted("", TEXT, 0), "");
    }
}
