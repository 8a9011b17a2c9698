//! One group of a layer, as a least-squares problem.

use super::sums::{Part, Sums};
use crate::cholesky::Cholesky;
use crate::moments::DEAD;
use crate::products::product;
use crate::{Error, Result};
use ndarray::{Array1, Array2, Axis, Zip};
use rayon::prelude::*;
use std::sync::Arc;

/// Rows and columns of a matrix that are gone through at once, so that its transpose is read from the cache.
const TILE: usize = 64;

/// Means and central second moments of one group.
#[derive(Debug)]
pub(super) struct Central {
    pub x: Array1<f64>,
    pub y: Array1<f64>,
    /// Cov(x), full.
    xx: Arc<Array2<f64>>,
    /// Cov(y, x).
    pub yx: Array2<f64>,
    /// Σ Var(y).
    pub energy: f64,
    /// Var(y), as measured.
    variances: Array1<f64>,
    /// Mean variance of x.
    pub scale: f64,
    /// Inputs that do not vary.
    constant: Vec<usize>,
}

impl Central {
    pub fn new(sums: &Part) -> Self {
        let count = sums.count.max(f64::MIN_POSITIVE);
        let (x, y) = (&sums.x / count, &sums.y / count);
        let n = x.len();
        let mut xx = Array2::zeros((n, n));
        xx.axis_chunks_iter_mut(Axis(0), TILE).into_par_iter().enumerate().for_each(|(tile, mut rows)| {
            for from in (0..n).step_by(TILE) {
                for (i, mut row) in (tile * TILE..).zip(rows.rows_mut()) {
                    for j in from..n.min(from + TILE) {
                        // Only the upper triangle was summed up.
                        row[j] = sums.xx[[i.min(j), i.max(j)]] / count - x[i.min(j)] * x[i.max(j)];
                    }
                }
            }
        });
        let mut yx = &sums.yx / count;
        Zip::from(yx.rows_mut()).and(&y).for_each(|mut row, &y| row.scaled_add(-y, &x));
        let variances = Zip::from(&sums.yy).and(&y).map_collect(|yy, y| not_negative(yy / count - y * y));
        let [x, y] = [&sums.origin[0] + &x, &sums.origin[1] + &y];
        // What a constant input seems to vary is rounding, and can be less than nothing.
        let is_constant = |&i: &usize| xx[[i, i]] <= DEAD * (xx[[i, i]] + x[i] * x[i]);
        let constant: Vec<usize> = (0..n).filter(is_constant).collect();
        for &i in &constant {
            xx.row_mut(i).fill(0.0);
            xx.column_mut(i).fill(0.0);
        }
        let scale = xx.diag().mean().unwrap_or(0.0);
        let mut central = Self { x, y, xx: xx.into(), yx, energy: variances.sum(), variances, scale, constant };
        central.clear_constant();
        central
    }

    /// Some of its outputs.
    fn restricted(&self, to: &[usize]) -> Self {
        let Self { x, y, xx, yx, variances, scale, constant, .. } = self;
        let (y, variances) = (y.select(Axis(0), to), variances.select(Axis(0), to));
        let (x, xx, yx, constant) = (x.clone(), Arc::clone(xx), yx.select(Axis(0), to), constant.clone());
        Self { x, y, xx, yx, energy: variances.sum(), variances, scale: *scale, constant }
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
    pub fn error_through(&self, w: &Array2<f64>, b: &Array1<f64>, through: &Array2<f64>) -> f64 {
        let off = w.dot(&self.x) + b - &self.y;
        let spread = (through * w).sum();
        not_negative(self.energy - 2.0 * (&self.yx * w).sum() + spread + off.dot(&off))
    }

    /// Cov(x) with λ; `None` where x does not vary.
    pub fn factor(&self, ridge: f64) -> Result<Option<Cholesky>> {
        if self.scale <= 0.0 {
            return Ok(None);
        }
        let singular = || {
            Error::Numbers(format!(
                "the inputs' covariance is not positive definite at ridge {ridge:e}: raise the ridge or use more images"
            ))
        };
        Cholesky::new(Array2::clone(&self.xx), ridge * self.scale).ok_or_else(singular).map(Some)
    }

    /// The solution around `prior`, with Cov(x) factorised, and what is `through` the prior; and what is through the
    /// solution, W Cov(x) = Cov(y, x) − load·(W − W*).
    pub fn solve(
        &self,
        prior: &Array2<f64>,
        through: &Array2<f64>,
        factor: Option<&Cholesky>,
        ridge: f64,
    ) -> (Array2<f64>, Array1<f64>, Array2<f64>) {
        let (mut w, mut through) = (prior.clone(), through.clone());
        if let Some(factor) = factor {
            // Solved for W − W*, so that what the images say nothing about stays W* to the last bit.
            let mut off = &self.yx - &through;
            factor.solve_rows(&mut off);
            w += &off;
            through = &self.yx - off * (ridge * self.scale);
        }
        let b = &self.y - &w.dot(&self.x);
        (w, b, through)
    }
}

/// A group of a layer that is solved, as far as it takes to solve it again for other targets of the same inputs.
#[derive(Debug)]
pub(super) struct System {
    /// Its outputs.
    pub rows: Vec<usize>,
    /// Samples.
    pub count: f64,
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
        (part.count > 0.0).then(|| Self { rows, count: part.count, origin, central: Central::new(part), factor: None })
    }

    /// The rows of its outputs.
    pub fn own(&self, of: &Array2<f64>) -> Array2<f64> {
        of.select(Axis(0), &self.rows)
    }

    /// W* of its outputs, and what is [`through`](Central::through) it.
    pub fn prior(&self, of: &Array2<f64>) -> [Array2<f64>; 2] {
        let own = self.own(of);
        let through = self.central.through(&own);
        [own, through]
    }

    pub fn all(sums: &Sums) -> Vec<Self> {
        sums.parts.iter().filter_map(Self::of).collect()
    }

    /// At most so many of its outputs, evenly chosen, not factorised.
    pub fn some_outputs(&self, most: usize) -> Self {
        let n = self.rows.len();
        let to: Vec<usize> = (0..n.min(most)).map(|at| at * n / n.min(most)).collect();
        let rows = to.iter().map(|&at| self.rows[at]).collect();
        let central = self.central.restricted(&to);
        Self { rows, count: self.count, origin: self.origin.clone(), central, factor: None }
    }

    pub fn factorise(&mut self, ridge: f64) -> Result<()> {
        self.factor = self.central.factor(ridge)?;
        Ok(())
    }

    pub fn keep_factor_alone(&mut self) {
        self.central.xx = Arc::default();
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
pub(super) type Pair = [System; 2];

pub(super) fn pairs(fitted: &Sums, held_out: &Sums) -> Vec<Pair> {
    let both = fitted.parts.iter().zip(&held_out.parts);
    both.filter_map(|(fit, held)| Some([System::of(fit)?, System::of(held)?])).collect()
}

/// Rounding can leave less than nothing; what is no number stays none.
fn not_negative(x: f64) -> f64 {
    if x < 0.0 { 0.0 } else { x }
}

/// Of the targets' variance.
pub(super) fn share(error: f64, energy: f64) -> f64 {
    if energy > 0.0 { error / energy } else { 0.0 }
}
