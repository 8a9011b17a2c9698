//! A merged network improved by gradients on unlabelled images: a few minutes, past what layer-by-layer fitting reaches.
//!
//! What is learned are weights in whitened inputs, \[W | b\] = \[W₀ | b₀\] + D S with S = (A + 10⁻³·mean(diag A)·I)^(−½),
//! A = E x̂x̂ᵀ of what the layer reads: a step of one size then changes what a layer makes by one size, whichever of its
//! inputs are loud. Every image goes through the sources, too, changed as it is for the network, and Adam moves D. Images
//! are changed in a few ways, and sources are asked about each once.
//!
//! Held-out images judge after every epoch, and the best network is kept: a training loss says nothing. They must be images
//! that the network was not fitted to before, or it is judged better as it is than it can be. Networks bear steps of
//! different sizes: where the first ones make it far worse, it begins again with smaller ones. A step's images
//! are spread over threads in parts that do not depend on their number, and the parts' gradients are added in order: the
//! result is the same for any number of threads.

mod objective;
mod pace;
mod settings;
mod state;
mod unknowns;
mod wanted;
mod whitening;
mod workers;

pub use settings::{AdaptSettings, Believed, Coefficients, Learn, Objective};
pub use state::{AdaptState, AdaptStep, Judged};
pub use wanted::Wanted;

use crate::augment::Augment;
use crate::batch_norm;
use crate::convert::{numbers, to_array, to_tensor};
use crate::course::{Course, Learns, Shown, epoch};
use crate::forward::{Network, Statistics};
use crate::images::{Images, Picked, contents};
use crate::optim::{Adam, Cosine};
use crate::parallel::batch_size;
use crate::train::Autocast;
use crate::{Device, Error, Result};
use ndarray::Array4;
use std::collections::{BTreeMap, BTreeSet};
use tch::{Kind, Tensor};
use unknowns::{Layer, Unknown, each, layers, learned_nodes, unknowns};
use wanted::aims;
use whitening::roots;
use workers::{Found, Heard, Lesson, Said, Worker, workers};
use zipit::graph::Op;
use zipit::images::{apart, held_out, n_different};
use zipit::watch::{Unwatched, Watch};
use zipit::{Model, StateDict};

/// One image of so many is held out.
pub const HELD_OUT: usize = 10;
/// Where the first steps make the loss so many times what it was, it begins again (what is a little worse comes back as the
/// learning rate falls)
const WORSE: f64 = 1.25;
/// with this share of the learning rate,
const LOWER: f64 = 1.0 / 3.0;
/// up to so many times.
const TIMES: u32 = 4;
/// What layers read, and how much sources vary, is measured on so many images.
const MEASURED: usize = 500;
/// Steps on which the learning rate rises.
const WARM_UP: u64 = 10;
/// β₁ and β₂ of Adam.
const BETAS: [f64; 2] = [0.9, 0.99];
/// Gradients are not longer than this.
const LONGEST: f64 = 5.0;
/// Steps that lie between two judgements, at least.
const STEPS: u64 = 20;
/// Judgements without a better one, after which learning stops: so many, or a quarter of all if that is more.
const PATIENCE: usize = 5;
/// What sources say is kept if it takes no more bytes than this.
const KEPT: usize = 512 << 20;
/// Before the names of tensors in an [`AdaptState`]: as they are, Adam's two, and the best.
const KINDS: [&str; 4] = ["now.", "first.", "second.", "best."];

/// A network that is being adapted.
pub struct Adapter<'a> {
    model: Model,
    network: Network,
    sources: Vec<Network>,
    lesson: Lesson<'a>,
    /// Images that are learned from, and that judge.
    fitted: Vec<usize>,
    held_out: Vec<usize>,
    n_different: usize,
    unknowns: Vec<Unknown>,
    best: Vec<Tensor>,
    judged: Vec<Judged>,
    /// Of images as they are.
    said: Option<Said>,
    /// Of the images of steps, changed, which later steps see again.
    heard: BTreeMap<u64, Heard>,
    settings: AdaptSettings,
    course: Course,
    lowered: u32,
    broke: Option<String>,
}

