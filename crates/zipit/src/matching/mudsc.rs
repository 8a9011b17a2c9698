//! Features matched by what they compute and by their weights at once.
//!
//! `MuDSC`, merging under dual-space constraints (Xu et al. 2024, arXiv 2403.01753): at each merge point
//!
//! `S = ρ·S_weights + (1 − ρ)·R`,
//!
//! R the correlation of the joint features and `S_weights` the cosine of their weights: of the slices of every learned
//! tensor that hold a feature, with each other axis brought to common coordinates by the current matching of *its* space.
//! S is matched by a solver that knows only similarities, and changes the coordinates of its neighbours; hence sweeps.

use super::layout::{Axes, Layout};
use super::living::cluster_features;
use super::weight::matchable_spaces;
use super::{Matching, Method, among, match_features, permute, zip};
use crate::graph::{MergePoint, SpaceId};
use crate::products::add_product;
use crate::{Constants, Error, Model, Observed, Result};
use ndarray::{Array2, Axis, concatenate};
use rand::{SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

/// Sweeps that are made at most. Nothing promises that S rises: each point has its own.
pub const MAX_SWEEPS: usize = 20;

/// What matches the joint features by S.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Solver {
    /// [`permute`](mod@super::permute): d' = d.
    Permute,
    /// The greedy [`zip`](mod@super::zip): any d'.
    Zip {
        /// As [`Method::Zip`]'s.
        alpha: f32,
        /// As [`Method::Zip`]'s.
        beta: f32,
    },
}

impl Solver {
    fn method(self) -> Method {
        match self {
            Self::Permute => Method::Permute,
            Self::Zip { alpha, beta } => Method::Zip { alpha, beta },
        }
    }

    /// With the features that vary `spread` over all groups that constants leave, or not.
    fn solve(
        self,
        similarity: &Array2<f32>,
        constants: &Constants,
        n_models: usize,
        n_groups: usize,
        spread: bool,
    ) -> Result<Matching> {
        match self {
            Self::Permute => Ok(permute::permute_onto(similarity.view(), n_models, |k| constants.rests(k))),
            Self::Zip { alpha, beta } => cluster_features(constants, n_models, n_groups, spread, |of| {
                Ok(zip::zip_of(among(similarity, of).view(), of.sizes, of.n_groups, alpha, beta))
            }),
        }
    }

    /// R as this solver wants it.
    fn correlation(self, observed: &Observed<'_>) -> Array2<f32> {
        match self {
            Self::Permute => observed.constants.pairing(observed.moments),
            Self::Zip { .. } => observed.constants.correlation(observed.moments),
        }
    }
}

/// Matches the joint features at every one of `points` by S, with what was `observed` and d' = `n_groups` in their order.
///
/// At ρ < 1 the start is what the activations alone give, as in the authors' code; at ρ = 1 it is the identity, as in
/// [`weight_matching`](super::weight::weight_matching). Each sweep visits the points in a random order that `seed`
/// determines. It ends when nothing changes, or when a sweep does not raise the mean S of what it merges, averaged over
/// the points (that sweep is undone), or after [`MAX_SWEEPS`].
///
/// - ρ = 0 gives what [`match_features`] gives, exactly.
/// - ρ = 1 does not read the correlations. With [`Solver::Permute`] it is weight matching by cosines.
/// - Common coordinates are N·M, group averages times N: a group of one feature of each model then weighs as much as an
///   axis that nothing merges. The authors take this for input axes and the group's sum for output axes; for
///   one-to-one groups these are the same. Their cosine subtracts the mean of each feature's weights; this one does not.
/// - A feature without weights is similar to nothing. [Constants](crate::constants) count as in [`match_features`].
///
/// The matrices S and R `[N·d, N·d]` of every point are held in f32.
///
/// # Errors
/// As [`weight_matching`](super::weight::weight_matching) and [`match_features`]; [`Error::Request`] for a ρ outside
/// 0…1, or moments or numbers of groups that are not one for each point.
pub fn mudsc<'a>(
    models: &[&Model],
    points: &[MergePoint],
    observed: &[impl Into<Observed<'a>> + Clone],
    rho: f64,
    solver: Solver,
    n_groups: &[usize],
    seed: u64,
) -> Result<Vec<Matching>> {
    let spaces = matchable_spaces(models, points)?;
    if !(0.0..=1.0).contains(&rho) {
        return Err(Error::Request(format!(
            "rho is {rho}; it must lie between 0 (activations only) and 1 (weights only)"
        )));
    }
    let observed: Vec<Observed<'_>> = observed.iter().cloned().map(Into::into).collect();
    if observed.len() != points.len() || n_groups.len() != points.len() {
        return Err(Error::Request(format!(
            "{} merge points need as many moments and numbers of groups, not {} and {}",
            points.len(),
            observed.len(),
            n_groups.len()
        )));
    }
    let n_models = models.len();
    for (point, Observed { moments, .. }) in points.iter().zip(&observed) {
        if moments.n_joint() != n_models * point.dim {
            return Err(Error::Numbers(format!(
                "`{}`: moments of {} features for {n_models} models of {}",
                point.name,
                moments.n_joint(),
                point.dim
            )));
        }
    }
    let by_activations = points.iter().zip(&observed).zip(n_groups).map(|((point, observed), &n_groups)| {
        observed.moments.validate(&point.name)?;
        match_features(&solver.method(), observed.clone(), n_models, n_groups)
    });
    let by_activations = by_activations.collect::<Result<Vec<_>>>()?;
    if rho == 0.0 {
        return Ok(by_activations);
    }
    let still: Vec<Axes> = spaces.spaces.iter().map(|space| Axes::identity(space.dim)).collect();
    let mut search = Search {
        layout: &Layout::new(models, &spaces),
        models,
        axes: vec![still; n_models],
        rho,
        correlations: points.iter().map(|_| None).collect(),
        constants: observed.iter().map(|observed| &*observed.constants).collect(),
    };
    if rho < 1.0 {
        for (at, point) in points.iter().enumerate() {
            let correlation = solver.correlation(&observed[at]);
            let start = if constants_rest(&observed[at].constants) {
                solver.solve(&correlation, &observed[at].constants, n_models, n_groups[at], false)?
            } else {
                by_activations[at].clone()
            };
            search.move_to(point.space, &start);
            search.correlations[at] = Some(correlation);
        }
    }
    search.sweep(points, solver, n_groups, seed)
}

