//! The greedy zip in its plainest form. It defines what [`zip`](super::zip::zip) must return; O(removals · n²).

use super::limits::{damping, exclusive, within_cap};
use super::{Matching, zip};
use ndarray::ArrayView2;

/// Greedy zip of the N·d joint features with the given `similarity` `[N·d, N·d]` into `n_groups` = d' groups
/// (paper, Algorithm 1; DESIGN §3).
///
/// Repeat until d' groups remain: of all pairs of groups that may merge, take the pair i < j (a group goes by its
/// lowest feature) of the highest similarity, the lowest i among equals, then the lowest j. Merge the two; the new
/// group's similarity to every other group is the lower of the two it replaces, times α.
///
/// A group belongs to the model of its lowest feature. Two groups may merge unless
/// - both belong to a model that has spent its cap on merges within itself ([`within_cap`]), or
/// - α ≤ 0, one of the groups has two or more members, and the two share a model (*exclusive groups*). There α is no
///   factor: a factor of 0 would make ties of everything that was merged once, and leave the next choice to the order
///   of the features.
///
/// If no pair may merge and more than d' groups remain, both limits are lifted for the rest of the way, and
/// [`caps_lifted`](Matching::caps_lifted) says so.
///
/// # Panics
/// As [`zip::zip`] does.
#[must_use]
pub fn zip(similarity: ArrayView2<'_, f32>, n_models: usize, n_groups: usize, alpha: f32, beta: f32) -> Matching {
    zip_of(similarity, &zip::alike(similarity, n_models), n_groups, alpha, beta)
}

/// As [`zip()`] of models that have `sizes[i]` features each: it defines [`zip::zip_of`].
///
/// # Panics
/// As [`zip::zip_of`] does.
#[must_use]
pub fn zip_of(similarity: ArrayView2<'_, f32>, sizes: &[usize], n_groups: usize, alpha: f32, beta: f32) -> Matching {
    let (models, n_models) = (zip::models_of(similarity, sizes, n_groups), sizes.len());
    let n = similarity.nrows();
    let model = |feature: usize| models[feature];
    let mut similarity = similarity.to_owned();
    // The members of each group, at the place of its lowest; empty where a feature joined a lower one.
    let mut members: Vec<Vec<usize>> = (0..n).map(|k| vec![k]).collect();
    let mut left_within = vec![within_cap(n - n_groups, n_models, beta); n_models];
    let mut merges = Vec::new();
    let mut lifted = false;
    while n - merges.len() > n_groups {
        let spent = |i, j| model(i) == model(j) && left_within[model(i)] == 0;
        let excluded = |i: usize, j: usize| {
            exclusive(alpha)
                && members[i].len() + members[j].len() > 2
                && members[i].iter().any(|&a| members[j].iter().any(|&b| model(a) == model(b)))
        };
        let mut best: Option<(usize, usize)> = None;
        for i in (0..n).filter(|&i| !members[i].is_empty()) {
            for j in (i + 1..n).filter(|&j| !members[j].is_empty()) {
                if (lifted || !spent(i, j) && !excluded(i, j))
                    && best.is_none_or(|highest| similarity[[i, j]] > similarity[highest])
                {
                    best = Some((i, j));
                }
            }
        }
        let Some((i, j)) = best else {
            lifted = true;
            continue;
        };
        for k in 0..n {
            let new = similarity[[i, k]].min(similarity[[j, k]]) * damping(alpha);
            similarity[[i, k]] = new;
            similarity[[k, i]] = new;
        }
        if model(i) == model(j) {
            left_within[model(i)] = left_within[model(i)].saturating_sub(1);
        }
        let joining = std::mem::take(&mut members[j]);
        members[i].extend(joining);
        merges.push((i as u32, j as u32));
    }
    let mut assignment = vec![0; n];
    for (group, features) in (0..).zip(members.iter().filter(|m| !m.is_empty())) {
        for &k in features {
            assignment[k] = group;
        }
    }
    Matching { assignment, n_groups, merges, caps_lifted: lifted, weights: None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    // Two models of two features: a0, a1 | b0, b1.
    fn four() -> ndarray::Array2<f32> {
        array![
            [1.0, 0.9, 0.5, 0.2], //
            [0.9, 1.0, 0.8, 0.1],
            [0.5, 0.8, 1.0, -0.3],
            [0.2, 0.1, -0.3, 1.0],
        ]
    }

    #[test]
    fn without_limits_it_is_complete_linkage() {
        let matching = zip(four().view(), 2, 2, 1.0, 1.0);
        // a0–a1 at 0.9; then {a0, a1}–b0 at min(0.5, 0.8), above {a0, a1}–b1 at 0.1.
        assert_eq!(matching.merges, [(0, 1), (0, 2)]);
        assert_eq!(matching.assignment, [0, 0, 0, 1]);
        assert!(!matching.caps_lifted);
    }

    #[test]
    fn at_beta_zero_nothing_merges_within_a_model() {
        let matching = zip(four().view(), 2, 2, 1.0, 0.0);
        // a1–b0 at 0.8; then a0–b1 at 0.2, above {a1, b0}–b1, at −0.3.
        assert_eq!(matching.merges, [(1, 2), (0, 3)]);
        assert_eq!(matching.assignment, [0, 1, 1, 0]);
    }

    #[test]
    fn alpha_damps_a_group_below_single_features() {
        let r = array![
            [1.0, 0.0, 0.9, 0.4], //
            [0.0, 1.0, 0.1, 0.2],
            [0.9, 0.1, 1.0, 0.5],
            [0.4, 0.2, 0.5, 1.0],
        ];
        // After a0–b0 the group is 0.4·α from b1: above a1–b1 at 0.2 only while α > 0.5.
        assert_eq!(zip(r.view(), 2, 2, 1.0, 1.0).merges, [(0, 2), (0, 3)]);
        assert_eq!(zip(r.view(), 2, 2, 0.3, 1.0).merges, [(0, 2), (1, 3)]);
    }

    #[test]
    fn alpha_zero_keeps_groups_exclusive_until_that_leaves_no_pair() {
        let r = ndarray::Array2::from_elem((4, 4), 0.5);
        let matching = zip(r.view(), 2, 2, 0.0, 0.0);
        assert_eq!(matching.merges, [(0, 2), (1, 3)]);
        assert!(!matching.caps_lifted);
        let matching = zip(r.view(), 2, 1, 0.0, 0.0);
        assert_eq!(matching.merges, [(0, 2), (1, 3), (0, 1)]);
        assert!(matching.caps_lifted);
    }

    #[test]
    fn ties_go_to_the_lowest_row_then_the_lowest_column() {
        let r = ndarray::Array2::from_elem((6, 6), 0.0);
        assert_eq!(zip(r.view(), 3, 4, 1.0, 1.0).merges, [(0, 1), (0, 2)]);
    }

    #[test]
    fn a_spent_cap_closes_the_model_and_no_other() {
        // Features of a model are all alike, models are unlike: only within-merges are attractive.
        let r = ndarray::Array2::from_shape_fn((8, 8), |(i, j)| if i / 4 == j / 4 { 0.9 } else { 0.1 });
        // 4 removals of N = 2 at β = 0.5: one within each model, then across.
        let matching = zip(r.view(), 2, 4, 1.0, 0.5);
        assert_eq!(matching.merges, [(0, 1), (4, 5), (0, 4), (0, 6)]);
    }
}
