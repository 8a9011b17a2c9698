//! The layers of a merged network that are solved again, in order.

use super::design::{Design, is_dense};
use crate::apply::{Blend, Blended, Grafted, Origin, Piece, Role};
use crate::graph::{Activation, Node, Op};
use crate::{Graph, Model};
use std::collections::BTreeMap;

/// One layer of the merged network, or several that write one sum and are solved as one.
#[derive(Debug, Clone, PartialEq)]
pub struct Layer {
    /// Index of its node in the merged graph; of several, the last one's.
    pub node: usize,
    /// The other ones, whose nodes stand right before it, in order.
    pub partners: Vec<Partner>,
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
    /// Where what it writes is read by nothing but a ReLU: what comes through is what counts.
    pub rectified: Option<Rectified>,
}

/// A layer that is solved together with another one: what both read, side by side, is fitted to the sum of their targets.
#[derive(Debug, Clone, PartialEq)]
pub struct Partner {
    /// Index of its node in the merged graph.
    pub node: usize,
    /// The node of the models' graph whose outputs are its target.
    pub source: String,
    /// What it should compute, of the models' outputs there.
    pub target: Blend,
}

impl Layer {
    /// The nodes that are solved, in the order of the graph.
    pub fn nodes(&self) -> impl Iterator<Item = usize> {
        self.partners.iter().map(|partner| partner.node).chain([self.node])
    }
}

/// A value that is cut off before anything reads it: a layer's own, or the sum that it is the last to write.
#[derive(Debug, Clone, PartialEq)]
pub struct Rectified {
    /// Where it is cut.
    pub clip: Clip,
    /// The value of the models' graph that it stands for.
    pub source: String,
    /// How it is made of theirs.
    pub blend: Blend,
    /// What is added to the layer's own output, all of it, exact or not.
    pub beside: Vec<Term>,
}

/// min(max(low, x), high).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Clip {
    /// The least that comes through.
    pub low: f64,
    /// The most.
    pub high: f64,
}

