//! What a network expects of an image: part of the network, as its weights are.

use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fmt;

/// How pixels are found between pixels: Pillow's filters, antialiased where an image shrinks (except `nearest`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Interpolation {
    /// The one pixel that lies nearest.
    Nearest,
    /// The mean over what a pixel covers.
    Box,
    /// A triangle of support 1.
    #[default]
    Bilinear,
    /// A windowed sinc of support 1.
    Hamming,
    /// Cubic convolution with a = −0.5, support 2.
    Bicubic,
    /// A sinc windowed by its own first lobe, support 3.
    Lanczos,
}

/// How an image of any shape becomes one of the network's, in timm's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Crop {
    /// Resized so that it covers `resize`, its shape kept; `size` is cut from the centre.
    #[default]
    Center,
    /// Resized to exactly `resize`, its shape lost; `size` is cut from the centre.
    Squash,
    /// Resized so that it fits into `resize`, its shape kept; `size` is cut from the centre, or filled up around it.
    Border,
}

impl Interpolation {
    /// All, in the order of their supports.
    pub const ALL: [Self; 6] = [Self::Nearest, Self::Box, Self::Bilinear, Self::Hamming, Self::Bicubic, Self::Lanczos];

    /// Its name on the command line and in files.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Nearest => "nearest",
            Self::Box => "box",
            Self::Bilinear => "bilinear",
            Self::Hamming => "hamming",
            Self::Bicubic => "bicubic",
            Self::Lanczos => "lanczos",
        }
    }
}

impl Crop {
    /// All.
    pub const ALL: [Self; 3] = [Self::Center, Self::Squash, Self::Border];

    /// Its name on the command line and in files.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Center => "center",
            Self::Squash => "squash",
            Self::Border => "border",
        }
    }
}

impl fmt::Display for Interpolation {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for Crop {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a network expects of an image: `[C, H, W]`, resized and cropped, scaled to 0…1, then `(x - mean) / std` per channel.
///
/// Two are equal where they mean the same, however that is spelt.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(try_from = "Spelled", into = "Spelled")]
pub struct Preprocess {
    /// Height and width the network sees.
    pub size: [usize; 2],
    /// Height and width that [`Crop`] resizes to before `size` is cut out; `None`: `size` itself.
    pub resize: Option<[usize; 2]>,
    /// The filter of resizing.
    pub interpolation: Interpolation,
    /// What is kept where an image has another shape.
    pub crop: Crop,
    /// The colour around an image that does not fill `size` ([`Crop::Border`]), a byte per channel; `None`: the mean.
    pub fill: Option<Vec<u8>>,
    /// Mean per channel, of values in 0…1. Its length is the number of channels.
    pub mean: Vec<f32>,
    /// Standard deviation per channel.
    pub std: Vec<f32>,
}

impl Preprocess {
    /// Bilinear, covering `size`, cut from the centre.
    #[must_use]
    pub fn new(size: [usize; 2], mean: Vec<f32>, std: Vec<f32>) -> Self {
        let (interpolation, crop) = (Interpolation::default(), Crop::default());
        Self { size, resize: None, interpolation, crop, fill: None, mean, std }
    }

    /// Number of channels.
    #[must_use]
    pub fn channels(&self) -> usize {
        self.mean.len()
    }

    /// Height and width before the crop.
    #[must_use]
    pub fn resized(&self) -> [usize; 2] {
        self.resize.unwrap_or(self.size)
    }

    /// The colour around an image that does not fill `size`: `fill`, or `round(255 · mean)` with halves to even.
    #[must_use]
    pub fn fill(&self) -> Vec<u8> {
        // A mean is taken as it is written, so that 0.3 · 255 is a half here as in Python.
        let written = |mean: &f32| mean.to_string().parse::<f64>().unwrap_or_default();
        let byte = |mean: &f32| (255.0 * written(mean)).round_ties_even() as u8;
        self.fill.clone().unwrap_or_else(|| self.mean.iter().map(byte).collect())
    }

