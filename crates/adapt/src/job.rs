//! Adapting: checked inputs → steps, judged → model file, with the state saved beside it on the way.

use crate::flags::{LearnName, ObjectiveName};
use crate::images::Kept;
use crate::report::AdaptReport;
use crate::start::{Start, check, settings, start};
use crate::{Args, resume};
use anyhow::{Context, bail};
use std::collections::BTreeMap;
use std::time::Duration;
use zipit::Model;
use zipit::graph::Cost;
use zipit::watch::{Unwatched, Watch};
use zipit_artifact::header::{InputRef, Provenance};
use zipit_artifact::model::ModelFile;
use zipit_artifact::{model, report as report_file};
use zipit_data::Split;
use zipit_stage::images::{ImageSet, tasks_of, tell_copies};
use zipit_stage::saving::{Saver, beside};
use zipit_stage::{Progress, Stage};
use zipit_torch::adapt::{Adapter, HELD_OUT, Wanted};
use zipit_torch::device::{libtorch_version, multiplies_bf16};

/// Passes over the images, if nobody says how many.
const EPOCHS: f64 = 10.0;
/// Fewer steps than this change little.
const WORTH_IT: f64 = 20.0;
/// Share of the time that is left that steps take; judging and writing take the rest.
const STEPPING: f64 = 0.93;

pub fn adapt(args: &Args, stage: &Stage) -> anyhow::Result<()> {
    check(args)?;
    let Start { network, file, sources, learn, mut inputs } = start(args)?;
    let models: Vec<&Model> = sources.iter().map(|source| &source.model).collect();
    let outputs = network.outputs_of(&models).with_context(|| format!("{}", file.path.display()))?;
    for (source, path) in models.iter().zip(&args.to) {
        if source.preprocess != network.preprocess {
            bail!(
                "{} expects its images in another way than {}: {:?} instead of {:?}",
                path.display(),
                file.path.display(),
                source.preprocess,
                network.preprocess
            );
        }
    }
    all_are_spoken_of(args, &network, &outputs)?;
    let set = args.images.choose_apart(&tasks_of(&[&network]), Split::Train, HELD_OUT)?;
    let judges: Vec<bool> = (0..set.len()).map(|i| i >= set.len() - set.n_last).collect();
    inputs.extend(set.inputs());
    let settings = settings(args, learn);
    let mut environment = vec![("libtorch", libtorch_version().to_owned()), ("images", set.len().to_string())];
    // What decides the result beside the flags: defaults that were others once.
    if args.augmentation.changes() {
        environment.push(("views", settings.views.to_string()));
    }
    if args.learn == LearnName::Coefficients {
        environment.push(("statistics", "own".to_owned()));
    }
    let environment: BTreeMap<String, String> = environment.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
    let provenance = stage.provenance(inputs, environment);
    // Only for AdaMerging: of which task an image is.
    let owners = (args.objective == ObjectiveName::Entropy).then(|| set.tasks_of_images(&network.tasks)).transpose()?;
    let cost: Cost = network.graph.cost()?;
    let told = format!("{} unlabelled {} images", set.len(), set.split);
    let bytes = (args.max_memory * f64::from(1 << 30)) as usize;
    if args.common.dry_run {
        let images =
            if Kept::fits(&set, &network.preprocess, bytes) { "kept in memory" } else { "read in every epoch" };
        return stage.print(&format!(
            "would adapt {} parameters to {} networks on {told}, {images}; would write {}\n",
            cost.params,
            models.len(),
            args.out.display()
        ));
    }
    let report_is_there = args.report.as_ref().map(|report| stage.up_to_date(report, &provenance)).transpose()?;
    if stage.up_to_date(&args.out, &provenance)? && report_is_there.unwrap_or(true) {
        return Ok(());
    }
    if args.bf16 && !multiplies_bf16(args.device) {
        tracing::warn!(
            "this processor has no fast multiplication in bf16 (AVX-512): without --bf16 it is many times faster"
        );
    }
    tell_who_judges(&file, &set, args.images.seed);
    let images = Kept::new(&set, &network.preprocess, bytes).map_err(|e| anyhow::anyhow!(e))?;
    let wanted = Wanted {
        network: &network,
        sources: &models,
        outputs: &outputs,
        owners: owners.as_deref(),
        judges: Some(&judges),
    };
    let looking = stage.progress("measure", "images", Adapter::looks(set.len(), models.len()));
    let views = settings.views;
    let mut adapter = Adapter::new(wanted, &images, set.len(), settings, args.device, &looking)?;
    drop(looking);
    let [n_different, n_held_out] = adapter.n_images();
    tell_copies(set.len(), n_different);
    if args.augmentation.changes() && args.objective != ObjectiveName::Entropy && adapter.views() != views {
        tracing::info!(
            "what the networks say of {views} views of the images takes too much memory: they are asked at every step, \
             each of another view"
        );
    }
    if n_held_out == 0 {
        tracing::warn!("{n_different} different images are too few to hold any out: nothing says when to stop");
    }
    let saved = beside(&args.out, ".resume");
    if !resume::restore(&mut adapter, &saved, &provenance, stage)? {
        let n = steps(args, &mut adapter, stage)?;
        adapter.plan(n);
    }
    learn_all(args, stage, &mut adapter, &provenance)?;
    let adapted = finished(args, stage, &adapter, set.len(), &provenance)?;
    adapted.validate()?;
    model::write_as(&args.out, &adapted, args.precision.given(file.precision), &provenance)?;
    let report = AdaptReport::of(&adapter, set.len())?;
    if let Some(path) = &args.report {
        report_file::write(path, &report, &provenance)?;
        stage.record(path);
    }
    if saved.exists() {
        std::fs::remove_file(&saved).with_context(|| format!("cannot remove {}", saved.display()))?;
    }
    stage.record(&args.out);
    stage.print(&report.table(args).render(args.format, &report)?)?;
    tracing::info!("{}: adapted on {told}, {n_held_out} of them held out", args.out.display());
    Ok(())
}

