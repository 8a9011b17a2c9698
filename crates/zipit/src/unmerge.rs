//! How every model's features come back from the merged ones: U ∈ R^{Nd×d'} with M·U = I.
//!
//! M averages the members of each group, by what they count. Products with it are sums over groups, so nothing here
//! multiplies by a dense M. U₀ is the group indicator, = pinv(M) where all count the same; M·U₀ = I always. Letters as in DESIGN §3: z the joint features, G = E\[zzᵀ\] uncentred, and in this file C = G Mᵀ `[Nd, d']` and
//! A = M G Mᵀ `[d', d']`, the second moment of the merged features M z.

use crate::cholesky::Cholesky;
use crate::constants::Resting;
use crate::{Error, Result};
use ndarray::{Array2, ArrayView2, Axis, Slice};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// The smallest ridge that is used. Merged features that are exact multiples of each other leave A singular; with less
/// than this their coefficients would be rounding error.
pub const MINIMAL_RIDGE: f64 = 1e-10;

/// Up to this share of its square, what is lost of a constant is its rounding in f32.
const RESTORED: f64 = 1e-8;

/// The rule that gives U.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "snake_case", deny_unknown_fields)]
pub enum UnmergeRule {
    /// The authors': the group indicator, = pinv(M).
    Pinv,
    /// Best linear reconstruction of z from M z ([`covariance`]).
    Covariance {
        /// λ ≥ 0, in units of the mean diagonal of M G Mᵀ; λ → ∞ gives [`Pinv`](Self::Pinv) back. Below
        /// [`MINIMAL_RIDGE`] it counts as that.
        ridge: f64,
    },
}

impl UnmergeRule {
    /// Checks the parameter.
    ///
    /// # Errors
    /// [`Error::Request`] for a ridge that is negative or not finite.
    pub fn validate(&self) -> Result<()> {
        match *self {
            Self::Covariance { ridge } if !(ridge.is_finite() && ridge >= 0.0) => Err(Error::Request(format!(
                "the ridge of the covariance unmerge is {ridge}; it must be a number of at least 0"
            ))),
            Self::Pinv | Self::Covariance { .. } => Ok(()),
        }
    }
}

/// A merge M that averages the members of every group.
#[derive(Debug, Clone, Copy)]
pub struct Merge<'a> {
    /// Group of each joint feature, `[N·d]`.
    pub assignment: &'a [u32],
    /// d'.
    pub n_groups: usize,
    /// Its entry in M, `[N·d]` ≥ 0; those of a group add up to 1.
    pub shares: &'a [f64],
}

/// The shares of members that count the same.
///
/// # Panics
/// When a group is out of range.
#[must_use]
pub fn equal_shares(assignment: &[u32], n_groups: usize) -> Vec<f64> {
    let mut sizes = vec![0.0_f64; n_groups];
    for &g in assignment {
        sizes[g as usize] += 1.0;
    }
    assignment.iter().map(|&g| sizes[g as usize].recip()).collect()
}

/// An unmerge and how much it loses.
#[derive(Debug, Clone, PartialEq)]
pub struct Unmerge {
    /// U, `[Nd, d']`; `None` is the group indicator.
    pub matrix: Option<Array2<f64>>,
    /// E‖z − U M z‖² / E‖z‖², 0 where z has no energy.
    pub reconstruction_error: f64,
    /// Condition number of the matrix that was solved with, M G Mᵀ + λ·c·I, from below; `None` where none was.
    pub condition: Option<f64>,
}

/// U by the given rule, with its reconstruction error on the same `second_moment` G `[Nd, Nd]`.
///
/// # Errors
/// As [`covariance`].
///
/// # Panics
/// When G is not square, of another size than `assignment`, or a group is out of range or without members.
pub fn unmerge(
    rule: &UnmergeRule,
    second_moment: &Array2<f64>,
    assignment: &[u32],
    n_groups: usize,
) -> Result<Unmerge> {
    weighted(rule, second_moment, Merge { assignment, n_groups, shares: &equal_shares(assignment, n_groups) })
}

