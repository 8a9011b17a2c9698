//! Training: checked settings → epochs → model file, with the state saved beside it after every epoch.

use crate::Args;
use crate::base::Base;
use crate::embedding::Embeddings;
use crate::source::{TaskImages, preprocess, task};
use anyhow::{Context, bail};
use std::path::Path;
use zipit::graph::ArchSpec;
use zipit::{Graph, Model, Preprocess};
use zipit_artifact::header::Provenance;
use zipit_artifact::model;
use zipit_stage::Stage;
use zipit_stage::images::open_dataset;
use zipit_stage::provenance::data_input;
use zipit_stage::saving::{beside, leave_behind, left_behind, no_state_of};
use zipit_torch::device::{libtorch_version, multiplies_bf16, set_intra_op_threads};
use zipit_torch::images::LabelledImages;
use zipit_torch::train::{Autocast, TrainSettings, TrainState, Trainer};

/// What is saved on the way.
const WHAT: &str = "a training";

pub fn train(args: &Args, stage: &Stage) -> anyhow::Result<()> {
    // A sum in another order is another network: the number of threads is part of the experiment.
    let n_threads = args.common.threads.map_or(1, usize::from);
    set_intra_op_threads(n_threads);
    let dataset = open_dataset(&args.data, args.split)?;
    let (task, classes) = task(args, &dataset)?;
    let base = args.from.as_deref().map(Base::read).transpose()?;
    let preprocess = base.as_ref().map_or_else(|| preprocess(args, &dataset), |base| Ok(base.preprocess()))?;
    let shared = args.embeddings.as_deref().map(|path| Embeddings::read(path, &dataset)).transpose()?;
    let graph = match &base {
        Some(base) => base.graph(classes.len())?,
        None => graph(args, &preprocess, shared.as_ref(), classes.len())?,
    };
    let images = TaskImages::new(&dataset, &preprocess, &classes);
    let environment =
        [("libtorch".to_owned(), libtorch_version().to_owned()), ("threads".to_owned(), n_threads.to_string())];
    let mut inputs = vec![data_input(dataset.name().to_owned(), dataset.digest())];
    inputs.extend(shared.as_ref().map(Embeddings::input_ref));
    inputs.extend(base.as_ref().map(Base::input_ref));
    let provenance = stage.provenance(inputs, environment.into());
    let settings = TrainSettings {
        epochs: args.epochs,
        batch_size: args.batch_size,
        max_lr: args.lr,
        weight_decay: args.weight_decay,
        label_smoothing: args.label_smoothing,
        flip: !args.no_flip,
        shift: args.shift,
        autocast: if args.bf16 { Autocast::Bf16 } else { Autocast::Off },
        ..TrainSettings::default()
    };
    if args.bf16 && !multiplies_bf16(args.device) {
        tracing::warn!(
            "this processor has no fast multiplication in bf16 (AVX-512): without --bf16 it is many times faster"
        );
    }
    let n_images = images.labels().len();
    let cost = graph.cost()?;
    let told = format!(
        "{} ({} parameters) on {n_images} images of {} classes, {} epochs",
        graph.arch,
        cost.params,
        classes.len(),
        args.epochs
    );
    let mut trainer = Trainer::new(&graph, &preprocess, settings, args.seed, n_images, args.device)?;
    if let Some(base) = &base {
        trainer.begin_with(&base.weights(&graph, args.seed)?)?;
    }
    if let Some(shared) = &shared {
        let (name, vectors) = shared.of(&classes);
        trainer.fix(&name, &vectors)?;
    }
    if args.common.dry_run {
        return stage.print(&format!("would train a {told}; would write {}\n", args.out.display()));
    }
    if stage.up_to_date(&args.out, &provenance)? {
        return Ok(());
    }
    tracing::info!("training a {told}");
    let resume = beside(&args.out, ".resume");
    restore(&mut trainer, &resume, &provenance, stage)?;
    let progress = stage.progress("train", "images", (args.epochs * n_images) as u64);
    progress.skip(trainer.step() * args.batch_size as u64);
    let mut last = None;
    while !trainer.is_done() {
        let epoch = trainer.epochs_done() + 1;
        let stats = trainer.epoch(&images, &progress, &mut |step| {
            let accuracy = 100.0 * step.n_correct as f64 / step.n_images as f64;
            progress.note(format!("epoch {epoch}/{} loss {:.3} accuracy {accuracy:.1} %", args.epochs, step.loss));
        })?;
        save(&trainer, &resume, &provenance)?;
        if !stats.complete {
            bail!("interrupted in epoch {epoch}; the same command goes on from there ({})", resume.display());
        }
        tracing::info!("epoch {epoch}: loss {:.4}, training accuracy {:.2} %", stats.loss, 100.0 * stats.accuracy());
        last = Some(stats);
    }
    drop(progress);
    let mut model = Model { graph, weights: trainer.weights()?, tasks: vec![task], preprocess, joint: None };
    if let Some(shared) = &shared {
        shared.speak_of_all(&mut model, &dataset)?;
    }
    model.validate()?;
    model::write(&args.out, &model, &provenance)?;
    std::fs::remove_file(&resume).with_context(|| format!("cannot remove {}", resume.display()))?;
    stage.record(&args.out);
    let accuracy = last.map(|s| format!(", training accuracy {:.2} %", 100.0 * s.accuracy())).unwrap_or_default();
    stage.print(&format!("{}: {told}{accuracy}\n", args.out.display()))
}

fn graph(args: &Args, preprocess: &Preprocess, shared: Option<&Embeddings>, n_classes: usize) -> anyhow::Result<Graph> {
    let n_outputs = shared.map_or(n_classes, Embeddings::length);
    let arch = args.arch.context("which --arch?")?;
    let graph = ArchSpec::new(arch, args.width, preprocess.channels(), preprocess.size, n_outputs)
        .build()
        .with_context(|| format!("{} on {:?} images (see --size)", arch, preprocess.size))?;
    shared.map_or_else(|| Ok(graph.clone()), |shared| shared.on_top(&graph, n_classes))
}

fn save(trainer: &Trainer, path: &Path, provenance: &Provenance) -> anyhow::Result<()> {
    let TrainState { step, tensors } = trainer.state()?;
    leave_behind(path, step.to_string(), tensors, provenance)
}

/// Goes on from what an interrupted run of the same command left.
fn restore(trainer: &mut Trainer, path: &Path, provenance: &Provenance, stage: &Stage) -> anyhow::Result<()> {
    let Some((state, tensors)) = left_behind(path, WHAT, provenance, stage)? else { return Ok(()) };
    let step = state.parse().with_context(|| no_state_of(path, WHAT))?;
    trainer.restore(&TrainState { step, tensors })?;
    tracing::info!("going on after {} epochs", trainer.epochs_done());
    Ok(())
}
