//! How much memory a stage takes at its peak, from the graph alone. On the CPU, on a ResNet-20, a ResNet-18 at 224 pixels
//! and a network of wide Linear layers, by one thread and by two: `collect` and `refit` within a fifth. Networks without
//! ReLU take more than is said here: `MobileNetV2` up to 1.8 times, a small vision transformer up to 1.3 times.

use crate::graph::{MergePoint, Op};
use crate::refit::{Design, Lattice, Positions, gram::patch_size};
use crate::{Graph, Result};
use std::collections::{BTreeMap, BTreeSet};

/// What the program and LibTorch take before they do anything.
const PROGRAM: usize = 150 << 20;
/// Freed tensors are kept to be used again, and never fit quite.
const KEPT: usize = 2;
/// Tensors of so many bytes are given back to the system at once: glibc's largest threshold.
const MAPPED: usize = 32 << 20;
/// What a program takes that runs no networks.
const WITHOUT_LIBTORCH: usize = 12_000_000;
/// Bytes that matching takes for each pair of a point's joint features: similarities, distances, the unmerge's system.
const PER_SQUARE: usize = 22;
const F32: usize = 4;
const F64: usize = 8;
/// Bytes of a batch's largest value: measured on ResNet-20 at 28×28, where 16 to 64 images are about equal.
const VALUE: usize = 2 << 20;

/// Images per batch at which a collection or a refit on the CPU runs fast: the largest value of a batch should stay in
/// the processor's caches, but very small batches pay too much for each operation and each sum. It depends on the graph
/// alone, never on the machine, so that results do not either.
///
/// # Errors
/// A malformed graph.
pub fn batch_size(graph: &Graph) -> Result<usize> {
    fitting(graph, VALUE, 8, 64)
}

/// The power of two of images, within bounds, whose largest value takes no more than so many bytes.
///
/// # Errors
/// A malformed graph.
pub fn fitting(graph: &Graph, bytes: usize, least: usize, most: usize) -> Result<usize> {
    let largest = graph.shapes()?.values().map(|shape| shape.iter().product::<usize>()).max().unwrap_or(1).max(1);
    Ok(1 << (bytes / (largest * F32)).clamp(least, most).ilog2())
}

/// How images go through the networks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Work {
    /// N.
    pub n_models: usize,
    /// Images per batch.
    pub batch_size: usize,
    /// Batches at a time.
    pub n_threads: usize,
}

/// What is collected of what every layer reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grams {
    /// Nothing.
    None,
    /// Of each model by itself.
    Own,
    /// Of all models with each other.
    Joint,
}

/// Bytes of a collection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Collection {
    /// Of the moments, in memory and in the file.
    pub moments: usize,
    /// Of the process at its peak.
    pub peak: usize,
}

/// Collecting moments at `points`, with models of `graph`, BatchNorm folded; with `importance` runs are recorded.
///
/// # Errors
/// A malformed graph.
pub fn collection(
    graph: &Graph,
    points: &[MergePoint],
    grams: Grams,
    importance: bool,
    work: Work,
) -> Result<Collection> {
    let n = work.n_models;
    let packed = |joint: usize| F64 * joint * (joint + 1) / 2;
    let squares = |joint: usize| F32 * joint * joint;
    // A product in LibTorch and its copy here.
    let product = |joint: usize| 2 * squares(joint);
    let mut moments: usize = points.iter().map(|point| packed(n * point.dim)).sum();
    let mut products = points.iter().map(|point| product(n * point.dim)).max().unwrap_or(0);
    for point in points.iter().filter(|_| importance) {
        for place in graph.places(point)? {
            let joint = if place.measured { 0 } else { packed(n * point.dim) };
            moments += joint + n * packed(point.dim);
        }
    }
    let mut patches = 0;
    if grams != Grams::None {
        let shapes = graph.shapes()?;
        for node in &graph.nodes {
            let Some(f) = patch_size(&node.op) else { continue };
            let [kept, made] = match grams {
                Grams::Joint => [packed(n * f), product(n * f)],
                Grams::Own | Grams::None => [n * packed(f), (n + 1) * squares(f)],
            };
            moments += kept;
            products = products.max(made);
            patches = patches.max(n * work.batch_size * F32 * unfolded(&node.op, &shapes[node.name.as_str()], f));
        }
    }
    let values = n * work.batch_size * F32 * if importance { recorded(graph)? } else { most(&live(graph)?).at };
    let at_once = work.n_threads * (products + KEPT * (values + patches));
    // The models, folded, on the device; and the file is mapped to be hashed, after the networks have run.
    let peak = PROGRAM + 3 * n * weights(graph) + moments + at_once.max(moments);
    Ok(Collection { moments, peak })
}