/// As [`unmerge`] of members that count differently.
///
/// # Errors
/// As [`covariance`].
///
/// # Panics
/// As [`unmerge`]; when the shares are of another number of features.
pub fn weighted(rule: &UnmergeRule, second_moment: &Array2<f64>, merge: Merge<'_>) -> Result<Unmerge> {
    rule.validate()?;
    let groups = Groups::new(second_moment, merge);
    let c = groups.compress(second_moment);
    let a = groups.average_rows(&c);
    let energy = second_moment.diag().sum();
    let lost_by_indicator = energy - groups.energy_kept(&c, &a);
    match *rule {
        UnmergeRule::Covariance { ridge } if groups.n_joining > 0 && a.diag().sum() > 0.0 => {
            let Solution { u, gained, condition } = solve(&groups, c, a, ridge.max(MINIMAL_RIDGE))?;
            let reconstruction_error = share(lost_by_indicator - gained, energy);
            Ok(Unmerge { matrix: Some(u), reconstruction_error, condition: Some(condition) })
        }
        // Single features come back as they are, and from merged features without energy nothing can.
        UnmergeRule::Pinv | UnmergeRule::Covariance { .. } => {
            Ok(Unmerge { matrix: None, reconstruction_error: share(lost_by_indicator, energy), condition: None })
        }
    }
}

/// As [`weighted`] with features in blocks: those of the merged block b are the groups `b·width` to `(b + 1)·width`, and
/// every feature is brought back from its own block alone.
///
/// # Errors
/// As [`covariance`].
///
/// # Panics
/// As [`weighted`]; when the blocks do not divide the groups.
pub fn in_blocks(rule: &UnmergeRule, second_moment: &Array2<f64>, merge: Merge<'_>, width: usize) -> Result<Unmerge> {
    rule.validate()?;
    let Merge { assignment, n_groups, shares } = merge;
    let mut matrix: Array2<f64> = indicator(assignment, n_groups);
    let (mut lost, mut dense, mut condition) = (0.0, false, None::<f64>);
    for block in 0..n_groups / width {
        let first = block * width;
        let members: Vec<usize> = (0..assignment.len()).filter(|&k| assignment[k] as usize / width == block).collect();
        let own: Vec<u32> = members.iter().map(|&k| assignment[k] - first as u32).collect();
        let g = second_moment.select(Axis(0), &members).select(Axis(1), &members);
        let shares: Vec<f64> = members.iter().map(|&k| shares[k]).collect();
        let found = weighted(rule, &g, Merge { assignment: &own, n_groups: width, shares: &shares })?;
        lost += found.reconstruction_error * g.diag().sum();
        condition = condition.into_iter().chain(found.condition).reduce(f64::max);
        let Some(u) = found.matrix else { continue };
        dense = true;
        for (row, &k) in u.rows().into_iter().zip(&members) {
            matrix.row_mut(k).slice_axis_mut(Axis(0), Slice::from(first..first + width)).assign(&row);
        }
    }
    let energy = second_moment.diag().sum();
    Ok(Unmerge { matrix: dense.then_some(matrix), reconstruction_error: share(lost, energy), condition })
}

