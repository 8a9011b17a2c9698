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
//! The input is never merged: its U is the identity. The features of outputs are each model's own. Heads, from which
//! nothing but outputs is computed, may be of any shape ([`Heads`]); everything before them, the trunk, is the same
//! computation in all models. Where an output's features stand in another order, a Linear layer puts them back.
//!
//! What is carried ([`Nature::Carrying`](crate::graph::Nature)) has N copies, each in its model's own features: where it
//! reads merged ones a Linear layer Uᵢ stands before it, and where what it makes is merged a layer Mᵢ behind, and a sum.
//!
//! Biases, normalisation, depthwise weights and learned tensors take M only. Grouped convolutions, attentions and group
//! norms keep their blocks whole: a merge moves each block as one, and U stays within it (docs/ops.md says what happens to
//! every op).

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
pub(crate) mod tests;

pub use blend::{Blend, Blended, Groups, Piece};
pub use compare::{check_mergeable, check_trunks, differences};
pub use permuted::{Orders, permuted, random_orders};
pub use weights::Role;

use crate::graph::{Graph, Input, Node, Op, Spaces};
use crate::matching::Method;
use crate::plan::{Plan, PlanSettings};
use crate::unmerge::UnmergeRule;
use crate::{Error, Model, Result, Task};
use compare::check_one_head;
use copies::Copies;
use maps::Maps;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

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
    /// The only model that has this node, where it is part of a head.
    pub head: Option<usize>,
    /// Which copy of it.
    pub role: Role,
    /// How the features it stands for are made of the models' features at `source`.
    pub blend: Blend,
    /// Whether no model has it: it stands between what is merged and what is carried.
    pub crossing: bool,
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
    plan.validate()?;
    if plan.n_models != models.len() {
        return Err(Error::Request(format!(
            "the plan is for {} models but {} are given; give the models it was made from, in that order",
            plan.n_models,
            models.len()
        )));
    }
    if heads == Heads::Merge {
        check_one_head(models)?;
    }
    let views = models.iter().map(|model| View::new(models, &model.graph, plan, heads)).collect::<Result<_>>()?;
    let merged = Surgery { views, heads }.perform();
    merged.model.validate()?;
    Ok(merged)
}

/// One model as the surgery reads it: the trunk, which all models have, and a head of its own.
struct View<'a> {
    models: &'a [&'a Model],
    graph: &'a Graph,
    spaces: Spaces,
    maps: Maps<'a>,
    copies: Copies<'a>,
    /// Values with features that a call reads, or an output has, and that are not as in the model in the merged network.
    unmerged: BTreeSet<&'a str>,
}

impl<'a> View<'a> {
    fn new(models: &'a [&'a Model], graph: &'a Graph, plan: &'a Plan, heads: Heads) -> Result<Self> {
        let spaces = graph.spaces()?;
        let maps = Maps::new(models, graph, &spaces, plan, heads)?;
        let copies = Copies::new(graph, &spaces, &maps);
        let mut view = Self { models, graph, copies, maps, spaces, unmerged: BTreeSet::new() };
        let live = view.live();
        let calls = graph.nodes.iter().filter(|n| matches!(n.op, Op::Call { .. }) && live.contains(n.name.as_str()));
        let read = calls.flat_map(|node| &node.inputs).map(String::as_str);
        let out = graph.outputs.iter().map(String::as_str).filter(|output| view.spaces.orders.contains_key(*output));
        view.unmerged = read.filter(|value| view.is_changed(value)).chain(out).collect();
        Ok(view)
    }

    /// Whether a value is not as in the models: some of its features are merged, or stand in another order.
    fn is_changed(&self, value: &str) -> bool {
        let merged = self.spaces.axes[value].iter().any(|segment| self.maps.get(segment.space).is_some());
        merged || self.spaces.orders.contains_key(value)
    }

    /// Whether no other model takes part in the node: it is in a head that is not merged.
    fn is_own(&self, node: &Node) -> bool {
        self.spaces.heads.contains(&node.name) && !self.copies.is_shared(&node.name)
    }

    /// The values that an output needs.
    fn live(&self) -> BTreeSet<&'a str> {
        let mut needed: BTreeSet<&str> = self.graph.outputs.iter().map(String::as_str).collect();
        for node in self.graph.nodes.iter().rev() {
            if needed.contains(node.name.as_str()) {
                needed.extend(node.inputs.iter().map(String::as_str));
            }
        }
        needed
    }

    fn copy_of(&self, value: &str, i: usize, prefix: &str) -> String {
        if self.copies.is_shared(value) { value.to_owned() } else { own(prefix, i, value) }
    }

    /// The value with model i's own features.
    fn unmerged_of(&self, value: &str, i: usize, prefix: &str) -> String {
        match self.unmerged.contains(value) {
            true if self.copies.is_shared(value) => own(prefix, i, value),
            true => own(prefix, i, &format!("{value}.{UNMERGED}")),
            false => self.copy_of(value, i, prefix),
        }
    }
}

