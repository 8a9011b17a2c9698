//! The forward pass: the graph, interpreted.

use crate::convert::{channels_last, to_tensor};
use crate::error::first_line;
use crate::schedule::Schedule;
use crate::{Device, Error, Result, memory, ops};
use ndarray::{Array4, ArrayD};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::sync::Arc;
use tch::{Kind, TchError, Tensor};
use zipit::fold::fold_batch_norm;
use zipit::graph::Op;
use zipit::{Graph, Model, StateDict};

/// Which statistics BatchNorm normalises with.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Statistics {
    /// Those in the model.
    Running,
    /// The batch's own, which also move the model's: running ← (1 − momentum)·running + momentum·batch.
    Batch {
        /// Share of the batch.
        momentum: f64,
    },
    /// The batch's own; the model's are not touched.
    Own,
}

/// A graph with its weights on a device, ready to run. Copies made by [`replicate`](Self::replicate) share the weights.
#[derive(Debug)]
pub struct Network {
    graph: Arc<Graph>,
    schedule: Arc<Schedule>,
    /// State-dict names, sorted; `tensors` has the same order.
    names: Arc<Vec<String>>,
    tensors: Vec<Tensor>,
    /// Per node, the index of each of its op's parameters in `tensors`.
    params: Arc<Vec<Vec<usize>>>,
    /// Numbers of the values whose gradients are asked for: from them on runs are recorded.
    traced: Arc<BTreeSet<usize>>,
    device: Device,
}

impl Network {
    /// Puts a model on a device.
    ///
    /// # Errors
    /// When graph and weights do not fit each other, or the device is not there.
    pub fn new(model: &Model, device: Device) -> Result<Self> {
        Self::from_weights(&model.graph, &model.weights, device)
    }

    /// Puts a model on a device, with values that are kept to the end of a run.
    pub(crate) fn keeping(model: &Model, keep: &BTreeSet<String>, device: Device) -> Result<Self> {
        Ok(Self { schedule: Arc::new(Schedule::new(&model.graph, keep)?), ..Self::new(model, device)? })
    }

    /// The same function with BatchNorm [folded](zipit::fold::fold_batch_norm) into convolutions, so that it runs
    /// faster; the values in `keep` stay observable.
    ///
    /// # Errors
    /// When graph and weights do not fit each other, or the device is not there.
    pub fn folded(model: &Model, keep: &BTreeSet<String>, device: Device) -> Result<Self> {
        let (graph, weights) = fold_batch_norm(&model.graph, &model.weights, keep)?;
        Self::from_weights(&graph, &weights, device)
    }

    /// As [`folded`](Self::folded), for gradients of the outputs by the `traced` values, which are in `keep`, too: every
    /// run is recorded from the first of them on, with all that takes of memory.
    ///
    /// # Errors
    /// As [`folded`](Self::folded).
    pub fn traced(model: &Model, keep: &BTreeSet<String>, traced: &BTreeSet<String>, device: Device) -> Result<Self> {
        let network = Self::folded(model, keep, device)?;
        if traced.is_empty() {
            return Ok(network);
        }
        let schedule = Arc::new(Schedule::new(&network.graph, traced)?);
        let nodes = network.graph.nodes.iter().enumerate();
        let numbers = nodes.filter(|(_, node)| traced.contains(&node.name)).map(|(i, _)| i + 1).collect();
        Ok(Self { schedule, traced: Arc::new(numbers), ..network })
    }

    /// The network as it is, for gradients of the outputs by its weights and by the values in `keep`, which are not
    /// overwritten.
    pub(crate) fn recorded(model: &Model, keep: &BTreeSet<String>, device: Device) -> Result<Self> {
        let network = Self::keeping(model, keep, device)?;
        let nodes = network.graph.nodes.iter().enumerate();
        let numbers = nodes.filter(|(_, node)| keep.contains(&node.name)).map(|(i, _)| i + 1).collect();
        Ok(Self { traced: Arc::new(numbers), ..network })
    }

    pub(crate) fn from_weights(graph: &Graph, weights: &StateDict, device: Device) -> Result<Self> {
        device.check()?;
        memory::keep_freed();
        let schedule = Schedule::new(graph, &BTreeSet::new())?;
        graph.check_weights(weights)?;
        let names: Vec<String> = weights.keys().cloned().collect();
        let index: BTreeMap<&str, usize> = names.iter().enumerate().map(|(i, name)| (name.as_str(), i)).collect();
        let params = graph
            .nodes
            .iter()
            .map(|node| node.op.params().iter().map(|p| index[node.tensor(p.name).as_str()]).collect())
            .collect();
        let tensors = weights.values().map(|w| load(w, device)).collect::<Result<_>>()?;
        Ok(Self {
            graph: Arc::new(graph.clone()),
            schedule: Arc::new(schedule),
            params: Arc::new(params),
            names: Arc::new(names),
            tensors,
            traced: Arc::default(),
            device,
        })
    }