/// As [`weighted`], or [`in_blocks`] of `width`, with features that rest: M has no weight for them, so U of the others is
/// what it would be without them, and theirs is what brings their constants back. Where not all of a constant comes back, the
/// covariance rule adds what the features with weight say of it, `(c − U₀A)(A + λcI)⁻¹` in its row.
///
/// # Errors
/// As [`covariance`].
///
/// # Panics
/// As [`in_blocks`]; when a group has only features that rest.
pub fn with_resting(
    rule: &UnmergeRule,
    second_moment: &Array2<f64>,
    merge: Merge<'_>,
    width: Option<usize>,
    resting: &Resting,
) -> Result<Unmerge> {
    let fit = |g: &Array2<f64>, merge: Merge<'_>| match width {
        Some(width) => in_blocks(rule, g, merge, width),
        None => weighted(rule, g, merge),
    };
    if resting.features.is_empty() {
        return fit(second_moment, merge);
    }
    let Merge { assignment, n_groups, shares } = merge;
    let others: Vec<usize> = (0..assignment.len()).filter(|k| resting.features.binary_search(k).is_err()).collect();
    let g = second_moment.select(Axis(0), &others).select(Axis(1), &others);
    let (own, shares): (Vec<u32>, Vec<f64>) = others.iter().map(|&k| (assignment[k], shares[k])).unzip();
    let own = Merge { assignment: &own, n_groups, shares: &shares };
    let fitted = fit(&g, own)?;
    let mut lost = fitted.reconstruction_error * g.diag().sum();
    let mut rows = Array2::zeros((resting.features.len(), n_groups));
    for (mut to, from) in rows.rows_mut().into_iter().zip(&resting.rows) {
        for &(group, factor) in from {
            to[group] = factor;
        }
    }
    let short: Vec<usize> = (0..resting.features.len()).filter(|&r| resting.lost[r] > RESTORED).collect();
    if !short.is_empty() {
        let features: Vec<usize> = short.iter().map(|&r| resting.features[r]).collect();
        let groups = Groups::new(&g, own);
        let a = groups.average_rows(&groups.compress(&g));
        let between = second_moment.select(Axis(0), &features).select(Axis(1), &others);
        let c = groups.average_rows(&between.reversed_axes()).reversed_axes();
        let mut u = rows.select(Axis(0), &short);
        if let (UnmergeRule::Covariance { ridge }, None, true) = (*rule, width, a.diag().sum() > 0.0) {
            let mut x = (&c - &u.dot(&a)).as_standard_layout().into_owned();
            let load = ridge.max(MINIMAL_RIDGE) * a.diag().mean().unwrap_or(0.0);
            factorise(a.clone(), &vec![false; n_groups], load, ridge)?.solve_rows(&mut x);
            u += &x;
        }
        let kept = 2.0 * (&c * &u).sum() - (&u.dot(&a) * &u).sum();
        lost += (features.iter().map(|&k| second_moment[[k, k]]).sum::<f64>() - kept).max(0.0);
        short.iter().zip(u.rows()).for_each(|(&r, u)| rows.row_mut(r).assign(&u));
    }
    let dense = fitted.matrix.is_some() || rows.iter().any(|&x| x != 0.0);
    let matrix = dense.then(|| {
        let mut all = Array2::zeros((assignment.len(), n_groups));
        let own = fitted.matrix.unwrap_or_else(|| indicator(own.assignment, n_groups));
        let places = others.iter().chain(&resting.features);
        places.zip(own.rows().into_iter().chain(rows.rows())).for_each(|(&k, row)| all.row_mut(k).assign(&row));
        all
    });
    let reconstruction_error = share(lost, second_moment.diag().sum());
    Ok(Unmerge { matrix, reconstruction_error, condition: fitted.condition })
}

