//! The layers of a merged network that are solved again, in order.

use super::Design;
use crate::Graph;
use crate::apply::{Blend, Blended, Grafted, Piece, Role};
use crate::graph::{Node, Op};
use std::collections::BTreeMap;

/// One layer of the merged network.
#[derive(Debug, Clone, PartialEq)]
pub struct Layer {
    /// Index of its node in the merged graph.
    pub node: usize,
    /// Index of the node in the models' graph whose outputs are its target.
    pub source: usize,
    /// What the value it reads stands for, of the models' values that the source node reads.
    pub input: Blend,
    /// What it should compute, of the models' outputs there.
    pub target: Blend,
    /// Summands beside it in the sum that it is the last to write: it makes up for what they miss.
    pub others: Vec<Term>,
}

/// A summand.
#[derive(Debug, Clone, PartialEq)]
pub struct Term {
    /// The merged network's value.
    pub value: String,
    /// The value of the models' graph that it stands for.
    pub source: String,
    /// How it is made of theirs.
    pub blend: Blend,
}

/// How close a value of the merged network is to what it stands for, before anything is solved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exact {
    /// It is one model's own value, or the input's.
    Own,
    /// It is the blend of the models' values.
    Blend,
    /// Neither.
    No,
}

/// Every layer with unknowns ([`Design`]) whose output is not already what it should be, in the order of the merged graph.
///
/// A layer that writes a sum and is the last of its layers to do so takes the sum's target minus what is already there;
/// summands that are computed only after it count as exact.
///
/// # Panics
/// When `grafted` is not a merge of models of this graph.
#[must_use]
pub fn layers(grafted: &Grafted, graph: &Graph) -> Vec<Layer> {
    let merged = &grafted.model.graph;
    let (places, sources) = (place(merged), place(graph));
    let exact = exactness(grafted);
    let mut layers: Vec<Layer> = (merged.nodes.iter().enumerate())
        .filter(|(_, node)| Design::of(&node.op).is_some())
        .map(|(i, _)| {
            let origin = &grafted.origins[i];
            let (input, target) = (input(grafted, &places, i), origin.blend.clone());
            Layer { node: i, source: sources[origin.source.as_str()], input, target, others: vec![] }
        })
        .collect();
    for summands in sums(merged, &places) {
        let writers = summands.iter().filter(|&&i| Design::of(&merged.nodes[i].op).is_some());
        let Some(&last) = writers.max() else { continue };
        let layer = layers.iter_mut().find(|layer| layer.node == last).expect("a layer with unknowns");
        layer.others = summands
            .iter()
            .filter(|&&i| {
                i < last && sources[grafted.origins[i].source.as_str()] <= layer.source && exact[i] == Exact::No
            })
            .map(|&i| Term {
                value: merged.nodes[i].name.clone(),
                source: grafted.origins[i].source.clone(),
                blend: grafted.origins[i].blend.clone(),
            })
            .collect();
    }
    layers.retain(|layer| exact[layer.node] == Exact::No || !layer.others.is_empty());
    layers
}

fn place(graph: &Graph) -> BTreeMap<&str, usize> {
    graph.nodes.iter().enumerate().map(|(i, node)| (node.name.as_str(), i)).collect()
}

/// What the value that node i of the merged graph reads stands for.
pub(super) fn input(grafted: &Grafted, places: &BTreeMap<&str, usize>, i: usize) -> Blend {
    let graph = &grafted.model.graph;
    let read = graph.nodes[i].inputs.first().and_then(|name| places.get(name.as_str()));
    read.map_or_else(|| image(graph), |&i| grafted.origins[i].blend.clone())
}

/// The input, which is every model's own.
fn image(graph: &Graph) -> Blend {
    let dim = graph.input.shape[0];
    Blend { pieces: vec![Piece { dim, width: dim, repeat: 1, made: Blended::Own(0) }], only: None, order: None }
}

/// The sums of the graph as the nodes that write them, sums of sums taken together. Only what nobody else reads is a
/// summand that may be changed, but every summand is listed; the input is none.
fn sums(graph: &Graph, places: &BTreeMap<&str, usize>) -> Vec<Vec<usize>> {
    let readers = graph.readers();
    let is_inner = |node: &Node| {
        matches!(node.op, Op::Add)
            && !graph.outputs.contains(&node.name)
            && matches!(readers.get(node.name.as_str()).map(Vec::as_slice), Some(&[only]) if matches!(graph.nodes[only].op, Op::Add))
    };
    let outermost = graph.nodes.iter().filter(|node| matches!(node.op, Op::Add) && !is_inner(node));
    outermost
        .map(|add| {
            let mut summands = Vec::new();
            collect(graph, places, &is_inner, add, &mut summands);
            // A layer that others read too cannot make up for this sum.
            summands.retain(|&i| {
                let node = &graph.nodes[i];
                Design::of(&node.op).is_none()
                    || readers[node.name.as_str()].len() == 1 && !graph.outputs.contains(&node.name)
            });
            summands
        })
        .collect()
}

/// What is added up at `add`, and at the sums that only it reads.
fn collect(
    graph: &Graph,
    places: &BTreeMap<&str, usize>,
    is_inner: &dyn Fn(&Node) -> bool,
    add: &Node,
    into: &mut Vec<usize>,
) {
    for &i in add.inputs.iter().filter_map(|name| places.get(name.as_str())) {
        if is_inner(&graph.nodes[i]) {
            collect(graph, places, is_inner, &graph.nodes[i], into);
        } else {
            into.push(i);
        }
    }
}

pub(super) fn exactness(grafted: &Grafted) -> Vec<Exact> {
    let graph = &grafted.model.graph;
    let mut of: BTreeMap<&str, Exact> = BTreeMap::from([(graph.input.name.as_str(), Exact::Own)]);
    let mut all = Vec::with_capacity(graph.nodes.len());
    for (node, origin) in graph.nodes.iter().zip(&grafted.origins) {
        let read: Vec<Exact> = node.inputs.iter().map(|name| of[name.as_str()]).collect();
        let own = read.iter().all(|e| *e == Exact::Own);
        let linear = if node.op.is_linear_in_features() { !read.contains(&Exact::No) } else { own };
        let found = match origin.role {
            _ if own && origin.blend.own().is_some() => Exact::Own,
            // What mixes models' own values without parameters is no blend of them yet.
            Role::Shared | Role::Part(_) | Role::Own(_) if linear => Exact::Blend,
            Role::Shared | Role::Part(_) | Role::Own(_) => Exact::No,
        };
        of.insert(&node.name, found);
        all.push(found);
    }
    all
}
