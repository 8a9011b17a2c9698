//! Agglomeration by the similarity of whole groups: Ward's and average linkage.
//!
//! Features are points whose inner products are the similarities S, so that d²ᵢⱼ = Sᵢᵢ + Sⱼⱼ − 2·Sᵢⱼ; on
//! correlation that is 2·(1 − Rᵢⱼ). Both linkages follow the nearest-neighbour chain of crate `kodama`, O(n²).

use super::Matching;
use kodama::{Method, Step};
use ndarray::ArrayView2;

/// How far two groups are from each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Linkage {
    /// By the growth of the squared distances to the centre, |A|·|B| / (|A| + |B|) · ‖a − b‖² for the
    /// centres a and b.
    Ward,
    /// By the mean of d²ᵢⱼ over i in A and j in B; on correlation the mean of 1 − Rᵢⱼ, times 2.
    Average,
}

/// Merges the two nearest groups of the n features with inner products `gram` `[n, n]` until `n_groups` = d' remain.
///
/// Distances are clamped at 0, where rounding leaves less. Where several pairs are nearest, which one is merged is
/// fixed but not stated. Beside `gram` n·(n−1)/2 numbers in f64 are held.
///
/// ```
/// use zipit::matching::linkage::{Linkage, linkage};
/// // Four points on a line, at 0, 1, 3 and 7.
/// let x = ndarray::array![[0.0], [1.0], [3.0], [7.0]];
/// let matching = linkage(x.dot(&x.t()).view(), 2, Linkage::Ward);
/// assert_eq!(matching.merges, [(0, 1), (0, 2)]);
/// assert_eq!(matching.assignment, [0, 0, 0, 1]);
/// ```
///
/// # Panics
/// When `gram` is not square or not finite, or d' is not in 1…n.
#[must_use]
pub fn linkage(gram: ArrayView2<'_, f64>, n_groups: usize, linkage: Linkage) -> Matching {
    let n = gram.nrows();
    assert!(gram.is_square(), "similarities are {:?}, expected a square", gram.dim());
    assert!((1..=n).contains(&n_groups), "{n_groups} groups of {n} features");
    assert!(gram.iter().all(|x| x.is_finite()), "a similarity is not finite");
    let diagonal = gram.diag();
    let mut distances = Vec::with_capacity(n * (n - 1) / 2);
    for (i, row) in gram.rows().into_iter().enumerate() {
        for j in i + 1..n {
            let square = (diagonal[i] + diagonal[j] - 2.0 * row[j]).max(0.0);
            distances.push(match linkage {
                // kodama squares them again.
                Linkage::Ward => square.sqrt(),
                Linkage::Average => square,
            });
        }
    }
    let method = match linkage {
        Linkage::Ward => Method::Ward,
        Linkage::Average => Method::Average,
    };
    cut(kodama::linkage(&mut distances, n, method).steps(), n, n_groups)
}

/// The first n − d' of the merges, which kodama hands over from the nearest to the farthest. It numbers single features
/// 0…n−1 and the group made by step s n + s.
fn cut(steps: &[Step<f64>], n: usize, n_groups: usize) -> Matching {
    let mut lowest: Vec<u32> = (0..n as u32).collect();
    let mut merges = Vec::with_capacity(n - n_groups);
    for step in &steps[..n - n_groups] {
        let (a, b) = (lowest[step.cluster1], lowest[step.cluster2]);
        merges.push((a.min(b), a.max(b)));
        lowest.push(a.min(b));
    }
    Matching::from_merges(n, merges, false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::{Array2, array};

    #[test]
    fn ward_keeps_groups_small_where_average_does_not() {
        // Two groups of four, 5 apart, and two single points, 6 apart: the groups are nearer, but to unite them costs
        // 4·4/8·25 against 1/2·36.
        let x = array![
            [0.0, 0.0],
            [0.0, 0.0],
            [0.0, 0.0],
            [0.0, 0.0], //
            [5.0, 0.0],
            [5.0, 0.0],
            [5.0, 0.0],
            [5.0, 0.0], //
            [0.0, 90.0],
            [6.0, 90.0],
        ];
        let gram = x.dot(&x.t());
        assert_eq!(linkage(gram.view(), 3, Linkage::Average).assignment, [0, 0, 0, 0, 0, 0, 0, 0, 1, 2]);
        assert_eq!(linkage(gram.view(), 3, Linkage::Ward).assignment, [0, 0, 0, 0, 1, 1, 1, 1, 2, 2]);
    }

    #[test]
    fn one_feature_is_one_group() {
        assert_eq!(linkage(array![[1.0]].view(), 1, Linkage::Ward).assignment, [0]);
    }

    #[test]
    #[should_panic(expected = "not finite")]
    fn nan_is_refused() {
        let _ = linkage(Array2::from_elem((2, 2), f64::NAN).view(), 1, Linkage::Average);
    }
}
