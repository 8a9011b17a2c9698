//! What is told of an adaptation on its way, and what it takes to go on later.

use zipit::StateDict;

/// How good the network was at some step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Judged {
    /// Steps done.
    pub step: u64,
    /// On held-out images.
    pub loss: f64,
}

/// Everything that a later [`restore`](super::Adapter::restore) needs to go on.
#[derive(Debug, Clone, PartialEq)]
pub struct AdaptState {
    /// Steps done, and to do.
    pub steps: [u64; 2],
    /// How often the learning rate was lowered.
    pub lowered: u32,
    /// All judgements.
    pub judged: Vec<Judged>,
    /// Unknowns, their moments, and the best unknowns.
    pub tensors: StateDict,
}

/// A step, for a progress line.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdaptStep {
    /// Steps done, this one included.
    pub step: u64,
    /// Of its images, before the step.
    pub loss: f64,
    /// Its learning rate.
    pub lr: f64,
}
