//! Moments of the joint features z = [x¹; …; xᴺ] at the merge points: all networks see the same images in lockstep,
//! merge point by merge point, and only values that are still needed are kept.
//!
//! A batch's Σ(z − o) and Σ(z − o)(z − o)ᵀ are f32 sums over its B·H·W samples, counted from an origin o near the features'
//! means, so that a small variance about a large mean is not lost in the products; they are moved back to the origin 0 and
//! added in f64, in batch order. o is found from the batch alone. Results are therefore the same, bit for bit, for any
//! number of threads and in any split into shards of whole batches, but not for another batch size.

use crate::convert;
use crate::forward::{Run, Statistics};
use crate::ops::features_last;
use crate::parallel::{Failure, InOrder, each_batch, n_workers, read};
use crate::refit::patches;
use crate::{Device, Error, Network, Probes, Result};
use ndarray::{Array4, ArrayView2};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};
use tch::{Kind, Tensor};
use zipit::apply::check_trunks;
use zipit::graph::{MergePoint, Op};
use zipit::images::ImageBatches;
use zipit::importance::{Importance, PlaceSums};
use zipit::refit::Gram;
use zipit::refit::gram::patch_size;
use zipit::watch::Watch;
use zipit::{Collected, Extent, Moments, Moved};

/// So many samples of a batch tell what its features are counted from.
const N_ORIGIN: i64 = 256;
/// A mean is large if its square is beyond so many variances.
const LARGE_MEAN: f64 = 64.0;

/// Adds the moments of the batches in `range` to `into`, which gets a new entry for each point it does not hold, and
/// returns how many batches were done: all, or after an interruption the first so many of the range.
///
/// The networks must have the same trunk; [`Network::folded`] with the points' names kept is the fastest. On the CPU,
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
    let mut totals = Collected { moments: std::mem::take(into), ..Collected::default() };
    let done = measure(networks, points, &mut totals, None, batches, range, watch)?;
    *into = totals.moments;
    Ok(done)
}

