//! Colours that the colour-blind can tell apart, on white paper and on a dark page.

use plotters::style::RGBColor;

/// For lines and marks: Okabe and Ito's hues, the light ones darkened until they show on white.
pub const SERIES: [RGBColor; 8] = [
    RGBColor(0x00, 0x72, 0xb2),
    RGBColor(0xd5, 0x5e, 0x00),
    RGBColor(0x00, 0x96, 0x6d),
    RGBColor(0xc4, 0x66, 0x9c),
    RGBColor(0xae, 0x7a, 0x00),
    RGBColor(0x35, 0x8f, 0xc9),
    RGBColor(0x82, 0x6b, 0xc8),
    RGBColor(0x8a, 0x6b, 0x58),
];
/// For what is there but not meant.
pub const GREY: RGBColor = RGBColor(0x80, 0x83, 0x89);
/// On a light colour.
pub const BLACK: RGBColor = RGBColor(0, 0, 0);
/// On a dark colour.
pub const WHITE: RGBColor = RGBColor(255, 255, 255);

/// From −1, blue, over 0, white, to 1, brown.
const DIVERGING: [RGBColor; 7] = [
    RGBColor(0x08, 0x3d, 0x77),
    RGBColor(0x2f, 0x7e, 0xbc),
    RGBColor(0xa3, 0xcc, 0xe3),
    RGBColor(0xf7, 0xf7, 0xf7),
    RGBColor(0xfd, 0xbe, 0x85),
    RGBColor(0xe0, 0x6a, 0x10),
    RGBColor(0x8a, 0x32, 0x03),
];
/// From little to much.
const SEQUENTIAL: [RGBColor; 5] = [
    RGBColor(0xed, 0xf3, 0xf9),
    RGBColor(0xbc, 0xd7, 0xeb),
    RGBColor(0x6b, 0xab, 0xd6),
    RGBColor(0x2a, 0x74, 0xb5),
    RGBColor(0x08, 0x3d, 0x77),
];

/// The colour of a number in −1…1; of what is no number, grey.
pub fn diverging(x: f64) -> RGBColor {
    between(&DIVERGING, f64::midpoint(x, 1.0))
}

/// The colour of a number in 0…1; of what is no number, grey.
pub fn sequential(x: f64) -> RGBColor {
    between(&SEQUENTIAL, x)
}

fn between(stops: &[RGBColor], x: f64) -> RGBColor {
    if !x.is_finite() {
        return GREY;
    }
    let place = x.clamp(0.0, 1.0) * (stops.len() - 1) as f64;
    let i = (place as usize).min(stops.len() - 2);
    let (a, b, t) = (stops[i], stops[i + 1], place - i as f64);
    let mix = |a: u8, b: u8| (f64::from(a) + t * (f64::from(b) - f64::from(a))).round() as u8;
    RGBColor(mix(a.0, b.0), mix(a.1, b.1), mix(a.2, b.2))
}

/// Black or white, whichever is easier to read on it.
pub fn on(colour: RGBColor) -> RGBColor {
    if contrast(colour, BLACK) >= contrast(colour, WHITE) { BLACK } else { WHITE }
}

/// As WCAG defines it, 1…21.
pub fn contrast(a: RGBColor, b: RGBColor) -> f64 {
    let (a, b) = (luminance(a), luminance(b));
    (a.max(b) + 0.05) / (a.min(b) + 0.05)
}

fn luminance(colour: RGBColor) -> f64 {
    let linear = |c: u8| {
        let c = f64::from(c) / 255.0;
        if c <= 0.040_45 { c / 12.92 } else { ((c + 0.055) / 1.055).powf(2.4) }
    };
    0.2126 * linear(colour.0) + 0.7152 * linear(colour.1) + 0.0722 * linear(colour.2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mark_shows_on_light_and_dark_pages() {
        for colour in SERIES.into_iter().chain([GREY]) {
            for page in [WHITE, RGBColor(0x14, 0x16, 0x1a)] {
                assert!(contrast(colour, page) >= 3.0, "{colour:?} on {page:?}: {}", contrast(colour, page));
            }
        }
    }

    #[test]
    fn numbers_in_cells_can_be_read() {
        for i in 0..=100 {
            let cell = sequential(f64::from(i) / 100.0);
            assert!(contrast(cell, on(cell)) >= 4.5, "{i}");
        }
        assert_eq!(sequential(f64::NAN), GREY);
        assert_eq!((diverging(0.0), diverging(-2.0)), (DIVERGING[3], DIVERGING[0]));
    }
}
