//! Moments of the joint features z = [x¹; …; xᴺ] at the merge points: all networks see the same images in lockstep,
//! merge point by merge point, and only values that are still needed are kept.
//!
//! A batch's Σz and Σzzᵀ are f32 sums over its B·H·W samples; batches are added in f64, in batch order. Results
//! are therefore the same, bit for bit, for any number of threads, but not for another batch size.

use crate::forward::{Run, Statistics};
use crate::parallel::{Failure, InOrder, each_batch, n_workers, read};
use crate::{Device, Error, Network, Result};
use ndarray::ArrayView2;
use std::collections::BTreeMap;
use std::ops::Range;
use tch::{Kind, Tensor};
use zipit::Moments;
use zipit::graph::MergePoint;
use zipit::images::ImageBatches;
use zipit::watch::Watch;

/// Adds the moments of the batches in `range` to `into`, which gets a new entry for each point it does not hold, and
/// returns how many batches were done: all, or after an interruption the first so many of the range.
///
/// The networks must have the same graph; [`Network::folded`] with the points' names kept is the fastest. On the CPU,
/// batches are spread over as many threads as the current rayon pool has.
///
/// # Errors
/// Networks that differ, points they do not have, images that cannot be read, and features that are not finite, by
/// point and batch. `into` is of no use after an error.
pub fn moments(
    networks: &[&Network],
    points: &[MergePoint],
    batches: &dyn ImageBatches,
    range: Range<usize>,
    into: &mut BTreeMap<String, Moments>,
    watch: &dyn Watch,
) -> Result<usize> {
    let device = check(networks, points, batches, &range)?;
    let n = networks.len();
    for point in points {
        let moments = into.entry(point.name.clone()).or_insert_with(|| Moments::zeros(n * point.dim));
        if moments.n_joint() != n * point.dim {
            return Err(Error::Request(format!(
                "`{}` holds moments of {} features, but {n} networks have {} there",
                point.name,
                moments.n_joint(),
                n * point.dim
            )));
        }
    }
    let nodes = &networks[0].graph().nodes;
    let names: BTreeMap<&str, usize> = points.iter().enumerate().map(|(i, p)| (p.name.as_str(), i)).collect();
    let mut stretches: Vec<Stretch> = Vec::new();
    let mut n_nodes = 0;
    for node in nodes {
        n_nodes += 1;
        if let Some(&point) = names.get(node.name.as_str()) {
            stretches.push(Stretch { n_nodes, point });
            n_nodes = 0;
        }
    }
    let mut sums: Vec<Option<&mut Moments>> = points.iter().map(|_| None).collect();
    for (name, moments) in into.iter_mut() {
        if let Some(&i) = names.get(name.as_str()) {
            sums[i] = Some(moments);
        }
    }
    let first = range.start;
    let sums: Vec<InOrder<&mut Moments, Products>> =
        sums.into_iter().flatten().map(|m| InOrder::new(first, m)).collect();

    let failure = Failure::default();
    let workers: Vec<Vec<Network>> = (0..n_workers(device, range.len()))
        .map(|_| networks.iter().map(|network| network.replicate()).collect())
        .collect();
    each_batch(workers, range, watch, &failure, |networks: &mut Vec<Network>, batch| {
        let images = read(batches, batch)?;
        let input = networks[0].input(&images)?;
        let mut runs: Vec<Run<'_>> =
            networks.iter().map(|n| n.start(input.shallow_clone(), Statistics::Running)).collect();
        // Each network runs up to the next merge point by itself: its values stay in the processor's caches.
        for stretch in &stretches {
            let run_stretch = |run: &mut Run<'_>| -> Result<Tensor> {
                for _ in 1..stretch.n_nodes {
                    run.step()?;
                }
                Ok(run.step()?.shallow_clone())
            };
            let values: Vec<Tensor> = runs.iter_mut().map(run_stretch).collect::<Result<_>>()?;
            let products = Products::of(&values, &points[stretch.point].name, batch)?;
            drop(values);
            sums[stretch.point].hand_in(batch, products, &failure, |moments, products| products.add_to(moments));
        }
        Ok(images.shape()[0] as u64)
    })
}

/// The nodes from one merge point to the next.
struct Stretch {
    n_nodes: usize,
    /// The merge point at its end.
    point: usize,
}