/// The best linear reconstruction of z from M z under a ridge, `[Nd, d']`:
///
/// `U = U_pinv + (G Mᵀ − U_pinv M G Mᵀ)(M G Mᵀ + λ·c·I)⁻¹`, c the mean diagonal of M G Mᵀ (DESIGN §3).
///
/// - A feature alone in its group comes back as it is, at every λ.
/// - A dead feature comes back as nothing (up to λ), not as its group's average.
/// - A group without energy explains nothing: its column stays the indicator.
/// - Merged features that are multiples of each other share what they explain ([`MINIMAL_RIDGE`] at least).
///
/// ```
/// // z = (x, 3x) with E[x²] = 1, averaged into one feature 2x: the indicator gives (2x, 2x) back, this gives z.
/// let g = ndarray::array![[1.0, 3.0], [3.0, 9.0]];
/// let u = zipit::unmerge::covariance(&g, &[0, 0], 1, 0.0).unwrap();
/// assert!((u[[0, 0]] - 0.5).abs() < 1e-9 && (u[[1, 0]] - 1.5).abs() < 1e-9);
/// ```
///
/// # Errors
/// [`Error::Request`] for a negative λ; [`Error::Numbers`] where M G Mᵀ + λ·c·I is not positive definite, as rounding
/// of G can make it at a small λ, or not finite.
///
/// # Panics
/// As [`unmerge`].
pub fn covariance(second_moment: &Array2<f64>, assignment: &[u32], n_groups: usize, ridge: f64) -> Result<Array2<f64>> {
    let fitted = unmerge(&UnmergeRule::Covariance { ridge }, second_moment, assignment, n_groups)?;
    Ok(fitted.matrix.unwrap_or_else(|| indicator(assignment, n_groups)))
}

/// E‖z − U M z‖² / E‖z‖² of any U `[Nd, d']` (`None`: the group indicator) on any G `[Nd, Nd]`, so that a U can be
/// judged on images it was not fitted to; 0 where z has no energy.
///
/// # Panics
/// As [`unmerge`], or when U has another shape.
#[must_use]
pub fn reconstruction_error(
    second_moment: &Array2<f64>,
    assignment: &[u32],
    n_groups: usize,
    unmerge: Option<ArrayView2<'_, f64>>,
) -> f64 {
    let shares = equal_shares(assignment, n_groups);
    let groups = Groups::new(second_moment, Merge { assignment, n_groups, shares: &shares });
    let c = groups.compress(second_moment);
    let a = groups.average_rows(&c);
    let energy = second_moment.diag().sum();
    let kept = match unmerge {
        None => groups.energy_kept(&c, &a),
        Some(u) => 2.0 * (&c * &u).sum() - (&u.dot(&a) * &u).sum(),
    };
    share(energy - kept, energy)
}

/// As [`unmerge`] for a dense M `[d', Nd]` with its own unmerge U₀ `[Nd, d']`, M·U₀ = I: the rule `pinv` keeps U₀,
/// `covariance` adds `(G Mᵀ − U₀ M G Mᵀ)(M G Mᵀ + λ·c·I)⁻¹` to it, and M·U = I still holds because M times that is 0.
///
/// ```
/// use zipit::unmerge::{UnmergeRule, dense};
/// // One merged feature, the sum of two; z = (x, 3x). U₀ gives the halves back, the covariance rule z itself.
/// let (g, m) = (ndarray::array![[1.0, 3.0], [3.0, 9.0]], ndarray::array![[1.0, 1.0]]);
/// let halves = ndarray::array![[0.5], [0.5]];
/// let u = dense(&UnmergeRule::Covariance { ridge: 0.0 }, &g, &m, &halves).unwrap().matrix.unwrap();
/// assert!((u[[0, 0]] - 0.25).abs() < 1e-9 && (u[[1, 0]] - 0.75).abs() < 1e-9);
/// ```
///
/// # Errors
/// As [`covariance`].
///
/// # Panics
/// When the shapes do not fit each other.
pub fn dense(
    rule: &UnmergeRule,
    second_moment: &Array2<f64>,
    merge: &Array2<f64>,
    own: &Array2<f64>,
) -> Result<Unmerge> {
    rule.validate()?;
    let (n_groups, n) = merge.dim();
    assert_eq!((second_moment.dim(), own.dim()), ((n, n), (n, n_groups)), "M, U and G of different sizes");
    let c = second_moment.dot(&merge.t());
    let a = merge.dot(&c);
    let energy = second_moment.diag().sum();
    let mut u = own.clone();
    let mut measured = None;
    if let UnmergeRule::Covariance { ridge } = *rule
        && a.diag().sum() > 0.0
    {
        let load = ridge.max(MINIMAL_RIDGE) * a.diag().mean().unwrap_or(0.0);
        let dead = vec![false; n_groups];
        let mut x = &c - &own.dot(&a);
        let factor = factorise(a.clone(), &dead, load, ridge)?;
        factor.solve_rows(&mut x);
        measured = Some(factor.condition());
        u += &x;
    }
    if u.iter().any(|u| !u.is_finite()) {
        return Err(Error::Numbers("the unmerge of dense maps is not finite: raise the ridge".into()));
    }
    let kept = 2.0 * (&c * &u).sum() - (&u.dot(&a) * &u).sum();
    Ok(Unmerge { matrix: Some(u), reconstruction_error: share(energy - kept, energy), condition: measured })
}

