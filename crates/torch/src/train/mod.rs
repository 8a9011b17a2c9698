//! Trains one task's network: SGD with momentum, one-cycle learning rate, label smoothing, flips and shifts.
//!
//! Everything random (first weights, order of the images, augmentation) comes from the seed and the step's number, so
//! a run that was interrupted and restored goes on as if it had not been. On the CPU the result depends on LibTorch's
//! number of threads (sums are split by it); with [one](crate::device::set_intra_op_threads) it does not depend on the
//! machine's cores.

mod progress;
mod settings;

pub use progress::{EpochStats, StepStats, TrainState};
pub use settings::{Autocast, TrainSettings};

use crate::augment::Augment;
use crate::convert::to_array;
use crate::course::{Course, Learns, Shown, epoch};
use crate::forward::{Network, Statistics, load};
use crate::images::LabelledImages;
use crate::initialise::initialise;
use crate::optim::{OneCycle, Sgd};
use crate::{Device, Error, Result};
use ndarray::{Array4, ArrayD};
use std::collections::{BTreeMap, BTreeSet};
use tch::{Kind, Reduction, Tensor};
use zipit::watch::Watch;
use zipit::{Graph, Preprocess, StateDict};

/// Weight of a batch in BatchNorm's running statistics, PyTorch's default.
const NORM_MOMENTUM: f64 = 0.1;
/// Before a parameter's name in a [`TrainState`]: its momentum.
const VELOCITY: &str = "momentum.";
/// PyTorch's "no class has this number".
const IGNORE_NONE: i64 = -100;

/// A network in training.
#[derive(Debug)]
pub struct Trainer {
    network: Network,
    /// Name, momentum and whether it decays, for each learned parameter.
    learned: BTreeMap<String, (Tensor, bool)>,
    /// Parameters that stay as they were given.
    fixed: BTreeSet<String>,
    settings: TrainSettings,
    course: Course,
    cycle: OneCycle,
}

/// A network in training, and what its images are.
struct Labelled<'a> {
    trainer: &'a mut Trainer,
    labels: &'a [u32],
}

impl Learns for Labelled<'_> {
    type Step = StepStats;

    fn course(&mut self) -> &mut Course {
        &mut self.trainer.course
    }

    fn learn(&mut self, images: &Array4<f32>, shown: &Shown) -> Result<StepStats> {
        let labels: Vec<i64> = shown.indices.iter().map(|&i| i64::from(self.labels[i])).collect();
        self.trainer.descend(images, &labels)
    }
}

impl Trainer {
    /// A freshly initialised network for `n_images` training images.
    ///
    /// # Errors
    /// Settings that make no sense, a graph with more than one output, or a device that is not there.
    pub fn new(
        graph: &Graph,
        preprocess: &Preprocess,
        settings: TrainSettings,
        seed: u64,
        n_images: usize,
        device: Device,
    ) -> Result<Self> {
        settings.check()?;
        if graph.outputs.len() != 1 {
            return Err(Error::Request(format!(
                "one task is trained at a time; the graph has {}",
                graph.outputs.len()
            )));
        }
        if n_images < settings.batch_size {
            return Err(Error::Request(format!(
                "{n_images} images do not fill a batch of {}: use a smaller batch size",
                settings.batch_size
            )));
        }
        let n_steps = settings.epochs as u64 * (n_images / settings.batch_size) as u64;
        let weights = initialise(graph, seed)?;
        let mut trainer = Self {
            network: Network::from_weights(graph, &weights, device)?,
            learned: BTreeMap::new(),
            fixed: BTreeSet::new(),
            course: Course {
                views: 0,
                augment: Augment::new(settings.flip, settings.shift, preprocess),
                seed,
                n_images,
                batch_size: settings.batch_size,
                n_steps,
                step: 0,
            },
            cycle: OneCycle { max_lr: settings.max_lr, warm_up: settings.warm_up, n_steps },
            settings,
        };
        trainer.put(&weights, None)?;
        Ok(trainer)
    }

