//! Where features can be merged: one point per free space, in the order of the forward pass.

use super::{Blocks, Graph, Measured, SpaceId, Spaces};
use std::collections::BTreeMap;

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
    /// Whether a LayerNorm or GroupNorm reads it.
    pub normalised: bool,
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
                dim: s.dim,
                layers: depths[s.measured.value.as_str()],
            })
            .collect();
        points.sort_by_key(|p| position[p.measured.value.as_str()]);
        points
    }

    fn layer_depths(&self) -> BTreeMap<&str, usize> {
        let mut depths: BTreeMap<&str, usize> = BTreeMap::from([(self.input.name.as_str(), 0)]);
        for node in &self.nodes {
            let before = node.inputs.iter().filter_map(|i| depths.get(i.as_str())).copied().max().unwrap_or(0);
            depths.insert(&node.name, before + usize::from(node.op.is_weight_layer()));
        }
        depths
    }
}
