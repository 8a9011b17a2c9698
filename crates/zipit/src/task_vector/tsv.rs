//! Task singular vectors, merged (TSV-M, Gargiulo et al. 2025, arXiv 2412.00081): of every τₜ = U diag(σ) Vᵀ its r/N first
//! directions, those of all tasks brought to orthonormal columns: Δ = U⊥ diag(σ) V⊥ᵀ.

use super::factors::Factors;
use crate::Result;
use ndarray::Array2;

/// Δ. Every task has a direction at least, where the authors leave a matrix with fewer than N out.
pub(super) fn merged(vectors: &[Array2<f64>]) -> Result<Array2<f64>> {
    let own = |vector: &Array2<f64>| -> Result<Factors> {
        let factors = Factors::of(vector.view())?;
        Ok(factors.first((factors.s.len() / vectors.len()).max(1)))
    };
    let parts = vectors.iter().map(own).collect::<Result<Vec<_>>>()?;
    Ok(Factors::joined(&parts).orthogonal()?.product())
}
