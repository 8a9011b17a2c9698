//! Which features become one: a matching assigns each of the N·d joint features to one of d' groups.

pub mod identity;
pub mod oracle;
pub mod permute;
pub mod zip;

use crate::{Result, plan::PointSummary};
use ndarray::ArrayView2;
use serde::{Deserialize, Serialize};

/// A way to match features.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "snake_case", deny_unknown_fields)]
pub enum Method {
    /// Greedy within and across models (paper, §4.1 and appendix).
    Zip {
        /// α: each merge multiplies the new group's similarities by it.
        alpha: f32,
        /// β: share of the removals a model may spend within itself.
        beta: f32,
    },
    /// Optimal one-to-one assignment of each model onto the first.
    Permute,
    /// Feature j with feature j: weight averaging.
    Identity,
}

/// Groups of joint features at one merge point.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Matching {
    /// Group of each joint feature, `[N·d]`, numbered in the order of each group's lowest feature.
    pub assignment: Vec<u32>,
    /// d'.
    pub n_groups: usize,
    /// Whether the caps on within-model merges had to be lifted.
    pub caps_lifted: bool,
}
