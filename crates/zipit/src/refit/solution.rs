//! The least-squares solution of a layer, from what was measured.

use super::design::{Design, store_all, unknowns_of_all};
use super::search::{FIRST_DECADE, LAST_DECADE, choose};
use super::sums::Sums;
use super::system::{Pair, System, pairs, share};
use crate::graph::Node;
use crate::{Error, Result, StateDict};
use ndarray::{Array2, Axis};
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
    /// Of the solution of the other images on the held-out ones, of some of the outputs where these are many; `None` where
    /// λ was given.
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
    /// `all` is factorised with `ridge`, and so is what is fitted of the pairs if that is what it was chosen by.
    fn new(design: Design, mut pairs: Vec<Pair>, mut all: Vec<System>, ridge: f64, chosen: bool) -> Result<Self> {
        if !chosen {
            pairs.iter_mut().try_for_each(|[fitted, _]| fitted.factorise(ridge))?;
        }
        pairs.iter_mut().map(|[fitted, _]| fitted).chain(&mut all).for_each(System::keep_factor_alone);
        let energy = all.iter().map(|system| system.central.energy).sum();
        Ok(Self { design, pairs, all, energy })
    }
}

/// Solves a layer, or several that write one sum as one, on the fitted and the held-out images together, whose `sums` these
/// are in that order, and puts the solution into `nodes` and `weights`, whose present values are W*, and stay where they
/// already do what they should.
///
/// With [`Ridge::HeldOut`], λ is the power of ten at which the solution of the fitted images alone does best on the others.
///
/// # Errors
/// [`Error::Numbers`] without images, or for sums that are not finite or give no solution.
///
/// # Panics
/// When the sums are of another layer.
pub fn solve(nodes: &mut [Node], weights: &mut StateDict, sums: [Sums; 2], ridge: Ridge) -> Result<Solution> {
    Ok(solve_openly(nodes, weights, sums, ridge, None, false)?.0)
}

/// The same; the search for a ridge may begin `near` that of a layer of its shape. With `open`, what it takes to solve the
/// layer again comes with it, unless no images are held out or nothing is left to be solved.
///
/// # Errors
/// As [`solve`].
///
/// # Panics
/// As [`solve`].
pub fn solve_openly(
    nodes: &mut [Node],
    weights: &mut StateDict,
    [fitted, held_out]: [Sums; 2],
    ridge: Ridge,
    near: Option<f64>,
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
    let mut apart = (both && (ridge == Ridge::HeldOut || open)).then(|| pairs(&fitted, &held_out));
    let mut all = {
        let mut all = fitted;
        if !held_out.is_empty() {
            all.merge(&held_out);
        }
        // Sums of wide layers are large.
        drop(held_out);
        System::all(&all)
    };
    let priors: Vec<_> = all.iter().map(|system| system.prior(&prior)).collect();
    let errors = all.iter().zip(&priors).map(|(system, [prior, through])| {
        system.central.error_through(prior, &bias.select(Axis(0), &system.rows), through)
    });
    let errors: Vec<f64> = errors.collect();
    let sum = |of: &dyn Fn((&System, &f64)) -> f64| all.iter().zip(&errors).map(of).sum::<f64>();
    let [off, varies] = [sum(&|(system, error)| system.count * error), sum(&|(s, _)| s.count * s.central.energy)];
    if varies > 0.0 && off <= EXACT * varies {
        let (ridge, error) = (ridge.first(), off / varies);
        store_all(nodes, weights, &prior, &bias);
        let solution = Solution { ridge, before: error, after: error, held_out: None, rounds: 0 };
        let systems = apart.filter(|_| open).map(|apart| {
            all.iter_mut().try_for_each(|system| system.factorise(ridge))?;
            Systems::new(design, apart, all, ridge, false)
        });
        return Ok((solution, systems.transpose().map_err(|e: Error| named(e.to_string()))?));
    }
    let energy: f64 = all.iter().map(|system| system.central.energy).sum();
    let (mut decade, mut held_out) = (None, None);
    if let Some(pairs) = apart.as_mut().filter(|_| ridge == Ridge::HeldOut) {
        let (chosen, off) = choose(pairs, &prior, near);
        decade = Some(chosen);
        held_out = off.is_finite().then_some(off);
    }
    let apart = apart.filter(|_| open);
    let mut solutions = |ridge: f64| -> Result<Vec<_>> {
        let solve = |(system, [prior, through]): (&mut System, &[Array2<f64>; 2])| {
            system.factorise(ridge)?;
            Ok(system.central.solve(prior, through, system.factor.as_ref(), ridge))
        };
        all.iter_mut().zip(&priors).map(solve).collect()
    };
    let power = |decade: i32| 10_f64.powi(decade);
    let (ridge, solved) = match ridge {
        Ridge::Fixed(ridge) => (ridge, solutions(ridge)),
        // All images together may round worse than those that chose it.
        Ridge::HeldOut => {
            let decades = decade.unwrap_or(FIRST_DECADE)..=LAST_DECADE;
            let mut decades = decades.map(|decade| (power(decade), solutions(power(decade))));
            let first = decades.next().expect("a decade");
            if first.1.is_ok() { first } else { decades.find(|(_, solved)| solved.is_ok()).unwrap_or(first) }
        }
    };
    let solved = solved.map_err(|e| named(e.to_string()))?;
    let (mut w, mut b) = (prior, bias);
    let mut after = 0.0;
    for (system, (solved, offset, through)) in all.iter().zip(solved) {
        after += system.central.error_through(&solved, &offset, &through);
        for (at, &row) in system.rows.iter().enumerate() {
            w.row_mut(row).assign(&solved.row(at));
            b[row] = offset[at];
        }
    }
    if w.iter().chain(&b).any(|x| !x.is_finite()) {
        return Err(named("its solution is not finite; check the models' weights".into()));
    }
    store_all(nodes, weights, &w, &b);
    let before = share(errors.iter().sum(), energy);
    let solution = Solution { ridge, before, after: share(after, energy), held_out, rounds: 0 };
    let is_chosen = held_out.is_some() && decade.is_some_and(|decade| power(decade).to_bits() == ridge.to_bits());
    let systems = apart.map(|apart| Systems::new(design, apart, all, ridge, is_chosen)).transpose();
    Ok((solution, systems.map_err(|e| named(e.to_string()))?))
}

/// What layers that are solved as one are called.
#[must_use]
pub fn names<'a>(nodes: impl IntoIterator<Item = &'a Node>) -> String {
    nodes.into_iter().map(|node| node.name.as_str()).collect::<Vec<_>>().join(" + ")
}
