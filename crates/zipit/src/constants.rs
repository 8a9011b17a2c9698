//! Features that are constant wherever something reads them, and what becomes of them.
//!
//! Let `c_k ∈ R^R` be what feature k is at the R values of its space that something reads ([`Read`](crate::graph::Read)), if
//! it is constant at all of them. It tells nothing about an image, so it needs no part in any average: its column of M is
//! 0, which leaves M·U = I true whatever its row of U is, and it comes back by that row alone.
//!
//! - `c_k = 0`, a **dead** feature: its row of U is 0.
//! - `c_k ≠ 0`: some of the constant features, the **carriers**, keep a place in the merged network, one group each with
//!   nothing else of weight in it. With their vectors as the rows of C, row k of U is the x with `Cᵀx = c_k`. A layer then
//!   reads `Σ x_r c_r = c_k` at every one of the R values, at borders padded with zeros, too, where a bias could not tell
//!   a constant from nothing. As many carriers as C has rank are enough, which is at most R: one, where one value is read.
//!
//! What is constant is told from the smallest and the largest number ([`Extent`]), not from the variance: a feature that
//! varies by 0.3 about 1000 is none.

use crate::cholesky::Cholesky;
use crate::{Extent, Importance, Moments};
use ndarray::{Array2, ArrayView1, Axis};
use std::borrow::Cow;

/// A range up to this share of the larger of its ends, 8 units in the last place, is rounding.
const ROUNDING: f32 = 1.0 / (1 << 20) as f32;
/// What varies by up to this share of what the model's other features vary by is lost when they are summed in f32.
const LOST: f32 = 1.0 / (1 << 24) as f32;
/// A vector is spanned by others that leave up to this share of it.
const SPANNED: f64 = 1e-5;

/// Which of the N·d joint features of a space are constant wherever they are read.
#[derive(Debug, Clone, PartialEq)]
pub struct Constants {
    /// Which they are, `[N·d]`.
    constant: Vec<bool>,
    /// Whether M must not leave them out.
    weighed: bool,
    /// `c_k` in units of the largest number at each read, `[N·d, R]`; 0 where dead, and for features that vary.
    values: Array2<f64>,
    /// Middles and half widths of the ranges, likewise in those units, of features that vary somewhere, or must not be
    /// left out, but do not vary where the moments are measured: R says nothing about them.
    profiles: Vec<Option<Vec<f64>>>,
}

/// What was measured at a merge point.
#[derive(Debug, Clone)]
pub struct Observed<'a> {
    /// Of its joint features.
    pub moments: &'a Moments,
    /// Which of them are constant.
    pub constants: Cow<'a, Constants>,
    /// What they do to the logits, where that was measured.
    pub importance: Option<&'a Importance>,
}

impl<'a> From<(&'a Moments, &'a Constants)> for Observed<'a> {
    fn from((moments, constants): (&'a Moments, &'a Constants)) -> Self {
        Self { moments, constants: Cow::Borrowed(constants), importance: None }
    }
}

/// Features count as constant by their variance alone, as if they were read where they were measured and nowhere else.
impl<'a> From<&'a Moments> for Observed<'a> {
    fn from(moments: &'a Moments) -> Self {
        Self { moments, constants: Cow::Owned(Constants::of(moments)), importance: None }
    }
}

/// What M leaves out of groups, and how it comes back.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Resting {
    /// The joint features without weight, ascending.
    pub features: Vec<usize>,
    /// Of each, its entries in U: group and factor.
    pub rows: Vec<Vec<(usize, f64)>>,
    /// Of each, ‖c − Cᵀx‖² / ‖c‖²; 0 where dead.
    pub lost: Vec<f64>,
}

impl Constants {
    /// Nothing is constant, or nobody asks: every feature has its weight.
    #[must_use]
    pub fn none(n_joint: usize) -> Self {
        let (constant, values) = (vec![false; n_joint], Array2::zeros((n_joint, 0)));
        Self { constant, weighed: true, values, profiles: vec![None; n_joint] }
    }

    /// The same, and M leaves none out, as in plain averaging.
    #[must_use]
    pub fn weighed(self) -> Self {
        Self { weighed: true, ..self }
    }