impl<'a> Adapter<'a> {
    /// Measures what the network's layers read and what the sources say, and judges the network as it is. `watch` is told
    /// of about [`looks`](Self::looks) images.
    ///
    /// # Errors
    /// Settings that make no sense, no images or unreadable ones, networks that do not fit each other, or an interruption.
    pub fn new(
        wanted: Wanted<'a>,
        images: &'a dyn Images,
        n_images: usize,
        settings: AdaptSettings,
        device: Device,
        watch: &dyn Watch,
    ) -> Result<Self> {
        settings.check()?;
        if n_images == 0 {
            return Err(Error::Request("there are no images to adapt on".into()));
        }
        let model = wanted.network.clone();
        let network = Network::new(&model, device)?;
        let part = batch_size(&model.graph, device)?.min(settings.batch_size);
        let all = Picked::new(images, (0..n_images).collect(), part);
        let contents = contents(&all, watch)?;
        let held = match wanted.judges {
            Some(judges) if judges.len() == n_images => apart(&contents, judges),
            Some(judges) => {
                return Err(Error::Request(format!("{n_images} images, and {} that say who judges", judges.len())));
            }
            None => held_out(&contents, wanted.owners, HELD_OUT),
        };
        let (held_out, fitted): (Vec<usize>, Vec<usize>) = (0..n_images).partition(|&image| held[image]);
        let sums = matches!(settings.learn, Learn::Coefficients(_));
        let norms = model.graph.nodes.iter().any(|node| matches!(node.op, Op::BatchNorm2d { .. }));
        if sums && norms && (settings.batch_size.min(fitted.len()) < 2 || held_out.len() < 2) {
            return Err(Error::Request(format!(
                "{} images to learn from, {} at a time, and {} that judge: the BatchNorm of a sum of weights needs two at a \
                 time, so take 20 images or more",
                fitted.len(),
                settings.batch_size,
                held_out.len()
            )));
        }
        let few: Vec<usize> = fitted.iter().copied().take(MEASURED).collect();

        let whitens = settings.whitened && matches!(settings.learn, Learn::Weights | Learn::Heads);
        let found: Vec<Layer> =
            if whitens { layers(&model.graph, &learned_nodes(&model.graph, &settings.learn)) } else { vec![] };
        let roots = roots(&network, &found, &Picked::new(images, few.clone(), part), watch)?;
        let unknowns = unknowns(&network, &settings.learn, &roots)?;
        let autocast = settings.autocast;
        let sources = wanted.sources.iter().map(|source| {
            let source = Network::folded(source, &BTreeSet::new(), device)?;
            if autocast == Autocast::Bf16 { source.autocast(Kind::BFloat16) } else { Ok(source) }
        });
        let sources = sources.collect::<Result<Vec<_>>>()?;
        let lesson = Lesson {
            objective: settings.objective,
            believed: settings.believed,
            autocast,
            // Sums of weights have statistics of their own: by others' their entropy is least where they say nothing.
            statistics: if sums && norms { Statistics::Own } else { Statistics::Running },
            aims: aims(&model, wanted, &settings)?,
            owners: wanted.owners,
            images,
            part,
            device,
        };
        let course = Course {
            augment: Augment::new(settings.flip, settings.shift, &model.preprocess),
            views: settings.views,
            seed: settings.seed,
            n_images: fitted.len(),
            batch_size: settings.batch_size.min(fitted.len()),
            n_steps: 0,
            step: 0,
        };
        let best = unknowns.iter().map(|unknown| unknown.value.copy()).collect();
        let n_different = n_different(&contents);
        let mut adapter = Self {
            model,
            network,
            sources,
            lesson,
            fitted,
            held_out,
            n_different,
            unknowns,
            best,
            judged: vec![],
            said: None,
            heard: BTreeMap::new(),
            settings,
            course,
            lowered: 0,
            broke: None,
        };
        adapter.follow()?;
        adapter.weigh(&few, watch)?;
        if !adapter.hears_again()? {
            adapter.course.views = 0;
        }
        let kept = if adapter.course.augment.is_none() { (0..n_images).collect() } else { adapter.held_out.clone() };
        adapter.said = adapter.listen(&kept, watch)?;
        adapter.judge(watch)?;
        Ok(adapter)
    }

