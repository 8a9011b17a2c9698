//! A forward pass for tests: one image, naive loops, f64. Slow and easy to believe.

#![allow(clippy::unwrap_used)]

use crate::{
    Model,
    graph::{Activation, Call, Combination, Length, Nature, Node, Op, Reduction, Window},
};
use ndarray::{Array3, ArrayD, Axis, Dimension, Ix2, Ix3, Ix4, IxDyn, Slice};
use std::collections::BTreeMap;

/// Every value of the network for one image `[C, H, W]`.
pub(crate) fn values(model: &Model, image: &ArrayD<f64>) -> BTreeMap<String, ArrayD<f64>> {
    let mut values = BTreeMap::from([(model.graph.input.name.clone(), image.clone())]);
    for node in &model.graph.nodes {
        let inputs: Vec<&ArrayD<f64>> = node.inputs.iter().map(|name| &values[name]).collect();
        let param = |name: &str| -> ArrayD<f64> { model.weights[&node.tensor(name)].mapv(f64::from) };
        if let Op::Stored { .. } | Op::Positions { .. } | Op::Call { .. } | Op::Follow { .. } = node.op {
            values.insert(node.name.clone(), unfollowed(model, node, &inputs));
            continue;
        }
        let x = inputs[0];
        let value = match &node.op {
            Op::Stored { .. } | Op::Positions { .. } | Op::Call { .. } | Op::Follow { .. } => unreachable!(),
            Op::Conv2d { window, groups, bias, .. } => {
                let mut y = conv(x, &param("weight"), window, *groups);
                if *bias {
                    add_per_channel(&mut y, &param("bias"));
                }
                y
            }
            Op::Linear { bias, .. } => {
                let weight = param("weight").into_dimensionality::<Ix2>().unwrap();
                let flat = x.to_shape((x.shape()[0], x.len() / x.shape()[0])).unwrap();
                let mut shape = x.shape().to_vec();
                shape[0] = weight.nrows();
                let mut y = weight.dot(&flat).into_shape_with_order(IxDyn(&shape)).unwrap();
                if *bias {
                    add_per_channel(&mut y, &param("bias"));
                }
                y
            }
            Op::LayerNorm { .. } | Op::GroupNorm { .. } | Op::PowerMeanNorm { .. } => normed(&node.op, x, &param),
            Op::BatchNorm2d { eps, .. } => {
                let [gamma, beta, mean, var] = ["weight", "bias", "running_mean", "running_var"].map(param);
                ArrayD::from_shape_fn(x.raw_dim(), |at| {
                    let c = at[0];
                    (x[&at] - mean[[c]]) / (var[[c]] + eps).sqrt() * gamma[[c]] + beta[[c]]
                })
            }
            Op::Relu => x.mapv(|v| v.max(0.0)),
            Op::MaxPool2d { window } => pool(x, window, f64::NEG_INFINITY, f64::max, 1.0),
            Op::AvgPool2d { window, count_include_pad } => {
                assert!(count_include_pad, "not modelled here");
                pool(x, window, 0.0, |a, b| a + b, (window.kernel[0] * window.kernel[1]) as f64)
            }
            Op::AdaptiveAvgPool2d { output } => adaptive(x, *output),
            Op::Flatten => x.to_shape(IxDyn(&[x.len()])).unwrap().to_owned(),
            Op::Activation { function } => x.mapv(|v| activation(*function, v)),
            Op::Mean => {
                let flat = x.to_shape((x.shape()[0], x.len() / x.shape()[0])).unwrap();
                flat.mean_axis(Axis(1)).unwrap().into_dyn()
            }
            Op::Tokens => x.to_shape(IxDyn(&[x.shape()[0], x.len() / x.shape()[0]])).unwrap().to_owned(),
            Op::SelectToken { index } => x.index_axis(Axis(1), *index).to_owned(),
            Op::PrependTokens { .. } => {
                let tokens = param("weight").index_axis_move(Axis(0), 0).reversed_axes();
                ndarray::concatenate(Axis(1), &[tokens.view(), x.view()]).unwrap()
            }
            Op::PositionEmbedding { axis, .. } => x + &learned(&param("weight"), *axis, x),
            Op::LayerScale { axis, .. } => x * &learned(&param("weight"), *axis, x),
            Op::Affine { scale, shift } => x.mapv(|v| v * scale + shift),
            Op::Join { axis } => {
                let parts: Vec<_> = inputs.iter().map(|x| x.view()).collect();
                ndarray::concatenate(Axis(*axis), &parts).unwrap()
            }
            Op::Attention { heads, scale, bias } => {
                attention(&inputs, bias.map(|_| param("bias")).as_ref(), *heads, *scale)
            }
            Op::Slice { ranges } => {
                let parts: Vec<_> = ranges.iter().map(|&[a, b]| x.slice_axis(Axis(0), Slice::from(a..b))).collect();
                ndarray::concatenate(Axis(0), &parts).unwrap()
            }
            Op::ChannelShuffle { groups } => {
                let per_group = x.shape()[0] / groups;
                let order: Vec<usize> = (0..x.shape()[0]).map(|k| k % groups * per_group + k / groups).collect();
                x.select(Axis(0), &order)
            }
            Op::Pad { padding: [left, right, top, bottom], value } => {
                let shape = [x.shape()[0], x.shape()[1] + top + bottom, x.shape()[2] + left + right];
                ArrayD::from_shape_fn(IxDyn(&shape), |at| {
                    let inside = at[1].checked_sub(*top).zip(at[2].checked_sub(*left));
                    inside.and_then(|(r, c)| x.get([at[0], r, c])).copied().unwrap_or(*value)
                })
            }
            Op::Add => inputs[1..].iter().fold(x.clone(), |sum, other| sum + *other),
            Op::Mul => x * inputs[1],
            Op::Concat => {
                let views: Vec<_> = inputs.iter().map(|v| v.view()).collect();
                ndarray::concatenate(Axis(0), &views).unwrap()
            }
        };
        values.insert(node.name.clone(), value);
    }
    values
}

