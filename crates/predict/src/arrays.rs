//! Logits of images in an array.

use crate::Args;
use anyhow::bail;
use ndarray::Array2;
use std::path::Path;
use zipit::joint::GATE;
use zipit_artifact::model::ModelFile;
use zipit_data::numpy;
use zipit_stage::Stage;
use zipit_torch::images::InMemory;

pub fn predict(args: &Args, stage: &Stage, file: &ModelFile, images: &Path, out: &Path) -> anyhow::Result<()> {
    let model = &file.model;
    let mut names: Vec<String> = model.tasks.iter().map(|task| task.name.clone()).collect();
    if model.graph.outputs.len() > names.len() {
        names.push(GATE.to_owned());
    }
    let array = numpy::read_images(images)?;
    let (n, found, expected) = (array.shape()[0], &array.shape()[1..], &model.graph.input.shape[..]);
    if found != expected {
        let last_first = [&found[2..], &found[..2]].concat();
        bail!(
            "{}: its images are {found:?}, {} takes {expected:?} (channels, height, width){}",
            images.display(),
            file.path.display(),
            if last_first == expected { ": bring the channels to the front" } else { "" }
        );
    }
    if args.common.dry_run {
        return stage.print(&format!("would predict {n} images; would write {}\n", out.display()));
    }
    let batches = InMemory::new(array, args.batch_size(file)?);
    let logits = args.logits(stage, file, &batches)?;
    let told: Vec<String> = names.iter().zip(&logits).map(|(name, z)| format!("{name} {:?}", z.shape())).collect();
    let arrays: Vec<(String, Array2<f32>)> = names.into_iter().zip(logits).collect();
    numpy::write_npz(out, &arrays)?;
    stage.record(out);
    stage.print(&format!("{}: logits of {n} images: {}\n", out.display(), told.join(", ")))
}
