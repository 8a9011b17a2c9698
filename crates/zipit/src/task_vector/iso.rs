//! Isotropic merging (Marczak et al. 2025, arXiv 2502.04959).
//!
//! Iso-C: of Σₜ τₜ = U diag(σ) Vᵀ only the directions, all as strong as the mean: Δ = σ̄ U Vᵀ.
//!
//! Iso-CTS: the k first directions of the sum, and the first ones of what every task has beside them, τₜ − U₁₋ₖ U₁₋ₖᵀ τₜ, brought
//! to orthonormal columns; all as strong as their mean.

use super::factors::Factors;
use crate::Result;
use crate::products::product;
use ndarray::Array2;

fn sum(vectors: &[Array2<f64>]) -> Array2<f64> {
    vectors.iter().skip(1).fold(vectors[0].clone(), |sum, vector| sum + vector)
}

/// Δ of Iso-C.
pub(super) fn common(vectors: &[Array2<f64>]) -> Result<Array2<f64>> {
    Ok(Factors::of(sum(vectors).view())?.isotropic().product())
}

/// Δ of Iso-CTS, with about a share `common` of all directions from the sum: as many as leave an equal number to every task.
pub(super) fn common_and_specific(vectors: &[Array2<f64>], common: f64) -> Result<Array2<f64>> {
    let all = Factors::of(sum(vectors).view())?;
    let (r, n) = (all.s.len(), vectors.len());
    let specific = ((r - (r as f64 * common) as usize) as f64 / n as f64).round_ties_even() as usize;
    let specific = specific.min(r / n);
    let shared = all.first(r - specific * n);
    let own = |vector: &Array2<f64>| -> Result<Factors> {
        let along = product(vector.t(), shared.u.t());
        let rest = vector - &product(shared.u.view(), along.view());
        Ok(Factors::of(rest.view())?.first(specific))
    };
    let mut parts = vectors.iter().map(own).collect::<Result<Vec<_>>>()?;
    parts.push(shared);
    Ok(Factors::joined(&parts).orthogonal()?.isotropic().product())
}