    /// Whether M must leave none out.
    pub(crate) fn is_weighed(&self) -> bool {
        self.weighed
    }

    /// Of features whose ranges at every value that something reads are `reads`, N·d each. They may be left out of M
    /// unless `weighed`: where a norm or an attention reads all features of a space together, none may.
    ///
    /// # Panics
    /// When a range is of another number of features.
    #[must_use]
    pub fn new(moments: &Moments, reads: &[Extent], n_models: usize, weighed: bool) -> Self {
        let n = moments.n_joint();
        if reads.is_empty() || !n.is_multiple_of(n_models) {
            return Self { weighed, ..Self::of(moments) };
        }
        let mut values = Array2::zeros((n, reads.len()));
        let mut widths = Array2::zeros((n, reads.len()));
        let mut constant = vec![true; n];
        for (r, read) in reads.iter().enumerate() {
            assert_eq!(read.low.len(), n, "ranges of another number of features");
            let size = |k: usize| read.low[k].abs().max(read.high[k].abs());
            let largest = (0..n).map(size).fold(0.0, f32::max);
            let unit = if largest > 0.0 { f64::from(largest) } else { 1.0 };
            for model in 0..n_models {
                let own = model * (n / n_models)..(model + 1) * (n / n_models);
                let varies = own.clone().map(|k| read.high[k] - read.low[k]).fold(0.0, f32::max);
                let largest = own.clone().map(size).fold(0.0, f32::max);
                for k in own {
                    let width = read.high[k] - read.low[k];
                    let still = width <= (ROUNDING * size(k)).max(LOST * varies);
                    constant[k] &= still;
                    let middle = f64::from(read.low[k]).midpoint(f64::from(read.high[k]));
                    values[[k, r]] = if still && size(k) <= LOST * largest { 0.0 } else { middle / unit };
                    widths[[k, r]] = if still { 0.0 } else { f64::from(width) / (2.0 * unit) };
                }
            }
        }
        let scale = moments.inverse_std();
        let profile = |k: usize| {
            let unseen = (weighed || !constant[k]) && scale[k] == 0.0;
            unseen.then(|| values.row(k).iter().chain(widths.row(k)).copied().collect())
        };
        let profiles = (0..n).map(profile).collect();
        for (mut row, _) in values.rows_mut().into_iter().zip(&constant).filter(|(_, constant)| !**constant) {
            row.fill(0.0);
        }
        Self { constant, weighed, values, profiles }
    }

    /// By the variance alone.
    #[must_use]
    pub fn of(moments: &Moments) -> Self {
        let n = moments.n_joint();
        if moments.validate("moments").is_err() {
            return Self::none(n);
        }
        let mean = moments.mean();
        let constant: Vec<bool> = moments.inverse_std().iter().map(|&scale| scale == 0.0).collect();
        let largest = mean.iter().fold(0.0_f64, |largest, x| largest.max(x.abs()));
        let value = |k: usize| {
            if constant[k] && mean[k].abs() > f64::from(LOST) * largest { mean[k] / largest } else { 0.0 }
        };
        let values = Array2::from_shape_fn((n, 1), |(k, _)| value(k));
        Self { constant, weighed: false, values, profiles: vec![None; n] }
    }

    /// N·d.
    #[must_use]
    pub fn n_joint(&self) -> usize {
        self.constant.len()
    }

    /// Whether M may leave the feature out.
    #[must_use]
    pub fn rests(&self, k: usize) -> bool {
        self.constant[k] && !self.weighed
    }

    /// Whether it is 0 wherever it is read.
    #[must_use]
    pub fn is_dead(&self, k: usize) -> bool {
        self.constant[k] && self.values.row(k).iter().all(|&c| c == 0.0)
    }

    /// How many are 0 wherever they are read, and how many are another constant.
    #[must_use]
    pub fn count(&self) -> (usize, usize) {
        let constant = (0..self.n_joint()).filter(|&k| self.constant[k]);
        let dead = constant.clone().filter(|&k| self.is_dead(k)).count();
        (dead, constant.count() - dead)
    }

