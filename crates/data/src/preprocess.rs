//! Stored pixels → what a network expects: `(x / 255 - mean) / std` as f32 `[C, H, W]`.
//!
//! Sizes, rounding and resampling are those of torchvision's `Resize` and `CenterCrop` on a PIL image, so a network
//! trained there sees the same values here.

use crate::{
    Error, Result,
    raster::{Layout, Raster},
};
use fast_image_resize::{
    FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer,
    images::{Image, ImageRef},
};
use std::{borrow::Cow, fmt::Display};
use zipit::Preprocess;

/// A [`Preprocess`] ready to be applied.
#[derive(Debug)]
pub(crate) struct Pipeline<'a> {
    spec: &'a Preprocess,
    /// The 256 values a stored byte can become, per channel.
    normalised: Vec<[f32; 256]>,
}

impl<'a> Pipeline<'a> {
    pub fn new(spec: &'a Preprocess) -> Result<Self> {
        let refuse = |reason: String| Err(Error::Request(format!("preprocessing: {reason}")));
        if spec.mean.is_empty() || spec.mean.len() != spec.std.len() {
            return refuse(format!(
                "{} means and {} standard deviations; it needs one of each per channel",
                spec.mean.len(),
                spec.std.len()
            ));
        }
        if spec.mean.iter().any(|m| !m.is_finite()) || spec.std.iter().any(|s| !s.is_finite() || *s <= 0.0) {
            return refuse(format!("mean {:?} and std {:?} must be finite, std positive", spec.mean, spec.std));
        }
        if spec.size.contains(&0) || spec.resize == Some(0) {
            return refuse(format!("size {:?} with resize {:?} leaves no image", spec.size, spec.resize));
        }
        let normalised = (spec.mean.iter().zip(&spec.std))
            .map(|(mean, std)| std::array::from_fn(|value| (value as f32 / 255.0 - mean) / std))
            .collect();
        Ok(Self { spec, normalised })
    }

    /// Number of f32 values of one image.
    pub fn n_values(&self) -> usize {
        self.spec.channels() * self.spec.size[0] * self.spec.size[1]
    }

    /// Writes one image to `out`, `[C, H, W]`. The error names no image: the caller knows which it is.
    pub fn apply(&self, image: Raster, resizer: &mut Resizer, out: &mut [f32]) -> Result<(), String> {
        let n_channels = self.spec.channels();
        match (image.shape[0], n_channels) {
            (have, want) if have == want => {}
            (1, 3) => {}
            (3, 1) => {
                return Err("is RGB but the network expects 1 channel: convert the images to grayscale, or use a \
                            network trained on RGB"
                    .to_owned());
            }
            (have, want) => return Err(format!("has {have} channels but the network expects {want}")),
        }
        let [_, h, w] = image.shape;
        let target = target_size([h, w], self.spec);
        let [crop_h, crop_w] = self.spec.size;
        if target[0] < crop_h || target[1] < crop_w {
            return Err(format!(
                "is {h}×{w}, resized to {}×{}, too small for the {crop_h}×{crop_w} the network expects: its \
                 preprocessing must resize to {} or more",
                target[0],
                target[1],
                crop_h.max(crop_w)
            ));
        }
        let image = resize(image, target, resizer)?;
        let (top, left) = (crop_start(target[0], crop_h), crop_start(target[1], crop_w));
        for (c, plane) in out.chunks_exact_mut(crop_h * crop_w).enumerate() {
            // A gray image is every channel.
            let (stride, start) = image.stride_and_start(c.min(image.shape[0] - 1));
            let normalised = &self.normalised[c];
            for (y, row) in plane.chunks_exact_mut(crop_w).enumerate() {
                let first = start + ((top + y) * target[1] + left) * stride;
                let stored = image.pixels[first..].iter().step_by(stride);
                for (value, &byte) in row.iter_mut().zip(stored) {
                    *value = normalised[usize::from(byte)];
                }
            }
        }
        Ok(())
    }
}

