//! The graph of several fine-tunes: what they share once, their heads side by side or as one.

use super::combine::{Made, Part};
use super::source::Tensor;
use crate::apply::Heads;
use crate::graph::{Graph, Node};
use crate::{Error, Result, Task};
use std::collections::{BTreeMap, BTreeSet};

/// What comes of several fine-tunes, but for its numbers.
#[derive(Debug, Clone, PartialEq)]
pub struct Joined {
    /// The computation.
    pub graph: Graph,
    /// One per output, model by model; tasks of equal names are told apart by a number.
    pub tasks: Vec<Task>,
    /// Every tensor, by name in the result.
    pub parts: Vec<Part>,
}

/// A network without its numbers.
#[derive(Debug, Clone, Copy)]
pub struct Outline<'a> {
    /// The computation.
    pub graph: &'a Graph,
    /// One per output.
    pub tasks: &'a [Task],
    /// Shape of every tensor.
    pub shapes: &'a BTreeMap<String, Vec<usize>>,
}

/// What comes of the `tuned`, whose trunks are alike (see [`differences`](crate::apply::differences)): the trunk is made by a
/// rule, with the `base` where one is given; heads stay each network's own, as `models.{i}.{name}`, or become one.
///
/// # Errors
/// Networks with other tensors in the trunk than the first; heads of several classes or shapes for [`Heads::Merge`].
pub fn join(base: Option<Outline<'_>>, tuned: &[Outline<'_>], heads: Heads) -> Result<Joined> {
    let Some(first) = tuned.first() else { return Err(Error::Request("no networks to combine".to_owned())) };
    let of_heads = match heads {
        Heads::Separate => tuned.iter().map(|of| Ok(of.graph.spaces()?.heads)).collect::<Result<Vec<_>>>()?,
        Heads::Merge => {
            check_one_head(tuned)?;
            vec![BTreeSet::new(); tuned.len()]
        }
    };
    let base_heads = base.map_or(Ok(BTreeSet::new()), |base| Ok::<_, Error>(base.graph.spaces()?.heads))?;
    let shapes_of = |name: &str| base.iter().chain(tuned).map(|of| of.shapes.get(name)).collect::<Vec<_>>();
    let mut problems = Vec::new();
    let mut parts = Vec::new();
    for node in first.graph.nodes.iter().filter(|node| !of_heads[0].contains(&node.name)) {
        for param in node.op.params() {
            let name = node.tensor(param.name);
            let shapes = shapes_of(&name);
            let own = &shapes[usize::from(base.is_some())..];
            let Some(shape) = own[0].filter(|shape| own.iter().all(|other| other == &Some(*shape))) else {
                problems.push(format!("`{name}` is {}", listed(own)));
                continue;
            };
            // A base has a head of its own, of its classes.
            let in_base = base.is_none() || shapes[0] == Some(shape);
            if !in_base && !base_heads.contains(&node.name) {
                problems.push(format!("`{name}` is {shape:?}, in the base {}", listed(&shapes[..1])));
                continue;
            }
            let made = if param.learned && in_base { Made::ByRule } else { Made::AsMean };
            parts.push(Part { tensor: Tensor { name: name.clone(), shape: shape.clone() }, name, made });
        }
    }
    if !problems.is_empty() {
        return Err(Error::Mismatch(problems));
    }
    let is_trunk = |node: &&Node| !of_heads[0].contains(&node.name);
    let nodes = first.graph.nodes.iter().filter(is_trunk).cloned().collect();
    let mut graph = Graph { nodes, outputs: vec![], ..first.graph.clone() };
    let prefix = free_prefix(tuned);
    let mut tasks: Vec<Task> = Vec::new();
    for (i, (of, heads)) in tuned.iter().zip(&of_heads).enumerate() {
        let name_of = |name: &str| if heads.contains(name) { own(&prefix, i, name) } else { name.to_owned() };
        for node in of.graph.nodes.iter().filter(|node| heads.contains(&node.name)) {
            let module = node.module.as_ref().map(|module| own(&prefix, i, module));
            let inputs = node.inputs.iter().map(|input| name_of(input)).collect();
            let copy = Node { name: name_of(&node.name), module, inputs, ..node.clone() };
            for param in node.op.params() {
                let name = node.tensor(param.name);
                let shape = of.shapes.get(&name).cloned().unwrap_or_default();
                parts.push(Part { name: copy.tensor(param.name), tensor: Tensor { name, shape }, made: Made::Of(i) });
            }
            graph.nodes.push(copy);
        }
        // What all have is an output once.
        for (output, task) in of.graph.outputs.iter().map(|output| name_of(output)).zip(of.tasks) {
            if !graph.outputs.contains(&output) {
                graph.outputs.push(output);
                tasks.push(Task { name: free_name(&tasks, &task.name), classes: task.classes.clone() });
            }
        }
    }
    parts.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(Joined { graph, tasks, parts })
}

fn own(prefix: &str, i: usize, name: &str) -> String {
    if name.is_empty() { format!("{prefix}.{i}") } else { format!("{prefix}.{i}.{name}") }
}

fn listed(shapes: &[Option<&Vec<usize>>]) -> String {
    let each = shapes.iter().map(|shape| shape.map_or_else(|| "missing".to_owned(), |shape| format!("{shape:?}")));
    each.collect::<Vec<_>>().join(", ")
}

fn check_one_head(tuned: &[Outline<'_>]) -> Result<()> {
    let first = tuned[0];
    for (i, of) in tuned.iter().enumerate().skip(1) {
        let same = of.graph.nodes == first.graph.nodes && of.graph.outputs == first.graph.outputs;
        let classes = |of: &Outline<'_>| of.tasks.iter().map(|task| task.classes.clone()).collect::<Vec<_>>();
        if !same || classes(of) != classes(&first) {
            return Err(Error::Request(format!(
                "the heads cannot be merged into one; keep them separate: network {} has other classes, or another head, \
                 than network 1",
                i + 1
            )));
        }
    }
    Ok(())
}

/// `models`, or what is free.
fn free_prefix(tuned: &[Outline<'_>]) -> String {
    let taken = |prefix: &str| {
        let nodes = tuned.iter().flat_map(|of| &of.graph.nodes);
        let mut names = nodes.flat_map(|node| [Some(&node.name), node.module.as_ref()]).flatten();
        names.any(|name| name.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('.')))
    };
    let mut prefix = "models".to_owned();
    for n in 2.. {
        if !taken(&prefix) {
            break;
        }
        prefix = format!("models_{n}");
    }
    prefix
}

/// The tasks of networks that stay apart, network by network, no two with one name: as a merge tells them apart.
#[must_use]
pub fn told_apart(tuned: &[Outline<'_>]) -> Vec<Vec<Task>> {
    let mut all: Vec<Task> = Vec::new();
    for task in tuned.iter().flat_map(|of| of.tasks) {
        all.push(Task { name: free_name(&all, &task.name), classes: task.classes.clone() });
    }
    tuned.iter().map(|of| all.drain(..of.tasks.len()).collect()).collect()
}

/// As a merge tells equal names apart.
fn free_name(tasks: &[Task], given: &str) -> String {
    let mut name = given.to_owned();
    let mut n = 2;
    while tasks.iter().any(|other| other.name == name) {
        name = format!("{given}-{n}");
        n += 1;
    }
    name
}
