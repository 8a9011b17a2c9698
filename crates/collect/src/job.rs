//! Collecting: checked inputs → forward passes → stats file, with a partial file in between when interrupted.

use crate::Args;
use anyhow::{Context, bail, ensure};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use zipit::apply::check_mergeable;
use zipit::images::ImageBatches;
use zipit::{Model, Moments};
use zipit_artifact::model::{self, ModelFile};
use zipit_artifact::stats::{self, StatsHeader, StatsReader};
use zipit_data::Split;
use zipit_stage::Stage;
use zipit_stage::images::tasks_of;
use zipit_torch::device::libtorch_version;
use zipit_torch::{Network, accumulate, batch_size};

/// How often unfinished work is saved.
const SAVE_EVERY: Duration = Duration::from_secs(300);

pub fn collect(args: &Args, stage: &Stage) -> anyhow::Result<()> {
    let files = args.models.iter().map(|path| model::read(path)).collect::<Result<Vec<_>, _>>()?;
    let models: Vec<&Model> = files.iter().map(|f| &f.model).collect();
    check_mergeable(&models)?;
    let set = args.images.choose(&tasks_of(&models), Split::Train)?;
    let graph = &models[0].graph;
    let spaces = graph.spaces()?;
    let points = graph.merge_points(&spaces);
    ensure!(!points.is_empty(), "{} has no feature space that could be merged", args.models[0].display());
    let batch_size = args.images.batch_size.map_or_else(|| batch_size(graph, args.device), |n| Ok(n as usize))?;
    let batches = set.batches(&models[0].preprocess, batch_size, args.shard);
    ensure!(batches.n_batches() > 0, "this shard is empty: {} images make fewer batches than shards", set.len());

    let mut inputs: Vec<_> = files.iter().map(ModelFile::input_ref).collect();
    let refs = inputs.clone();
    inputs.extend(set.inputs());
    let environment = [("libtorch".to_owned(), libtorch_version().to_owned())].into();
    let provenance = stage.provenance(inputs, environment);
    let numbers: usize = points.iter().map(|p| (models.len() * p.dim).pow(2)).sum();
    if args.common.dry_run {
        return stage.print(&format!(
            "would measure {} merge points of {} models on {} {} images in batches of {batch_size}; about {:.2} GiB \
             for the moments; would write {} ({:.2} GiB)\n",
            points.len(),
            models.len(),
            batches.n_images(),
            set.split,
            (numbers * (4 + stage.n_threads() * 4)) as f64 / f64::from(1 << 30),
            args.out.display(),
            (numbers * 4) as f64 / f64::from(1 << 30),
        ));
    }
    if stage.up_to_date(&args.out, &provenance)? {
        return Ok(());
    }
    let partial = partial_path(&args.out);
    let (mut done, mut moments) = resume(&partial, &provenance.key, stage).unwrap_or_else(|| {
        (0, points.iter().map(|p| (p.name.clone(), Moments::zeros(models.len() * p.dim))).collect())
    });
    let header = |done: usize| StatsHeader {
        graph: graph.clone(),
        models: refs.clone(),
        tasks: models.iter().map(|m| m.tasks.clone()).collect(),
        preprocess: models[0].preprocess.clone(),
        points: points.iter().map(|p| (p.name.clone(), p.dim)).collect(),
        n_images: batches.n_images_in(done) as u64,
        batch_size,
        shard: args.shard,
        batches_done: done as u64,
        n_batches: batches.n_batches() as u64,
        provenance: provenance.clone(),
    };

    // Folding BatchNorm into its convolution changes no value that is observed.
    let observed: BTreeSet<String> = points.iter().map(|p| p.name.clone()).collect();
    let networks = models.iter().map(|m| Network::folded(m, &observed, args.device)).collect::<Result<Vec<_>, _>>()?;
    let networks: Vec<&Network> = networks.iter().collect();
    let progress = stage.progress("collect", "images", batches.n_images() as u64);
    progress.skip(batches.n_images_in(done) as u64);
    while done < batches.n_batches() {
        let started = Instant::now();
        // A piece is as many batches as fit between two saves, found from the pieces' own speed.
        let mut piece = stage.n_threads().max(8);
        while done < batches.n_batches() && started.elapsed() < SAVE_EVERY && !stage.interrupted() {
            let range = done..(done + piece).min(batches.n_batches());
            done += accumulate::moments(&networks, &points, &batches, range, &mut moments, &progress)?;
            piece *= 2;
        }
        if done < batches.n_batches() {
            stats::write(&partial, &header(done), &moments)?;
            if stage.interrupted() {
                bail!(
                    "interrupted after {} of {} images; the same command goes on from there ({})",
                    batches.n_images_in(done),
                    batches.n_images(),
                    partial.display()
                );
            }
        }
    }
    drop(progress);
    stats::write(&args.out, &header(done), &moments)?;
    if partial.exists() {
        std::fs::remove_file(&partial).with_context(|| format!("cannot remove {}", partial.display()))?;
    }
    stage.record(&args.out);
    stage.print(&format!(
        "{}: {} merge points of {} models on {} images\n",
        args.out.display(),
        points.len(),
        models.len(),
        batches.n_images()
    ))
}

fn partial_path(out: &Path) -> PathBuf {
    let mut name = out.file_name().unwrap_or_default().to_owned();
    name.push(".partial");
    out.with_file_name(name)
}

/// What an interrupted run of the same command left; anything else under that name is not touched by it.
fn resume(partial: &Path, key: &str, stage: &Stage) -> Option<(usize, BTreeMap<String, Moments>)> {
    if !partial.exists() || stage.forced() {
        return None;
    }
    let reader = StatsReader::open(partial).ok().filter(|r| r.header().provenance.key == key)?;
    let moments = reader
        .header()
        .points
        .iter()
        .map(|(name, _)| Some((name.clone(), reader.moments(name).ok()?)))
        .collect::<Option<BTreeMap<_, _>>>()?;
    tracing::info!("going on from {} images in {}", reader.header().n_images, partial.display());
    Some((reader.header().batches_done as usize, moments))
}