/// pinv(M) `[Nd, d']`: row k is the unit vector of k's group.
#[must_use]
pub fn indicator<T: Copy + From<u8>>(assignment: &[u32], n_groups: usize) -> Array2<T> {
    Array2::from_shape_fn((assignment.len(), n_groups), |(k, g)| u8::from(assignment[k] as usize == g).into())
}

fn share(lost: f64, energy: f64) -> f64 {
    if energy > 0.0 { (lost / energy).max(0.0) } else { 0.0 }
}

/// M as an index: who is in which group.
struct Groups<'a> {
    assignment: &'a [u32],
    shares: &'a [f64],
    /// Members per group.
    sizes: Vec<f64>,
    /// Of each group the member that counts most, the lowest among equals.
    leads: Vec<usize>,
    /// Features that do not lead.
    n_joining: usize,
}

impl<'a> Groups<'a> {
    fn new(second_moment: &Array2<f64>, merge: Merge<'a>) -> Self {
        let Merge { assignment, n_groups, shares } = merge;
        let n = assignment.len();
        assert_eq!(second_moment.dim(), (n, n), "the second moment is of another number of features");
        assert_eq!(shares.len(), n, "shares of another number of features");
        let mut sizes = vec![0.0; n_groups];
        let mut leads: Vec<Option<usize>> = vec![None; n_groups];
        for (k, &g) in assignment.iter().enumerate() {
            sizes[g as usize] += 1.0;
            let lead = &mut leads[g as usize];
            if lead.is_none_or(|lead| shares[k] > shares[lead]) {
                *lead = Some(k);
            }
        }
        assert!(leads.iter().all(Option::is_some), "a group has no members");
        let leads = leads.into_iter().flatten().collect();
        Self { assignment, shares, sizes, leads, n_joining: n - n_groups }
    }

    fn leads(&self, k: usize) -> bool {
        self.leads[self.assignment[k] as usize] == k
    }

    /// C = G Mᵀ.
    fn compress(&self, second_moment: &Array2<f64>) -> Array2<f64> {
        let mut c = Array2::zeros((self.assignment.len(), self.sizes.len()));
        c.axis_iter_mut(Axis(0)).into_par_iter().zip(second_moment.axis_iter(Axis(0))).for_each(|(mut row, g)| {
            for ((&group, share), g) in self.assignment.iter().zip(self.shares).zip(g) {
                row[group as usize] += share * g;
            }
        });
        c
    }

    /// M applied from the left.
    fn average_rows(&self, rows: &Array2<f64>) -> Array2<f64> {
        let mut averages = Array2::zeros((self.sizes.len(), rows.ncols()));
        for ((&group, &share), row) in self.assignment.iter().zip(self.shares).zip(rows.rows()) {
            averages.row_mut(group as usize).scaled_add(share, &row);
        }
        averages
    }

    /// What the indicator brings back, E‖z‖² − E‖z − U₀ M z‖² = 2 tr(U₀ᵀC) − tr(U₀ A U₀ᵀ).
    fn energy_kept(&self, c: &Array2<f64>, a: &Array2<f64>) -> f64 {
        let along: f64 = self.assignment.iter().enumerate().map(|(k, &group)| c[[k, group as usize]]).sum();
        2.0 * along - a.diag().iter().zip(&self.sizes).map(|(a, size)| a * size).sum::<f64>()
    }
}

