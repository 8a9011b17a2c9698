//! Where features can be merged: one point per free space, in the order of the forward pass.

use super::{Blocks, Graph, Measured, Nature, Op, SpaceId, Spaces};
use std::collections::{BTreeMap, BTreeSet};

/// A value in which something reads a space's features other than feature by feature: a layer with a weight matrix, a norm
/// over features, an attention's products.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read {
    /// The value.
    pub value: String,
    /// Where in the value's features the space's numbers are, feature after feature, `[d·repeat]`.
    pub at: Vec<usize>,
    /// Numbers per feature: 1, or H·W after Flatten.
    pub repeat: usize,
}

/// A free feature space and where it is measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MergePoint {
    /// Its space.
    pub space: SpaceId,
    /// The space's name: the value it is measured at.
    pub name: String,
    /// Where it is measured.
    pub measured: Measured,
    /// The blocks its features stand in.
    pub blocks: Option<Blocks>,
    /// Whether a norm of single samples reads it.
    pub normalised: bool,
    /// Whether such a norm takes the spread about the features' mean.
    pub centred: bool,
    /// Whether an attention compares its features, as queries or keys: U never acts on them.
    pub compared: bool,
    /// Where it is read, in order.
    pub reads: Vec<Read>,
    /// d, features per model.
    pub dim: usize,
    /// Weight layers on the longest path from the input up to its last writer: the 7 of "7/20 layers".
    pub layers: usize,
}

impl Graph {
    /// Number of weight layers on the longest path: the 20 of ResNet-20.
    #[must_use]
    pub fn n_layers(&self) -> usize {
        self.layer_depths().values().copied().max().unwrap_or(0)
    }

    /// The merge points, in the order in which the forward pass reaches the value they are measured at.
    #[must_use]
    pub fn merge_points(&self, spaces: &Spaces) -> Vec<MergePoint> {
        let depths = self.layer_depths();
        let (mut reads, compared) = (self.reads(spaces), self.compared(spaces));
        let position: BTreeMap<&str, usize> =
            self.nodes.iter().enumerate().map(|(i, node)| (node.name.as_str(), i)).collect();
        let mut points: Vec<MergePoint> = spaces
            .spaces
            .iter()
            .enumerate()
            .filter(|(_, s)| s.fixed.is_none())
            .map(|(id, s)| MergePoint {
                space: id,
                name: s.name.clone(),
                measured: s.measured.clone(),
                blocks: s.blocks,
                normalised: s.normalised,
                centred: s.centred,
                compared: compared.contains(&id),
                reads: std::mem::take(&mut reads[id]),
                dim: s.dim,
                layers: depths[s.measured.value.as_str()],
            })
            .collect();
        points.sort_by_key(|p| position[p.measured.value.as_str()]);
        points
    }

    /// The values that [`Read`]s of free spaces are of, in order.
    #[must_use]
    pub fn read_values(&self, spaces: &Spaces) -> Vec<String> {
        let free = |value: &str| spaces.axes[value].iter().any(|s| spaces.spaces[s.space].fixed.is_none());
        let mut seen = BTreeSet::new();
        let read = self.nodes.iter().flat_map(|node| node.inputs.iter().take(n_mixed(&node.op)));
        read.filter(|value| free(value) && seen.insert(value.as_str())).cloned().collect()
    }

    /// Of each space.
    fn reads(&self, spaces: &Spaces) -> Vec<Vec<Read>> {
        let mut reads = vec![Vec::new(); spaces.spaces.len()];
        for value in self.read_values(spaces) {
            let order = spaces.orders.get(&value);
            let mut start = 0;
            for segment in &spaces.axes[&value] {
                let n = spaces.spaces[segment.space].dim * segment.repeat;
                let at = (start..start + n).map(|at| order.map_or(at, |order| order[at])).collect();
                reads[segment.space].push(Read { value: value.clone(), at, repeat: segment.repeat });
                start += n;
            }
        }
        reads
    }

    /// The spaces of queries and keys.
    fn compared(&self, spaces: &Spaces) -> BTreeSet<SpaceId> {
        let attentions = self.nodes.iter().filter(|node| node.op.nature() == Nature::Attending);
        let compared = attentions.flat_map(|node| node.inputs.iter().take(n_mixed(&node.op)));
        compared.flat_map(|value| spaces.axes[value].iter().map(|segment| segment.space)).collect()
    }

    pub(crate) fn layer_depths(&self) -> BTreeMap<&str, usize> {
        let mut depths: BTreeMap<&str, usize> = BTreeMap::from([(self.input.name.as_str(), 0)]);
        for node in &self.nodes {
            let before = node.inputs.iter().filter_map(|i| depths.get(i.as_str())).copied().max().unwrap_or(0);
            depths.insert(&node.name, before + usize::from(node.op.is_weight_layer()));
        }
        depths
    }
}

/// How many of an op's inputs, from the first, it reads other than feature by feature.
fn n_mixed(op: &Op) -> usize {
    n_read(op).max(usize::from(op.normalises_samples()))
}

/// How many of them it reads with weights, compares, or hands to what is not followed. A norm is no layer: what reads its
/// output is.
pub(super) fn n_read(op: &Op) -> usize {
    match op.nature() {
        Nature::Mixing => 1,
        // Queries and keys; the values' features stay what they are.
        Nature::Attending => 2,
        // Whatever a call makes of its numbers.
        Nature::Carrying => usize::MAX,
        Nature::Keeping | Nature::Tying | Nature::Arranging | Nature::Opening => 0,
    }
}
