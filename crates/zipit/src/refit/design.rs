//! A layer's weights as unknowns: per group, y = W x + b.

use crate::StateDict;
use crate::graph::{Node, Op};
use ndarray::{Array1, Array2, ArrayD, Axis, IxDyn};

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
    let names = node.clone();
    let mut set = |param: &str, tensor: ArrayD<f32>| weights.insert(names.tensor(param), tensor);
    let vector = |values: Vec<f64>| ArrayD::from_shape_fn(IxDyn(&[values.len()]), |i| values[i[0]] as f32);
    set("bias", vector(b.to_vec()));
    match node.op {
        Op::BatchNorm2d { eps, .. } => {
            set("weight", vector(w.iter().copied().collect()));
            set("running_mean", vector(vec![0.0; b.len()]));
            set("running_var", vector(vec![1.0 - eps; b.len()]));
        }
        Op::Conv2d { window, .. } => {
            let [kh, kw] = window.kernel;
            let n_channels = w.ncols() / (kh * kw);
            let weight = ArrayD::from_shape_fn(IxDyn(&[w.nrows(), n_channels, kh, kw]), |i| {
                w[[i[0], (i[2] * kw + i[3]) * n_channels + i[1]]] as f32
            });
            set("weight", weight);
        }
        _ => {
            set("weight", w.mapv(|x| x as f32).into_dyn());
        }
    }
}
