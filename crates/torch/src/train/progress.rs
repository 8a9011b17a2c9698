//! How far training is, and what is needed to go on.

use zipit::StateDict;

/// Everything that a later [`restore`](super::Trainer::restore) needs to go on.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainState {
    /// Steps done.
    pub step: u64,
    /// Weights and buffers under their names, each parameter's momentum under `momentum.` and its name.
    pub tensors: StateDict,
}

/// What a step came to, for a progress line.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepStats {
    /// Steps done, this one included.
    pub step: u64,
    /// Mean loss over the batch, before the step.
    pub loss: f64,
    /// Images of the batch that were classified correctly.
    pub n_correct: usize,
    /// Images of the batch.
    pub n_images: usize,
    /// Its learning rate.
    pub lr: f64,
}

/// What an epoch came to, or the part of it that was run.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct EpochStats {
    /// Mean loss per image while training.
    pub loss: f64,
    /// Images classified correctly while training.
    pub n_correct: usize,
    /// Images seen.
    pub n_images: usize,
    /// False when it was interrupted.
    pub complete: bool,
}

impl EpochStats {
    /// Share of images classified correctly, 0…1.
    #[must_use]
    pub fn accuracy(&self) -> f64 {
        self.n_correct as f64 / self.n_images.max(1) as f64
    }
}
