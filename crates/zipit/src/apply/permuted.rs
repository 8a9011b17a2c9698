//! The same function with its features in another order: what merging must see through.

use super::weights::{gather_groups, n_groups, spread_groups};
use crate::graph::{Op, Segment, Spaces};
use crate::state_dict::{feature_axis_back, feature_rows};
use crate::{Model, Result};
use ndarray::{ArrayD, Axis, IxDyn};
use rand::{SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;
use std::collections::{BTreeMap, BTreeSet};

/// For every space, which feature of the original each feature is.
pub type Orders = Vec<Vec<usize>>;

/// A random order of every free space, blocks as wholes and together with the blocks that belong to them. Spaces that
/// something reads or makes that is not followed stay as they are.
#[must_use]
pub fn random_orders(spaces: &Spaces, seed: u64) -> Orders {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut shuffled = |n: usize| {
        let mut order: Vec<usize> = (0..n).collect();
        order.shuffle(&mut rng);
        order
    };
    let mut families: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    let mut twins: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    let mut orders = Vec::with_capacity(spaces.spaces.len());
    // Blocks move with blocks, so that one ordered space of a kin holds those still.
    let ordered: BTreeSet<usize> = spaces.spaces.iter().filter(|s| s.ordered).map(|s| s.kin).collect();
    for space in &spaces.spaces {
        let still = space.fixed.is_some() || ordered.contains(&space.kin);
        orders.push(match (still, space.blocks) {
            (true, _) => (0..space.dim).collect(),
            (false, None) => shuffled(space.dim),
            (false, Some(blocks)) => {
                let width = space.dim / blocks.count;
                let outer = families.entry(blocks.family).or_insert_with(|| shuffled(blocks.count)).clone();
                let twin = twins.entry(blocks.twin).or_insert_with(|| {
                    outer.iter().flat_map(|&b| shuffled(width).into_iter().map(move |j| b * width + j)).collect()
                });
                twin.clone()
            }
        });
    }
    orders
}

/// The model with every space in the given order; its function stays the same.
///
/// # Errors
/// A model whose graph cannot be analysed.
///
/// # Panics
/// When `orders` are not permutations of the spaces' features.
pub fn permuted(model: &Model, orders: &[Vec<usize>]) -> Result<Model> {
    let spaces = model.graph.spaces()?;
    let mut copy = model.clone();
    for node in &model.graph.nodes {
        let made = moved(&spaces, &node.name, orders);
        if spaces.axes[&node.name].is_empty() {
            continue;
        }
        if let Op::Attention { heads, .. } = node.op {
            let width = made.len() / heads;
            let order: Vec<usize> = made.iter().step_by(width).map(|at| at / width).collect();
            for param in node.op.params().iter().filter(|param| param.shape[1] > 1) {
                if let Some(tensor) = copy.weights.get_mut(&node.tensor(param.name)) {
                    *tensor = tensor.select(Axis(1), &order);
                }
            }
            continue;
        }
        for param in node.op.params() {
            let Some(tensor) = copy.weights.get_mut(&node.tensor(param.name)) else { continue };
            let axis = node.op.feature_axis();
            let mut shape = tensor.shape().to_vec();
            let rows = shape.remove(axis);
            shape.insert(0, rows);
            let own = feature_rows(tensor, axis);
            let matrix = if node.op.mixes() && param.name == "weight" {
                let read = moved(&spaces, &node.inputs[0], orders);
                let groups = n_groups(&node.op);
                // Groups move along both axes at once.
                let whole = spread_groups(own, groups);
                let kernel = whole.ncols() / read.len();
                let columns: Vec<usize> = read.iter().flat_map(|&at| at * kernel..(at + 1) * kernel).collect();
                gather_groups(whole.select(Axis(0), &made).select(Axis(1), &columns), groups)
            } else {
                own.select(Axis(0), &made)
            };
            let numbers = ArrayD::from_shape_vec(IxDyn(&shape), matrix.iter().copied().collect());
            *tensor = feature_axis_back(numbers.expect("as many numbers as before"), axis);
        }
    }
    Ok(copy)
}

/// Which number of the original each number of the value is.
fn moved(spaces: &Spaces, value: &str, orders: &[Vec<usize>]) -> Vec<usize> {
    let mut along = Vec::new();
    let mut offset = 0;
    for &Segment { space, repeat } in &spaces.axes[value] {
        let order = &orders[space];
        along.extend(order.iter().flat_map(|&j| (0..repeat).map(move |r| offset + j * repeat + r)));
        offset += order.len() * repeat;
    }
    match spaces.orders.get(value) {
        None => along,
        Some(order) => {
            let mut at = vec![0; along.len()];
            along.iter().enumerate().for_each(|(k, &from)| at[order[k]] = order[from]);
            at
        }
    }
}
