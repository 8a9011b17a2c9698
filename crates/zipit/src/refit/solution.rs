//! The least-squares solution of a layer, from what was measured.

use super::design::{Design, store_all, unknowns_of_all};
use super::sums::{Part, Sums};
use crate::cholesky::Cholesky;
use crate::graph::Node;
use crate::moments::DEAD;
use crate::products::product;
use crate::{Error, Result, StateDict};
use ndarray::{Array1, Array2, Axis, Zip};
use serde::{Deserialize, Serialize};

/// How strongly the solution is held at W*.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ridge {
    /// The power of ten that predicts the held-out images best, layer by layer.
    HeldOut,
    /// λ, in units of the inputs' mean variance.
    Fixed(f64),
}

/// The powers of ten that are tried.
const DECADES: std::ops::RangeInclusive<i32> = -6..=2;
/// Where the search begins.
const FIRST_DECADE: i32 = -3;
/// A ridge below the first is chosen if it leaves no more than this share of the next larger one's error. On images that
/// are nearly among the fitted ones (frames of a film), the error falls with the ridge for ever, but hardly.
const WORTH_IT: f64 = 0.9;
/// Up to this share of the target's variance, an error is the rounding of the sums: nothing is left to be solved.
const EXACT: f64 = 1e-6;

/// What solving a layer did. Errors are E‖Wx̃ + b − ỹ‖² in units of the target's variance.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Solution {
    /// λ.
    pub ridge: f64,
    /// Of W*.
    pub before: f64,
    /// Of the solution, on the images it was fitted to.
    pub after: f64,
    /// Of the solution of the other images on the held-out ones; `None` where λ was given.
    pub held_out: Option<f64>,
    /// How often it was solved again for what the activation lets through.
    #[serde(default, skip_serializing_if = "is_none")]
    pub rounds: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_none(rounds: &u32) -> bool {
    *rounds == 0
}

impl Ridge {
    /// λ where none is chosen.
    fn first(self) -> f64 {
        match self {
            Self::Fixed(ridge) => ridge,
            Self::HeldOut => 10_f64.powi(FIRST_DECADE),
        }
    }

    /// # Errors
    /// [`Error::Request`] for a λ that is not a positive number.
    pub fn validate(self) -> Result<()> {
        match self {
            Self::Fixed(ridge) if !(ridge.is_finite() && ridge > 0.0) => {
                Err(Error::Request(format!("the ridge of the refit is {ridge}; it must be a positive number")))
            }
            Self::Fixed(_) | Self::HeldOut => Ok(()),
        }
    }
}

/// Sums of ‖Wx + b − y‖² and of the target's variance.
fn error_of(sums: &Sums, w: &Array2<f64>, b: &Array1<f64>) -> [f64; 2] {
    sums.parts.iter().filter(|part| part.count > 0.0).fold([0.0; 2], |[error, energy], part| {
        let central = Central::new(part);
        let off = central.error(&w.select(Axis(0), &part.rows), &b.select(Axis(0), &part.rows));
        [error + part.count * off, energy + part.count * central.energy]
    })
}

/// Means and central second moments of one group.
#[derive(Debug)]
pub(super) struct Central {
    pub x: Array1<f64>,
    pub y: Array1<f64>,
    /// Cov(x), full.
    xx: Array2<f64>,
    /// Cov(y, x).
    pub yx: Array2<f64>,
    /// Σ Var(y).
    pub energy: f64,
    /// Mean variance of x.
    scale: f64,
    /// Inputs that do not vary.
    constant: Vec<usize>,
}

impl Central {
    fn new(sums: &Part) -> Self {
        let count = sums.count.max(f64::MIN_POSITIVE);
        let (x, y) = (&sums.x / count, &sums.y / count);
        let n = x.len();
        let mut xx = Array2::zeros((n, n));
        for i in 0..n {
            for j in i..n {
                let value = sums.xx[[i, j]] / count - x[i] * x[j];
                xx[[i, j]] = value;
                xx[[j, i]] = value;
            }
        }
        let mut yx = &sums.yx / count;
        Zip::from(yx.rows_mut()).and(&y).for_each(|mut row, &y| row.scaled_add(-y, &x));
        let energy = Zip::from(&sums.yy).and(&y).fold(0.0, |sum, yy, y| sum + not_negative(yy / count - y * y));
        let [x, y] = [&sums.origin[0] + &x, &sums.origin[1] + &y];
        // What a constant input seems to vary is rounding, and can be less than nothing.
        let is_constant = |&i: &usize| xx[[i, i]] <= DEAD * (xx[[i, i]] + x[i] * x[i]);
        let constant: Vec<usize> = (0..n).filter(is_constant).collect();
        for &i in &constant {
            xx.row_mut(i).fill(0.0);
            xx.column_mut(i).fill(0.0);
        }
        let scale = xx.diag().mean().unwrap_or(0.0);
        let mut central = Self { x, y, xx, yx, energy, scale, constant };
        central.clear_constant();
        central
    }

