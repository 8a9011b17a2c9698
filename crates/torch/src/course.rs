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
    /// In how many ways each is changed, which the epochs take in turn, in the same batches; 0 for another in every epoch.
    pub views: u64,
    /// Of their order and changes.
    pub seed: u64,
    /// All of them.
    pub n_images: usize,
    /// Images of a step. What does not fill a last one is left out of its epoch, or of its view.
    pub batch_size: usize,
    /// All steps.
    pub n_steps: u64,
    /// Steps done.
    pub step: u64,
}

/// What a step sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shown {
    /// The first step that sees these images, changed in this way.
    pub first: u64,
    /// Their numbers.
    pub indices: Vec<usize>,
}

/// Something that learns from one batch after the other.
pub(crate) trait Learns {
    /// What a step came to.
    type Step;

    /// Where it is.
    fn course(&mut self) -> &mut Course;

    /// One step, on these images.
    fn learn(&mut self, images: &Array4<f32>, shown: &Shown) -> Result<Self::Step>;
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

    /// What every step that is left in the current epoch sees.
    fn rest_of_epoch(&self) -> Vec<Shown> {
        let per_epoch = self.steps_per_epoch();
        let (epoch, done) = (self.step / per_epoch, self.step % per_epoch);
        let view = if self.views == 0 { epoch } else { epoch % self.views };
        // Streams below 2³² belong to initialisation, those from 2³³ on to augmentation.
        let shuffled = |stream: u64, n: usize| {
            let mut order: Vec<usize> = (0..n).collect();
            let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
            rng.set_stream(stream);
            order.shuffle(&mut rng);
            order
        };
        let order = shuffled((1 << 32) + view, self.n_images);
        let shown = order.chunks_exact(self.batch_size).zip(view * per_epoch..);
        let mut shown: Vec<Shown> = shown.map(|(of, first)| Shown { first, indices: of.to_vec() }).collect();
        if view < epoch {
            let turns = shuffled((1 << 32) + epoch, shown.len());
            shown = turns.into_iter().map(|turn| shown[turn].clone()).collect();
        }
        shown.into_iter().skip(done as usize).take((self.n_steps - self.step) as usize).collect()
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
    for shown in learner.course().rest_of_epoch() {
        if watch.interrupted() {
            return Ok(false);
        }
        let course = learner.course();
        let batch = (course.step % course.steps_per_epoch()) as usize;
        let mut images = data.images(&shown.indices).map_err(|source| Error::Images { batch, source })?;
        course.augment.apply(&mut images, course.seed, shown.first);
        let step = learner.learn(&images, &shown)?;
        learner.course().step += 1;
        on_step(step);
        watch.advance(shown.indices.len() as u64);
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn course(views: u64, step: u64) -> Course {
        let augment = Augment { flip: false, shift: 0, fill: vec![] };
        Course { augment, views, seed: 3, n_images: 11, batch_size: 2, n_steps: 100, step }
    }

    fn first(shown: &[Shown]) -> Vec<u64> {
        shown.iter().map(|shown| shown.first).collect()
    }

    #[test]
    fn every_epoch_is_another_where_views_are_not_counted() {
        for epoch in 0..4 {
            let shown = course(0, 5 * epoch).rest_of_epoch();
            assert_eq!(first(&shown), (5 * epoch..5 * epoch + 5).collect::<Vec<_>>());
            assert_eq!(course(0, 5 * epoch + 3).rest_of_epoch(), shown[3..]);
        }
    }

    #[test]
    fn views_come_again_in_the_same_batches_and_another_order() {
        let of = |epoch: u64| course(2, 5 * epoch).rest_of_epoch();
        for epoch in 2..8 {
            let (mut again, seen) = (of(epoch), of(epoch % 2));
            assert_eq!(course(2, 5 * epoch + 2).rest_of_epoch(), again[2..]);
            assert_ne!(of(epoch + 2), again, "their order is another");
            again.sort_by_key(|shown| shown.first);
            assert_eq!(again, seen);
        }
        assert_eq!(of(0), course(0, 0).rest_of_epoch());
        assert_eq!(of(1), course(0, 5).rest_of_epoch());
    }
}
