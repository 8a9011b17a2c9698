//! Flags that are a family of their own, and the names that flags take.

use clap::{Args, ValueEnum};
use std::path::PathBuf;

/// Of `--learn coefficients`.
#[derive(Debug, Args)]
#[group(skip)]
pub struct CoefficientArgs {
    /// For --learn coefficients: what --to are fine-tunes of
    #[arg(long, value_name = "MODEL")]
    pub base: Option<PathBuf>,
    /// For --learn coefficients: a coefficient for every task, or for every task and tensor
    #[arg(long, value_enum, default_value_t = PerName::Task)]
    pub per: PerName,
    /// For --learn coefficients: keep the largest share of every task vector, and what agrees in sign (TIES)
    #[arg(long, value_name = "SHARE")]
    pub ties: Option<f64>,
    /// For --learn coefficients: where they begin [default: 0.3]
    #[arg(long, value_name = "λ")]
    pub initial: Option<f64>,
    /// For --learn coefficients: keep them within 0…1
    #[arg(long)]
    pub clamp: bool,
}

/// How images are changed.
#[derive(Debug, Args)]
#[group(skip)]
pub struct AugmentArgs {
    /// Mirror every second image, where left and right do not matter
    #[arg(long)]
    pub flip: bool,
    /// Shift images by up to so many pixels along each axis
    #[arg(long, value_name = "PIXELS", default_value_t = 0)]
    pub shift: usize,
    /// Mirror and shift each image in so many ways, which epochs take in turn: the networks of --to are asked about each
    /// once, unless their answers take too much memory. 0: another way in every epoch [default: 8]
    #[arg(long, value_name = "WAYS")]
    pub views: Option<u64>,
}

impl AugmentArgs {
    /// Whether images are changed at all.
    pub fn changes(&self) -> bool {
        self.flip || self.shift > 0
    }
}

/// The objectives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ObjectiveName {
    /// The squared distance of outputs to what they are to be, in units of its variance
    Distill,
    /// The same of softmaxes: their cross-entropy, at a temperature
    CrossEntropy,
    /// Entropy of each output's softmax on images of its task (`AdaMerging`); the images' classes tell their task
    Entropy,
}

/// What may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LearnName {
    /// All weights
    Weights,
    /// A scale and a shift of every feature
    Norms,
    /// What one output alone needs
    Heads,
    /// How much of every fine-tune's difference to its base is added
    Coefficients,
}

/// Whose coefficients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PerName {
    /// One for each task
    Task,
    /// One for each task and tensor
    Tensor,
}

/// Who is believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TrustName {
    /// All alike
    All,
    /// The one whose softmax gives the largest probability
    Surest,
}
