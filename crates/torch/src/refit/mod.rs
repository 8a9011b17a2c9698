//! Refit in lockstep: the models and the merged network run side by side over all images, from layer to layer; at each
//! layer of the merged network its inputs and targets are summed up, it is solved, and the run goes on with what was
//! solved.
//!
//! Only the values that are still needed are kept (the live frontier), in memory and beyond a limit in a [`Scratch`].
//! Every image goes through every network once. Results are the same for any number of threads.

mod blend;
mod lanes;
mod products;

use crate::forward::Run;
use crate::parallel::{Failure, InOrder, each_batch, n_workers, read};
use crate::{Device, Error, Network, Result};
use blend::blend;
use lanes::{Lane, Lanes};
use products::{Products, products};
use std::ops::Range;
use tch::Tensor;
use zipit::apply::Grafted;
use zipit::graph::Node;
use zipit::images::ImageBatches;
use zipit::scratch::Scratch;
use zipit::refit::{Design, Layer, Ridge, Solution, Sums, layers, solve};
use zipit::watch::Watch;
use zipit::{Graph, Model, StateDict};

/// One image of so many is held out, to choose the ridge on.
const HELD_OUT: usize = 4;

/// What a layer reads while it is solved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inputs {
    /// What the merged network, solved so far, feeds it: it makes up for what earlier layers got wrong.
    Sequential,
    /// M z, what a merged network without errors would feed it (PLeaS).
    Layerwise,
}

/// How layers are solved.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Settings {
    /// What they read.
    pub inputs: Inputs,
    /// How strongly they are held at W*.
    pub ridge: Ridge,
}

/// A layer that was solved.
#[derive(Debug, Clone, PartialEq)]
pub struct Solved {
    /// Its node in the merged graph.
    pub layer: String,
    /// What it computes.
    pub design: Design,
    /// What solving did.
    pub solution: Solution,
}

/// A merged network that is being solved, layer by layer.
pub struct Refit<'a> {
    models: Vec<Network>,
    source: Graph,
    merged: Network,
    /// The merged network as it is so far.
    model: Model,
    layers: Vec<Layer>,
    /// Layers that are solved.
    done: usize,
    batches: &'a dyn ImageBatches,
    lanes: Lanes<'a>,
    settings: Settings,
    device: Device,
}

