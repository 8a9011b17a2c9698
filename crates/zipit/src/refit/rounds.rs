//! A layer solved again for what its activation lets through.
//!
//! What a ReLU cuts off costs nothing: with p = W x̃ + b what the layer computes (beside what else is added there) and
//! t = M·relu(\[y¹; …; yᴺ\]) what should come through, the residual is r = t − p where t is lit or p is, and 0 where both are
//! dark. Solving for r moves W by ΔW = Cov(r, x̃)·(Cov(x̃) + λ)⁻¹: a majorisation of E‖relu(p) − t‖² (Zhang, Zou, He and Sun
//! 2015, for one network). The inputs stay, so the factor does, and a round costs one pass over the images.

use super::design::{Design, store_all, unknowns_of_all};
use super::solution::{Systems, names};
use super::system::System;
use crate::graph::Node;
use crate::{Error, Result, StateDict};
use ndarray::{Array1, Array2, ArrayView2, Axis};

/// How often a layer is solved again, at most, unless told otherwise.
pub const ROUNDS: u32 = 2;
/// Up to this share of the target's standard deviation above (or below) where it is cut, a target is dark.
const DARK: f64 = 1e-3;
/// A round is kept if it leaves no more than this share of the held-out residual.
const WORTH_IT: f64 = 0.999;
/// Up to this share of the target's variance, a residual is rounding.
const EXACT: f64 = 1e-6;

/// Sums of a layer's residuals r and what it reads x over images and positions, in f64.
#[derive(Debug, Clone)]
pub struct Residuals {
    design: Design,
    /// Of the fitted and of the held-out images.
    sums: [Sum; 2],
}

#[derive(Debug, Clone)]
struct Sum {
    count: f64,
    /// Σr, `[G·O]`.
    r: Array1<f64>,
    /// Σrxᵀ, x counted from the sums' origin, `[G·O, F]`.
    rx: Array2<f64>,
    /// Σr², `[G·O]`.
    rr: Array1<f64>,
}

impl Residuals {
    /// Nothing measured yet.
    #[must_use]
    pub fn zeros(design: Design) -> Self {
        let Design { n_groups, n_inputs, n_outputs } = design;
        let n = n_groups * n_outputs;
        let sum = Sum { count: 0.0, r: Array1::zeros(n), rx: Array2::zeros((n, n_inputs)), rr: Array1::zeros(n) };
        Self { design, sums: [sum.clone(), sum] }
    }

    /// Adds what `n` samples of every group sum up to: Σr `[G, O]`, Σrxᵀ `[G, O, F]`, Σr² `[G, O]`, in standard order; of
    /// held-out images or of the others.
    ///
    /// # Panics
    /// When a slice is of another length.
    pub fn add(&mut self, held_out: bool, n: u64, [r, rx, rr]: [&[f64]; 3]) {
        let sum = &mut self.sums[usize::from(held_out)];
        sum.count += n as f64;
        let (rows, inputs) = sum.rx.dim();
        assert_eq!([r.len(), rx.len(), rr.len()], [rows, rows * inputs, rows], "residuals of another layer");
        sum.r.iter_mut().zip(r).for_each(|(sum, &part)| *sum += part);
        sum.rr.iter_mut().zip(rr).for_each(|(sum, &part)| *sum += part);
        sum.rx += &ArrayView2::from_shape((rows, inputs), rx).expect("as many as [G·O, F]");
    }
}

impl Sum {
    fn of_both([a, b]: &[Self; 2]) -> Self {
        Self { count: a.count + b.count, r: &a.r + &b.r, rx: &a.rx + &b.rx, rr: &a.rr + &b.rr }
    }

    /// E‖r‖² of some rows.
    fn error(&self, rows: &[usize]) -> f64 {
        rows.iter().map(|&row| self.rr[row]).sum::<f64>() / self.count.max(f64::MIN_POSITIVE)
    }

    /// The system with r for its target.
    fn aim(&self, system: &mut System) {
        let count = self.count.max(f64::MIN_POSITIVE);
        let mean = self.r.select(Axis(0), &system.rows) / count;
        let mut rx = self.rx.select(Axis(0), &system.rows) / count;
        let from_origin = &system.central.x - &system.origin;
        for (mut row, &r) in rx.rows_mut().into_iter().zip(&mean) {
            row.scaled_add(-r, &from_origin);
        }
        let energy = (self.error(&system.rows) - mean.dot(&mean)).max(0.0);
        system.central.with_targets(mean, rx, energy);
    }
}

/// A layer that is solved and can be solved again.
#[derive(Debug)]
pub struct Rounds {
    systems: Systems,
}

impl Rounds {
    /// Of a layer that was solved openly.
    #[must_use]
    pub fn new(systems: Systems) -> Self {
        Self { systems }
    }

    /// The layer's shape.
    #[must_use]
    pub fn design(&self) -> Design {
        self.systems.design
    }

    /// What x is counted from, `[G·F]`.
    #[must_use]
    pub fn origin(&self) -> Vec<f32> {
        let Design { n_groups, n_inputs, n_outputs } = self.systems.design;
        let mut origin = vec![0.0; n_groups * n_inputs];
        for system in &self.systems.all {
            let from = system.rows[0] / n_outputs * n_inputs;
            origin[from..from + n_inputs].iter_mut().zip(&system.origin).for_each(|(to, &x)| *to = x as f32);
        }
        origin
    }

    /// How far from where it is cut a target is dark.
    #[must_use]
    pub fn dark(&self) -> f32 {
        let Design { n_groups, n_outputs, .. } = self.systems.design;
        (DARK * (self.systems.energy / (n_groups * n_outputs) as f64).sqrt()) as f32
    }

    /// Moves the layer's weights, from those that `residuals` were measured with, where the same step on the fitted images
    /// alone leaves less of the held-out ones' residuals. Gives whether it did.
    ///
    /// # Errors
    /// [`Error::Numbers`] for sums that are not finite.
    ///
    /// # Panics
    /// When the residuals are of another layer.
    pub fn take(&mut self, nodes: &[Node], weights: &mut StateDict, residuals: &Residuals) -> Result<bool> {
        let Systems { design, pairs, all, energy } = &mut self.systems;
        assert_eq!(*design, residuals.design, "residuals of another layer");
        let [fit, held] = &residuals.sums;
        if fit.count <= 0.0 || held.count <= 0.0 {
            return Ok(false);
        }
        let [mut before, mut after] = [0.0; 2];
        for [system, judge] in pairs {
            fit.aim(system);
            held.aim(judge);
            let (w, b) = system.step();
            before += held.error(&judge.rows);
            after += judge.central.error(&w, &b);
        }
        if before.is_nan() || after.is_nan() {
            return Err(Error::Numbers(format!("`{}`: its residuals are not finite", names(nodes))));
        }
        // Per sample: below, it is the rounding of what is measured.
        if before <= EXACT * *energy || after >= WORTH_IT * before {
            return Ok(false);
        }
        let (mut w, mut b) = unknowns_of_all(nodes, weights);
        let both = Sum::of_both(&residuals.sums);
        for system in all {
            both.aim(system);
            let (step, offset) = system.step();
            for (at, &row) in system.rows.iter().enumerate() {
                w.row_mut(row).scaled_add(1.0, &step.row(at));
                b[row] += offset[at];
            }
        }
        if w.iter().chain(&b).any(|x| !x.is_finite()) {
            return Err(Error::Numbers(format!("`{}`: its solution is not finite", names(nodes))));
        }
        store_all(&mut nodes.to_vec(), weights, &w, &b);
        Ok(true)
    }
}
