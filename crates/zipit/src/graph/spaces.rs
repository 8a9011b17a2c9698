//! Feature spaces, derived from the graph by union-find over single features.
//!
//! A space is a set of features that must be permuted, merged or kept *together*. Layers with a weight matrix open new
//! features on their output; what works feature by feature keeps them; sums and products tie them; Concat, Slice and
//! ChannelShuffle arrange them; Flatten repeats each one H·W times. Features that the same values hold are one space.
//! One free space is one merge point.

mod arrange;
mod blocks;
mod features;
mod heads;

pub use blocks::Blocks;

use super::{Graph, Nature, Node, Op};
use crate::{Error, Result};
use arrange::Arranged;
use features::{Axis, Classes, Features};
use std::collections::{BTreeMap, BTreeSet};

/// Index of a space in [`Spaces::spaces`].
pub type SpaceId = usize;

/// For each Slice and ChannelShuffle, which part of its input's axis each part of its own is.
type Picks = BTreeMap<String, Vec<usize>>;

/// Part of a value's feature axis: the features of one space, each repeated `repeat` times in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Whose features.
    pub space: SpaceId,
    /// How often each one stands there: 1, or H·W after Flatten.
    pub repeat: usize,
}

/// Why a space is not merged: its features have a meaning outside the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fixed {
    /// Colour channels.
    Input,
    /// Of an output, or of what is carried into one: each model's own.
    Output,
    /// In blocks that belong to a fixed space's.
    Bound,
    /// Of a layer whose features are tied to each other (a gate and what it gates, cheap copies), or merged together with
    /// such a space: each model keeps its own.
    Tied,
    /// In blocks that are put together from parts of several spaces, or that are of two sizes: each model keeps its own.
    Blocks,
}

/// A value, or some of its features, at which a space is measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Measured {
    /// The value.
    pub value: String,
    /// Which of its features, in the space's order; `None`: all of them, as they stand.
    pub features: Option<Vec<usize>>,
}

/// One feature space.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Space {
    /// The value it is measured at; the space's name everywhere. Where no value holds this space alone, the value and
    /// which of its parts: `cat:1`.
    pub name: String,
    /// d, the number of features.
    pub dim: usize,
    /// Whether its features are fixed from outside.
    pub fixed: Option<Fixed>,
    /// Every value whose feature axis holds it, in topological order.
    pub values: Vec<String>,
    /// Where it is measured.
    pub measured: Measured,
    /// Whether its features stand in blocks that no merge may cross.
    pub blocks: Option<Blocks>,
    /// Spaces of one kin are merged together or not at all: one layer writes them, or their blocks belong together.
    pub kin: usize,
    /// Whether a norm of single samples reads it: the features' common spread matters.
    pub normalised: bool,
    /// Whether such a norm takes the spread about the features' mean: LayerNorm, GroupNorm.
    pub centred: bool,
    /// Whether its features come from or go to what is not followed: in another order it is another function.
    pub ordered: bool,
}

/// The spaces of a graph and, for every value, which of them lie along its feature axis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spaces {
    /// In the order of their first value.
    pub spaces: Vec<Space>,
    /// Value name → its feature axis, space after space. After ChannelShuffle this is not the order in which the value
    /// has its numbers: see `orders`.
    pub axes: BTreeMap<String, Vec<Segment>>,
    /// For the values whose numbers stand in another order than `axes` says: where in the value each number of the
    /// axis is.
    pub orders: BTreeMap<String, Vec<usize>>,
    /// The values of the heads: every feature of theirs is an output's, or in blocks that belong to an output's, or they are
    /// carried on the way to one; and nothing but such values is computed from them. What remains is the trunk, which models
    /// must share to be merged.
    pub heads: BTreeSet<String>,
    /// For each Slice and ChannelShuffle, which part of its input's axis each part of its own is; none where each model
    /// takes of its own features.
    pub picks: Picks,
}