impl<'a> Refit<'a> {
    /// A merge of `models`, whose BatchNorm is folded as far as possible, with the origin of every node. Activations
    /// beyond so many bytes go into the scratch.
    ///
    /// # Errors
    /// Networks that LibTorch refuses, no images, a ridge that is none.
    pub fn new(
        models: &[&Model],
        grafted: &Grafted,
        batches: &'a dyn ImageBatches,
        settings: Settings,
        limit: Option<(usize, &'a dyn Scratch)>,
        device: Device,
    ) -> Result<Self> {
        settings.ridge.validate()?;
        if batches.n_images() == 0 {
            return Err(Error::Request("there are no images to fit the layers to".into()));
        }
        let source = models[0].graph.clone();
        Ok(Self {
            layers: layers(grafted, &source),
            models: models.iter().map(|model| Network::new(model, device)).collect::<Result<_>>()?,
            merged: Network::new(&grafted.model, device)?,
            model: grafted.model.clone(),
            source,
            done: 0,
            lanes: Lanes::new(batches.n_batches(), limit, device),
            batches,
            settings,
            device,
        })
    }

    /// The layers that are solved, in order, by the names of their nodes.
    pub fn layers(&self) -> impl ExactSizeIterator<Item = &str> {
        self.layers.iter().map(|layer| self.model.graph.nodes[layer.node].name.as_str())
    }

    /// Number of layers that are solved.
    #[must_use]
    pub fn n_done(&self) -> usize {
        self.done
    }

    /// The merged network as it is so far.
    #[must_use]
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Bytes of activations in memory.
    #[must_use]
    pub fn bytes_in_memory(&self) -> usize {
        self.lanes.in_memory()
    }

    /// Takes the first `n` layers as an earlier run solved them.
    ///
    /// # Errors
    /// Weights that are not this network's; more layers than there are.
    ///
    /// # Panics
    /// After the first [`step`](Self::step).
    pub fn restore(&mut self, n: usize, weights: StateDict) -> Result<()> {
        assert_eq!(self.done, 0, "only what has not begun can be restored");
        if n > self.layers.len() {
            return Err(Error::Request(format!("{n} layers of {} cannot be solved", self.layers.len())));
        }
        let mut model = self.model.clone();
        model.weights = weights;
        for layer in &self.layers[..n] {
            let node = &mut model.graph.nodes[layer.node];
            zipit::refit::give_bias(node);
        }
        model.validate()?;
        self.merged = Network::new(&model, self.device)?;
        self.model = model;
        self.done = n;
        Ok(())
    }

    /// Solves the next layers, those that can be solved on one pass over the images; nothing after the last.
    ///
    /// # Errors
    /// Images that cannot be read, numbers that are not finite, a problem without a solution, a scratch that fails, or
    /// [`zipit::Error::Interrupted`]. After an error, only [`model`](Self::model) and [`n_done`](Self::n_done) count.
    pub fn step(&mut self, watch: &dyn Watch) -> Result<Vec<Solved>> {
        let now = self.next_layers();
        if now.is_empty() {
            return Ok(vec![]);
        }
        let measured = self.measure(now.clone(), watch)?;
        let mut solved = Vec::with_capacity(now.len());
        for (at, [fitted, held_out]) in now.zip(measured) {
            let design = fitted.design;
            let node: &mut Node = &mut self.model.graph.nodes[self.layers[at].node];
            let solution = solve(node, &mut self.model.weights, fitted, &held_out, self.settings.ridge)?;
            solved.push(Solved { layer: node.name.clone(), design, solution });
            self.done += 1;
        }
        // New biases are new tensors.
        self.merged = Network::new(&self.model, self.device)?;
        Ok(solved)
    }

    /// The layers from the first unsolved one on that read nothing of each other.
    fn next_layers(&self) -> Range<usize> {
        let Some(first) = self.layers.get(self.done) else { return self.done..self.done };
        let together = self.layers[self.done + 1..].iter().take_while(|layer| {
            layer.source == first.source && (layer.others.is_empty() || self.settings.inputs == Inputs::Layerwise)
        });
        self.done..self.done + 1 + together.count()
    }

    /// Sums of the fitted and of the held-out images, for each of the layers.
    fn measure(&self, range: Range<usize>, watch: &dyn Watch) -> Result<Vec<[Sums; 2]>> {
        let layers = &self.layers[range];
        let nodes: Vec<&Node> = layers.iter().map(|layer| &self.model.graph.nodes[layer.node]).collect();
        let n_batches = self.batches.n_batches();
        let sums: Vec<InOrder<[Sums; 2], [Vec<Products>; 2]>> = nodes
            .iter()
            .map(|node| {
                let zeros = || Sums::zeros(Design::of(&node.op).expect("a layer with parameters"));
                InOrder::new(0, [zeros(), zeros()])
            })
            .collect();
        let failure = Failure::default();
        let networks: Vec<&Network> = self.models.iter().chain([&self.merged]).collect();
        let (batches, lanes) = (self.batches, &self.lanes);
        let pass = Pass { layers, nodes: &nodes, source: &self.source, inputs: self.settings.inputs };
        let workers: Vec<Vec<Network>> = (0..n_workers(self.device, n_batches))
            .map(|_| networks.iter().map(|network| network.replicate()).collect())
            .collect();
        let done = each_batch(workers, 0..n_batches, watch, &failure, |networks: &mut Vec<Network>, batch| {
            let lane = match lanes.take(batch)? {
                Some(lane) => lane,
                None => {
                    let input = networks[0].input(&read(batches, batch)?)?;
                    Lane { runs: networks.iter().map(|network| network.before(input.shallow_clone())).collect() }
                }
            };
            let (lane, measured, n_images) = pass.advance(networks, lane, batch, batches.n_images_in(batch))?;
            lanes.put(batch, lane)?;
            for (sums, parts) in sums.iter().zip(measured) {
                sums.hand_in(batch, parts, &failure, |sums, parts| {
                    for (sums, products) in sums.iter_mut().zip(parts) {
                        products.iter().for_each(|p| p.add_to(sums));
                    }
                });
            }
            Ok(n_images)
        })?;
        if done < n_batches {
            return Err(zipit::Error::Interrupted.into());
        }
        Ok(sums.into_iter().map(InOrder::into_inner).collect())
    }
}

/// One pass over the images: the layers that are solved by it.
struct Pass<'a> {
    layers: &'a [Layer],
    nodes: &'a [&'a Node],
    source: &'a Graph,
    inputs: Inputs,
}

