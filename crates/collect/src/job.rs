//! Collecting: checked inputs → forward passes → stats file, with a partial file in between when interrupted.

use crate::gradients::{self, Silent, ToTheEnd};
use crate::{Args, Gram};
use anyhow::{Context, bail, ensure};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Instant;
use zipit::apply::check_mergeable;
use zipit::fold::fold_batch_norm;
use zipit::graph::{MergePoint, Node, Place};
use zipit::images::ImageBatches;
use zipit::importance::Importance;
use zipit::memory::{self, Collection, Grams, Work};
use zipit::refit::gram::{patch_size, reads_alike};
use zipit::watch::Watch;
use zipit::{Collected, Extent, Graph, Model, Moments};
use zipit_artifact::model::ModelFile;
use zipit_artifact::stats::{self, GramKind, StatsHeader, StatsReader};
use zipit_data::Split;
use zipit_stage::Stage;
use zipit_stage::images::{Batches, tasks_of};
use zipit_stage::merging::read_models;
use zipit_stage::saving::beside;
use zipit_torch::accumulate;
use zipit_torch::curvature::Differentiable;
use zipit_torch::device::libtorch_version;
use zipit_torch::{Network, Probes, batch_size};

pub fn collect(args: &Args, stage: &Stage) -> anyhow::Result<()> {
    let files = read_models(&args.models)?;
    let models: Vec<&Model> = files.iter().map(|f| &f.model).collect();
    if models.len() > 1 {
        check_mergeable(&models)?;
    }
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
    let environment = [("libtorch", libtorch_version().to_owned()), ("images", set.len().to_string())];
    let provenance = stage.provenance(inputs, environment.map(|(k, v)| (k.to_owned(), v)).into());
    let read = read_by_all(args, &models)?;
    // Folding BatchNorm into its convolution changes no value that is observed.
    let mut observed: BTreeSet<String> =
        points.iter().map(|p| p.measured.value.clone()).chain(read.iter().cloned()).collect();
    let seed = args.importance.then(|| args.probe_seed.unwrap_or(0));
    let probes = seed.map(|seed| Probes::new(seed, &models));
    let places = if args.importance { places(graph, &points)? } else { BTreeMap::new() };
    let at = || places.values().flatten();
    let traced: BTreeSet<String> = at().map(|place| place.made.value.clone()).collect();
    observed.extend(at().map(|place| place.read.value.clone()).chain(traced.clone()));
    let gram = args.gram.map(Gram::kind);
    let layers = if gram.is_some() { layers(&models, &observed)? } else { vec![] };
    if args.common.dry_run {
        let n_images = batches.n_images();
        let what =
            format!("{} merge points of {} models on {n_images} {} images", points.len(), models.len(), set.split);
        let n_threads = stage.n_threads().min(batches.n_batches());
        let work = Work { n_models: models.len(), batch_size, n_threads };
        let bytes = bytes(models[0], &points, &observed, gram, args.importance, work)?;
        return stage.print(&would(args, &what, batch_size, bytes));
    }
    if stage.up_to_date(&args.out, &provenance)? {
        return Ok(());
    }
    let partial = beside(&args.out, ".partial");
    let resumed = resume(&partial, &provenance.key, stage);
    let fresh = resumed.is_none();
    let (done, mut totals) = match resumed {
        Some(resumed) => resumed,
        None => (0, nothing(&models, &points, &read, (&layers, gram), &places)?),
    };
    let whole = StatsHeader {
        graph: graph.clone(),
        others: others(&models),
        models: refs,
        tasks: models.iter().map(|m| m.tasks.clone()).collect(),
        preprocess: models[0].preprocess.clone(),
        points: points.iter().map(|p| (p.name.clone(), p.dim)).collect(),
        layers,
        gram,
        probes: seed,
        predicted: gradients::predicted(args),
        fisher: args.fisher.is_some(),
        gradients: args.gradients,
        n_images: batches.n_images() as u64,
        batch_size,
        shard: args.shard,
        batches_done: batches.n_batches() as u64,
        n_batches: batches.n_batches() as u64,
        provenance,
    };

    if fresh {
        gradients::make_room(&whole, &mut totals);
    }
    let differentiable = gradients::networks(&whole, &models, args)?;
    let network = |model: &&Model| Network::traced(model, &observed, &traced, args.device);
    let networks = models.iter().map(network).collect::<Result<Vec<_>, _>>()?;
    let networks: Vec<&Network> = networks.iter().collect();
    let measured = (&networks[..], &points[..], probes.as_ref(), &differentiable[..]);
    let totals = measure(args, stage, &whole, measured, &batches, (done, totals))?;
    stats::write(&args.out, &whole, &totals)?;
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

/// Adds the batches that are not done to the totals, saving what is done every now and then.
fn measure(
    args: &Args,
    stage: &Stage,
    whole: &StatsHeader,
    (networks, points, probes, differentiable): (&[&Network], &[MergePoint], Option<&Probes>, &[Differentiable]),
    batches: &Batches<'_>,
    (mut done, mut totals): (usize, Collected),
) -> anyhow::Result<Collected> {
    let partial = beside(&args.out, ".partial");
    let progress = stage.progress("collect", "images", batches.n_images() as u64);
    progress.skip(batches.n_images_in(done) as u64);
    let mut saver = args.saving.start();
    while done < batches.n_batches() {
        let mut piece = stage.n_threads();
        while done < batches.n_batches() && !saver.left().is_zero() && !stage.interrupted() {
            let started = Instant::now();
            let mut range = done..(done + piece).min(batches.n_batches());
            // The slower of two passes over the same batches: where it was stopped, the other one ends.
            if !differentiable.is_empty() {
                let silent = Silent(&progress);
                let n = gradients::measure(differentiable, whole, &mut totals, batches, range.clone(), &silent)?;
                range.end = done + n;
            }
            let watch: &dyn Watch = if differentiable.is_empty() { &progress } else { &ToTheEnd(&progress) };
            done += accumulate::measure(networks, points, &mut totals, probes, batches, range, watch)?;
            // As many batches as fit until the next save, found from the pieces' own speed.
            let fitting = piece as f64 * saver.left().as_secs_f64() / started.elapsed().as_secs_f64().max(1e-9);
            piece = (2 * piece).min(fitting as usize).max(stage.n_threads());
        }
        if done < batches.n_batches() {
            let n_images = batches.n_images_in(done) as u64;
            let part = StatsHeader { n_images, batches_done: done as u64, ..whole.clone() };
            saver.save(|| stats::write(&partial, &part, &totals))?;
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
    Ok(totals)
}

/// The values that something reads in the first model, and no others in the others.
fn read_by_all(args: &Args, models: &[&Model]) -> anyhow::Result<Vec<String>> {
    let read = |model: &Model| Ok::<_, zipit::Error>(model.graph.read_values(&model.graph.spaces()?));
    let first = read(models[0])?;
    for (path, model) in args.models.iter().zip(models).skip(1) {
        if let Some(value) = read(model)?.iter().find(|value| !first.contains(value)) {
            bail!(
                "the head of {} reads `{value}`, which nothing reads in {}: give the network whose heads read the most first",
                path.display(),
                args.models[0].display()
            );
        }
    }
    Ok(first)
}

/// The places of every merge point.
fn places(graph: &Graph, points: &[MergePoint]) -> anyhow::Result<BTreeMap<String, Vec<Place>>> {
    points.iter().map(|point| Ok((point.name.clone(), graph.places(point)?))).collect()
}

/// Nothing measured yet.
fn nothing(
    models: &[&Model],
    points: &[MergePoint],
    values: &[String],
    (layers, gram): (&[(String, usize)], Option<GramKind>),
    places: &BTreeMap<String, Vec<Place>>,
) -> anyhow::Result<Collected> {
    let (n, shapes) = (models.len(), models[0].graph.shapes()?);
    let zeros = |f: usize| gram.map(|gram| gram.zeros(n, f));
    let unimportant = |p: &MergePoint| Some((p.name.clone(), Importance::zeros(places.get(&p.name)?, n, p.dim)));
    Ok(Collected {
        importance: points.iter().filter_map(unimportant).collect(),
        moments: points.iter().map(|p| (p.name.clone(), Moments::zeros(n * p.dim))).collect(),
        grams: layers.iter().filter_map(|(name, f)| Some((name.clone(), zeros(*f)?))).collect(),
        extents: values.iter().map(|value| (value.clone(), Extent::none(n * shapes[value.as_str()][0]))).collect(),
        ..Collected::default()
    })
}

/// What it takes.
fn bytes(
    model: &Model,
    points: &[MergePoint],
    observed: &BTreeSet<String>,
    gram: Option<GramKind>,
    importance: bool,
    work: Work,
) -> anyhow::Result<Collection> {
    let (folded, _) = fold_batch_norm(&model.graph, &model.weights, observed)?;
    let grams = match gram {
        None => Grams::None,
        Some(GramKind::Own) => Grams::Own,
        Some(GramKind::Joint) => Grams::Joint,
    };
    Ok(memory::collection(&folded, points, grams, importance, work)?)
}

/// What a dry run says.
fn would(args: &Args, what: &str, batch_size: usize, bytes: Collection) -> String {
    let gib = |bytes: usize| bytes as f64 / f64::from(1 << 30);
    format!(
        "would measure {what} in batches of {batch_size}; about {:.2} GiB of memory; would write {} ({:.2} GiB)\n",
        gib(bytes.peak),
        args.out.display(),
        gib(bytes.moments)
    )
}

/// The graphs of all models but the first, where one differs from it.
fn others(models: &[&Model]) -> Vec<Graph> {
    let alike =
        models.iter().all(|m| m.graph.nodes == models[0].graph.nodes && m.graph.outputs == models[0].graph.outputs);
    if alike { vec![] } else { models[1..].iter().map(|model| model.graph.clone()).collect() }
}

/// Module and size of what every layer reads, in the networks that are run: of the first model's layers, and of others'
/// heads where they read what none of those does.
fn layers(models: &[&Model], observed: &BTreeSet<String>) -> anyhow::Result<Vec<(String, usize)>> {
    let fold = |model: &&Model| fold_batch_norm(&model.graph, &model.weights, observed).map(|(graph, _)| graph);
    let graphs = models.iter().map(fold).collect::<Result<Vec<_>, _>>()?;
    let shapes = graphs.iter().map(Graph::shapes).collect::<Result<Vec<_>, _>>()?;
    let mut measured: Vec<(&Node, &String, usize)> = Vec::new();
    for (i, graph) in graphs.iter().enumerate() {
        for node in &graph.nodes {
            let (Some(module), Some(size)) = (&node.module, patch_size(&node.op)) else { continue };
            let read = node.inputs[0].as_str();
            let common = shapes.iter().all(|other| other.get(read) == shapes[i].get(read));
            let known = i > 0 && measured.iter().any(|(other, name, _)| *name == module || reads_alike(other, node));
            if common && !known {
                measured.push((node, module, size));
            }
        }
    }
    Ok(measured.into_iter().map(|(_, module, size)| (module.clone(), size)).collect())
}

/// What an interrupted run of the same command left; anything else under that name is not touched by it.
fn resume(partial: &Path, key: &str, stage: &Stage) -> Option<(usize, Collected)> {
    if !partial.exists() || stage.forced() {
        return None;
    }
    let reader = StatsReader::open(partial).ok().filter(|r| r.header().provenance.key == key)?;
    let collected = reader.collected().ok()?;
    tracing::info!("going on from {} images in {}", reader.header().n_images, partial.display());
    Some((reader.header().batches_done as usize, collected))
}
