//! Images as the networks see them, without knowing where they come from.

use ndarray::{Array4, ArrayView3, Axis, concatenate};
use std::collections::{BTreeMap, BTreeSet};
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

    /// The image that an image was made of; itself, where it was not made.
    fn original(&self, image: usize) -> usize {
        image
    }
}

/// Every batch of others, and after its images their mirror images, left and right changed.
pub struct Mirrored<'a> {
    batches: &'a dyn ImageBatches,
    /// Number of images in the first n batches of the others.
    before: Vec<usize>,
}

impl<'a> Mirrored<'a> {
    /// Of these batches.
    #[must_use]
    pub fn new(batches: &'a dyn ImageBatches) -> Self {
        Self { batches, before: (0..=batches.n_batches()).map(|n| batches.n_images_in(n)).collect() }
    }
}

impl ImageBatches for Mirrored<'_> {
    fn n_batches(&self) -> usize {
        self.batches.n_batches()
    }

    fn n_images_in(&self, n: usize) -> usize {
        2 * self.before[n]
    }

    fn batch(&self, index: usize) -> Result<Array4<f32>, Box<dyn Error + Send + Sync>> {
        let images = self.batches.batch(index)?;
        let mut mirrored = images.view();
        mirrored.invert_axis(Axis(3));
        Ok(concatenate![Axis(0), images, mirrored])
    }

    fn original(&self, image: usize) -> usize {
        let batch = self.before.partition_point(|&before| 2 * before <= image) - 1;
        let [first, end] = [self.before[batch], self.before[batch + 1]];
        2 * first + (image - 2 * first) % (end - first)
    }
}

/// One image of so many is held out, where layers are solved.
pub const HELD_OUT: usize = 4;

/// Which images are held out, to judge what is fitted to the others: every n-th ([`HELD_OUT`]) that differs from those
/// before it, of each of the classes `of`, if there are any. [`contents`] are equal for copies, which are all fitted or all
/// held out: what was fitted to an image says nothing about its copy.
///
/// ```
/// let held_out = |contents: &[u64], of| zipit::images::held_out(contents, of, 4);
/// assert_eq!(held_out(&[7, 8, 9, 10], None), [false, false, false, true]);
/// assert_eq!(held_out(&[7, 7, 8, 8, 9, 10, 10], None), [false, false, false, false, false, true, true]);
/// assert_eq!(held_out(&[7; 100], None), [false; 100]);
/// ```
///
/// # Panics
/// When there are fewer classes than images.
#[must_use]
pub fn held_out(contents: &[u64], of: Option<&[usize]>, every: usize) -> Vec<bool> {
    let mut parts: BTreeMap<u64, bool> = BTreeMap::new();
    let mut seen: BTreeMap<usize, usize> = BTreeMap::new();
    let part = |(image, content): (usize, &u64)| {
        *parts.entry(*content).or_insert_with(|| {
            let n = seen.entry(of.map_or(0, |of| of[image])).or_default();
            *n += 1;
            n.is_multiple_of(every)
        })
    };
    contents.iter().enumerate().map(part).collect()
}

/// Which images are held out of those that are `wanted` for it: all whose copies are wanted, too.
///
/// ```
/// let wanted = [false, false, true, true, true];
/// assert_eq!(zipit::images::apart(&[1, 2, 3, 1, 3], &wanted), [false, false, true, false, true]);
/// ```
///
/// # Panics
/// When they are not as many.
#[must_use]
pub fn apart(contents: &[u64], wanted: &[bool]) -> Vec<bool> {
    assert_eq!(contents.len(), wanted.len(), "a wish for every image");
    let others: BTreeSet<u64> =
        contents.iter().zip(wanted).filter(|(_, wanted)| !**wanted).map(|(content, _)| *content).collect();
    contents.iter().map(|content| !others.contains(content)).collect()
}