/// A batch's sums at each layer, of the fitted and of the held-out images.
type Measured = Vec<[Vec<Products>; 2]>;

impl Pass<'_> {
    /// Brings one batch, whose first image is number `first`, to the layers and sums up what they read and what they
    /// should make of it.
    fn advance(&self, networks: &[Network], lane: Lane, batch: usize, first: usize) -> Result<(Lane, Measured, u64)> {
        let mut runs: Vec<Run<'_>> = networks.iter().zip(lane.runs).map(|(network, run)| network.resume(run)).collect();
        let mut merged = runs.pop().expect("the merged network's run");
        let (at, source) = (self.layers[0].source, &self.source.nodes[self.layers[0].source]);
        let of_models = |runs: &[Run<'_>], name: &str| -> Vec<Tensor> {
            runs.iter().map(|run| run.value(name).shallow_clone()).collect()
        };
        for run in &mut runs {
            run.advance_to(at)?;
        }
        let inputs: Vec<Tensor> = match self.inputs {
            Inputs::Sequential => {
                merged.advance_to(self.layers[0].node)?;
                self.nodes.iter().map(|node| merged.value(&node.inputs[0]).shallow_clone()).collect()
            }
            Inputs::Layerwise => {
                let read = of_models(&runs, &source.inputs[0]);
                self.layers.iter().map(|layer| blend(&layer.input, &read)).collect::<Result<_>>()?
            }
        };
        for run in &mut runs {
            run.advance_to(at + 1)?;
        }
        let outputs = of_models(&runs, &source.name);
        let n_images = outputs[0].size()[0];
        let split = split(first, n_images as usize, outputs[0].device())?;
        let mut measured = Vec::with_capacity(self.layers.len());
        for ((layer, node), x) in self.layers.iter().zip(self.nodes).zip(&inputs) {
            let mut y = blend(&layer.target, &outputs)?;
            if self.inputs == Inputs::Sequential {
                for term in &layer.others {
                    let wanted = blend(&term.blend, &of_models(&runs, &term.source))?;
                    y = y.f_add(&wanted)?.f_sub(merged.value(&term.value))?;
                }
            }
            let part = |rows: &Option<Tensor>| -> Result<Vec<Products>> {
                let Some(rows) = rows else { return Ok(vec![]) };
                products(&node.op, &x.f_index_select(0, rows)?, &y.f_index_select(0, rows)?, &node.name, batch)
            };
            measured.push([part(&split[0])?, part(&split[1])?]);
        }
        let runs = runs.into_iter().chain([merged]).map(Run::pause).collect();
        Ok((Lane { runs }, measured, n_images as u64))
    }
}

/// The rows of a batch that are fitted and those that are held out, by the images' places among all; `None` for none.
fn split(first: usize, n: usize, device: tch::Device) -> Result<[Option<Tensor>; 2]> {
    let rows = |held: bool| -> Result<Option<Tensor>> {
        let rows: Vec<i64> =
            (0..n).filter(|row| ((first + row) % HELD_OUT == HELD_OUT - 1) == held).map(|row| row as i64).collect();
        if rows.is_empty() {
            return Ok(None);
        }
        Ok(Some(Tensor::f_from_slice(&rows)?.f_to_device(device)?))
    };
    Ok([rows(false)?, rows(true)?])
}
