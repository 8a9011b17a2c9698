//! The loop that all learning by steps goes through: which images a step sees, in which order and how they are changed,
//! from the seed and the step's number alone, so that a run that was interrupted goes on as if it had not been.

use crate::augment::Augment;
use crate::images::Images;
use crate::{Error, Result};
use ndarray::Array4;
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use zipit::watch::Watch;

/// Which images every step sees.
#[derive(Debug, Clone)]
pub(crate) struct Course {
    /// How they are changed.
    pub augment: Augment,
    /// Of their order and changes.
    pub seed: u64,
    /// All of them.
    pub n_images: usize,
    /// Images of a step. What does not fill a last one is left out of its epoch.
    pub batch_size: usize,
    /// All steps.
    pub n_steps: u64,
    /// Steps done.
    pub step: u64,
}

/// Something that learns from one batch after the other.
pub(crate) trait Learns {
    /// What a step came to.
    type Step;

    /// Where it is.
    fn course(&mut self) -> &mut Course;

    /// One step, on these images, whose numbers are `indices`.
    fn learn(&mut self, images: &Array4<f32>, indices: &[usize]) -> Result<Self::Step>;
}

impl Course {
    /// Steps of one epoch.
    pub fn steps_per_epoch(&self) -> u64 {
        (self.n_images / self.batch_size) as u64
    }

    /// Whether the last step is done.
    pub fn is_done(&self) -> bool {
        self.step >= self.n_steps
    }

    /// The images of every step that is left in the current epoch.
    fn rest_of_epoch(&self) -> Vec<Vec<usize>> {
        let (epoch, done) = (self.step / self.steps_per_epoch(), self.step % self.steps_per_epoch());
        let mut order: Vec<usize> = (0..self.n_images).collect();
        // Streams below 2³² belong to initialisation, those from 2³³ on to augmentation.
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        rng.set_stream((1 << 32) + epoch);
        order.shuffle(&mut rng);
        let left = (self.n_steps - self.step) as usize;
        order.chunks_exact(self.batch_size).skip(done as usize).take(left).map(<[usize]>::to_vec).collect()
    }
}

/// Learns to the end of the current epoch, or of all steps. `on_step` hears of every step; `watch` is told of every image
/// and may interrupt after any step, from which the next call goes on: then the answer is false.
///
/// # Errors
/// Images that cannot be read, or what a step says.
pub(crate) fn epoch<L: Learns>(
    learner: &mut L,
    data: &dyn Images,
    watch: &dyn Watch,
    on_step: &mut dyn FnMut(L::Step),
) -> Result<bool> {
    if learner.course().is_done() {
        return Ok(true);
    }
    for indices in learner.course().rest_of_epoch() {
        if watch.interrupted() {
            return Ok(false);
        }
        let course = learner.course();
        let batch = (course.step % course.steps_per_epoch()) as usize;
        let mut images = data.images(&indices).map_err(|source| Error::Images { batch, source })?;
        course.augment.apply(&mut images, course.seed, course.step);
        let step = learner.learn(&images, &indices)?;
        learner.course().step += 1;
        on_step(step);
        watch.advance(indices.len() as u64);
    }
    Ok(true)
}
