//! Feature j of every model with feature j of the first: plain weight averaging.

use super::Matching;

/// Groups the `d` features of `n_models` models by position; d' = d.
///
/// ```
/// assert_eq!(zipit::matching::identity::identity(2, 2).assignment, [0, 1, 0, 1]);
/// ```
#[must_use]
pub fn identity(d: usize, n_models: usize) -> Matching {
    let assignment: Vec<u32> = (0..n_models).flat_map(|_| 0..d as u32).collect();
    Matching::from_assignment(&assignment)
}
