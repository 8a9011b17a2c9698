//! Images as the networks see them, without knowing where they come from.

use ndarray::Array4;
use std::error::Error;

/// Preprocessed images, cut into batches that never change: batch `i` is the same on every machine and thread.
pub trait ImageBatches: Sync {
    /// Number of batches.
    fn n_batches(&self) -> usize;

    /// Number of images in the first `n` batches: image 0 of batch `n` is that one of all.
    fn n_images_in(&self, n: usize) -> usize;

    /// Number of images in all batches.
    fn n_images(&self) -> usize {
        self.n_images_in(self.n_batches())
    }

    /// Batch `index`, `[B, C, H, W]`.
    ///
    /// # Errors
    /// When an image cannot be read; the message names it.
    fn batch(&self, index: usize) -> Result<Array4<f32>, Box<dyn Error + Send + Sync>>;
}
