//! `refit`: all layers are run and summed up on a few batches; one layer of each size is solved.

use super::images::{First, Images};
use super::{ENOUGH, Taken, Time, models, peak};
use crate::Args;
use std::collections::BTreeMap;
use std::time::Instant;
use zipit::apply::Heads;
use zipit::images::ImageBatches;
use zipit::merge_set::Selection;
use zipit::prospects::identity;
use zipit::refit::{Design, Positions, ROUNDS, Ridge, graft_folded, solve};
use zipit::watch::Unwatched;
use zipit::{Model, StateDict};
use zipit_artifact::model::ModelFile;
use zipit_data::Split;
use zipit_stage::Stage;
use zipit_torch::refit::{Inputs, Refit, Rehearsed, Task};
use zipit_torch::{batch_size, n_workers};

/// Images that `refit` takes, as in the README.
pub const IMAGES: usize = 2000;
/// Multiply-adds of the largest layer that is solved.
const SOLVED: f64 = 7e9;
/// Seconds of a rehearsal that is followed by one of so many batches (half of them if it is longer) and, if that was short,
/// of more.
const SHORT: f64 = 3.0;
/// Of one that is too long for that.
const LONG: f64 = 8.0;
const BATCHES: usize = 6;
/// What activations take in memory of what they are: the allocator has holes. Measured.
const SCATTERED: f64 = 1.2;
/// Bytes per image that it holds beside, and as many at most: between nothing and twice as many, from run to run; and not
/// more than a share of the activations.
const HELD: f64 = 35e3;
const MOST_HELD: f64 = 70e6;
const HELD_SHARE: f64 = 0.25;
/// How much longer it takes to choose the ridge by held-out images, and to solve in rounds, than to solve with a given one:
/// two or three powers of ten are tried. By multiply-adds.
const CHOOSING: f64 = 4.5;
/// Bytes of activations that `refit` keeps in memory unless it is told otherwise.
pub const MAX_MEMORY: usize = 8 << 30;

pub fn try_out(files: &[ModelFile], args: &Args, stage: &Stage) -> anyhow::Result<Taken> {
    let models = models(files);
    let images = Images::choose(&models, args, Split::Train, Some(IMAGES))?.digested();
    let graph = &models[0].graph;
    let plan = identity(&Selection::default().divide(graph, models.len())?.points, models.len());
    let (folded, grafted) = graft_folded(&models, &plan, Heads::Separate)?;
    let size = args.images.batch_size.map_or_else(|| batch_size(graph, args.device), |n| Ok(n as usize))?;
    let batches = images.batches(&models[0].preprocess, size);
    let n_workers = n_workers(args.device, batches.n_batches());
    let task = Task::Weights { inputs: Inputs::Sequential, ridge: Ridge::HeldOut, rounds: ROUNDS, together: true };
    let folded: Vec<&Model> = folded.iter().collect();
    let all_of_them = models.iter().chain(&folded).copied().chain([&grafted.model]);
    let given_up =
        all_of_them.flat_map(|model| model.weights.values()).map(|w| size_of::<f32>() * w.len()).sum::<usize>();
    let fixed = Time::now(stage);

    let mut solving = Solving::default();
    let rehearse = |batches: &dyn ImageBatches, n: usize, solving: Option<&mut Solving>| -> anyhow::Result<Run> {
        let first = First { batches, n };
        let refit = Refit::new(&folded, &grafted, &first, task, None, args.device)?;
        let mut refit = refit.with_positions(Positions::default(), images.len());
        let mut run = Run { n_images: batches.n_images_in(n), ..Run::default() };
        let mut solving = solving;
        loop {
            let before = Time::now(stage);
            let layers = refit.rehearse(&Unwatched)?;
            if layers.is_empty() {
                break;
            }
            run.took = run.took + (Time::now(stage) - before);
            run.frontier = run.frontier.max(refit.bytes_in_memory());
            if let Some(solving) = solving.as_deref_mut() {
                let before = Time::now(stage);
                layers.into_iter().try_for_each(|layer| solving.add(layer))?;
                solving.took = solving.took + (Time::now(stage) - before);
            }
        }
        Ok(run)
    };
    // A run has costs of its own, and the first ones prepare kernels: what an image takes is what more images take more.
    let few = rehearse(&*images.batches(&models[0].preprocess, 1), n_workers, None)?;
    let one = rehearse(&*batches, n_workers, Some(&mut solving))?;
    let all = batches.n_batches() / n_workers;
    let alone = one.took.alone();
    let mut each = if alone < SHORT { BATCHES } else { BATCHES / 2 }.min(all);
    let (run, per_image) = if alone < LONG && each > 1 {
        loop {
            let long = rehearse(&*batches, each * n_workers, None)?;
            if each == all || long.took.alone() - one.took.alone() > ENOUGH {
                break (long, one.until(&long));
            }
            each = (3 * each).min(all);
        }
    } else {
        (one, few.until(&one))
    };
    let frontier = run.frontier as f64 / run.n_images as f64 * images.len() as f64;
    let held = (HELD * images.len() as f64).min(MOST_HELD).min(HELD_SHARE * frontier);
    let kept = frontier.min(MAX_MEMORY as f64) * SCATTERED + held;
    Ok(Taken {
        n_images: images.len(),
        fixed: fixed + (run.took - per_image * run.n_images as f64).at_least_zero() + solving.time(),
        per_image,
        // Once the networks have them, `refit` gives up the models as they are read and folded, and the merge of them.
        memory: peak() - run.frontier as f64 - given_up as f64,
        memory_per_image: kept / images.len() as f64,
        until: 0.0,
    })
}

