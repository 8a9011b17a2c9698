//! Memory and time of the stages: from their trials, or memory alone from the graph.

use crate::Args;
use crate::trial::images::Images;
use crate::trial::{self, Which, collect, infer, refit};
use serde::Serialize;
use std::collections::BTreeSet;
use zipit::apply::Heads;
use zipit::fold::fold_batch_norm;
use zipit::graph::MergePoint;
use zipit::memory::{self, Grams, Work};
use zipit::merge_set::Selection;
use zipit::prospects::identity;
use zipit::refit::Positions;
use zipit::refit::graft_folded;
use zipit_artifact::model::ModelFile;
use zipit_data::Split;
use zipit_stage::Stage;
use zipit_torch::{Device, batch_norm, batch_size};

/// What a stage will take.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Estimate {
    pub stage: Which,
    /// 0 where it reads none.
    pub images: usize,
    /// Where it was tried.
    pub seconds: Option<f64>,
    /// Of all processors together.
    pub cpu_seconds: Option<f64>,
    /// Resident at the peak; 0 where the system does not tell.
    pub peak_bytes: u64,
}

/// Without BatchNorm there is nothing to recalibrate.
fn stages(has_batch_norms: bool) -> impl Iterator<Item = Which> {
    Which::ALL.into_iter().filter(move |&which| has_batch_norms || which != Which::Recalibrate)
}

/// From trials of all stages, one after the other: they must not slow each other down.
pub fn tried(has_batch_norms: bool, stage: &Stage) -> anyhow::Result<Vec<Estimate>> {
    let progress = stage.progress("try", "stages", stages(has_batch_norms).count() as u64);
    let mut estimates = Vec::new();
    for which in stages(has_batch_norms) {
        progress.note(which.name().to_owned());
        let taken = trial::of(which)?;
        let time = taken.time();
        estimates.push(Estimate {
            stage: which,
            images: taken.n_images,
            seconds: Some(time.wall),
            cpu_seconds: Some(time.cpu),
            peak_bytes: taken.peak() as u64,
        });
        zipit::watch::Watch::advance(&progress, 1);
    }
    Ok(estimates)
}

/// From the graph: memory only, and none of another device's programs.
pub fn untried(
    has_batch_norms: bool,
    files: &[ModelFile],
    args: &Args,
    stage: &Stage,
) -> anyhow::Result<Vec<Estimate>> {
    if args.device != Device::Cpu {
        return Ok(vec![]);
    }
    let models = trial::models(files);
    let (model, graph) = (models[0], &models[0].graph);
    let dims = |points: &[MergePoint]| points.iter().map(|point| point.dim).collect::<Vec<usize>>();
    let merged = Selection::default().divide(graph, models.len())?.points;
    let plan = identity(&merged, models.len());
    // All of them are measured.
    let points = graph.merge_points(&graph.spaces()?);
    let observed: BTreeSet<String> = points.iter().map(|point| point.measured.value.clone()).collect();
    let (folded, _) = fold_batch_norm(graph, &model.weights, &observed)?;
    let (_, grafted) = graft_folded(&models, &plan, Heads::Separate)?;
    let of_batches = |usual: usize, n_images: usize| {
        let batch_size = args.images.batch_size.map_or(usual, |n| n as usize).min(n_images.max(1));
        let n_threads = stage.n_threads().min(n_images.div_ceil(batch_size).max(1));
        Work { n_models: models.len(), batch_size, n_threads }
    };
    let usual = batch_size(graph, args.device)?;
    let estimate = |which| {
        let n = |split, n| anyhow::Ok(Images::choose(&models, args, split, n)?.len());
        let images = match which {
            Which::Collect => n(Split::Train, Some(collect::IMAGES))?,
            Which::Match => 0,
            Which::Refit => n(Split::Train, Some(refit::IMAGES))?,
            Which::Recalibrate => n(Split::Train, Some(infer::IMAGES))?,
            Which::Eval => n(Split::Test, None)?,
        };
        let work = of_batches(if which == Which::Recalibrate { batch_norm::BATCH } else { usual }, images);
        let peak = match which {
            Which::Collect => memory::collection(&folded, &points, Grams::None, true, work)?.peak,
            Which::Match => memory::matching(&dims(&merged), Work { n_threads: stage.n_threads(), ..work }),
            Which::Refit => {
                let limits = (refit::MAX_MEMORY, true);
                memory::refit(&folded, &grafted.model.graph, images, limits, Positions::default(), work)?
            }
            Which::Recalibrate => memory::recalibration(graph, work)?,
            Which::Eval => memory::evaluation(&folded, work)?,
        };
        Ok(Estimate { stage: which, images, seconds: None, cpu_seconds: None, peak_bytes: peak as u64 })
    };
    stages(has_batch_norms).map(estimate).collect()
}

/// `0.4 s`, `12 s`, `3.5 min`, `2.1 h`.
pub fn time_in_words(seconds: f64) -> String {
    match seconds {
        s if s < 9.95 => format!("{s:.1} s"),
        s if s < 99.5 => format!("{s:.0} s"),
        s if s < 99.5 * 60.0 => format!("{:.1} min", s / 60.0),
        s => format!("{:.1} h", s / 3600.0),
    }
}

/// In GiB.
pub fn memory_in_words(bytes: u64) -> String {
    match bytes {
        0 => "unknown".to_owned(),
        bytes => format!("{:.2} GiB", bytes as f64 / f64::from(1 << 30)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_two_digits_or_three() {
        let times = [0.04, 9.949, 9.96, 99.4, 99.6, 5969.0, 5971.0].map(time_in_words);
        assert_eq!(times, ["0.0 s", "9.9 s", "10 s", "99 s", "1.7 min", "99.5 min", "1.7 h"]);
        assert_eq!([0, 3 << 28].map(memory_in_words), ["unknown", "0.75 GiB"]);
    }
}
