//! Spherical interpolation of two networks, tensor by tensor (Shoemake 1985): with Ω the angle between θ₁ and θ₂,
//! θ = sin((1 − t)Ω)/sin Ω · θ₁ + sin(tΩ)/sin Ω · θ₂.

use super::gram::cosine;
use ndarray::Array2;

/// Above this cosine the arc is a line (mergekit's bound), and sines would only round.
const PARALLEL: f64 = 0.9995;

/// What each of the two counts in one tensor, from their inner products. A line where there is no arc: of parallel and of
/// opposite tensors, and where one is zero.
pub(super) fn shares(gram: &Array2<f64>, t: f64) -> Vec<f64> {
    match cosine(gram, 0, 1) {
        Some(cosine) if cosine.abs() <= PARALLEL => {
            let angle = cosine.acos();
            [1.0 - t, t].map(|part| (part * angle).sin() / angle.sin()).to_vec()
        }
        _ => vec![1.0 - t, t],
    }
}
