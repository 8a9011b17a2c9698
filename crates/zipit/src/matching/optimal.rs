//! The best of all pairings of two models' features, within the models as well as across: maximum-weight perfect
//! matching in the complete graph, by Edmonds' blossoms. The paper's ablation measures the greedy choice against it.
//!
//! Crate `mwmatching`, which follows van Rantwijk's program, solves it exactly, but slowly: on one core of a busy machine
//! n = N·d = 512 took 1.5 s, 768 4.5 s, 1,024 10 to 13 s and 1,280 30 to 45 s, hence [`MAX_FEATURES`].

use super::Matching;
use crate::{Error, Result};
use ndarray::ArrayView2;

/// Similarities are compared in units of 2⁻²⁶, below the rounding of any f32 above ¼. The solver counts in i32: with all
/// weights within ±w its potentials stay within −w…3w and their slacks within 8w = 2²⁹, because two features without
/// a partner always have an edge, so that all steps together take at most 2w from them.
const UNIT: f32 = (1_u32 << 26) as f32;

/// The most joint features N·d that are taken on.
pub const MAX_FEATURES: usize = 1_280;

/// Whether a pairing of the `n_joint` features of `n_models` models can be had.
///
/// ```
/// use zipit::matching::optimal::check_request;
/// assert!(check_request(2, 4).is_ok());
/// assert!(check_request(3, 6).unwrap_err().to_string().contains("2 models, not 3"));
/// ```
///
/// # Errors
/// [`Error::Request`] for another N than 2, and for more than [`MAX_FEATURES`] features.
pub fn check_request(n_models: usize, n_joint: usize) -> Result<()> {
    if n_models != 2 {
        return Err(Error::Request(format!(
            "method `optimal` pairs the features of 2 models, not {n_models}: use `zip`, `ward` or `average` for more"
        )));
    }
    if n_joint > MAX_FEATURES {
        return Err(Error::Request(format!(
            "method `optimal` takes at most {MAX_FEATURES} joint features, here are {n_joint}: it would take from a \
             minute to hours; use `permute` (the best pairs across the models) or `zip`, or merge only narrower spaces"
        )));
    }
    Ok(())
}

/// The pairing of all n features (n even) that maximises the sum of `similarity` `[n, n]` between partners; d' = n / 2.
/// Exact to 2⁻²⁶ a pair, and the same on every machine. The diagonal is not read.
///
/// ```
/// let r = ndarray::array![[1.0, 0.9, 0.8, 0.1], [0.9, 1.0, 0.2, 0.7], [0.8, 0.2, 1.0, 0.3], [0.1, 0.7, 0.3, 1.0]];
/// // 0.8 + 0.7 beats 0.9 + 0.3, which a greedy choice takes.
/// assert_eq!(zipit::matching::optimal::optimal(r.view()).assignment, [0, 1, 0, 1]);
/// ```
///
/// # Panics
/// When `similarity` is not square, of odd size or not within −1…1.
#[must_use]
pub fn optimal(similarity: ArrayView2<'_, f32>) -> Matching {
    let n = similarity.nrows();
    assert!(similarity.is_square() && n.is_multiple_of(2), "a pairing needs [n, n] for an even n");
    assert!(similarity.iter().all(|x| (-1.0..=1.0).contains(x)), "a similarity is not within -1 and 1");
    let weight = |i, j| (similarity[[i, j]] * UNIT).round() as i32;
    let edges = (0..n).flat_map(|i| (i + 1..n).map(move |j| (i, j, weight(i, j)))).collect();
    // Of all pairings only the perfect ones count, whatever the signs.
    let partner = mwmatching::Matching::new(edges).max_cardinality().solve();
    let group: Vec<u32> = partner.iter().enumerate().map(|(k, &other)| k.min(other) as u32).collect();
    Matching::from_groups(&group)
}
