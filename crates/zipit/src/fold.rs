//! BatchNorm folded into the convolution before it, for inference: one pass over the activations instead of two.

use crate::graph::{Node, Op};
use crate::{Graph, Result, StateDict};
use ndarray::{Array1, ArrayD, Axis, IxDyn};
use std::collections::BTreeSet;

/// Rewrites every Conv → BatchNorm pair into one convolution with a bias, where only that BatchNorm reads the
/// convolution's value and the value is neither an output nor in `keep`. The convolution takes the BatchNorm's place
/// and value name, and keeps its own module's:
///
/// W′ = W·γ/√(σ² + ε),  b′ = β + (b − μ)·γ/√(σ² + ε),
///
/// computed in f64. The function stays the same up to rounding.
///
/// # Errors
/// When graph and weights do not fit each other.
pub fn fold_batch_norm(graph: &Graph, weights: &StateDict, keep: &BTreeSet<String>) -> Result<(Graph, StateDict)> {
    graph.shapes()?;
    graph.check_weights(weights)?;
    let readers = graph.readers();
    let mut folded = graph.clone();
    let mut folded_weights = weights.clone();
    folded.nodes.clear();
    for node in &graph.nodes {
        folded.nodes.push(node.clone());
        let Op::BatchNorm2d { eps, .. } = node.op else { continue };
        let source = node.inputs[0].as_str();
        let Some(at) = folded.nodes.iter().position(|other| other.name == source) else { continue };
        let free = readers[source].len() == 1 && !keep.contains(source) && !graph.outputs.iter().any(|o| o == source);
        let (Op::Conv2d { .. }, true) = (&folded.nodes[at].op, free) else { continue };
        let conv = folded.nodes.remove(at);
        let pair = folded_pair(&conv, node, eps, &mut folded_weights);
        folded.nodes.pop();
        folded.nodes.push(pair);
    }
    let params = folded.params();
    folded_weights.retain(|name, _| params.contains_key(name));
    Ok((folded, folded_weights))
}

/// The node that replaces `conv` and `norm`.
fn folded_pair(conv: &Node, norm: &Node, eps: f64, weights: &mut StateDict) -> Node {
    let per_channel =
        |name: &str| -> Array1<f64> { weights[&norm.tensor(name)].iter().map(|&x| f64::from(x)).collect() };
    let (gamma, beta) = (per_channel("weight"), per_channel("bias"));
    let (mean, variance) = (per_channel("running_mean"), per_channel("running_var"));
    let scale: Array1<f64> = gamma.iter().zip(&variance).map(|(g, v)| g / (v + eps).sqrt()).collect();
    let mut weight = weights[&conv.tensor("weight")].mapv(f64::from);
    for (mut filter, &scale) in weight.axis_iter_mut(Axis(0)).zip(&scale) {
        filter *= scale;
    }
    let before = match weights.get(&conv.tensor("bias")) {
        Some(bias) => bias.iter().map(|&x| f64::from(x)).collect(),
        None => Array1::zeros(scale.len()),
    };
    let bias: Array1<f64> = beta + (before - mean) * scale;

    weights.insert(conv.tensor("weight"), weight.mapv(|x| x as f32));
    weights.insert(conv.tensor("bias"), narrow(&bias));
    let mut pair = Node { name: norm.name.clone(), ..conv.clone() };
    if let Op::Conv2d { bias, .. } = &mut pair.op {
        *bias = true;
    }
    pair
}

fn narrow(values: &Array1<f64>) -> ArrayD<f32> {
    values.mapv(|x| x as f32).into_shape_with_order(IxDyn(&[values.len()])).expect("as many values as before")
}
