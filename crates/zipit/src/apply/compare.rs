//! Whether networks can be merged: the same computation on the same kind of image.

use crate::graph::{Graph, Node};
use crate::{Error, Model, Preprocess, Result};

/// Differences of one kind that are spelt out before the rest is only counted.
const MAX_LISTED: usize = 10;

/// Checks that there are at least two models, with equal graphs and equal preprocessing.
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

fn graph_differences(first: &Graph, other: &Graph) -> Vec<String> {
    let mut found = Vec::new();
    if other.input != first.input {
        found.push(format!(
            "input is `{}` {:?}, model 1's is `{}` {:?}",
            other.input.name, other.input.shape, first.input.name, first.input.shape
        ));
    }
    let mut nodes: Vec<String> = Vec::new();
    for node in &first.nodes {
        match other.node(&node.name) {
            None => nodes.push(format!("has no `{}` ({})", node.name, node.op)),
            Some(own) if own != node => {
                nodes.push(format!("`{}` is {}, model 1's is {}", node.name, describe(own), describe(node)));
            }
            Some(_) => {}
        }
    }
    let more = other.nodes.iter().filter(|node| first.node(&node.name).is_none());
    nodes.extend(more.map(|node| format!("has `{}` ({}), which model 1 has not", node.name, node.op)));
    if nodes.is_empty() && first.nodes != other.nodes {
        nodes.push("has the same nodes as model 1 in another order".into());
    }
    let n_more = nodes.len().saturating_sub(MAX_LISTED);
    found.extend(nodes.into_iter().take(MAX_LISTED));
    if n_more > 0 {
        found.push(format!("and {n_more} more differences between the nodes"));
    }
    if other.outputs != first.outputs {
        found.push(format!("outputs are {}, model 1's are {}", other.outputs.join(", "), first.outputs.join(", ")));
    }
    // What a network is called is for people; it matters only as an explanation.
    if !found.is_empty() && other.arch != first.arch {
        found.insert(0, format!("is called {}, model 1 {}", other.arch, first.arch));
    }
    found
}

fn describe(node: &Node) -> String {
    let module = node.module.as_ref().map_or(String::new(), |module| format!(" with weights `{module}`"));
    format!("{} of {}{module}", node.op, node.inputs.join(", "))
}
