//! The optimal pairing against all pairings there are.

use ndarray::Array2;
use proptest::prelude::*;
use zipit::matching::{Matching, optimal::optimal, permute::permute};

/// Similarities in twentieths, so that sums are compared without doubt; ties are common.
fn similarities(max_d: usize) -> impl Strategy<Value = Array2<f32>> {
    (1..=max_d).prop_flat_map(|d| {
        let n = 2 * d;
        prop::collection::vec(-20_i8..=20, n * n).prop_map(move |entries| {
            Array2::from_shape_fn((n, n), |(i, j)| f32::from(entries[i.min(j) * n + i.max(j)]) / 20.0)
        })
    })
}

/// The highest sum over all pairings of `features`: the first one with each other one in turn.
fn best(similarity: &Array2<f32>, features: &[usize]) -> f32 {
    let Some((&first, others)) = features.split_first() else { return 0.0 };
    let with = |at: usize| {
        let left: Vec<usize> = others.iter().enumerate().filter(|&(k, _)| k != at).map(|(_, &f)| f).collect();
        similarity[[first, others[at]]] + best(similarity, &left)
    };
    (0..others.len()).map(with).fold(f32::NEG_INFINITY, f32::max)
}

fn total(similarity: &Array2<f32>, matching: &Matching) -> f32 {
    matching.merges.iter().map(|&(i, j)| similarity[[i as usize, j as usize]]).sum()
}

fn assert_pairs(matching: &Matching) {
    let mut sizes = vec![0; matching.n_groups];
    matching.assignment.iter().for_each(|&g| sizes[g as usize] += 1);
    assert!(sizes.iter().all(|&size| size == 2), "{sizes:?}");
}

proptest! {
    #[test]
    fn no_pairing_is_better(similarity in similarities(4)) {
        let matching = optimal(similarity.view());
        assert_pairs(&matching);
        let all: Vec<usize> = (0..similarity.nrows()).collect();
        prop_assert!((total(&similarity, &matching) - best(&similarity, &all)).abs() < 0.01);
    }

    #[test]
    fn no_assignment_across_is_better_and_ties_fall_alike(similarity in similarities(20)) {
        let matching = optimal(similarity.view());
        assert_pairs(&matching);
        let across = permute(similarity.view(), 2);
        prop_assert!(total(&similarity, &matching) > total(&similarity, &across) - 0.01);
        prop_assert_eq!(optimal(similarity.view()), matching);
    }
}
