//! Graph surgery: N networks and a plan become one network.
//!
//! Surgery knows only the **set** of merged spaces (DESIGN §3); stopping early, starting late and per-space choices
//! are ways to name it. A value has one copy when every part of its feature axis is merged or is the input's, and N
//! copies otherwise. A layer between them becomes, with M the merge of the space it writes and U the unmerge of the
//! space it reads,
//!
//! | reads    | writes   | becomes                                                   |
//! |----------|----------|-----------------------------------------------------------|
//! | one copy | merged   | one layer, `W* = Σᵢ Mᵢ Wᵢ Uᵢ`                             |
//! | one copy | separate | N layers, `Wᵢ Uᵢ`                                         |
//! | N copies | merged   | N layers, `Mᵢ Wᵢ`, and the sum of their outputs           |
//! | N copies | separate | N layers, `Wᵢ`                                            |
//!
//! The input is never merged: its U is the identity. Biases, normalisation, depthwise weights and learned tensors take M
//! only. Grouped convolutions, attentions and group norms keep their blocks whole: a merge moves each block as one, and U
//! stays within it (docs/ops.md says what happens to every op).

mod blend;
mod compare;
mod copies;
mod maps;
mod permuted;
mod resized;
mod weights;

#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;

pub use blend::{Blend, Blended, Groups, Piece};
pub use compare::{check_mergeable, differences};
pub use permuted::{Orders, permuted, random_orders};
pub use weights::Role;

use crate::graph::{Graph, Input, Node, Op, Spaces};
use crate::matching::Method;
use crate::plan::{Plan, PlanSettings};
use crate::unmerge::UnmergeRule;
use crate::{Error, Model, Result, Task};
use copies::Copies;
use maps::Maps;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// What becomes of the models' outputs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Heads {
    /// One output per model and task.
    #[default]
    Separate,
    /// The heads of one label space are averaged, class by class, into one output.
    Merge,
}

/// Merges the models as the plan says.
///
/// Layers that exist once keep their names; model i's own are called `models.{i}.{name}`, in state-dict names too.
/// Where N copies are summed, the sum keeps the layer's name. Nodes that no output needs are dropped. Outputs and
/// tasks follow model by model; tasks of equal names are told apart by a number.
///
/// # Errors
/// Models that cannot be merged, a plan that does not fit them, heads of different label spaces for [`Heads::Merge`].
pub fn apply(models: &[&Model], plan: &Plan, heads: Heads) -> Result<Model> {
    graft(models, plan, heads).map(|grafted| grafted.model)
}

/// The models in one network, nothing merged: an ensemble in one file, with one output per model and task.
///
/// # Errors
/// Models that could not be merged either.
pub fn side_by_side(models: &[&Model]) -> Result<Model> {
    let settings = PlanSettings { method: Method::Identity, unmerge: UnmergeRule::Pinv };
    apply(models, &Plan { n_models: models.len(), settings, points: vec![] }, Heads::Separate)
}

/// A merged network that knows where its parts are from.
#[derive(Debug, Clone, PartialEq)]
pub struct Grafted {
    /// The network.
    pub model: Model,
    /// One per node of its graph.
    pub origins: Vec<Origin>,
}

/// Where a node of a merged graph is from.
#[derive(Debug, Clone, PartialEq)]
pub struct Origin {
    /// The node of the models' graph whose place it takes.
    pub source: String,
    /// Which copy of it.
    pub role: Role,
    /// How the features it stands for are made of the models' features at `source`.
    pub blend: Blend,
}

/// As [`apply`], with the origin of every node.
///
/// # Errors
/// As [`apply`].
pub fn graft(models: &[&Model], plan: &Plan, heads: Heads) -> Result<Grafted> {
    check_mergeable(models)?;
    for (i, model) in models.iter().enumerate() {
        model.validate().map_err(|e| Error::Request(format!("model {}: {e}", i + 1)))?;
    }
    let graph = &models[0].graph;
    let spaces = graph.spaces()?;
    let maps = Maps::new(models, &spaces, plan, heads)?;
    let merged = Surgery { models, graph, copies: Copies::new(graph, &spaces, &maps), spaces: &spaces, maps }.perform();
    merged.model.validate()?;
    Ok(merged)
}

/// Everything the surgery reads.
struct Surgery<'a> {
    models: &'a [&'a Model],
    graph: &'a Graph,
    spaces: &'a Spaces,
    maps: Maps<'a>,
    copies: Copies<'a>,
}

/// A node of the merged graph and where its weights come from.
struct Graft<'a> {
    node: Node,
    source: &'a Node,
    role: Role,
}

