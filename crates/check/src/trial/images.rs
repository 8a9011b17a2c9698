//! The images of a trial: those of --data, or made up.

use crate::Args;
use ndarray::Array4;
use std::error::Error;
use zipit::images::ImageBatches;
use zipit::{Model, Preprocess};
use zipit_data::Split;
use zipit_stage::images::{ImageSet, tasks_of};

/// What a stage reads where --data says so.
pub enum Images {
    Real(ImageSet),
    /// So many.
    MadeUp(usize),
}

impl Images {
    /// `n` images of a split, or all (`None`; of made-up ones, as many as Fashion-MNIST has to test on), as the stages
    /// choose them.
    pub fn choose(models: &[&Model], args: &Args, split: Split, n: Option<usize>) -> anyhow::Result<Self> {
        let n = args.images.images.or(n.map(|n| n as u64));
        if args.images.data.is_empty() {
            return Ok(Self::MadeUp(n.map_or(10_000, |n| n as usize)));
        }
        let mut images = args.images.clone();
        images.images = n;
        Ok(Self::Real(images.choose(&tasks_of(models), split)?))
    }

    /// Their digest is taken, as the stages do.
    pub fn digested(self) -> Self {
        if let Self::Real(set) = &self {
            let _ = set.inputs();
        }
        self
    }

    pub fn len(&self) -> usize {
        match self {
            Self::Real(set) => set.len(),
            Self::MadeUp(n) => *n,
        }
    }

    pub fn batches<'a>(&'a self, preprocess: &'a Preprocess, batch_size: usize) -> Box<dyn ImageBatches + 'a> {
        match self {
            Self::Real(set) => Box::new(set.batches(preprocess, batch_size, None)),
            Self::MadeUp(n) => Box::new(MadeUp { n: *n, batch_size, preprocess }),
        }
    }
}

/// Grey and white noise in turns of eight pixels, as a network expects images.
struct MadeUp<'a> {
    n: usize,
    batch_size: usize,
    preprocess: &'a Preprocess,
}

impl ImageBatches for MadeUp<'_> {
    fn n_batches(&self) -> usize {
        self.n.div_ceil(self.batch_size)
    }

    fn n_images_in(&self, n: usize) -> usize {
        (n * self.batch_size).min(self.n)
    }

    fn batch(&self, index: usize) -> Result<Array4<f32>, Box<dyn Error + Send + Sync>> {
        let n = self.n_images_in(index + 1) - self.n_images_in(index);
        let [height, width] = self.preprocess.size;
        let mut state = index as u32 + 1;
        let mut level = 0.0;
        let shape = (n, self.preprocess.channels(), height, width);
        Ok(Array4::from_shape_fn(shape, |(_, _, _, x)| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let noise = (state >> 8) as f32 / (1 << 23) as f32 - 1.0;
            if x % 8 == 0 {
                level = noise;
            }
            level + 0.2 * noise
        }))
    }
}

/// The first batches of some images.
pub struct First<'a> {
    pub batches: &'a dyn ImageBatches,
    pub n: usize,
}

impl ImageBatches for First<'_> {
    fn n_batches(&self) -> usize {
        self.n.min(self.batches.n_batches())
    }

    fn n_images_in(&self, n: usize) -> usize {
        self.batches.n_images_in(n)
    }

    fn batch(&self, index: usize) -> Result<Array4<f32>, Box<dyn Error + Send + Sync>> {
        self.batches.batch(index)
    }
}