    /// About how many images are looked at before the first step.
    #[must_use]
    pub fn looks(n_images: usize, n_sources: usize) -> u64 {
        (n_images + n_images.min(MEASURED) * (1 + usize::from(n_sources > 0)) + n_images / HELD_OUT) as u64
    }

    /// So many steps are to be done.
    pub fn plan(&mut self, n_steps: u64) {
        self.course.n_steps = n_steps.max(1);
    }

    /// Steps of one epoch.
    #[must_use]
    pub fn steps_per_epoch(&self) -> u64 {
        self.course.steps_per_epoch()
    }

    /// Steps done, and to do.
    #[must_use]
    pub fn steps(&self) -> [u64; 2] {
        [self.course.step, self.course.n_steps]
    }

    /// In how many ways images are changed; 0: in another in every epoch.
    #[must_use]
    pub fn views(&self) -> u64 {
        self.course.views
    }

    /// Images of a step.
    #[must_use]
    pub fn batch_size(&self) -> usize {
        self.course.batch_size
    }

    /// Different images, and those that judge.
    #[must_use]
    pub fn n_images(&self) -> [usize; 2] {
        [self.n_different, self.held_out.len()]
    }

    /// All judgements, the first of the network as it was given.
    #[must_use]
    pub fn judged(&self) -> &[Judged] {
        &self.judged
    }

    /// The best one; without held-out images, the last.
    #[must_use]
    pub fn best(&self) -> Option<Judged> {
        if self.held_out.is_empty() {
            return self.judged.last().copied();
        }
        self.judged.iter().copied().min_by(|a, b| a.loss.total_cmp(&b.loss))
    }

    /// Whether all steps are done, or held-out images have seen nothing better for long.
    #[must_use]
    pub fn is_done(&self) -> bool {
        let Some(best) = self.best().filter(|_| !self.held_out.is_empty()) else { return self.course.is_done() };
        let since = self.judged.iter().rev().take_while(|judged| judged.step > best.step).count();
        let gap = (self.course.steps_per_epoch() * STEPS.div_ceil(self.course.steps_per_epoch())).max(1);
        let patience = PATIENCE.max((self.course.n_steps / gap / 4) as usize);
        self.course.is_done() || since >= patience
    }

    /// The highest learning rate: that of the settings, or a lower one, if the first steps made the network worse.
    #[must_use]
    pub fn lr(&self) -> f64 {
        self.settings.lr * LOWER.powi(self.lowered as i32)
    }

    /// What went wrong, if the loss became no number after the first judgement: learning stopped there.
    #[must_use]
    pub fn broke(&self) -> Option<&str> {
        self.broke.as_deref()
    }

    /// Steps to the next judgement; false if it was interrupted, after a step from which the next call goes on. Where the
    /// first judgement is far worse than that of the network as it was given, all begins again, with smaller steps.
    ///
    /// # Errors
    /// Images that cannot be read, or a loss that is not finite.
    pub fn round(&mut self, watch: &dyn Watch, on_step: &mut dyn FnMut(AdaptStep)) -> Result<bool> {
        let went = self.stretch(watch, on_step);
        let too_far = match (&went, &self.judged[..]) {
            (Ok(true), [first, second]) => second.loss > WORSE * first.loss,
            (Err(Error::NotFinite(_)), [_]) => true,
            (Err(Error::NotFinite(problem)), [_, _, ..]) => {
                self.broke = Some(problem.clone());
                self.course.n_steps = self.course.step;
                return Ok(true);
            }
            _ => false,
        };
        if !too_far || self.held_out.is_empty() || self.lowered == TIMES || self.course.is_done() {
            return went;
        }
        self.lowered += 1;
        self.judged.truncate(1);
        self.course.n_steps -= self.course.step;
        self.course.step = 0;
        for (unknown, best) in self.unknowns.iter_mut().zip(&self.best) {
            unknown.value = best.copy();
            unknown.moments = [best.f_zeros_like()?, best.f_zeros_like()?];
        }
        self.follow()?;
        Ok(true)
    }