/// Bytes at the peak of a refit on images of a merge, `merged`, of models of `graph`, BatchNorm folded, whose activations
/// may take `limit` bytes, summed up at some of the `positions`; `open`: layers are kept to be solved again.
///
/// # Errors
/// A malformed graph.
pub fn refit(
    graph: &Graph,
    merged: &Graph,
    n_images: usize,
    (limit, open): (usize, bool),
    positions: Positions,
    work: Work,
) -> Result<usize> {
    let shapes = merged.shapes()?;
    let (own, all) = (most(&live(graph)?), live(merged)?);
    let largest = most(&all);
    let layers = merged.nodes.iter().enumerate().filter_map(|(i, node)| {
        let design = Design::of(&node.op)?;
        let Design { n_groups, n_inputs: f, .. } = design;
        // The models are about as far as the merged network is.
        let share = |now: usize, own: usize, largest: usize| {
            now + work.n_models * (own as f64 * now as f64 / largest as f64) as usize
        };
        let lanes = n_images * F32 * share(all[i.saturating_sub(1)].between, own.between, largest.between);
        let values = work.batch_size * F32 * share(all[i].at, own.at, largest.at);
        let square = n_groups * f * f;
        let made = &shapes[node.name.as_str()];
        let by_offsets = by_offsets(&node.op).map(|products| {
            let read = shapes.get(node.inputs[0].as_str()).map_or(0, |shape| shape.iter().product());
            // Some of the images of what is read and made, as they are and with a border.
            let planes = 2 * work.batch_size * F32 * (read + made.iter().product::<usize>());
            // Each product in f32 and, in LibTorch and here, in f64; at last, spread out.
            work.n_threads * ((F32 + 2 * F64) * products + planes + values) + F64 * square
        });
        let lattice = positions.lattice(n_images, &made[1..], design);
        let chosen = lattice.as_ref().map_or_else(|| made[1..].to_vec(), Lattice::lengths);
        let made: Vec<usize> = made[..1].iter().copied().chain(chosen).collect();
        let patches = work.batch_size * F32 * unfolded(&node.op, &made, n_groups * f);
        // The upper triangle in LibTorch, and here; of narrow layers, all of it.
        let by_patches = work.n_threads * (2 * F64 * square + patches + values);
        let summed = match by_offsets {
            Some(by_offsets) if lattice.is_none() => by_offsets,
            Some(by_offsets) => by_offsets.max(by_patches),
            None => by_patches,
        };
        // Covariances of both, and factors, of all images beside those of the fitted ones.
        let solved = if open { 6 } else { 4 } * F64 * square;
        Some(lanes.min(limit) + 2 * F64 * square + summed.max(solved))
    });
    // The models as they are read, folded, and on the device, where alone they stay.
    let [own, merged] = [work.n_models * weights(graph), 4 * weights(merged)];
    Ok(PROGRAM + merged + (3 * own).max(own + layers.max().unwrap_or(0)))
}

