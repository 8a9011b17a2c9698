//! Each model's features assigned one to one onto the first model's: linear sum assignment.
//!
//! At d = 2,048 `pathfinding` took 0.05 to 0.1 s on noisy copies (correlation 0.3 to 0.6) and 0.6 s on pure noise; crate
//! `lsap`, which follows `SciPy`, took 0.1 and 0.7 s with the same result.

use super::Matching;
use ndarray::ArrayView2;
use pathfinding::{kuhn_munkres::kuhn_munkres, matrix::Matrix};

/// Similarities are compared in units of 2⁻⁴⁰: below the rounding of any f32 above 2⁻¹⁷, and d ≤ 2²⁰ of them sum
/// within an i64.
pub(super) const UNIT: f64 = (1_u64 << 40) as f64;

/// For each model the permutation onto the first that maximises the sum of `similarity` `[N·d, N·d]` between
/// partners; d' = d. Exact, O(d³) per model, the same on every machine.
///
/// ```
/// let r = ndarray::array![[1.0, 0.0, 0.2, 0.9], [0.0, 1.0, 0.1, 0.7], [0.2, 0.1, 1.0, 0.0], [0.9, 0.7, 0.0, 1.0]];
/// // 0.9 + 0.1 beats 0.2 + 0.7.
/// assert_eq!(zipit::matching::permute::permute(r.view(), 2).assignment, [0, 1, 1, 0]);
/// ```
///
/// # Panics
/// When `similarity` is not square or N does not divide its size.
#[must_use]
pub fn permute(similarity: ArrayView2<'_, f32>, n_models: usize) -> Matching {
    permute_onto(similarity, n_models, |_| false)
}

/// As [`permute`], where features that are left out of averages do not stand for their group: a model is assigned onto the
/// first feature of each group that is not, by the models before it.
///
/// # Panics
/// As [`permute`].
#[must_use]
pub fn permute_onto(similarity: ArrayView2<'_, f32>, n_models: usize, rests: impl Fn(usize) -> bool) -> Matching {
    let n = similarity.nrows();
    assert!(similarity.is_square() && n_models > 0 && n.is_multiple_of(n_models), "[N·d, N·d] for N = {n_models}");
    let d = n / n_models;
    let mut assignment: Vec<u32> = (0..d as u32).collect();
    let mut leads: Vec<usize> = (0..d).collect();
    for model in 1..n_models {
        let onto = assign(d, |j, k| f64::from(similarity[[model * d + j, leads[k]]]));
        for (j, &k) in onto.iter().enumerate() {
            let lead = &mut leads[k as usize];
            if rests(*lead) && !rests(model * d + j) {
                *lead = model * d + j;
            }
        }
        assignment.extend(onto);
    }
    Matching::from_assignment(&assignment)
}

/// For each of d rows a column of its own, so that the sum of `weight(row, column)`, each within −1…1, is the highest.
pub(super) fn assign(d: usize, weight: impl Fn(usize, usize) -> f64) -> Vec<u32> {
    let weights = Matrix::from_fn(d, d, |(j, k)| (weight(j, k) * UNIT).round() as i64);
    let (_, onto) = kuhn_munkres(&weights);
    onto.into_iter().map(|k| k as u32).collect()
}