fn check(
    networks: &[&Network],
    points: &[MergePoint],
    batches: &dyn ImageBatches,
    range: &Range<usize>,
) -> Result<Device> {
    let request = |what: String| Err(Error::Request(what));
    let Some((first, others)) = networks.split_first() else { return request("no networks to measure".into()) };
    if let Some(i) = others.iter().position(|other| other.graph() != first.graph()) {
        return request(format!("network {} has another graph than the first", i + 2));
    }
    if let Some(i) = others.iter().position(|other| other.device() != first.device()) {
        return request(format!("network {} is on another device than the first", i + 2));
    }
    let shapes = first.graph().shapes()?;
    for point in points {
        if first.graph().node(&point.name).is_none() {
            return request(format!("the networks have no value `{}` (is it kept from folding?)", point.name));
        }
        let dim = shapes[point.name.as_str()][0];
        if dim != point.dim {
            return request(format!("`{}` has {dim} features, the merge point says {}", point.name, point.dim));
        }
    }
    if range.start > range.end || range.end > batches.n_batches() {
        return request(format!("batches {}–{} of {}", range.start, range.end, batches.n_batches()));
    }
    Ok(first.device())
}

/// One batch's sums at one merge point.
struct Products {
    count: u64,
    sum: Vec<f32>,
    /// `[N·d, N·d]`, the upper triangle.
    outer: Vec<f32>,
}

impl Products {
    /// # Errors
    /// Features that are not finite.
    fn of(values: &[Tensor], point: &str, batch: usize) -> Result<Self> {
        let samples: Vec<Tensor> = values.iter().map(samples).collect::<Result<_>>()?;
        let (n_samples, d) = samples[0].size2()?;
        let n_joint = d * samples.len() as i64;
        let options = (Kind::Float, samples[0].device());
        let (sum, outer) = (Tensor::f_zeros([n_joint], options)?, Tensor::f_zeros([n_joint, n_joint], options)?);
        let ones = Tensor::f_ones([n_samples], options)?;
        for (i, x) in (0..).zip(&samples) {
            let transposed = x.f_tr()?;
            let _ = transposed.f_mv_out(&sum.f_narrow(0, i * d, d)?, &ones)?;
            let rows = outer.f_narrow(0, i * d, d)?;
            // Within a model only the upper triangle is wanted: strips of it, as wide as the product stays fast.
            let strip = strip_width(d);
            for from in (0..d).step_by(strip as usize) {
                let height = strip.min(d - from);
                let block = rows.f_narrow(0, from, height)?.f_narrow(1, i * d + from, d - from)?;
                let left = transposed.f_narrow(0, from, height)?;
                let _ = left.f_mm_out(&block, &x.f_narrow(1, from, d - from)?)?;
            }
            for (j, y) in (i + 1..).zip(&samples[i as usize + 1..]) {
                let _ = transposed.f_mm_out(&rows.f_narrow(1, j * d, d)?, y)?;
            }
        }
        let products = Self { count: n_samples as u64, sum: floats(&sum)?, outer: floats(&outer)? };
        // |Σz_i z_j|² ≤ Σz_i² · Σz_j²: a finite diagonal means finite products.
        let diagonal = products.outer.iter().step_by(n_joint as usize + 1);
        match products.sum.iter().zip(diagonal).position(|(s, square)| !s.is_finite() || !square.is_finite()) {
            None => Ok(products),
            Some(i) => Err(Error::NotFinite(format!(
                "`{point}`, batch {batch}: feature {} of network {} is NaN or too large; check that network's weights \
                 and its BatchNorm statistics",
                i % d as usize,
                i / d as usize + 1
            ))),
        }
    }

    fn add_to(&self, moments: &mut Moments) {
        let n = self.sum.len();
        let outer = ArrayView2::from_shape((n, n), &self.outer).expect("a square of features");
        moments.add_batch(self.count, &self.sum, outer);
    }
}

/// Rows of a symmetric product that are computed together: fewer waste less below the diagonal, but below some width
/// the product is slower than what it saves.
fn strip_width(d: i64) -> i64 {
    if d <= 32 { 16 } else { (d / 8).max(32) }
}

/// `[B, C, H, W]` as `[B·H·W, C]`, a view where the channels lie side by side; `[B, F]` as it is.
fn samples(value: &Tensor) -> Result<Tensor> {
    match value.size()[..] {
        [_, c, _, _] => Ok(value.f_permute([0, 2, 3, 1])?.f_reshape([-1, c])?),
        _ => Ok(value.shallow_clone()),
    }
}

fn floats(tensor: &Tensor) -> Result<Vec<f32>> {
    let tensor = tensor.f_to_device(tch::Device::Cpu)?;
    let mut values = vec![0.0; tensor.numel()];
    let n = values.len();
    tensor.f_copy_data(&mut values, n)?;
    Ok(values)
}
