//! Model Stock (Jang et al. 2024, arXiv 2403.19522): θ = r θ̄ + (1 − r) θ₀, tensor by tensor, with
//! r = N cos φ / (1 + (N − 1) cos φ) and φ the mean angle between task vectors.

use super::gram::cosine;
use ndarray::Array2;

/// r, from the task vectors' inner products: 0, the base, where they have nothing in common or point away from each other
/// (the formula would leave the span of what was trained there).
pub(super) fn ratio(gram: &Array2<f64>) -> f64 {
    let n = gram.nrows();
    let pairs: Vec<f64> =
        (0..n).flat_map(|i| (i + 1..n).map(move |j| (i, j))).filter_map(|(i, j)| cosine(gram, i, j)).collect();
    let mean = pairs.iter().sum::<f64>() / pairs.len().max(1) as f64;
    let n = n as f64;
    if mean > 0.0 { n * mean / (1.0 + (n - 1.0) * mean) } else { 0.0 }
}
