//! What `match` decided: for every merged space, which features become one and how they come back.

mod check;
mod shares;

use crate::graph::MergePoint;
use crate::matching::identity::identity;
use crate::matching::{Matching, Method};
use crate::unmerge::{self, Merge, UnmergeRule};
use crate::{Error, Moments, Observed, Result};
use ndarray::{Array1, Array2, Axis, Slice};
use serde::{Deserialize, Serialize};
use shares::{counts, normalised, rests, shares};

/// The maps of one merge point.
#[derive(Debug, Clone, PartialEq)]
pub struct PointPlan {
    /// The space, by the value it is measured at.
    pub name: String,
    /// Group of each joint feature, `[N·d]`, numbered 0…d'−1 in the order of each group's lowest feature. It defines
    /// the merge M ∈ R^{d'×Nd}, row g averages the members of group g that do not rest, by their `weights`, unless M is dense.
    pub assignment: Vec<u32>,
    /// d'.
    pub n_groups: usize,
    /// The joint features without weight in M, ascending: [constants](crate::constants). No group has only such. Without
    /// a dense unmerge they come back as 0.
    pub resting: Vec<u32>,
    /// What each joint feature counts in its group, `[N·d]`, where not all count the same: row g of M is this over its sum
    /// in the group. A feature that counts 0 comes back as its group, as any other.
    pub weights: Option<Vec<f32>>,
    /// The merge M ∈ R^{d'×Nd} of a method that mixes features (`cca`); the unmerge is dense then, too.
    pub merge: Option<Array2<f32>>,
    /// The unmerge U ∈ R^{Nd×d'} where it is dense; `None` is the indicator of the groups' members with weight, = pinv(M),
    /// also under the covariance rule where it comes to the same (no group of two, or no energy).
    pub unmerge: Option<Array2<f32>>,
    /// What the matching did, for people.
    pub summary: PointSummary,
}

/// What the network makes of a merge point's features.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PointNature {
    /// Features per block, where they stand in blocks: U stays within them.
    pub block_width: Option<usize>,
    /// Whether a norm of single samples reads them.
    pub normalised: bool,
    /// Whether such a norm takes the spread about their mean (LayerNorm, GroupNorm), not about 0 (`RMSNorm`).
    pub centred: bool,
}

impl From<&MergePoint> for PointNature {
    fn from(point: &MergePoint) -> Self {
        Self {
            block_width: point.blocks.map(|blocks| point.dim / blocks.count),
            normalised: point.normalised,
            centred: point.centred,
        }
    }
}

