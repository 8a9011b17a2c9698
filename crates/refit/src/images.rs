//! On images: layer after layer in lockstep, with the solved layers saved beside the output.

use crate::job::{Merge, Outputs, Refitted};
use crate::report::{LayerReport, RefitReport};
use crate::{Args, Mode, Trust, resume};
use anyhow::{Context, bail};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use zipit::Model;
use zipit::images::{ImageBatches, Mirrored};
use zipit::memory::{self, Work};
use zipit::refit::{Owners, Positions, Ridge};
use zipit::scratch::Scratch;
use zipit::watch::Watch;
use zipit_artifact::header::{InputRef, Provenance};
use zipit_artifact::scratch::ScratchFile;
use zipit_data::Split;
use zipit_stage::images::{tasks_of, tell_copies};
use zipit_stage::saving::beside;
use zipit_stage::{Stage, classifier};
use zipit_torch::device::libtorch_version;
use zipit_torch::evaluate::logits;
use zipit_torch::refit::{Inputs, RIDGE_OF_FEW, Refit, Task};
use zipit_torch::{Device, Network, batch_size};

/// Nothing, where nothing is left to do. The models' weights are given up once the networks have them.
pub fn refit<'a>(
    merge: Merge<'a>,
    models: Vec<Model>,
    mut inputs: Vec<InputRef>,
    stage: &'a Stage,
) -> anyhow::Result<Option<(Outputs<'a>, Refitted)>> {
    let args = merge.args;
    let set = args.images.choose(&tasks_of(&models.iter().collect::<Vec<_>>()), Split::Train)?;
    inputs.extend(set.inputs());
    let environment = [("libtorch", libtorch_version().to_owned()), ("images", set.len().to_string())];
    let mut environment: BTreeMap<String, String> = environment.map(|(k, v)| (k.to_owned(), v)).into();
    if args.trust() == Trust::Surest {
        environment.insert("trust".to_owned(), "surest".to_owned());
    }
    // Defaults that were others, under which an earlier file was made.
    if let (Positions::Enough { per_unknown, in_all }, false) = (args.positions(), args.repair) {
        environment.insert("positions".to_owned(), format!("{per_unknown}, {in_all} in all"));
    }
    if args.rounds() > 0 {
        environment.insert("rounds".to_owned(), args.rounds().to_string());
    }
    if merge.ridge == Ridge::HeldOut && !args.repair {
        environment.insert("ridges".to_owned(), "from those of layers of one shape".to_owned());
    }
    let provenance = stage.provenance(inputs, environment);
    let Model { graph, preprocess, .. } = &models[0];
    let preprocess = preprocess.clone();
    let size = args.images.batch_size.map_or_else(|| batch_size(graph, args.device), |n| Ok(n as usize))?;
    // Mirror images stand in the batches of their originals.
    let share = 1 + usize::from(args.flip);
    let size = size.next_multiple_of(share);
    let given = set.batches(&preprocess, size / share, None);
    let mirrored = args.flip.then(|| Mirrored::new(&given));
    let batches: &dyn ImageBatches = mirrored.as_ref().map_or(&given, |mirrored| mirrored);
    let n_images = batches.n_images();
    let scratch = ScratchFile::new(folder(&args.out))?;
    let limit = (args.max_memory * f64::from(1 << 30)) as usize;
    let weights = |inputs, rounds| Task::Weights { inputs, ridge: merge.ridge, rounds, together: !args.one_by_one };
    let task = match (args.repair, args.mode) {
        (true, _) => Task::Scale,
        (false, Mode::Layerwise) => weights(Inputs::Layerwise, 0),
        (false, Mode::Sequential | Mode::Gram) => weights(Inputs::Sequential, args.rounds()),
    };
    let n_threads = stage.n_threads().min(batches.n_batches());
    let work = Work { n_models: models.len(), batch_size: size, n_threads };
    let limited = Some((limit, &scratch as &dyn Scratch));
    let mut refit = Refit::new(&merge.models(), &merge.grafted, batches, task, limited, args.device)?
        .with_positions(args.positions(), n_images);
    let flipped = if args.flip { " and their mirror images" } else { "" };
    let told = format!("{} unlabelled {} images{flipped}", given.n_images(), set.split);
    if args.common.dry_run {
        let memory =
            |graph, merged| memory::refit(graph, merged, n_images, (limit, args.rounds() > 0), args.positions(), work);
        stage.print(&format!(
            "would solve {} layers on {told} in batches of {size}; about {:.2} GiB of memory; would write {}\n",
            refit.n_layers(),
            memory(&merge.folded[0].graph, &merge.grafted.model.graph)? as f64 / f64::from(1 << 30),
            args.out.display()
        ))?;
        return Ok(None);
    }
    let outputs = Outputs::new(args, stage, provenance);
    if outputs.up_to_date()? {
        return Ok(None);
    }
    if args.trust() == Trust::Surest {
        let owners = surest(&models, batches, args.device, stage)?;
        let n: Vec<String> = owners.n_images().iter().map(usize::to_string).collect();
        tracing::info!("{told}: believed is {}, in the order of the models", n.join(" + "));
        refit = refit.with_owners(owners)?;
    }
    let ridge = merge.ridge;
    drop((models, merge));
    let progress = stage.progress("read", "images", n_images as u64);
    let seen = refit.look(&progress)?;
    drop(progress);
    tell_copies(given.n_images(), seen.n_different);
    if seen.n_held_out == 0 && ridge == Ridge::HeldOut && !args.repair {
        tracing::warn!(
            "{} different images are too few to hold any out: the ridge is {RIDGE_OF_FEW} for every layer",
            seen.n_different
        );
    }
    let layers = solve(args, stage, &mut refit, n_images, &outputs.provenance)?;
    let resume = beside(&args.out, ".resume");
    if resume.exists() {
        std::fs::remove_file(&resume).with_context(|| format!("cannot remove {}", resume.display()))?;
    }
    let [running, solving] = refit.clock().map(|time| time.as_secs_f64());
    tracing::debug!("networks run and summed up in {running:.1} s, layers solved in {solving:.1} s");
    let report = RefitReport { n_images: n_images as u64, layers };
    Ok(Some((outputs, Refitted { network: refit.model().clone(), report, fitted_to: told })))
}

