//! A network as data: nodes in topological order, named values between them.
//!
//! The graph is stored as JSON in every model file; the forward pass interprets it, so hooking a merge point is
//! reading a value, and a partial zip is a different graph.

pub mod arch;
mod check;
mod flops;
mod merge_points;
mod op;
mod own;
mod places;
mod spaces;
#[cfg(test)]
mod tests;

pub use arch::{Arch, ArchSpec, VggHead};
pub use flops::Cost;
pub use merge_points::{MergePoint, Read};
pub use op::{
    Activation, Call, Combination, Function, Length, Nature, Op, Padding, Param, Reduction, Resampling, Window,
};
pub use places::Place;
pub use spaces::{Blocks, Fixed, Measured, Segment, Space, SpaceId, Spaces};

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The value that enters the network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// Its value name.
    pub name: String,
    /// `[C, H, W]`, without the batch.
    pub shape: Vec<usize>,
}

/// One operation; the value it makes carries its name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// Unique, by torchvision's feature-extraction rule: `layer1.0.relu_1`, `layer2.0.add`.
    pub name: String,
    /// What it computes.
    pub op: Op,
    /// Values it reads, in order.
    pub inputs: Vec<String>,
    /// State-dict prefix of its parameters (`layer1.0.conv1`), empty for those of the network itself; `None` for ops
    /// without any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub module: Option<String>,
    /// What its parameters are called within the module, where that is not their own name: an attention's
    /// `in_proj_weight` is the `weight` of a Linear layer.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub params: BTreeMap<String, String>,
}

impl Node {
    /// A node without parameters.
    #[must_use]
    pub fn new(name: impl Into<String>, op: Op, inputs: Vec<String>) -> Self {
        Self { name: name.into(), op, inputs, module: None, params: BTreeMap::new() }
    }

    /// State-dict name of a parameter of its op.
    #[must_use]
    pub fn tensor(&self, param: &str) -> String {
        let leaf = self.params.get(param).map_or(param, String::as_str);
        match self.module.as_deref() {
            None | Some("") => leaf.to_owned(),
            Some(module) => format!("{module}.{leaf}"),
        }
    }
}

/// A feed-forward network: an input, nodes in topological order, outputs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Graph {
    /// What the architecture is called; for people only.
    pub arch: String,
    /// The image.
    pub input: Input,
    /// In topological order.
    pub nodes: Vec<Node>,
    /// Names of the values that are the outputs, one per task.
    pub outputs: Vec<String>,
}

impl Graph {
    /// The node that makes value `name`, if a node does.
    #[must_use]
    pub fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.iter().find(|n| n.name == name)
    }

    /// Parameters and buffers of every node: state-dict name → what it is and its shape, in name order.
    #[must_use]
    pub fn params(&self) -> BTreeMap<String, Param> {
        let mut params = BTreeMap::new();
        for node in &self.nodes {
            for param in node.op.params() {
                params.insert(node.tensor(param.name), param);
            }
        }
        params
    }

    /// For each value, the indices of the nodes that read it.
    #[must_use]
    pub fn readers(&self) -> BTreeMap<&str, Vec<usize>> {
        let mut readers: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (i, node) in self.nodes.iter().enumerate() {
            for input in &node.inputs {
                readers.entry(input).or_default().push(i);
            }
        }
        readers
    }
}
