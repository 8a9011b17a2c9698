//! What is measured of a layer's inputs and targets, and the least-squares solution.

use super::design::{Design, store, unknowns};
use crate::cholesky::Cholesky;
use crate::graph::Node;
use crate::{Error, Result, StateDict};
use ndarray::{Array1, Array2, ArrayView2, Axis, Zip};
use serde::{Deserialize, Serialize};

/// Raw moments of a layer's input x and target y over images and positions, in f64, so that they add.
#[derive(Debug, Clone, PartialEq)]
pub struct Sums {
    /// The layer's shape.
    pub design: Design,
    groups: Vec<GroupSums>,
    count: f64,
}

/// Of one group.
#[derive(Debug, Clone, PartialEq)]
struct GroupSums {
    /// Σx, `[F]`.
    x: Array1<f64>,
    /// Σy, `[O]`.
    y: Array1<f64>,
    /// Σxxᵀ, `[F, F]`, the upper triangle.
    xx: Array2<f64>,
    /// Σyxᵀ, `[O, F]`.
    yx: Array2<f64>,
    /// Σy², `[O]`.
    yy: Array1<f64>,
}

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
}

impl Ridge {
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

impl Sums {
    /// Nothing measured yet.
    #[must_use]
    pub fn zeros(design: Design) -> Self {
        let Design { n_groups, n_inputs: f, n_outputs: o } = design;
        let empty = || GroupSums {
            x: Array1::zeros(f),
            y: Array1::zeros(o),
            xx: Array2::zeros((f, f)),
            yx: Array2::zeros((o, f)),
            yy: Array1::zeros(o),
        };
        Self { design, groups: (0..n_groups).map(|_| empty()).collect(), count: 0.0 }
    }

    /// Samples so far: images times positions.
    #[must_use]
    pub fn count(&self) -> f64 {
        self.count
    }

    /// Adds what `n` samples of every group sum up to: Σx `[G, F]`, Σy `[G, O]`, Σxxᵀ `[G, F, F]` (the upper
    /// triangles), Σyxᵀ `[G, O, F]`, Σy² `[G, O]`, each in standard order.
    ///
    /// # Panics
    /// When a slice is of another length.
    pub fn add(&mut self, n: u64, [x, y, xx, yx, yy]: [&[f32]; 5]) {
        self.count += n as f64;
        let vector = |sum: &mut Array1<f64>, part: &[f32]| {
            sum.iter_mut().zip(part).for_each(|(sum, &part)| *sum += f64::from(part));
        };
        let Design { n_groups, n_inputs: f, n_outputs: o } = self.design;
        let lengths = [x, y, xx, yx, yy].map(<[f32]>::len);
        assert_eq!(lengths, [f, o, f * f, o * f, o].map(|n| n * n_groups), "sums of another layer");
        for (g, group) in self.groups.iter_mut().enumerate() {
            vector(&mut group.x, &x[g * f..][..f]);
            vector(&mut group.y, &y[g * o..][..o]);
            vector(&mut group.yy, &yy[g * o..][..o]);
            let yx = ArrayView2::from_shape((o, f), &yx[g * o * f..][..o * f]).expect("as many as [O, F]");
            Zip::from(&mut group.yx).and(&yx).for_each(|sum, &part| *sum += f64::from(part));
            for (i, mut row) in group.xx.rows_mut().into_iter().enumerate() {
                let part = &xx[g * f * f + i * f..][..f];
                let row = row.as_slice_mut().expect("standard layout");
                row[i..].iter_mut().zip(&part[i..]).for_each(|(sum, &part)| *sum += f64::from(part));
            }
        }
    }

    /// Adds what was measured on other images.
    ///
    /// # Panics
    /// When they are of another layer.
    pub fn merge(&mut self, other: &Self) {
        assert_eq!(self.design, other.design, "sums of another layer");
        self.count += other.count;
        for (sum, part) in self.groups.iter_mut().zip(&other.groups) {
            sum.x += &part.x;
            sum.y += &part.y;
            sum.xx += &part.xx;
            sum.yx += &part.yx;
            sum.yy += &part.yy;
        }
    }
}

/// Means and central second moments of one group.
struct Central {
    x: Array1<f64>,
    y: Array1<f64>,
    /// Cov(x), full.
    xx: Array2<f64>,
    /// Cov(y, x).
    yx: Array2<f64>,
    /// Σ Var(y).
    energy: f64,
    /// Mean variance of x.
    scale: f64,
}

impl Central {
    fn new(sums: &GroupSums, count: f64) -> Self {
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
        // Rounding can leave a constant input with less than nothing.
        xx.diag_mut().mapv_inplace(|v| v.max(0.0));
        let mut yx = &sums.yx / count;
        Zip::from(yx.rows_mut()).and(&y).for_each(|mut row, &y| row.scaled_add(-y, &x));
        let energy = Zip::from(&sums.yy).and(&y).fold(0.0, |sum, yy, y| sum + (yy / count - y * y).max(0.0));
        let scale = xx.diag().mean().unwrap_or(0.0);
        Self { x, y, xx, yx, energy, scale }
    }

    /// E‖Wx + b − y‖².
    fn error(&self, w: &Array2<f64>, b: &Array1<f64>) -> f64 {
        let off = w.dot(&self.x) + b - &self.y;
        let spread = (&w.dot(&self.xx) * w).sum();
        (self.energy - 2.0 * (&self.yx * w).sum() + spread + off.dot(&off)).max(0.0)
    }

