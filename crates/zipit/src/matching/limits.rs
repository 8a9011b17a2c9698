//! The limits that `zip` puts on merging, stated once for the oracle and the fast solver.

/// The cap on merges within one model when `removals` = N·d − d' features go: max(1, ⌊(removals / N)·β⌋), and none
/// at β = 0.
///
/// The product is taken in f32 before dividing, so that β = 0.7, which no binary number is, still gives 7 of 10.
///
/// ```
/// use zipit::matching::limits::within_cap;
/// assert_eq!(within_cap(20, 2, 0.7), 7);
/// assert_eq!(within_cap(20, 2, 0.01), 1);
/// assert_eq!(within_cap(20, 2, 0.0), 0);
/// ```
#[must_use]
pub fn within_cap(removals: usize, n_models: usize, beta: f32) -> usize {
    if beta > 0.0 { ((removals as f32 * beta / n_models as f32).floor() as usize).max(1) } else { 0 }
}

/// Whether α asks for exclusive groups: a group of two or more accepts only groups of models it does not contain yet.
#[must_use]
pub fn exclusive(alpha: f32) -> bool {
    alpha <= 0.0
}

/// The factor that each merge puts on the new group's similarities: α, or 1 where groups are
/// [`exclusive`].
#[must_use]
pub fn damping(alpha: f32) -> f32 {
    if exclusive(alpha) { 1.0 } else { alpha }
}
