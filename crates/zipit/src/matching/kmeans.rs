//! k-means on the features themselves, each scaled to variance one: groups around centres, with no α and no β (paper,
//! appendix: clustering ablation).
//!
//! Everything follows from R. With c the mean of the group G, ‖zᵢ − c‖² = 1 − 2·mean(Rᵢⱼ) + mean(Rⱼₖ), over j and k
//! in G.

use super::Matching;
use ndarray::ArrayView2;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

/// Fresh starts; the one with the least sum of squares is kept, the first among equals.
const N_STARTS: u64 = 5;
/// Rounds of one start; it ends sooner where nothing changes.
const N_ROUNDS: usize = 100;
/// A feature moves only to a centre nearer than this, in squared distance: equal ones differ by rounding.
const NEARER: f64 = 1e-9;

/// k-means of the n features with the given `correlation` `[n, n]` into `n_groups` = d' groups, none of them empty.
///
/// k-means++ draws the first centres by `seed`, then Lloyd's rounds, O(n²) each, until no feature is nearer to another
/// centre: the best of 5 starts of at most 100 rounds.
///
/// ```
/// let r = ndarray::array![[1.0, 0.1, 0.2, 0.9], [0.1, 1.0, 0.8, 0.0], [0.2, 0.8, 1.0, 0.1], [0.9, 0.0, 0.1, 1.0]];
/// assert_eq!(zipit::matching::kmeans::kmeans(r.view(), 2, 0).assignment, [0, 1, 1, 0]);
/// ```
///
/// # Panics
/// When `correlation` is not square or not finite, or d' is not in 1…n.
#[must_use]
pub fn kmeans(correlation: ArrayView2<'_, f32>, n_groups: usize, seed: u64) -> Matching {
    let n = correlation.nrows();
    assert!(correlation.is_square(), "correlations are {:?}, expected a square", correlation.dim());
    assert!((1..=n).contains(&n_groups), "{n_groups} groups of {n} features");
    assert!(correlation.iter().all(|x| x.is_finite()), "a correlation is not finite");
    let mut least: Option<(f64, Vec<u32>)> = None;
    for start in 0..N_STARTS {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(start);
        let mut group = first_groups(correlation, n_groups, &mut rng);
        for _ in 0..N_ROUNDS {
            let next = nearest_groups(correlation, &group, n_groups);
            if next == group {
                break;
            }
            group = next;
        }
        let scatter = scatter(correlation, &group, n_groups);
        if least.as_ref().is_none_or(|(least, _)| scatter < *least) {
            least = Some((scatter, group));
        }
    }
    Matching::from_groups(&least.map_or_else(Vec::new, |(_, group)| group))
}

/// k-means++: the first centre is any feature, each further one a feature drawn in proportion to its squared distance
/// from the nearest centre so far. Every feature goes to its nearest centre, the first among equals.
fn first_groups(correlation: ArrayView2<'_, f32>, n_groups: usize, rng: &mut ChaCha8Rng) -> Vec<u32> {
    let n = correlation.nrows();
    let mut nearest = vec![f64::INFINITY; n];
    let mut group = vec![0; n];
    let mut is_centre = vec![false; n];
    let mut centre = rng.random_range(0..n);
    for g in 0..n_groups as u32 {
        if g > 0 {
            centre = draw(&nearest, rng).unwrap_or_else(|| is_centre.iter().position(|c| !c).unwrap_or(0));
        }
        for (k, &r) in correlation.row(centre).iter().enumerate() {
            let square = 2.0 * (1.0 - f64::from(r)).max(0.0);
            if square < nearest[k] {
                (nearest[k], group[k]) = (square, g);
            }
        }
        // A centre stays in its own group, also where it equals another one.
        (nearest[centre], group[centre], is_centre[centre]) = (0.0, g, true);
    }
    group
}

/// A position in proportion to its weight; `None` where all are 0.
fn draw(weights: &[f64], rng: &mut ChaCha8Rng) -> Option<usize> {
    let mut left = rng.random::<f64>() * weights.iter().sum::<f64>();
    let mut positive = weights.iter().enumerate().filter(|&(_, &w)| w > 0.0);
    // Rounding may leave more than the last weight: then it is the last.
    let last = positive.clone().next_back().map(|(k, _)| k);
    positive
        .find_map(|(k, &w)| {
            left -= w;
            (left < 0.0).then_some(k)
        })
        .or(last)
}

