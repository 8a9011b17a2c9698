//! Feature spaces, derived from the graph by union-find over (value, feature axis).
//!
//! A space is a set of features that must be permuted, merged or kept *together*: Conv and Linear open a new one on
//! their output; BatchNorm, ReLU, pooling and depthwise convolution keep it; Add ties its inputs; Concat stacks;
//! Flatten repeats each channel H·W times. One free space is one merge point.

use super::{Graph, Node, Op};
use crate::{Error, Result};
use std::collections::BTreeMap;

/// Index of a space in [`Spaces::spaces`].
pub type SpaceId = usize;

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
    /// Class logits.
    Output,
}

/// One feature space.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Space {
    /// The value it is measured at; the space's name everywhere.
    pub name: String,
    /// d, the number of features.
    pub dim: usize,
    /// Whether its features are fixed from outside.
    pub fixed: Option<Fixed>,
    /// Every value whose feature axis holds it, in topological order.
    pub values: Vec<String>,
}

/// The spaces of a graph and, for every value, which of them lie along its feature axis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spaces {
    /// In the order of their first value.
    pub spaces: Vec<Space>,
    /// Value name → its feature axis.
    pub axes: BTreeMap<String, Vec<Segment>>,
}

/// Union-find over provisional spaces of known size.
#[derive(Default)]
struct Forest {
    parent: Vec<usize>,
    dim: Vec<usize>,
}

impl Forest {
    fn open(&mut self, dim: usize) -> usize {
        self.parent.push(self.parent.len());
        self.dim.push(dim);
        self.parent.len() - 1
    }

    fn root(&self, mut id: usize) -> usize {
        while self.parent[id] != id {
            id = self.parent[id];
        }
        id
    }

    fn tie(&mut self, a: usize, b: usize) {
        let (a, b) = (self.root(a), self.root(b));
        self.parent[a.max(b)] = a.min(b);
    }
}

impl Graph {
    /// Derives the feature spaces.
    ///
    /// # Errors
    /// A graph that is malformed or that cannot be analysed is refused with the node's name and the reason.
    pub fn spaces(&self) -> Result<Spaces> {
        let shapes = self.shapes()?;
        let mut forest = Forest::default();
        let mut axes: BTreeMap<&str, Vec<Segment>> = BTreeMap::new();
        let input_space = forest.open(self.input.shape[0]);
        axes.insert(&self.input.name, vec![Segment { space: input_space, repeat: 1 }]);
        for node in &self.nodes {
            let axis = derive_axis(node, &shapes, &axes, &mut forest)?;
            axes.insert(&node.name, axis);
        }
        self.collect_spaces(&axes, &forest, input_space)
    }

    /// Numbers the tied spaces in the order of their first value, names them, and marks the fixed ones.
    fn collect_spaces(
        &self,
        provisional: &BTreeMap<&str, Vec<Segment>>,
        forest: &Forest,
        input_space: usize,
    ) -> Result<Spaces> {
        let mut ids: BTreeMap<usize, SpaceId> = BTreeMap::new();
        let mut spaces: Vec<Space> = Vec::new();
        let mut axes: BTreeMap<String, Vec<Segment>> = BTreeMap::new();
        let values = std::iter::once((self.input.name.as_str(), None))
            .chain(self.nodes.iter().map(|node| (node.name.as_str(), Some(&node.op))));
        // Whether a space's name so far is a value after pooling, which any value before pooling replaces.
        let mut pooled: Vec<bool> = Vec::new();
        for (value, op) in values {
            let axis: Vec<Segment> = provisional[value]
                .iter()
                .map(|s| {
                    let root = forest.root(s.space);
                    let next = spaces.len();
                    let id = *ids.entry(root).or_insert(next);
                    if id == next {
                        let fixed = (root == forest.root(input_space)).then_some(Fixed::Input);
                        spaces.push(Space { name: String::new(), dim: forest.dim[root], fixed, values: vec![] });
                        pooled.push(true);
                    }
                    Segment { space: id, repeat: s.repeat }
                })
                .collect();
            let after_pooling = match op {
                Some(Op::MaxPool2d { .. } | Op::AvgPool2d { .. } | Op::AdaptiveAvgPool2d { .. } | Op::Flatten) => true,
                None
                | Some(
                    Op::Conv2d { .. } | Op::Linear { .. } | Op::BatchNorm2d { .. } | Op::Relu | Op::Add | Op::Concat,
                ) => false,
            };
            for segment in &axis {
                let space = &mut spaces[segment.space];
                if space.values.last().is_none_or(|last| last != value) {
                    space.values.push(value.to_owned());
                }
            }
            if let [Segment { space: id, repeat: 1 }] = axis[..]
                && (!after_pooling || pooled[id])
            {
                pooled[id] = after_pooling;
                value.clone_into(&mut spaces[id].name);
            }
            axes.insert(value.to_owned(), axis);
        }
        for output in &self.outputs {
            for segment in &axes[output] {
                let space = &mut spaces[segment.space];
                if space.fixed == Some(Fixed::Input) {
                    return Err(Error::Graph(format!("output `{output}` is tied to the input's channels")));
                }
                space.fixed = Some(Fixed::Output);
            }
        }
        Ok(Spaces { spaces, axes })
    }
}

/// The node's feature axis in terms of provisional spaces.
fn derive_axis(
    node: &Node,
    shapes: &BTreeMap<&str, Vec<usize>>,
    axes: &BTreeMap<&str, Vec<Segment>>,
    forest: &mut Forest,
) -> Result<Vec<Segment>> {
    let read = |i: usize| &axes[node.inputs[i].as_str()];
    Ok(match &node.op {
        Op::Conv2d { groups: 1, out_channels, .. } => {
            vec![Segment { space: forest.open(*out_channels), repeat: 1 }]
        }
        Op::Linear { out_features, .. } => vec![Segment { space: forest.open(*out_features), repeat: 1 }],
        Op::Conv2d { groups, in_channels, out_channels, .. } => {
            if groups == in_channels && in_channels == out_channels {
                read(0).clone()
            } else {
                return Err(node.op.error(
                    &node.name,
                    format!(
                        "{groups} groups of {in_channels} channels to {out_channels}: only ordinary and depthwise \
                         convolutions can be analysed"
                    ),
                ));
            }
        }
        Op::BatchNorm2d { .. }
        | Op::Relu
        | Op::MaxPool2d { .. }
        | Op::AvgPool2d { .. }
        | Op::AdaptiveAvgPool2d { .. } => read(0).clone(),
        Op::Flatten => {
            let positions: usize = shapes[node.inputs[0].as_str()][1..].iter().product();
            read(0).iter().map(|s| Segment { space: s.space, repeat: s.repeat * positions }).collect()
        }
        Op::Add => {
            let first = read(0).clone();
            for i in 1..node.inputs.len() {
                let other = read(i);
                let shape_of = |axis: &[Segment]| -> Vec<(usize, usize)> {
                    axis.iter().map(|s| (forest.dim[s.space], s.repeat)).collect()
                };
                if shape_of(&first) != shape_of(other) {
                    return Err(node.op.error(
                        &node.name,
                        "its inputs' features are put together from different parts, so they cannot be tied",
                    ));
                }
                for (a, b) in first.iter().zip(other) {
                    forest.tie(a.space, b.space);
                }
            }
            first
        }
        Op::Concat => (0..node.inputs.len()).flat_map(|i| read(i).clone()).collect(),
    })
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