impl Clip {
    /// Of an op that does nothing else.
    #[must_use]
    pub fn of(op: &Op) -> Option<Self> {
        match *op {
            Op::Relu => Some(Self { low: 0.0, high: f64::INFINITY }),
            Op::Activation { function: Activation::Relu6 } => Some(Self { low: 0.0, high: 6.0 }),
            Op::Activation { function: Activation::Hardtanh(low, high) } => Some(Self { low, high }),
            _ => None,
        }
    }
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
/// With `in_rounds`, also those whose output is what it should be and comes through an activation as something else: the
/// mean of what two features make of the image is exact, and its ReLU is not the mean of theirs.
///
/// A layer that writes a sum and is the last of its layers to do so takes the sum's target minus what is already there;
/// summands that are computed only after it count as exact.
///
/// # Panics
/// When `grafted` is not a merge of these models.
#[must_use]
pub fn layers(grafted: &Grafted, models: &[&Model], in_rounds: bool) -> Vec<Layer> {
    found(grafted, models, in_rounds, false)
}

/// The same for layers that read what those before them were solved to: those that write one sum, read by nothing else,
/// and make values of one shape are solved as one ([`Partner`]), for which their nodes are moved together.
///
/// # Panics
/// When `grafted` is not a merge of these models.
#[must_use]
pub fn layers_together(grafted: &Grafted, models: &[&Model], in_rounds: bool) -> (Grafted, Vec<Layer>) {
    let mut order: Vec<usize> = (0..grafted.origins.len()).collect();
    for layer in found(grafted, models, in_rounds, true) {
        order.retain(|&i| layer.partners.iter().all(|partner| partner.node != i));
        let at = order.iter().position(|&i| i == layer.node).expect("a node of the graph");
        order.splice(at..at, layer.partners.iter().map(|partner| partner.node));
    }
    let mut moved = grafted.clone();
    moved.origins = order.iter().map(|&i| grafted.origins[i].clone()).collect();
    moved.model.graph.nodes = order.iter().map(|&i| grafted.model.graph.nodes[i].clone()).collect();
    let layers = found(&moved, models, in_rounds, true);
    (moved, layers)
}

fn found(grafted: &Grafted, models: &[&Model], in_rounds: bool, together: bool) -> Vec<Layer> {
    let merged = &grafted.model.graph;
    let (places, sources) = (place(merged), Sources::of(models));
    let exact = exactness(grafted);
    let mut layers: Vec<Layer> = (merged.nodes.iter().enumerate())
        .filter(|(i, _)| is_unknown(grafted, *i))
        .map(|(i, _)| {
            let origin = &grafted.origins[i];
            let (input, target) = (input(grafted, &places, i), origin.blend.clone());
            let (source, head) = (sources.place(origin), origin.head);
            Layer { node: i, partners: vec![], source, head, input, target, others: vec![], rectified: None }
        })
        .collect();
    let term = |&i: &usize| Term {
        value: merged.nodes[i].name.clone(),
        source: grafted.origins[i].source.clone(),
        blend: grafted.origins[i].blend.clone(),
    };
    let sums = sums(grafted, &places);
    let shapes = merged.shapes().expect("a sound graph");
    let shape = |i: usize| &shapes[merged.nodes[i].name.as_str()];
    for sum in &sums {
        let layer = layers.iter_mut().find(|layer| layer.node == sum.last).expect("a layer with unknowns");
        let last = layer.node;
        let there = |i: usize| sources.place(&grafted.origins[i]) <= layer.source && exact[i] == Exact::No;
        let joins = |&i: &usize| {
            let origin = &grafted.origins[i];
            let alike =
                origin.head == layer.head && origin.blend.own() == layer.target.own() && shape(i) == shape(last);
            together
                && alike
                && there(i)
                && sum.can.contains(&i)
                && [i, last].iter().all(|&i| is_dense(&merged.nodes[i]))
        };
        let (partners, others): (Vec<usize>, Vec<usize>) = sum.others.iter().partition(|i| joins(i));
        layer.others = others.iter().filter(|&&i| there(i)).map(term).collect();
        layer.partners = (partners.into_iter())
            .map(|i| Partner {
                node: i,
                source: grafted.origins[i].source.clone(),
                target: grafted.origins[i].blend.clone(),
            })
            .collect();
    }
    let partners: Vec<usize> = layers.iter().flat_map(|layer| &layer.partners).map(|partner| partner.node).collect();
    layers.retain(|layer| !partners.contains(&layer.node));
    for layer in &mut layers {
        let sum = sums.iter().find(|sum| sum.last == layer.node);
        let value = sum.map_or(layer.node, |sum| sum.at);
        let alike = |&i: &usize| {
            let origin = &grafted.origins[i];
            let there = sources.place(origin) <= layer.source && origin.head == layer.head;
            there && origin.blend.only.is_none() && shape(i) == shape(layer.node)
        };
        let beside = sum.map_or(&[][..], |sum| &sum.others);
        let whole = sum.is_none_or(|sum| sum.whole) && beside.iter().all(alike) && alike(&layer.node);
        let apart = |i: &&usize| layer.partners.iter().all(|partner| partner.node != **i);
        layer.rectified = clip(merged, value).filter(|_| whole).map(|clip| Rectified {
            clip,
            source: grafted.origins[value].source.clone(),
            blend: grafted.origins[value].blend.clone(),
            beside: beside.iter().filter(apart).map(term).collect(),
        });
    }
    layers.retain(|layer| {
        let cut = layer.rectified.as_ref().is_some_and(|rectified| rectified.blend.own().is_none());
        exact[layer.node] == Exact::No || !layer.partners.is_empty() || !layer.others.is_empty() || (in_rounds && cut)
    });
    layers
}

/// How node i is cut off by all that read it.
fn clip(graph: &Graph, i: usize) -> Option<Clip> {
    let name = &graph.nodes[i].name;
    let mut clips = graph.nodes.iter().filter(|node| node.inputs.contains(name)).map(|node| Clip::of(&node.op));
    let first = clips.next()??;
    (!graph.outputs.contains(name) && clips.all(|other| other == Some(first))).then_some(first)
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
    /// The node that makes it.
    at: usize,
    /// Whether `others` and the last layer are all of it.
    whole: bool,
    /// The layers that write it and that nobody else reads.
    can: Vec<usize>,
    /// The last of them.
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
            let can: Vec<usize> = summands(add, &is_inner).into_iter().filter(can).collect();
            let last = can.iter().copied().max()?;
            let all = summands(add, &|i| i > last && is_inner(i));
            let mut others: Vec<usize> = all.iter().copied().filter(|&i| i < last).collect();
            others.sort_unstable();
            let reads_input = |i: usize| graph.nodes[i].inputs.contains(&graph.input.name);
            let whole =
                others.len() + 1 == all.len() && !(last..=add).any(|i| is_sum(&graph.nodes[i]) && reads_input(i));
            Some(Sum { at: add, whole, can, last, others })
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
