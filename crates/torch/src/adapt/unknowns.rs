//! What is learned, and how a network's tensors follow from it. Every unknown begins at zero, where the network is as it
//! was given; coefficients begin where they are told to.

use super::settings::{Coefficients, Learn};
use crate::convert::{channels_last, to_tensor};
use crate::forward::Network;
use crate::parallel::{Failure, InOrder, each_batch, n_workers};
use crate::{Device, Error, Result};
use ndarray::{Array1, Array3};
use std::collections::{BTreeMap, BTreeSet};
use tch::{Kind, Tensor};
use zipit::Graph;
use zipit::graph::{Node, Op};
use zipit::watch::Unwatched;

/// A number, or many, that steps move.
#[derive(Debug)]
pub(super) struct Unknown {
    /// The first tensor that follows from it, and what of it is unknown.
    pub name: String,
    /// As it is now.
    pub value: Tensor,
    /// Adam's.
    pub moments: [Tensor; 2],
    follows: Follows,
}

/// How tensors follow from an unknown D.
#[derive(Debug)]
enum Follows {
    /// \[W | b\] = \[W₀ | b₀\] + D S, `[G, O/G, n]`.
    Whitened { weight: String, shape: Vec<i64>, bias: Option<String>, start: Tensor, root: Tensor },
    /// w = w₀ + D.
    Plain { tensor: String, start: Tensor },
    /// W = (1 + D) W₀, feature by feature.
    Scaled { tensor: String, start: Tensor },
    /// θ = θ₀ + Σₜ λₜ τₜ of each tensor; D are the λ, `[tasks, 1]`, or `[tasks, tensors]`.
    Mixed { parts: Vec<Part>, clamp: bool },
}

/// A tensor that is a sum of task vectors.
#[derive(Debug)]
struct Part {
    tensor: String,
    base: Tensor,
    /// τₜ, one after the other along the first axis.
    vectors: Tensor,
    /// Which column of λ.
    column: i64,
}

/// A layer whose inputs may be whitened: the nodes that share one weight.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Layer {
    /// State-dict name.
    pub weight: String,
    /// State-dict name.
    pub bias: Option<String>,
    /// Numbers of its nodes.
    pub nodes: Vec<usize>,
}

impl Unknown {
    fn new(name: String, value: Tensor, follows: Follows) -> Result<Self> {
        let moments = [value.f_zeros_like()?, value.f_zeros_like()?];
        Ok(Self { name, value, moments, follows })
    }

    /// Another handle on the same numbers, to be moved to another thread.
    pub fn replicate(&self) -> Self {
        let same = Tensor::shallow_clone;
        let follows = match &self.follows {
            Follows::Whitened { weight, shape, bias, start, root } => Follows::Whitened {
                weight: weight.clone(),
                shape: shape.clone(),
                bias: bias.clone(),
                start: same(start),
                root: same(root),
            },
            Follows::Plain { tensor, start } => Follows::Plain { tensor: tensor.clone(), start: same(start) },
            Follows::Scaled { tensor, start } => Follows::Scaled { tensor: tensor.clone(), start: same(start) },
            Follows::Mixed { parts, clamp } => {
                let part = |part: &Part| Part {
                    tensor: part.tensor.clone(),
                    base: same(&part.base),
                    vectors: same(&part.vectors),
                    column: part.column,
                };
                Follows::Mixed { parts: parts.iter().map(part).collect(), clamp: *clamp }
            }
        };
        let [first, second] = &self.moments;
        Self { name: self.name.clone(), value: same(&self.value), moments: [same(first), same(second)], follows }
    }

    /// The network's tensors whose gradients it needs.
    pub fn tensors(&self) -> Vec<&str> {
        match &self.follows {
            Follows::Whitened { weight, bias, .. } => [weight].into_iter().chain(bias).map(String::as_str).collect(),
            Follows::Plain { tensor, .. } | Follows::Scaled { tensor, .. } => vec![tensor],
            Follows::Mixed { parts, .. } => parts.iter().map(|part| part.tensor.as_str()).collect(),
        }
    }

    /// Those tensors, as they follow from `value`.
    pub fn follow(&self, value: &Tensor) -> Result<Vec<(&str, Tensor)>> {
        Ok(match &self.follows {
            Follows::Whitened { weight, shape, bias, start, root } => {
                let matrix = start.f_add(&value.f_matmul(root)?)?;
                let n = root.size()[1] - i64::from(bias.is_some());
                let mut tensors = vec![(weight.as_str(), as_weight(&matrix.f_narrow(2, 0, n)?, shape)?)];
                if let Some(bias) = bias {
                    tensors.push((bias, matrix.f_narrow(2, n, 1)?.f_flatten(0, 2)?));
                }
                tensors
            }
            Follows::Plain { tensor, start } => vec![(tensor, start.f_add(value)?)],
            Follows::Scaled { tensor, start } => {
                vec![(tensor, channels_last(&start.f_mul(&per_feature(value, start)?.f_add_scalar(1.0)?)?)?)]
            }
            Follows::Mixed { parts, .. } => parts
                .iter()
                .map(|part| {
                    let share = value.f_select(1, part.column)?;
                    let moved = part.vectors.f_mul(&per_feature(&share, &part.vectors)?)?.f_sum_dim_intlist(
                        &[0_i64][..],
                        false,
                        None::<Kind>,
                    )?;
                    Ok((part.tensor.as_str(), channels_last(&part.base.f_add(&moved)?)?))
                })
                .collect::<Result<_>>()?,
        })
    }