    /// The graph it runs.
    #[must_use]
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// Where it runs.
    #[must_use]
    pub fn device(&self) -> Device {
        self.device
    }

    /// Another handle on the same weights, to be moved to another thread.
    #[must_use]
    pub fn replicate(&self) -> Self {
        Self {
            graph: Arc::clone(&self.graph),
            schedule: Arc::clone(&self.schedule),
            names: Arc::clone(&self.names),
            tensors: self.tensors.iter().map(Tensor::shallow_clone).collect(),
            params: Arc::clone(&self.params),
            traced: Arc::clone(&self.traced),
            device: self.device,
        }
    }

    /// Another handle, whose convolutions and linear layers have their weights in `kind` and compute in it when given
    /// such an input. All other tensors are shared; gradients reach this network's weights.
    pub(crate) fn autocast(&self, kind: Kind) -> Result<Self> {
        let mut cast = self.replicate();
        for (node, params) in self.graph.nodes.iter().zip(self.params.iter()) {
            if matches!(node.op, Op::Conv2d { .. } | Op::Linear { .. }) {
                for &i in params {
                    cast.tensors[i] = self.tensors[i].f_to_kind(kind)?;
                }
            }
        }
        Ok(cast)
    }

    /// Parameters and buffers under their names, in name order.
    pub(crate) fn tensors(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.names.iter().map(String::as_str).zip(&self.tensors)
    }

    /// # Panics
    /// When the network has no tensor of this name.
    pub(crate) fn tensor(&self, name: &str) -> &Tensor {
        &self.tensors[self.index(name)]
    }

    /// # Panics
    /// When the network has no tensor of this name.
    pub(crate) fn set_tensor(&mut self, name: &str, tensor: Tensor) {
        let i = self.index(name);
        self.tensors[i] = tensor;
    }

    fn index(&self, name: &str) -> usize {
        self.names.binary_search_by(|other| other.as_str().cmp(name)).expect("a tensor of this network")
    }

    /// Moves images `[B, C, H, W]` to where the network runs, in the layout it runs fastest on.
    ///
    /// # Errors
    /// When they are not the graph's input shape.
    pub fn input(&self, images: &Array4<f32>) -> Result<Tensor> {
        if images.shape()[1..] != self.graph.input.shape {
            return Err(Error::Request(format!(
                "images are {:?} but the network expects {:?}",
                &images.shape()[1..],
                self.graph.input.shape
            )));
        }
        let images = to_tensor(images, self.device)?;
        if self.device == Device::Cpu { channels_last(&images) } else { Ok(images) }
    }

    /// Runs the whole network on what [`input`](Self::input) gave: one `[B, classes]` tensor per output.
    ///
    /// # Errors
    /// A node that LibTorch refuses, by name.
    pub fn outputs(&self, input: Tensor) -> Result<Vec<Tensor>> {
        self.observe(input, |_, _| Ok(()))
    }

    /// Runs the whole network and shows every value, by its name, just after it is made. What is seen may be
    /// overwritten later: copy what must stay.
    ///
    /// # Errors
    /// A node that LibTorch refuses, by name, or what `observer` returns.
    pub fn observe(&self, input: Tensor, mut observer: impl FnMut(&str, &Tensor) -> Result<()>) -> Result<Vec<Tensor>> {
        let mut run = self.start(input, Statistics::Running);
        for node in &self.graph.nodes {
            observer(&node.name, run.step()?)?;
        }
        run.outputs()
    }

    /// Starts a run that goes on node by node.
    pub(crate) fn start(&self, input: Tensor, statistics: Statistics) -> Run<'_> {
        Run { network: self, paused: self.before(input), statistics }
    }

    /// A run that has not begun.
    pub(crate) fn before(&self, input: Tensor) -> Paused {
        let mut values: Vec<Option<Tensor>> = Vec::new();
        values.resize_with(self.graph.nodes.len() + 1, || None);
        let n_images = input.size().first().copied().unwrap_or(0);
        values[0] = Some(input);
        Paused { values, next: 0, n_images }
    }

    /// The node among `steps` before which a run takes the least room while none of the `needed` values is gone.
    ///
    /// # Errors
    /// A malformed graph.
    pub(crate) fn lightest(&self, steps: RangeInclusive<usize>, needed: &BTreeSet<&str>) -> Result<Option<usize>> {
        let shapes = self.graph.shapes()?;
        let values = self.graph.nodes.iter().map(|node| node.name.as_str());
        let values: Vec<&str> = [self.graph.input.name.as_str()].into_iter().chain(values).collect();
        let sizes: Vec<usize> = values.iter().map(|value| shapes[value].iter().product()).collect();
        let needed = values.iter().enumerate().filter(|(_, value)| needed.contains(*value)).map(|(i, _)| i).collect();
        Ok(self.schedule.lightest(steps, &sizes, &needed))
    }

    /// Goes on with a run of this network, whose weights may have changed since.
    pub(crate) fn resume(&self, paused: Paused) -> Run<'_> {
        Run { network: self, paused, statistics: Statistics::Running }
    }
}

