//! TIES (Yadav et al. 2023, arXiv 2306.01708): trim, elect, merge: θ = θ₀ + λ · (the merge of τ̂ₜ that agree in sign), with τ̂ₜ
//! the entries of τₜ of largest magnitude.
//!
//! Its versions differ in three things, which are named here and never mixed: over what is trimmed ([`Scope`]), how what
//! agrees is merged ([`Disjoint`](super::Disjoint)), and λ.

use super::cut::{Add, Counts, Cut, cut};
use super::selection::{Band, Selection};
use super::source::{Network, Piece, Source, Tensor};
use crate::{Result, StateDict};
use rayon::prelude::*;

/// Over what entries are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Of a tensor with each other (mergekit's): of n the ⌊density·n⌋ largest are left, of equal ones the later.
    Tensor,
    /// Of all tensors with each other (the authors'): those are left that are not smaller than the (n − ⌊density·n⌋)-th
    /// smallest, which is one more, and equal ones.
    All,
}

/// How many of n are left.
fn n_left(density: f64, n: usize) -> usize {
    (density.clamp(0.0, 1.0) * n as f64) as usize
}

/// Places in the order of magnitudes of one network's task vector.
struct Order<'a> {
    source: &'a dyn Source,
    tensors: &'a [&'a Tensor],
    t: usize,
}

/// Pieces that are counted by one thread at a time, as counts take room.
const AT_ONCE: usize = 64;

impl Order<'_> {
    fn count(&self, add: &Add<'_>) -> Result<Counts> {
        let pieces: Vec<Piece<'_>> = (self.tensors.iter())
            .flat_map(|tensor| {
                let pieces = tensor.pieces().into_iter();
                pieces.map(move |(start, len)| Piece { source: self.source, tensor, start, len })
            })
            .collect();
        let counted = |pieces: &[Piece<'_>]| -> Result<Counts> {
            let mut counts = Counts::default();
            for piece in pieces {
                add(&mut counts, &piece.vector(self.t, &piece.of(Network::Base)?)?);
            }
            Ok(counts)
        };
        let counts = pieces.par_chunks(AT_ONCE).map(counted);
        counts.try_reduce(Counts::default, |a, b| Ok(a.merged(&b)))
    }

    fn cuts(&self, ranks: &[usize]) -> Result<Vec<Cut>> {
        let upper = self.count(&|counts, numbers| counts.add_upper(numbers))?;
        ranks.iter().map(|&rank| cut(rank as u64, &|add| self.count(add), &upper)).collect()
    }
}

/// What is left of τₜ in one tensor: ranks from `low` on, before `high`.
pub(super) fn band(source: &dyn Source, tensor: &Tensor, t: usize, [low, high]: [usize; 2]) -> Result<Selection> {
    let order = Order { source, tensors: &[tensor], t };
    let cuts = order.cuts(&[low, high])?;
    let [low, high] = [cuts[0], if high >= tensor.n_numbers() { Cut::LAST } else { cuts[1] }];
    let mut met = Vec::new();
    if low.divides() || high.divides() {
        let equal = |&(start, len): &(usize, usize)| -> Result<[u64; 2]> {
            let piece = Piece { source, tensor, start, len };
            let vector = piece.vector(t, &piece.of(Network::Base)?)?;
            Ok([low, high].map(|cut| cut.n_equal_in(&vector)))
        };
        let equal: Vec<Result<[u64; 2]>> = tensor.pieces().par_iter().map(equal).collect();
        let mut before = [0, 0];
        for equal in equal {
            met.push(before);
            let [a, b] = equal?;
            before = [before[0] + a, before[1] + b];
        }
    }
    Ok(Selection::Magnitudes(Band { low, high, met }))
}

/// Every τₜ trimmed within one tensor.
pub(super) fn trimmed(source: &dyn Source, tensor: &Tensor, n_tuned: usize, density: f64) -> Result<Vec<Selection>> {
    let n = tensor.n_numbers();
    (0..n_tuned).map(|t| band(source, tensor, t, [n - n_left(density, n), n])).collect()
}

/// Every τₜ trimmed over all tensors.
pub(super) fn trimmed_over_all(
    source: &dyn Source,
    tensors: &[&Tensor],
    n_tuned: usize,
    density: f64,
) -> Result<Vec<Selection>> {
    let n: usize = tensors.iter().map(|tensor| tensor.n_numbers()).sum();
    let trim = |t| {
        let low = Order { source, tensors, t }.cuts(&[authors_rank(density, n)])?[0].before_draws();
        Ok(Selection::Magnitudes(Band { low, high: Cut::LAST, met: vec![] }))
    };
    (0..n_tuned).map(trim).collect()
}

/// From which rank on entries are left, see [`Scope::All`].
fn authors_rank(density: f64, n: usize) -> usize {
    (n - n_left(density, n)).saturating_sub(1)
}

/// Every vector trimmed over all its tensors ([`Scope::All`]), and zero where its sign is not that of the sum: what of them
/// `AdaMerging`++ learns coefficients of.
///
/// # Panics
/// When the vectors have different tensors.
pub fn trim_and_elect(vectors: &mut [StateDict], density: f64) {
    for vector in vectors.iter_mut() {
        let mut sizes: Vec<f32> = vector.values().flat_map(|tensor| tensor.iter().map(|x| x.abs())).collect();
        let rank = authors_rank(density, sizes.len());
        if rank == 0 {
            continue;
        }
        let least = *sizes.select_nth_unstable_by(rank, f32::total_cmp).1;
        for tensor in vector.values_mut() {
            tensor.mapv_inplace(|x| if x.abs() < least { 0.0 } else { x });
        }
    }
    let Some(first) = vectors.first() else { return };
    let names: Vec<String> = first.keys().cloned().collect();
    for name in names {
        let mut sum = ndarray::ArrayD::<f64>::zeros(vectors[0][&name].raw_dim());
        for vector in vectors.iter() {
            sum.zip_mut_with(&vector[&name], |sum, &x| *sum += f64::from(x));
        }
        for vector in vectors.iter_mut() {
            let tensor = vector.get_mut(&name).expect("every task has the tensor");
            tensor.zip_mut_with(&sum, |x, &sum| *x = if f64::from(*x) * sum > 0.0 { *x } else { 0.0 });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    fn vector(values: [f32; 4]) -> StateDict {
        let [a, b, c, d] = values;
        [("m".to_owned(), array![a, b].into_dyn()), ("w".to_owned(), array![c, d].into_dyn())].into()
    }

    #[test]
    fn ties_trims_and_elects_a_sign() {
        // A quarter of four is one; the authors leave one more.
        let mut vectors = [vector([4.0, -0.1, 3.0, 0.2]), vector([-1.0, 2.0, 0.0, -2.0])];
        trim_and_elect(&mut vectors, 0.25);
        assert_eq!(vectors[0], vector([4.0, 0.0, 3.0, 0.0]));
        assert_eq!(vectors[1], vector([0.0, 2.0, 0.0, -2.0]));
        let mut vectors = [vector([4.0, -1.0, 3.0, 1.0]), vector([-1.0, 2.0, 0.5, -1.0])];
        trim_and_elect(&mut vectors, 1.0);
        assert_eq!(vectors[0], vector([4.0, 0.0, 3.0, 0.0]), "signs that lose are gone, and both of a draw");
        assert_eq!(vectors[1], vector([0.0, 2.0, 0.5, 0.0]));
    }
}