impl Graph {
    /// Derives the feature spaces.
    ///
    /// # Errors
    /// A graph that is malformed or that cannot be analysed is refused with the node's name and the reason.
    pub fn spaces(&self) -> Result<Spaces> {
        let shapes = self.shapes()?;
        let mut features = Features::default();
        let mut axes: BTreeMap<&str, Axis> =
            BTreeMap::from([(self.input.name.as_str(), features.open(self.input.shape[0]))]);
        for node in &self.nodes {
            let read: Vec<&Axis> = node.inputs.iter().map(|name| &axes[name.as_str()]).collect();
            let axis = (features.derive(&node.op, &read, positions(&shapes, node)))
                .map_err(|reason| node.op.error(&node.name, reason))?;
            axes.insert(&node.name, axis);
        }
        let names: Vec<&str> = self.values().collect();
        let in_order: Vec<&Axis> = names.iter().map(|name| &axes[name]).collect();
        let classes = features.classes(&in_order);
        let mut spaces: Vec<Space> = classes.sizes.iter().map(|&dim| Space::new(dim)).collect();
        let arrange = |own: &BTreeSet<SpaceId>| self.arrange(&in_order, &features, &classes, own, &shapes);
        let (mut arranged, mut picks) = arrange(&BTreeSet::new())?;
        let (blocks, tied) = (self.bind(&mut spaces, &arranged), self.tied(&arranged));
        let kin: BTreeSet<usize> = blocks.union(&tied).map(|&id| spaces[id].kin).collect();
        let own: BTreeSet<SpaceId> = (0..spaces.len()).filter(|&id| kin.contains(&spaces[id].kin)).collect();
        // What every model keeps need not be brought into any order, and must not where it is read in blocks.
        if let Err(why) = self.check_blocks(&arranged) {
            (arranged, picks) = arrange(&own).map_err(|_| why)?;
            self.check_blocks(&arranged)?;
        }
        for name in &names {
            for segment in &arranged[name].segments {
                let values = &mut spaces[segment.space].values;
                if values.last().is_none_or(|last| last != name) {
                    values.push((*name).to_owned());
                }
            }
        }
        self.measure(&mut spaces, &arranged);
        self.fix(&mut spaces, &arranged, &blocks);
        let heads = self.heads(&spaces, &arranged);
        let (axes, orders) = Default::default();
        let mut derived = Spaces { spaces, axes, orders, heads, picks };
        for (name, found) in arranged {
            derived.axes.insert(name.to_owned(), found.segments);
            if let Some(order) = found.order {
                derived.orders.insert(name.to_owned(), order);
            }
        }
        Ok(derived)
    }