    /// Sizes, fill, means and standard deviations that make sense together.
    ///
    /// # Errors
    /// In words, whatever does not.
    pub fn validate(&self) -> Result<()> {
        let refuse = |reason: String| Err(Error::Request(format!("preprocessing: {reason}")));
        if self.mean.is_empty() || self.mean.len() != self.std.len() {
            return refuse(format!(
                "{} means and {} standard deviations; it needs one of each per channel",
                self.mean.len(),
                self.std.len()
            ));
        }
        if self.mean.iter().any(|m| !m.is_finite()) || self.std.iter().any(|s| !s.is_finite() || *s <= 0.0) {
            return refuse(format!("mean {:?} and std {:?} must be finite, std positive", self.mean, self.std));
        }
        let ([h, w], [to_h, to_w]) = (self.size, self.resized());
        if h * w * to_h * to_w == 0 {
            return refuse(format!("size {h}×{w} with resize {to_h}×{to_w} leaves no image"));
        }
        if self.crop != Crop::Border && (to_h < h || to_w < w) {
            return refuse(format!(
                "{h}×{w} cannot be cut from an image resized to {to_h}×{to_w}: resize to {} or more, or crop `border`",
                h.max(w)
            ));
        }
        match &self.fill {
            Some(_) if self.crop != Crop::Border => {
                refuse(format!("crop `{}` leaves nothing to fill: only `border` has a fill", self.crop))
            }
            Some(fill) if fill.len() != self.channels() => {
                refuse(format!("fill {fill:?} for {} channels; it needs a byte for each", self.channels()))
            }
            _ => Ok(()),
        }
    }

    /// What is not the same: field, own, other.
    #[must_use]
    pub fn differences(&self, other: &Self) -> Vec<(&'static str, String, String)> {
        let facts = |p: &Self| {
            [
                ("size", sides(p.size)),
                ("resize", sides(p.resized())),
                ("interpolation", p.interpolation.to_string()),
                ("crop", p.crop.to_string()),
                ("fill", if p.crop == Crop::Border { format!("{:?}", p.fill()) } else { "none".to_owned() }),
                ("mean", format!("{:?}", p.mean)),
                ("std", format!("{:?}", p.std)),
            ]
        };
        let both = facts(self).into_iter().zip(facts(other));
        both.filter(|((_, a), (_, b))| a != b).map(|((field, a), (_, b))| (field, a, b)).collect()
    }
}

impl PartialEq for Preprocess {
    fn eq(&self, other: &Self) -> bool {
        self.size == other.size
            && self.resized() == other.resized()
            && (self.interpolation, self.crop) == (other.interpolation, other.crop)
            && (&self.mean, &self.std) == (&other.mean, &other.std)
            && (self.crop != Crop::Border || self.fill() == other.fill())
    }
}

fn sides([h, w]: [usize; 2]) -> String {
    format!("{h}×{w}")
}

/// In a line, for people: `covers 256×256 (bicubic), centre 224×224, mean […], std […]`.
impl fmt::Display for Preprocess {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let (to, size) = (sides(self.resized()), sides(self.size));
        let resized = match self.crop {
            Crop::Center => "covering",
            Crop::Squash => "squashed to",
            Crop::Border => "fitted into",
        };
        write!(f, "{resized} {to} ({}), ", self.interpolation)?;
        if to != size {
            write!(f, "centre {size}, ")?;
        }
        if self.crop == Crop::Border {
            write!(f, "filled with {:?}, ", self.fill())?;
        }
        write!(f, "mean {:?}, std {:?}", self.mean, self.std)
    }
}

/// As files spell it: what is so by default is left out; `resize` of two equal sides is one number.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Spelled {
    size: [usize; 2],
    #[serde(default, skip_serializing_if = "Option::is_none")]
    resize: Option<Sides>,
    #[serde(default, skip_serializing_if = "is_default")]
    interpolation: Interpolation,
    #[serde(default, skip_serializing_if = "is_default")]
    crop: Crop,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    fill: Option<Vec<u8>>,
    mean: Vec<f32>,
    std: Vec<f32>,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(untagged, expecting = "resize is a number of pixels, or a height and a width")]