struct Search<'a> {
    layout: &'a Layout,
    models: &'a [&'a Model],
    /// By model and space.
    axes: Vec<Vec<Axes>>,
    rho: f64,
    /// R of each point, where it counts.
    correlations: Vec<Option<Array2<f32>>>,
    /// Of each point.
    constants: Vec<&'a Constants>,
}

impl Search<'_> {
    fn sweep(&mut self, points: &[MergePoint], solver: Solver, n_groups: &[usize], seed: u64) -> Result<Vec<Matching>> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut order: Vec<usize> = (0..points.len()).collect();
        let mut current: Vec<Option<Matching>> = vec![None; points.len()];
        let mut values = vec![0.0; points.len()];
        let mut stale = vec![true; self.axes[0].len()];
        let mut best: (f64, Vec<Matching>) = (f64::NEG_INFINITY, Vec::new());
        for _ in 0..MAX_SWEEPS {
            let mut moved = false;
            order.shuffle(&mut rng);
            for &at in &order {
                let space = points[at].space;
                // While nothing it shares a tensor with has moved since its last turn, it would stay.
                if !std::mem::take(&mut stale[space]) {
                    continue;
                }
                let similarity = self.similarity(space, at);
                let matching = solver.solve(&similarity, self.constants[at], self.models.len(), n_groups[at], false)?;
                values[at] = mean_of_merges(&similarity, &matching);
                if current[at].as_ref() != Some(&matching) {
                    moved = true;
                    self.move_to(space, &matching);
                    self.layout.neighbours(space).for_each(|neighbour| stale[neighbour] = true);
                    current[at] = Some(matching);
                }
            }
            let value = values.iter().sum::<f64>();
            if !moved || value <= best.0 {
                break;
            }
            best = (value, current.iter().flatten().cloned().collect());
        }
        // Common coordinates keep one feature in one place. What constants leave over is shared out at the end.
        let mut found = best.1;
        found.iter().zip(points).for_each(|(matching, point)| self.move_to(point.space, matching));
        for (at, matching) in found.iter_mut().enumerate().filter(|(at, _)| constants_rest(self.constants[*at])) {
            let similarity = self.similarity(points[at].space, at);
            *matching = solver.solve(&similarity, self.constants[at], self.models.len(), n_groups[at], true)?;
        }
        Ok(found)
    }

    /// S of the point at `at`, `[N·d, N·d]`.
    fn similarity(&self, space: SpaceId, at: usize) -> Array2<f32> {
        let mut similarity = self.cosines(space);
        if let Some(correlation) = &self.correlations[at] {
            similarity.zip_mut_with(correlation, |s, &r| *s = self.rho * *s + (1.0 - self.rho) * f64::from(r));
        }
        similarity.mapv(|s| s as f32)
    }

    /// The cosine of every two joint features' weights in common coordinates; 0 where one has none, 1 on the diagonal.
    fn cosines(&self, space: SpaceId) -> Array2<f64> {
        let n = self.models.len() * self.axes[0][space].to.len();
        let mut products = Array2::zeros((n, n));
        for &place in self.layout.places(space) {
            let slices: Vec<Array2<f64>> = (self.models.iter().zip(&self.axes))
                .map(|(model, axes)| self.layout.slices(model, place, axes))
                .collect();
            let slices: Vec<_> = slices.iter().map(Array2::view).collect();
            let slices = concatenate(Axis(0), &slices).expect("every model's slices have one shape");
            add_product(&mut products, slices.view(), slices.view());
        }
        let norms: Vec<f64> = products.diag().iter().map(|square: &f64| square.sqrt()).collect();
        for ((i, j), x) in products.indexed_iter_mut() {
            let scale = norms[i] * norms[j];
            *x = match (i == j, scale > 0.0) {
                (true, _) => 1.0,
                (false, true) => (*x / scale).clamp(-1.0, 1.0),
                (false, false) => 0.0,
            };
        }
        products
    }

    /// Makes a matching the space's common coordinates.
    fn move_to(&mut self, space: SpaceId, matching: &Matching) {
        let n_models = self.models.len();
        let mut sizes = vec![0.0; matching.n_groups];
        matching.assignment.iter().for_each(|&group| sizes[group as usize] += 1.0);
        let scale: Vec<f64> = sizes.iter().map(|size| n_models as f64 / size).collect();
        let d = matching.assignment.len() / n_models;
        for (axes, to) in self.axes.iter_mut().zip(matching.assignment.chunks(d)) {
            axes[space] = Axes { to: to.to_vec(), scale: scale.clone() };
        }
    }
}

/// Whether some features are left out of averages.
fn constants_rest(constants: &Constants) -> bool {
    (0..constants.n_joint()).any(|k| constants.rests(k))
}

/// The mean similarity of the pairs that were merged, by the groups' lowest features; 0 without any.
fn mean_of_merges(similarity: &Array2<f32>, matching: &Matching) -> f64 {
    let sum: f64 = matching.merges.iter().map(|&(i, j)| f64::from(similarity[[i as usize, j as usize]])).sum();
    sum / matching.merges.len().max(1) as f64
}
