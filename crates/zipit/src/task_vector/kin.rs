//! Whether networks are fine-tunes of a base at all, from cosines.

use super::combine::{Made, Part};
use super::gram::{cosine, inner_products};
use super::source::{Network, Piece, Source};
use crate::Result;
use ndarray::Array2;
use rayon::prelude::*;

/// Numbers of every tensor that are looked at.
const SAMPLE: usize = 1 << 14;

/// Below this cosine to the base, a network's weights may be independent of it: at the sizes of real layers independent ones
/// stay within a few hundredths of zero.
const RELATED: f64 = 0.2;

/// How networks stand to their base, and to each other as they leave it.
#[derive(Debug, Clone, PartialEq)]
pub struct Kin {
    /// Cosine of θₜ and θ₀; `None` where one is zero.
    pub to_base: Vec<Option<f64>>,
    /// Mean cosine of two task vectors; `None` where there are no two.
    pub between_vectors: Option<f64>,
}

impl Kin {
    /// The networks, from 0, that seem to be no fine-tunes of the base, with the cosine of their weights to its.
    #[must_use]
    pub fn strangers(&self) -> Vec<(usize, f64)> {
        let found = self.to_base.iter().enumerate().filter_map(|(t, cosine)| Some((t, (*cosine)?)));
        found.filter(|&(_, cosine)| cosine < RELATED).collect()
    }
}

/// From the first 16,384 numbers of every tensor with more than one axis that the rule makes.
///
/// # Errors
/// Tensors that cannot be read.
pub fn kin(parts: &[Part], n_tuned: usize, source: &dyn Source) -> Result<Kin> {
    let sums = |part: &&Part| -> Result<Array2<f64>> {
        let len = part.tensor.n_numbers().min(SAMPLE);
        let piece = Piece { source, tensor: &part.tensor, start: 0, len };
        let base = piece.of(Network::Base)?;
        let tuned = (0..n_tuned).map(|t| piece.of(Network::Tuned(t))).collect::<Result<Vec<_>>>()?;
        let minus = |tuned: &Vec<f32>| tuned.iter().zip(&base).map(|(x, base)| x - base).collect();
        let vectors: Vec<Vec<f32>> = tuned.iter().map(minus).collect();
        Ok(inner_products(&[vec![base.clone()], tuned, vectors].concat()))
    };
    let looked_at: Vec<&Part> =
        parts.iter().filter(|part| part.made == Made::ByRule && part.tensor.shape.len() > 1).collect();
    let sums: Vec<Result<Array2<f64>>> = looked_at.par_iter().map(sums).collect();
    let n = 1 + 2 * n_tuned;
    let gram = sums.into_iter().try_fold(Array2::zeros((n, n)), |sum, of| of.map(|of| sum + of))?;
    let vectors = 1 + n_tuned..n;
    let pairs: Vec<f64> = (vectors.clone())
        .flat_map(|i| (i + 1..n).map(move |j| (i, j)))
        .filter_map(|(i, j)| cosine(&gram, i, j))
        .collect();
    Ok(Kin {
        to_base: (1..=n_tuned).map(|t| cosine(&gram, 0, t)).collect(),
        between_vectors: (!pairs.is_empty()).then(|| pairs.iter().sum::<f64>() / pairs.len() as f64),
    })
}
