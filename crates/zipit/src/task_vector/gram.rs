//! What networks' weights have in common: inner products, from which coefficients of whole tensors follow.

use super::source::{Network, Piece, Source, Tensor};
use crate::Result;
use ndarray::Array2;
use rayon::prelude::*;

/// Gᵢⱼ = ⟨vᵢ, vⱼ⟩ of one tensor of every network, in f64; vₜ is τₜ where `vectors`, else θₜ. Summed piece by piece in order.
pub(super) fn gram(source: &dyn Source, tensor: &Tensor, n_tuned: usize, vectors: bool) -> Result<Array2<f64>> {
    let sums = |&(start, len): &(usize, usize)| {
        let piece = Piece { source, tensor, start, len };
        let base = if vectors { piece.of(Network::Base)? } else { vec![] };
        let read = |t: usize| if vectors { piece.vector(t, &base) } else { piece.of(Network::Tuned(t)) };
        Ok(inner_products(&(0..n_tuned).map(read).collect::<Result<Vec<_>>>()?))
    };
    let sums: Vec<Result<Array2<f64>>> = tensor.pieces().par_iter().map(sums).collect();
    let zero = Array2::zeros((n_tuned, n_tuned));
    sums.into_iter().try_fold(zero, |sum, piece| Ok(sum + piece?))
}

pub(super) fn inner_products(vectors: &[Vec<f32>]) -> Array2<f64> {
    let n = vectors.len();
    let product = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>();
    let mut gram = Array2::zeros((n, n));
    for i in 0..n {
        for j in i..n {
            gram[[i, j]] = product(&vectors[i], &vectors[j]);
            gram[[j, i]] = gram[[i, j]];
        }
    }
    gram
}

/// The cosine of two of them; `None` where one is zero.
pub(super) fn cosine(gram: &Array2<f64>, i: usize, j: usize) -> Option<f64> {
    let norms = (gram[[i, i]] * gram[[j, j]]).sqrt();
    (norms > 0.0).then(|| (gram[[i, j]] / norms).clamp(-1.0, 1.0))
}