    /// The gradient by the unknown, from those by its tensors.
    pub fn pull_back(&self, gradients: &BTreeMap<&str, Tensor>) -> Result<Tensor> {
        Ok(match &self.follows {
            Follows::Whitened { weight, bias, start, root, .. } => {
                let bias = bias.as_ref().map(|bias| &gradients[bias.as_str()]);
                as_matrix(&gradients[weight.as_str()], bias, start.size()[0])?.f_matmul(root)?
            }
            Follows::Plain { tensor, .. } => gradients[tensor.as_str()].shallow_clone(),
            Follows::Scaled { tensor, start } => gradients[tensor.as_str()]
                .f_mul(start)?
                .f_flatten(1, -1)?
                .f_sum_dim_intlist(&[1_i64][..], false, None::<Kind>)?,
            Follows::Mixed { parts, .. } => {
                let gradient = self.value.f_zeros_like()?;
                for part in parts {
                    let own = gradients[part.tensor.as_str()].f_unsqueeze(0)?.f_mul(&part.vectors)?;
                    let own =
                        own.f_reshape([own.size()[0], -1])?.f_sum_dim_intlist(&[1_i64][..], false, None::<Kind>)?;
                    let _ = gradient.f_select(1, part.column)?.f_add_(&own)?;
                }
                gradient
            }
        })
    }

    /// Back to where it may be.
    pub fn stay_within(&mut self) -> Result<()> {
        if let Follows::Mixed { clamp: true, .. } = self.follows {
            let _ = self.value.f_clamp_(0.0, 1.0)?;
        }
        Ok(())
    }
}

/// `per` along the first axis of `of`, ready to be multiplied.
fn per_feature(per: &Tensor, of: &Tensor) -> Result<Tensor> {
    let mut shape = vec![1; of.dim()];
    shape[0] = -1;
    Ok(per.f_reshape(&shape)?)
}

/// \[W | b\] `[G, O/G, kH·kW·I/G (+ 1)]`, inputs in the order of [`patches`](crate::refit::patches).
fn as_matrix(weight: &Tensor, bias: Option<&Tensor>, groups: i64) -> Result<Tensor> {
    let rows = if weight.dim() == 4 { weight.f_permute([0, 2, 3, 1])? } else { weight.shallow_clone() };
    let matrix = rows.f_reshape([groups, weight.size()[0] / groups, -1])?;
    Ok(match bias {
        Some(bias) => Tensor::f_cat(&[&matrix, &bias.f_reshape([groups, -1, 1])?], 2)?,
        None => matrix,
    })
}

/// The weight `like` another from the rows of a matrix.
fn as_weight(rows: &Tensor, like: &[i64]) -> Result<Tensor> {
    match *like {
        [o, i, h, w] => channels_last(&rows.f_reshape([o, h, w, i])?.f_permute([0, 3, 1, 2])?),
        _ => Ok(rows.f_reshape(like)?),
    }
}

/// Convolutions and linear layers among `nodes`, by weight.
pub(super) fn layers(graph: &Graph, nodes: &BTreeSet<usize>) -> Vec<Layer> {
    let mut found: BTreeMap<String, Layer> = BTreeMap::new();
    for &i in nodes {
        let node = &graph.nodes[i];
        if !is_layer(node) {
            continue;
        }
        let weight = node.tensor("weight");
        let has_bias = node.op.params().iter().any(|p| p.name == "bias");
        let bias = has_bias.then(|| node.tensor("bias"));
        let layer = || Layer { weight: weight.clone(), bias, nodes: vec![] };
        found.entry(weight.clone()).or_insert_with(layer).nodes.push(i);
    }
    found.into_values().collect()
}

fn is_layer(node: &Node) -> bool {
    matches!(node.op, Op::Conv2d { .. } | Op::Linear { .. }) && !node.inputs.is_empty()
}

/// Numbers of the nodes whose parameters are learned.
pub(super) fn learned_nodes(graph: &Graph, learn: &Learn) -> BTreeSet<usize> {
    let all = 0..graph.nodes.len();
    match learn {
        Learn::Weights | Learn::Norms | Learn::Coefficients(_) => all.collect(),
        Learn::Heads => graph.own_nodes(),
    }
}

