//! What layers read, so that their weights can be learned in whitened inputs.

use super::unknowns::Layer;
use crate::convert::numbers;
use crate::forward::Network;
use crate::images::Picked;
use crate::ops::features_last;
use crate::parallel::{Failure, InOrder, all_batches, n_workers, read, replicas};
use crate::refit::patches;
use crate::{Error, Result};
use ndarray::{Array2, Array3, Axis, parallel::prelude::*};
use std::collections::BTreeMap;
use tch::{Kind, Tensor};
use zipit::graph::{Node, Op, Window};
use zipit::images::ImageBatches;
use zipit::symmetric::whitening;
use zipit::watch::Watch;

/// Weight of the identity in what is taken the root of.
const RIDGE: f64 = 1e-3;
/// Layers that read more than so many numbers are learned as they are: the root of their second moment would take longer
/// than all of the learning.
const LARGEST: usize = 5_000;
/// Samples that are enough, for each number that is read and in all.
const ENOUGH: [usize; 2] = [32, 32_768];
/// At most every so many-th position along an axis is looked at.
const LARGEST_STEP: i64 = 4;

/// Layers that read one value in one way.
#[derive(Debug, Clone, PartialEq)]
struct Reading {
    /// Of the value.
    value: String,
    window: Window,
    groups: i64,
    bias: bool,
    /// Every so many-th position, along each axis.
    step: i64,
    n: usize,
    layers: Vec<String>,
}

/// S = (A + 10⁻³·mean(diag A)·I)^(−½), A = E x̂x̂ᵀ over images and positions, x̂ = \[patch; 1\], `[G, n, n]`, by the layer's
/// weight.
pub(super) fn roots(
    network: &Network,
    layers: &[Layer],
    images: &Picked<'_>,
    watch: &dyn Watch,
) -> Result<BTreeMap<String, Array3<f32>>> {
    let readings = readings(network, layers, images.n_images())?;
    if readings.is_empty() {
        return Ok(BTreeMap::new());
    }
    let n_batches = images.n_batches();
    let workers = replicas(network, n_workers(network.device(), n_batches));
    let sums: Vec<Option<(Tensor, i64)>> = readings.iter().map(|_| None).collect();
    let sum = InOrder::new(0, sums);
    let failure = Failure::default();
    all_batches(workers, n_batches, watch, &failure, |network, batch| {
        let images = read(images, batch)?;
        let parts = moments(network, &readings, &images)?;
        sum.hand_in(batch, parts, &failure, |sums, parts| {
            for (sum, (part, n)) in sums.iter_mut().zip(parts) {
                match sum {
                    Some((sum, all)) => {
                        let _ = sum.f_add_(&part)?;
                        *all += n;
                    }
                    None => *sum = Some((part, n)),
                }
            }
            Ok(())
        })?;
        Ok(images.shape()[0] as u64)
    })?;
    // Each layer's group by itself: a root of one is taken by one thread.
    let mut all: Vec<(usize, Array2<f64>)> = Vec::new();
    for (i, (reading, sum)) in readings.iter().zip(sum.into_inner()).enumerate() {
        let (sum, n) = sum.ok_or_else(|| Error::Fault(format!("nothing was read from `{}`", reading.value)))?;
        let flat = numbers::<f64>(&sum.f_div_scalar(n)?)?;
        let groups = flat.chunks_exact(reading.n * reading.n);
        for group in groups {
            let matrix = Array2::from_shape_vec((reading.n, reading.n), group.to_vec());
            all.push((i, matrix.map_err(|e| Error::Fault(e.to_string()))?));
        }
    }
    let found: Vec<(usize, Array2<f64>)> =
        all.into_par_iter().map(|(i, a)| Ok((i, whitening(a.view(), RIDGE)?))).collect::<zipit::Result<_>>()?;
    let mut roots = BTreeMap::new();
    for (i, reading) in readings.iter().enumerate() {
        let own: Vec<_> = found.iter().filter(|(of, _)| *of == i).map(|(_, root)| root.view()).collect();
        let stacked = ndarray::stack(Axis(0), &own).map_err(|e| Error::Fault(e.to_string()))?;
        let stacked = stacked.mapv(|x| x as f32);
        roots.extend(reading.layers.iter().map(|layer| (layer.clone(), stacked.clone())));
    }
    Ok(roots)
}