    /// `‖c_k‖`, in units of the largest number at each read.
    pub(crate) fn size(&self, k: usize) -> f64 {
        self.values.row(k).dot(&self.values.row(k)).sqrt()
    }

    /// [R](Moments::correlation), and in the place of what it cannot tell, the correlation that two features would have
    /// that are as different as their ranges, and no more: 2⟨p, q⟩ / (‖p‖² + ‖q‖²) of their profiles.
    #[must_use]
    pub fn correlation(&self, moments: &Moments) -> Array2<f32> {
        let mut r = moments.correlation();
        self.compare_profiles(|i, j, x| r[[i, j]] = x as f32);
        r
    }

    /// What a method that makes pairs maximises: [`correlation`](Self::correlation), where a pair with a dead feature
    /// loses nothing and counts 1, two constants count |cos(c, c')|, and any other pair with a constant 0.
    #[must_use]
    pub fn pairing(&self, moments: &Moments) -> Array2<f32> {
        let mut r = self.correlation(moments);
        let n = self.n_joint();
        for k in (0..n).filter(|&k| self.rests(k)) {
            for j in (0..n).filter(|&j| j != k) {
                let x = match (self.is_dead(k) || self.is_dead(j), self.rests(j)) {
                    (true, _) => 1.0,
                    (false, true) => cosine(self.values.row(k), self.values.row(j)).abs().min(1.0),
                    (false, false) => 0.0,
                };
                r[[k, j]] = x as f32;
                r[[j, k]] = x as f32;
            }
        }
        r
    }

    /// Puts the correlations by profiles, times what the others' squares are on average, into inner products; with the
    /// others they have none, or their distances could be negative.
    pub(crate) fn complete(&self, gram: &mut Array2<f64>) {
        let known: Vec<f64> = (0..self.n_joint())
            .filter(|&k| !self.rests(k) && self.profiles[k].is_none())
            .map(|k| gram[[k, k]])
            .collect();
        let scale = if known.is_empty() { 1.0 } else { known.iter().sum::<f64>() / known.len() as f64 };
        for k in (0..self.n_joint()).filter(|&k| self.profiles[k].is_some()) {
            gram.row_mut(k).fill(0.0);
            gram.column_mut(k).fill(0.0);
        }
        self.compare_profiles(|i, j, x| gram[[i, j]] = scale * x);
    }

    /// Cov(z) with rows and columns of zeros for features that may be left out, and of what is known of those that do not
    /// vary where they were measured.
    pub(crate) fn live_covariance(&self, moments: &Moments) -> Array2<f64> {
        let mut covariance = moments.covariance();
        let scale = moments.inverse_std();
        for k in (0..self.n_joint()).filter(|&k| self.rests(k) || scale[k] == 0.0) {
            covariance.row_mut(k).fill(0.0);
            covariance.column_mut(k).fill(0.0);
        }
        self.complete(&mut covariance);
        covariance
    }

    fn compare_profiles(&self, mut put: impl FnMut(usize, usize, f64)) {
        let unseen: Vec<(usize, &Vec<f64>)> =
            self.profiles.iter().enumerate().filter_map(|(k, profile)| Some((k, profile.as_ref()?))).collect();
        for &(i, p) in &unseen {
            for &(j, q) in &unseen {
                let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
                let squares = dot(p, p) + dot(q, q);
                put(i, j, if i == j || squares == 0.0 { 1.0 } else { 2.0 * dot(p, q) / squares });
            }
        }
    }

    /// Up to `most` of the constants whose vectors span the others', the largest remainder first, the lowest among
    /// equals.
    pub(crate) fn carriers(&self, most: usize) -> Vec<usize> {
        let candidates: Vec<usize> = (0..self.n_joint()).filter(|&k| self.rests(k)).collect();
        self.independent(&candidates, most, |_| true)
    }

