//! What a network says of images, as arrays.

use crate::Args;
use anyhow::bail;
use ndarray::ArrayD;
use std::path::Path;
use zipit::images::ImageBatches;
use zipit::joint::GATE;
use zipit_data::numpy;
use zipit_stage::{Given, Stage};
use zipit_torch::images::InMemory;

/// Of images in an array.
pub fn of_array(args: &Args, stage: &Stage, file: &Given, images: &Path, out: &Path) -> anyhow::Result<()> {
    let model = file.outline(0);
    let array = numpy::read_images(images)?;
    let (n, found, expected) = (array.shape()[0], &array.shape()[1..], &model.graph.input.shape[..]);
    if found != expected {
        let last_first = [&found[2..], &found[..2]].concat();
        bail!(
            "{}: its images are {found:?}, {} takes {expected:?} (channels, height, width){}",
            images.display(),
            file.path().display(),
            if last_first == expected { ": bring the channels to the front" } else { "" }
        );
    }
    write(args, stage, file, &InMemory::new(array, args.batch_size(&model)?), &format!("{n} images"), out)
}

/// Of a data set's, in its order.
pub fn of_data(args: &Args, stage: &Stage, file: &Given, out: &Path) -> anyhow::Result<()> {
    let set = args.set()?;
    let model = file.outline(0);
    let batches = set.batches(&model.preprocess, args.batch_size(&model)?, None);
    write(args, stage, file, &batches, &format!("{} {} images", set.len(), set.split), out)
}

fn write(
    args: &Args,
    stage: &Stage,
    file: &Given,
    images: &dyn ImageBatches,
    told: &str,
    out: &Path,
) -> anyhow::Result<()> {
    let chosen = args.chosen(file)?;
    if args.common.dry_run {
        return stage.print(&format!("would predict {told}; would write {}\n", out.display()));
    }
    let mut arrays: Vec<(String, ArrayD<f32>)> = Vec::new();
    for t in chosen {
        let model = file.network(t)?;
        let outputs = args.outputs(stage, (file.path(), &model), images)?;
        let gate = (model.graph.outputs.len() > model.tasks.len()).then(|| GATE.to_owned());
        let names = model.tasks.iter().map(|task| task.name.clone()).chain(gate);
        arrays.extend(names.zip(outputs));
    }
    let shapes: Vec<String> = arrays.iter().map(|(name, array)| format!("{name} {:?}", array.shape())).collect();
    numpy::write_npz(out, &arrays)?;
    stage.record(out);
    stage.print(&format!("{}: outputs for {told}: {}\n", out.display(), shapes.join(", ")))
}