    fn stretch(&mut self, watch: &dyn Watch, on_step: &mut dyn FnMut(AdaptStep)) -> Result<bool> {
        let from = self.judged.last().map_or(0, |judged| judged.step);
        while !self.course.is_done() && (self.course.step == from || self.course.step < from + STEPS) {
            let data = self.fitted();
            if !epoch(self, &data, watch, on_step)? {
                return Ok(false);
            }
        }
        self.judge(&Unwatched)?;
        Ok(true)
    }

    /// The network as it was best. A sum of task vectors learns with the BatchNorm statistics of each part of a step,
    /// and gets those of all images here, of which `watch` is told.
    ///
    /// # Errors
    /// [`Error::LibTorch`] when it cannot be copied from the device; statistics that [`batch_norm::reset`] cannot measure.
    pub fn network(&self, watch: &dyn Watch) -> Result<Model> {
        let mut model = self.model.clone();
        for (unknown, best) in self.unknowns.iter().zip(&self.best) {
            for (name, tensor) in unknown.follow(best)? {
                model.weights.insert(name.to_owned(), to_array(&tensor)?);
            }
        }
        if !matches!(self.lesson.statistics, Statistics::Own) {
            return Ok(model);
        }
        let all = (0..self.fitted.len() + self.held_out.len()).collect();
        let images = Picked::even(self.lesson.images, all, batch_norm::BATCH);
        batch_norm::reset(&model, &images, self.network.device(), watch)
    }

    /// The coefficients as they were best, `[tasks × tensors]` or `[tasks × 1]`, where those are what is learned.
    ///
    /// # Errors
    /// [`Error::LibTorch`] when they cannot be copied from the device.
    pub fn coefficients(&self) -> Result<Option<ndarray::ArrayD<f32>>> {
        let learned = matches!(self.settings.learn, Learn::Coefficients(_));
        self.best.first().filter(|_| learned).map(to_array).transpose()
    }

    /// Everything needed to go on later.
    ///
    /// # Errors
    /// [`Error::LibTorch`] when it cannot be copied from the device.
    pub fn state(&self) -> Result<AdaptState> {
        let mut tensors = StateDict::new();
        for (unknown, best) in self.unknowns.iter().zip(&self.best) {
            let [first, second] = &unknown.moments;
            for (kind, tensor) in KINDS.into_iter().zip([&unknown.value, first, second, best]) {
                tensors.insert(format!("{kind}{}", unknown.name), to_array(tensor)?);
            }
        }
        Ok(AdaptState { steps: self.steps(), lowered: self.lowered, judged: self.judged.clone(), tensors })
    }

    /// Goes back to a state of an adaptation of the same networks, images and settings.
    ///
    /// # Errors
    /// Tensors that do not fit, by name, and steps or judgements that no such adaptation makes.
    pub fn restore(&mut self, state: &AdaptState) -> Result<()> {
        let [done, n_steps] = state.steps;
        let last = state.judged.last().map(|judged| judged.step);
        if done > n_steps || n_steps == 0 || last.is_none_or(|last| last > done) || state.lowered > TIMES {
            return Err(Error::Request(format!("{done} of {n_steps} steps and {last:?} judged are no adaptation")));
        }
        self.go_back_to(state)
    }

