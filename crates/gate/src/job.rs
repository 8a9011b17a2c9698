//! Gating: features and logits of every image → gate and calibration → model file.

use crate::Args;
use anyhow::{Context, ensure};
use std::collections::BTreeSet;
use zipit::Model;
use zipit::apply::side_by_side;
use zipit::images::{ImageBatches, n_different};
use zipit::joint::{Features, gate as fit};
use zipit_artifact::model::{self, ModelFile};
use zipit_data::Split;
use zipit_stage::images::tell_copies;
use zipit_stage::{Stage, classifier};
use zipit_torch::device::libtorch_version;
use zipit_torch::images::contents;
use zipit_torch::{Network, batch_size, evaluate};

pub fn gate(args: &Args, stage: &Stage) -> anyhow::Result<()> {
    let files = args.models.iter().map(|path| model::read(path)).collect::<Result<Vec<_>, _>>()?;
    let joined;
    let network = match &files[..] {
        [one] => &one.model,
        several => {
            joined = side_by_side(&several.iter().map(|file| &file.model).collect::<Vec<_>>())?;
            &joined
        }
    };
    let classifying =
        classifier(args.models[0].display(), network, "a gate tells tasks of classes apart")?.tasks.clone();
    ensure!(
        classifying.len() > 1,
        "{} has one head that classifies images: there is nothing to choose between; give a merged network, or several networks",
        args.models[0].display()
    );
    let features = Features::of(network)?;
    let set = args.images.choose(&classifying.iter().collect::<Vec<_>>(), Split::Train)?;
    let tasks = set.tasks_of_images(&classifying)?;
    let mut inputs: Vec<_> = files.iter().map(ModelFile::input_ref).collect();
    inputs.extend(set.inputs());
    let environment = [("libtorch", libtorch_version().to_owned()), ("images", set.len().to_string())];
    let provenance = stage.provenance(inputs, environment.map(|(k, v)| (k.to_owned(), v)).into());
    let told = format!("{} heads told apart on {} {} images", classifying.len(), set.len(), set.split);
    if args.common.dry_run {
        return stage.print(&format!("would fit a gate: {told}; would write {}\n", args.out.display()));
    }
    if stage.up_to_date(&args.out, &provenance)? {
        return Ok(());
    }
    let model: &Model = &features.model;
    let size = args.images.batch_size.map_or_else(|| batch_size(&model.graph, args.device), |n| Ok(n as usize))?;
    let batches = set.batches(&model.preprocess, size, None);
    let progress = stage.progress("gate", "images", 2 * batches.n_images() as u64);
    let contents = contents(&batches, &progress)?;
    tell_copies(contents.len(), n_different(&contents));
    // The features must stay to be seen.
    let keep: BTreeSet<String> = model.graph.outputs.iter().cloned().collect();
    let logits = Network::folded(model, &keep, args.device)
        .and_then(|network| evaluate::logits(&network, &batches, &progress))
        .with_context(|| format!("{}", args.models[0].display()))?;
    drop(progress);
    let (gated, solution) = fit(&features, &logits, &tasks, &contents)?;
    model::write_as(&args.out, &gated, args.precision.given(files[0].precision), &provenance)?;
    stage.record(&args.out);
    let heads = gated.joint.iter().flat_map(|joint| &joint.heads).zip(&classifying);
    let heads: Vec<String> =
        heads.map(|(h, task)| format!("{}: T {:.3}, b {:.3}", task.name, h.temperature, h.bias)).collect();
    stage.print(&format!(
        "{}: {told}; gate on {} features, ridge {:.0e}; {}\n",
        args.out.display(),
        logits.last().map_or(0, |features| features.shape()[1]),
        solution.ridge,
        heads.join("; ")
    ))
}