    /// The solution at λ around `prior`.
    fn solve(&self, prior: &Array2<f64>, ridge: f64) -> Result<(Array2<f64>, Array1<f64>)> {
        let mut w = prior.clone();
        if self.scale > 0.0 {
            let load = ridge * self.scale;
            // Solved for W − W*, so that what the images say nothing about stays W* to the last bit.
            let mut off = &self.yx - &prior.dot(&self.xx);
            let factor = Cholesky::new(self.xx.clone(), load).ok_or_else(|| {
                Error::Numbers(format!(
                    "the inputs' covariance is not positive definite at ridge {ridge:e}: raise the ridge or use more \
                     images"
                ))
            })?;
            factor.solve_rows(&mut off);
            w += &off;
        }
        let b = &self.y - &w.dot(&self.x);
        Ok((w, b))
    }
}

/// Solves a layer on the images of `fitted` and `held_out` together and puts the solution into `node` and `weights`,
/// whose present values are W*.
///
/// With [`Ridge::HeldOut`], λ is the power of ten at which the solution of `fitted` alone does best on `held_out`.
///
/// # Errors
/// [`Error::Numbers`] without images, or for sums that are not finite or give no solution.
///
/// # Panics
/// When the sums are of another layer.
pub fn solve(
    node: &mut Node,
    weights: &mut StateDict,
    fitted: Sums,
    held_out: &Sums,
    ridge: Ridge,
) -> Result<Solution> {
    ridge.validate()?;
    let design = fitted.design;
    assert_eq!(Some(design), Design::of(&node.op), "sums of another layer");
    let named = |what: String| Error::Numbers(format!("`{}`: {what}", node.name));
    let (prior, bias) = unknowns(node, weights);
    let o = design.n_outputs;
    let rows = |g: usize| prior.slice_axis(Axis(0), ndarray::Slice::from(g * o..(g + 1) * o)).to_owned();
    let biases = |g: usize| bias.slice_axis(Axis(0), ndarray::Slice::from(g * o..(g + 1) * o)).to_owned();

    let mut all = fitted;
    let mut chosen = (None, None);
    if let Ridge::HeldOut = ridge
        && all.count > 0.0
        && held_out.count > 0.0
    {
        let parts: Vec<[Central; 2]> = (all.groups.iter().zip(&held_out.groups))
            .map(|(fit, held)| [Central::new(fit, all.count), Central::new(held, held_out.count)])
            .collect();
        let energy: f64 = parts.iter().map(|[_, held]| held.energy).sum();
        let score = |decade: i32| -> Result<f64> {
            let mut error = 0.0;
            for (g, [fit, held]) in parts.iter().enumerate() {
                let (w, b) = fit.solve(&rows(g), 10_f64.powi(decade))?;
                error += held.error(&w, &b);
            }
            Ok(error)
        };
        let (decade, error) = descend(score).map_err(|e| named(e.to_string()))?;
        chosen = (Some(10_f64.powi(decade)), Some(share(error, energy)));
    }
    let ridge = match ridge {
        Ridge::Fixed(ridge) => ridge,
        Ridge::HeldOut => chosen.0.unwrap_or_else(|| 10_f64.powi(FIRST_DECADE)),
    };
    all.merge(held_out);
    if all.count <= 0.0 {
        return Err(named("there are no images to fit it to".into()));
    }
    let (mut w, mut b) = (Array2::zeros(prior.dim()), Array1::zeros(bias.len()));
    let (mut before, mut after, mut energy) = (0.0, 0.0, 0.0);
    for (g, sums) in all.groups.iter().enumerate() {
        let central = Central::new(sums, all.count);
        let own = rows(g);
        let (solved, offset) = central.solve(&own, ridge).map_err(|e| named(e.to_string()))?;
        before += central.error(&own, &biases(g));
        after += central.error(&solved, &offset);
        energy += central.energy;
        w.slice_axis_mut(Axis(0), ndarray::Slice::from(g * o..(g + 1) * o)).assign(&solved);
        b.slice_axis_mut(Axis(0), ndarray::Slice::from(g * o..(g + 1) * o)).assign(&offset);
    }
    if w.iter().chain(&b).any(|x| !x.is_finite()) {
        return Err(named("its solution is not finite; check the models' weights".into()));
    }
    store(node, weights, &w, &b);
    Ok(Solution { ridge, before: share(before, energy), after: share(after, energy), held_out: chosen.1 })
}

/// The decade with the lowest score, downhill from the first one.
fn descend(mut score: impl FnMut(i32) -> Result<f64>) -> Result<(i32, f64)> {
    let mut best = (FIRST_DECADE, score(FIRST_DECADE)?);
    for step in [-1, 1] {
        let mut at = FIRST_DECADE + step;
        while DECADES.contains(&at) {
            // A ridge too small for the rounding of the sums is no candidate.
            let found = score(at).unwrap_or(f64::INFINITY);
            if !(found < best.1) {
                break;
            }
            best = (at, found);
            at += step;
        }
        if best.0 != FIRST_DECADE {
            break;
        }
    }
    Ok(best)
}

fn share(error: f64, energy: f64) -> f64 {
    if energy > 0.0 { error / energy } else { 0.0 }
}
