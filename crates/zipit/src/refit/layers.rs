//! The layers of a merged network that are solved again, in order.

use super::Design;
use crate::apply::{Blend, Blended, Grafted, Origin, Piece, Role};
use crate::graph::{Node, Op};
use crate::{Graph, Model};
use std::collections::BTreeMap;

/// One layer of the merged network.
#[derive(Debug, Clone, PartialEq)]
pub struct Layer {
    /// Index of its node in the merged graph.
    pub node: usize,
    /// Index of the node in the models' graph whose outputs are its target; in the first model's where all have it.
    pub source: usize,
    /// The only model that has that node, where it is part of a head.
    pub head: Option<usize>,
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
/// What stands between merged and carried features stays as it is.
///
/// A layer that writes a sum and is the last of its layers to do so takes the sum's target minus what is already there;
/// summands that are computed only after it count as exact.
///
/// # Panics
/// When `grafted` is not a merge of these models.
#[must_use]
pub fn layers(grafted: &Grafted, models: &[&Model]) -> Vec<Layer> {
    let merged = &grafted.model.graph;
    let (places, sources) = (place(merged), Sources::of(models));
    let exact = exactness(grafted);
    let mut layers: Vec<Layer> = (merged.nodes.iter().enumerate())
        .filter(|(i, _)| is_unknown(grafted, *i))
        .map(|(i, _)| {
            let origin = &grafted.origins[i];
            let (input, target) = (input(grafted, &places, i), origin.blend.clone());
            Layer { node: i, source: sources.place(origin), head: origin.head, input, target, others: vec![] }
        })
        .collect();
    for sum in sums(grafted, &places) {
        let layer = layers.iter_mut().find(|layer| layer.node == sum.last).expect("a layer with unknowns");
        let there = |&&i: &&usize| sources.place(&grafted.origins[i]) <= layer.source && exact[i] == Exact::No;
        let term = |&i: &usize| Term {
            value: merged.nodes[i].name.clone(),
            source: grafted.origins[i].source.clone(),
            blend: grafted.origins[i].blend.clone(),
        };
        let others = sum.others.iter().filter(there).map(term).collect();
        layer.others = others;
    }
    layers.retain(|layer| exact[layer.node] == Exact::No || !layer.others.is_empty());
    layers
}

fn place(graph: &Graph) -> BTreeMap<&str, usize> {
    graph.nodes.iter().enumerate().map(|(i, node)| (node.name.as_str(), i)).collect()
}

/// Where the nodes of the models' graphs stand.
pub(super) struct Sources<'a>(Vec<BTreeMap<&'a str, usize>>);

impl<'a> Sources<'a> {
    pub fn of(models: &[&'a Model]) -> Self {
        Self(models.iter().map(|model| place(&model.graph)).collect())
    }

    /// Of the node that `origin` names, in the graph of the model that has it.
    pub fn place(&self, origin: &Origin) -> usize {
        self.0[origin.head.unwrap_or(0)][origin.source.as_str()]
    }
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

/// A sum, sums of sums taken together, with a layer that can make up for what is missing.
struct Sum {
    /// The last to write it of the layers that nobody else reads.
    last: usize,
    /// What is added to that layer's output and is there when its turn comes, each as often as it is added: summands, and
    /// partial sums in place of the summands that are gone with them.
    others: Vec<usize>,
}

/// Whether node i of the merged graph is a layer that is solved again.
pub(super) fn is_unknown(grafted: &Grafted, i: usize) -> bool {
    Design::of(&grafted.model.graph.nodes[i].op).is_some() && !grafted.origins[i].crossing
}

fn sums(grafted: &Grafted, places: &BTreeMap<&str, usize>) -> Vec<Sum> {
    let graph = &grafted.model.graph;
    let readers = graph.readers();
    let only_reader = |node: &Node| match readers.get(node.name.as_str()).map(Vec::as_slice) {
        Some(&[only]) if !graph.outputs.contains(&node.name) => Some(only),
        _ => None,
    };
    let is_sum = |node: &Node| matches!(node.op, Op::Add);
    let is_inner = |i: usize| {
        let node = &graph.nodes[i];
        is_sum(node) && only_reader(node).is_some_and(|only| is_sum(&graph.nodes[only]))
    };
    // What is added up at node i, with what is added up at the sums for which `opens`; the input is none of it.
    let summands = |i: usize, opens: &dyn Fn(usize) -> bool| {
        let (mut rest, mut found) = (vec![i], vec![]);
        while let Some(add) = rest.pop() {
            for &i in graph.nodes[add].inputs.iter().filter_map(|name| places.get(name.as_str())) {
                if opens(i) { rest.push(i) } else { found.push(i) }
            }
        }
        found
    };
    let outermost = (0..graph.nodes.len()).filter(|&i| is_sum(&graph.nodes[i]) && !is_inner(i));
    outermost
        .filter_map(|add| {
            // A layer that others read too, or that is added twice, cannot make up for this sum.
            let can = |&i: &usize| is_unknown(grafted, i) && only_reader(&graph.nodes[i]).is_some();
            let last = summands(add, &is_inner).into_iter().filter(can).max()?;
            let mut others = summands(add, &|i| i > last && is_inner(i));
            others.retain(|&i| i < last);
            others.sort_unstable();
            Some(Sum { last, others })
        })
        .collect()
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
