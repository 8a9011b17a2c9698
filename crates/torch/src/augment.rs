//! Training images made more various: mirrored and shifted.

use ndarray::{Array4, ArrayView3, ArrayViewMut3, Axis, Slice};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use zipit::Preprocess;

/// What may happen to a training image.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Augment {
    /// Mirror every second image, left to right.
    pub flip: bool,
    /// Shift by up to so many pixels along each axis (PyTorch's pad and random crop).
    pub shift: usize,
    /// What comes in from outside the image, per channel: black, after normalisation.
    pub fill: Vec<f32>,
}

impl Augment {
    /// For a network that expects its images so.
    pub fn new(flip: bool, shift: usize, preprocess: &Preprocess) -> Self {
        let fill = preprocess.mean.iter().zip(&preprocess.std).map(|(mean, std)| -mean / std).collect();
        Self { flip, shift, fill }
    }

    /// Whether images stay as they are.
    pub fn is_none(&self) -> bool {
        !self.flip && self.shift == 0
    }

    /// Changes `images` in place, each with its own draw from (seed, step).
    pub fn apply(&self, images: &mut Array4<f32>, seed: u64, step: u64) {
        if self.is_none() {
            return;
        }
        // Streams of initialisation and shuffling stay below 2³².
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream((1 << 33) + step);
        for mut image in images.outer_iter_mut() {
            let mirrored = self.flip && rng.random::<bool>();
            let mut offset = || if self.shift > 0 { rng.random_range(0..=2 * self.shift) } else { 0 };
            let corner = [offset(), offset()];
            let mut original = image.to_owned();
            if mirrored {
                original.invert_axis(Axis(2));
            }
            self.place(&mut image, original.view(), corner);
        }
    }

    /// The crop of the padded image that starts at `corner`.
    fn place(&self, image: &mut ArrayViewMut3<'_, f32>, original: ArrayView3<'_, f32>, corner: [usize; 2]) {
        for (mut channel, &fill) in image.axis_iter_mut(Axis(0)).zip(&self.fill) {
            channel.fill(fill);
        }
        // Output row y shows input row y + corner − shift.
        let overlap = |size: usize, corner: usize| {
            let to = self.shift.saturating_sub(corner).min(size);
            let from = corner.saturating_sub(self.shift).min(size);
            (to, from, size - to.max(from))
        };
        let (_, height, width) = original.dim();
        let (to_y, from_y, n_y) = overlap(height, corner[0]);
        let (to_x, from_x, n_x) = overlap(width, corner[1]);
        let mut shown = image.slice_axis_mut(Axis(1), Slice::from(to_y..to_y + n_y));
        let mut shown = shown.slice_axis_mut(Axis(2), Slice::from(to_x..to_x + n_x));
        let source = original.slice_axis(Axis(1), Slice::from(from_y..from_y + n_y));
        shown.assign(&source.slice_axis(Axis(2), Slice::from(from_x..from_x + n_x)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted() -> Array4<f32> {
        Array4::from_shape_fn((1, 1, 2, 3), |(_, _, y, x)| (10 * y + x + 1) as f32)
    }

    fn placed(corner: [usize; 2]) -> Vec<f32> {
        let augment = Augment { flip: false, shift: 1, fill: vec![-5.0] };
        let original = counted();
        let mut image = original.clone();
        augment.place(&mut image.index_axis_mut(Axis(0), 0), original.index_axis(Axis(0), 0), corner);
        image.into_iter().collect()
    }

    #[test]
    fn a_shift_brings_in_black() {
        assert_eq!(placed([1, 1]), [1.0, 2.0, 3.0, 11.0, 12.0, 13.0]);
        assert_eq!(placed([0, 0]), [-5.0, -5.0, -5.0, -5.0, 1.0, 2.0]);
        assert_eq!(placed([2, 1]), [11.0, 12.0, 13.0, -5.0, -5.0, -5.0]);
        assert_eq!(placed([1, 2]), [2.0, 3.0, -5.0, 12.0, 13.0, -5.0]);
    }

    #[test]
    fn flips_happen_to_half_of_the_images_and_repeat_with_the_seed() {
        let augment = Augment { flip: true, shift: 0, fill: vec![0.0] };
        let plain = counted();
        let mut images = ndarray::concatenate(Axis(0), &vec![plain.view(); 400]).expect("equal shapes");
        let mut again = images.clone();
        augment.apply(&mut images, 3, 5);
        augment.apply(&mut again, 3, 5);
        assert_eq!(images, again);
        let mut mirrored = plain.index_axis(Axis(0), 0).to_owned();
        mirrored.invert_axis(Axis(2));
        let n_mirrored = images.outer_iter().filter(|image| image == mirrored).count();
        assert!((150..250).contains(&n_mirrored), "{n_mirrored}");
        assert!(images.outer_iter().all(|image| image == mirrored || image == plain.index_axis(Axis(0), 0)));
    }
}