impl PointPlan {
    /// The maps of the merge point `name`: what `matching` groups of the N·d features that were `observed`, averaged, with
    /// U by `rule`.
    ///
    /// # Errors
    /// [`Error::Numbers`] for moments that are not those the matching was made of, or defective;
    /// what [`unmerge`](unmerge::unmerge) refuses. The message names the point.
    pub fn new<'a>(
        name: &str,
        matching: &Matching,
        observed: impl Into<Observed<'a>>,
        n_models: usize,
        rule: &UnmergeRule,
        nature: PointNature,
    ) -> Result<Self> {
        Self::weighted(name, matching, None, observed, n_models, rule, nature)
    }

    /// As [`new`](Self::new), the features of a group averaged by what they count, `weights` `[N·d]` ≥ 0; those of a
    /// group in which all count 0, alike.
    ///
    /// # Errors
    /// As [`new`](Self::new); [`Error::Numbers`] for weights that are none.
    pub fn weighted<'a>(
        name: &str,
        matching: &Matching,
        weights: Option<&[f64]>,
        observed: impl Into<Observed<'a>>,
        n_models: usize,
        rule: &UnmergeRule,
        nature: PointNature,
    ) -> Result<Self> {
        let Observed { moments, constants, .. } = &observed.into();
        moments.validate(name)?;
        let n = matching.assignment.len();
        if [moments.n_joint(), constants.n_joint()] != [n; 2] || n_models < 2 || !n.is_multiple_of(n_models) {
            return Err(Error::Numbers(format!(
                "`{name}`: a matching of {n} features of {n_models} models does not fit moments of {}",
                moments.n_joint()
            )));
        }
        let second_moment = moments.second_moment();
        let (assignment, n_groups) = (&matching.assignment, matching.n_groups);
        let resting = constants.resting(assignment, n_groups, nature.block_width);
        let weights = weights.map(|own| normalised(own, assignment, n_groups, &resting.features)).transpose();
        let weights = weights.map_err(|reason| Error::Numbers(format!("`{name}`: {reason}")))?.flatten();
        let shares = shares(assignment, n_groups, &rests(&resting.features, n), weights.as_deref());
        let groups = Merge { assignment, n_groups, shares: &shares };
        let fitted = unmerge::with_resting(rule, &second_moment, groups, nature.block_width, &resting);
        let fitted = fitted.map_err(|error| match error {
            Error::Numbers(reason) => Error::Numbers(format!("`{name}`: {reason}")),
            other => other,
        })?;
        let resting: Vec<u32> = resting.features.iter().map(|&k| k as u32).collect();
        let (across, within) = merges_of(matching, &resting, n_models);
        let (dead, constant) = constants.count();
        let spread = nature.normalised.then(|| spread(&second_moment, nature.centred, groups, n_models));
        Ok(Self {
            name: name.to_owned(),
            assignment: matching.assignment.clone(),
            n_groups: matching.n_groups,
            weights,
            merge: None,
            unmerge: fitted.matrix.map(|u| u.mapv(|x| x as f32)),
            summary: PointSummary {
                across,
                within,
                mean_correlation: mean_correlation(assignment, n_groups, &resting, moments),
                caps_lifted: matching.caps_lifted,
                reconstruction_error: fitted.reconstruction_error,
                condition: fitted.condition,
                spread,
                dead,
                constant,
            },
            resting,
        })
    }

    /// The maps of the merge point `name` by dense maps M `[d, Nd]` and U₀ `[Nd, d]` that align feature j of every
    /// model with feature j of the first, with U by `rule` ([`unmerge::dense`]).
    ///
    /// # Errors
    /// [`Error::Numbers`] for moments of another size, or defective; what [`unmerge::dense`] refuses.
    pub fn from_maps<'a>(
        name: &str,
        merge: &Array2<f64>,
        own: &Array2<f64>,
        observed: impl Into<Observed<'a>>,
        n_models: usize,
        rule: &UnmergeRule,
    ) -> Result<Self> {
        let Observed { moments, constants, .. } = &observed.into();
        moments.validate(name)?;
        let (d, n) = merge.dim();
        if n != moments.n_joint() || n != d * n_models || own.dim() != (n, d) {
            return Err(Error::Numbers(format!("`{name}`: maps of {n} features do not fit the moments")));
        }
        let (dead, constant) = constants.count();
        let fitted = unmerge::dense(rule, &moments.second_moment(), merge, own)?;
        let assignment: Vec<u32> = (0..n).map(|k| (k % d) as u32).collect();
        Ok(Self {
            name: name.to_owned(),
            n_groups: d,
            resting: vec![],
            weights: None,
            merge: Some(merge.mapv(|x| x as f32)),
            unmerge: fitted.matrix.map(|u| u.mapv(|x| x as f32)),
            summary: PointSummary {
                across: n - d,
                within: vec![0; n_models],
                mean_correlation: None,
                caps_lifted: false,
                reconstruction_error: fitted.reconstruction_error,
                condition: fitted.condition,
                spread: None,
                dead,
                constant,
            },
            assignment,
        })
    }

    /// Feature j of every model with feature j of the others, of which nothing was measured.
    #[must_use]
    pub fn identity(point: &MergePoint, n_models: usize) -> Self {
        let matching = identity(point.dim, n_models);
        Self {
            name: point.name.clone(),
            n_groups: matching.n_groups,
            resting: vec![],
            weights: None,
            merge: None,
            unmerge: None,
            summary: PointSummary {
                across: matching.merges.len(),
                within: vec![0; n_models],
                mean_correlation: None,
                caps_lifted: false,
                reconstruction_error: 0.0,
                condition: None,
                spread: None,
                dead: 0,
                constant: 0,
            },
            assignment: matching.assignment,
        }
    }

    /// For each joint feature, whether it has no weight in M, `[Nd]`.
    #[must_use]
    pub fn rests(&self) -> Vec<bool> {
        rests(&self.resting, self.assignment.len())
    }

    /// Each joint feature's entry in M, `[Nd]`, where M is not dense: its part of its group's average, 0 where it rests.
    #[must_use]
    pub fn shares(&self) -> Vec<f64> {
        shares(&self.assignment, self.n_groups, &self.rests(), self.weights.as_deref())
    }

    /// What each joint feature counts in its group, `[Nd]`, 0 where it rests, and what all members of each group count
    /// together, `[d']`: M's entries, where it is not dense, are the one over the other.
    #[must_use]
    pub fn counts(&self) -> (Vec<f64>, Vec<f64>) {
        counts(&self.assignment, self.n_groups, &self.rests(), self.weights.as_deref())
    }

    /// M, `[d', Nd]`: dense, or row g averages the members of group g that do not rest.
    #[must_use]
    pub fn merge_matrix(&self) -> Array2<f32> {
        if let Some(merge) = &self.merge {
            return merge.clone();
        }
        let mut merge = Array2::zeros((self.n_groups, self.assignment.len()));
        for ((k, &group), share) in self.assignment.iter().enumerate().zip(self.shares()) {
            merge[[group as usize, k]] = share as f32;
        }
        merge
    }

    /// E(z − U M z)² of each joint feature, `[Nd]`, on a second moment G = E\[zzᵀ\] `[Nd, Nd]` that need not be the one
    /// U was fitted to: diag(G − 2 U M G + U M G Mᵀ Uᵀ).
    ///
    /// # Panics
    /// When G is of another size.
    #[must_use]
    pub fn lost_energy(&self, second_moment: &Array2<f64>) -> Array1<f64> {
        let m = self.merge_matrix().mapv(f64::from);
        let u = self.unmerge_matrix().mapv(f64::from);
        let c = second_moment.dot(&m.t());
        let a = m.dot(&c);
        let twice = 2.0 * (&c * &u).sum_axis(Axis(1));
        (&second_moment.diag() - &twice + (&u.dot(&a) * &u).sum_axis(Axis(1))).mapv_into(|x| x.max(0.0))
    }

    /// E‖z − U M z‖² / E‖z‖² on a second moment G that need not be the one U was fitted to; 0 where z has no energy.
    ///
    /// # Panics
    /// When G is of another size.
    #[must_use]
    pub fn lost_share(&self, second_moment: &Array2<f64>) -> f64 {
        let energy = second_moment.diag().sum();
        if energy > 0.0 { self.lost_energy(second_moment).sum() / energy } else { 0.0 }
    }

    /// U, `[Nd, d']`, dense or the indicator of the groups' members with weight.
    #[must_use]
    pub fn unmerge_matrix(&self) -> Array2<f32> {
        self.unmerge.clone().unwrap_or_else(|| {
            let mut u = unmerge::indicator(&self.assignment, self.n_groups);
            self.resting.iter().for_each(|&k| u.row_mut(k as usize).fill(0.0));
            u
        })
    }
}

