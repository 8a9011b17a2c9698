//! Images spread over threads: what sources say of them, how far the network is off, and the gradients of that.

use super::objective::{Aim, Count, loss, targets};
use super::settings::{Believed, Objective};
use crate::forward::{Network, Statistics};
use crate::images::{Images, Picked};
use crate::parallel::{Failure, InOrder, all_batches, each_batch, n_workers, read};
use crate::train::Autocast;
use crate::{Device, Error, Result};
use ndarray::{Array4, Axis, Slice};
use std::collections::BTreeMap;
use tch::{Kind, Tensor};
use zipit::images::ImageBatches;
use zipit::watch::{Unwatched, Watch};

/// What is asked, of which images.
pub(super) struct Lesson<'a> {
    pub objective: Objective,
    pub believed: Believed,
    pub autocast: Autocast,
    /// Of the network's BatchNorm.
    pub statistics: Statistics,
    pub aims: Vec<Aim>,
    /// Of which output's task each image is.
    pub owners: Option<&'a [usize]>,
    pub images: &'a dyn Images,
    /// Images that one thread takes at once, at most.
    pub part: usize,
    pub device: Device,
}

/// What sources say of images, as outputs are to be.
#[derive(Debug)]
pub(super) struct Said {
    /// Where an image's row is.
    rows: BTreeMap<usize, i64>,
    /// For each aim.
    pub targets: Vec<Tensor>,
}

/// The networks, as one thread has them.
pub(super) struct Worker {
    network: Network,
    sources: Vec<Network>,
    said: Option<Said>,
    heard: Option<Heard>,
}

/// What sources say of a step's images, as outputs are to be: part by part, aim by aim.
pub(super) type Heard = Vec<Vec<Tensor>>;

/// The loss of a step's images, its gradients, and what the sources said.
pub(super) struct Found {
    pub loss: f64,
    pub gradients: Vec<Tensor>,
    pub heard: Heard,
}

fn own(targets: &[Tensor]) -> Vec<Tensor> {
    targets.iter().map(Tensor::shallow_clone).collect()
}

/// So many workers as `n` parts of something keep busy.
pub(super) fn workers(
    network: &Network,
    sources: &[Network],
    said: Option<&Said>,
    heard: Option<&Heard>,
    n: usize,
) -> Vec<Worker> {
    let copy = |said: &Said| Said { rows: said.rows.clone(), targets: own(&said.targets) };
    let worker = |_| Worker {
        network: network.replicate(),
        sources: sources.iter().map(Network::replicate).collect(),
        said: said.map(copy),
        heard: heard.map(|heard| heard.iter().map(|part| own(part)).collect()),
    };
    (0..n_workers(network.device(), n)).map(worker).collect()
}

