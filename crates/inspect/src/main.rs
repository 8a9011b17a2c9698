//! `inspect`: says what a file is; for several models, whether they can be merged.

mod describe;
mod kinship;

use anyhow::{bail, ensure};
use clap::Parser;
use std::path::PathBuf;
use std::process::ExitCode;
use zipit_artifact::header::Kind;
use zipit_artifact::model;
use zipit_stage::{Common, Format, HasCommon, Stage, manifest};

/// Say what files are; for two or more models, whether they can be merged.
///
/// Example: inspect a.safetensors b.safetensors
#[derive(Debug, Parser)]
#[command(name = "inspect", version)]
struct Args {
    /// Model, stats, plan, report or data files
    #[arg(required_unless_present = "verify")]
    files: Vec<PathBuf>,
    /// Re-hash every file that the stages wrote into this folder against its manifest.json
    #[arg(long, value_name = "FOLDER", conflicts_with = "files")]
    verify: Option<PathBuf>,
    /// How the description is printed
    #[arg(long, value_enum, default_value_t, help_heading = zipit_stage::args::OUTPUT)]
    format: Format,
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
    if let Some(folder) = &args.verify {
        let checked = manifest::verify(folder)?;
        return stage.print(&format!("{checked} files are what the manifests say\n"));
    }
    if let [file] = &args.files[..] {
        return stage.print(&describe::file(file, args.format)?);
    }
    for file in &args.files {
        let kind = zipit_artifact::sniff(file)?;
        ensure!(
            matches!(kind, Kind::Model),
            "{} is {kind}; several files are compared only if all are models",
            file.display()
        );
    }
    let models = args.files.iter().map(|path| model::read(path)).collect::<Result<Vec<_>, _>>()?;
    let (text, mergeable) = kinship::compare(&models, args.format)?;
    stage.print(&text)?;
    if !mergeable {
        bail!("these models cannot be merged with each other");
    }
    Ok(())
}