/// On every image the model is believed whose classifications are surest.
fn surest(models: &[Model], batches: &dyn ImageBatches, device: Device, stage: &Stage) -> anyhow::Result<Owners> {
    let progress = stage.progress("ask", "images", (models.len() * batches.n_images()) as u64);
    let ask = |(i, model): (usize, &Model)| -> anyhow::Result<_> {
        let model = classifier(format!("model {}", i + 1), model, "none is surer than another: say --trust all")?;
        Ok(logits(&Network::folded(&model, &BTreeSet::new(), device)?, batches, &progress)?)
    };
    let logits = models.iter().enumerate().map(ask).collect::<anyhow::Result<Vec<_>>>()?;
    Ok(Owners::surest(&logits)?)
}

/// All layers, those that an interrupted run solved among them.
fn solve(
    args: &Args,
    stage: &Stage,
    refit: &mut Refit<'_>,
    n_images: usize,
    provenance: &Provenance,
) -> anyhow::Result<Vec<LayerReport>> {
    let resume = beside(&args.out, ".resume");
    let mut layers = resume::restore(refit, &resume, provenance, stage)?;
    let n_layers = refit.n_layers();
    let progress = stage.progress("refit", "image-layers", (n_layers * n_images) as u64);
    progress.skip((layers.len() * n_images) as u64);
    let mut saver = args.saving.start();
    while refit.n_done() < n_layers {
        let before = refit.clock();
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
        let [running, solving] = [0, 1].map(|i| refit.clock()[i].saturating_sub(before[i]).as_secs_f64());
        // A pass may solve several layers at once.
        progress.advance(((solved.len() - 1) * n_images) as u64);
        for layer in solved {
            let node = |name: &String| refit.model().graph.node(name).cloned().context("a layer of this network");
            let nodes = layer.layers.iter().map(node).collect::<anyhow::Result<Vec<_>>>()?;
            let layer = LayerReport::new(&nodes, layer.outcome);
            tracing::debug!(
                "{}, {running:.1} s of running and summing up, {solving:.1} s of solving, {:.2} GiB of activations in \
                 memory",
                layer.told(),
                refit.bytes_in_memory() as f64 / f64::from(1 << 30)
            );
            progress.note(layer.told());
            layers.push(layer);
        }
        if saver.left().is_zero() && refit.n_done() < n_layers {
            saver.save(|| resume::save(refit, &layers, &resume, provenance))?;
        }
    }
    Ok(layers)
}

fn folder(out: &Path) -> &Path {
    out.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