/// What the layers read, each thing once.
fn readings(network: &Network, layers: &[Layer], n_images: usize) -> Result<Vec<Reading>> {
    let graph = network.graph();
    let shapes = graph.shapes()?;
    let mut found: Vec<Reading> = Vec::new();
    for layer in layers {
        // What is shared by several nodes reads several values; the first is as good as any.
        let node = &graph.nodes[layer.nodes[0]];
        let (window, groups, n) = geometry(node, layer.bias.is_some());
        if n > LARGEST {
            continue;
        }
        let positions: usize = shapes[node.name.as_str()][1..].iter().product();
        let axes = shapes[node.name.as_str()].len().saturating_sub(1).min(2) as u32;
        let enough = ENOUGH[1].max(ENOUGH[0] * n);
        let fits = |step: &i64| n_images * positions / (*step as usize).pow(axes) >= enough;
        let step = if axes == 0 { 1 } else { (1..=LARGEST_STEP).rev().find(fits).unwrap_or(1) };
        let value = node.inputs[0].clone();
        let bias = layer.bias.is_some();
        let reading = Reading { value, window, groups, bias, step, n, layers: vec![] };
        let at = found.iter().position(|other| Reading { layers: vec![], ..other.clone() } == reading);
        let at = at.unwrap_or_else(|| {
            found.push(reading);
            found.len() - 1
        });
        found[at].layers.push(layer.weight.clone());
    }
    Ok(found)
}

/// A layer's window, its groups, and how many numbers an output of it is a sum of.
fn geometry(node: &Node, bias: bool) -> (Window, i64, usize) {
    match &node.op {
        Op::Conv2d { window, groups, in_channels, .. } => {
            let n = window.kernel.iter().product::<usize>() * in_channels / groups + usize::from(bias);
            (*window, *groups as i64, n)
        }
        Op::Linear { in_features, .. } => (Window::square(1, 1, 0), 1, in_features + usize::from(bias)),
        _ => unreachable!("layers are convolutions and linear"),
    }
}

/// Σ x̂x̂ᵀ of every reading, over a batch, `[G, n, n]` in f64, and over how many samples.
fn moments(network: &Network, readings: &[Reading], images: &ndarray::Array4<f32>) -> Result<Vec<(Tensor, i64)>> {
    let mut parts: Vec<Option<(Tensor, i64)>> = readings.iter().map(|_| None).collect();
    let mut see = |name: &str, value: &Tensor| -> Result<()> {
        for (reading, part) in readings.iter().zip(&mut parts).filter(|(reading, _)| reading.value == name) {
            *part = Some(moment(reading, value)?);
        }
        Ok(())
    };
    let input = network.input(images)?;
    see(&network.graph().input.name, &input)?;
    network.observe(input, see)?;
    let missing = |reading: &Reading| Error::Fault(format!("the value `{}` was not seen", reading.value));
    readings.iter().zip(parts).map(|(reading, part)| part.ok_or_else(|| missing(reading))).collect()
}

fn moment(reading: &Reading, value: &Tensor) -> Result<(Tensor, i64)> {
    let rows = if value.dim() == 4 && (reading.window.kernel != [1, 1] || reading.groups > 1 || reading.step > 1) {
        // A larger stride leaves positions out.
        let mut window = reading.window;
        window.stride = window.stride.map(|stride| stride * reading.step as usize);
        patches(value, &window, reading.groups)?
    } else {
        let mut last = features_last(value)?;
        if value.dim() == 3 && reading.step > 1 {
            last = last.f_slice(1, 0, None, reading.step)?;
        }
        if value.dim() == 4 {
            let [h, w] = reading.window.stride.map(|stride| stride as i64);
            last = last.f_slice(1, 0, None, h)?.f_slice(2, 0, None, w)?;
        }
        let n = last.size().last().copied().unwrap_or(1);
        last.f_reshape([1, -1, n])?
    };
    let rows = if reading.bias {
        let size = rows.size();
        Tensor::f_cat(&[&rows, &Tensor::f_ones([size[0], size[1], 1], (rows.kind(), rows.device()))?], 2)?
    } else {
        rows
    };
    Ok((rows.f_transpose(1, 2)?.f_matmul(&rows)?.f_to_kind(Kind::Double)?, rows.size()[1]))
}