/// As [`moments`], with the second moments of what layers read, the ranges of values and the importance of points that
/// have an entry in the totals. Importance takes `probes`, and networks that are [traced](Network::traced) at what is made
/// at their places ([`Graph::places`](zipit::Graph::places)).
///
/// # Errors
/// As [`moments`]; layers and values that the networks do not have.
pub fn measure(
    networks: &[&Network],
    points: &[MergePoint],
    totals: &mut Collected,
    probes: Option<&Probes>,
    batches: &dyn ImageBatches,
    range: Range<usize>,
    watch: &dyn Watch,
) -> Result<usize> {
    let Collected { moments: into, grams, extents, importance, .. } = totals;
    let device = check(networks, points, batches, &range)?;
    let n = networks.len();
    for point in points {
        into.entry(point.name.clone()).or_insert_with(|| Moments::zeros(n * point.dim));
    }
    let mut stops = at_points(networks, points, into)?;
    stops.extend(at_layers(networks, grams)?);
    let made_at = at_places(networks, points, importance, &mut stops)?;
    check_sizes(&stops, n)?;
    // The networks have their trunk in one order.
    stops.sort_by_key(|(stop, _)| stop.at[0]);
    let mut seen: Vec<Seen<'_>> = Vec::new();
    for (value, extent) in extents.iter_mut() {
        seen.push(Seen { at: made(networks, value)?, value, extent: Mutex::new(extent) });
    }
    seen.sort_by_key(|seen| seen.at[0]);
    let widest = stops.iter().flat_map(|(_, moments)| moments).map(|moments| moments.n_joint()).max();
    let squares = Squares::new(widest.unwrap_or(0), n_workers(device, range.len()));
    let first = range.start;
    let (stops, sums): (Vec<Stop<'_>>, Vec<_>) =
        stops.into_iter().map(|(stop, moments)| (stop, InOrder::new(first, moments))).unzip();

    let (made_at, by_logits): (Vec<Made<'_>>, Vec<_>) =
        made_at.into_iter().map(|(made, own)| (made, InOrder::new(first, own.iter_mut().collect()))).unzip();

    let failure = Failure::default();
    let workers: Vec<Vec<Network>> = (0..n_workers(device, range.len()))
        .map(|_| networks.iter().map(|network| network.replicate()).collect())
        .collect();
    each_batch(workers, range, watch, &failure, |networks: &mut Vec<Network>, batch| {
        let images = read(batches, batch)?;
        let input = networks[0].input(&images)?;
        let mut runs: Vec<(Run<'_>, Vec<[Tensor; 2]>)> =
            networks.iter().map(|n| (n.start(input.shallow_clone(), Statistics::Running), vec![])).collect();
        // Each network runs up to the next stop by itself: its values stay in the processor's caches.
        for (stop, sums) in stops.iter().zip(&sums) {
            let samples = |(i, (run, ranges)): (usize, &mut (Run<'_>, Vec<[Tensor; 2]>))| -> Result<Tensor> {
                advance(run, i, stop.at[i], &seen, ranges)?;
                stop.samples(&run.value(&stop.value)?.f_detach()?)
            };
            let samples: Vec<Tensor> = runs.iter_mut().enumerate().map(samples).collect::<Result<_>>()?;
            let together = if stop.alone { 1 } else { samples.len() };
            let products: Vec<Products<'_>> = samples
                .chunks(together)
                .enumerate()
                .map(|(i, samples)| Products::of(samples, &squares, stop.name, i * together, batch))
                .collect::<Result<_>>()?;
            drop(samples);
            sums.hand_in(batch, products, &failure, add_all)?;
        }
        for (i, (run, ranges)) in runs.iter_mut().enumerate() {
            advance(run, i, seen.last().map_or(0, |seen| seen.at[i]), &seen, ranges)?;
        }
        for (at, Seen { value, extent, .. }) in seen.iter().enumerate() {
            let end = |which: usize| -> Result<Vec<f32>> {
                Ok(runs
                    .iter()
                    .map(|(_, ranges)| convert::numbers(&ranges[at][which]))
                    .collect::<Result<Vec<_>>>()?
                    .concat())
            };
            let found = Extent { low: end(0)?, high: end(1)? };
            found.validate(value).map_err(|e| Error::NotFinite(format!("batch {batch}: {e}; check the weights")))?;
            extent.lock().unwrap_or_else(PoisonError::into_inner).merge(&found)?;
        }
        if let Some(probes) = probes.filter(|_| !made_at.is_empty()) {
            let runs = runs.into_iter().map(|(run, _)| run).collect();
            let found = gradients(networks, runs, probes, &made_at, &squares, (&images, batch))?;
            for (sums, products) in by_logits.iter().zip(found) {
                sums.hand_in(batch, products, &failure, add_all)?;
            }
        }
        Ok(images.shape()[0] as u64)
    })
}

/// Adds a batch's products to the sums that they belong to.
fn add_all(moments: &mut Vec<&mut Moments>, products: Vec<Products<'_>>) -> Result<()> {
    moments.iter_mut().zip(products).try_for_each(|(moments, products)| products.add_to(moments))
}

/// What is summed up at a stop.
type Sums<'a> = Vec<(Stop<'a>, Vec<&'a mut Moments>)>;

/// The merge points.
fn at_points<'a>(
    networks: &[&Network],
    points: &'a [MergePoint],
    into: &'a mut BTreeMap<String, Moments>,
) -> Result<Sums<'a>> {
    let mut stops = Vec::new();
    for (name, moments) in into {
        let Some(point) = points.iter().find(|point| point.name == *name) else { continue };
        let at = made(networks, &point.measured.value)?;
        let (value, features) = (point.measured.value.as_str().into(), numbers(point.measured.features.as_deref()));
        stops.push((Stop { at, value, op: None, features, name, dim: point.dim, alone: false }, vec![moments]));
    }
    Ok(stops)
}

/// What layers read.
fn at_layers<'a>(networks: &'a [&Network], grams: &'a mut BTreeMap<String, Gram>) -> Result<Sums<'a>> {
    let mut stops = Vec::new();
    for (name, gram) in grams {
        let missing = || Error::Request(format!("the networks have no layer `{name}`"));
        let mut nodes = networks.iter().flat_map(|network| &network.graph().nodes);
        let node = nodes.find(|node| node.module.as_ref() == Some(name)).ok_or_else(missing)?;
        let dim = patch_size(&node.op).ok_or_else(missing)?;
        let stop = Stop {
            at: made(networks, &node.inputs[0])?,
            value: node.inputs[0].as_str().into(),
            op: Some(&node.op),
            features: None,
            name,
            dim,
            alone: matches!(gram, Gram::Own(_)),
        };
        let moments = match gram {
            Gram::Joint(moments) => vec![moments],
            Gram::Own(each) => each.iter_mut().collect(),
        };
        stops.push((stop, moments));
    }
    Ok(stops)
}

/// The places of points whose importance is measured: where gradients are taken, and what is measured there of joint
/// features, with the other stops.
fn at_places<'a>(
    networks: &[&Network],
    points: &[MergePoint],
    importance: &'a mut BTreeMap<String, Importance>,
    stops: &mut Sums<'a>,
) -> Result<Vec<(Made<'a>, &'a mut Vec<Moments>)>> {
    let mut made_at = Vec::new();
    for (name, Importance { places }) in importance {
        let Some(point) = points.iter().find(|point| point.name == *name) else { continue };
        let known = networks[0].graph().places(point)?;
        if known.len() != places.len() {
            return Err(Error::Request(format!(
                "`{name}` holds importance at {} places, but the networks have {}",
                places.len(),
                known.len()
            )));
        }
        for (place, PlaceSums { joint, gradients }) in known.into_iter().zip(places) {
            if let Some(joint) = joint {
                let at = made(networks, &place.read.value)?;
                let (value, features) = (place.read.value.into(), numbers(place.read.features.as_deref()));
                stops.push((Stop { at, value, op: None, features, name, dim: point.dim, alone: false }, vec![joint]));
            }
            let features = numbers(place.made.features.as_deref());
            made_at.push((Made { value: place.made.value, features, name }, gradients));
        }
    }
    Ok(made_at)
}

fn numbers(features: Option<&[usize]>) -> Option<Vec<i64>> {
    features.map(|all| all.iter().map(|&j| j as i64).collect())
}

/// Sums of other networks are not gone on with.
fn check_sizes(stops: &Sums<'_>, n: usize) -> Result<()> {
    for (stop, moments) in stops {
        if moments.iter().map(|m| m.n_joint()).sum::<usize>() != n * stop.dim {
            return Err(Error::Request(format!(
                "`{}` holds moments of {} features, but {n} networks have {} there",
                stop.name,
                moments.iter().map(|m| m.n_joint()).sum::<usize>(),
                stop.dim
            )));
        }
    }
    Ok(())
}

/// Sums of one batch's gradients where they are `made`, network by network.
fn gradients<'a>(
    networks: &[Network],
    runs: Vec<Run<'_>>,
    probes: &Probes,
    made: &[Made<'_>],
    squares: &'a Squares,
    (images, batch): (&Array4<f32>, usize),
) -> Result<Vec<Vec<Products<'a>>>> {
    let mut all: Vec<Vec<Products<'_>>> = made.iter().map(|_| Vec::with_capacity(networks.len())).collect();
    let values: Vec<&str> = made.iter().map(|made| made.value.as_str()).collect();
    for (i, (network, mut run)) in networks.iter().zip(runs).enumerate() {
        let graph = network.graph();
        run.advance_to(graph.nodes.len())?;
        let found = probes.gradients(i, &run, &graph.outputs, &values, images, network.device())?;
        drop(run);
        for ((made, gradient), products) in made.iter().zip(found).zip(&mut all) {
            let samples = picked(&gradient, made.features.as_deref())?;
            products.push(Products::of(&[samples], squares, &format!("gradients at {}", made.name), i, batch)?);
        }
    }
    Ok(all)
}