    /// Targets do not covary with what is constant.
    fn clear_constant(&mut self) {
        for &i in &self.constant {
            self.yx.column_mut(i).fill(0.0);
        }
    }

    /// The same inputs with other targets: their means, covariances with x, and summed variance.
    pub fn with_targets(&mut self, y: Array1<f64>, yx: Array2<f64>, energy: f64) {
        (self.y, self.yx, self.energy) = (y, yx, energy);
        self.clear_constant();
    }

    /// W Cov(x).
    pub fn through(&self, w: &Array2<f64>) -> Array2<f64> {
        product(w.view(), self.xx.view())
    }

    /// E‖Wx + b − y‖².
    pub fn error(&self, w: &Array2<f64>, b: &Array1<f64>) -> f64 {
        self.error_through(w, b, &self.through(w))
    }

    /// The same where [`through`](Self::through) W is known.
    fn error_through(&self, w: &Array2<f64>, b: &Array1<f64>, through: &Array2<f64>) -> f64 {
        let off = w.dot(&self.x) + b - &self.y;
        let spread = (through * w).sum();
        not_negative(self.energy - 2.0 * (&self.yx * w).sum() + spread + off.dot(&off))
    }

    /// Cov(x) with λ; `None` where x does not vary.
    fn factor(&self, ridge: f64) -> Result<Option<Cholesky>> {
        if self.scale <= 0.0 {
            return Ok(None);
        }
        let singular = || {
            Error::Numbers(format!(
                "the inputs' covariance is not positive definite at ridge {ridge:e}: raise the ridge or use more images"
            ))
        };
        Cholesky::new(self.xx.clone(), ridge * self.scale).ok_or_else(singular).map(Some)
    }

    /// The solution around `prior`, with Cov(x) factorised, and what is `through` the prior.
    fn solve(
        &self,
        prior: &Array2<f64>,
        through: &Array2<f64>,
        factor: Option<&Cholesky>,
    ) -> (Array2<f64>, Array1<f64>) {
        let mut w = prior.clone();
        if let Some(factor) = factor {
            // Solved for W − W*, so that what the images say nothing about stays W* to the last bit.
            let mut off = &self.yx - through;
            factor.solve_rows(&mut off);
            w += &off;
        }
        let b = &self.y - &w.dot(&self.x);
        (w, b)
    }
}

/// A group of a layer that is solved, as far as it takes to solve it again for other targets of the same inputs.
#[derive(Debug)]
pub(super) struct System {
    /// Its outputs.
    pub rows: Vec<usize>,
    /// What the inputs are counted from.
    pub origin: Array1<f64>,
    /// Their moments; Cov(x) only where there is no factor.
    pub central: Central,
    /// Of Cov(x) with λ.
    pub factor: Option<Cholesky>,
}

impl System {
    /// `None` without samples.
    fn of(part: &Part) -> Option<Self> {
        let (rows, origin) = (part.rows.clone(), part.origin[0].clone());
        (part.count > 0.0).then(|| Self { rows, origin, central: Central::new(part), factor: None })
    }

    /// The rows of its outputs.
    fn own(&self, of: &Array2<f64>) -> Array2<f64> {
        of.select(Axis(0), &self.rows)
    }

    /// W* of its outputs, and what is [`through`](Central::through) it.
    fn prior(&self, of: &Array2<f64>) -> [Array2<f64>; 2] {
        let own = self.own(of);
        let through = self.central.through(&own);
        [own, through]
    }

    fn all(sums: &Sums) -> Vec<Self> {
        sums.parts.iter().filter_map(Self::of).collect()
    }

    fn factorise(&mut self, ridge: f64) -> Result<()> {
        self.factor = self.central.factor(ridge)?;
        Ok(())
    }

    fn keep_factor_alone(&mut self) {
        self.central.xx = Array2::zeros((0, 0));
    }

    /// ΔW and Δb of the present targets, held at none.
    pub fn step(&self) -> (Array2<f64>, Array1<f64>) {
        let mut w = self.central.yx.clone();
        match &self.factor {
            Some(factor) => factor.solve_rows(&mut w),
            None => w.fill(0.0),
        }
        let b = &self.central.y - &w.dot(&self.central.x);
        (w, b)
    }
}