/// Height and width before the crop. The longer side is rounded down, as torchvision does.
fn target_size([h, w]: [usize; 2], spec: &Preprocess) -> [usize; 2] {
    match spec.resize {
        Some(short) if h <= w => [short, w * short / h],
        Some(short) => [h * short / w, short],
        None => {
            // The smallest size of the same shape that covers the crop; equal sizes stay as they are.
            let [crop_h, crop_w] = spec.size;
            if crop_h * w >= crop_w * h { [crop_h, w * crop_h / h] } else { [h * crop_w / w, crop_w] }
        }
    }
}

/// torchvision's `int(round((size - crop) / 2))`, where Python rounds halves to even.
fn crop_start(size: usize, crop: usize) -> usize {
    let twice = size - crop;
    twice / 2 + usize::from(twice % 4 == 3)
}

/// Antialiased bilinear as PIL does it: along the rows, rounded to u8, then along the columns.
///
/// The library's coefficients have 15 bits and PIL's 22, so where the exact value lies halfway between two levels the
/// two may differ by one level (tests/golden).
fn resize<'a>(image: Raster<'a>, [h, w]: [usize; 2], resizer: &mut Resizer) -> Result<Raster<'a>, String> {
    // Left to itself the library takes the columns first, which rounds every sixth pixel the other way.
    let from_h = image.shape[1];
    let rows = resample(image, [from_h, w], resizer)?;
    resample(rows, [h, w], resizer)
}

fn resample<'a>(image: Raster<'a>, [h, w]: [usize; 2], resizer: &mut Resizer) -> Result<Raster<'a>, String> {
    let [n_channels, from_h, from_w] = image.shape;
    if [from_h, from_w] == [h, w] {
        return Ok(image);
    }
    // RGB pixel by pixel is one image of triples, anything else one image per plane.
    let (layout, kind, n_images) = match (image.layout, n_channels) {
        (Layout::Interleaved, 3) => (Layout::Interleaved, PixelType::U8x3, 1),
        _ => (Layout::Planar, PixelType::U8, n_channels),
    };
    let pixels = if layout == image.layout { image.pixels } else { image.into_planes() };
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Bilinear));
    let cannot = |e: &dyn Display| format!("cannot be resized from {from_h}×{from_w} to {h}×{w}: {e}");
    let mut resized = vec![0; n_channels * h * w];
    let froms = pixels.chunks_exact(n_channels * from_h * from_w / n_images);
    for (from, to) in froms.zip(resized.chunks_exact_mut(n_channels * h * w / n_images)) {
        let from = ImageRef::new(from_w as u32, from_h as u32, from, kind).map_err(|e| cannot(&e))?;
        let mut to = Image::from_slice_u8(w as u32, h as u32, to, kind).map_err(|e| cannot(&e))?;
        resizer.resize(&from, &mut to, &options).map_err(|e| cannot(&e))?;
    }
    Ok(Raster { shape: [n_channels, h, w], layout, pixels: Cow::Owned(resized) })
}

#[cfg(test)]
mod tests {
    use super::{crop_start, target_size};
    use zipit::Preprocess;

    #[test]
    fn sizes_before_the_crop() {
        let target =
            |image, size, resize| target_size(image, &Preprocess { size, resize, mean: vec![0.0], std: vec![1.0] });
        assert_eq!(target([28, 28], [28, 28], None), [28, 28]);
        assert_eq!(target([375, 500], [224, 224], Some(256)), [256, 341]);
        assert_eq!(target([500, 375], [224, 224], Some(256)), [341, 256]);
        assert_eq!(target([100, 200], [32, 32], None), [32, 64]);
        assert_eq!(target([100, 200], [32, 80], None), [40, 80]);
        assert_eq!(target([3, 1000], [64, 64], None), [64, 21_333]);
    }

    /// `[round(d / 2) for d in range(8)]` in Python.
    #[test]
    fn halves_are_rounded_to_even() {
        let starts: Vec<usize> = (0..8).map(|d| crop_start(d + 5, 5)).collect();
        assert_eq!(starts, [0, 0, 1, 2, 2, 2, 3, 4]);
    }
}
