//! How to train.

use crate::{Error, Result};

/// How to train.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainSettings {
    /// Passes over the images.
    pub epochs: usize,
    /// Images per step. What does not fill a last batch is left out of its epoch.
    pub batch_size: usize,
    /// Highest learning rate of the cycle.
    pub max_lr: f64,
    /// Share of the steps in which the learning rate rises, 0…1.
    pub warm_up: f64,
    /// Momentum of SGD, 0…1.
    pub momentum: f64,
    /// Nesterov's momentum.
    pub nesterov: bool,
    /// Weight decay of convolution and linear weights.
    pub weight_decay: f64,
    /// Whether biases and BatchNorm's parameters decay, too.
    pub decay_all: bool,
    /// Share of the target spread over all classes, 0…1.
    pub label_smoothing: f64,
    /// Mirror every second image, left to right.
    pub flip: bool,
    /// Shift images by up to so many pixels along each axis.
    pub shift: usize,
    /// Which precision convolutions and linear layers compute in.
    pub autocast: Autocast,
}

/// Which precision convolutions and linear layers compute in; weights, BatchNorm statistics and the loss are always f32.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Autocast {
    /// In f32 as well.
    #[default]
    Off,
    /// Fast where the device multiplies bf16.
    Bf16,
}

impl Default for TrainSettings {
    fn default() -> Self {
        Self {
            epochs: 10,
            batch_size: 128,
            max_lr: 0.2,
            warm_up: 0.3,
            momentum: 0.9,
            nesterov: true,
            weight_decay: 5e-4,
            decay_all: false,
            label_smoothing: 0.0,
            flip: true,
            shift: 0,
            autocast: Autocast::Off,
        }
    }
}

impl TrainSettings {
    pub(super) fn check(&self) -> Result<()> {
        let share = |x: f64| (0.0..1.0).contains(&x);
        let problem = match self {
            s if s.epochs == 0 => "epochs must be at least 1",
            s if s.batch_size < 2 => "the batch size must be at least 2: BatchNorm compares images",
            s if !(s.max_lr > 0.0 && s.max_lr.is_finite()) => "the learning rate must be positive",
            s if !(s.warm_up > 0.0 && s.warm_up < 1.0) => "the warm-up must lie between 0 and 1",
            s if !share(s.momentum) => "the momentum must be at least 0 and below 1",
            s if s.nesterov && s.momentum == 0.0 => "Nesterov needs a momentum",
            s if !(s.weight_decay >= 0.0 && s.weight_decay.is_finite()) => "the weight decay must not be negative",
            s if !share(s.label_smoothing) => "label smoothing must be at least 0 and below 1",
            _ => return Ok(()),
        };
        Err(Error::Request(problem.into()))
    }
}