/// A group on the fitted and on the held-out images, where there are both; the latter are never factorised.
type Pair = [System; 2];

fn pairs(fitted: &Sums, held_out: &Sums) -> Vec<Pair> {
    let both = fitted.parts.iter().zip(&held_out.parts);
    both.filter_map(|(fit, held)| Some([System::of(fit)?, System::of(held)?])).collect()
}

/// What is left of a layer that is solved: enough to solve it again for other targets of the same inputs.
#[derive(Debug)]
pub struct Systems {
    pub(super) design: Design,
    pub(super) pairs: Vec<Pair>,
    /// Of all images.
    pub(super) all: Vec<System>,
    /// The target's summed variance.
    pub(super) energy: f64,
}

impl Systems {
    /// Of a layer that needs no solution.
    fn of(fitted: Sums, held_out: &Sums, ridge: f64) -> Result<Self> {
        let (design, pairs) = (fitted.design, pairs(&fitted, held_out));
        let mut all = fitted;
        all.merge(held_out);
        let mut all = System::all(&all);
        all.iter_mut().try_for_each(|system| system.factorise(ridge))?;
        Self::new(design, pairs, all, ridge)
    }

    /// `all` is factorised.
    fn new(design: Design, mut pairs: Vec<Pair>, mut all: Vec<System>, ridge: f64) -> Result<Self> {
        pairs.iter_mut().try_for_each(|[fitted, _]| fitted.factorise(ridge))?;
        pairs.iter_mut().map(|[fitted, _]| fitted).chain(&mut all).for_each(System::keep_factor_alone);
        let energy = all.iter().map(|system| system.central.energy).sum();
        Ok(Self { design, pairs, all, energy })
    }
}

/// Solves a layer, or several that write one sum as one, on the images of `fitted` and `held_out` together and puts the
/// solution into `nodes` and `weights`, whose present values are W*, and stay where they already do what they should.
///
/// With [`Ridge::HeldOut`], λ is the power of ten at which the solution of `fitted` alone does best on `held_out`.
///
/// # Errors
/// [`Error::Numbers`] without images, or for sums that are not finite or give no solution.
///
/// # Panics
/// When the sums are of another layer.
pub fn solve(
    nodes: &mut [Node],
    weights: &mut StateDict,
    fitted: Sums,
    held_out: &Sums,
    ridge: Ridge,
) -> Result<Solution> {
    Ok(solve_openly(nodes, weights, fitted, held_out, ridge, false)?.0)
}

