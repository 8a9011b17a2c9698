//! The images that are learned from.

use crate::ImageError;
use crate::images::Images;
use ndarray::Array4;

/// Some of all images, with numbers of their own.
pub(super) struct Fitted<'a> {
    pub images: &'a dyn Images,
    /// Where each is.
    pub places: Vec<usize>,
}

impl Images for Fitted<'_> {
    fn images(&self, indices: &[usize]) -> Result<Array4<f32>, ImageError> {
        let places: Vec<usize> = indices.iter().map(|&i| self.places[i]).collect();
        self.images.images(&places)
    }
}
