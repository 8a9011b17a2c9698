//! Stored pixels → what a network expects: `(x / 255 - mean) / std` as f32 `[C, H, W]`.
//!
//! Sizes and rounding are those of torchvision's and timm's transforms on a PIL image, so a network trained there sees the
//! same values here.

use crate::{Error, Result, raster::Raster, resample};
use std::ops::Range;
use zipit::{Crop, Preprocess};

/// A [`Preprocess`] ready to be applied.
#[derive(Debug)]
pub(crate) struct Pipeline<'a> {
    spec: &'a Preprocess,
    /// The 256 values a stored byte can become, per channel.
    normalised: Vec<[f32; 256]>,
}

impl<'a> Pipeline<'a> {
    pub fn new(spec: &'a Preprocess) -> Result<Self> {
        spec.validate().map_err(|e| Error::Request(e.to_string()))?;
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
    pub fn apply(&self, image: Raster, out: &mut [f32]) -> Result<(), String> {
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
        let size = self.spec.size;
        let to = target_size([h, w], self.spec);
        let [rows, columns] = [0, 1].map(|axis| Cut::new(to[axis], size[axis]));
        let image = resample::resize(image, to, [rows.of.clone(), columns.of.clone()], self.spec.interpolation);
        let fill = self.spec.fill();
        for (c, plane) in out.chunks_exact_mut(size[0] * size[1]).enumerate() {
            let normalised = &self.normalised[c];
            if [rows.of.len(), columns.of.len()] != size {
                plane.fill(normalised[usize::from(fill[c])]);
            }
            // A gray image is every channel.
            let (stride, start) = image.stride_and_start(c.min(image.shape[0] - 1));
            let inside = plane.chunks_exact_mut(size[1]).skip(rows.at).take(rows.of.len());
            for (y, row) in inside.enumerate() {
                let stored = image.pixels[start + y * columns.of.len() * stride..].iter().step_by(stride);
                for (value, &byte) in row[columns.at..columns.at + columns.of.len()].iter_mut().zip(stored) {
                    *value = normalised[usize::from(byte)];
                }
            }
        }
        Ok(())
    }
}

/// Height and width of the whole image after resizing.
fn target_size([h, w]: [usize; 2], spec: &Preprocess) -> [usize; 2] {
    let [to_h, to_w] = spec.resized();
    // timm's `ResizeKeepRatio`, where Python rounds halves to even.
    let by = |ratio: f64| [h, w].map(|side| ((side as f64 / ratio).round_ties_even() as usize).max(1));
    let (ratio_h, ratio_w) = (h as f64 / to_h as f64, w as f64 / to_w as f64);
    match spec.crop {
        Crop::Squash => [to_h, to_w],
        Crop::Border => by(ratio_h.max(ratio_w)),
        // torchvision's `Resize(int)` rounds the longer side down.
        Crop::Center if to_h == to_w && h <= w => [to_h, to_w * w / h],
        Crop::Center if to_h == to_w => [to_h * h / w, to_w],
        Crop::Center => by(ratio_h.min(ratio_w)),
    }
}

/// What of one axis is shown, and where.
struct Cut {
    /// The part of the image.
    of: Range<usize>,
    /// Where it begins in what the network sees.
    at: usize,
}

impl Cut {
    /// torchvision's `int(round((side - size) / 2))`, where Python rounds halves to even; an image that is smaller has the
    /// smaller half of the border before it.
    fn new(side: usize, size: usize) -> Self {
        if side < size {
            return Self { of: 0..side, at: (size - side) / 2 };
        }
        let twice = side - size;
        let start = twice / 2 + usize::from(twice % 4 == 3);
        Self { of: start..start + size, at: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::{Cut, target_size};
    use zipit::{Crop, Preprocess};

    #[test]
    fn sizes_before_the_crop() {
        let target = |image, size, resize, crop| {
            target_size(image, &Preprocess { resize, crop, ..Preprocess::new(size, vec![0.0], vec![1.0]) })
        };
        let center = |image, size, resize| target(image, size, resize, Crop::Center);
        assert_eq!(center([28, 28], [28, 28], None), [28, 28]);
        assert_eq!(center([375, 500], [224, 224], Some([256, 256])), [256, 341]);
        assert_eq!(center([500, 375], [224, 224], Some([256, 256])), [341, 256]);
        assert_eq!(center([100, 200], [32, 32], None), [32, 64]);
        assert_eq!(center([100, 200], [32, 80], None), [40, 80]);
        assert_eq!(center([70, 45], [50, 20], None), [50, 32]);
        assert_eq!(center([3, 1000], [64, 64], None), [64, 21_333]);
        assert_eq!(target([375, 500], [224, 224], Some([256, 250]), Crop::Squash), [256, 250]);
        assert_eq!(target([375, 500], [224, 224], None, Crop::Border), [168, 224]);
        assert_eq!(target([1, 1000], [64, 64], None, Crop::Border), [1, 64]);
    }

    /// `[round(d / 2) for d in range(8)]` in Python.
    #[test]
    fn halves_are_rounded_to_even() {
        let starts: Vec<usize> = (0..8).map(|d| Cut::new(d + 5, 5).of.start).collect();
        assert_eq!(starts, [0, 0, 1, 2, 2, 2, 3, 4]);
        let before: Vec<usize> = (0..4).map(|d| Cut::new(5, d + 5).at).collect();
        assert_eq!(before, [0, 0, 1, 1]);
    }
}