/// The network's outputs for one image.
pub(crate) fn logits(model: &Model, image: &ArrayD<f64>) -> Vec<Vec<f64>> {
    let values = values(model, image);
    model.graph.outputs.iter().map(|output| values[output].iter().copied().collect()).collect()
}

/// Mean and variance along an axis.
fn spread(x: &ArrayD<f64>, axis: Axis) -> (ArrayD<f64>, ArrayD<f64>) {
    (x.mean_axis(axis).unwrap(), x.var_axis(axis, 0.0))
}

fn activation(function: Activation, v: f64) -> f64 {
    let sigmoid = |v: f64| 1.0 / (1.0 + (-v).exp());
    match function {
        Activation::Sigmoid => sigmoid(v),
        Activation::Silu => v * sigmoid(v),
        Activation::Tanh => v.tanh(),
        Activation::Hardswish => v * ((v + 3.0).clamp(0.0, 6.0) / 6.0),
        Activation::Hardsigmoid => (v + 3.0).clamp(0.0, 6.0) / 6.0,
        Activation::Relu6 => v.clamp(0.0, 6.0),
        Activation::LeakyRelu(slope) => v.max(0.0) + slope * v.min(0.0),
        other => panic!("{other} is not modelled here"),
    }
}

/// A learned tensor with its features first, in the shape of a value.
fn learned(tensor: &ArrayD<f64>, axis: usize, like: &ArrayD<f64>) -> ArrayD<f64> {
    let mut axes: Vec<usize> = (0..tensor.ndim()).filter(|&i| i != axis).collect();
    axes.insert(0, axis);
    let mut first = tensor.clone().permuted_axes(IxDyn(&axes));
    while first.ndim() > like.ndim() {
        first = first.index_axis_move(Axis(1), 0);
    }
    while first.ndim() < like.ndim() {
        first.insert_axis_inplace(Axis(1));
    }
    first.broadcast(like.raw_dim()).unwrap().to_owned()
}

/// By the spread of each sample's own features.
fn normed(op: &Op, x: &ArrayD<f64>, param: &dyn Fn(&str) -> ArrayD<f64>) -> ArrayD<f64> {
    match op {
        Op::LayerNorm { eps, bias, .. } => {
            let (mean, var) = spread(x, Axis(0));
            let shift = if *bias { param("bias") } else { ArrayD::zeros(IxDyn(&[x.shape()[0]])) };
            let weight = param("weight");
            ArrayD::from_shape_fn(x.raw_dim(), |at| {
                let place = IxDyn(&at.slice()[1..]);
                (x[&at] - mean[&place]) / (var[&place] + eps).sqrt() * weight[[at[0]]] + shift[[at[0]]]
            })
        }
        Op::PowerMeanNorm { power, eps, .. } => {
            let mean = x.mapv(|v| v.powi(*power as i32)).mean_axis(Axis(0)).unwrap();
            let weight = if *power == 2 { param("weight") } else { ArrayD::ones(IxDyn(&[x.shape()[0]])) };
            ArrayD::from_shape_fn(x.raw_dim(), |at| {
                x[&at] / (mean[&IxDyn(&at.slice()[1..])] + eps).powf(1.0 / *power as f64) * weight[[at[0]]]
            })
        }
        Op::GroupNorm { num_groups, eps, .. } => {
            let width = x.len() / num_groups;
            let rows = x.to_shape((*num_groups, width)).unwrap().to_owned().into_dyn();
            let (mean, var) = spread(&rows, Axis(1));
            let (weight, bias) = (param("weight"), param("bias"));
            let per_group = x.shape()[0] / num_groups;
            ArrayD::from_shape_fn(x.raw_dim(), |at| {
                let g = at[0] / per_group;
                (x[&at] - mean[[g]]) / (var[[g]] + eps).sqrt() * weight[[at[0]]] + bias[[at[0]]]
            })
        }
        other => panic!("{other} is no norm"),
    }
}

