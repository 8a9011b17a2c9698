//! What `match` decided: for every merged space, which features become one and how they come back.

use crate::matching::Method;
use crate::unmerge::UnmergeRule;
use ndarray::Array2;
use serde::{Deserialize, Serialize};

/// The maps of one merge point.
#[derive(Debug, Clone, PartialEq)]
pub struct PointPlan {
    /// The space, by the value it is measured at.
    pub name: String,
    /// Group of each joint feature, `[N·d]`, numbered 0…d'−1 in the order of each group's lowest feature. It defines
    /// the merge M ∈ R^{d'×Nd}: row g averages the members of group g.
    pub assignment: Vec<u32>,
    /// d'.
    pub n_groups: usize,
    /// The unmerge U ∈ R^{Nd×d'} where it is dense; `None` is the group indicator, = pinv(M).
    pub unmerge: Option<Array2<f32>>,
    /// What the matching did, for people.
    pub summary: PointSummary,
}

/// One row of `match`'s table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PointSummary {
    /// Merges between features of different models.
    pub across: usize,
    /// Merges within each model, `[N]`.
    pub within: Vec<usize>,
    /// Mean correlation between a group's members, over all pairs of all groups; `None` where no group has two.
    pub mean_correlation: Option<f64>,
    /// Whether the caps on within-model merges had to be lifted to reach d' groups.
    pub caps_lifted: bool,
    /// E‖z − U M z‖² / E‖z‖²: the share of the features' energy that the unmerge does not bring back.
    pub reconstruction_error: f64,
}

/// How the maps were chosen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanSettings {
    /// The matching.
    pub method: Method,
    /// The unmerge rule.
    pub unmerge: UnmergeRule,
}

/// The maps of every merged space.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// N.
    pub n_models: usize,
    /// How they were chosen.
    pub settings: PlanSettings,
    /// The merged spaces, in the order of the forward pass. A free space that is not here stays separate.
    pub points: Vec<PointPlan>,
}