/// Means of an image are taken over a grid of so many by so many cells.
const CELLS: usize = 8;
/// Images are copies whose glances differ by up to this share of what all glances differ by,
const ALIKE: f64 = 0.05;
/// or of what pixels of one image differ by: all images may be copies.
const NOISE: f64 = 0.02;

/// What is kept of an image to tell its copies, which may have been compressed again, or be the next frame of a film.
#[derive(Debug, Clone, PartialEq)]
pub struct Glance {
    /// Means of the cells of every channel.
    means: Vec<f32>,
    /// Of the pixels.
    variance: f64,
}

impl Glance {
    /// Of `[C, H, W]`.
    #[must_use]
    pub fn of(image: ArrayView3<'_, f32>) -> Self {
        let (channels, height, width) = image.dim();
        let [rows, columns] = [height, width].map(|n| n.clamp(1, CELLS));
        let mut cells = vec![(0.0_f64, 0_u32); channels * rows * columns];
        let (mut sum, mut squares) = (0.0, 0.0);
        for ((c, y, x), &pixel) in image.indexed_iter() {
            let pixel = f64::from(pixel);
            let (total, n) = &mut cells[(c * rows + y * rows / height) * columns + x * columns / width];
            *total += pixel;
            *n += 1;
            sum += pixel;
            squares += pixel * pixel;
        }
        let n = image.len().max(1) as f64;
        let means = cells.into_iter().map(|(total, n)| (total / f64::from(n.max(1))) as f32).collect();
        Self { means, variance: (squares / n - (sum / n).powi(2)).max(0.0) }
    }

    fn mean(&self) -> f64 {
        self.means.iter().copied().map(f64::from).sum::<f64>() / self.means.len().max(1) as f64
    }

    /// Mean square of the difference.
    fn distance(&self, other: &Self) -> f64 {
        let squares = self.means.iter().zip(&other.means).map(|(a, b)| f64::from(a - b).powi(2));
        squares.sum::<f64>() / self.means.len().max(1) as f64
    }
}

/// For every image the number of the first that it is a copy of, or nearly: the root mean square of the difference of
/// their glances is within a twentieth of the glances' deviation from their mean, or a fiftieth of the pixels' within images.
///
/// ```
/// use ndarray::Array3;
/// use zipit::images::{Glance, contents};
/// let image = |i: usize, off: f32| Array3::from_shape_fn((1, 16, 16), |(_, y, x)| ((y * i + x) % 7) as f32 + off);
/// let glances = [(1, 0.0), (3, 0.0), (1, 0.01), (1, 0.0)].map(|(i, off)| Glance::of(image(i, off).view()));
/// assert_eq!(contents(&glances), [0, 1, 0, 0]);
/// ```
#[must_use]
pub fn contents(glances: &[Glance]) -> Vec<u64> {
    let n = glances.len().max(1) as f64;
    let mut centre = vec![0.0_f64; glances.first().map_or(0, |first| first.means.len())];
    for glance in glances {
        centre.iter_mut().zip(&glance.means).for_each(|(sum, &x)| *sum += f64::from(x) / n);
    }
    let centre = Glance { means: centre.into_iter().map(|x| x as f32).collect(), variance: 0.0 };
    let spread = glances.iter().map(|glance| glance.distance(&centre)).sum::<f64>() / n;
    let within = glances.iter().map(|glance| glance.variance).sum::<f64>() / n;
    let tolerance = (ALIKE.powi(2) * spread).max(NOISE.powi(2) * within);
    // Means of images that are alike differ by no more than the root, so that they stand in neighbouring shelves.
    let shelf_of = |glance: &Glance| (glance.mean() / tolerance.sqrt().max(f64::MIN_POSITIVE)).floor() as i64;
    let mut shelves: BTreeMap<i64, Vec<usize>> = BTreeMap::new();
    let place = |(i, glance): (usize, &Glance)| {
        let shelf = shelf_of(glance);
        let near = shelves.range(shelf.saturating_sub(1)..=shelf.saturating_add(1)).flat_map(|(_, firsts)| firsts);
        let first = near.copied().filter(|&first| glance.distance(&glances[first]) <= tolerance).min();
        if first.is_none() {
            shelves.entry(shelf).or_default().push(i);
        }
        first.unwrap_or(i) as u64
    };
    glances.iter().enumerate().map(place).collect()
}

