//! `inspect`: says what a file is, and draws its network; for several models, whether they can be merged.

mod describe;
mod draw;
mod kinship;
mod spaces;

use anyhow::{bail, ensure};
use clap::Parser;
use std::path::PathBuf;
use zipit_artifact::header::Kind;
use zipit_artifact::{atomic, model};
use zipit_stage::{Common, Format, HasCommon, Stage, Usage, manifest};

/// Say what files are; for two or more models, whether they can be merged.
///
/// --svg and --dot draw the network of a model, of stats or of a plan: nodes with their shapes, coloured by the feature
/// space they lie in, and what is merged.
///
/// Example: inspect a.safetensors b.safetensors
#[derive(Debug, Parser)]
#[command(name = "inspect", version)]
struct Args {
    /// Model, masked networks', stats, plan, report or data files
    #[arg(required_unless_present = "verify")]
    files: Vec<PathBuf>,
    /// Re-hash every file that the stages wrote into this folder against its manifest.json
    #[arg(long, value_name = "FOLDER", conflicts_with = "files")]
    verify: Option<PathBuf>,
    /// Draw the network into this SVG file
    #[arg(long, value_name = "FILE", conflicts_with = "verify", help_heading = zipit_stage::args::OUTPUT)]
    svg: Option<PathBuf>,
    /// Write the drawing in Graphviz's language, after the file's name; without FILE to stdout
    #[arg(
        long,
        value_name = "FILE",
        num_args = 0..=1,
        default_missing_value = "-",
        conflicts_with = "verify",
        help_heading = zipit_stage::args::OUTPUT
    )]
    dot: Option<PathBuf>,
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

fn main() {
    zipit_stage::run(run)
}

fn run(args: &Args, stage: &Stage) -> anyhow::Result<()> {
    if let Some(folder) = &args.verify {
        let checked = manifest::verify(folder)?;
        return stage.print(&format!("{checked} files are what the manifests say\n"));
    }
    if args.svg.is_some() || args.dot.is_some() {
        return draw(args, stage);
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

fn draw(args: &Args, stage: &Stage) -> anyhow::Result<()> {
    let [file] = &args.files[..] else {
        return Err(Usage("one file is drawn at a time".to_owned()).into());
    };
    let picture = draw::picture(file)?;
    let told = format!("{} nodes in {} boxes", picture.n_nodes, picture.cards.len());
    for (out, text) in [(&args.svg, draw::svg as fn(&_) -> _), (&args.dot, draw::dot)] {
        match out {
            Some(out) if out.as_os_str() == "-" => stage.print(&text(&picture))?,
            Some(out) => {
                stage.may_replace(out)?;
                let text: String = text(&picture);
                atomic::write(out, |file| file.write_all(text.as_bytes()))?;
                stage.print(&format!("{}: {told}\n", out.display()))?;
            }
            None => {}
        }
    }
    Ok(())
}
