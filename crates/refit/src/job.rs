//! Refitting: checked inputs → graph surgery → layer after layer → model file.

use crate::report::{RefitReport, table};
use crate::{Args, Mode, Trust, grams, images};
use anyhow::{Context, ensure};
use zipit::Model;
use zipit::apply::Grafted;
use zipit::graph::Cost;
use zipit::refit::{Ridge, graft_folded, weighted};
use zipit_artifact::header::{InputRef, Provenance};
use zipit_artifact::model::{self, ModelFile};
use zipit_artifact::report as report_file;
use zipit_stage::{Stage, Usage};

/// The merge that is refitted.
pub struct Merge<'a> {
    pub args: &'a Args,
    /// The models, BatchNorm folded.
    pub folded: Vec<Model>,
    /// W* and where every node is from.
    pub grafted: Grafted,
    pub ridge: Ridge,
    /// How much each model counts.
    pub weights: Vec<f64>,
}

impl Merge<'_> {
    /// The models, BatchNorm folded.
    pub fn models(&self) -> Vec<&Model> {
        self.folded.iter().collect()
    }
}

/// What came out.
pub struct Refitted {
    pub network: Model,
    pub report: RefitReport,
    /// What the layers were fitted to, for people.
    pub fitted_to: String,
}

/// Where the outputs go, and whether they are there already.
pub struct Outputs<'a> {
    args: &'a Args,
    stage: &'a Stage,
    pub provenance: Provenance,
}

pub fn refit(args: &Args, stage: &Stage) -> anyhow::Result<()> {
    check(args)?;
    let (plan, files) = args.merge.read()?;
    let models: Vec<&Model> = files.iter().map(|file| &file.model).collect();
    let ridge = args.ridge.map_or(Ridge::HeldOut, Ridge::Fixed);
    ridge.validate()?;
    let (folded, mut grafted) =
        graft_folded(&models, &plan.plan, args.merge.heads()).with_context(|| format!("{}", plan.path.display()))?;
    let weights = args.weights.clone().unwrap_or_else(|| vec![1.0; models.len()]);
    if args.weights.is_some() {
        grafted = weighted(grafted, &weights, models.len())?;
    }
    let merge = Merge { args, folded, grafted, ridge, weights };
    let mut inputs: Vec<InputRef> = vec![plan.input_ref()];
    inputs.extend(files.iter().map(ModelFile::input_ref));
    let (one, precision): (Cost, _) = (models[0].graph.cost()?, files[0].precision);
    let done = match args.mode {
        Mode::Gram => grams::refit(&merge, &plan, inputs, stage)?,
        Mode::Sequential | Mode::Layerwise => {
            images::refit(merge, files.into_iter().map(|file| file.model).collect(), inputs, stage)?
        }
    };
    let Some((outputs, Refitted { network, report, fitted_to })) = done else { return Ok(()) };
    network.validate()?;
    model::write_as(&args.out, &network, args.precision.given(precision), &outputs.provenance)?;
    if let Some(path) = &args.report {
        report_file::write(path, &report, &outputs.provenance)?;
        stage.record(path);
    }
    stage.record(&args.out);
    stage.print(&table(&report).render(args.format, &report)?)?;
    let all: Cost = network.graph.cost()?;
    tracing::info!(
        "{}: {} layers {} {fitted_to}; {:.2}× the FLOPs of one model",
        args.out.display(),
        report.layers.len(),
        if args.repair { "rescaled on" } else { "solved on" },
        all.macs as f64 / one.macs as f64
    );
    Ok(())
}

/// Flags that make no sense together.
fn check(args: &Args) -> anyhow::Result<()> {
    let usage = |text: &str| Err(Usage(text.to_owned()).into());
    ensure!(args.max_memory >= 0.0, "--max-memory is {}: it cannot be negative", args.max_memory);
    match args.mode {
        Mode::Gram if args.stats.is_none() => usage("--mode gram needs --stats, from `collect --gram`"),
        Mode::Gram if args.images.given() => usage("--mode gram takes no images: leave --data out"),
        Mode::Gram if args.flip => usage("--mode gram takes no images: there are none for --flip to mirror"),
        Mode::Sequential | Mode::Layerwise if args.stats.is_some() => {
            usage("--stats belongs to --mode gram; the other modes take images (--data)")
        }
        Mode::Gram | Mode::Layerwise if args.rounds() > 0 => {
            usage("--rounds belongs to --mode sequential: the others do not run the network that is solved")
        }
        Mode::Gram if args.trust() != Trust::All => {
            usage("--trust asks the models about every image: --mode gram has none")
        }
        Mode::Sequential if args.repair && args.trust() != Trust::All => {
            usage("--repair measures all images alike: leave --trust out")
        }
        Mode::Layerwise if args.repair => usage("--repair measures the merged network itself: leave --mode out"),
        Mode::Gram | Mode::Sequential | Mode::Layerwise => Ok(()),
    }
}

impl<'a> Outputs<'a> {
    pub fn new(args: &'a Args, stage: &'a Stage, provenance: Provenance) -> Self {
        Self { args, stage, provenance }
    }

    /// Whether everything asked for is there; what is not may be written.
    pub fn up_to_date(&self) -> anyhow::Result<bool> {
        let model = self.stage.up_to_date(&self.args.out, &self.provenance)?;
        let report = match &self.args.report {
            Some(report) => self.stage.up_to_date(report, &self.provenance)?,
            None => true,
        };
        Ok(model && report)
    }
}
