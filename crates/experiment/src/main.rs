//! `experiment`: an experiment file in, make rules out.

use clap::{Parser, ValueEnum};
use std::path::PathBuf;
use zipit_experiment::rules::{Part, fragment};
use zipit_experiment::{Experiment, layout};
use zipit_stage::{Common, HasCommon, Stage};

/// Turn an experiment file into make rules, one per stage and file.
///
/// What two experiments have in common has the same path and is made once. Where the file chooses something on
/// validation images, the rules come in two parts: `--part select` measures the candidates, `--part all` reads what was
/// measured and holds everything else. `make experiment NAME=…` does both.
///
/// Example: experiment experiments/fashion-5+5.toml --part select -o runs/experiments/fashion-5+5/select.mk
#[derive(Debug, Parser)]
#[command(name = "experiment", version)]
struct Args {
    /// The experiment, a TOML file
    file: PathBuf,
    /// Which rules
    #[arg(long, value_enum, default_value_t = PartArg::All)]
    part: PartArg,
    /// The make fragment to write [default: print it]
    #[arg(long, short, help_heading = zipit_stage::args::OUTPUT)]
    out: Option<PathBuf>,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum PartArg {
    /// Up to the validation reports that something is chosen on
    Select,
    /// Everything
    All,
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
    let experiment = Experiment::read(&args.file)?;
    let part = match args.part {
        PartArg::Select => Part::Select,
        PartArg::All => Part::All,
    };
    let text = fragment(&experiment, part)?;
    let n_sets: usize = experiment.cases.iter().map(|case| experiment.sets(case).len()).sum();
    if args.common.dry_run {
        let n_files = text.lines().filter(|line| line.starts_with("\t@echo")).count();
        return stage.print(&format!(
            "{}: {n_sets} merge sets, {n_files} files below {}, {} and {}\n",
            experiment.name,
            layout::MERGES,
            layout::SOURCES,
            experiment.folder().display()
        ));
    }
    let Some(out) = &args.out else { return stage.print(&text) };
    zipit_artifact::atomic::write(out, |file| file.write_all(text.as_bytes()))?;
    for case in &experiment.cases {
        if part == Part::All {
            for choice in experiment.choose(case)? {
                tracing::info!("{}, {}: {}", case.name, choice.name, choice.best());
            }
        }
    }
    Ok(())
}