/// A forward pass that stands still before its next node: the values that are still needed.
#[derive(Debug)]
pub(crate) struct Paused {
    /// By value number: 0 is the input, i + 1 what node i made.
    pub values: Vec<Option<Tensor>>,
    /// The node that is next.
    pub next: usize,
    /// B.
    pub n_images: i64,
}

/// Weights on a device, in the layout that convolutions run fastest on.
pub(crate) fn load(weight: &ArrayD<f32>, device: Device) -> Result<Tensor> {
    let tensor = to_tensor(weight, device)?;
    if device == Device::Cpu { channels_last(&tensor) } else { Ok(tensor) }
}

/// A forward pass under way. Values are dropped as soon as nobody needs them.
#[derive(Debug)]
pub(crate) struct Run<'a> {
    network: &'a Network,
    paused: Paused,
    statistics: Statistics,
}

impl Run<'_> {
    /// Stops here, to go on later.
    pub fn pause(self) -> Paused {
        self.paused
    }

    /// Runs every node before `node`.
    pub fn advance_to(&mut self, node: usize) -> Result<()> {
        while self.paused.next < node {
            self.step()?;
        }
        Ok(())
    }

    /// A value that was made and is still needed.
    ///
    /// # Errors
    /// [`Error::Fault`] when it is not there.
    pub fn value(&self, name: &str) -> Result<&Tensor> {
        let graph = &self.network.graph;
        let number = if name == graph.input.name {
            Some(0)
        } else {
            graph.nodes.iter().position(|node| node.name == name).map(|i| i + 1)
        };
        number.and_then(|number| self.paused.values[number].as_ref()).ok_or_else(|| gone(name))
    }

    /// What a node with parameters would make now, whose turn has not come yet; nothing else changes.
    pub fn peek(&self, node: usize) -> Result<Tensor> {
        self.compute(node)
    }

    /// Runs the next node and shows what it made.
    ///
    /// # Panics
    /// After the last node.
    pub fn step(&mut self) -> Result<&Tensor> {
        let network = self.network;
        let value = if network.traced.is_empty() {
            self.compute(self.paused.next)?
        } else {
            tch::with_grad(|| self.recorded(self.paused.next))?
        };
        for &dead in &network.schedule.steps[self.paused.next].release {
            self.paused.values[dead] = None;
        }
        self.paused.next += 1;
        Ok(self.paused.values[self.paused.next].insert(value))
    }

    /// Runs whatever is left and hands the outputs over.
    pub fn outputs(mut self) -> Result<Vec<Tensor>> {
        while self.paused.next < self.network.graph.nodes.len() {
            self.step()?;
        }
        let Network { schedule, graph, .. } = self.network;
        let kept = schedule.outputs.iter().zip(&graph.outputs);
        kept.map(|(&i, name)| Ok(self.paused.values[i].as_ref().ok_or_else(|| gone(name))?.shallow_clone())).collect()
    }

    /// As [`compute`](Self::compute); recording begins at a traced value that nothing recorded has made.
    fn recorded(&self, at: usize) -> Result<Tensor> {
        let value = self.compute(at)?;
        if self.network.traced.contains(&(at + 1)) && !value.requires_grad() {
            return Ok(value.f_detach()?.f_requires_grad_(true)?);
        }
        Ok(value)
    }

    fn compute(&self, at: usize) -> Result<Tensor> {
        let network = self.network;
        let (node, step) = (&network.graph.nodes[at], &network.schedule.steps[at]);
        let read = step.inputs.iter().zip(&node.inputs);
        let inputs: Vec<&Tensor> =
            read.map(|(&i, name)| self.paused.values[i].as_ref().ok_or_else(|| gone(name))).collect::<Result<_>>()?;
        let params: Vec<&Tensor> = network.params[at].iter().map(|&i| &network.tensors[i]).collect();
        let named = |e: TchError| Error::Node { node: node.name.clone(), op: node.op.kind(), reason: first_line(&e) };
        ops::compute(&node.op, &inputs, &params, self.statistics, step.in_place, self.paused.n_images).map_err(named)
    }
}

fn gone(value: &str) -> Error {
    Error::Fault(format!("the value `{value}` is read before it is made or after it was dropped"))
}
