//! `report`: an experiment that was run, or the results of one, in; tables, figures and one page out.

use anyhow::Context;
use clap::Parser;
use std::path::{Path, PathBuf};
use zipit::watch::Watch;
use zipit_artifact::atomic;
use zipit_experiment::Experiment;
use zipit_report::results::Results;
use zipit_report::{figures, gather, markdown, overview, page};
use zipit_stage::{Common, HasCommon, Stage, Usage};

/// Gather an experiment's results: tables as Markdown and JSON, figures as SVG and PNG, and one HTML page of it all.
///
/// Takes the experiment's TOML file after `make experiment` has run it, or a results.json that was made of it.
///
/// Example: report experiments/fashion-5+5.toml -o runs/experiments/fashion-5+5
///
/// Example: report --overview results/*/results.json -o results/README.md
#[derive(Debug, Parser)]
#[command(name = "report", version, verbatim_doc_comment)]
struct Args {
    /// An experiment (.toml), or its results (.json); several results with --overview
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// One Markdown page with a line per experiment
    #[arg(long, conflicts_with = "tables", help_heading = zipit_stage::args::OUTPUT)]
    overview: bool,
    /// The folder to write results.json, results.md, report.html and figures/ into; the page of --overview
    #[arg(long, short, help_heading = zipit_stage::args::OUTPUT)]
    out: PathBuf,
    /// Only the tables: results.json and results.md
    #[arg(long, help_heading = zipit_stage::args::OUTPUT)]
    tables: bool,
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
    if args.overview {
        let all = args.files.iter().map(|file| read(file)).collect::<anyhow::Result<Vec<_>>>()?;
        if args.common.dry_run {
            return stage.print(&format!("would write {} experiments into {}\n", all.len(), args.out.display()));
        }
        return write(&args.out, overview::render(&all).as_bytes());
    }
    let [file] = &args.files[..] else {
        return Err(Usage("several files make one page only with --overview".to_owned()).into());
    };
    let (results, heat_maps) = if file.extension().is_some_and(|ending| ending == "json") {
        (read(file)?, vec![])
    } else {
        gather::results(&Experiment::read(file)?)?
    };
    if args.common.dry_run {
        return stage.print(&format!("would write the results of {} into {}\n", results.name, args.out.display()));
    }
    std::fs::create_dir_all(&args.out).with_context(|| format!("cannot make the folder {}", args.out.display()))?;
    let json = serde_json::to_string_pretty(&results)? + "\n";
    write(&args.out.join("results.json"), json.as_bytes())?;
    write(&args.out.join("results.md"), markdown::render(&results).as_bytes())?;
    if args.tables {
        return stage.print(&format!("{}: results.json, results.md\n", args.out.display()));
    }
    let drawn = figures::all(&results, &heat_maps)?;
    let folder = args.out.join("figures");
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
    let progress = stage.progress("report", "figures", drawn.len() as u64);
    for figure in &drawn {
        anyhow::ensure!(!stage.interrupted(), "interrupted; what was written is whole");
        write(&folder.join(format!("{}.svg", figure.name)), figure.svg.as_bytes())?;
        write(&folder.join(format!("{}.png", figure.name)), &figure.png()?)?;
        progress.advance(1);
    }
    drop(progress);
    let out = args.out.join("report.html");
    write(&out, page::render(&results, &drawn)?.as_bytes())?;
    stage.print(&format!("{}: {} figures\n", out.display(), drawn.len()))
}

fn read(path: &Path) -> anyhow::Result<Results> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_str(&text)
        .with_context(|| format!("{} holds no results: expected the results.json that `report` wrote", path.display()))
}

fn write(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    Ok(atomic::write(path, |file| file.write_all(bytes))?)
}
