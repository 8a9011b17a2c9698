//! Task singular vectors, merged (TSV-M, Gargiulo et al. 2025, arXiv 2412.00081): of every τₜ = U diag(σ) Vᵀ its r/N first
//! directions, those of all tasks brought to orthonormal columns: Δ = U⊥ diag(σ) V⊥ᵀ.

use super::factors::Factors;
use crate::Result;
use ndarray::Array2;

/// Δ of the `n` matrices that `vector` gives. Every task has a direction at least, where the authors leave a matrix with fewer
/// than N out.
pub(super) fn merged(n: usize, vector: &dyn Fn(usize) -> Result<Array2<f64>>) -> Result<Array2<f64>> {
    let own = |t: usize| -> Result<Factors> {
        let factors = Factors::of(vector(t)?.view())?;
        Ok(factors.first((factors.s.len() / n).max(1)))
    };
    let parts = (0..n).map(own).collect::<Result<Vec<_>>>()?;
    Ok(Factors::joined(&parts).orthogonal()?.product())
}
