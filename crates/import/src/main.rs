//! `import`: a PyTorch checkpoint in, a model file out. Needs no LibTorch and executes no pickle.

mod classes;
mod preprocess;
mod pytorch;
mod source;
mod unwrap;

use anyhow::{Context, ensure};
use clap::Parser;
use classes::classes;
use preprocess::{ForChannels, PreprocessArgs};
use source::Source;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::ExitCode;
use zipit::graph::{Arch, ArchSpec};
use zipit::{Model, Task};
use zipit_artifact::header::{InputRef, hash_file};
use zipit_artifact::model;
use zipit_stage::{Common, HasCommon, Stage};

/// Make a model file from a PyTorch checkpoint (.pt, .pth, .safetensors).
///
/// Width, input channels and the kind of head are read off the tensors.
///
/// Example: import digits.pth --arch resnet20 --classes 0-9 --size 32 --mean 0.1307 --std 0.3081 -o digits.safetensors
#[derive(Debug, Parser)]
#[command(name = "import", version)]
struct Args {
    /// A state dict saved by torch.save (bare or nested), or a .safetensors file
    checkpoint: PathBuf,
    /// resnet20, resnet32, resnet56 (CIFAR layout), `vgg11_bn`, `vgg16_bn`, resnet18, resnet34, resnet50 (torchvision)
    #[arg(long)]
    arch: Arch,
    /// Class names in logit order, or indices such as 5-9, as the data set spells them
    #[arg(long, value_delimiter = ',', required_unless_present = "classes_file")]
    classes: Vec<String>,
    /// A text file with one class name a line
    #[arg(long, conflicts_with = "classes")]
    classes_file: Option<PathBuf>,
    /// What the task is called [default: the checkpoint's file name]
    #[arg(long)]
    task: Option<String>,
    /// Where in the checkpoint the weights are (`state_dict`, model, ema, …) [default: found by name]
    #[arg(long)]
    key: Option<String>,
    #[command(flatten)]
    preprocess: PreprocessArgs,
    /// The model file to write
    #[arg(long, short, help_heading = zipit_stage::args::OUTPUT)]
    out: PathBuf,
    #[command(flatten)]
    common: Common,
}

impl HasCommon for Args {
    fn common(&self) -> &Common {
        &self.common
    }
}

fn main() -> ExitCode {
    zipit_stage::run(run)
}

fn run(args: &Args, stage: &Stage) -> anyhow::Result<()> {
    let source = Source::open(&args.checkpoint)?;
    let input = InputRef {
        name: args.checkpoint.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        kind: "checkpoint".to_owned(),
        blake3: hash_file(&args.checkpoint)?,
        provenance: None,
    };
    let provenance = stage.provenance(vec![input], [].into());
    if !args.common.dry_run && stage.up_to_date(&args.out, &provenance)? {
        return Ok(());
    }
    let model = model(args, &source).with_context(|| format!("{} as {}", args.checkpoint.display(), args.arch))?;
    let n_params = model.graph.cost()?.params;
    let task = &model.tasks[0];
    let told = format!(
        "{}, {n_params} parameters, input {:?}, task `{}` with {} classes ({})",
        model.graph.arch,
        model.graph.input.shape,
        task.name,
        task.classes.len(),
        task.classes.join(", ")
    );
    if args.common.dry_run {
        return stage.print(&format!("{told}; would write {}\n", args.out.display()));
    }
    model::write(&args.out, &model, &provenance)?;
    stage.record(&args.out);
    stage.print(&format!("{}: {told}\n", args.out.display()))
}

fn model(args: &Args, source: &Source) -> anyhow::Result<Model> {
    let preprocess = args.preprocess.resolve(args.arch)?;
    let shapes = source.shapes();
    // Names do not depend on width, channels or classes.
    let names = ArchSpec::new(args.arch, 1.0, 3, preprocess.size, 10).build()?;
    let expected: BTreeSet<String> = names.params().into_keys().collect();
    let prefix = unwrap::find_prefix(&shapes.keys().copied().collect(), &expected, args.key.as_deref())?;
    if !prefix.is_empty() {
        tracing::info!("took the tensors under `{}`", prefix.trim_end_matches('.'));
    }
    let (inside, outside): (Vec<_>, Vec<_>) = shapes.into_iter().partition(|(name, _)| name.starts_with(&prefix));
    if !outside.is_empty() {
        tracing::info!("left {} other tensors in the checkpoint alone ({} …)", outside.len(), outside[0].0);
    }
    let (counters, tensors): (Vec<_>, Vec<_>) = inside.into_iter().partition(|(name, _)| source.is_counter(name));
    if !counters.is_empty() {
        tracing::info!("left {} integer buffers out ({} …)", counters.len(), counters[0].0);
    }
    let tensors: BTreeMap<&str, Vec<usize>> =
        tensors.into_iter().map(|(name, shape)| (&name[prefix.len()..], shape)).collect();
    let spec = ArchSpec::infer(args.arch, preprocess.size, &tensors)?;
    let graph = spec.build()?;
    graph.check_tensor_shapes(&tensors)?;
    let preprocess = preprocess.for_channels(graph.input.shape[0])?;
    let classes = classes(args)?;
    let n_logits = spec.n_classes;
    ensure!(
        classes.len() == n_logits,
        "the network has {n_logits} logits but --classes names {}: give one name per logit, in order",
        classes.len()
    );
    let weights = tensors
        .keys()
        .map(|name| Ok(((*name).to_owned(), source.read(&format!("{prefix}{name}"))?)))
        .collect::<anyhow::Result<_>>()?;
    let stem = args.checkpoint.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let tasks = vec![Task { name: args.task.clone().unwrap_or(stem), classes }];
    let model = Model { graph, weights, tasks, preprocess, joint: None };
    model.validate()?;
    Ok(model)
}
