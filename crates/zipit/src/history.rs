//! What each merge of a matching did, in the order in which the merges were made: for reports.

use crate::matching::Matching;
use crate::moments::DEAD;
use crate::{Moments, Observed};
use ndarray::{Array1, Array2};
use serde::{Deserialize, Serialize};

/// One merge of two groups.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Merge {
    /// The lowest features of the two groups, i < j.
    pub features: (u32, u32),
    /// Correlation of the two groups' averages; `None` where one of them is dead.
    pub correlation: Option<f64>,
    /// E‖z − pinv(M) M z‖² / E‖z‖² after this merge.
    pub lost: f64,
}

/// Replays the merges of `matching` on the moments of z, O(n) each: averages of groups are features whose moments
/// follow from those of z, and merging groups of a and b features adds ab/(a + b)·E(x − y)² to what pinv(M) loses.
///
/// ```
/// // z = (x, 3x) with E[x] = 0, E[x²] = 1: the average is 2x, and ½·E(x − 3x)² = 2 of 10 is lost.
/// let moments = zipit::Moments { count: 1, sum: vec![0.0, 0.0], outer: vec![1.0, 3.0, 9.0] };
/// let matching = zipit::matching::Matching::from_merges(2, vec![(0, 1)], false);
/// let merges = zipit::history::replay(&matching, &moments);
/// assert!((merges[0].lost - 0.2).abs() < 1e-12);
/// assert!((merges[0].correlation.unwrap() - 1.0).abs() < 1e-12);
/// ```
///
/// A [constant](crate::constants) that joins features with weight changes nothing of their average, and loses what of it
/// does not come back.
///
/// # Panics
/// When the moments are of another number of features.
#[must_use]
pub fn replay<'a>(matching: &Matching, observed: impl Into<Observed<'a>>) -> Vec<Merge> {
    let Observed { moments, constants, .. } = &observed.into();
    let mut averages = Averages::new(moments);
    for k in (0..constants.n_joint()).filter(|&k| constants.rests(k)) {
        averages.sizes[k] = 0.0;
    }
    let resting = constants.resting(&matching.assignment, matching.n_groups, None);
    for (&k, &share) in resting.features.iter().zip(&resting.lost) {
        averages.gone[k] = share * averages.second_moment[[k, k]];
    }
    assert_eq!(matching.assignment.len(), averages.mean.len(), "moments of another number of features");
    let energy = averages.second_moment.diag().sum();
    let mut lost = 0.0;
    matching
        .merges
        .iter()
        .map(|&(i, j)| {
            let correlation = averages.correlation(i as usize, j as usize);
            lost += averages.merge(i as usize, j as usize);
            Merge { features: (i, j), correlation, lost: if energy > 0.0 { lost / energy } else { 0.0 } }
        })
        .collect()
}

/// Moments of the groups' averages, by their lowest features.
struct Averages {
    second_moment: Array2<f64>,
    mean: Array1<f64>,
    sizes: Vec<f64>,
    /// What of a constant does not come back.
    gone: Vec<f64>,
}

impl Averages {
    fn new(moments: &Moments) -> Self {
        let second_moment = moments.second_moment();
        let mean = moments.mean();
        let (sizes, gone) = (vec![1.0; mean.len()], vec![0.0; mean.len()]);
        Self { second_moment, mean, sizes, gone }
    }

    fn correlation(&self, i: usize, j: usize) -> Option<f64> {
        let covariance = |i: usize, j: usize| self.second_moment[[i, j]] - self.mean[i] * self.mean[j];
        let alive = |k: usize| covariance(k, k) > DEAD * self.second_moment[[k, k]];
        (alive(i) && alive(j))
            .then(|| (covariance(i, j) / (covariance(i, i) * covariance(j, j)).sqrt()).clamp(-1.0, 1.0))
    }

    /// Merges group j into group i; returns what that loses.
    fn merge(&mut self, i: usize, j: usize) -> f64 {
        let (mut a, mut b) = (self.sizes[i], self.sizes[j]);
        self.sizes[i] += b;
        if a + b == 0.0 {
            // The larger of two constants is kept.
            (a, b) = if self.second_moment[[j, j]] > self.second_moment[[i, i]] { (0.0, 1.0) } else { (1.0, 0.0) };
        }
        let g = &self.second_moment;
        let loss = a * b / (a + b) * (g[[i, i]] + g[[j, j]] - 2.0 * g[[i, j]]).max(0.0)
            + std::mem::take(&mut self.gone[i])
            + std::mem::take(&mut self.gone[j]);
        let joined = (a * a * g[[i, i]] + 2.0 * a * b * g[[i, j]] + b * b * g[[j, j]]) / ((a + b) * (a + b));
        let mut row = (&g.row(i) * a + &g.row(j) * b) / (a + b);
        row[i] = joined;
        self.second_moment.row_mut(i).assign(&row);
        self.second_moment.column_mut(i).assign(&row);
        self.mean[i] = (a * self.mean[i] + b * self.mean[j]) / (a + b);
        loss
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::matching::{Method, match_features};
    use crate::plan::{PointNature, PointPlan};
    use crate::unmerge::UnmergeRule;

    #[test]
    fn the_last_loss_is_the_unmerges() {
        let n = 12;
        let z = Array2::from_shape_fn((40, n), |(s, k)| ((s * 7 + k * 11 + s * k) % 13) as f32 / 4.0);
        let mut moments = Moments::zeros(n);
        moments.add_batch(40, &z.sum_axis(ndarray::Axis(0)).to_vec(), z.t().dot(&z).view());
        for n_groups in [1, 4, 6, 11] {
            let matching = match_features(&Method::Zip { alpha: 1.0, beta: 1.0 }, &moments, 2, n_groups).unwrap();
            let merges = replay(&matching, &moments);
            assert!(merges.windows(2).all(|two| two[0].lost <= two[1].lost));
            let plan = PointPlan::new("p", &matching, &moments, 2, &UnmergeRule::Pinv, PointNature::default()).unwrap();
            let error = plan.summary.reconstruction_error;
            assert!((merges.last().unwrap().lost - error).abs() < 1e-9, "{n_groups}: {error} {merges:?}");
        }
    }
}