/// Where gradients are taken.
struct Made<'a> {
    value: String,
    /// Which of its features, unless all.
    features: Option<Vec<i64>>,
    /// The merge point.
    name: &'a str,
}

/// A value whose range is taken.
struct Seen<'a> {
    /// How many nodes of each network run before.
    at: Vec<usize>,
    value: &'a str,
    extent: Mutex<&'a mut Extent>,
}

/// Runs the first `to` nodes of network i and takes the ranges of what is asked for on the way, `[C]` each.
fn advance(run: &mut Run<'_>, i: usize, to: usize, seen: &[Seen<'_>], ranges: &mut Vec<[Tensor; 2]>) -> Result<()> {
    while let Some(next) = seen.get(ranges.len()).filter(|next| next.at[i] <= to) {
        run.advance_to(next.at[i])?;
        ranges.push(range(&samples(&run.value(next.value)?.f_detach()?)?)?);
    }
    run.advance_to(to)
}

/// min and max of each column of `[S, C]`. LibTorch's reductions of rows are vectorised over columns by the 32, and fifty
/// times slower on what is left, so that rows are laid side by side until they are so wide.
fn range(x: &Tensor) -> Result<[Tensor; 2]> {
    const WIDE: i64 = 32;
    let (n_samples, c) = x.size2()?;
    let n_side = (0..WIDE.ilog2()).map(|k| 1 << k).find(|n| n * c % WIDE == 0).unwrap_or(WIDE);
    let n_rows = n_samples / n_side;
    if n_side == 1 || n_rows < 2 {
        return Ok([x.f_amin([0], false)?, x.f_amax([0], false)?]);
    }
    let wide = x.f_narrow(0, 0, n_rows * n_side)?.f_reshape([n_rows, n_side * c])?;
    let rest = x.f_narrow(0, n_rows * n_side, n_samples - n_rows * n_side)?;
    let columns = |of_rows: Tensor| Tensor::f_cat(&[of_rows.f_reshape([n_side, c])?, rest.shallow_clone()], 0);
    Ok([columns(wide.f_amin([0], false)?)?.f_amin([0], false)?, columns(wide.f_amax([0], false)?)?.f_amax([0], false)?])
}