impl Lesson<'_> {
    /// How many parts so many images are.
    pub fn n_parts(&self, n_images: usize) -> usize {
        n_images.div_ceil(self.part)
    }

    /// What the sources say of images as they are.
    pub fn listen(&self, workers: Vec<Worker>, images: &[usize], watch: &dyn Watch) -> Result<Said> {
        let picked = Picked::new(self.images, images.to_vec(), self.part);
        let n_batches = picked.n_batches();
        let all = InOrder::new(0, Vec::with_capacity(n_batches));
        let failure = Failure::default();
        all_batches(workers, n_batches, watch, &failure, |worker, batch| {
            let images = read(&picked, batch)?;
            let targets = self.answers(worker, &images)?;
            all.hand_in(batch, targets, &failure, |all: &mut Vec<Vec<Tensor>>, targets| {
                all.push(targets);
                Ok(())
            })?;
            Ok(images.shape()[0] as u64)
        })?;
        let parts = all.into_inner();
        let joined = (0..parts.first().map_or(0, Vec::len)).map(|i| {
            let of: Vec<&Tensor> = parts.iter().map(|part| &part[i]).collect();
            Ok(Tensor::f_cat(&of, 0)?)
        });
        let rows = images.iter().zip(0..).map(|(&image, row)| (image, row)).collect();
        Ok(Said { rows, targets: joined.collect::<Result<_>>()? })
    }

    /// How far the network is off on images as they are.
    pub fn off(&self, workers: Vec<Worker>, images: &[usize], watch: &dyn Watch) -> Result<f64> {
        let picked = Picked::even(self.images, images.to_vec(), self.part);
        let n_batches = picked.n_batches();
        let (whose, counts) = self.whose(images);
        let failure = Failure::default();
        let sum = InOrder::new(0, 0.0);
        all_batches(workers, n_batches, watch, &failure, |worker, batch| {
            let part = read(&picked, batch)?;
            let from = picked.n_images_in(batch);
            let at = from..from + part.shape()[0];
            let targets = self.targets(worker, &part, &images[at.clone()])?;
            let outputs = self.run(&worker.network, &part)?;
            let count = whose.as_ref().map_or(Count::All(images.len()), |whose| Count::Own(&whose[at], &counts));
            let loss = loss(self.objective, &self.aims, &outputs, &targets, count)?.f_double_value(&[])?;
            sum.hand_in(batch, loss, &failure, |sum, loss| {
                *sum += loss;
                Ok(())
            })?;
            Ok(part.shape()[0] as u64)
        })?;
        Ok(sum.into_inner())
    }

    /// The loss of images, whose numbers are `indices`, and its gradients by the tensors of these names; `keep`: what the
    /// sources said, too.
    pub fn gradients(
        &self,
        workers: Vec<Worker>,
        images: &Array4<f32>,
        indices: &[usize],
        names: &[&str],
        keep: bool,
    ) -> Result<Found> {
        let n = images.shape()[0];
        let n_parts = self.n_parts(n);
        let (whose, counts) = self.whose(indices);
        let failure = Failure::default();
        let sum = InOrder::new(0, None::<Found>);
        each_batch(workers, 0..n_parts, &Unwatched, &failure, |worker, i| {
            let at = i * n / n_parts..(i + 1) * n / n_parts;
            let part = images.slice_axis(Axis(0), Slice::from(at.clone()));
            let part = part.to_owned();
            let targets = match &worker.heard {
                Some(heard) => own(&heard[i]),
                None => self.targets(worker, &part, &indices[at.clone()])?,
            };
            let count = whose.as_ref().map_or(Count::All(n), |whose| Count::Own(&whose[at], &counts));
            let found = tch::with_grad(|| -> Result<(f64, Vec<Tensor>)> {
                let mut leaves = Vec::with_capacity(names.len());
                for name in names {
                    let leaf = worker.network.tensor(name).f_detach()?.f_requires_grad_(true)?;
                    worker.network.set_tensor(name, leaf.shallow_clone());
                    leaves.push(leaf);
                }
                let outputs = self.run(&worker.network, &part)?;
                let loss = loss(self.objective, &self.aims, &outputs, &targets, count)?;
                let value = loss.f_double_value(&[])?;
                let gradients = Tensor::f_run_backward(&[loss], &leaves, false, false)?;
                let reached = |(gradient, leaf): (Tensor, &Tensor)| {
                    if gradient.defined() { gradient.f_detach() } else { leaf.f_detach()?.f_zeros_like() }
                };
                Ok((value, gradients.into_iter().zip(&leaves).map(reached).collect::<Result<_, _>>()?))
            })?;
            let heard = if keep { vec![targets] } else { vec![] };
            sum.hand_in(i, (found, heard), &failure, |sum, ((loss, gradients), heard)| {
                match sum {
                    Some(all) => {
                        all.loss += loss;
                        all.heard.extend(heard);
                        for (sum, gradient) in all.gradients.iter_mut().zip(gradients) {
                            let _ = sum.f_add_(&gradient)?;
                        }
                    }
                    None => *sum = Some(Found { loss, gradients, heard }),
                }
                Ok(())
            })?;
            Ok(0)
        })?;
        sum.into_inner().ok_or_else(|| Error::Fault("a step without images".into()))
    }

    /// Whose images are, and how many are whose, where that matters.
    fn whose(&self, images: &[usize]) -> (Option<Vec<usize>>, BTreeMap<usize, usize>) {
        let whose: Option<Vec<usize>> = self.owners.map(|owners| images.iter().map(|&image| owners[image]).collect());
        let mut counts = BTreeMap::new();
        for &output in whose.iter().flatten() {
            *counts.entry(output).or_default() += 1;
        }
        (whose, counts)
    }

    /// What outputs are to be on images, which are as they were if their sources' answers were kept.
    fn targets(&self, worker: &Worker, images: &Array4<f32>, indices: &[usize]) -> Result<Vec<Tensor>> {
        let kept = worker.said.as_ref().and_then(|said| {
            let rows: Option<Vec<i64>> = indices.iter().map(|image| said.rows.get(image).copied()).collect();
            rows.map(|rows| (said, rows))
        });
        if let Some((said, rows)) = kept {
            let rows = Tensor::f_from_slice(&rows)?.f_to_device(self.device.tch())?;
            return said.targets.iter().map(|target| Ok(target.f_index_select(0, &rows)?)).collect();
        }
        self.answers(worker, images)
    }

    /// What the sources say.
    fn answers(&self, worker: &Worker, images: &Array4<f32>) -> Result<Vec<Tensor>> {
        if self.aims.iter().all(|aim| aim.sources.is_empty()) {
            return Ok(vec![]);
        }
        let said = worker.sources.iter().map(|source| {
            let input = source.input(images)?;
            let input = if self.autocast == Autocast::Bf16 { input.f_to_kind(Kind::BFloat16)? } else { input };
            let outputs = source.outputs(input)?.into_iter();
            // What is kept is no window into something larger.
            outputs.map(|output| Ok(output.f_to_dtype(Kind::Float, false, true)?)).collect::<Result<Vec<_>>>()
        });
        targets(&self.aims, &said.collect::<Result<Vec<_>>>()?, self.believed)
    }

    /// What the network makes of images.
    fn run(&self, network: &Network, images: &Array4<f32>) -> Result<Vec<Tensor>> {
        let input = network.input(images)?;
        match self.autocast {
            Autocast::Off => network.start(input, self.statistics).outputs(),
            Autocast::Bf16 => {
                let network = network.autocast(Kind::BFloat16)?;
                let outputs = network.start(input.f_to_kind(Kind::BFloat16)?, self.statistics).outputs()?;
                outputs.into_iter().map(|output| Ok(output.f_to_kind(Kind::Float)?)).collect()
            }
        }
    }
}
