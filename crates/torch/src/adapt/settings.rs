//! How to adapt.

use crate::train::Autocast;
use crate::{Error, Result};
use zipit::StateDict;

/// As good as another way in every epoch: two pairs of ResNet-20s on 2,000 images of CIFAR-10, 20 epochs, validation
/// images 90.98 % and 90.99 %; 4 views 90.81 %, one 90.61 %.
const VIEWS: u64 = 8;

/// What is made small.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Objective {
    /// Σ over outputs of E (output − source)² / Var(source): what a network says beside what it is to say.
    Distill,
    /// Σ over outputs of the cross-entropy of softmax(output / T) to softmax(source / T), times T² (Hinton et al. 2015).
    CrossEntropy {
        /// T.
        temperature: f64,
    },
    /// Σ over outputs of the entropy of softmax(output) on images of the output's own task (`AdaMerging`, Yang et al.
    /// 2024): no source is asked.
    Entropy,
}

/// What may change.
#[derive(Debug, Clone)]
pub enum Learn {
    /// Every learned parameter; what a traced network stores beside them, such as tables and masks, is none.
    Weights,
    /// A scale and a shift for every feature that a layer makes, and the parameters of norms.
    Norms,
    /// The layers that only one output needs; of a network with one output, its last ones.
    Heads,
    /// λ in θ = θ₀ + Σₜ λₜ τₜ, for task vectors τ over a base θ₀.
    Coefficients(Coefficients),
}

/// Task vectors over a base, for all tensors that every task has. BatchNorm goes by the statistics of the images that a
/// thread takes at once: up to as many as [`batch_size`](crate::batch_size) says for the graph and the kind of device.
#[derive(Debug, Clone)]
pub struct Coefficients {
    /// θ₀.
    pub base: StateDict,
    /// τₜ, one for each task, of the base's tensors.
    pub vectors: Vec<StateDict>,
    /// Whether every tensor has a λ of its own (layer-wise `AdaMerging`).
    pub per_tensor: bool,
    /// Where all λ begin.
    pub initial: f64,
    /// Whether they stay within 0…1.
    pub clamp: bool,
}

/// Which source is believed, where several say something about one output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Believed {
    /// All alike: the mean of their logits.
    All,
    /// On every image the one whose softmax gives the largest probability.
    Surest,
}

/// How to adapt.
#[derive(Debug, Clone)]
pub struct AdaptSettings {
    /// What is made small.
    pub objective: Objective,
    /// What may change.
    pub learn: Learn,
    /// Whether weights are learned in whitened inputs.
    pub whitened: bool,
    /// Which source is believed.
    pub believed: Believed,
    /// Images per step.
    pub batch_size: usize,
    /// Highest learning rate.
    pub lr: f64,
    /// Mirror every second image, left to right.
    pub flip: bool,
    /// Shift images by up to so many pixels along each axis.
    pub shift: usize,
    /// In how many ways each image is changed, which the epochs take in turn, so that sources are asked about each once;
    /// 0 for another way in every epoch. Without effect where what they say takes too much memory to be kept.
    pub views: u64,
    /// Which precision convolutions and linear layers compute in.
    pub autocast: Autocast,
    /// Of the order of the images and their changes.
    pub seed: u64,
}

impl Default for AdaptSettings {
    fn default() -> Self {
        Self {
            objective: Objective::Distill,
            learn: Learn::Weights,
            whitened: true,
            believed: Believed::Surest,
            batch_size: 128,
            lr: 1e-3,
            flip: false,
            shift: 0,
            views: VIEWS,
            autocast: Autocast::Off,
            seed: 0,
        }
    }
}

impl AdaptSettings {
    pub(super) fn check(&self) -> Result<()> {
        let problem = match self {
            s if s.batch_size == 0 => "the batch size must be at least 1",
            s if !(s.lr > 0.0 && s.lr.is_finite()) => "the learning rate must be positive",
            Self { objective: Objective::CrossEntropy { temperature }, .. }
                if !(*temperature > 0.0 && temperature.is_finite()) =>
            {
                "the temperature must be positive"
            }
            Self { learn: Learn::Coefficients(c), .. } if c.vectors.is_empty() => "there are no task vectors",
            Self { learn: Learn::Coefficients(c), .. } if !c.initial.is_finite() => "coefficients must begin somewhere",
            _ => return Ok(()),
        };
        Err(Error::Request(problem.into()))
    }
}