/// What the covariance rule solved.
struct Solution {
    u: Array2<f64>,
    /// By how much it lowers E‖z − U M z‖² below what the indicator leaves.
    gained: f64,
    condition: f64,
}

/// `U = U_pinv + X` with `X (A + λcI) = C − U_pinv A`.
///
/// M X = 0, so in each group the row of the member that counts most follows from the others', and only those are solved
/// for: M·U = I then holds to the last bits, whatever the condition of A.
fn solve(groups: &Groups<'_>, c: Array2<f64>, a: Array2<f64>, ridge: f64) -> Result<Solution> {
    let n_groups = groups.sizes.len();
    let load = ridge * a.diag().mean().unwrap_or(0.0);
    let dead: Vec<bool> = a.diag().iter().map(|&energy| energy <= 0.0).collect();
    // What the indicator leaves of each feature, times the merged features: E = C − U_pinv A.
    let mut e = c;
    for (mut row, &group) in e.rows_mut().into_iter().zip(groups.assignment) {
        row -= &a.row(group as usize);
        row.iter_mut().zip(&dead).filter(|(_, dead)| **dead).for_each(|(x, _)| *x = 0.0);
    }
    let mut x = Array2::zeros((groups.n_joining, n_groups));
    let joining = e.rows().into_iter().enumerate().filter(|(k, _)| !groups.leads(*k));
    for (mut x, (_, e)) in x.rows_mut().into_iter().zip(joining) {
        x.assign(&e);
    }
    let factor = factorise(a, &dead, load, ridge)?;
    factor.solve_rows(&mut x);
    let condition = factor.condition();
    let mut u = Array2::zeros(e.dim());
    let mut solved = x.rows().into_iter();
    for (k, &group) in groups.assignment.iter().enumerate().filter(|(k, _)| !groups.leads(*k)) {
        let lead = groups.leads[group as usize];
        if let Some(x) = solved.next() {
            u.row_mut(k).assign(&x);
            u.row_mut(lead).scaled_add(-groups.shares[k] / groups.shares[lead], &x);
        }
    }
    drop(x);
    let gained = (&u * &e).sum() + load * u.iter().map(|u| u * u).sum::<f64>();
    for (k, &group) in groups.assignment.iter().enumerate() {
        u[[k, group as usize]] += 1.0;
    }
    if !gained.is_finite() || u.iter().any(|u| !u.is_finite()) {
        return Err(Error::Numbers(format!("the covariance unmerge at ridge {ridge} is not finite: raise the ridge")));
    }
    Ok(Solution { u, gained, condition })
}