/// What is carried, and what works along positions.
fn unfollowed(model: &Model, node: &Node, inputs: &[&ArrayD<f64>]) -> ArrayD<f64> {
    let is_followed = |name: &String| model.graph.node(name).map(|node| node.op.nature()) != Some(Nature::Carrying);
    match &node.op {
        Op::Positions { call, .. } => {
            called(call, &[inputs[0].clone().insert_axis(Axis(0))]).index_axis_move(Axis(0), 0)
        }
        Op::Call { call, .. } => {
            // One image: the batch is an axis of 1, or is in front of what there is once per image.
            let with_batch = |(x, name): (&&ArrayD<f64>, &String)| {
                if is_followed(name) { (*x).clone().insert_axis(Axis(0)) } else { (*x).clone() }
            };
            called(call, &inputs.iter().zip(&node.inputs).map(with_batch).collect::<Vec<_>>())
        }
        Op::Follow { shape, axis } => {
            let mut order: Vec<usize> = (0..shape.len()).filter(|i| i != axis).collect();
            order.insert(0, *axis);
            let whole = inputs[0].to_shape(IxDyn(shape)).unwrap().to_owned();
            whole.permuted_axes(IxDyn(&order)).as_standard_layout().into_owned()
        }
        _ => model.weights[&node.tensor("weight")].mapv(f64::from),
    }
}

/// What a call makes of one image's tensors, batch and all. Not every call is modelled.
fn called(call: &Call, inputs: &[ArrayD<f64>]) -> ArrayD<f64> {
    let x = &inputs[0];
    let lengths = |shape: &[Length]| -> Vec<usize> {
        shape
            .iter()
            .map(|n| match n {
                Length::Fixed(n) | Length::PerImage { per_image: n } => *n,
            })
            .collect()
    };
    match call {
        Call::Reshape { shape } => x.to_shape(IxDyn(&lengths(shape))).unwrap().to_owned(),
        Call::Permute { dims } => x.clone().permuted_axes(IxDyn(dims)).as_standard_layout().into_owned(),
        Call::Slice { dim, start, end, step } => {
            let end = lengths(&[*end])[0];
            x.slice_axis(Axis(*dim), Slice::new(*start as isize, Some(end as isize), *step as isize)).to_owned()
        }
        Call::Roll { shifts, dims } => shifts.iter().zip(dims).fold(x.clone(), |x, (&shift, &dim)| {
            let n = x.shape()[dim] as i64;
            let order: Vec<usize> = (0..n).map(|i| (i - shift).rem_euclid(n) as usize).collect();
            x.select(Axis(dim), &order)
        }),
        Call::Reduce { function: Reduction::Amax, dims, keepdim: true } => dims.iter().fold(x.clone(), |x, &dim| {
            x.map_axis(Axis(dim), |lane| lane.iter().copied().fold(f64::NEG_INFINITY, f64::max)).insert_axis(Axis(dim))
        }),
        Call::Reduce { function: Reduction::Norm, dims, keepdim: true } => {
            let squares = |x: ArrayD<f64>, &dim: &usize| x.sum_axis(Axis(dim)).insert_axis(Axis(dim));
            dims.iter().fold(x * x, squares).mapv(f64::sqrt)
        }
        Call::Affine { scale, shift } => x.mapv(|v| v * scale + shift),
        Call::Combine { function: Combination::Mul } => x * &inputs[1],
        other => panic!("{other} is not modelled here"),
    }
}

