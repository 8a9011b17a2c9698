//! A layer's weights as unknowns: per group, y = W x + b.

use crate::StateDict;
use crate::graph::{Node, Op};
use ndarray::{Array1, Array2, ArrayD, Axis, IxDyn, Slice, concatenate};

/// The shape of a layer's problem: `n_groups` independent ones, each with `n_inputs` unknowns for each of its
/// `n_outputs`, and a bias.
///
/// A convolution's inputs are patches, positions first: `[kH, kW, I]`, where PyTorch's weight is `[O, I, kH, kW]`. A
/// depthwise convolution has a group per channel; so has a BatchNorm that could not be folded, with its input as the
/// only unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Design {
    /// Problems that share nothing.
    pub n_groups: usize,
    /// F, numbers that each output of a group is a sum of.
    pub n_inputs: usize,
    /// O, outputs of a group.
    pub n_outputs: usize,
}

impl Design {
    /// `None` for ops whose parameters are no unknowns: those without any, norms of each sample, learned tensors.
    #[must_use]
    pub fn of(op: &Op) -> Option<Self> {
        match *op {
            Op::Conv2d { in_channels, out_channels, window, groups, .. } => Some(Self {
                n_groups: groups,
                n_inputs: in_channels / groups * window.kernel[0] * window.kernel[1],
                n_outputs: out_channels / groups,
            }),
            Op::Linear { in_features, out_features, .. } => {
                Some(Self { n_groups: 1, n_inputs: in_features, n_outputs: out_features })
            }
            Op::BatchNorm2d { num_features, .. } => Some(Self { n_groups: num_features, n_inputs: 1, n_outputs: 1 }),
            Op::LayerNorm { .. }
            | Op::PowerMeanNorm { .. }
            | Op::GroupNorm { .. }
            | Op::Relu
            | Op::Activation { .. }
            | Op::MaxPool2d { .. }
            | Op::AvgPool2d { .. }
            | Op::AdaptiveAvgPool2d { .. }
            | Op::Mean
            | Op::Flatten
            | Op::Tokens
            | Op::SelectToken { .. }
            | Op::PrependTokens { .. }
            | Op::PositionEmbedding { .. }
            | Op::LayerScale { .. }
            | Op::Affine { .. }
            | Op::Positions { .. }
            | Op::Attention { .. }
            | Op::Add
            | Op::Mul
            | Op::Join { .. }
            | Op::Concat
            | Op::Slice { .. }
            | Op::ChannelShuffle { .. }
            | Op::Pad { .. }
            | Op::Stored { .. }
            | Op::Call { .. }
            | Op::Follow { .. } => None,
        }
    }
}

impl Design {
    /// Of layers that are solved as one, what they read side by side: of one, its own. `None` where they cannot be, or one
    /// has no unknowns.
    #[must_use]
    pub fn of_all(nodes: &[Node]) -> Option<Self> {
        let (first, rest) = nodes.split_first()?;
        let can = rest.is_empty() || nodes.iter().all(is_dense);
        rest.iter().try_fold(Self::of(&first.op).filter(|_| can)?, |all, node| {
            let next = Self::of(&node.op)?;
            let n_inputs = all.n_inputs + next.n_inputs;
            (all.n_outputs == next.n_outputs).then_some(Self { n_inputs, ..all })
        })
    }
}

/// Whether every output of a layer is a weighted sum of all that it reads.
pub(super) fn is_dense(node: &Node) -> bool {
    matches!(node.op, Op::Conv2d { groups: 1, .. } | Op::Linear { .. })
}

/// Gives a layer a bias, if it has none: the mean of its target can then always be met.
pub fn give_bias(node: &mut Node) {
    if let Op::Conv2d { bias, .. } | Op::Linear { bias, .. } = &mut node.op {
        *bias = true;
    }
}

