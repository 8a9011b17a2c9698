//! `collect --importance`, as in the README: moments of a few batches.

use super::images::Images;
use super::{Taken, Time, models, pace, peak};
use crate::Args;
use std::collections::{BTreeMap, BTreeSet};
use zipit::importance::Importance;
use zipit::watch::Unwatched;
use zipit::{Collected, Extent};
use zipit_artifact::model::ModelFile;
use zipit_data::Split;
use zipit_stage::Stage;
use zipit_torch::{Network, Probes, accumulate, batch_size, n_workers};

/// Images that `collect` takes, as in the README.
pub const IMAGES: usize = 5000;
/// Bytes of moments that are written and hashed in a second.
const WRITTEN: f64 = 5e8;

pub fn try_out(files: &[ModelFile], args: &Args, stage: &Stage) -> anyhow::Result<Taken> {
    let models = models(files);
    let images = Images::choose(&models, args, Split::Train, Some(IMAGES))?.digested();
    let graph = &models[0].graph;
    let (spaces, shapes) = (graph.spaces()?, graph.shapes()?);
    let points = graph.merge_points(&spaces);
    let read = graph.read_values(&spaces);
    let size = args.images.batch_size.map_or_else(|| batch_size(graph, args.device), |n| Ok(n as usize))?;
    let batches = images.batches(&models[0].preprocess, size);
    let places = points.iter().map(|p| Ok((&p.name, graph.places(p)?))).collect::<zipit::Result<BTreeMap<_, _>>>()?;
    let traced: BTreeSet<String> = places.values().flatten().map(|place| place.made.value.clone()).collect();
    let observed: BTreeSet<String> = (points.iter().map(|p| p.measured.value.clone()))
        .chain(read.iter().chain(&traced).cloned())
        .chain(places.values().flatten().map(|place| place.read.value.clone()))
        .collect();
    let network = |model: &&zipit::Model| Network::traced(model, &observed, &traced, args.device);
    let networks = models.iter().map(network).collect::<Result<Vec<_>, _>>()?;
    let probes = Probes::new(0, &models);
    let networks: Vec<&Network> = networks.iter().collect();
    let fixed = Time::now(stage);
    let none = |value: String| {
        let n = models.len() * shapes[value.as_str()][0];
        (value, Extent::none(n))
    };
    let unimportant =
        |p: &zipit::graph::MergePoint| Some((p.name.clone(), Importance::zeros(&places[&p.name], models.len(), p.dim)));
    let mut totals = Collected {
        extents: read.into_iter().map(none).collect(),
        importance: points.iter().filter_map(unimportant).collect(),
        ..Collected::default()
    };
    let n_batches = batches.n_batches();
    let per_batch = pace(n_workers(args.device, n_batches), n_batches, stage, |n| {
        accumulate::measure(&networks, &points, &mut totals, Some(&probes), &*batches, 0..n, &Unwatched)?;
        Ok(())
    })?;
    let bytes = totals.moments.values().map(|m| m.outer.len() * 8).sum::<usize>() as f64;
    let written = bytes / WRITTEN;
    Ok(Taken {
        n_images: images.len(),
        fixed: fixed + Time { wall: written, cpu: written },
        per_image: per_batch * (1.0 / batches.n_images_in(1) as f64),
        // The file is mapped to be hashed.
        memory: peak() + bytes,
        ..Taken::default()
    })
}