/// See [`PointSummary::spread`]; 1 where nothing spreads. `centred`: about the mean of the features, else about 0.
fn spread(second_moment: &Array2<f64>, centred: bool, merge: Merge<'_>, n_models: usize) -> f64 {
    let Merge { assignment, n_groups, shares } = merge;
    let n = assignment.len();
    let d = n / n_models;
    // E var over d features = tr(G)/d − 1ᵀG1/d², their mean square tr(G)/d.
    let mean = |total: f64, n: usize| if centred { total / (n * n) as f64 } else { 0.0 };
    let own: f64 = (0..n_models)
        .map(|i| Slice::from(i * d..(i + 1) * d))
        .map(|own| second_moment.slice_axis(Axis(0), own).slice_axis(Axis(1), own).to_owned())
        .map(|g| g.diag().sum() / d as f64 - mean(g.sum(), d))
        .sum::<f64>()
        / n_models as f64;
    let (mut trace, mut total) = (0.0, 0.0);
    for ((j, k), g) in second_moment.indexed_iter() {
        let merged = g * shares[j] * shares[k];
        total += merged;
        if assignment[j] == assignment[k] {
            trace += merged;
        }
    }
    let merged = trace / n_groups as f64 - mean(total, n_groups);
    if own > 0.0 && merged > 0.0 { (merged / own).sqrt() } else { 1.0 }
}

