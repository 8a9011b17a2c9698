//! Signs elected entry by entry (TIES, Yadav et al. 2023, arXiv 2306.01708): γ = sgn Σₜ wₜ τₜ, and of the vectors only those
//! that have this sign there.

/// What becomes of the entries that agree with the elected sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disjoint {
    /// Σ wₜ τₜ / Σ wₜ over those that agree (the paper's).
    Mean,
    /// Σ wₜ τₜ (`FusionBench`'s and `AdaMerging`'s).
    Sum,
}

/// Σₜ wₜ τₜ in f64.
pub(super) fn sum(vectors: &[Vec<f32>], weights: &[f64]) -> Vec<f64> {
    let mut sum = vec![0.0; vectors.first().map_or(0, Vec::len)];
    for (vector, weight) in vectors.iter().zip(weights) {
        for (sum, &x) in sum.iter_mut().zip(vector) {
            *sum += weight * f64::from(x);
        }
    }
    sum
}

/// The merge of those that agree; zero where the sum is zero: a draw elects nobody.
pub(super) fn elected(vectors: &[Vec<f32>], weights: &[f64], disjoint: Disjoint) -> Vec<f64> {
    let signs = sum(vectors, weights);
    let mut merged = vec![0.0; signs.len()];
    let mut counted = vec![0.0; signs.len()];
    for (vector, &weight) in vectors.iter().zip(weights) {
        for (((merged, counted), &x), sign) in merged.iter_mut().zip(&mut counted).zip(vector).zip(&signs) {
            let x = f64::from(x);
            let agrees = if x * sign > 0.0 { weight } else { 0.0 };
            *merged += agrees * x;
            *counted += agrees;
        }
    }
    if disjoint == Disjoint::Mean {
        for (merged, counted) in merged.iter_mut().zip(counted) {
            *merged /= if counted > 0.0 { counted } else { 1.0 };
        }
    }
    merged
}