    fn go_back_to(&mut self, state: &AdaptState) -> Result<()> {
        let device = self.network.device();
        let mut all: Vec<[Tensor; 4]> = Vec::new();
        for unknown in &self.unknowns {
            let load = |kind: &str| -> Result<Tensor> {
                let name = format!("{kind}{}", unknown.name);
                let shape: Vec<usize> = unknown.value.size().iter().map(|&n| n as usize).collect();
                match state.tensors.get(&name) {
                    Some(found) if found.shape() == shape => to_tensor(found, device),
                    Some(found) => {
                        let problem = format!("wrong shape: {name} is {:?}, expected {shape:?}", found.shape());
                        Err(zipit::Error::Weights(vec![problem]).into())
                    }
                    None => Err(zipit::Error::Weights(vec![format!("missing: {name}")]).into()),
                }
            };
            let [now, first, second, best] = KINDS.map(load);
            all.push([now?, first?, second?, best?]);
        }
        self.best.clear();
        for (unknown, [now, first, second, best]) in self.unknowns.iter_mut().zip(all) {
            unknown.value = now;
            unknown.moments = [first, second];
            self.best.push(best);
        }
        self.judged.clone_from(&state.judged);
        [self.course.step, self.course.n_steps] = state.steps;
        self.lowered = state.lowered;
        self.follow()
    }

    /// The images that are learned from, by numbers of their own.
    fn fitted(&self) -> Picked<'a> {
        Picked::new(self.lesson.images, self.fitted.clone(), self.lesson.part)
    }

    /// The network's tensors, as they follow from the unknowns.
    fn follow(&mut self) -> Result<()> {
        let with_values = |unknowns: &[Unknown]| unknowns.iter().map(Unknown::replicate).collect::<Vec<_>>();
        let found = each(&self.unknowns, self.network.device(), with_values, |unknowns, i| {
            let tensors = unknowns[i].follow(&unknowns[i].value)?.into_iter();
            Ok(tensors.map(|(name, tensor)| (name.to_owned(), tensor)).collect::<Vec<_>>())
        })?;
        for (name, tensor) in found.into_iter().flatten() {
            self.network.set_tensor(&name, tensor);
        }
        Ok(())
    }

    /// 1 / Var of what every source says, over images and positions, each of its features by itself.
    fn weigh(&mut self, few: &[usize], watch: &dyn Watch) -> Result<()> {
        if self.settings.objective != Objective::Distill {
            return Ok(());
        }
        // Two answers vary; of maps fewer fit than of logits.
        let n = (KEPT / self.bytes_said()?.max(1)).max(2).min(few.len());
        let Some(said) = self.listen(&few[..n], watch)? else {
            return Err(Error::Request("what the networks say of two images takes too much memory".into()));
        };
        for (aim, target) in self.lesson.aims.iter_mut().zip(&said.targets) {
            let wide = target.f_to_kind(Kind::Double)?;
            let rows = wide.f_flatten(2.min(wide.dim() as i64 - 1), -1)?;
            let over: &[i64] = if wide.dim() > 2 { &[0, 2] } else { &[0] };
            let variance = rows.f_var_dim(over, false, false)?.f_mean(Kind::Double)?.f_double_value(&[])?;
            if !variance.is_finite() {
                return Err(Error::NotFinite("a source says what is no number: check its weights".into()));
            }
            aim.weight = if variance > 0.0 { 1.0 / variance } else { 0.0 };
        }
        Ok(())
    }

    /// What the sources say of images as they are; `None` where it is too much to keep.
    fn listen(&self, images: &[usize], watch: &dyn Watch) -> Result<Option<Said>> {
        let bytes = self.bytes_said()?;
        if images.is_empty() || bytes == 0 || bytes * images.len() > KEPT {
            return Ok(None);
        }
        self.lesson.listen(self.workers(images.len(), None), images, watch).map(Some)
    }

    /// Whether what the sources say of changed images is asked again, and can be kept.
    fn hears_again(&self) -> Result<bool> {
        let bytes = self.bytes_said()?;
        let of_views = (bytes * self.fitted.len()).checked_mul(self.course.views as usize);
        Ok(!self.course.augment.is_none() && bytes > 0 && of_views.is_some_and(|bytes| bytes <= KEPT))
    }

    /// Bytes of what the sources say of one image.
    fn bytes_said(&self) -> Result<usize> {
        let shapes = self.network.graph().output_shapes()?;
        let asked = self.lesson.aims.iter().filter(|aim| !aim.sources.is_empty());
        Ok(size_of::<f32>() * asked.map(|aim| shapes[aim.output].iter().product::<usize>()).sum::<usize>())
    }

    /// With what sources said of these images, if they were asked before.
    fn workers(&self, n_images: usize, heard: Option<&Heard>) -> Vec<Worker> {
        workers(&self.network, &self.sources, self.said.as_ref(), heard, self.lesson.n_parts(n_images))
    }

    /// Asks the held-out images.
    fn judge(&mut self, watch: &dyn Watch) -> Result<()> {
        let loss = if self.held_out.is_empty() {
            0.0
        } else {
            self.finite(self.lesson.off(self.workers(self.held_out.len(), None), &self.held_out, watch)?)?
        };
        let better = self.held_out.is_empty() || self.judged.iter().all(|judged| loss < judged.loss);
        self.judged.push(Judged { step: self.course.step, loss });
        if better {
            self.best = self.unknowns.iter().map(|unknown| unknown.value.copy()).collect();
        }
        Ok(())
    }

    fn finite(&self, loss: f64) -> Result<f64> {
        if loss.is_finite() {
            return Ok(loss);
        }
        let problem = format!("the loss became {loss} after step {}: lower the learning rate", self.course.step);
        Err(Error::NotFinite(problem))
    }

    /// The loss of a step's images and its gradients by the unknowns.
    fn gradients(&mut self, images: &Array4<f32>, shown: &Shown) -> Result<(f64, Vec<Tensor>)> {
        let indices: Vec<usize> = shown.indices.iter().map(|&i| self.fitted[i]).collect();
        let names: BTreeSet<&str> = self.unknowns.iter().flat_map(Unknown::tensors).collect();
        let names: Vec<&str> = names.into_iter().collect();
        let workers = self.workers(images.shape()[0], self.heard.get(&shown.first));
        let Found { loss, gradients, heard } =
            self.lesson.gradients(workers, images, &indices, &names, self.course.views > 0)?;
        let with_gradients = |unknowns: &[Unknown]| {
            let gradients = names.iter().zip(&gradients).map(|(&name, of)| (name, of.shallow_clone()));
            (unknowns.iter().map(Unknown::replicate).collect::<Vec<_>>(), gradients.collect::<BTreeMap<_, _>>())
        };
        let pulled = each(&self.unknowns, self.network.device(), with_gradients, |(unknowns, gradients), i| {
            unknowns[i].pull_back(gradients)
        })?;
        if self.course.views > 0 {
            self.heard.insert(shown.first, heard);
        }
        Ok((self.finite(loss)?, pulled))
    }
}

