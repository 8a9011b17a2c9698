//! DARE (Yu et al. 2024, arXiv 2311.03099): each entry of τₜ is dropped with probability 1 − density, and what is left is
//! rescaled; then Σₜ wₜ τ̂ₜ, or as in TIES what agrees in sign.

use super::selection::{Drawn, Selection};
use super::source::{Network, Piece, Source, Tensor};
use crate::Result;
use rayon::prelude::*;

/// By what those that are left are multiplied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rescale {
    /// By 1/density: the expectation stays (the paper's).
    Density,
    /// So that a tensor's Σ|τ| stays.
    L1,
    /// By nothing.
    Off,
}

/// What is drawn in tensor number `at`, for each network.
pub(super) fn drawn(
    source: &dyn Source,
    (at, tensor): (usize, &Tensor),
    n_tuned: usize,
    (density, rescale, seed): (f64, Rescale, u64),
) -> Result<Vec<Selection>> {
    let draw = |t: usize| {
        let stream = (at as u64) << 32 | t as u64;
        let drawn = Drawn { density, seed, stream, factor: 1.0 };
        let factor = match rescale {
            Rescale::Density => 1.0 / density,
            Rescale::L1 => l1_factor(source, tensor, t, &drawn)?,
            Rescale::Off => 1.0,
        };
        Ok(Selection::Drawn(Drawn { factor, ..drawn }))
    };
    (0..n_tuned).map(draw).collect()
}

/// Σ|τ| / Σ|τ̂|; 1 where nothing is left.
fn l1_factor(source: &dyn Source, tensor: &Tensor, t: usize, drawn: &Drawn) -> Result<f64> {
    let sums = |&(start, len): &(usize, usize)| -> Result<[f64; 2]> {
        let piece = Piece { source, tensor, start, len };
        let mut vector = piece.vector(t, &piece.of(Network::Base)?)?;
        let size = |vector: &[f32]| vector.iter().map(|&x| f64::from(x.abs())).sum::<f64>();
        let all = size(&vector);
        drawn.apply(start, &mut vector);
        Ok([all, size(&vector)])
    };
    let sums: Vec<Result<[f64; 2]>> = tensor.pieces().par_iter().map(sums).collect();
    let [all, left] = sums.into_iter().try_fold([0.0, 0.0], |[a, b], sums| sums.map(|[x, y]| [a + x, b + y]))?;
    Ok(if left > 0.0 { all / left } else { 1.0 })
}
