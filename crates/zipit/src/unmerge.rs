//! How every model's features come back from the merged ones: U with M·U = I.

use serde::{Deserialize, Serialize};

/// The rule that gives U.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "snake_case", deny_unknown_fields)]
pub enum UnmergeRule {
    /// The authors': the group indicator, = pinv(M).
    Pinv,
    /// Best linear reconstruction of z from M z (DESIGN §3), with ridge λ in units of the mean diagonal of M G Mᵀ.
    Covariance {
        /// λ ≥ 0; λ → ∞ gives [`Pinv`](Self::Pinv) back.
        ridge: f64,
    },
}