/// Merges of two groups that both have weight, across models and within each: a group is its lowest feature's with weight.
fn merges_of(matching: &Matching, resting: &[u32], n_models: usize) -> (usize, Vec<usize>) {
    let n = matching.assignment.len();
    let d = n / n_models;
    let mut lead: Vec<Option<usize>> =
        rests(resting, n).iter().enumerate().map(|(k, rests)| (!rests).then_some(k)).collect();
    let (mut across, mut within) = (0, vec![0; n_models]);
    for (i, j) in matching.merges.iter().map(|&(i, j)| (i as usize, j as usize)) {
        match (lead[i], lead[j]) {
            (Some(a), Some(b)) if a / d == b / d => within[a / d] += 1,
            (Some(_), Some(_)) => across += 1,
            _ => {}
        }
        lead[i] = lead[i].into_iter().chain(lead[j]).min();
    }
    (across, within)
}

/// Mean of R over the pairs of features with weight that share a group.
fn mean_correlation(assignment: &[u32], n_groups: usize, resting: &[u32], moments: &Moments) -> Option<f64> {
    let mut members: Vec<Vec<usize>> = vec![Vec::new(); n_groups];
    for (k, (&group, _)) in
        assignment.iter().zip(rests(resting, assignment.len())).enumerate().filter(|(_, (_, rests))| !rests)
    {
        members[group as usize].push(k);
    }
    let pairs =
        members.iter().flat_map(|m| m.iter().enumerate().flat_map(|(at, &j)| m[..at].iter().map(move |&i| (i, j))));
    let (sum, n) = moments.correlations_of(pairs).fold((0.0, 0_u64), |(sum, n), r| (sum + r, n + 1));
    (n > 0).then(|| sum / n as f64)
}

/// One row of `match`'s table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PointSummary {
    /// Merges of two groups that belong to different models; a group belongs to the model of its lowest feature with
    /// weight. A constant that joins a group without weight is no merge.
    pub across: usize,
    /// Merges of two groups that belong to the same model, `[N]`.
    pub within: Vec<usize>,
    /// Mean correlation between a group's members with weight, over all pairs of all groups; `None` where no group has
    /// two.
    pub mean_correlation: Option<f64>,
    /// Whether the caps on within-model merges had to be lifted to reach d' groups.
    pub caps_lifted: bool,
    /// E‖z − U M z‖² / E‖z‖²: the share of the features' energy that the unmerge does not bring back. A
    /// [constant](crate::constants) counts by what is lost of it where it is read.
    pub reconstruction_error: f64,
    /// Condition number, from below, of the matrix that the covariance unmerge solved with; `None` where there was
    /// nothing to solve.
    pub condition: Option<f64>,
    /// √(E var(M z) / mean over models of E var(xⁱ)), var over the features of one sample: what averaging leaves of the
    /// spread that a norm of single samples divides by. Only where one reads the space; its weight is multiplied by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spread: Option<f64>,
    /// Joint features that are 0 wherever they are read.
    #[serde(default)]
    pub dead: usize,
    /// Joint features that are another constant wherever they are read.
    #[serde(default)]
    pub constant: usize,
}

