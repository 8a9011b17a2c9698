//! Whether networks can be merged: the same computation up to their heads, on the same kind of image.

use crate::graph::{Graph, Node};
use crate::{Error, Model, Preprocess, Result};
use std::collections::{BTreeMap, BTreeSet};

/// Differences of one kind that are spelt out before the rest is only counted.
const MAX_LISTED: usize = 10;

/// Checks that there are at least two models, with the same trunk and equal preprocessing; their heads may differ.
///
/// # Errors
/// [`Error::Mismatch`] with every difference from the first model.
pub fn check_mergeable(models: &[&Model]) -> Result<()> {
    let parts: Vec<(&Graph, &Preprocess)> = models.iter().map(|model| (&model.graph, &model.preprocess)).collect();
    let found = differences(&parts);
    if found.is_empty() { Ok(()) } else { Err(Error::Mismatch(found)) }
}

/// [`check_mergeable`] without the weights: every difference from the first model, one a line; empty when the models
/// can be merged.
#[must_use]
pub fn differences(models: &[(&Graph, &Preprocess)]) -> Vec<String> {
    let Some((&(first, preprocess), others)) = models.split_first() else {
        return vec!["no models: merging needs at least two".into()];
    };
    if others.is_empty() {
        return vec!["one model: merging needs at least two".into()];
    }
    let mut found = Vec::new();
    for (i, &(graph, own)) in others.iter().enumerate() {
        let n = i + 2;
        found.extend(graph_differences(first, graph).into_iter().map(|what| format!("model {n}: {what}")));
        let differing = own.differences(preprocess).into_iter();
        found.extend(
            differing.map(|(field, own, first)| {
                format!("model {n}: preprocessing's {field} is {own}, model 1's is {first}")
            }),
        );
    }
    found
}

/// Checks that graphs have the same trunk; their heads, whose values are logits, may differ.
///
/// # Errors
/// [`Error::Mismatch`] with every difference from the first graph.
pub fn check_trunks(graphs: &[&Graph]) -> Result<()> {
    let Some((first, others)) = graphs.split_first() else { return Ok(()) };
    let found: Vec<String> = (others.iter().enumerate())
        .flat_map(|(i, other)| graph_differences(first, other).into_iter().map(move |what| (i + 2, what)))
        .map(|(n, what)| format!("model {n}: {what}"))
        .collect();
    if found.is_empty() { Ok(()) } else { Err(Error::Mismatch(found)) }
}

/// Checks that models whose heads become one have heads of one shape; of which classes is not looked at.
pub(super) fn check_one_head(models: &[&Model]) -> Result<()> {
    let first = models[0];
    for (i, model) in models.iter().enumerate().skip(1) {
        let refuse = |what: String| {
            Err(Error::Request(format!(
                "the heads cannot be merged into one; keep them separate: model {} {what}",
                i + 1
            )))
        };
        if model.graph.outputs != first.graph.outputs {
            let [own, expected] = [model, first].map(|model| model.graph.outputs.join(", "));
            return refuse(format!("has its outputs at {own}, model 1 at {expected}"));
        }
        let n_classes = |model: &Model| model.tasks.iter().map(|task| task.classes.len()).collect::<Vec<_>>();
        if n_classes(model) != n_classes(first) {
            continue;
        }
        let differs = |node: &&Node| model.graph.node(&node.name) != Some(node);
        if let Some(node) = first.graph.nodes.iter().find(differs) {
            return refuse(match model.graph.node(&node.name) {
                Some(own) => differing(own, node),
                None => format!("has no `{}` ({})", node.name, node.op),
            });
        }
        if model.graph.nodes.len() != first.graph.nodes.len() {
            return refuse("has more layers in its head than model 1".into());
        }
    }
    Ok(())
}

/// The trunk of a graph: the nodes outside its heads, and the shapes of what they make. Of a graph that cannot be
/// analysed everything is trunk.
struct Trunk<'a> {
    nodes: Vec<&'a Node>,
    heads: BTreeSet<String>,
    shapes: BTreeMap<&'a str, Vec<usize>>,
}