/// The same; with `open`, what it takes to solve the layer again comes with it, unless no images are held out or nothing
/// is left to be solved.
///
/// # Errors
/// As [`solve`].
///
/// # Panics
/// As [`solve`].
pub fn solve_openly(
    nodes: &mut [Node],
    weights: &mut StateDict,
    fitted: Sums,
    held_out: &Sums,
    ridge: Ridge,
    open: bool,
) -> Result<(Solution, Option<Systems>)> {
    ridge.validate()?;
    let design = fitted.design;
    assert_eq!(Some(design), Design::of_all(nodes), "sums of another layer");
    let name = names(&*nodes);
    let named = |what: String| Error::Numbers(format!("`{name}`: {what}"));
    let (prior, bias) = unknowns_of_all(nodes, weights);
    if fitted.is_empty() && held_out.is_empty() {
        return Err(named("there are no images to fit it to".into()));
    }
    let both = !fitted.is_empty() && !held_out.is_empty();
    let [error, energy] = [&fitted, held_out]
        .map(|sums| error_of(sums, &prior, &bias))
        .iter()
        .fold([0.0; 2], |s, e| [s[0] + e[0], s[1] + e[1]]);
    if energy > 0.0 && error <= EXACT * energy {
        let (ridge, error) = (ridge.first(), error / energy);
        let (w, b) = (prior, bias);
        store_all(nodes, weights, &w, &b);
        let solution = Solution { ridge, before: error, after: error, held_out: None, rounds: 0 };
        let systems = (open && both).then(|| Systems::of(fitted, held_out, ridge)).transpose();
        return Ok((solution, systems.map_err(|e| named(e.to_string()))?));
    }
    let mut chosen = (None, None);
    let mut apart = None;
    if both && (ridge == Ridge::HeldOut || open) {
        let pairs = pairs(&fitted, held_out);
        if ridge == Ridge::HeldOut {
            let energy: f64 = pairs.iter().map(|[_, held]| held.central.energy).sum();
            let priors: Vec<_> = pairs.iter().map(|[fit, _]| fit.prior(&prior)).collect();
            let score = |decade: i32| -> Result<f64> {
                let mut error = 0.0;
                for ([fit, held], [prior, through]) in pairs.iter().zip(&priors) {
                    let factor = fit.central.factor(10_f64.powi(decade))?;
                    let (w, b) = fit.central.solve(prior, through, factor.as_ref());
                    error += held.central.error(&w, &b);
                }
                Ok(error)
            };
            let (decade, error) = descend(score);
            chosen = (Some(decade), error.is_finite().then(|| share(error, energy)));
        }
        apart = open.then_some(pairs);
    }
    let mut all = fitted;
    if !held_out.is_empty() {
        all.merge(held_out);
    }
    let mut all = System::all(&all);
    let priors: Vec<_> = all.iter().map(|system| system.prior(&prior)).collect();
    let mut solutions = |ridge: f64| -> Result<Vec<(Array2<f64>, Array1<f64>)>> {
        let solve = |(system, [prior, through]): (&mut System, &[Array2<f64>; 2])| {
            system.factorise(ridge)?;
            Ok(system.central.solve(prior, through, system.factor.as_ref()))
        };
        all.iter_mut().zip(&priors).map(solve).collect()
    };
    let (ridge, solved) = match ridge {
        Ridge::Fixed(ridge) => (ridge, solutions(ridge)),
        // All images together may round worse than those that chose it.
        Ridge::HeldOut => {
            let mut decades = (chosen.0.unwrap_or(FIRST_DECADE)..=*DECADES.end()).map(|decade| {
                let ridge = 10_f64.powi(decade);
                (ridge, solutions(ridge))
            });
            let first = decades.next().expect("a decade");
            if first.1.is_ok() { first } else { decades.find(|(_, solved)| solved.is_ok()).unwrap_or(first) }
        }
    };
    let solved = solved.map_err(|e| named(e.to_string()))?;
    let (mut w, mut b) = (prior.clone(), bias.clone());
    let (mut before, mut after, mut energy) = (0.0, 0.0, 0.0);
    for ((system, [prior, through]), (solved, offset)) in all.iter().zip(&priors).zip(solved) {
        before += system.central.error_through(prior, &bias.select(Axis(0), &system.rows), through);
        after += system.central.error(&solved, &offset);
        energy += system.central.energy;
        for (at, &row) in system.rows.iter().enumerate() {
            w.row_mut(row).assign(&solved.row(at));
            b[row] = offset[at];
        }
    }
    if w.iter().chain(&b).any(|x| !x.is_finite()) {
        return Err(named("its solution is not finite; check the models' weights".into()));
    }
    store_all(nodes, weights, &w, &b);
    let solution =
        Solution { ridge, before: share(before, energy), after: share(after, energy), held_out: chosen.1, rounds: 0 };
    let systems = apart.map(|apart| Systems::new(design, apart, all, ridge)).transpose();
    Ok((solution, systems.map_err(|e| named(e.to_string()))?))
}

/// What layers that are solved as one are called.
#[must_use]
pub fn names<'a>(nodes: impl IntoIterator<Item = &'a Node>) -> String {
    nodes.into_iter().map(|node| node.name.as_str()).collect::<Vec<_>>().join(" + ")
}

/// The decade with the lowest score, downhill from the first one, and below it only where that is worth it.
fn descend(score: impl Fn(i32) -> Result<f64>) -> (i32, f64) {
    // A ridge too small for the rounding of the sums is no candidate.
    let score = |decade: i32| score(decade).ok().filter(|error| !error.is_nan()).unwrap_or(f64::INFINITY);
    let mut best = (FIRST_DECADE, score(FIRST_DECADE));
    for step in [-1, 1] {
        let mut at = FIRST_DECADE + step;
        while DECADES.contains(&at) {
            let found = score(at);
            let enough = if step < 0 { WORTH_IT * best.1 } else { best.1 };
            if found >= enough && (best.1.is_finite() || step < 0) {
                break;
            }
            best = (at, found);
            at += step;
        }
        if best.0 != FIRST_DECADE {
            break;
        }
    }
    best
}

/// Rounding can leave less than nothing; what is no number stays none.
fn not_negative(x: f64) -> f64 {
    if x < 0.0 { 0.0 } else { x }
}

fn share(error: f64, energy: f64) -> f64 {
    if energy > 0.0 { error / energy } else { 0.0 }
}