/// Everything the surgery reads.
struct Surgery<'a> {
    /// One per model.
    views: Vec<View<'a>>,
    heads: Heads,
}

/// A node of the models' graphs that the merged one takes over, and the only model that has it.
type Source<'a> = (&'a Node, Option<usize>);

/// A node of the merged graph and where its weights come from.
struct Graft<'a> {
    node: Node,
    source: &'a Node,
    role: Role,
    head: Option<usize>,
    crossing: Option<Crossing>,
}

/// A layer that no model has, between what is merged and what is carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Crossing {
    /// Mᵢ, of what model i's copy made.
    Merge,
    /// Uᵢ, for model i's copy.
    Unmerge,
}

/// What the features are called that a call reads where a model's copy of the value has merged ones beside them.
const UNMERGED: &str = "unmerged";
/// What the layer is called that merges what a model's copy made.
const MERGED: &str = "merged";

impl<'a> Surgery<'a> {
    fn perform(&self) -> Grafted {
        let first = &self.views[0];
        let prefix = self.free_prefix();
        let grafts: Vec<Graft<'_>> =
            self.sources().into_iter().flat_map(|source| self.graft(source, &prefix)).collect();
        let weights = grafts
            .par_iter()
            .with_max_len(1)
            .flat_map_iter(|g| {
                let view = self.view(g.role);
                let tensors = match g.crossing {
                    Some(crossing) => vec![("weight", view.crossing(&g.source.name, crossing, g.role))],
                    None if g.node.module.is_some() => view.tensors(g.source, g.role),
                    None => vec![],
                };
                tensors.into_iter().map(move |(param, tensor)| (g.node.tensor(param), tensor))
            })
            .collect();
        let merges: BTreeMap<&str, Blended> = (first.spaces.spaces.iter().enumerate())
            .filter_map(|(id, space)| Some((space.name.as_str(), first.maps.get(id)?.blended())))
            .collect();
        let origin = |g: &Graft<'_>| Origin {
            source: g.source.name.clone(),
            head: g.head,
            role: g.role,
            crossing: g.crossing.is_some(),
            blend: match (g.crossing, g.role) {
                (Some(Crossing::Unmerge), Role::Own(i)) => self.views[i].own_blend(&g.source.name, i),
                _ => self.view(g.role).blend(&g.source.name, g.role, &merges),
            },
        };
        let origins = grafts.iter().map(origin).collect();
        let (outputs, tasks) = self.outputs(&prefix);
        let graph = Graph {
            arch: format!("merge of {} {}", self.views.len(), first.graph.arch),
            input: Input { name: first.graph.input.name.clone(), shape: first.graph.input.shape.clone() },
            nodes: grafts.into_iter().map(|g| g.node).collect(),
            outputs,
        };
        let preprocess = first.models[0].preprocess.clone();
        Grafted { model: Model { graph, weights, tasks, preprocess, joint: None }, origins }
    }

    /// Whose graph, spaces and maps a node of this role goes by; in the trunk they are all alike.
    fn view(&self, role: Role) -> &View<'a> {
        match role {
            Role::Own(i) => &self.views[i],
            Role::Shared | Role::Part(_) => &self.views[0],
        }
    }

    /// The nodes that an output needs, in order: between two nodes of the trunk the models' own ones, node by node where
    /// all models have the same, model by model otherwise.
    fn sources(&self) -> Vec<Source<'a>> {
        let first = &self.views[0];
        let live: Vec<BTreeSet<&str>> = self.views.iter().map(View::live).collect();
        let mut heads: Vec<_> =
            self.views.iter().map(|view| view.graph.nodes.split(|node| !view.is_own(node))).collect();
        let mut trunk = first.graph.nodes.iter().filter(|node| !first.is_own(node));
        let mut sources: Vec<Source<'a>> = Vec::new();
        loop {
            let own: Vec<Vec<&Node>> = (heads.iter_mut().zip(&live))
                .map(|(parts, live)| parts.next().into_iter().flatten().filter(|n| live.contains(n.name.as_str())))
                .map(Iterator::collect)
                .collect();
            let alike = own.iter().all(|nodes| nodes.iter().map(|n| &n.name).eq(own[0].iter().map(|n| &n.name)));
            let mut placed: Vec<(usize, usize)> =
                own.iter().enumerate().flat_map(|(i, nodes)| (0..nodes.len()).map(move |at| (i, at))).collect();
            if alike {
                placed.sort_by_key(|&(i, at)| (at, i));
            }
            sources.extend(placed.into_iter().map(|(i, at)| (own[i][at], Some(i))));
            let Some(node) = trunk.next() else { return sources };
            sources.extend(live.iter().any(|live| live.contains(node.name.as_str())).then_some((node, None)));
        }
    }

    /// The nodes of the merged graph that take the place of one node, and those that give its features back to each model
    /// where calls read them.
    fn graft(&self, source: Source<'a>, prefix: &str) -> Vec<Graft<'a>> {
        let mut grafted = self.graft_node(source, prefix);
        let (source, head) = source;
        for (i, view) in self.views.iter().enumerate().filter(|(i, _)| head.is_none_or(|head| head == *i)) {
            if !view.unmerged.contains(source.name.as_str()) {
                continue;
            }
            let read = view.copy_of(&source.name, i, prefix);
            let in_features = view.maps.axis_width(&view.spaces.axes[&source.name]);
            let op = Op::Linear { in_features, out_features: view.n_numbers(&source.name), bias: false };
            let name = view.unmerged_of(&source.name, i, prefix);
            let module = Some(format!("{name}.{UNMERGED}"));
            let node = Node { module, ..Node::new(name, op, vec![read]) };
            grafted.push(Graft { node, source, role: Role::Own(i), head, crossing: Some(Crossing::Unmerge) });
        }
        grafted
    }

    fn graft_node(&self, (source, head): Source<'a>, prefix: &str) -> Vec<Graft<'a>> {
        let name = &source.name;
        let own_copy = |i: usize, role: Role| {
            let view = &self.views[i];
            let node = Node {
                name: own(prefix, i, name),
                op: view.resized(source),
                inputs: match source.op {
                    Op::Call { .. } => source.inputs.iter().map(|name| view.unmerged_of(name, i, prefix)).collect(),
                    _ => source.inputs.iter().map(|name| view.copy_of(name, i, prefix)).collect(),
                },
                module: source.module.as_ref().map(|module| own(prefix, i, module)),
                params: source.params.clone(),
            };
            Graft { node, source, role, head, crossing: None }
        };
        if let Some(i) = head {
            return vec![own_copy(i, Role::Own(i))];
        }
        let view = &self.views[0];
        let shared = view.copies.is_shared(name);
        let reads_shared = source.inputs.iter().all(|input| view.copies.is_shared(input));
        let once = |node: Node| Graft { node, source, role: Role::Shared, head, crossing: None };
        if shared && reads_shared {
            return vec![once(Node { op: view.resized(source), ..source.clone() })];
        }
        if shared && matches!(view.resized(source), Op::Slice { .. }) {
            // Every copy of what it reads holds the merged features.
            let inputs = source.inputs.iter().map(|input| view.copy_of(input, 0, prefix)).collect();
            return vec![once(Node { op: view.resized(source), inputs, ..source.clone() })];
        }
        if shared && matches!(source.op, Op::Follow { .. }) {
            return self.merged_follow(source, &own_copy, prefix);
        }
        let role = |i: usize| if shared { Role::Part(i) } else { Role::Own(i) };
        let mut grafted: Vec<Graft<'_>> = (0..self.views.len()).map(|i| own_copy(i, role(i))).collect();
        if shared {
            let inputs = grafted.iter().map(|g| g.node.name.clone()).collect();
            grafted.push(once(Node::new(name, Op::Add, inputs)));
        }
        grafted
    }

    /// Each model's new features, merged: Σᵢ Mᵢ xᵢ.
    fn merged_follow(
        &self,
        source: &'a Node,
        own_copy: &dyn Fn(usize, Role) -> Graft<'a>,
        prefix: &str,
    ) -> Vec<Graft<'a>> {
        let view = &self.views[0];
        let (n, width) = (view.n_numbers(&source.name), view.maps.axis_width(&view.spaces.axes[&source.name]));
        let mut grafted = Vec::new();
        let mut parts = Vec::new();
        for i in 0..self.views.len() {
            let follow = own_copy(i, Role::Own(i));
            let name = own(prefix, i, &format!("{}.{MERGED}", source.name));
            let op = Op::Linear { in_features: n, out_features: width, bias: false };
            let node = Node { module: Some(name.clone()), ..Node::new(&name, op, vec![follow.node.name.clone()]) };
            parts.push(name);
            grafted.push(follow);
            grafted.push(Graft { node, source, role: Role::Part(i), head: None, crossing: Some(Crossing::Merge) });
        }
        let node = Node::new(&source.name, Op::Add, parts);
        grafted.push(Graft { node, source, role: Role::Shared, head: None, crossing: None });
        grafted
    }

    /// `models`, or the first of `models_2`, … under which no copy takes the name of something shared.
    fn free_prefix(&self) -> String {
        let names = |node: &'a Node| [Some(node.name.as_str()), node.module.as_deref()].into_iter().flatten();
        let first = &self.views[0];
        let taken: BTreeSet<&str> = (first.graph.nodes.iter())
            .filter(|node| first.copies.is_shared(&node.name))
            .flat_map(names)
            .chain(std::iter::once(first.graph.input.name.as_str()))
            .collect();
        let is_free = |prefix: &String| {
            self.views.iter().enumerate().all(|(i, view)| {
                view.graph.nodes.iter().flat_map(names).all(|name| !taken.contains(own(prefix, i, name).as_str()))
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
        for (i, view) in self.views.iter().enumerate() {
            for (output, task) in view.graph.outputs.iter().zip(&view.models[i].tasks) {
                if self.heads == Heads::Merge && i > 0 {
                    continue;
                }
                outputs.push(view.unmerged_of(output, i, prefix));
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