impl<'a> Surgery<'a> {
    fn perform(&self) -> Grafted {
        let prefix = self.free_prefix();
        let grafts: Vec<Graft<'_>> = self.live_nodes().into_iter().flat_map(|node| self.graft(node, &prefix)).collect();
        let weights = grafts
            .par_iter()
            .with_max_len(1)
            .flat_map_iter(|g| {
                let tensors = if g.node.module.is_some() { self.tensors(g.source, g.role) } else { vec![] };
                tensors.into_iter().map(move |(param, tensor)| (g.node.tensor(param), tensor))
            })
            .collect();
        let merges: Vec<_> =
            (0..self.spaces.spaces.len()).map(|space| self.maps.get(space).map(maps::Map::blended)).collect();
        let origin = |g: &Graft<'_>| Origin {
            source: g.source.name.clone(),
            role: g.role,
            blend: self.blend(&g.source.name, g.role, &merges),
        };
        let origins = grafts.iter().map(origin).collect();
        let (outputs, tasks) = self.outputs(&prefix);
        let graph = Graph {
            arch: format!("merge of {} {}", self.models.len(), self.graph.arch),
            input: Input { name: self.graph.input.name.clone(), shape: self.graph.input.shape.clone() },
            nodes: grafts.into_iter().map(|g| g.node).collect(),
            outputs,
        };
        let model = Model { graph, weights, tasks, preprocess: self.models[0].preprocess.clone(), joint: None };
        Grafted { model, origins }
    }

    /// The nodes of the merged graph that take the place of one node.
    fn graft(&self, source: &'a Node, prefix: &str) -> Vec<Graft<'a>> {
        let name = &source.name;
        let shared = self.copies.is_shared(name);
        let reads_shared = source.inputs.iter().all(|input| self.copies.is_shared(input));
        let op = self.resized(source);
        if shared && reads_shared {
            return vec![Graft { node: Node { op, ..source.clone() }, source, role: Role::Shared }];
        }
        if shared && matches!(op, Op::Slice { .. }) {
            // Every copy of what it reads holds the merged features.
            let inputs = source.inputs.iter().map(|input| self.copy_of(input, 0, prefix)).collect();
            return vec![Graft { node: Node { op, inputs, ..source.clone() }, source, role: Role::Shared }];
        }
        let mut grafted: Vec<Graft<'_>> = (0..self.models.len())
            .map(|i| {
                let node = Node {
                    name: own(prefix, i, name),
                    op: op.clone(),
                    inputs: source.inputs.iter().map(|input| self.copy_of(input, i, prefix)).collect(),
                    module: source.module.as_ref().map(|module| own(prefix, i, module)),
                    params: source.params.clone(),
                };
                Graft { node, source, role: if shared { Role::Part(i) } else { Role::Own(i) } }
            })
            .collect();
        if shared {
            let inputs = grafted.iter().map(|g| g.node.name.clone()).collect();
            let sum = Node::new(name, Op::Add, inputs);
            grafted.push(Graft { node: sum, source, role: Role::Shared });
        }
        grafted
    }

    fn copy_of(&self, value: &str, i: usize, prefix: &str) -> String {
        if self.copies.is_shared(value) { value.to_owned() } else { own(prefix, i, value) }
    }

    /// Nodes that an output needs, in order.
    fn live_nodes(&self) -> Vec<&'a Node> {
        let mut needed: BTreeSet<&str> = self.graph.outputs.iter().map(String::as_str).collect();
        let mut live: Vec<&Node> = Vec::new();
        for node in self.graph.nodes.iter().rev() {
            if needed.contains(node.name.as_str()) {
                needed.extend(node.inputs.iter().map(String::as_str));
                live.push(node);
            }
        }
        live.reverse();
        live
    }

    /// `models`, or the first of `models_2`, … under which no copy takes the name of something shared.
    fn free_prefix(&self) -> String {
        let taken: BTreeSet<&str> = (self.graph.nodes.iter())
            .filter(|node| self.copies.is_shared(&node.name))
            .flat_map(|node| [Some(node.name.as_str()), node.module.as_deref()])
            .flatten()
            .chain(std::iter::once(self.graph.input.name.as_str()))
            .collect();
        let is_free = |prefix: &String| {
            (0..self.models.len()).all(|i| {
                let mut names = self.graph.nodes.iter().flat_map(|n| [Some(n.name.as_str()), n.module.as_deref()]);
                names.all(|name| name.is_none_or(|name| !taken.contains(own(prefix, i, name).as_str())))
            })
        };
        let mut n = 1;
        loop {
            let prefix = if n == 1 { "models".to_owned() } else { format!("models_{n}") };
            if is_free(&prefix) {
                return prefix;
            }
            n += 1;
        }
    }

    fn outputs(&self, prefix: &str) -> (Vec<String>, Vec<Task>) {
        let mut outputs = Vec::new();
        let mut tasks: Vec<Task> = Vec::new();
        for (i, model) in self.models.iter().enumerate() {
            for (output, task) in self.graph.outputs.iter().zip(&model.tasks) {
                if self.copies.is_shared(output) && i > 0 {
                    continue;
                }
                outputs.push(self.copy_of(output, i, prefix));
                let mut name = task.name.clone();
                let mut n = 2;
                while tasks.iter().any(|other| other.name == name) {
                    name = format!("{}-{n}", task.name);
                    n += 1;
                }
                tasks.push(Task { name, classes: task.classes.clone() });
            }
        }
        (outputs, tasks)
    }
}

fn own(prefix: &str, i: usize, name: &str) -> String {
    if name.is_empty() { format!("{prefix}.{i}") } else { format!("{prefix}.{i}.{name}") }
}