/// Bytes at the peak of matching points of so many features each, [`Work::n_threads`] at a time.
#[must_use]
pub fn matching(points: &[usize], work: Work) -> usize {
    let squares: Vec<usize> = points.iter().map(|&d| (work.n_models * d).pow(2)).collect();
    let at_once = squares.chunks(work.n_threads.max(1)).map(|squares| squares.iter().sum::<usize>()).max().unwrap_or(0);
    // The packed moments, mapped to be hashed; and the plan's U, [N·d, d].
    let moments = F64 / 2 * squares.iter().sum::<usize>();
    WITHOUT_LIBTORCH + moments + moments / work.n_models.max(1) + PER_SQUARE * at_once
}

/// Bytes at the peak of measuring the BatchNorm statistics of a network.
///
/// # Errors
/// A malformed graph.
pub fn recalibration(graph: &Graph, work: Work) -> Result<usize> {
    let shapes = graph.shapes()?;
    let of_batch = |size: usize| work.batch_size * F32 * size;
    let largest = shapes.values().map(|shape| shape.iter().product()).max().unwrap_or(0);
    let kept = if of_batch(largest) < MAPPED { KEPT } else { 1 };
    // BatchNorm makes a value of its own; sums are kept apart from what they add up.
    let values = kept * of_batch(most(&live_where(graph, |op| matches!(op, Op::Relu))?).at);
    let images = of_batch(graph.input.shape.iter().product());
    Ok(PROGRAM + 3 * weights(graph) + work.n_threads * (values + images))
}

/// Bytes at the peak of evaluating the models, one after another, and a network like one of them.
///
/// # Errors
/// A malformed graph.
pub fn evaluation(graph: &Graph, work: Work) -> Result<usize> {
    let values = KEPT * work.batch_size * F32 * most(&live(graph)?).at;
    // All files are read, one is run.
    Ok(PROGRAM + (work.n_models + 4) * weights(graph) + work.n_threads * values)
}

/// Bytes of a model's weights.
fn weights(graph: &Graph) -> usize {
    graph.params().values().map(|param| F32 * param.shape.iter().product::<usize>()).sum()
}

/// Numbers in the products of images at every offset between two taps of a convolution, where its patches are summed up by
/// these; kernels that read few channels take patches.
fn by_offsets(op: &Op) -> Option<usize> {
    let Op::Conv2d { in_channels, window, groups, .. } = *op else { return None };
    let [height, width] = window.kernel;
    let channels = in_channels / groups;
    (height * width > 1 && channels >= 8)
        .then(|| ((2 * height - 1) * (2 * width - 1)).div_ceil(2) * groups * channels * channels)
}

/// Numbers per image that a layer with f unknowns per output reads at all positions of the value it makes.
fn unfolded(op: &Op, made: &[usize], f: usize) -> usize {
    match op {
        Op::BatchNorm2d { .. } => made.iter().product(),
        _ => f * made[1..].iter().product::<usize>(),
    }
}

/// Numbers per image of all values of a recorded run: what overwrites makes no new one.
fn recorded(graph: &Graph) -> Result<usize> {
    let shapes = graph.shapes()?;
    let made = graph.nodes.iter().filter(|node| !matches!(node.op, Op::Flatten));
    Ok(made.map(|node| shapes[node.name.as_str()].iter().product::<usize>()).sum())
}

/// Numbers per image that are there while a node is run, and after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Live {
    at: usize,
    between: usize,
}

/// Of every node of a network without BatchNorm: ReLU and sums overwrite what they read.
fn live(graph: &Graph) -> Result<Vec<Live>> {
    live_where(graph, |op| matches!(op, Op::Relu | Op::Add))
}