enum Sides {
    Both(usize),
    Each([usize; 2]),
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl TryFrom<Spelled> for Preprocess {
    type Error = Error;

    fn try_from(spelled: Spelled) -> Result<Self> {
        let Spelled { size, resize, interpolation, crop, fill, mean, std } = spelled;
        let resize = resize.map(|sides| match sides {
            Sides::Both(side) => [side; 2],
            Sides::Each(sides) => sides,
        });
        let read = Self { size, resize, interpolation, crop, fill, mean, std };
        read.validate()?;
        Ok(read)
    }
}

impl From<Preprocess> for Spelled {
    fn from(p: Preprocess) -> Self {
        let fill = p.fill.clone().filter(|fill| *fill != Preprocess { fill: None, ..p.clone() }.fill());
        let resize = p.resize.filter(|&to| to != p.size);
        let resize = resize.map(|[h, w]| if h == w { Sides::Both(h) } else { Sides::Each([h, w]) });
        let Preprocess { size, interpolation, crop, mean, std, .. } = p;
        Self { size, resize, interpolation, crop, fill, mean, std }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{Crop, Interpolation, Preprocess};

    fn read(json: &str) -> Result<Preprocess, String> {
        serde_json::from_str(json).map_err(|e| e.to_string())
    }

    #[test]
    fn only_what_is_not_so_by_default_is_written() {
        let old = r#"{"size":[224,224],"resize":256,"mean":[0.5],"std":[0.25]}"#;
        let plain = Preprocess { resize: Some([256, 256]), ..Preprocess::new([224, 224], vec![0.5], vec![0.25]) };
        assert_eq!(read(old).unwrap(), plain);
        assert_eq!(serde_json::to_string(&plain).unwrap(), old);
        let full = r#"{"size":[8,6],"resize":[10,9],"interpolation":"bicubic","crop":"border","fill":[7],"mean":[0.5],"std":[0.25]}"#;
        let read_full = read(full).unwrap();
        assert_eq!((read_full.interpolation, read_full.crop), (Interpolation::Bicubic, Crop::Border));
        assert_eq!(serde_json::to_string(&read_full).unwrap(), full);
    }

    #[test]
    fn equal_meanings_are_equal() {
        let plain = r#"{"size":[8,8],"crop":"border","mean":[0.5],"std":[1.0]}"#;
        let spelt = r#"{"size":[8,8],"resize":8,"interpolation":"bilinear","crop":"border","fill":[128],"mean":[0.5],"std":[1]}"#;
        assert_eq!(read(plain), read(spelt));
        assert_eq!(serde_json::to_string(&read(spelt).unwrap()).unwrap(), plain);
    }

    /// `[round(255 * v) for v in (0.485, 0.456, 0.406, 0.1, 0.3, 0.5, 0.7)]` in Python.
    #[test]
    fn the_fill_is_pythons() {
        let mean = vec![0.485, 0.456, 0.406, 0.1, 0.3, 0.5, 0.7];
        let p = Preprocess::new([1, 1], mean.clone(), mean);
        assert_eq!(p.fill(), [124, 116, 104, 26, 76, 128, 178]);
    }

    #[test]
    fn what_makes_no_sense_is_said() {
        for (fields, words) in [
            (r#""resize":7"#, "resize to 8 or more"),
            (r#""resize":[8,7],"crop":"squash""#, "cannot be cut from an image resized to 8×7"),
            (r#""resize":0"#, "leaves no image"),
            (r#""resize":"8""#, "a number of pixels, or a height and a width"),
            (r#""fill":[0]"#, "only `border` has a fill"),
            (r#""fill":[0,0],"crop":"border""#, "a byte for each"),
            (r#""crop":"middle""#, "expected one of `center`, `squash`, `border`"),
            (r#""interpolation":"cubic""#, "`bicubic`"),
            (r#""zoom":1"#, "unknown field `zoom`"),
        ] {
            let message = read(&format!(r#"{{"size":[8,8],{fields},"mean":[0.5],"std":[1]}}"#)).unwrap_err();
            assert!(message.contains(words), "`{words}` is not in: {message}");
        }
        assert!(read(r#"{"size":[8,8],"resize":7,"crop":"border","mean":[0.5],"std":[1]}"#).is_ok());
    }

    #[test]
    fn the_differing_field_is_named() {
        let a = Preprocess::new([8, 8], vec![0.5], vec![1.0]);
        let b = Preprocess { interpolation: Interpolation::Bicubic, resize: Some([8, 8]), ..a.clone() };
        assert_eq!(a.differences(&b), [("interpolation", "bilinear".to_owned(), "bicubic".to_owned())]);
        assert_eq!(b.to_string(), "covering 8×8 (bicubic), mean [0.5], std [1.0]");
        let c = Preprocess { crop: Crop::Border, resize: Some([10, 9]), ..a };
        assert_eq!(c.to_string(), "fitted into 10×9 (bilinear), centre 8×8, filled with [128], mean [0.5], std [1.0]");
    }
}
