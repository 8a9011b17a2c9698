//! `import`: a PyTorch checkpoint, or a network exported with its graph, in; a model file out. Needs no LibTorch and
//! executes no pickle.

mod checkpoint;
mod classes;
mod exported;
mod imported;
mod preprocess;
mod pytorch;
mod source;
mod unwrap;

use clap::Parser;
use imported::Imported;
use preprocess::PreprocessArgs;
use std::path::{Path, PathBuf};
use zipit::Task;
use zipit::graph::Arch;
use zipit_artifact::header::{InputRef, hash_file};
use zipit_artifact::model;
use zipit_stage::{Common, HasCommon, PrecisionArg, Stage};

/// Make a model file from a PyTorch checkpoint (.pt, .pth, .safetensors).
///
/// Of the architectures that --arch knows, width, input channels and the kind of head are read off the tensors. Any
/// other network is exported with its graph first (`scripts/zipit_torch.py export`), and imported without --arch.
///
/// Example: import digits.pth --arch resnet20 --classes 0-9 --size 32 --mean 0.1307 --std 0.3081 -o digits.safetensors
#[derive(Debug, Parser)]
#[command(name = "import", version)]
struct Args {
    /// A state dict saved by torch.save (bare or nested), or a .safetensors file; or an exported network
    checkpoint: PathBuf,
    /// resnet20, resnet32, resnet56 (CIFAR layout), `vgg11_bn`, `vgg16_bn`, resnet18, resnet34, resnet50 (torchvision)
    /// [default: the graph in the file]
    #[arg(long)]
    arch: Option<Arch>,
    /// Class names in logit order, or indices such as 5-9, as the data set spells them; of several tasks with classes one
    /// after the other; `-`: an exported network's outputs have none [default for an exported network: its own]
    #[arg(long, value_delimiter = ',')]
    classes: Vec<String>,
    /// A text file with one class name a line
    #[arg(long, conflicts_with = "classes")]
    classes_file: Option<PathBuf>,
    /// What the task is called; of a network with several, once for each [default: an exported network's own, else the
    /// checkpoint's file name]
    #[arg(long)]
    task: Vec<String>,
    /// Where in the checkpoint the weights are (`state_dict`, model, ema, …) [default: found by name]
    #[arg(long, requires = "arch")]
    key: Option<String>,
    /// The checkpoint that an exported network's weights are from, for the provenance [default: the exported file]
    #[arg(long, value_name = "CHECKPOINT", conflicts_with = "arch")]
    source: Vec<PathBuf>,
    #[command(flatten)]
    preprocess: PreprocessArgs,
    #[command(flatten)]
    precision: PrecisionArg,
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

fn main() {
    zipit_stage::run(run)
}

fn run(args: &Args, stage: &Stage) -> anyhow::Result<()> {
    let Imported { model, precision, sources, environment } = imported::read(args)?;
    let inputs = sources.iter().map(|path| input(path)).collect::<anyhow::Result<_>>()?;
    let provenance = stage.provenance(inputs, environment);
    if !args.common.dry_run && stage.up_to_date(&args.out, &provenance)? {
        return Ok(());
    }
    let shapes = model.graph.output_shapes()?;
    let tasks: Vec<String> = (model.tasks.iter().zip(shapes))
        .map(|(Task { name, classes }, shape)| match classes.len() {
            0 => format!("task `{name}`, {shape:?}"),
            n => format!("task `{name}` with {n} classes ({})", classes.join(", ")),
        })
        .collect();
    let told = format!(
        "{}, {} parameters, input {:?}, {}",
        model.graph.arch,
        model.graph.cost()?.params,
        model.graph.input.shape,
        tasks.join("; ")
    );
    if args.common.dry_run {
        return stage.print(&format!("{told}; would write {}\n", args.out.display()));
    }
    model::write_as(&args.out, &model, args.precision.given(precision), &provenance)?;
    stage.record(&args.out);
    stage.print(&format!("{}: {told}\n", args.out.display()))
}

fn input(path: &Path) -> anyhow::Result<InputRef> {
    Ok(InputRef {
        name: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        kind: "checkpoint".to_owned(),
        blake3: hash_file(path)?,
        provenance: None,
    })
}
