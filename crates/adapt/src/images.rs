//! The images, read once if they fit into memory.

use ndarray::{Array4, Axis};
use zipit::Preprocess;
use zipit_stage::images::ImageSet;
use zipit_torch::ImageError;
use zipit_torch::images::Images;

/// Images that are read again and again.
pub struct Kept<'a> {
    set: &'a ImageSet,
    preprocess: &'a Preprocess,
    all: Option<Array4<f32>>,
}

impl<'a> Kept<'a> {
    /// Whether all take no more than so many bytes.
    pub fn fits(set: &ImageSet, preprocess: &Preprocess, bytes: usize) -> bool {
        set.len() * preprocess.channels() * preprocess.size.iter().product::<usize>() * size_of::<f32>() <= bytes
    }

    /// Reads them if they take no more than so many bytes.
    pub fn new(set: &'a ImageSet, preprocess: &'a Preprocess, bytes: usize) -> Result<Self, ImageError> {
        let all: Vec<usize> = (0..set.len()).collect();
        let all = Self::fits(set, preprocess, bytes).then(|| set.images(&all, preprocess)).transpose()?;
        Ok(Self { set, preprocess, all })
    }
}

impl Images for Kept<'_> {
    fn images(&self, indices: &[usize]) -> Result<Array4<f32>, ImageError> {
        match &self.all {
            Some(all) => Ok(all.select(Axis(0), indices)),
            None => self.set.images(indices, self.preprocess),
        }
    }
}
