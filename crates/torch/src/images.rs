//! Where images come from. This crate reads no file; whoever does implements [`Images`] for learning, with labels
//! [`LabelledImages`], and [`ImageBatches`] for everything else.

use crate::parallel::{Failure, all_batches, n_workers, read};
use crate::{Device, ImageError, Result};
use ndarray::{Array4, Axis, Slice};
use std::sync::{Mutex, PoisonError};
use zipit::images::{Glance, ImageBatches};
use zipit::watch::Watch;

/// Images in any order.
pub trait Images: Sync {
    /// The images at `indices`, in that order, `[indices, C, H, W]` as the network expects them.
    ///
    /// # Errors
    /// Whatever kept the images from being read.
    fn images(&self, indices: &[usize]) -> Result<Array4<f32>, ImageError>;
}

/// Images with a class each, for training.
pub trait LabelledImages: Images {
    /// Class of each image, 0…classes−1.
    fn labels(&self) -> &[u32];
}

/// Some images in batches of equal size; the last one may be smaller.
pub struct Picked<'a> {
    images: &'a dyn Images,
    indices: Vec<usize>,
    batch_size: usize,
    even: bool,
}

impl<'a> Picked<'a> {
    /// Those at `indices`, in that order.
    ///
    /// # Panics
    /// When `batch_size` is zero.
    #[must_use]
    pub fn new(images: &'a dyn Images, indices: Vec<usize>, batch_size: usize) -> Self {
        assert!(batch_size > 0, "batches of no images");
        Self { images, indices, batch_size, even: false }
    }

    /// The same in as few batches, whose sizes differ by one at most.
    ///
    /// # Panics
    /// When `batch_size` is zero.
    #[must_use]
    pub fn even(images: &'a dyn Images, indices: Vec<usize>, batch_size: usize) -> Self {
        Self { even: true, ..Self::new(images, indices, batch_size) }
    }
}

/// By their places among those that were picked.
impl Images for Picked<'_> {
    fn images(&self, indices: &[usize]) -> Result<Array4<f32>, ImageError> {
        let picked: Vec<usize> = indices.iter().map(|&i| self.indices[i]).collect();
        self.images.images(&picked)
    }
}

impl ImageBatches for Picked<'_> {
    fn n_batches(&self) -> usize {
        self.indices.len().div_ceil(self.batch_size)
    }

    fn n_images_in(&self, n: usize) -> usize {
        if self.even {
            return n * self.indices.len() / self.n_batches().max(1);
        }
        (n * self.batch_size).min(self.indices.len())
    }

    fn batch(&self, i: usize) -> Result<Array4<f32>, ImageError> {
        self.images.images(&self.indices[self.n_images_in(i)..self.n_images_in(i + 1)])
    }
}

/// Which images are copies, or nearly, as the networks see them ([`zipit::images::contents`]); reads them all.
///
/// # Errors
/// Images that cannot be read, or [`zipit::Error::Interrupted`].
pub fn contents(batches: &dyn ImageBatches, watch: &dyn Watch) -> Result<Vec<u64>> {
    let n_batches = batches.n_batches();
    let found = Mutex::new(vec![None; batches.n_images()]);
    let workers = vec![(); n_workers(Device::Cpu, n_batches)];
    all_batches(workers, n_batches, watch, &Failure::default(), |(), batch| {
        let glances: Vec<Option<Glance>> = read(batches, batch)?.outer_iter().map(|x| Some(Glance::of(x))).collect();
        let (first, n) = (batches.n_images_in(batch), glances.len());
        found.lock().unwrap_or_else(PoisonError::into_inner)[first..first + n].clone_from_slice(&glances);
        Ok(n as u64)
    })?;
    let glances: Vec<Glance> =
        found.into_inner().unwrap_or_else(PoisonError::into_inner).into_iter().flatten().collect();
    let contents = zipit::images::contents(&glances);
    // A mirror image shows what its original does, and what is like it.
    let as_original = |image: usize| contents[batches.original(image)];
    Ok((0..contents.len()).map(|image| as_original(as_original(image) as usize)).collect())
}

/// Images that are already in memory, cut into batches of equal size; the last one may be smaller.
#[derive(Debug, Clone)]
pub struct InMemory {
    images: Array4<f32>,
    labels: Vec<u32>,
    batch_size: usize,
}

impl InMemory {
    /// Images `[n, C, H, W]` without labels.
    ///
    /// # Panics
    /// When `batch_size` is zero.
    #[must_use]
    pub fn new(images: Array4<f32>, batch_size: usize) -> Self {
        Self::labelled(images, Vec::new(), batch_size)
    }

    /// Images `[n, C, H, W]` with a class each.
    ///
    /// # Panics
    /// When `batch_size` is zero.
    #[must_use]
    pub fn labelled(images: Array4<f32>, labels: Vec<u32>, batch_size: usize) -> Self {
        assert!(batch_size > 0, "batches of no images");
        Self { images, labels, batch_size }
    }
}

impl ImageBatches for InMemory {
    fn n_batches(&self) -> usize {
        self.images.shape()[0].div_ceil(self.batch_size)
    }

    fn n_images_in(&self, n: usize) -> usize {
        (n * self.batch_size).min(self.images.shape()[0])
    }

    fn batch(&self, i: usize) -> Result<Array4<f32>, ImageError> {
        let from = i * self.batch_size;
        let to = (from + self.batch_size).min(self.n_images());
        Ok(self.images.slice_axis(Axis(0), Slice::from(from..to)).to_owned())
    }
}

impl LabelledImages for InMemory {
    fn labels(&self) -> &[u32] {
        &self.labels
    }
}

impl Images for InMemory {
    fn images(&self, indices: &[usize]) -> Result<Array4<f32>, ImageError> {
        Ok(self.images.select(Axis(0), indices))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn even_batches_leave_no_image_alone() {
        let images = InMemory::new(Array4::zeros((100, 1, 1, 1)), 1);
        for n in 2..100 {
            for size in 2..12 {
                let even = Picked::even(&images, (0..n).collect(), size);
                assert_eq!(even.n_batches(), Picked::new(&images, (0..n).collect(), size).n_batches());
                assert_eq!((even.n_images_in(0), even.n_images_in(even.n_batches())), (0, n));
                let sizes = (0..even.n_batches()).map(|i| even.batch(i).map(|batch| batch.shape()[0]));
                let sizes: Vec<usize> = sizes.collect::<Result<_, _>>().expect("images in memory");
                let (least, most) = (sizes.iter().min().unwrap_or(&0), sizes.iter().max().unwrap_or(&0));
                assert!(*most <= size && most - least <= 1 && *least >= 1, "{n} {size}: {sizes:?}");
                assert!(*least > 1 || size == 2, "{n} {size}: {sizes:?}");
            }
        }
    }
}