/// How many of the images differ.
#[must_use]
pub fn n_different(contents: &[u64]) -> usize {
    contents.iter().collect::<std::collections::BTreeSet<_>>().len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::Array3;

    /// Plane waves, or noise, [0, 1].
    fn image(seed: u32, noise: bool) -> Array3<f32> {
        let mut state = seed.wrapping_mul(747_796_405).wrapping_add(1);
        Array3::from_shape_fn((3, 32, 32), |(c, y, x)| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let wave = (seed as f32 + c as f32) * 0.7 + y as f32 * 0.05 * seed as f32 + x as f32 * 0.11;
            if noise { (state >> 8) as f32 / (1 << 24) as f32 } else { 0.5 + 0.5 * wave.sin() }
        })
    }

    /// Every pixel is off by one of 255, or not.
    fn nearly(image: &Array3<f32>, seed: u32) -> Array3<f32> {
        let noise = self::image(seed + 1000, true);
        ndarray::Zip::from(image).and(&noise).map_collect(|x, n| x + ((n * 3.0).floor() - 1.0) / 255.0)
    }

    /// Batches of 2, 2 and 1.
    struct Five(Vec<Array3<f32>>);

    impl ImageBatches for Five {
        fn n_batches(&self) -> usize {
            3
        }

        fn n_images_in(&self, n: usize) -> usize {
            (2 * n).min(5)
        }

        fn batch(&self, index: usize) -> Result<Array4<f32>, Box<dyn Error + Send + Sync>> {
            let images: Vec<_> = self.0[2 * index..self.n_images_in(index + 1)].iter().map(Array3::view).collect();
            Ok(ndarray::stack(Axis(0), &images)?)
        }
    }

    #[test]
    fn mirror_images_stand_behind_their_originals() {
        let five = Five((0..5).map(|seed| image(seed, true)).collect());
        let both = Mirrored::new(&five);
        assert_eq!([both.n_batches(), both.n_images()], [3, 10]);
        assert_eq!((0..10).map(|i| both.original(i)).collect::<Vec<_>>(), [0, 1, 0, 1, 4, 5, 4, 5, 8, 8]);
        for (number, images) in [(0, vec![0, 1]), (2, vec![4])] {
            let batch = both.batch(number).unwrap();
            assert_eq!(batch.len_of(Axis(0)), 2 * images.len());
            for (row, &i) in images.iter().enumerate() {
                let original = &five.0[i];
                assert_eq!(batch.index_axis(Axis(0), row), original);
                let last = original.len_of(Axis(2)) - 1;
                let mirrored = Array3::from_shape_fn(original.dim(), |(c, y, x)| original[[c, y, last - x]]);
                assert_eq!(batch.index_axis(Axis(0), images.len() + row), mirrored);
            }
        }
    }

    #[test]
    fn copies_are_told_though_every_pixel_is_a_little_off() {
        for noise in [false, true] {
            for n_different in [1, 4, 16] {
                let of = |i: u32| nearly(&image(i % n_different + 1, noise), i);
                let glances: Vec<Glance> = (0..48).map(|i| Glance::of(of(i).view())).collect();
                let expected: Vec<u64> = (0..48).map(|i| u64::from(i % n_different)).collect();
                assert_eq!(contents(&glances), expected, "noise {noise}");
            }
        }
        assert_eq!(n_different(&contents(&vec![Glance::of(Array3::zeros((1, 3, 5)).view()); 4])), 1);
        assert_eq!(contents(&[]), [0; 0]);
    }
}
