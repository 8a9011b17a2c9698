//! EMR-Merging (Huang et al. 2024, arXiv 2405.17461): elect one vector, mask and rescale it task by task.
//!
//! With γ = sgn Σₜ τₜ, entry by entry, the unified vector is τᵤ = γ · max |τₜ| over the τₜ whose sign is γ; Mₜ = 1 where τₜ · τᵤ > 0, else 0;
//! λₜ = Σ|τₜ| / Σ|Mₜ ⊙ τᵤ|. Task t's network is θ₀ + λₜ · Mₜ ⊙ τᵤ: one bit per entry is its own.

use super::source::{Network, PIECE, Piece, Source, Tensor};
use crate::watch::Watch;
use crate::{Error, Result};
use rayon::prelude::*;

/// Entries of a mask in one byte, the first in its lowest bit.
pub const PER_BYTE: usize = 8;

/// Of what the rescalers λₜ are quotients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Rescaling {
    /// Of sums over the entries of all tensors (the paper's).
    #[default]
    Entries,
    /// Of sums, over the tensors, of their means (the authors' code, and `FusionBench`'s).
    Tensors,
}

/// τᵤ of vectors of one length. sgn 0 is −1, as in the authors' code and in `FusionBench`.
fn elected(vectors: &[Vec<f32>]) -> Vec<f32> {
    let n = vectors.first().map_or(0, Vec::len);
    let (mut sum, mut highest, mut lowest) = (vec![0.0; n], vec![0.0_f32; n], vec![0.0_f32; n]);
    for vector in vectors {
        for (((sum, highest), lowest), &x) in sum.iter_mut().zip(&mut highest).zip(&mut lowest).zip(vector) {
            *sum += f64::from(x);
            *highest = highest.max(x);
            *lowest = lowest.min(x);
        }
    }
    let ends = highest.into_iter().zip(lowest);
    sum.into_iter().zip(ends).map(|(sum, (highest, lowest))| if sum > 0.0 { highest } else { lowest }).collect()
}

fn vectors(piece: &Piece<'_>, n_tuned: usize) -> Result<Vec<Vec<f32>>> {
    let base = piece.of(Network::Base)?;
    (0..n_tuned).map(|t| piece.vector(t, &base)).collect()
}

/// What `make` makes of every piece of a tensor, in order.
fn of_pieces<T: Send>(
    source: &dyn Source,
    tensor: &Tensor,
    make: impl Fn(&Piece<'_>) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let make = |(start, len)| make(&Piece { source, tensor, start, len });
    let made: Vec<Result<T>> = tensor.pieces().into_par_iter().map(make).collect();
    made.into_iter().collect()
}

/// λₜ of every task over all `tensors`; 1 where nothing is left of a vector, whose network is the base then. `watch` is told
/// of numbers.
///
/// # Errors
/// Tensors that cannot be read, vectors that are not finite, an interruption.
pub fn rescalers(
    rescaling: Rescaling,
    tensors: &[&Tensor],
    n_tuned: usize,
    source: &dyn Source,
    watch: &dyn Watch,
) -> Result<Vec<f64>> {
    let sums = |tensor: &&Tensor| -> Result<Vec<[f64; 2]>> {
        if watch.interrupted() {
            return Err(Error::Interrupted);
        }
        let of_piece = |piece: &Piece<'_>| -> Result<Vec<[f64; 2]>> {
            let vectors = vectors(piece, n_tuned)?;
            let unified = elected(&vectors);
            watch.advance(piece.len as u64);
            let sums = |vector: &Vec<f32>| {
                vector.iter().zip(&unified).fold([0.0, 0.0], |[own, left], (&x, &unified)| {
                    let unified = if agrees(x, unified) { f64::from(unified.abs()) } else { 0.0 };
                    [own + f64::from(x.abs()), left + unified]
                })
            };
            Ok(vectors.iter().map(sums).collect())
        };
        Ok(added(&of_pieces(source, tensor, of_piece)?, n_tuned, |_| 1.0))
    };
    let sums: Vec<Result<Vec<[f64; 2]>>> = tensors.par_iter().map(sums).collect();
    let sums = sums.into_iter().collect::<Result<Vec<_>>>()?;
    let share = |at: usize| match rescaling {
        Rescaling::Entries => 1.0,
        Rescaling::Tensors => 1.0 / tensors[at].n_numbers().max(1) as f64,
    };
    let quotient = |(t, [own, left]): (usize, [f64; 2])| match own / left {
        _ if left == 0.0 => Ok(1.0),
        quotient if quotient.is_finite() => Ok(quotient),
        quotient => Err(Error::Numbers(format!("the rescaler of network {} would be {quotient}", t + 1))),
    };
    added(&sums, n_tuned, share).into_iter().enumerate().map(quotient).collect()
}