/// An output that no network speaks of would drift with the features that it reads.
fn all_are_spoken_of(args: &Args, network: &Model, outputs: &[Vec<usize>]) -> anyhow::Result<()> {
    let silent = |&at: &usize| !outputs.iter().flatten().any(|&output| output == at);
    let silent: Vec<&str> = (0..network.tasks.len()).filter(silent).map(|at| network.tasks[at].name.as_str()).collect();
    if args.objective != ObjectiveName::Entropy && !silent.is_empty() {
        bail!(
            "no network after --to speaks of task {}, whose output would drift: give its network, too",
            silent.join(", ")
        );
    }
    Ok(())
}

/// Warns where the network was fitted to the images that judge it: they say that nothing is better.
fn tell_who_judges(file: &ModelFile, set: &ImageSet, seed: u64) {
    let Some(refit) = file.provenance.last_run_of("refit") else { return };
    let same = |data: &InputRef| refit.inputs.iter().any(|input| input.blake3 == data.blake3);
    let n = refit.environment.get("images").and_then(|n| n.parse::<usize>().ok()).unwrap_or(0);
    // In another order they are anywhere, and few of them speak for little.
    let in_order = refit.says("--seed").unwrap_or("0") == seed.to_string();
    let seen = if in_order { n + set.n_last > set.n_all } else { n * HELD_OUT > set.n_all };
    if set.inputs().iter().any(same) && seen {
        tracing::warn!(
            "{} was fitted to {n} of the {} images, some of which are held out here and speak for it as it is: a refit \
             on fewer images leaves others to judge",
            file.path.display(),
            set.n_all
        );
    }
}