/// A place where the networks are measured.
struct Stop<'a> {
    /// How many nodes of each network run before.
    at: Vec<usize>,
    /// What is measured: a value, or the patches of it that a layer reads.
    value: Cow<'a, str>,
    op: Option<&'a Op>,
    /// Which of its features, unless all.
    features: Option<Vec<i64>>,
    /// What it is called.
    name: &'a str,
    /// Numbers per sample and network.
    dim: usize,
    /// Whether each network is measured by itself.
    alone: bool,
}

impl Stop<'_> {
    /// `[S, dim]`.
    fn samples(&self, value: &Tensor) -> Result<Tensor> {
        match self.op {
            Some(Op::Conv2d { window, .. }) => Ok(patches(value, window, 1)?.f_squeeze_dim(0)?),
            _ => picked(value, self.features.as_deref()),
        }
    }
}

/// Some of a value's features, or all, as `[S, C]`.
fn picked(value: &Tensor, features: Option<&[i64]>) -> Result<Tensor> {
    let Some(features) = features else { return samples(value) };
    let features = Tensor::f_from_slice(features)?.f_to_device(value.device())?;
    samples(&value.f_index_select(1, &features)?)
}

/// How many nodes of each network run until it has made `value`.
fn made(networks: &[&Network], value: &str) -> Result<Vec<usize>> {
    let mut at = Vec::with_capacity(networks.len());
    let mut found = Vec::with_capacity(networks.len());
    for network in networks {
        let graph = network.graph();
        let place = graph.nodes.iter().position(|node| node.name == value).map(|i| i + 1);
        let missing = || Error::Request(format!("not all networks have a value `{value}`"));
        at.push(place.or((graph.input.name == value).then_some(0)).ok_or_else(missing)?);
        found.push(graph.shapes()?[value].clone());
    }
    if found.iter().any(|shape| *shape != found[0]) {
        return Err(Error::Request(format!("`{value}` is of different shapes in the networks")));
    }
    Ok(at)
}

