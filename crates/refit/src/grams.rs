//! From moments of what the models' layers read: no images, layer by layer by itself.

use crate::job::{Merge, Outputs, Refitted};
use crate::report::{LayerReport, RefitReport};
use anyhow::{Context, ensure};
use std::path::Path;
use zipit::Model;
use zipit::graph::Node;
use zipit::refit::gram::{reads_alike, spread, sums};
use zipit::refit::{Design, Gram, Outcome, Sums, layers, rescale, sites, solve};
use zipit::watch::Watch;
use zipit_artifact::header::InputRef;
use zipit_artifact::plan::PlanFile;
use zipit_artifact::stats::StatsReader;
use zipit_stage::Stage;
use zipit_stage::provenance::may_share_images;

/// Nothing, where nothing is left to do.
pub fn refit<'a>(
    merge: &Merge<'a>,
    plan: &PlanFile,
    mut inputs: Vec<InputRef>,
    stage: &'a Stage,
) -> anyhow::Result<Option<(Outputs<'a>, Refitted)>> {
    let args = merge.args;
    let stats = open(args.stats.as_deref().context("--stats")?, plan)?;
    let holdout = args.holdout.as_deref().map(|path| open(path, plan)).transpose()?;
    if let Some(holdout) = &holdout {
        ensure!(
            holdout.blake3() != stats.blake3(),
            "{} is the same file as {}: collect other images with another --split",
            holdout.path().display(),
            stats.path().display()
        );
        if may_share_images(&holdout.header().provenance, &stats.header().provenance) {
            tracing::warn!(
                "{} was measured on the same split of the same data as {}: on images of both the smallest ridge always \
                 seems best; collect one of them with another --split",
                holdout.path().display(),
                stats.path().display()
            );
        }
    }
    inputs.extend([Some(&stats), holdout.as_ref()].into_iter().flatten().map(StatsReader::input_ref));
    let outputs = Outputs::new(args, stage, stage.provenance(inputs, [].into()));
    let told = format!("the moments of {} images ({})", stats.header().n_images, stats.path().display());
    if args.common.dry_run {
        stage.print(&format!("would solve layers on {told}; would write {}\n", args.out.display()))?;
        return Ok(None);
    }
    if outputs.up_to_date()? {
        return Ok(None);
    }
    let layers =
        if args.repair { scales(merge, &stats, stage) } else { weights(merge, &stats, holdout.as_ref(), stage) };
    let (network, layers) = layers.with_context(|| format!("{}", stats.path().display()))?;
    let report = RefitReport { n_images: stats.header().n_images, layers };
    Ok(Some((outputs, Refitted { network, report, fitted_to: told })))
}

/// Every weight.
fn weights(
    merge: &Merge<'_>,
    stats: &StatsReader,
    holdout: Option<&StatsReader>,
    stage: &Stage,
) -> anyhow::Result<(zipit::Model, Vec<LayerReport>)> {
    let models = merge.models();
    let layers = layers(&merge.grafted, &models, false);
    let mut network = merge.grafted.model.clone();
    let progress = stage.progress("refit", "layers", layers.len() as u64);
    let mut reports = Vec::with_capacity(layers.len());
    for layer in &layers {
        ensure!(!progress.interrupted(), "interrupted, nothing was written");
        let node = &mut network.graph.nodes[layer.node];
        let of = |stats: &StatsReader| -> anyhow::Result<Sums> {
            let read = &models[layer.head.unwrap_or(0)].graph.nodes[layer.source];
            let gram = gram(stats, read, &models)?;
            Ok(sums(layer, node, read, &models, &gram, &merge.weights)?)
        };
        let fitted = of(stats)?;
        let held_out = match holdout {
            Some(holdout) => of(holdout)?,
            None => Sums::zeros(Design::of(&node.op).context("a layer with parameters")?),
        };
        let solution = solve(std::slice::from_mut(node), &mut network.weights, [fitted, held_out], merge.ridge)?;
        reports.push(LayerReport::new(std::slice::from_ref(node), Outcome::Weights(solution)));
        progress.advance(1);
    }
    Ok((network, reports))
}

/// A scale and a shift per feature.
fn scales(merge: &Merge<'_>, stats: &StatsReader, stage: &Stage) -> anyhow::Result<(zipit::Model, Vec<LayerReport>)> {
    let models = merge.models();
    let sites = sites(&merge.grafted, &models);
    let mut network = merge.grafted.model.clone();
    let progress = stage.progress("refit", "layers", sites.len() as u64);
    let mut reports = Vec::with_capacity(sites.len());
    for site in &sites {
        ensure!(!progress.interrupted(), "interrupted, nothing was written");
        let read = &models[site.head.unwrap_or(0)].graph.nodes[site.source];
        let gram = gram(stats, read, &models)?;
        let spread = spread(site, &network, read, &models, &gram)?;
        let rescaled = rescale(site, &mut network, &spread)?;
        let writer = site.writers[0];
        reports.push(LayerReport::new(&network.graph.nodes[writer..=writer], Outcome::Scale(rescaled)));
        progress.advance(1);
    }
    Ok((network, reports))
}

/// The moments of what a layer reads: measured for that layer, or for another one that reads the same.
fn gram(stats: &StatsReader, read: &Node, models: &[&Model]) -> anyhow::Result<Gram> {
    let node = |module: &String| {
        let mut nodes = models.iter().flat_map(|model| &model.graph.nodes);
        nodes.find(|node| node.module.as_ref() == Some(module))
    };
    let layers = || stats.header().layers.iter().map(|(module, _)| module);
    let own = layers().filter(|module| read.module.as_ref() == Some(module));
    let alike = own.chain(layers()).find(|module| node(module).is_some_and(|node| reads_alike(node, read)));
    let missing = || format!("what `{}` reads was not measured: refit on images (another --mode)", read.name);
    Ok(stats.gram(alike.with_context(missing)?)?)
}

/// Opens moments and checks that they are of the plan's models and of their layers.
fn open(path: &Path, plan: &PlanFile) -> anyhow::Result<StatsReader> {
    let stats = StatsReader::open(path)?;
    let header = stats.header();
    ensure!(
        header.models.iter().map(|m| &m.blake3).eq(plan.models.iter().map(|m| &m.blake3)),
        "{} was measured on other models than {} merges",
        path.display(),
        plan.path.display()
    );
    ensure!(
        header.is_complete() && header.shard.is_none(),
        "{} is only a part of a collection: add its shards up with `collect --reduce`, or let `collect` finish",
        path.display()
    );
    ensure!(
        header.gram.is_some(),
        "{} does not hold what the layers read: collect again with `--gram joint` (or `own`)",
        path.display()
    );
    Ok(stats)
}
