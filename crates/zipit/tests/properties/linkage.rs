//! Agglomeration against its definition: centres and means over all pairs, computed anew at every step, O(n³).
#![allow(clippy::unwrap_used)]

use ndarray::{Array2, ArrayView2};
use proptest::prelude::*;
use zipit::matching::linkage::{Linkage, linkage};

/// The distance of two groups as [`Linkage`] defines it, from the members' inner products.
fn height(gram: ArrayView2<'_, f64>, kind: Linkage, a: &[usize], b: &[usize]) -> f64 {
    let sum = |a: &[usize], b: &[usize], entry: &dyn Fn(usize, usize) -> f64| -> f64 {
        a.iter().flat_map(|&i| b.iter().map(move |&j| entry(i, j))).sum()
    };
    let (size_a, size_b) = (a.len() as f64, b.len() as f64);
    match kind {
        Linkage::Ward => {
            let inner = |a: &[usize], b: &[usize]| sum(a, b, &|i, j| gram[[i, j]]) / (a.len() * b.len()) as f64;
            size_a * size_b / (size_a + size_b) * (inner(a, a) + inner(b, b) - 2.0 * inner(a, b))
        }
        Linkage::Average => sum(a, b, &|i, j| gram[[i, i]] + gram[[j, j]] - 2.0 * gram[[i, j]]) / (size_a * size_b),
    }
}

/// The heights of all pairs of groups, and their lowest features.
fn heights(gram: ArrayView2<'_, f64>, kind: Linkage, groups: &[Vec<usize>]) -> Vec<(f64, (u32, u32))> {
    let pairs = (0..groups.len()).flat_map(|a| (0..a).map(move |b| (b, a)));
    pairs
        .map(|(a, b)| {
            let (i, j) = (groups[a][0], groups[b][0]);
            (height(gram, kind, &groups[a], &groups[b]), (i.min(j) as u32, i.max(j) as u32))
        })
        .collect()
}

/// Plays the merges of `linkage` step by step: each must be as near as any pair then is. Where `unique`, it must be
/// the pair the definition takes.
fn check(gram: ArrayView2<'_, f64>, kind: Linkage, n_groups: usize, unique: bool) {
    let n = gram.nrows();
    let scale = gram.diag().iter().fold(1e-30_f64, |a, &b| a.max(b));
    let matching = linkage(gram, n_groups, kind);
    assert_eq!((matching.n_groups, matching.merges.len()), (n_groups, n - n_groups));
    // A group's lowest feature leads it.
    let mut groups: Vec<Vec<usize>> = (0..n).map(|k| vec![k]).collect();
    for &merge in &matching.merges {
        let all = heights(gram, kind, &groups);
        let (least, nearest) = all.iter().copied().min_by(|a, b| a.0.total_cmp(&b.0)).unwrap();
        let (taken, _) = all.iter().copied().find(|&(_, pair)| pair == merge).unwrap();
        assert!(taken - least <= 1e-9 * scale, "{kind:?}: merged {merge:?} at {taken}, but {nearest:?} is at {least}");
        assert!(!unique || merge == nearest, "{kind:?}: merged {merge:?}, the definition {nearest:?}");
        let at = groups.iter().position(|g| g[0] == merge.1 as usize).unwrap();
        let joining = groups.remove(at);
        groups.iter_mut().find(|g| g[0] == merge.0 as usize).unwrap().extend(joining);
    }
}

/// Inner products of n random points, `[n, n]`: any numbers, or small whole ones with many exact ties.
fn grams(ties: bool) -> impl Strategy<Value = Array2<f64>> {
    (1..=22_usize, 1..=6_usize).prop_flat_map(move |(n, dimension)| {
        prop::collection::vec(-1.0_f64..=1.0, n * dimension).prop_map(move |entries| {
            let entries = if ties { entries.iter().map(|x| (3.0 * x).round()).collect() } else { entries };
            let points = Array2::from_shape_vec((n, dimension), entries).unwrap();
            points.dot(&points.t())
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn linkage_is_its_definition(gram in grams(false), kept in 0.0..=1.0_f64) {
        let n_groups = 1 + (kept * (gram.nrows() - 1) as f64).round() as usize;
        check(gram.view(), Linkage::Ward, n_groups, true);
        check(gram.view(), Linkage::Average, n_groups, true);
    }

    #[test]
    fn linkage_among_ties_merges_a_nearest_pair(gram in grams(true), kept in 0.0..=1.0_f64) {
        let n_groups = 1 + (kept * (gram.nrows() - 1) as f64).round() as usize;
        check(gram.view(), Linkage::Ward, n_groups, false);
        check(gram.view(), Linkage::Average, n_groups, false);
    }

    #[test]
    fn a_coarser_cut_is_made_of_the_finer_one(gram in grams(true)) {
        for kind in [Linkage::Ward, Linkage::Average] {
            let all = linkage(gram.view(), 1, kind);
            for n_groups in 2..=gram.nrows() {
                let cut = linkage(gram.view(), n_groups, kind);
                prop_assert_eq!(&cut.merges[..], &all.merges[..gram.nrows() - n_groups]);
            }
        }
    }
}
