//! Matchings for debugging: what a method is worth shows against these.

use super::Matching;
use ndarray::ArrayView2;
use rand::{SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;

/// Each model's `d` features assigned onto the first model's by a random permutation; d' = d. For debugging: what a
/// matching is worth that knows nothing.
///
/// ```
/// let matching = zipit::matching::debug::random(2, 3, 1);
/// let (second, third) = (&matching.assignment[2..4], &matching.assignment[4..]);
/// assert!([second, third].iter().all(|onto| [[0, 1], [1, 0]].contains(&[onto[0], onto[1]])));
/// ```
#[must_use]
pub fn random(d: usize, n_models: usize, seed: u64) -> Matching {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut onto: Vec<u32> = (0..d as u32).collect();
    let mut assignment = onto.clone();
    for _ in 1..n_models {
        onto.shuffle(&mut rng);
        assignment.extend(&onto);
    }
    Matching::from_assignment(&assignment)
}

/// The first model's features are the groups, and every other model's feature joins the one it is most similar to by
/// `similarity` `[N·d, N·d]`, the lowest among equals; d' = d. For debugging: a matching without the duty to be one to
/// one.
///
/// ```
/// let r = ndarray::array![[1.0, 0.0, 0.2, 0.9], [0.0, 1.0, 0.1, 0.7], [0.2, 0.1, 1.0, 0.0], [0.9, 0.7, 0.0, 1.0]];
/// assert_eq!(zipit::matching::debug::first(r.view(), 2).assignment, [0, 1, 0, 0]);
/// ```
///
/// # Panics
/// When `similarity` is not square or N does not divide its size.
#[must_use]
pub fn first(similarity: ArrayView2<'_, f32>, n_models: usize) -> Matching {
    let n = similarity.nrows();
    assert!(similarity.is_square() && n_models > 0 && n.is_multiple_of(n_models), "[N·d, N·d] for N = {n_models}");
    let d = n / n_models;
    let most_similar = |k: usize| {
        let row = similarity.row(k);
        (1..d).fold(0, |best, j| if row[j] > row[best] { j } else { best }) as u32
    };
    let assignment: Vec<u32> = (0..d as u32).chain((d..n).map(most_similar)).collect();
    Matching::from_assignment(&assignment)
}
