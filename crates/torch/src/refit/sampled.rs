//! Some of every image's positions.

use super::patches::windows;
use crate::Result;
use crate::ops::{features_first, features_last};
use std::ops::Range;
use tch::{Kind, Tensor};
use zipit::graph::Window;
use zipit::refit::Lattice;

/// A lattice of positions, as it lies on the images of a batch.
pub(super) struct Sampled {
    sizes: Vec<i64>,
    lengths: Vec<i64>,
    step: i64,
    /// Along each axis, of every image.
    first: Vec<Vec<i64>>,
}

impl Sampled {
    pub fn new(lattice: &Lattice, images: &Range<usize>) -> Self {
        let whole = |numbers: &[usize]| numbers.iter().map(|&n| n as i64).collect::<Vec<_>>();
        Self {
            sizes: whole(lattice.sizes()),
            lengths: whole(&lattice.lengths()),
            step: lattice.step() as i64,
            first: images.clone().map(|image| whole(&lattice.first(image))).collect(),
        }
    }

    /// `[B, C, …]` of a value `[B, C, positions…]`; a value of other positions, a number for all of them, as it is.
    ///
    /// # Errors
    /// LibTorch's own.
    pub fn of(&self, value: &Tensor) -> Result<Tensor> {
        let size = value.size();
        if size[2..] != self.sizes[..] {
            return Ok(value.shallow_clone());
        }
        let of_images = features_last(value)?;
        let shape: Vec<i64> = [size[0]].into_iter().chain(self.lengths.iter().copied()).chain([size[1]]).collect();
        let chosen = Tensor::f_empty(&shape[..], (value.kind(), value.device()))?;
        for image in 0..size[0] {
            chosen.f_narrow(0, image, 1)?.f_copy_(&self.chosen(&of_images.f_narrow(0, image, 1)?, image)?)?;
        }
        Ok(features_first(&chosen)?)
    }

    /// Patches of some images of x `[B, C, H, W]`, `[n, H', W', kH, kW, C]`.
    ///
    /// # Errors
    /// LibTorch's own.
    pub fn patches(&self, x: &Tensor, window: &Window, rows: &[i64]) -> Result<Tensor> {
        let [kernel_h, kernel_w] = window.kernel.map(|k| k as i64);
        let shape = [rows.len() as i64, self.lengths[0], self.lengths[1], kernel_h, kernel_w, x.size()[1]];
        let chosen = Tensor::f_empty(shape, (Kind::Float, x.device()))?;
        for (to, &image) in (0..).zip(rows) {
            let all = windows(&x.f_narrow(0, image, 1)?, window)?;
            chosen.f_narrow(0, to, 1)?.f_copy_(&self.chosen(&all, image)?)?;
        }
        Ok(chosen)
    }

    /// A view of the positions of one image, `[1, positions…, …]`.
    fn chosen(&self, of_image: &Tensor, image: i64) -> Result<Tensor> {
        let mut view = of_image.shallow_clone();
        for ((axis, &from), &length) in (1..).zip(&self.first[image as usize]).zip(&self.lengths) {
            view = view.f_slice(axis, from, from + self.step * (length - 1) + 1, self.step)?;
        }
        Ok(view)
    }
}
