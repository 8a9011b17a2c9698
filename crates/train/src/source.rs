//! The task's images and what they look like.

use crate::Args;
use anyhow::{Context, ensure};
use ndarray::{Array4, Axis};
use std::error::Error;
use zipit::{Preprocess, Task};
use zipit_data::Dataset;
use zipit_torch::images::{Images, LabelledImages};

/// How many images the mean and standard deviation are measured on.
const MEASURED: usize = 10_000;

/// Images of the task's classes, labelled by their place in the task.
pub struct TaskImages<'a> {
    dataset: &'a Dataset,
    preprocess: &'a Preprocess,
    indices: Vec<usize>,
    labels: Vec<u32>,
}

impl<'a> TaskImages<'a> {
    pub fn new(dataset: &'a Dataset, preprocess: &'a Preprocess, classes: &[u32]) -> Self {
        let indices = dataset.images_of(classes);
        let place = |label: u32| classes.iter().position(|&c| c == label).map_or(0, |p| p as u32);
        let labels = indices.iter().map(|&i| place(dataset.labels()[i])).collect();
        Self { dataset, preprocess, indices, labels }
    }
}

impl LabelledImages for TaskImages<'_> {
    fn labels(&self) -> &[u32] {
        &self.labels
    }
}

impl Images for TaskImages<'_> {
    fn images(&self, indices: &[usize]) -> Result<Array4<f32>, Box<dyn Error + Send + Sync>> {
        let places: Vec<usize> = indices.iter().map(|&i| self.indices[i]).collect();
        Ok(self.dataset.load(&places, self.preprocess)?)
    }
}

/// The task and its class numbers in the data set.
pub fn task(args: &Args, dataset: &Dataset) -> anyhow::Result<(Task, Vec<u32>)> {
    let classes = dataset.class_indices(&args.classes).with_context(|| format!("{}", args.data.display()))?;
    let names = classes.iter().map(|&c| dataset.classes()[c as usize].clone()).collect();
    let name = args.task.clone().unwrap_or_else(|| {
        let spec = args.classes.join(",");
        if spec.is_empty() { dataset.name().to_owned() } else { format!("{} {spec}", dataset.name()) }
    });
    Ok((Task { name, classes: names }, classes))
}

/// The images' own size, and mean and standard deviation as given, else over **all** classes: networks of different tasks
/// of one data set must agree on them to be merged.
pub fn preprocess(args: &Args, dataset: &Dataset) -> anyhow::Result<Preprocess> {
    let [channels, h, w] = dataset.image_shape(0)?;
    let size = args.size.map_or([h, w], |s| [s, s]);
    if let (Some(mean), Some(std)) = (&args.mean, &args.std) {
        let given = Preprocess::new(size, mean.clone(), std.clone());
        let finite = mean.iter().chain(std).all(|x| x.is_finite());
        ensure!(
            mean.len() == channels && std.len() == channels && finite && std.iter().all(|&x| x > 0.0),
            "--mean {mean:?} and --std {std:?}: the images of {} have {channels} channels, so give {channels} numbers for \
             each, the standard deviations above 0",
            args.data.display()
        );
        return Ok(given);
    }
    let raw = Preprocess::new(size, vec![0.0; channels], vec![1.0; channels]);
    let chosen = zipit_data::sample(dataset.len(), MEASURED, 0);
    let images = dataset.load(&chosen, &raw)?;
    let (mut mean, mut std) = (Vec::new(), Vec::new());
    for channel in images.axis_iter(Axis(1)) {
        let n = channel.len() as f64;
        let average = channel.iter().map(|&x| f64::from(x)).sum::<f64>() / n;
        let variance = channel.iter().map(|&x| (f64::from(x) - average).powi(2)).sum::<f64>() / n;
        ensure!(variance > 0.0, "{}: every image is the same colour", args.data.display());
        // Four digits, as people write them.
        let round = |x: f64| ((x * 1e4).round() / 1e4) as f32;
        mean.push(round(average));
        std.push(round(variance.sqrt()).max(1e-4));
    }
    Ok(Preprocess { mean, std, ..raw })
}
