//! The rules and what they are given.

use super::dare::Rescale;
use super::elect::Disjoint;
use super::mats::Stop;
use super::ties::Scope;
use crate::{Error, Result};

/// What is made of a convolution's kernels by a rule that takes matrices apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kernels {
    /// A matrix `[O, I·kH·kW]`.
    Matrix,
    /// Their mean (`FusionBench`'s).
    Mean,
}

/// How task vectors become one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Rule {
    /// Σₜ wₜ θₜ / Σₜ wₜ.
    Average,
    /// The arc between two networks, `t` of the way from the first.
    Slerp {
        /// 0 is the first network, 1 the second.
        t: f64,
    },
    /// θ₀ + λ Σₜ wₜ τₜ.
    TaskArithmetic,
    /// Trim, elect, merge.
    Ties {
        /// The share of entries that is left.
        density: f64,
        /// Over what entries are compared.
        scope: Scope,
        /// How what agrees is merged.
        disjoint: Disjoint,
    },
    /// Drop and rescale.
    Dare {
        /// The share of entries that is left.
        density: f64,
        /// By what they are multiplied.
        rescale: Rescale,
        /// Of the generator.
        seed: u64,
        /// Whether signs are elected, and how what agrees is merged; else all are added.
        elect: Option<Disjoint>,
    },
    /// Neither the largest nor the smallest.
    Breadcrumbs {
        /// The share of entries that is left.
        density: f64,
        /// The share of the largest that is not.
        gamma: f64,
    },
    /// The mean, as far from the base as task vectors have in common.
    ModelStock,
    /// Isotropic, of the sum.
    IsoC {
        /// What becomes of kernels.
        kernels: Kernels,
    },
    /// Isotropic, of the sum and of what tasks have beside it.
    IsoCts {
        /// The share of directions that are the sum's.
        common: f64,
        /// What becomes of kernels.
        kernels: Kernels,
    },
    /// Task singular vectors.
    TsvM {
        /// What becomes of kernels.
        kernels: Kernels,
    },
    /// By what predictions depend on.
    Fisher,
    /// By what layers read.
    RegMean {
        /// What off-diagonal entries of the second moments are multiplied by.
        off_diagonal: f64,
    },
    /// By what layers read and what predictions depend on.
    Mats {
        /// When conjugate gradients end.
        stop: Stop,
    },
}

impl Rule {
    /// Whether it reads the base.
    #[must_use]
    pub fn takes_base(self) -> bool {
        !matches!(self, Self::Average | Self::Slerp { .. } | Self::Fisher | Self::RegMean { .. })
    }

    /// Whether it weighs by what was measured on images.
    #[must_use]
    pub fn takes_measured(self) -> bool {
        matches!(self, Self::Fisher | Self::RegMean { .. } | Self::Mats { .. })
    }

    /// Whether networks may count differently.
    fn takes_weights(self) -> bool {
        !matches!(self, Self::Slerp { .. } | Self::ModelStock)
    }
}

/// A rule and what networks count.
#[derive(Debug, Clone, PartialEq)]
pub struct Recipe {
    /// How.
    pub rule: Rule,
    /// wₜ, one per network.
    pub weights: Vec<f64>,
    /// λ: what the merged task vector is multiplied by.
    pub scale: f64,
}

impl Recipe {
    /// All networks alike, λ = 1.
    #[must_use]
    pub fn new(rule: Rule, n_tuned: usize) -> Self {
        Self { rule, weights: vec![1.0; n_tuned], scale: 1.0 }
    }

    /// Everything that can be wrong with it.
    ///
    /// # Errors
    /// [`Error::Request`] for numbers out of their range, and for too many or too few networks.
    pub fn check(&self) -> Result<()> {
        let refuse = |text: String| Err(Error::Request(text));
        let share = |what: &str, x: f64| -> Result<()> {
            if x > 0.0 && x <= 1.0 {
                return Ok(());
            }
            refuse(format!("{what} is {x}: a share lies above 0 and is at most 1"))
        };
        let n = self.weights.len();
        if let Some(w) = self.weights.iter().find(|w| !w.is_finite()) {
            return refuse(format!("a network's weight is {w}: it must be a number"));
        }
        if !self.scale.is_finite() {
            return refuse(format!("the scale is {}: it must be a number", self.scale));
        }
        if !self.rule.takes_weights() && self.weights != vec![1.0; n] {
            return refuse("this rule counts all networks alike: leave the weights out".to_owned());
        }
        if !self.rule.takes_base() && self.scale.total_cmp(&1.0).is_ne() {
            return refuse("this rule has no task vectors that a scale could multiply: leave the scale out".to_owned());
        }
        if let Some(w) = self.weights.iter().find(|w| self.rule.takes_measured() && **w <= 0.0) {
            return refuse(format!("a network's weight is {w}: what was measured of it counts more than nothing"));
        }
        match self.rule {
            Rule::Average if self.weights.iter().sum::<f64>() == 0.0 => {
                refuse("the networks' weights add up to zero: there is no average".to_owned())
            }
            Rule::Slerp { .. } if n != 2 => refuse(format!("an arc goes between two networks: {n} are given")),
            Rule::Slerp { t } if !(0.0..=1.0).contains(&t) => {
                refuse(format!("t is {t}: it lies between 0, the first network, and 1, the second"))
            }
            Rule::ModelStock if n < 2 => refuse("angles are between networks: give two at least".to_owned()),
            Rule::Ties { density, .. } | Rule::Dare { density, .. } => share("the density", density),
            Rule::Breadcrumbs { density, gamma } => {
                share("the density", density)?;
                if (0.0..1.0).contains(&gamma) {
                    return Ok(());
                }
                refuse(format!("gamma is {gamma}: a share lies between 0 and 1"))
            }
            Rule::IsoCts { common, .. } if !(0.0..=1.0).contains(&common) => {
                refuse(format!("the common share is {common}: it lies between 0 and 1"))
            }
            Rule::RegMean { off_diagonal } if !(0.0..=1.0).contains(&off_diagonal) => {
                refuse(format!("off-diagonal entries are multiplied by {off_diagonal}: it lies between 0 and 1"))
            }
            Rule::Mats { stop } if !(stop.tolerance >= 0.0 && stop.tolerance < 1.0) => refuse(format!(
                "the tolerance is {}: a share of the residual is at least 0 and below 1",
                stop.tolerance
            )),
            _ => Ok(()),
        }
    }
}
