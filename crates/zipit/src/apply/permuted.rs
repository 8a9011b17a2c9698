//! The same function with its features in another order: what merging must see through.

use crate::graph::{Segment, Spaces};
use crate::state_dict::{feature_axis_back, feature_rows};
use crate::{Model, Result};
use ndarray::{Axis, IxDyn};
use rand::{SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;

/// For every space, which feature of the original each feature is.
pub type Orders = Vec<Vec<usize>>;

/// A random order of every free space, blocks as wholes and together with the blocks that belong to them.
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
    for space in &spaces.spaces {
        orders.push(match (space.fixed, space.blocks) {
            (Some(_), _) => (0..space.dim).collect(),
            (None, None) => shuffled(space.dim),
            (None, Some(blocks)) => {
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
        for param in node.op.params() {
            let Some(tensor) = copy.weights.get_mut(&node.tensor(param.name)) else { continue };
            let axis = node.op.feature_axis();
            let mut shape = tensor.shape().to_vec();
            let rows = shape.remove(axis);
            shape.insert(0, rows);
            let mut matrix = feature_rows(tensor, axis).select(Axis(0), &made);
            if node.op.mixes() && param.name == "weight" {
                let read = moved(&spaces, &node.inputs[0], orders);
                let n_read: usize = read.len();
                // A group reads as many numbers as stand behind each of its rows.
                let per_row = node.op.params()[0].shape[1];
                let kernel = matrix.ncols() / per_row;
                let groups = n_read / per_row;
                for (o, mut row) in matrix.rows_mut().into_iter().enumerate() {
                    let group = o / (made.len() / groups);
                    let before = row.to_owned();
                    for j in 0..per_row {
                        let from = read[group * per_row + j] % per_row;
                        for k in 0..kernel {
                            row[j * kernel + k] = before[from * kernel + k];
                        }
                    }
                }
            }
            let numbers = matrix.into_shape_with_order(IxDyn(&shape)).expect("as many numbers as before");
            *tensor = feature_axis_back(numbers, axis);
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
