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
//! - [`Sums`]: what is measured of x̃ and ỹ, and the solution.
//!
//! With x̃ = M z this is PLeaS' least squares (Nasery et al., 2024); with identity matching it is RegMean (Jin et al.,
//! ICLR 2023), and in sequence, with the merged network's own x̃, RegMean++.

mod design;
mod layers;
mod sums;

pub use design::{Design, give_bias};
pub use layers::{Layer, Term, layers};
pub use sums::{Ridge, Solution, Sums, solve};

use crate::apply::{Grafted, Heads, graft};
use crate::fold::fold_batch_norm;
use crate::plan::Plan;
use crate::{Model, Result};
use std::collections::BTreeSet;

/// The models with BatchNorm folded, and their merge as the plan says: what a refit begins with.
///
/// # Errors
/// As [`apply`](crate::apply::apply).
pub fn graft_folded(models: &[&Model], plan: &Plan, heads: Heads) -> Result<(Vec<Model>, Grafted)> {
    let keep: BTreeSet<String> = plan.points.iter().map(|point| point.name.clone()).collect();
    let fold = |model: &&Model| -> Result<Model> {
        let (graph, weights) = fold_batch_norm(&model.graph, &model.weights, &keep)?;
        Ok(Model { graph, weights, tasks: model.tasks.clone(), preprocess: model.preprocess.clone() })
    };
    let folded = models.iter().map(fold).collect::<Result<Vec<_>>>()?;
    let grafted = graft(&folded.iter().collect::<Vec<_>>(), plan, heads)?;
    Ok((folded, grafted))
}