fn agrees(x: f32, unified: f32) -> bool {
    // A product could vanish.
    (x > 0.0 && unified > 0.0) || (x < 0.0 && unified < 0.0)
}

/// Sums of every task, each counted by its share.
fn added(sums: &[Vec<[f64; 2]>], n_tuned: usize, share: impl Fn(usize) -> f64) -> Vec<[f64; 2]> {
    let mut all = vec![[0.0, 0.0]; n_tuned];
    for (at, sums) in sums.iter().enumerate() {
        for (all, sums) in all.iter_mut().zip(sums) {
            all[0] += share(at) * sums[0];
            all[1] += share(at) * sums[1];
        }
    }
    all
}

/// τᵤ of one tensor, row by row.
///
/// # Errors
/// Tensors that cannot be read.
pub fn unified(tensor: &Tensor, n_tuned: usize, source: &dyn Source) -> Result<Vec<f32>> {
    let mut all = vec![0.0; tensor.n_numbers()];
    all.par_chunks_mut(PIECE).enumerate().try_for_each(|(k, into)| -> Result<()> {
        let piece = Piece { source, tensor, start: k * PIECE, len: into.len() };
        into.copy_from_slice(&elected(&vectors(&piece, n_tuned)?));
        Ok(())
    })?;
    Ok(all)
}

/// Mₜ of one tensor whose τᵤ is `unified`, [`PER_BYTE`] entries a byte, row by row.
///
/// # Errors
/// Tensors that cannot be read.
///
/// # Panics
/// When `unified` is not as long as the tensor.
pub fn mask(tensor: &Tensor, t: usize, unified: &[f32], source: &dyn Source) -> Result<Vec<u8>> {
    assert_eq!(unified.len(), tensor.n_numbers(), "τᵤ of this tensor");
    let of_piece = |piece: &Piece<'_>| {
        let vector = piece.vector(t, &piece.of(Network::Base)?)?;
        let unified = &unified[piece.start..piece.start + piece.len];
        let bit = |(i, (&x, &unified)): (usize, (&f32, &f32))| u8::from(agrees(x, unified)) << i;
        let byte = |(vector, unified): (&[f32], &[f32])| vector.iter().zip(unified).enumerate().map(bit).sum();
        Ok(vector.chunks(PER_BYTE).zip(unified.chunks(PER_BYTE)).map(byte).collect::<Vec<u8>>())
    };
    Ok(of_pieces(source, tensor, of_piece)?.concat())
}

/// Turns `base`, θ₀ of a tensor, into θ₀ + λₜ · Mₜ ⊙ τᵤ.
///
/// ```
/// use zipit::task_vector::emr::put_on;
/// let mut tensor = [1.0, 1.0, 1.0];
/// put_on(&mut tensor, &[4.0, -3.0, 2.0], &[0b101], 0.5);
/// assert_eq!(tensor, [3.0, 1.0, 2.0]);
/// ```
///
/// # Panics
/// When `unified` has another length, or `mask` is too short.
pub fn put_on(base: &mut [f32], unified: &[f32], mask: &[u8], rescaler: f64) {
    assert_eq!(base.len(), unified.len(), "τᵤ of this tensor");
    for (i, (x, &unified)) in base.iter_mut().zip(unified).enumerate() {
        if mask[i / PER_BYTE] >> (i % PER_BYTE) & 1 == 1 {
            *x = (f64::from(*x) + rescaler * f64::from(unified)) as f32;
        }
    }
}