    /// Every value's axis as whole spaces, and what each Slice and ChannelShuffle picks. Values that hold nothing but `own`
    /// features have them as the model does.
    fn arrange<'a>(
        &'a self,
        axes: &[&Axis],
        features: &Features,
        classes: &Classes,
        own: &BTreeSet<SpaceId>,
        shapes: &BTreeMap<&str, Vec<usize>>,
    ) -> Result<(BTreeMap<&'a str, Arranged>, Picks)> {
        let is_own = |found: &Arranged| found.segments.iter().all(|segment| own.contains(&segment.space));
        let opened = |axis: &Axis| {
            let found = Arranged::of(axis, features, classes)?;
            Ok(if is_own(&found) { found.unordered() } else { found })
        };
        let mut arranged: BTreeMap<&str, Arranged> = BTreeMap::new();
        arranged.insert(&self.input.name, opened(axes[0]).map_err(Error::Graph)?);
        let mut picks = BTreeMap::new();
        for (node, axis) in self.nodes.iter().zip(&axes[1..]) {
            let read: Vec<&Arranged> = node.inputs.iter().map(|name| &arranged[name.as_str()]).collect();
            let found = match node.op.nature() {
                Nature::Mixing | Nature::Opening | Nature::Carrying => opened(axis),
                Nature::Keeping if matches!(node.op, Op::Flatten) => Ok(read[0].flattened(positions(shapes, node))),
                Nature::Keeping => Ok(read[0].clone()),
                Nature::Attending => Ok(read[2].clone()),
                Nature::Tying => Arranged::tied(&read),
                Nature::Arranging if matches!(node.op, Op::Concat) => Ok(Arranged::concatenated(&read, classes)),
                Nature::Arranging if is_own(read[0]) => opened(axis),
                Nature::Arranging => Arranged::of(axis, features, classes).and_then(|found| {
                    picks.insert(node.name.clone(), found.picked(read[0], &node.op, classes)?);
                    Ok(found)
                }),
            };
            arranged.insert(&node.name, found.map_err(|reason| node.op.error(&node.name, reason))?);
        }
        Ok((arranged, picks))
    }

    /// The input and every node's value, in order.
    fn values(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.input.name.as_str()).chain(self.nodes.iter().map(|node| node.name.as_str()))
    }

    /// The spaces of layers that write one twice: a merged one would have to be written alike by both parts.
    fn tied(&self, arranged: &BTreeMap<&str, Arranged>) -> BTreeSet<SpaceId> {
        let opened =
            self.nodes.iter().filter(|node| node.op.opens()).map(|node| &arranged[node.name.as_str()].segments);
        let spaces = |segments: &[Segment]| segments.iter().map(|s| s.space).collect::<BTreeSet<SpaceId>>();
        opened
            .filter(|segments| spaces(segments).len() < segments.len())
            .flat_map(|segments| spaces(segments))
            .collect()
    }

    /// The node that makes two features of what `layer` writes one.
    ///
    /// # Errors
    /// A graph that is malformed.
    pub(crate) fn first_tie(&self, layer: &str) -> Result<Option<&Node>> {
        let shapes = self.shapes()?;
        let mut features = Features::default();
        let mut axes: BTreeMap<&str, Axis> =
            BTreeMap::from([(self.input.name.as_str(), features.open(self.input.shape[0]))]);
        for node in &self.nodes {
            let read: Vec<&Axis> = node.inputs.iter().map(|name| &axes[name.as_str()]).collect();
            let axis = (features.derive(&node.op, &read, positions(&shapes, node)))
                .map_err(|reason| node.op.error(&node.name, reason))?;
            axes.insert(&node.name, axis);
            if let Some(written) = axes.get(layer) {
                let roots: BTreeSet<usize> = written.iter().map(|entry| features.root(entry.feature)).collect();
                if roots.len() < written.len() {
                    return Ok(Some(node));
                }
            }
        }
        Ok(None)
    }

    /// Names each space by the value it is measured at: the last that holds nothing else, rather before pooling.
    fn measure(&self, spaces: &mut [Space], arranged: &BTreeMap<&str, Arranged>) {
        // The best place so far: whether the space is alone there and whether it is before pooling.
        let mut best: Vec<Option<(bool, bool)>> = vec![None; spaces.len()];
        let ops = std::iter::once(None).chain(self.nodes.iter().map(|node| Some(&node.op)));
        for (value, op) in self.values().zip(ops) {
            let Arranged { segments, order } = &arranged[value];
            let before_pooling = !op.is_some_and(Op::pools);
            let alone = segments.len() == 1 && order.is_none();
            let mut start = 0;
            for (k, segment) in segments.iter().enumerate() {
                let dim = spaces[segment.space].dim;
                let found = Some((alone, before_pooling));
                if segment.repeat == 1 && found >= best[segment.space] {
                    best[segment.space] = found;
                    let place = |i: usize| order.as_ref().map_or(i, |order| order[i]);
                    let space = &mut spaces[segment.space];
                    space.name = if alone { value.to_owned() } else { format!("{value}:{k}") };
                    space.measured = Measured {
                        value: value.to_owned(),
                        features: (!alone).then(|| (start..start + dim).map(place).collect()),
                    };
                }
                start += dim * segment.repeat;
            }
        }
        for node in &self.nodes {
            let touched = match node.op.nature() {
                Nature::Carrying => &node.inputs[..],
                Nature::Opening => std::slice::from_ref(&node.name),
                _ => &[],
            };
            for segment in touched.iter().flat_map(|value| &arranged[value.as_str()].segments) {
                spaces[segment.space].ordered = true;
            }
        }
        for node in self.nodes.iter().filter(|node| node.op.normalises_samples()) {
            for segment in &arranged[node.inputs[0].as_str()].segments {
                spaces[segment.space].normalised = true;
                spaces[segment.space].centred |= !matches!(node.op, Op::PowerMeanNorm { .. });
            }
        }
    }

    /// Marks the spaces of the input and of the outputs, those whose blocks are bound to them, and those that every model
    /// keeps: `blocks` have blocks that no merge could respect.
    fn fix(&self, spaces: &mut [Space], arranged: &BTreeMap<&str, Arranged>, blocks: &BTreeSet<SpaceId>) {
        for segment in &arranged[self.input.name.as_str()].segments {
            spaces[segment.space].fixed = Some(Fixed::Input);
        }
        for segment in self.outputs.iter().flat_map(|output| &arranged[output.as_str()].segments) {
            // An output may be the image and something added to it.
            spaces[segment.space].fixed.get_or_insert(Fixed::Output);
        }
        for id in self.carried_out(spaces, arranged) {
            spaces[id].fixed.get_or_insert(Fixed::Output);
        }
        let tied = self.tied(arranged);
        let kin = |chosen: &dyn Fn(SpaceId, &Space) -> bool| -> BTreeSet<usize> {
            spaces.iter().enumerate().filter(|(id, s)| chosen(*id, s)).map(|(_, s)| s.kin).collect()
        };
        let bound = kin(&|_, s| s.fixed.is_some());
        let (tied, blocks) = (kin(&|id, _| tied.contains(&id)), kin(&|id, _| blocks.contains(&id)));
        for space in spaces.iter_mut() {
            let kin = &space.kin;
            if blocks.contains(kin) {
                space.blocks = None;
            }
            space.fixed = space.fixed.or(match () {
                () if tied.contains(kin) => Some(Fixed::Tied),
                () if blocks.contains(kin) => Some(Fixed::Blocks),
                () => bound.contains(kin).then_some(Fixed::Bound),
            });
        }
    }
}

/// Positions of the first value a node reads.
fn positions(shapes: &BTreeMap<&str, Vec<usize>>, node: &Node) -> usize {
    let read = node.inputs.first().and_then(|name| shapes[name.as_str()].get(1..));
    read.map_or(1, |positions| positions.iter().product())
}

impl Space {
    fn new(dim: usize) -> Self {
        Self {
            name: String::new(),
            dim,
            fixed: None,
            values: vec![],
            measured: Measured { value: String::new(), features: None },
            blocks: None,
            kin: 0,
            normalised: false,
            centred: false,
            ordered: false,
        }
    }
}

impl Spaces {
    /// The space a value lies in, if its whole feature axis is that one space.
    #[must_use]
    pub fn of_value(&self, value: &str) -> Option<SpaceId> {
        match self.axes.get(value)?[..] {
            [Segment { space, .. }] => Some(space),
            _ => None,
        }
    }
}