fn check(
    networks: &[&Network],
    points: &[MergePoint],
    batches: &dyn ImageBatches,
    range: &Range<usize>,
) -> Result<Device> {
    let request = |what: String| Err(Error::Request(what));
    let Some((first, others)) = networks.split_first() else { return request("no networks to measure".into()) };
    check_trunks(&networks.iter().map(|network| network.graph()).collect::<Vec<_>>())?;
    if let Some(i) = others.iter().position(|other| other.device() != first.device()) {
        return request(format!("network {} is on another device than the first", i + 2));
    }
    let shapes = first.graph().shapes()?;
    for point in points {
        let measured = &point.measured;
        if first.graph().node(&measured.value).is_none() {
            return request(format!("the networks have no value `{}` (is it kept from folding?)", measured.value));
        }
        let dim = measured.features.as_ref().map_or(shapes[measured.value.as_str()][0], Vec::len);
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
struct Products<'a> {
    count: u64,
    /// What they are counted from, `[N·d]`.
    origin: Vec<f32>,
    sum: Vec<f32>,
    /// `[N·d, N·d]`, the upper triangle.
    outer: Lent<'a>,
}

impl<'a> Products<'a> {
    /// # Errors
    /// Features that are not finite.
    fn of(samples: &[Tensor], squares: &'a Squares, point: &str, first_network: usize, batch: usize) -> Result<Self> {
        let (n_samples, d) = samples[0].size2()?;
        let n_joint = d * samples.len() as i64;
        let options = (Kind::Float, samples[0].device());
        let sum = Tensor::f_zeros([n_joint], options)?;
        let outer = squares.lend(n_joint, samples[0].device())?;
        let origins: Vec<Tensor> = samples.iter().map(origin).collect::<Result<_>>()?;
        let centred = |(x, o): (&Tensor, &Tensor)| -> Result<Tensor> {
            Ok(if o.f_any()?.f_int64_value(&[])? == 0 { x.shallow_clone() } else { x.f_sub(o)? })
        };
        let samples: Vec<Tensor> = samples.iter().zip(&origins).map(centred).collect::<Result<_>>()?;
        let origin = Tensor::f_cat(&origins, 0)?;
        for (i, x) in (0..).zip(&samples) {
            let transposed = x.f_tr()?;
            // By pairs, for its error comes back times the origin; a product with ones adds one after the other.
            let total = x.f_sum_dim_intlist(&[0_i64][..], false, Kind::Float)?;
            sum.f_narrow(0, i * d, d)?.f_copy_(&total)?;
            let rows = outer.square.f_narrow(0, i * d, d)?;
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
        let diagonal: Vec<f32> = convert::numbers(&outer.square.f_diagonal(0, 0, 1)?.f_contiguous()?)?;
        let products =
            Self { count: n_samples as u64, origin: convert::numbers(&origin)?, sum: convert::numbers(&sum)?, outer };
        // |Σz_i z_j|² ≤ Σz_i² · Σz_j²: a finite diagonal means finite products.
        match products.sum.iter().zip(diagonal).position(|(s, square)| !s.is_finite() || !square.is_finite()) {
            None => Ok(products),
            Some(i) => Err(Error::NotFinite(format!(
                "`{point}`, batch {batch}: feature {} of network {} is NaN or too large; check that network's weights \
                 and its BatchNorm statistics",
                i % d as usize,
                first_network + i / d as usize + 1
            ))),
        }
    }

    fn add_to(&self, moments: &mut Moments) -> Result<()> {
        let n = self.sum.len();
        let moved = Moved::new(&self.origin, self.count, &self.sum);
        moments.add_sums(&moved);
        let height = (STRIP / n.max(1)).max(1);
        let mut strip = vec![0.0; height.min(n) * n];
        let outer = self.outer.square.f_to_device(tch::Device::Cpu)?;
        for first in (0..n).step_by(height) {
            let height = height.min(n - first);
            let rows = outer.f_narrow(0, first as i64, height as i64)?;
            rows.f_copy_data(&mut strip, height * n)?;
            let rows = ArrayView2::from_shape((height, n), &strip[..height * n]).expect("rows of features");
            moments.add_rows(&moved, first, rows);
        }
        Ok(())
    }
}

/// Numbers of a product that are read at once: what the processor's cache holds.
const STRIP: usize = 1 << 16;

/// Matrices for batches' products, used again and again: the system clears the pages of a new one, and of a wide layer's
/// that takes longer than its product.
struct Squares {
    free: Mutex<Vec<Tensor>>,
    /// As many numbers may lie idle.
    limit: usize,
}

impl Squares {
    /// For sums of up to `widest` features by so many threads.
    fn new(widest: usize, n_workers: usize) -> Self {
        Self { free: Mutex::default(), limit: 2 * n_workers * widest * widest }
    }

    /// `[n, n]`, whatever stands in it.
    fn lend(&self, n: i64, device: tch::Device) -> Result<Lent<'_>> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let used = free.iter().position(|square| square.size()[0] == n).map(|i| free.remove(i));
        drop(free);
        let square = used.map_or_else(|| Tensor::f_empty([n, n], (Kind::Float, device)), Ok)?;
        Ok(Lent { square, of: self })
    }
}

/// A matrix that goes back where it is from.
struct Lent<'a> {
    square: Tensor,
    of: &'a Squares,
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        let mut free = self.of.free.lock().unwrap_or_else(PoisonError::into_inner);
        free.push(self.square.shallow_clone());
        // The smallest are the cheapest to clear.
        free.sort_by_key(|square| std::cmp::Reverse(square.numel()));
        while free.iter().map(Tensor::numel).sum::<usize>() > self.of.limit {
            free.pop();
        }
    }
}

