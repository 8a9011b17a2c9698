//! Features that stand in blocks: the groups of a convolution, the heads of an attention, the groups of a GroupNorm.
//!
//! A block moves as a whole, together with the blocks of other spaces that belong to it; inside a block features move
//! freely. No merge crosses a block's boundary.

use super::arrange::Arranged;
use super::{Segment, Space, SpaceId, Spaces};
use crate::Result;
use crate::graph::{Graph, Node, Op};
use std::collections::{BTreeMap, BTreeSet};

/// The blocks of a space: block b holds its features `b·d/count` to `(b + 1)·d/count`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Blocks {
    /// How many.
    pub count: usize,
    /// Block b of every space of a family moves with block b of the others.
    pub family: usize,
    /// Feature j of every space of a family with the same twin moves with feature j of the others: an attention's
    /// queries and keys, which are compared with each other.
    pub twin: usize,
}

/// Union-find over spaces.
struct Sets(Vec<usize>);

impl Sets {
    fn root(&self, mut i: usize) -> usize {
        while self.0[i] != i {
            i = self.0[i];
        }
        i
    }

    fn unite(&mut self, a: usize, b: usize) {
        let (a, b) = (self.root(a), self.root(b));
        self.0[a.max(b)] = a.min(b);
    }
}

impl Graph {
    /// Finds blocks, and which spaces are merged together or not at all. Gives the spaces whose blocks no merge could
    /// respect: they are put together from parts, or are of two sizes.
    pub(super) fn bind(&self, spaces: &mut [Space], arranged: &BTreeMap<&str, Arranged>) -> BTreeSet<SpaceId> {
        let mut kin = Sets((0..spaces.len()).collect());
        let mut families = Sets((0..spaces.len()).collect());
        let mut twins = Sets((0..spaces.len()).collect());
        let mut counts: BTreeMap<SpaceId, usize> = BTreeMap::new();
        let mut kept = BTreeSet::new();
        for node in &self.nodes {
            if node.op.opens() {
                let written = &arranged[node.name.as_str()].segments;
                for segment in written {
                    kin.unite(written[0].space, segment.space);
                }
            }
            let Some((count, values)) = blocked(node) else { continue };
            let mut found = Vec::new();
            for value in values {
                let Arranged { segments, order } = &arranged[value];
                let whole = matches!(segments[..], [Segment { repeat: 1, .. }]) && order.is_none();
                for &Segment { space, .. } in segments {
                    if !whole || *counts.entry(space).or_insert(count) != count {
                        kept.insert(space);
                    }
                    found.push(space);
                }
            }
            for &space in &found[1..] {
                kin.unite(found[0], space);
                families.unite(found[0], space);
            }
            if let (Op::Attention { .. }, [queries, keys, _]) = (&node.op, &found[..]) {
                twins.unite(*queries, *keys);
            }
        }
        for (id, space) in spaces.iter_mut().enumerate() {
            space.kin = kin.root(id);
            space.blocks =
                counts.get(&id).map(|&count| Blocks { count, family: families.root(id), twin: twins.root(id) });
        }
        kept
    }

    /// Blocks are runs of features as they stand.
    pub(super) fn check_blocks(&self, arranged: &BTreeMap<&str, Arranged>) -> Result<()> {
        for node in &self.nodes {
            let values = blocked(node).map(|(_, values)| values).unwrap_or_default();
            if let Some(value) = values.iter().find(|value| arranged[**value].order.is_some()) {
                let reason = format!("`{value}` has features in blocks that are put together from parts of others");
                return Err(node.op.error(&node.name, format!("{reason}, which cannot be analysed")));
            }
        }
        Ok(())
    }

    /// The first node whose blocks hold features of a space.
    pub(crate) fn blocked_by(&self, spaces: &Spaces, id: SpaceId) -> Option<&Node> {
        let holds = |value: &&str| spaces.axes[*value].iter().any(|segment| segment.space == id);
        self.nodes.iter().find(|node| blocked(node).is_some_and(|(_, values)| values.iter().any(holds)))
    }
}

/// How many blocks a node asks for and of which values.
fn blocked(node: &Node) -> Option<(usize, Vec<&str>)> {
    match &node.op {
        Op::Conv2d { groups, .. } if *groups > 1 && node.op.mixes() => {
            Some((*groups, vec![&node.inputs[0], &node.name]))
        }
        Op::Attention { heads, .. } => Some((*heads, node.inputs.iter().map(String::as_str).collect())),
        Op::GroupNorm { num_groups, .. } if *num_groups > 1 => Some((*num_groups, vec![&node.name])),
        Op::GroupNorm { .. }
        | Op::Conv2d { .. }
        | Op::Linear { .. }
        | Op::BatchNorm2d { .. }
        | Op::LayerNorm { .. }
        | Op::PowerMeanNorm { .. }
        | Op::Relu
        | Op::Activation { .. }
        | Op::MaxPool2d { .. }
        | Op::AvgPool2d { .. }
        | Op::AdaptiveAvgPool2d { .. }
        | Op::Mean
        | Op::Flatten
        | Op::Tokens
        | Op::SelectToken { .. }
        | Op::PrependTokens { .. }
        | Op::PositionEmbedding { .. }
        | Op::LayerScale { .. }
        | Op::Affine { .. }
        | Op::Positions { .. }
        | Op::Add
        | Op::Mul
        | Op::Join { .. }
        | Op::Concat
        | Op::Slice { .. }
        | Op::ChannelShuffle { .. }
        | Op::Pad { .. }
        | Op::Stored { .. }
        | Op::Call { .. }
        | Op::Follow { .. } => None,
    }
}