impl PointSummary {
    fn validate(&self, n_models: usize, n_joint: usize, n_merges: usize) -> Result<(), String> {
        if self.within.len() != n_models {
            return Err(format!("merges within {} models are counted, expected {n_models}", self.within.len()));
        }
        // Saturating, because the counts come from a file.
        let counted = self.within.iter().fold(self.across, |sum, &within| sum.saturating_add(within));
        if counted != n_merges {
            return Err(format!("{counted} merges are counted but the groups take {n_merges}"));
        }
        if self.dead.saturating_add(self.constant) > n_joint {
            return Err(format!("{} dead and {} constant features of {n_joint}", self.dead, self.constant));
        }
        if self.mean_correlation.is_some_and(|r| !(-1.0..=1.0).contains(&r)) {
            return Err(format!("the mean correlation {:?} is not within -1 and 1", self.mean_correlation));
        }
        if !(self.reconstruction_error.is_finite() && self.reconstruction_error >= 0.0) {
            return Err(format!("the reconstruction error is {}", self.reconstruction_error));
        }
        if self.condition.is_some_and(|c| !(c.is_finite() && c > 0.0)) {
            return Err(format!("the condition number is {:?}", self.condition));
        }
        Ok(())
    }
}

/// How the maps were chosen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanSettings {
    /// The matching.
    pub method: Method,
    /// The unmerge rule.
    pub unmerge: UnmergeRule,
}

/// The maps of every merged space.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// N.
    pub n_models: usize,
    /// How they were chosen.
    pub settings: PlanSettings,
    /// The merged spaces, in the order of the forward pass. A free space that is not here stays separate.
    pub points: Vec<PointPlan>,
}