/// What the features of `[S, d]` samples are counted from, `[d]`: the mean of samples all over them where it is large beside
/// their deviation, and 0 elsewhere. An activation is 0 at most positions of many features: counted from a mean, these
/// would be equal numbers, whose sum in f32 is rounded in one direction, where from 0 they add nothing.
fn origin(x: &Tensor) -> Result<Tensor> {
    let some = x.f_slice(0, None, None, (x.size()[0] / N_ORIGIN).max(1))?;
    let mean = some.f_mean_dim(0, false, Kind::Float)?;
    let variance = some.f_sub(&mean)?.f_square()?.f_mean_dim(0, false, Kind::Float)?;
    let large = mean.f_square()?.f_gt_tensor(&variance.f_mul_scalar(LARGE_MEAN)?)?;
    Ok(mean.f_mul(&large.f_to_kind(Kind::Float)?)?)
}

/// Rows of a symmetric product that are computed together: fewer waste less below the diagonal, but below some width
/// the product is slower than what it saves.
fn strip_width(d: i64) -> i64 {
    if d <= 32 { 16 } else { (d / 8).max(32) }
}

/// `[B, C, …]` as `[B·positions, C]`, a view where the features lie side by side; `[B, F]` as it is.
pub(crate) fn samples(value: &Tensor) -> Result<Tensor> {
    let c = value.size()[1];
    Ok(features_last(value)?.f_reshape([-1, c])?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_every_shape() {
        for (n_samples, c) in [(1, 1), (1, 64), (3, 16), (65, 16), (64, 32), (131, 7), (100, 48), (40, 5)] {
            let x = Tensor::f_randn([n_samples, c], (Kind::Float, tch::Device::Cpu)).unwrap();
            let values = convert::numbers(&x).unwrap();
            let column = |j: usize| values.iter().copied().skip(j).step_by(c as usize);
            let [low, high] = range(&x).unwrap().map(|end| convert::numbers(&end).unwrap());
            let columns = || (0..c as usize).map(column);
            let lowest: Vec<f32> = columns().map(|column| column.fold(f32::INFINITY, f32::min)).collect();
            let highest: Vec<f32> = columns().map(|column| column.fold(f32::NEG_INFINITY, f32::max)).collect();
            assert_eq!((low, high), (lowest, highest), "{n_samples}×{c}");
        }
        let mut unsound = Tensor::f_zeros([70, 16], (Kind::Float, tch::Device::Cpu)).unwrap();
        let _ = unsound.f_narrow(0, 33, 1).unwrap().f_fill_(f64::NAN).unwrap();
        assert!(
            range(&unsound).unwrap().iter().all(|end| convert::numbers::<f32>(end).unwrap().iter().all(|x| x.is_nan()))
        );
        unsound = unsound.f_zeros_like().unwrap();
        assert!(
            range(&unsound).unwrap().iter().all(|end| convert::numbers::<f32>(end).unwrap().iter().all(|&x| x == 0.0))
        );
    }
}