/// Of every node, where some ops overwrite what they are the last to read.
fn live_where(graph: &Graph, overwrites: impl Fn(&Op) -> bool) -> Result<Vec<Live>> {
    let shapes = graph.shapes()?;
    let mut last: BTreeMap<&str, usize> = BTreeMap::new();
    for (i, node) in graph.nodes.iter().enumerate() {
        last.extend(node.inputs.iter().map(|input| (input.as_str(), i)));
    }
    last.extend(graph.outputs.iter().map(|output| (output.as_str(), graph.nodes.len())));
    let size = |value: &str| shapes[value].iter().product::<usize>();
    let mut now = size(&graph.input.name);
    let mut all = Vec::with_capacity(graph.nodes.len());
    for (i, node) in graph.nodes.iter().enumerate() {
        let dead: BTreeSet<&str> = node.inputs.iter().map(String::as_str).filter(|input| last[input] == i).collect();
        let in_place = overwrites(&node.op) && node.inputs.first().is_some_and(|name| dead.contains(name.as_str()));
        now += size(&node.name);
        let at = if in_place { now - size(&node.inputs[0]) } else { now };
        now -= dead.into_iter().map(size).sum::<usize>();
        all.push(Live { at, between: now });
    }
    Ok(all)
}

fn most(live: &[Live]) -> Live {
    live.iter().fold(Live { at: 1, between: 1 }, |most, live| Live {
        at: most.at.max(live.at),
        between: most.between.max(live.between),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::graph::{ArchSpec, arch::Arch};

    #[test]
    fn values_are_counted_while_they_are_needed() {
        let graph = ArchSpec::new(Arch::ResNet20, 0.25, 1, [8, 8], 3).build().unwrap();
        // A stream, and a layer beside it that reads and writes as much.
        assert_eq!(most(&live(&graph).unwrap()), Live { at: 3 * 4 * 64, between: 2 * 4 * 64 });
        // With BatchNorm by itself: a first convolution and its BatchNorm, 64 features at half the size each.
        let graph = ArchSpec::new(Arch::ResNet18, 1.0, 3, [224, 224], 10).build().unwrap();
        let all = live_where(&graph, |op| matches!(op, Op::Relu)).unwrap();
        assert_eq!(most(&all).at, 2 * 64 * 112 * 112);
    }

    #[test]
    fn more_of_anything_takes_more() {
        let graph = ArchSpec::new(Arch::ResNet20, 1.0, 3, [32, 32], 10).build().unwrap();
        let points = graph.merge_points(&graph.spaces().unwrap());
        let dims: Vec<usize> = points.iter().map(|point| point.dim).collect();
        let collect = |grams, importance, n_models, batch_size, n_threads| {
            collection(&graph, &points, grams, importance, Work { n_models, batch_size, n_threads }).unwrap()
        };
        let of = |grams, n_models, batch_size, n_threads| collect(grams, false, n_models, batch_size, n_threads);
        let least = of(Grams::None, 2, 8, 1);
        assert!(least.peak > PROGRAM + 2 * least.moments);
        for more in [
            collect(Grams::None, true, 2, 8, 1),
            of(Grams::Own, 2, 8, 1),
            of(Grams::Joint, 2, 8, 1),
            of(Grams::None, 3, 8, 1),
        ] {
            assert!(more.peak > least.peak && more.moments > least.moments, "{more:?}, {least:?}");
        }
        assert!(of(Grams::None, 2, 16, 1).peak > least.peak && of(Grams::None, 2, 8, 2).peak > least.peak);
        let work = Work { n_models: 2, batch_size: 32, n_threads: 1 };
        let of = |n_images, limit| refit(&graph, &graph, n_images, (limit, false), Positions::All, work).unwrap();
        assert!(of(1000, usize::MAX) > of(100, usize::MAX) && of(1000, 0) == of(100, 0));
        let [less, more] = [work, Work { n_models: 3, batch_size: 64, n_threads: 2 }];
        assert!(recalibration(&graph, less).unwrap() < recalibration(&graph, more).unwrap());
        assert!(evaluation(&graph, less).unwrap() < evaluation(&graph, more).unwrap());
        assert!(matching(&dims, less) < matching(&dims, more));
    }
}