impl Plan {
    /// Everything about a plan that can be wrong without knowing the models it is for: parameters, names, assignments,
    /// dense maps, counts.
    ///
    /// # Errors
    /// [`Error::Request`] with every defective point, one a line, and what is wrong with it first.
    pub fn validate(&self) -> Result<()> {
        self.settings.method.validate()?;
        self.settings.unmerge.validate()?;
        if self.n_models < 2 {
            return Err(Error::Request(format!("a plan for {} models; merging takes at least 2", self.n_models)));
        }
        let mut defects = Vec::new();
        for (at, point) in self.points.iter().enumerate() {
            if point.name.is_empty() {
                defects.push(format!("point {at} has no name"));
            } else if self.points[..at].iter().any(|other| other.name == point.name) {
                defects.push(format!("point `{}` is there twice", point.name));
            } else if let Err(defect) = point.validate(self.n_models, &self.settings.unmerge) {
                defects.push(format!("point `{}`: {defect}", point.name));
            }
        }
        if defects.is_empty() { Ok(()) } else { Err(Error::Request(defects.join("\n  "))) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matching::match_features;
    use ndarray::{Axis, array};

    /// Two models of two features: a0 ≈ b1, a1 = 2·b0, so groups (a0, b1) and (a1, b0).
    fn plan(rule: UnmergeRule) -> Plan {
        let z = array![[1.0_f32, 0.0, 0.0, 2.0], [2.0, 2.0, 1.0, 2.0], [0.0, 4.0, 2.0, 0.0], [3.0, 2.0, 1.0, 4.0]];
        let mut moments = Moments::zeros(4);
        moments.add_batch(4, &z.sum_axis(Axis(0)).to_vec(), z.t().dot(&z).view());
        let method = Method::Zip { alpha: 1.0, beta: 0.0 };
        let matching = match_features(&method, &moments, 2, 2).expect("valid");
        let point = PointPlan::new("relu", &matching, &moments, 2, &rule, PointNature::default()).expect("valid");
        Plan { n_models: 2, settings: PlanSettings { method, unmerge: rule }, points: vec![point] }
    }

    type Spoil = fn(&mut Plan);

    const COVARIANCE: UnmergeRule = UnmergeRule::Covariance { ridge: 0.001 };

    #[test]
    fn the_maps_of_a_point() {
        let plan = plan(UnmergeRule::Pinv);
        let point = &plan.points[0];
        assert_eq!(plan.validate(), Ok(()));
        assert_eq!(point.assignment, [0, 1, 1, 0]);
        assert_eq!(point.merge_matrix(), array![[0.5, 0.0, 0.0, 0.5], [0.0, 0.5, 0.5, 0.0]]);
        assert_eq!(point.unmerge_matrix(), array![[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [1.0, 0.0]]);
        assert_eq!((point.summary.across, &point.summary.within[..]), (2, &[0, 0][..]));
    }

    #[test]
    fn covariance_gives_back_the_scales() {
        let plan = plan(COVARIANCE);
        assert_eq!(plan.validate(), Ok(()));
        // (a1, b0) = (2x, x) from 1.5x.
        let u = plan.points[0].unmerge_matrix();
        assert!((u[[1, 1]] - 4.0 / 3.0).abs() < 0.01 && (u[[2, 1]] - 2.0 / 3.0).abs() < 0.01, "{u}");
    }

    #[test]
    fn every_defect_is_named() {
        let message = |spoil: Spoil| {
            let mut bad = plan(COVARIANCE);
            spoil(&mut bad);
            bad.validate().expect_err("defective").to_string()
        };
        let defects: [(Spoil, &str); 19] = [
            (|p| p.n_models = 1, "takes at least 2"),
            (|p| p.n_models = 3, "4 features are not those of 3 models"),
            (|p| p.settings.method = Method::Zip { alpha: f32::NAN, beta: 0.0 }, "alpha is NaN"),
            (|p| p.settings.unmerge = UnmergeRule::Covariance { ridge: -1.0 }, "ridge"),
            (|p| p.settings.unmerge = UnmergeRule::Pinv, "dense unmerge under the rule `pinv`"),
            (|p| p.points[0].name.clear(), "point 0 has no name"),
            (|p| p.points.push(p.points[0].clone()), "point `relu` is there twice"),
            (|p| p.points[0].assignment.clear(), "0 features"),
            (|p| p.points[0].assignment[3] = 2, "feature 3 is in group 2 of 2"),
            (|p| p.points[0].assignment = vec![1, 0, 0, 1], "feature 0 opens group 1 before group 0 has a member"),
            (|p| p.points[0].n_groups = 3, "3 groups but only 2 have members"),
            (|p| p.points[0].unmerge = Some(Array2::zeros((4, 3))), "(4, 3), expected (4, 2)"),
            (|p| p.points[0].unmerge = Some(Array2::zeros((4, 2))), "M·U is not the unit matrix"),
            (|p| p.points[0].unmerge = Some(Array2::from_elem((4, 2), f32::NAN)), "NaN or infinity"),
            (|p| p.points[0].summary.within.push(0), "within 3 models are counted, expected 2"),
            (|p| p.points[0].summary.across = 3, "3 merges are counted but the groups take 2"),
            (|p| p.points[0].summary.across = usize::MAX, "merges are counted"),
            (|p| p.points[0].summary.mean_correlation = Some(1.5), "mean correlation Some(1.5)"),
            (|p| p.points[0].summary.reconstruction_error = f64::NAN, "reconstruction error is NaN"),
        ];
        for (spoil, expected) in defects {
            let found = message(spoil);
            assert!(found.contains(expected), "`{found}` does not say `{expected}`");
        }
    }

    #[test]
    fn moments_of_other_features_are_refused() {
        let matching = Matching::from_merges(4, vec![(0, 2), (1, 3)], false);
        let mut moments = Moments::zeros(6);
        moments.count = 1;
        let error = PointPlan::new("relu", &matching, &moments, 2, &COVARIANCE, PointNature::default())
            .expect_err("other size");
        assert!(error.to_string().contains("`relu`: a matching of 4 features"), "{error}");
    }

    #[test]
    fn what_averaging_leaves_is_about_the_mean_or_about_zero() {
        // Four independent features of mean 0.8 and variance 0.36, those of two models averaged.
        let moment = Array2::from_shape_fn((4, 4), |(j, k)| if j == k { 1.0 } else { 0.64 });
        let merge = Merge { assignment: &[0, 1, 0, 1], n_groups: 2, shares: &[0.5; 4] };
        let left = |centred| spread(&moment, centred, merge, 2);
        assert!((left(true) - 0.5_f64.sqrt()).abs() < 1e-12, "{}", left(true));
        assert!((left(false) - 0.82_f64.sqrt()).abs() < 1e-12, "{}", left(false));
    }
}