/// A rehearsal of all layers.
#[derive(Clone, Copy, Default)]
struct Run {
    n_images: usize,
    took: Time,
    /// Bytes of activations that were kept at the worst.
    frontier: usize,
}

impl Run {
    /// What an image takes of a longer run. The clock is less to be trusted than the processors, where others are at work.
    fn until(&self, longer: &Self) -> Time {
        let cpu = (longer.took.cpu - self.took.cpu) / (longer.n_images - self.n_images).max(1) as f64;
        // Nothing is free.
        let cpu = cpu.max(0.25 * longer.took.cpu / longer.n_images as f64);
        Time { wall: cpu * longer.took.wall / longer.took.cpu.max(f64::MIN_POSITIVE), cpu }
    }
}

/// What it takes to solve the layers.
#[derive(Default)]
struct Solving {
    /// By multiply-adds of a solution: number of layers, and seconds where one was tried.
    layers: BTreeMap<u64, (usize, Option<f64>)>,
    /// All that were tried: how busy the processors were meanwhile.
    took: Time,
}

impl Solving {
    fn add(&mut self, layer: Rehearsed) -> anyhow::Result<()> {
        let Rehearsed { mut nodes, sums } = layer;
        let (n, took) = self.layers.entry(cost(sums[0].design)).or_default();
        *n += 1;
        if took.is_none() && cost(sums[0].design) as f64 <= SOLVED {
            let params = nodes.iter().flat_map(|node| {
                node.op.params().into_iter().map(|p| (node.tensor(p.name), ndarray::ArrayD::ones(p.shape)))
            });
            let mut weights: StateDict = params.collect();
            let started = Instant::now();
            solve(&mut nodes, &mut weights, sums, Ridge::Fixed(1.0))?;
            *took = Some(started.elapsed().as_secs_f64());
        }
        Ok(())
    }

    /// Layers that were too large to be tried take as long as their multiply-adds beside the largest that was.
    fn time(&self) -> Time {
        let largest = self.layers.iter().rev().find_map(|(&cost, (_, took))| Some((cost, (*took)?)));
        let (cost, took) = largest.unwrap_or((1, 0.0));
        let of = |(&own, (n, tried)): (&u64, &(usize, Option<f64>))| {
            *n as f64 * tried.unwrap_or(took * own as f64 / cost as f64)
        };
        let seconds = CHOOSING * self.layers.iter().map(of).sum::<f64>();
        Time { wall: seconds, cpu: seconds * self.took.cpu / self.took.wall.max(f64::MIN_POSITIVE) }
    }
}

/// Multiply-adds of one solution: a factorisation, and products and substitutions of all outputs.
fn cost(design: Design) -> u64 {
    let Design { n_groups, n_inputs, n_outputs } = design;
    let (g, f, o) = (n_groups as u64, n_inputs as u64, n_outputs as u64);
    g * (f * f * f / 6 + 2 * o * f * f)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_that_are_not_tried_take_their_share() {
        let layers = BTreeMap::from([(10, (2, Some(0.1))), (100, (1, Some(0.5))), (1000, (3, None))]);
        let took = Time { wall: 0.6, cpu: 0.3 };
        let time = Solving { layers, took }.time();
        assert!((time.wall - CHOOSING * (0.2 + 0.5 + 3.0 * 5.0)).abs() < 1e-9, "{time:?}");
        assert!((time.cpu - time.wall / 2.0).abs() < 1e-9, "{time:?}");
        let of = |n_groups, n_inputs, n_outputs| cost(Design { n_groups, n_inputs, n_outputs });
        assert_eq!(of(1, 6, 2), 36 + 144);
        assert_eq!(of(4, 6, 2), 4 * of(1, 6, 2));
    }
}