/// `(W, b)` of a node with parameters, W `[G·O, F]` and b `[G·O]`.
///
/// # Panics
/// When the weights do not fit the node.
pub(super) fn unknowns(node: &Node, weights: &StateDict) -> (Array2<f64>, Array1<f64>) {
    let get = |param: &str| weights.get(&node.tensor(param));
    let vector = |tensor: &ArrayD<f32>| -> Array1<f64> { tensor.iter().map(|&x| f64::from(x)).collect() };
    let bias = |n: usize| get("bias").map_or_else(|| Array1::zeros(n), &vector);
    let weight = get("weight").expect("a weight");
    if let Op::BatchNorm2d { eps, .. } = node.op {
        let [gamma, beta] = [vector(weight), bias(0)];
        let [mean, var] = ["running_mean", "running_var"].map(|name| vector(get(name).expect("a buffer")));
        let scale = &gamma / &var.mapv(|v| (v + eps).sqrt());
        return (scale.clone().insert_axis(Axis(1)), beta - mean * scale);
    }
    let n = weight.shape()[0];
    let positions_first = match weight.ndim() {
        4 => weight.view().permuted_axes(IxDyn(&[0, 2, 3, 1])),
        _ => weight.view(),
    };
    let flat: Vec<f64> = positions_first.iter().map(|&x| f64::from(x)).collect();
    let n_inputs = flat.len() / n;
    (Array2::from_shape_vec((n, n_inputs), flat).expect("as many numbers as before"), bias(n))
}

/// Puts `(W, b)` into the node, which gets a bias if it had none, and into the weights.
pub(super) fn store(node: &mut Node, weights: &mut StateDict, w: &Array2<f64>, b: &Array1<f64>) {
    give_bias(node);
    let mut set = |param: &str, values: &mut dyn Iterator<Item = f64>| {
        let vector: Array1<f32> = values.map(|x| x as f32).collect();
        weights.insert(node.tensor(param), vector.into_dyn());
    };
    set("bias", &mut b.iter().copied());
    if let Op::BatchNorm2d { eps, .. } = node.op {
        set("weight", &mut w.iter().copied());
        set("running_mean", &mut b.iter().map(|_| 0.0));
        set("running_var", &mut b.iter().map(|_| 1.0 - eps));
    } else {
        store_weight(node, weights, w);
    }
}

/// Puts W into the weights of a convolution or a Linear layer.
fn store_weight(node: &Node, weights: &mut StateDict, w: &Array2<f64>) {
    let weight = match node.op {
        Op::Conv2d { window, .. } => {
            let [kh, kw] = window.kernel;
            let n_channels = w.ncols() / (kh * kw);
            ArrayD::from_shape_fn(IxDyn(&[w.nrows(), n_channels, kh, kw]), |i| {
                w[[i[0], (i[2] * kw + i[3]) * n_channels + i[1]]] as f32
            })
        }
        _ => w.mapv(|x| x as f32).into_dyn(),
    };
    weights.insert(node.tensor("weight"), weight);
}

/// `(W, b)` of layers that are solved as one: their weights side by side, and the sum of their biases.
///
/// # Panics
/// When the weights do not fit the nodes, or one node is of other outputs than another.
pub(super) fn unknowns_of_all(nodes: &[Node], weights: &StateDict) -> (Array2<f64>, Array1<f64>) {
    let all: Vec<_> = nodes.iter().map(|node| unknowns(node, weights)).collect();
    let side_by_side: Vec<_> = all.iter().map(|(w, _)| w.view()).collect();
    let mut biases = all.iter().map(|(_, b)| b);
    let first = biases.next().expect("a layer").clone();
    (concatenate(Axis(1), &side_by_side).expect("layers of one sum"), biases.fold(first, |sum, b| sum + b))
}

/// Puts `(W, b)` into layers that are solved as one. Of them only the last one's bias changes, and makes up for theirs.
pub(super) fn store_all(nodes: &mut [Node], weights: &mut StateDict, w: &Array2<f64>, b: &Array1<f64>) {
    let (last, others) = nodes.split_last_mut().expect("a layer");
    let (mut from, mut rest) = (0, b.clone());
    for node in others {
        let (own, bias) = unknowns(node, weights);
        store_weight(node, weights, &w.slice_axis(Axis(1), Slice::from(from..from + own.ncols())).to_owned());
        from += own.ncols();
        rest -= &bias;
    }
    store(last, weights, &w.slice_axis(Axis(1), Slice::from(from..)).to_owned(), &rest);
}
