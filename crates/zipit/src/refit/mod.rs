//! Refit: the layers of a merged network, solved again one after the other (DESIGN §3).
//!
//! With BatchNorm folded, each layer of the merged network that reads x̃ gets
//!
//! `W ← argmin E‖W x̃ + b − ỹ‖² + λ·c·‖W − W*‖²`, ỹ = M·\[y¹; …; yᴺ\],
//!
//! where yⁱ is what model i computes there on the same images, W* is what [`apply`](mod@crate::apply) gives, and c is the
//! mean variance of x̃. Closed form: no labels, no gradients.
//!
//! - [`Layer`]: which layers there are, what each one's target is, and who makes up for whose errors;
//! - [`Design`]: a layer's weights as the unknowns of a least-squares problem;
//! - [`Owners`]: which model is believed on which image, where not all are on all;
//! - [`Positions`]: which samples are enough;
//! - [`Sums`]: what is measured of x̃ and ỹ, and the solution;
//! - [`Rounds`]: the layer solved again for what its activation lets through;
//! - [`Gram`]: the same from second moments that were collected once, without images;
//! - [`Site`], [`Spread`]: REPAIR, a scale and a shift per feature, where all weights are too much.
//!
//! With x̃ = M z this is PLeaS' least squares (Nasery et al., 2024); with identity matching it is RegMean (Jin et al.,
//! ICLR 2023), and in sequence, with the merged network's own x̃, RegMean++.

mod design;
pub mod gram;
mod layers;
mod owners;
mod positions;
mod repair;
mod rounds;
mod search;
mod solution;
mod sums;
mod system;

pub use design::{Design, give_bias};
pub use gram::Gram;
pub use layers::{Clip, Layer, Partner, Rectified, Term, layers, layers_together};
pub use owners::{FOREIGN, Owners};
pub use positions::{Lattice, Positions};
pub use repair::{Rescaled, Site, Spread, rescale, sites};
pub use rounds::{ROUNDS, Residuals, Rounds};
pub use solution::{Ridge, Solution, Systems, names, solve, solve_openly};
pub use sums::Sums;

use crate::apply::{Blended, Grafted, Groups, Heads, graft};
use crate::fold::fold_batch_norm;
use crate::plan::Plan;
use crate::{Error, Graph, Model, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::sync::Arc;

/// What was done to a layer.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Its weights were solved.
    Weights(Solution),
    /// Its features were rescaled.
    Scale(Rescaled),
}

/// The models with BatchNorm folded, and their merge as the plan says: what a refit begins with.
///
/// # Errors
/// As [`apply`](crate::apply::apply).
pub fn graft_folded(models: &[&Model], plan: &Plan, heads: Heads) -> Result<(Vec<Model>, Grafted)> {
    let keep = match models.first() {
        Some(model) => measured_values(&model.graph, plan)?,
        None => BTreeSet::new(),
    };
    let fold = |model: &&Model| -> Result<Model> {
        let (graph, weights) = fold_batch_norm(&model.graph, &model.weights, &keep)?;
        Ok(Model { graph, weights, tasks: model.tasks.clone(), preprocess: model.preprocess.clone(), joint: None })
    };
    let folded = models.iter().map(fold).collect::<Result<Vec<_>>>()?;
    let grafted = graft(&folded.iter().collect::<Vec<_>>(), plan, heads)?;
    Ok((folded, grafted))
}

/// The values at which the plan's points are measured: those that folding must keep, for the points to keep their names.
fn measured_values(graph: &Graph, plan: &Plan) -> Result<BTreeSet<String>> {
    let points = graph.merge_points(&graph.spaces()?);
    let planned = points.into_iter().filter(|point| plan.points.iter().any(|p| p.name == point.name));
    Ok(planned.map(|point| point.measured.value).collect())
}

/// The same merge with targets in which model i's features count `weights[i]` times in each group's average: M of the
/// targets, not of W*. Methods that mix features have no members to weigh and stay as they are.
///
/// # Errors
/// [`Error::Request`] for another number of weights than models, or weights that are not positive.
pub fn weighted(mut grafted: Grafted, weights: &[f64], n_models: usize) -> Result<Grafted> {
    if weights.len() != n_models {
        return Err(Error::Request(format!("{} weights for {n_models} models: give one for each", weights.len())));
    }
    if let Some(bad) = weights.iter().find(|w| !(w.is_finite() && **w > 0.0)) {
        return Err(Error::Request(format!("the weight {bad} is not a positive number")));
    }
    for piece in grafted.origins.iter_mut().flat_map(|origin| &mut origin.blend.pieces) {
        let Blended::Groups(groups) = &piece.made else { continue };
        // What has no weight in the average gets none.
        let weight = |k: usize| if groups.share[k] > 0.0 { weights[k / piece.dim] } else { 0.0 };
        let mut sums = vec![0.0; piece.width];
        groups.of.iter().enumerate().for_each(|(k, &g)| sums[g as usize] += weight(k));
        let share = groups.of.iter().enumerate().map(|(k, &g)| (weight(k) / sums[g as usize]) as f32).collect();
        piece.made = Blended::Groups(Arc::new(Groups { of: groups.of.clone(), share }));
    }
    Ok(grafted)
}