    /// Greedily: the candidate that is farthest from what those before it span, as long as `take` allows it.
    fn independent(&self, candidates: &[usize], most: usize, mut take: impl FnMut(usize) -> bool) -> Vec<usize> {
        let mut rest = self.values.select(Axis(0), candidates);
        let norm = |row: ArrayView1<'_, f64>| row.dot(&row).sqrt();
        let whole: Vec<f64> = rest.rows().into_iter().map(norm).collect();
        let mut chosen = Vec::new();
        while chosen.len() < most {
            let mut best: Option<(usize, f64)> = None;
            for (at, row) in rest.rows().into_iter().enumerate() {
                let left = norm(row);
                if left > SPANNED * whole[at] && best.is_none_or(|(_, most)| left > most) {
                    best = Some((at, left));
                }
            }
            let Some((at, left)) = best else { break };
            if !take(candidates[at]) {
                rest.row_mut(at).fill(0.0);
                continue;
            }
            chosen.push(candidates[at]);
            let direction = &rest.row(at) / left;
            for mut row in rest.rows_mut() {
                let along = row.dot(&direction);
                row.scaled_add(-along, &direction);
            }
            rest.row_mut(at).fill(0.0);
        }
        chosen
    }

    /// What an `assignment` into `n_groups` groups leaves without weight: constants in a group with features that vary,
    /// and all but one in a group of constants. Features are brought back from carriers in their own block of `width`
    /// groups, where groups stand in blocks.
    #[must_use]
    pub fn resting(&self, assignment: &[u32], n_groups: usize, width: Option<usize>) -> Resting {
        if (0..self.n_joint()).all(|k| !self.rests(k)) {
            return Resting::default();
        }
        let group = |k: usize| assignment[k] as usize;
        let block = |g: usize| width.map_or(0, |width| g / width);
        let mut varies = vec![false; n_groups];
        (0..self.n_joint()).filter(|&k| !self.rests(k)).for_each(|k| varies[group(k)] = true);
        let still: Vec<usize> = (0..self.n_joint()).filter(|&k| self.rests(k) && !varies[group(k)]).collect();
        let mut kept: Vec<Option<usize>> = vec![None; n_groups];
        let mut carriers = Vec::new();
        for b in 0..n_groups.div_ceil(width.unwrap_or(n_groups)) {
            let own: Vec<usize> = still.iter().copied().filter(|&k| block(group(k)) == b).collect();
            carriers.extend(self.independent(&own, usize::MAX, |k| {
                let free = kept[group(k)].is_none();
                if free {
                    kept[group(k)] = Some(k);
                }
                free
            }));
        }
        // What the others are made of already has no carrier, only a place.
        for &k in &still {
            kept[group(k)].get_or_insert(k);
        }
        let mut resting = Resting::default();
        for k in (0..self.n_joint()).filter(|&k| self.rests(k) && kept[group(k)] != Some(k)) {
            let near: Vec<usize> = carriers.iter().copied().filter(|&c| block(group(c)) == block(group(k))).collect();
            let (factors, lost) = self.combination(k, &near);
            let row = near.iter().zip(factors).filter(|(_, x)| *x != 0.0).map(|(&c, x)| (group(c), x)).collect();
            resting.features.push(k);
            resting.rows.push(row);
            resting.lost.push(lost);
        }
        resting
    }

    /// The x that minimises `‖c_k − Cᵀx‖`, C the carriers' rows, and what remains, over `‖c_k‖²`.
    fn combination(&self, k: usize, carriers: &[usize]) -> (Vec<f64>, f64) {
        let own = self.values.row(k);
        let square = own.dot(&own);
        if carriers.is_empty() || square == 0.0 {
            return (vec![0.0; carriers.len()], if square == 0.0 { 0.0 } else { 1.0 });
        }
        let c = self.values.select(Axis(0), carriers);
        let mut x = c.dot(&own).insert_axis(Axis(0));
        let products = c.dot(&c.t());
        let load = 1e-14 * products.diag().sum();
        let Some(factor) = Cholesky::new(products, load) else { return (vec![0.0; carriers.len()], 1.0) };
        factor.solve_rows(&mut x);
        let off = &own - &c.t().dot(&x.row(0));
        (x.into_raw_vec_and_offset().0, off.dot(&off) / square)
    }
}

fn cosine(a: ArrayView1<'_, f64>, b: ArrayView1<'_, f64>) -> f64 {
    let scale = (a.dot(&a) * b.dot(&b)).sqrt();
    if scale > 0.0 { a.dot(&b) / scale } else { 0.0 }
}