/// Each feature's nearest group by the centres of the present ones; among equals the present group, then the first.
fn nearest_groups(correlation: ArrayView2<'_, f32>, group: &[u32], n_groups: usize) -> Vec<u32> {
    let mut sizes = vec![0_usize; n_groups];
    for &g in group {
        sizes[g as usize] += 1;
    }
    let norms = centre_norms(correlation, group, n_groups);
    let nearest = |sums: &mut Vec<f64>, k: usize| {
        sums.fill(0.0);
        correlation.row(k).iter().zip(group).for_each(|(&r, &g)| sums[g as usize] += f64::from(r));
        let square = |g: usize| 1.0 - 2.0 * sums[g] / sizes[g] as f64 + norms[g];
        let own = group[k] as usize;
        (0..n_groups)
            .fold((own, square(own) - NEARER), |best, g| if square(g) < best.1 { (g, square(g)) } else { best })
    };
    let nearest: Vec<(usize, f64)> =
        (0..group.len()).into_par_iter().map_init(|| vec![0.0; n_groups], nearest).collect();
    let mut next: Vec<usize> = nearest.iter().map(|&(g, _)| g).collect();
    sizes.fill(0);
    for &g in &next {
        sizes[g] += 1;
    }
    // A group that lost all its members gets the feature that is farthest from its centre, the lowest among equals.
    for empty in 0..n_groups {
        if sizes[empty] > 0 {
            continue;
        }
        let mut farthest: Option<usize> = None;
        for k in (0..next.len()).filter(|&k| sizes[next[k]] > 1) {
            if farthest.is_none_or(|f| nearest[k].1 > nearest[f].1) {
                farthest = Some(k);
            }
        }
        if let Some(k) = farthest {
            sizes[next[k]] -= 1;
            sizes[empty] = 1;
            next[k] = empty;
        }
    }
    next.into_iter().map(|g| g as u32).collect()
}

/// ‖c‖² of each group's centre: the mean of R over all pairs of its members.
fn centre_norms(correlation: ArrayView2<'_, f32>, group: &[u32], n_groups: usize) -> Vec<f64> {
    let mut members = vec![Vec::new(); n_groups];
    group.iter().enumerate().for_each(|(k, &g)| members[g as usize].push(k));
    let norm = |members: &Vec<usize>| {
        let sum: f64 = members.iter().flat_map(|&j| members.iter().map(move |&k| f64::from(correlation[[j, k]]))).sum();
        sum / (members.len() * members.len()) as f64
    };
    members.par_iter().map(norm).collect()
}

/// Sum of the squared distances to the centres, n − Σ |G|·‖c‖².
fn scatter(correlation: ArrayView2<'_, f32>, group: &[u32], n_groups: usize) -> f64 {
    let norms = centre_norms(correlation, group, n_groups);
    group.iter().map(|&g| 1.0 - norms[g as usize]).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::{Array2, array};

    #[test]
    fn kernel_formulas_by_hand() {
        // Points e0, e1 and the middle direction: R of the third with both is √½.
        let h = 0.5_f32.sqrt();
        let r = array![[1.0, 0.0, h], [0.0, 1.0, h], [h, h, 1.0]];
        let group = [0, 0, 1];
        let norms = centre_norms(r.view(), &group, 2);
        assert!((norms[0] - 0.5).abs() < 1e-12 && (norms[1] - 1.0).abs() < 1e-12);
        assert!((scatter(r.view(), &group, 2) - 1.0).abs() < 1e-12);
        // e0: ½ from (½, ½), 2 − √2 from the third; the third stays.
        assert_eq!(nearest_groups(r.view(), &group, 2), [0, 0, 1]);
    }

    #[test]
    fn equal_features_still_fill_every_group() {
        let r = Array2::from_elem((5, 5), 1.0);
        for n_groups in 1..=5 {
            let matching = kmeans(r.view(), n_groups, 3);
            assert_eq!((matching.n_groups, matching.merges.len()), (n_groups, 5 - n_groups));
        }
    }

    #[test]
    fn a_group_that_empties_gets_the_farthest_feature() {
        // Group 2 lies between 0 and 1: its two members are each nearer to one of those.
        let angles = [0.0_f32, 0.02, 1.0, 1.02, 0.18, 0.84];
        let r = Array2::from_shape_fn((6, 6), |(i, j)| (angles[i] - angles[j]).cos());
        let next = nearest_groups(r.view(), &[0, 0, 1, 1, 2, 2], 3);
        assert_eq!(next, [0, 0, 1, 1, 2, 1]);
    }
}
