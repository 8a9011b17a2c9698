//! Images as the networks see them, without knowing where they come from.

use ndarray::Array4;
use std::collections::BTreeMap;
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

/// One image of so many is held out.
const HELD_OUT: usize = 4;

/// Which images are held out, to judge what is fitted to the others: every fourth that differs from those before it, of
/// each of the classes `of`, if there are any. `contents` are equal for equal images, which are all fitted or all held
/// out: what was fitted to an image says nothing about its copy.
///
/// ```
/// use zipit::images::held_out;
/// assert_eq!(held_out(&[7, 8, 9, 10], None), [false, false, false, true]);
/// assert_eq!(held_out(&[7, 7, 8, 8, 9, 10, 10], None), [false, false, false, false, false, true, true]);
/// assert_eq!(held_out(&[7; 100], None), [false; 100]);
/// ```
///
/// # Panics
/// When there are fewer classes than images.
#[must_use]
pub fn held_out(contents: &[u64], of: Option<&[usize]>) -> Vec<bool> {
    let mut parts: BTreeMap<u64, bool> = BTreeMap::new();
    let mut seen: BTreeMap<usize, usize> = BTreeMap::new();
    let part = |(image, content): (usize, &u64)| {
        *parts.entry(*content).or_insert_with(|| {
            let n = seen.entry(of.map_or(0, |of| of[image])).or_default();
            *n += 1;
            n.is_multiple_of(HELD_OUT)
        })
    };
    contents.iter().enumerate().map(part).collect()
}

/// How many of the images differ.
#[must_use]
pub fn n_different(contents: &[u64]) -> usize {
    contents.iter().collect::<std::collections::BTreeSet<_>>().len()
}