/// The factor of A + load·I; dead groups are made independent of the others.
fn factorise(mut a: Array2<f64>, dead: &[bool], load: f64, ridge: f64) -> Result<Cholesky> {
    for (g, _) in dead.iter().enumerate().filter(|(_, dead)| **dead) {
        a.row_mut(g).fill(0.0);
        a.column_mut(g).fill(0.0);
        // A dead group's own number may be any; the mean energy leaves the condition alone.
        a[[g, g]] = load / ridge;
    }
    Cholesky::new(a, load).ok_or_else(|| {
        Error::Numbers(format!(
            "the merged features' second moment is not positive definite at ridge {ridge}: \
                 raise the ridge (to 0.001, say) or measure more images"
        ))
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use ndarray::array;

    fn close(a: &Array2<f64>, b: &Array2<f64>, tolerance: f64) -> bool {
        a.dim() == b.dim() && a.iter().zip(b).all(|(a, b)| (a - b).abs() <= tolerance)
    }

    #[test]
    fn a_feature_alone_in_its_group_comes_back_as_it_is() {
        let g = array![[2.0, 0.5, 0.3], [0.5, 1.0, 0.9], [0.3, 0.9, 1.0]];
        let u = covariance(&g, &[0, 1, 1], 2, 0.1).unwrap();
        assert_eq!(u.row(0), array![1.0, 0.0]);
        // The pair's difference correlates with feature 0, so its members read it.
        assert!(u[[1, 0]].abs() > 1e-3 && (u[[1, 0]] + u[[2, 0]]).abs() < 1e-15);
    }

    #[test]
    fn a_dead_feature_comes_back_as_nothing() {
        let g = array![[4.0, 0.0], [0.0, 0.0]];
        let u = covariance(&g, &[0, 0], 1, 0.0).unwrap();
        assert!(close(&u, &array![[2.0], [0.0]], 1e-8), "{u}");
        assert!(reconstruction_error(&g, &[0, 0], 1, Some(u.view())) < 1e-9);
        assert!((reconstruction_error(&g, &[0, 0], 1, None) - 0.5).abs() < 1e-15);
    }

    #[test]
    fn a_dead_group_stays_the_indicator_and_harms_nobody() {
        let mut g = Array2::zeros((4, 4));
        g[[0, 0]] = 1.0;
        g[[1, 1]] = 1.0;
        let u = covariance(&g, &[0, 0, 1, 1], 2, 0.0).unwrap();
        assert_eq!(u, indicator::<f64>(&[0, 0, 1, 1], 2));
        let nothing = unmerge(&UnmergeRule::Covariance { ridge: 0.0 }, &Array2::zeros((2, 2)), &[0, 0], 1).unwrap();
        assert_eq!(nothing, Unmerge { matrix: None, reconstruction_error: 0.0, condition: None });
    }

    #[test]
    fn duplicate_groups_at_ridge_zero_stay_finite_and_exact() {
        // z = (x, 3x, x, 3x), grouped as (x, 3x), (x, 3x): two merged features that are the same.
        let v = array![[1.0], [3.0], [1.0], [3.0]];
        let g = v.dot(&v.t());
        let assignment = [0, 0, 1, 1];
        let u = covariance(&g, &assignment, 2, 0.0).unwrap();
        assert!(u.iter().all(|u| u.abs() < 10.0), "{u}");
        assert!(reconstruction_error(&g, &assignment, 2, Some(u.view())) < 1e-9);
    }

    #[test]
    fn the_condition_is_that_of_what_is_solved() {
        // Two pairs of twins with energies 9 and 1: A is diag(9, 1), loaded with 0.1·5.
        let mut g = Array2::zeros((4, 4));
        for (i, j) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            g[[i, j]] = 9.0;
            g[[i + 2, j + 2]] = 1.0;
        }
        let condition = |ridge| {
            let rule = UnmergeRule::Covariance { ridge };
            unmerge(&rule, &g, &[0, 0, 1, 1], 2).unwrap().condition.unwrap()
        };
        assert!((condition(0.1) - 9.5 / 1.5).abs() < 1e-6, "{}", condition(0.1));
        assert!((condition(0.0) - 9.0).abs() < 1e-6, "{}", condition(0.0));
        assert_eq!(unmerge(&UnmergeRule::Pinv, &g, &[0, 0, 1, 1], 2).unwrap().condition, None);
    }

    #[test]
    fn an_indefinite_second_moment_is_an_error_with_advice() {
        let g = array![[1.0, 0.0, 2.0], [0.0, 1.0, 2.0], [2.0, 2.0, 1.0]];
        let message = covariance(&g, &[0, 0, 1], 2, 0.0).unwrap_err().to_string();
        assert!(message.contains("raise the ridge"), "{message}");
        assert!(covariance(&g, &[0, 0, 1], 2, 10.0).is_ok());
        assert!(matches!(covariance(&g, &[0, 0, 1], 2, -1.0), Err(Error::Request(_))));
        assert!(matches!(covariance(&g, &[0, 0, 1], 2, f64::NAN), Err(Error::Request(_))));
    }
}