    /// Gives the parameter `name` a value that it keeps.
    ///
    /// # Errors
    /// A parameter that the graph has not, or of another shape.
    pub fn fix(&mut self, name: &str, value: &ArrayD<f32>) -> Result<()> {
        let mut weights = self.weights()?;
        weights.insert(name.to_owned(), value.clone());
        self.network.graph().check_weights(&weights)?;
        self.fixed.insert(name.to_owned());
        self.learned.remove(name);
        self.network.set_tensor(name, load(value, self.network.device())?);
        Ok(())
    }

    /// Begins with these weights in the place of drawn ones.
    ///
    /// # Errors
    /// Weights that are not the graph's, all of them listed.
    pub fn begin_with(&mut self, weights: &StateDict) -> Result<()> {
        self.network.graph().check_weights(weights)?;
        self.put(weights, None)
    }

    /// Steps of one epoch.
    #[must_use]
    pub fn steps_per_epoch(&self) -> u64 {
        self.course.steps_per_epoch()
    }

    /// Steps done.
    #[must_use]
    pub fn step(&self) -> u64 {
        self.course.step
    }

    /// Whole epochs done.
    #[must_use]
    pub fn epochs_done(&self) -> usize {
        (self.course.step / self.steps_per_epoch()) as usize
    }

    /// Whether the last step is done.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.course.is_done()
    }

    /// The weights and buffers as they are now.
    ///
    /// # Errors
    /// [`Error::LibTorch`] when they cannot be copied from the device.
    pub fn weights(&self) -> Result<StateDict> {
        self.network.tensors().map(|(name, t)| Ok((name.to_owned(), to_array(t)?))).collect()
    }

    /// Everything needed to go on later.
    ///
    /// # Errors
    /// [`Error::LibTorch`] when it cannot be copied from the device.
    pub fn state(&self) -> Result<TrainState> {
        let mut tensors = self.weights()?;
        for (name, (velocity, _)) in &self.learned {
            tensors.insert(format!("{VELOCITY}{name}"), to_array(velocity)?);
        }
        Ok(TrainState { step: self.course.step, tensors })
    }

    /// Goes back to a state of a trainer with the same graph, images and settings.
    ///
    /// # Errors
    /// Tensors that do not fit the graph, all of them listed, or a step beyond the last one.
    pub fn restore(&mut self, state: &TrainState) -> Result<()> {
        if state.step > self.cycle.n_steps {
            return Err(Error::Request(format!(
                "the saved run is at step {}, but these settings make only {}",
                state.step, self.cycle.n_steps
            )));
        }
        let (velocities, weights): (StateDict, StateDict) =
            state.tensors.clone().into_iter().partition(|(name, _)| name.starts_with(VELOCITY));
        self.network.graph().check_weights(&weights)?;
        let mut problems = Vec::new();
        for name in self.learned.keys() {
            match velocities.get(&format!("{VELOCITY}{name}")) {
                None => problems.push(format!("missing: {VELOCITY}{name}")),
                Some(v) if v.shape() != weights[name].shape() => {
                    let (is, needs) = (v.shape(), weights[name].shape());
                    problems.push(format!("wrong shape: {VELOCITY}{name} is {is:?}, its parameter is {needs:?}"));
                }
                Some(_) => {}
            }
        }
        if !problems.is_empty() {
            return Err(zipit::Error::Weights(problems).into());
        }
        self.put(&weights, Some(&velocities))?;
        self.course.step = state.step;
        Ok(())
    }

    /// Trains to the end of the current epoch. `on_step` hears of every step; `watch` is told of every image and may
    /// interrupt after any step, from which the next call goes on.
    ///
    /// # Errors
    /// Images that cannot be read or do not fit, labels beyond the classes, or a loss that is not finite.
    pub fn epoch(
        &mut self,
        data: &dyn LabelledImages,
        watch: &dyn Watch,
        on_step: &mut dyn FnMut(StepStats),
    ) -> Result<EpochStats> {
        self.check_labels(data.labels())?;
        let mut stats = EpochStats::default();
        let complete = epoch(&mut Labelled { trainer: self, labels: data.labels() }, data, watch, &mut |step| {
            stats.loss += (step.loss - stats.loss) * step.n_images as f64 / (stats.n_images + step.n_images) as f64;
            stats.n_images += step.n_images;
            stats.n_correct += step.n_correct;
            on_step(step);
        })?;
        Ok(EpochStats { complete, ..stats })
    }

    fn check_labels(&self, labels: &[u32]) -> Result<()> {
        if labels.len() != self.course.n_images {
            return Err(Error::Request(format!("{} labels for {} images", labels.len(), self.course.n_images)));
        }
        let graph = self.network.graph();
        let n_classes: usize = graph.shapes()?[graph.outputs[0].as_str()].iter().product();
        match labels.iter().position(|&label| label as usize >= n_classes) {
            Some(i) => Err(Error::Request(format!(
                "image {i} has label {}, but the network has {n_classes} classes, numbered from 0",
                labels[i]
            ))),
            None => Ok(()),
        }
    }

    /// One step.
    fn descend(&mut self, images: &Array4<f32>, labels: &[i64]) -> Result<StepStats> {
        let labels = Tensor::f_from_slice(labels)?.f_to_device(self.network.device().tch())?;
        let logits = self.logits(images)?;
        let smoothing = self.settings.label_smoothing;
        let loss = logits.f_cross_entropy_loss::<Tensor>(&labels, None, Reduction::Mean, IGNORE_NONE, smoothing)?;
        let value = loss.f_double_value(&[])?;
        if !value.is_finite() {
            return Err(Error::NotFinite(format!(
                "the loss became {value} at step {}: lower the learning rate",
                self.course.step + 1
            )));
        }
        let n_correct = logits.f_argmax(1, false)?.f_eq_tensor(&labels)?.f_sum(Kind::Int64)?.f_int64_value(&[])?;
        let mut weights: Vec<Tensor> = self
            .network
            .tensors()
            .filter(|(name, _)| self.learned.contains_key(*name))
            .map(|(_, t)| t.shallow_clone())
            .collect();
        let gradients = Tensor::f_run_backward(&[loss], &weights, false, false)?;
        let lr = self.cycle.at(self.course.step);
        let sgd = Sgd { lr, momentum: self.settings.momentum, nesterov: self.settings.nesterov };
        let _no_grad = tch::no_grad_guard();
        for ((weight, gradient), (velocity, decays)) in weights.iter_mut().zip(gradients).zip(self.learned.values_mut())
        {
            sgd.step(weight, velocity, gradient, if *decays { self.settings.weight_decay } else { 0.0 })?;
        }
        Ok(StepStats {
            step: self.course.step + 1,
            loss: value,
            n_correct: n_correct as usize,
            n_images: labels.size()[0] as usize,
            lr,
        })
    }

    /// What the network makes of a batch, with the batch's statistics.
    fn logits(&self, images: &Array4<f32>) -> Result<Tensor> {
        let statistics = Statistics::Batch { momentum: NORM_MOMENTUM };
        let input = self.network.input(images)?;
        match self.settings.autocast {
            Autocast::Off => Ok(self.network.start(input, statistics).outputs()?.remove(0)),
            Autocast::Bf16 => {
                let network = self.network.autocast(Kind::BFloat16)?;
                let input = input.f_to_kind(Kind::BFloat16)?;
                Ok(network.start(input, statistics).outputs()?.remove(0).f_to_kind(Kind::Float)?)
            }
        }
    }

    /// Puts weights, and momenta or none yet, on the device.
    fn put(&mut self, weights: &StateDict, velocities: Option<&StateDict>) -> Result<()> {
        let device = self.network.device();
        let params = self.network.graph().params();
        for (name, value) in weights {
            let mut tensor = load(value, device)?;
            if params[name].learned && !self.fixed.contains(name) {
                let velocity = match velocities {
                    Some(velocities) => load(&velocities[&format!("{VELOCITY}{name}")], device)?,
                    None => tensor.f_zeros_like()?,
                };
                let decays = self.settings.decay_all || value.ndim() > 1;
                self.learned.insert(name.clone(), (velocity, decays));
                tensor = tensor.f_set_requires_grad(true)?;
            }
            self.network.set_tensor(name, tensor);
        }
        Ok(())
    }
}