/// The unknowns of a network; `roots` are those of its layers that are learned in whitened inputs, by weight.
pub(super) fn unknowns(
    network: &Network,
    learn: &Learn,
    roots: &BTreeMap<String, Array3<f32>>,
) -> Result<Vec<Unknown>> {
    if let Learn::Coefficients(coefficients) = learn {
        return Ok(vec![mixed(network, coefficients)?]);
    }
    let graph = network.graph();
    let nodes = learned_nodes(graph, learn);
    let mut found = Vec::new();
    let mut done: BTreeSet<String> = BTreeSet::new();
    for layer in layers(graph, &nodes) {
        let start = network.tensor(&layer.weight);
        done.insert(layer.weight.clone());
        if matches!(learn, Learn::Norms) {
            let zero = Tensor::f_zeros([start.size()[0]], (Kind::Float, start.device()))?;
            let follows = Follows::Scaled { tensor: layer.weight.clone(), start: start.shallow_clone() };
            found.push(Unknown::new(layer.weight.clone(), zero, follows)?);
        } else if let Some(root) = roots.get(&layer.weight) {
            let root = to_tensor(root, network.device())?;
            let bias = layer.bias.as_ref().map(|bias| network.tensor(bias));
            let shape = start.size();
            let start = as_matrix(start, bias, root.size()[0])?;
            done.extend(layer.bias.clone());
            let zero = start.f_zeros_like()?;
            let follows = Follows::Whitened { weight: layer.weight.clone(), shape, bias: layer.bias, start, root };
            found.push(Unknown::new(layer.weight, zero, follows)?);
        } else {
            found.push(plain(network, &layer.weight)?);
        }
    }
    let norms_only = matches!(learn, Learn::Norms);
    // What a traced network stores may be a table or a mask.
    let learns = |node: &&Node| !matches!(node.op, Op::Stored { .. });
    for node in nodes.iter().map(|&i| &graph.nodes[i]).filter(learns) {
        for param in node.op.params().iter().filter(|param| param.learned) {
            let name = node.tensor(param.name);
            let of_features = (param.name == "bias" && is_layer(node)) || is_norm(&node.op);
            if (!norms_only || of_features) && done.insert(name.clone()) {
                found.push(plain(network, &name)?);
            }
        }
    }
    if found.is_empty() {
        return Err(Error::Request("the network has no parameter that may change".into()));
    }
    Ok(found)
}

fn is_norm(op: &Op) -> bool {
    matches!(
        op,
        Op::BatchNorm2d { .. }
            | Op::LayerNorm { .. }
            | Op::GroupNorm { .. }
            | Op::PowerMeanNorm { .. }
            | Op::LayerScale { .. }
    )
}

fn plain(network: &Network, name: &str) -> Result<Unknown> {
    let start = network.tensor(name).shallow_clone();
    let zero = start.f_zeros_like()?;
    Unknown::new(name.to_owned(), zero, Follows::Plain { tensor: name.to_owned(), start })
}

fn mixed(network: &Network, of: &Coefficients) -> Result<Unknown> {
    let n_tasks = of.vectors.len();
    let device: Device = network.device();
    let mut parts = Vec::new();
    for (name, base) in &of.base {
        let column = if of.per_tensor { parts.len() as i64 } else { 0 };
        let vectors = of.vectors.iter().map(|vector| to_tensor(&vector[name], device)).collect::<Result<Vec<_>>>()?;
        let vectors = Tensor::f_stack(&vectors, 0)?;
        parts.push(Part { tensor: name.clone(), base: to_tensor(base, device)?, vectors, column });
    }
    let n_columns = if of.per_tensor { parts.len() } else { 1 };
    let start = Array1::from_elem(n_tasks * n_columns, of.initial as f32);
    let start = to_tensor(&start, device)?.f_reshape([n_tasks as i64, n_columns as i64])?;
    Unknown::new("coefficients".to_owned(), start, Follows::Mixed { parts, clamp: of.clamp })
}

/// Something of every unknown, each made by one thread with what is its own.
pub(super) fn each<S: Send, T: Send>(
    unknowns: &[Unknown],
    device: Device,
    own: impl Fn(&[Unknown]) -> S,
    make: impl Fn(&mut S, usize) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let n = unknowns.len();
    let made = InOrder::new(0, Vec::with_capacity(n));
    let failure = Failure::default();
    let workers = (0..n_workers(device, n)).map(|_| own(unknowns)).collect();
    each_batch(workers, 0..n, &Unwatched, &failure, |own, i| {
        made.hand_in(i, make(own, i)?, &failure, |all: &mut Vec<T>, one| {
            all.push(one);
            Ok(())
        })?;
        Ok(0)
    })?;
    Ok(made.into_inner())
}