impl Learns for Adapter<'_> {
    type Step = AdaptStep;

    fn course(&mut self) -> &mut Course {
        &mut self.course
    }

    fn learn(&mut self, images: &Array4<f32>, shown: &Shown) -> Result<AdaptStep> {
        let (loss, gradients) = self.gradients(images, shown)?;
        let n_threads = tch::get_num_threads();
        tch::set_num_threads(1);
        let moved = self.move_by(&gradients);
        tch::set_num_threads(n_threads);
        let lr = moved?;
        self.follow()?;
        Ok(AdaptStep { step: self.course.step + 1, loss, lr })
    }
}

impl Adapter<'_> {
    /// A step of Adam, and its learning rate.
    fn move_by(&mut self, gradients: &[Tensor]) -> Result<f64> {
        let _no_grad = tch::no_grad_guard();
        let mut squares = 0.0;
        for gradient in gradients {
            squares += numbers::<f64>(&gradient.f_square()?.f_sum(Kind::Double)?)?[0];
        }
        self.finite(squares)?;
        let shorter = (LONGEST / (squares.sqrt() + 1e-6)).min(1.0);
        let cosine = Cosine { lr: self.lr(), warm_up: WARM_UP, n_steps: self.course.n_steps };
        let lr = cosine.at(self.course.step);
        let adam = Adam { lr, betas: BETAS, weight_decay: 0.0, step: self.course.step + 1 };
        for (unknown, gradient) in self.unknowns.iter_mut().zip(gradients) {
            adam.step(&mut unknown.value, &mut unknown.moments, &gradient.f_mul_scalar(shorter)?)?;
            unknown.stay_within()?;
        }
        Ok(lr)
    }
}