/// Over the last positions, window by window.
fn attention(inputs: &[&ArrayD<f64>], bias: Option<&ArrayD<f64>>, heads: usize, scale: Option<f64>) -> ArrayD<f64> {
    let flat = |x: &ArrayD<f64>| {
        let (c, t) = (x.shape()[0], x.shape()[x.ndim() - 1]);
        x.to_shape((c, x.len() / (c * t), t)).unwrap().to_owned()
    };
    let [q, k, v] = [0, 1, 2].map(|i| flat(inputs[i]));
    let per_head = q.shape()[0] / heads;
    let scale = scale.unwrap_or(1.0 / (per_head as f64).sqrt());
    let mut made = Array3::zeros((v.shape()[0], v.shape()[1], q.shape()[2]));
    for window in 0..q.shape()[1] {
        for h in 0..heads {
            let of = |x: &Array3<f64>| {
                let rows = x.shape()[0] / heads;
                x.index_axis(Axis(1), window).slice_axis(Axis(0), Slice::from(h * rows..(h + 1) * rows)).to_owned()
            };
            let mut weights = of(&q).t().dot(&of(&k)) * scale;
            if let Some(bias) = bias {
                let at = |axis: usize, i: usize| if bias.shape()[axis] == 1 { 0 } else { i };
                weights += &bias.index_axis(Axis(0), at(0, window)).index_axis(Axis(0), at(1, h));
            }
            for mut row in weights.rows_mut() {
                row.mapv_inplace(f64::exp);
                let sum = row.sum();
                row /= sum;
            }
            let rows = v.shape()[0] / heads;
            let mut target = made.index_axis_mut(Axis(1), window);
            target.slice_axis_mut(Axis(0), Slice::from(h * rows..(h + 1) * rows)).assign(&of(&v).dot(&weights.t()));
        }
    }
    let mut shape = inputs[0].shape().to_vec();
    shape[0] = v.shape()[0];
    made.into_shape_with_order(IxDyn(&shape)).unwrap()
}

fn add_per_channel(y: &mut ArrayD<f64>, bias: &ArrayD<f64>) {
    for (mut channel, &b) in y.outer_iter_mut().zip(bias) {
        channel += b;
    }
}

/// Positions of the window's taps for output (r, c) that lie inside the image, and which taps they are.
fn taps(w: &Window, size: [usize; 2], at: [usize; 2]) -> Vec<([usize; 2], [usize; 2])> {
    let mut found = Vec::new();
    for kr in 0..w.kernel[0] {
        for kc in 0..w.kernel[1] {
            let row = (at[0] * w.stride[0] + kr * w.dilation[0]).checked_sub(w.padding[0]);
            let col = (at[1] * w.stride[1] + kc * w.dilation[1]).checked_sub(w.padding[1]);
            if let (Some(row), Some(col)) = (row, col)
                && row < size[0]
                && col < size[1]
            {
                found.push(([row, col], [kr, kc]));
            }
        }
    }
    found
}

fn conv(x: &ArrayD<f64>, weight: &ArrayD<f64>, window: &Window, groups: usize) -> ArrayD<f64> {
    let size = [x.shape()[1], x.shape()[2]];
    let [h, w] = window.output(size).unwrap();
    let [o, i] = [weight.shape()[0], weight.shape()[1]];
    let mut y = Array3::zeros((o, h, w));
    // Channels are the inner loop: contiguous in the transposed copies.
    let x = x.view().into_dimensionality::<Ix3>().unwrap().permuted_axes([1, 2, 0]).as_standard_layout().into_owned();
    let weight = weight.view().into_dimensionality::<Ix4>().unwrap();
    let weight = weight.permuted_axes([0, 2, 3, 1]).as_standard_layout().into_owned();
    for r in 0..h {
        for c in 0..w {
            for ([row, col], [kr, kc]) in taps(window, size, [r, c]) {
                let pixel = x.index_axis(Axis(0), row).index_axis_move(Axis(0), col);
                for out in 0..o {
                    let first = out / (o / groups) * i;
                    let tap = weight.index_axis(Axis(0), out).index_axis_move(Axis(0), kr).index_axis_move(Axis(0), kc);
                    y[[out, r, c]] += tap.dot(&pixel.slice_axis(Axis(0), Slice::from(first..first + i)));
                }
            }
        }
    }
    y.into_dyn()
}

fn pool(x: &ArrayD<f64>, window: &Window, start: f64, join: fn(f64, f64) -> f64, share: f64) -> ArrayD<f64> {
    let size = [x.shape()[1], x.shape()[2]];
    let [h, w] = window.output(size).unwrap();
    Array3::from_shape_fn((x.shape()[0], h, w), |(ch, r, c)| {
        taps(window, size, [r, c]).iter().fold(start, |acc, &([row, col], _)| join(acc, x[[ch, row, col]])) / share
    })
    .into_dyn()
}

fn adaptive(x: &ArrayD<f64>, output: [usize; 2]) -> ArrayD<f64> {
    let size = [x.shape()[1], x.shape()[2]];
    let range = |i: usize, axis: usize| {
        let [n, out] = [size[axis], output[axis]];
        i * n / out..((i + 1) * n).div_ceil(out)
    };
    Array3::from_shape_fn((x.shape()[0], output[0], output[1]), |(ch, r, c)| {
        let cells: Vec<f64> = range(r, 0)
            .flat_map(|row| range(c, 1).map(move |col| (row, col)))
            .map(|(row, col)| x[[ch, row, col]])
            .collect();
        cells.iter().sum::<f64>() / cells.len() as f64
    })
    .into_dyn()
}
