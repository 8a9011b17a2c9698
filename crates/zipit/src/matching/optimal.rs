//! The best of all pairings of two models' features, within the models as well as across: maximum-weight perfect
//! matching in the complete graph, by Edmonds' blossoms. The paper's ablation measures the greedy choice against it.
//!
//! Crate `rustworkx-core` solves it exactly, but slowly: on one core of a busy machine n = N·d = 512 took 2 s, 768 6 s,
//! 1,024 10 to 20 s and 1,280 30 to 70 s, hence [`MAX_FEATURES`]. Memory was 11 f32 matrices `[n, n]`.

use super::{Matching, permute::quantised};
use crate::{Error, Result};
use ndarray::ArrayView2;
use rustworkx_core::max_weight_matching::max_weight_matching;
use rustworkx_core::petgraph::graph::{NodeIndex, UnGraph};
use std::convert::Infallible;

/// The most joint features N·d that are taken on.
pub const MAX_FEATURES: usize = 1_024;

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
/// Exact to the units that `permute` counts in, and the same on every machine. The diagonal is not read.
///
/// ```
/// let r = ndarray::array![[1.0, 0.9, 0.8, 0.1], [0.9, 1.0, 0.2, 0.7], [0.8, 0.2, 1.0, 0.3], [0.1, 0.7, 0.3, 1.0]];
/// // 0.8 + 0.7 beats 0.9 + 0.3, which a greedy choice takes.
/// assert_eq!(zipit::matching::optimal::optimal(r.view()).assignment, [0, 1, 0, 1]);
/// ```
///
/// # Panics
/// When `similarity` is not square or of odd size.
#[must_use]
pub fn optimal(similarity: ArrayView2<'_, f32>) -> Matching {
    let n = similarity.nrows();
    assert!(similarity.is_square() && n.is_multiple_of(2), "a pairing needs [n, n] for an even n");
    let mut graph: UnGraph<(), i64> = UnGraph::with_capacity(n, n * n.saturating_sub(1) / 2);
    let features: Vec<NodeIndex> = (0..n).map(|_| graph.add_node(())).collect();
    for i in 0..n {
        for j in i + 1..n {
            graph.add_edge(features[i], features[j], quantised(similarity[[i, j]]));
        }
    }
    // Of all pairings only the perfect ones count, whatever the signs.
    let Ok(pairs) = max_weight_matching(&graph, true, |edge| Ok::<_, Infallible>(i128::from(*edge.weight())), false);
    let mut group: Vec<u32> = (0..n as u32).collect();
    for (a, b) in pairs {
        group[a.max(b)] = a.min(b) as u32;
    }
    Matching::from_groups(&group)
}
