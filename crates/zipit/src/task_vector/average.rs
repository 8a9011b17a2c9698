//! Weighted average: θ = Σₜ wₜ θₜ / Σₜ wₜ (model soups, Wortsman et al. 2022, arXiv 2203.05482).

/// What each network counts.
pub(super) fn shares(weights: &[f64]) -> Vec<f64> {
    let sum: f64 = weights.iter().sum();
    weights.iter().map(|w| w / sum).collect()
}
