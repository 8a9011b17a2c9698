//! A forward pass for tests: one image, naive loops, f64. Slow and easy to believe.

#![allow(clippy::unwrap_used)]

use crate::{
    Model,
    graph::{Op, Window},
};
use ndarray::{Array3, ArrayD, Axis, Ix1, Ix2, Ix3, Ix4, IxDyn, Slice};
use std::collections::BTreeMap;

/// Every value of the network for one image `[C, H, W]`.
pub(crate) fn values(model: &Model, image: &ArrayD<f64>) -> BTreeMap<String, ArrayD<f64>> {
    let mut values = BTreeMap::from([(model.graph.input.name.clone(), image.clone())]);
    for node in &model.graph.nodes {
        let inputs: Vec<&ArrayD<f64>> = node.inputs.iter().map(|name| &values[name]).collect();
        let param = |name: &str| -> ArrayD<f64> {
            model.weights[&format!("{}.{name}", node.module.as_ref().unwrap())].mapv(f64::from)
        };
        let x = inputs[0];
        let value = match &node.op {
            Op::Conv2d { window, groups, bias, .. } => {
                let mut y = conv(x, &param("weight"), window, *groups);
                if *bias {
                    add_per_channel(&mut y, &param("bias"));
                }
                y
            }
            Op::Linear { bias, .. } => {
                let weight = param("weight").into_dimensionality::<Ix2>().unwrap();
                let mut y = weight.dot(&x.view().into_dimensionality::<Ix1>().unwrap()).into_dyn();
                if *bias {
                    y += &param("bias");
                }
                y
            }
            Op::BatchNorm2d { eps, .. } => {
                let [gamma, beta, mean, var] = ["weight", "bias", "running_mean", "running_var"].map(param);
                ArrayD::from_shape_fn(x.raw_dim(), |at| {
                    let c = at[0];
                    (x[&at] - mean[[c]]) / (var[[c]] + eps).sqrt() * gamma[[c]] + beta[[c]]
                })
            }
            Op::Relu => x.mapv(|v| v.max(0.0)),
            Op::MaxPool2d { window } => pool(x, window, f64::NEG_INFINITY, f64::max, 1.0),
            Op::AvgPool2d { window } => {
                pool(x, window, 0.0, |a, b| a + b, (window.kernel[0] * window.kernel[1]) as f64)
            }
            Op::AdaptiveAvgPool2d { output } => adaptive(x, *output),
            Op::Flatten => x.to_shape(IxDyn(&[x.len()])).unwrap().to_owned(),
            Op::Add => inputs[1..].iter().fold(x.clone(), |sum, other| sum + *other),
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