/// How many steps are to be made.
fn steps(args: &Args, adapter: &mut Adapter<'_>, stage: &Stage) -> anyhow::Result<u64> {
    let per_epoch = adapter.steps_per_epoch() as f64;
    let Some(minutes) = args.minutes else {
        return Ok((args.epochs.unwrap_or(EPOCHS) * per_epoch).round().max(1.0) as u64);
    };
    let left = (60.0 * minutes - stage.seconds()).max(0.0) * STEPPING;
    let n = adapter.steps_within(Duration::try_from_secs_f64(left).unwrap_or(Duration::MAX))?.max(1) as f64;
    if n < WORTH_IT {
        tracing::warn!(
            "{minutes} minutes are only {n} steps: reading and measuring took {:.0} s of them",
            stage.seconds()
        );
    }
    tracing::info!("{minutes} minutes are {n} steps here: --epochs {} makes the same elsewhere", n / per_epoch);
    Ok(n as u64)
}

/// Steps until it is done. Whatever was learned is saved when there is an interruption, and from time to time.
fn learn_all(args: &Args, stage: &Stage, adapter: &mut Adapter<'_>, provenance: &Provenance) -> anyhow::Result<()> {
    let saved = beside(&args.out, ".resume");
    let size = adapter.batch_size() as u64;
    let [done, n_steps] = adapter.steps();
    let progress = stage.progress("adapt", "images", n_steps.saturating_mul(size));
    progress.skip(done.saturating_mul(size));
    let mut saver = args.saving.start();
    while !adapter.is_done() {
        let told = adapter.best().map_or_else(String::new, |best| format!("held-out loss {:.5}", best.loss));
        progress.note(told);
        let lr = adapter.lr();
        let whole = adapter.round(&Until { progress: &progress, saver: &saver }, &mut |step| {
            tracing::trace!("step {}: loss {:.5}, learning rate {:.2e}", step.step, step.loss, step.lr);
        })?;
        if adapter.lr() < lr {
            tracing::info!(
                "steps were too large for this network: begun again at a learning rate of {:.1e}",
                adapter.lr()
            );
        }
        if stage.interrupted() && !adapter.is_done() {
            resume::save(adapter, &saved, provenance)?;
            return interrupted(args, adapter);
        }
        if let (true, Some(last)) = (whole, adapter.judged().last()) {
            tracing::debug!("step {}: held-out loss {:.5}", last.step, last.loss);
        }
        if let Some(problem) = adapter.broke() {
            tracing::warn!("{problem}: the best network until then is written");
        }
        if saver.left() == Duration::ZERO {
            saver.save(|| resume::save(adapter, &saved, provenance))?;
        }
    }
    Ok(())
}

/// The network as it was best; what was learned is left behind where that fails.
fn finished(
    args: &Args,
    stage: &Stage,
    adapter: &Adapter<'_>,
    n_images: usize,
    provenance: &Provenance,
) -> anyhow::Result<Model> {
    if args.learn != LearnName::Coefficients {
        return Ok(adapter.network(&Unwatched)?);
    }
    adapter.network(&stage.progress("recalibrate", "images", n_images as u64)).or_else(|problem| {
        resume::save(adapter, &beside(&args.out, ".resume"), provenance)?;
        if stage.interrupted() { interrupted(args, adapter) } else { Err(problem.into()) }
    })
}

fn interrupted<T>(args: &Args, adapter: &Adapter<'_>) -> anyhow::Result<T> {
    let [done, n_steps] = adapter.steps();
    bail!(
        "interrupted after {done} of {n_steps} steps; the same command goes on from there ({})",
        beside(&args.out, ".resume").display()
    )
}

/// Interrupts when it is time to save, too.
struct Until<'a> {
    progress: &'a Progress,
    saver: &'a Saver,
}

impl Watch for Until<'_> {
    fn advance(&self, n: u64) {
        self.progress.advance(n);
    }

    fn interrupted(&self) -> bool {
        self.progress.interrupted() || self.saver.left() == Duration::ZERO
    }
}
