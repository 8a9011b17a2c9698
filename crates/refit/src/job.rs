//! Refitting: checked inputs → graph surgery → layer after layer → model file, with the solved layers saved beside it.

use crate::report::{LayerReport, RefitReport, table};
use crate::{Args, resume};
use anyhow::{Context, bail, ensure};
use std::path::Path;
use std::time::{Duration, Instant};
use zipit::images::ImageBatches;
use zipit::refit::{Ridge, graft_folded};
use zipit::scratch::Scratch;
use zipit::watch::Watch;
use zipit::{Model, graph::Cost};
use zipit_artifact::header::Provenance;
use zipit_artifact::model::{self, ModelFile};
use zipit_artifact::{report as report_file, scratch::ScratchFile};
use zipit_data::Split;
use zipit_stage::Stage;
use zipit_stage::images::tasks_of;
use zipit_torch::device::libtorch_version;
use zipit_torch::refit::{Refit, Settings};
use zipit_torch::batch_size;

/// How often solved layers are saved.
const SAVE_EVERY: Duration = Duration::from_secs(30);

pub fn refit(args: &Args, stage: &Stage) -> anyhow::Result<()> {
    ensure!(args.max_memory >= 0.0, "--max-memory is {}: it cannot be negative", args.max_memory);
    let (plan, files) = args.merge.read()?;
    let models: Vec<&Model> = files.iter().map(|file| &file.model).collect();
    let set = args.images.choose(&tasks_of(&models), Split::Train)?;
    let mut inputs = vec![plan.input_ref()];
    inputs.extend(files.iter().map(ModelFile::input_ref));
    inputs.extend(set.inputs());
    let environment = [("libtorch".to_owned(), libtorch_version().to_owned())].into();
    let provenance = stage.provenance(inputs, environment);
    let ridge = args.ridge.map_or(Ridge::HeldOut, Ridge::Fixed);
    ridge.validate()?;
    let settings = Settings { inputs: args.mode.inputs(), ridge };
    let graph = &models[0].graph;
    let size = args.images.batch_size.map_or_else(|| batch_size(graph, args.device), |n| Ok(n as usize))?;
    let batches = set.batches(&models[0].preprocess, size, None);
    let (folded, grafted) =
        graft_folded(&models, &plan.plan, args.merge.heads()).with_context(|| format!("{}", plan.path.display()))?;
    let folded: Vec<&Model> = folded.iter().collect();
    let scratch = ScratchFile::new(folder(&args.out))?;
    let limit = (args.max_memory * f64::from(1 << 30)) as usize;
    let limit = Some((limit, &scratch as &dyn Scratch));
    let mut refit = Refit::new(&folded, &grafted, &batches, settings, limit, args.device)?;
    let n_images = batches.n_images();
    if args.common.dry_run {
        return stage.print(&format!(
            "would solve {} layers on {n_images} unlabelled {} images in batches of {size}; would write {}\n",
            refit.layers().len(),
            set.split,
            args.out.display()
        ));
    }
    if stage.up_to_date(&args.out, &provenance)?
        && args.report.as_ref().is_none_or(|report| stage.up_to_date(report, &provenance).is_ok_and(|same| same))
    {
        return Ok(());
    }
    if let Some(report) = &args.report {
        stage.may_replace(report)?;
    }
    let layers = solve(args, stage, &mut refit, n_images, &provenance)?;
    let report = RefitReport { n_images: n_images as u64, layers };
    let network = refit.model();
    network.validate()?;
    model::write(&args.out, network, &provenance)?;
    if let Some(path) = &args.report {
        report_file::write(path, &report, &provenance)?;
        stage.record(path);
    }
    let resume = resume::path(&args.out);
    if resume.exists() {
        std::fs::remove_file(&resume).with_context(|| format!("cannot remove {}", resume.display()))?;
    }
    stage.record(&args.out);
    stage.print(&table(&report).render(args.format, &report)?)?;
    let (one, all): (Cost, Cost) = (graph.cost()?, network.graph.cost()?);
    tracing::info!(
        "{}: {} layers solved on {n_images} unlabelled {} images; {:.2}× the FLOPs of one model",
        args.out.display(),
        report.layers.len(),
        set.split,
        all.macs as f64 / one.macs as f64
    );
    Ok(())
}

/// All layers, those that an interrupted run solved among them.
fn solve(
    args: &Args,
    stage: &Stage,
    refit: &mut Refit<'_>,
    n_images: usize,
    provenance: &Provenance,
) -> anyhow::Result<Vec<LayerReport>> {
    let resume = resume::path(&args.out);
    let mut layers = resume::restore(refit, &resume, provenance, stage)?;
    let n_layers = refit.layers().len();
    let progress = stage.progress("refit", "image-layers", (n_layers * n_images) as u64);
    progress.skip((layers.len() * n_images) as u64);
    let mut saved = Instant::now();
    while refit.n_done() < n_layers {
        let started = Instant::now();
        let solved = match refit.step(&progress) {
            Ok(solved) => solved,
            Err(zipit_torch::Error::Zipit(zipit::Error::Interrupted)) => {
                resume::save(refit, &layers, &resume, provenance)?;
                bail!(
                    "interrupted after {} of {n_layers} layers; the same command goes on from there ({})",
                    layers.len(),
                    resume.display()
                );
            }
            Err(error) => return Err(error.into()),
        };
        // A pass may solve several layers at once.
        progress.advance(((solved.len() - 1) * n_images) as u64);
        for layer in solved {
            let layer = LayerReport::from(layer);
            let text = format!(
                "{}: error {:.2} → {:.2} %",
                layer.layer,
                100.0 * layer.solution.before,
                100.0 * layer.solution.after
            );
            tracing::debug!(
                "{text}, ridge {:.0e}, {:.1} s, {:.2} GiB of activations in memory",
                layer.solution.ridge,
                started.elapsed().as_secs_f64(),
                refit.bytes_in_memory() as f64 / f64::from(1 << 30)
            );
            progress.note(text);
            layers.push(layer);
        }
        if saved.elapsed() > SAVE_EVERY && refit.n_done() < n_layers {
            resume::save(refit, &layers, &resume, provenance)?;
            saved = Instant::now();
        }
    }
    Ok(layers)
}

fn folder(out: &Path) -> &Path {
    out.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