impl<'a> Trunk<'a> {
    fn of(graph: &'a Graph) -> Self {
        let heads = graph.spaces().map_or_else(|_| BTreeSet::new(), |spaces| spaces.heads);
        let nodes = graph.nodes.iter().filter(|node| !heads.contains(&node.name)).collect();
        Self { nodes, heads, shapes: graph.shapes().unwrap_or_default() }
    }

    /// Whether a node makes one vector per image, as the layers of a head do.
    fn makes_vector(&self, node: &Node) -> bool {
        self.shapes.get(node.name.as_str()).is_some_and(|shape| shape.len() == 1)
    }
}

/// The first real difference first.
fn graph_differences(first: &Graph, other: &Graph) -> Vec<String> {
    let mut found = Vec::new();
    if other.input != first.input {
        found.push(format!(
            "input is `{}` {:?}, model 1's is `{}` {:?}",
            other.input.name, other.input.shape, first.input.name, first.input.shape
        ));
    }
    let [trunk, own_trunk] = [first, other].map(Trunk::of);
    // By the place in the first model's trunk, and whether it is of vectors.
    let mut nodes: Vec<(usize, bool, String)> = Vec::new();
    for (at, &node) in trunk.nodes.iter().enumerate() {
        let [shape, own_shape] = [&trunk, &own_trunk].map(|trunk| trunk.shapes.get(node.name.as_str()));
        let what = match other.node(&node.name) {
            None => format!("has no `{}` ({})", node.name, node.op),
            Some(own) if own_trunk.heads.contains(&node.name) => {
                format!("`{}` ({}) makes logits, model 1's ({}) does not", node.name, own.op, node.op)
            }
            Some(own) if own != node => differing(own, node),
            Some(_) if own_shape != shape => {
                let [own, theirs] = [own_shape, shape].map(|shape| shape.map_or(&[][..], Vec::as_slice));
                format!("`{}` makes {own:?}, model 1's {theirs:?}", node.name)
            }
            Some(_) => continue,
        };
        nodes.push((2 * at + 1, trunk.makes_vector(node), what));
    }
    let mut at = 0;
    for &node in &own_trunk.nodes {
        let what = match trunk.nodes.iter().position(|theirs| theirs.name == node.name) {
            Some(place) => {
                at = 2 * (place + 1);
                continue;
            }
            None => match first.node(&node.name) {
                Some(own) => format!("`{}` ({}) makes no logits, model 1's ({}) does", node.name, node.op, own.op),
                None => format!("has `{}` ({}), which model 1 has not", node.name, node.op),
            },
        };
        nodes.push((at, own_trunk.makes_vector(node), what));
    }
    nodes.sort_by_key(|(at, ..)| *at);
    if nodes.is_empty() && trunk.nodes != own_trunk.nodes {
        nodes.push((0, false, "has the same nodes as model 1 in another order".into()));
    }
    let in_heads = !nodes.is_empty() && nodes.iter().all(|(_, vector, _)| *vector);
    let n_more = nodes.len().saturating_sub(MAX_LISTED);
    found.extend(nodes.into_iter().take(MAX_LISTED).map(|(.., what)| what));
    if n_more > 0 {
        found.push(format!("and {n_more} more differences between the nodes"));
    }
    if in_heads {
        found.push(format!(
            "the head at {} and model 1's at {} may differ in the layer that makes the logits, in its width, bias and \
             name, but hidden layers before it are merged as the trunk is, and must be the same",
            other.outputs.join(", "),
            first.outputs.join(", ")
        ));
    }
    // What a network is called is for people; it matters only as an explanation.
    if !found.is_empty() && other.arch != first.arch {
        found.push(format!("is called {}, model 1 {}", other.arch, first.arch));
    }
    found
}

fn differing(own: &Node, node: &Node) -> String {
    format!("`{}` is {}, model 1's is {}", node.name, describe(own), describe(node))
}

fn describe(node: &Node) -> String {
    let module = node.module.as_ref().map_or(String::new(), |module| format!(" with weights `{module}`"));
    format!("{} of {}{module}", node.op, node.inputs.join(", "))
}
