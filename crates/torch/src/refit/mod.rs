//! Refit in lockstep: the models and the merged network run side by side over all images, from layer to layer; at each
//! layer of the merged network its inputs and targets are summed up, it is solved, and the run goes on with what was
//! solved.
//!
//! Only the values that are still needed are kept (the live frontier), in memory and beyond a limit in a [`Scratch`].
//! Every image goes through every network once. Results are the same for any number of threads.

mod blend;
mod lanes;
mod lockstep;
mod measure;
mod offsets;
mod patches;
mod products;
mod rehearsal;
mod rests;
mod running;
mod sampled;
mod squares;

pub(crate) use patches::patches;
pub use rehearsal::Rehearsed;

use crate::images::contents;
use crate::parallel::FromFirst;
use crate::{Device, Error, Result};
use lockstep::Lockstep;
use measure::{Aim, Group, Pass, Planned};
use ndarray::ArrayD;
use offsets::Offsets;
use products::{Samples, Tally, Way};
use rests::{Ahead, rests};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tch::Tensor;
use zipit::apply::Grafted;
use zipit::graph::Node;
use zipit::images::{HELD_OUT, ImageBatches, held_out, n_different};
use zipit::refit::{
    Design, Lattice, Layer, Outcome, Owners, Positions, Residuals, Ridge, Rounds, Site, Spread, Sums, layers,
    layers_together, rescale, sites, solve_openly,
};
use zipit::scratch::Scratch;
use zipit::watch::Watch;
use zipit::{Graph, Model, StateDict};

/// λ where there are too few different images to hold any out: they say little, so W* counts as much.
pub const RIDGE_OF_FEW: f64 = 1.0;

/// What a layer reads while it is solved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inputs {
    /// What the merged network, solved so far, feeds it: it makes up for what earlier layers got wrong.
    Sequential,
    /// M z, what a merged network without errors would feed it (PLeaS).
    Layerwise,
}

/// What is found anew.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Task {
    /// Every weight, by least squares.
    Weights {
        /// What the layers read.
        inputs: Inputs,
        /// How strongly they are held at W*.
        ridge: Ridge,
        /// How often layers behind which is a ReLU are solved again for what it lets through, at most; only where they
        /// are read in sequence, and images are held out to judge it.
        rounds: u32,
        /// Whether layers that write one sum are solved as one; only where they are read in sequence.
        together: bool,
    },
    /// A scale and a shift per feature (REPAIR).
    Scale,
}

/// A layer, or several that were solved as one, that is done.
#[derive(Debug, Clone, PartialEq)]
pub struct Solved {
    /// Its node in the merged graph; several, where they were solved as one.
    pub layers: Vec<String>,
    /// What was done.
    pub outcome: Outcome,
}

/// What was done to nodes of the merged graph that were done as one.
type Outcomes = Vec<(Vec<usize>, Outcome)>;

/// What is to be done, in the order of the merged graph.
enum Work {
    Layers(Vec<Layer>, Inputs, Ridge, u32),
    Sites(Vec<Site>),
}

/// The images, as far as they say what may be judged on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// All of them.
    pub n_images: usize,
    /// Those that differ from all before them.
    pub n_different: usize,
    /// Those that are held out to choose the ridge.
    pub n_held_out: usize,
}

/// A merged network that is being solved, layer by layer.
pub struct Refit<'a> {
    run: Lockstep<'a>,
    sources: Vec<Graph>,
    n_models: usize,
    /// The merged network as it is so far.
    model: Model,
    work: Work,
    owners: Option<Owners>,
    positions: Positions,
    /// Of so many images the positions are enough.
    n_images: usize,
    batches: &'a dyn ImageBatches,
    /// How the images differ, once they have been read, and which are held out.
    seen: Option<(Seen, Vec<bool>)>,
    /// Layers that are done.
    done: usize,
    /// Their shapes and ridges: where the search for the next ones begins.
    ridges: Vec<(Design, f64)>,
    /// Time that running the networks and summing up took, and solving.
    clock: [Duration; 2],
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
        task: Task,
        limit: Option<(usize, &'a dyn Scratch)>,
        device: Device,
    ) -> Result<Self> {
        if batches.n_images() == 0 {
            return Err(Error::Request("there are no images to fit the layers to".into()));
        }
        let (model, work) = match task {
            Task::Weights { inputs, ridge, rounds, together } => {
                ridge.validate()?;
                let rounds = if inputs == Inputs::Sequential { rounds } else { 0 };
                let (model, layers) = if together && inputs == Inputs::Sequential {
                    let (moved, layers) = layers_together(grafted, models, rounds > 0);
                    (moved.model, layers)
                } else {
                    (grafted.model.clone(), layers(grafted, models, rounds > 0))
                };
                (model, Work::Layers(layers, inputs, ridge, rounds))
            }
            Task::Scale => (grafted.model.clone(), Work::Sites(sites(grafted, models))),
        };
        Ok(Self {
            run: Lockstep::new(models, &model, batches, limit, device)?,
            n_models: models.len(),
            model,
            sources: models.iter().map(|model| model.graph.clone()).collect(),
            work,
            owners: None,
            positions: Positions::All,
            n_images: batches.n_images(),
            batches,
            seen: None,
            done: 0,
            ridges: vec![],
            clock: [Duration::ZERO; 2],
        })
    }

    /// On every image, one model is believed. Layers that blend what models read straight from the image stay as the merge
    /// made them.
    ///
    /// # Errors
    /// Owners of another number of images or models, or of a refit that only rescales.
    ///
    /// # Panics
    /// After the first [`step`](Self::step).
    pub fn with_owners(mut self, owners: Owners) -> Result<Self> {
        assert_eq!(self.done, 0, "whose images are is said before anything is solved");
        let (n, n_models) = (owners.of().len(), owners.n_images().len());
        if n != self.batches.n_images() || n_models != self.n_models {
            return Err(Error::Request(format!(
                "{n} images of {n_models} models are said to be somebody's; there are {} images and {} models",
                self.batches.n_images(),
                self.n_models
            )));
        }
        if matches!(self.work, Work::Sites(_)) {
            return Err(Error::Request("a scale and a shift are of all images alike".into()));
        }
        self.owners = Some(owners);
        Ok(self)
    }

    /// Sums are taken over some of every image's positions, where those of `n_images` are enough: the number of images,
    /// unless a longer refit is rehearsed on some of its own.
    #[must_use]
    pub fn with_positions(mut self, positions: Positions, n_images: usize) -> Self {
        (self.positions, self.n_images) = (positions, n_images);
        self
    }

    /// Reads all images, to hold some of them out by what they show: equal ones are fitted together or held out together.
    /// [`step`](Self::step) does so where it was not done before.
    ///
    /// # Errors
    /// Images that cannot be read, or [`zipit::Error::Interrupted`].
    pub fn look(&mut self, watch: &dyn Watch) -> Result<Seen> {
        if let Some((seen, _)) = &self.seen {
            return Ok(*seen);
        }
        let contents = contents(self.batches, watch)?;
        let held_out = held_out(&contents, self.owners.as_ref().map(Owners::of), HELD_OUT);
        let n_held_out = held_out.iter().filter(|&&held| held).count();
        let seen = Seen { n_images: contents.len(), n_different: n_different(&contents), n_held_out };
        self.seen = Some((seen, held_out));
        Ok(seen)
    }

    /// Number of layers there are to do.
    #[must_use]
    pub fn n_layers(&self) -> usize {
        match &self.work {
            Work::Layers(layers, ..) => layers.len(),
            Work::Sites(sites) => sites.len(),
        }
    }

    /// Number of layers that are done.
    #[must_use]
    pub fn n_done(&self) -> usize {
        self.done
    }

    /// The merged network as it is so far.
    #[must_use]
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Time so far: running the networks and summing up, and solving.
    #[must_use]
    pub fn clock(&self) -> [Duration; 2] {
        self.clock
    }

    /// Bytes of activations in memory.
    #[must_use]
    pub fn bytes_in_memory(&self) -> usize {
        self.run.bytes_in_memory()
    }

    /// Takes the first layers as an earlier run left them.
    ///
    /// # Errors
    /// Weights or layers that are not this network's; more layers than there are.
    ///
    /// # Panics
    /// After the first [`step`](Self::step).
    pub fn restore(&mut self, solved: &[Solved], weights: StateDict) -> Result<()> {
        assert_eq!(self.done, 0, "only what has not begun can be restored");
        let n = solved.len();
        if n > self.n_layers() {
            return Err(Error::Request(format!("{n} layers of {} cannot be done", self.n_layers())));
        }
        let mut model = self.model.clone();
        model.weights = weights;
        let written: Vec<usize> = match &self.work {
            Work::Layers(layers, ..) => layers[..n].iter().map(|layer| layer.node).collect(),
            Work::Sites(sites) => sites[..n].iter().flat_map(|site| site.writers.clone()).collect(),
        };
        for node in written {
            zipit::refit::give_bias(&mut model.graph.nodes[node]);
        }
        model.validate()?;
        let ridges = chosen_ridges(&model.graph, solved)?;
        self.run.replace(&model)?;
        (self.model, self.ridges, self.done) = (model, ridges, n);
        Ok(())
    }

    /// Does the next layers, those that can be done on one pass over the images; nothing after the last.
    ///
    /// # Errors
    /// Images that cannot be read, numbers that are not finite, a problem without a solution, a scratch that fails, or
    /// [`zipit::Error::Interrupted`]. After an error, only [`model`](Self::model) and [`n_done`](Self::n_done) count.
    pub fn step(&mut self, watch: &dyn Watch) -> Result<Vec<Solved>> {
        let now = self.next_layers();
        if now.is_empty() {
            return Ok(vec![]);
        }
        let started = Instant::now();
        if let Work::Layers(..) = self.work {
            self.look(&Silent(watch))?;
        }
        let (measured, outcomes) = match &self.work {
            Work::Layers(layers, inputs, ridge, rounds) => {
                let (layers, inputs, ridge, rounds) = (layers[now].to_vec(), *inputs, *ridge, *rounds);
                let before: Vec<Before> =
                    layers.iter().flat_map(Layer::nodes).map(|node| Before::of(&self.model, node)).collect();
                let solved = self.solve(&layers, inputs, ridge, rounds, watch);
                if solved.is_err() {
                    for layer in before {
                        layer.put_back(&mut self.model);
                    }
                }
                solved?
            }
            Work::Sites(sites) => {
                let sites = &sites[now];
                let width = |site: &Site| {
                    site.target.pieces.iter().fold([0, 0], |[d, n], p| [d + p.width * p.repeat, n + p.dim * p.repeat])
                };
                let zeros = sites.iter().map(|site| {
                    let [merged, own] = width(site);
                    Spread::zeros(merged, self.n_models * own)
                });
                let pass = self.pass();
                let spreads = self.run.pass(zeros.collect(), watch, |networks, lane, batch| {
                    pass.spreads(sites, networks, lane, batch.number)
                })?;
                let measured = started.elapsed();
                let mut outcomes = Vec::with_capacity(sites.len());
                for (site, spread) in sites.iter().zip(spreads) {
                    let rescaled = rescale(site, &mut self.model, &spread)?;
                    outcomes.push((vec![site.writers[0]], Outcome::Scale(rescaled)));
                }
                (measured, outcomes)
            }
        };
        // New biases are new tensors.
        self.run.replace(&self.model)?;
        self.done += outcomes.len();
        let name = |node: usize| self.model.graph.nodes[node].name.clone();
        let told =
            |(nodes, outcome): (Vec<usize>, Outcome)| Solved { layers: nodes.into_iter().map(name).collect(), outcome };
        let solved: Vec<Solved> = outcomes.into_iter().map(told).collect();
        self.ridges.extend(chosen_ridges(&self.model.graph, &solved)?);
        self.clock[0] += measured;
        self.clock[1] += started.elapsed().saturating_sub(measured);
        Ok(solved)
    }

    /// Solves layers that can be solved on one pass over the images, and again for what comes through behind them. Gives
    /// the time that measuring took.
    fn solve(
        &mut self,
        layers: &[Layer],
        inputs: Inputs,
        ridge: Ridge,
        rounds: u32,
        watch: &dyn Watch,
    ) -> Result<(Duration, Outcomes)> {
        let started = Instant::now();
        let sums = self.sums(layers, inputs, rounds > 0, watch)?;
        let mut measured = started.elapsed();
        let none_held_out = self.seen.as_ref().is_some_and(|(seen, _)| seen.n_held_out == 0);
        let ridge = if none_held_out && ridge == Ridge::HeldOut { Ridge::Fixed(RIDGE_OF_FEW) } else { ridge };
        let mut solutions = Vec::with_capacity(layers.len());
        let mut open = vec![];
        for (at, (layer, sums)) in layers.iter().zip(sums).enumerate() {
            let mut nodes = self.nodes(layer);
            let again = layer.rectified.as_ref().filter(|_| rounds > 0);
            let near = self.ridge_near(&nodes);
            let (solution, systems) =
                solve_openly(&mut nodes, &mut self.model.weights, sums, ridge, near, again.is_some())?;
            for (at, node) in layer.nodes().zip(nodes) {
                self.model.graph.nodes[at] = node;
            }
            solutions.push(solution);
            open.extend(again.zip(systems).map(|(rectified, systems)| (at, rectified, Rounds::new(systems))));
        }
        let ways = if open.is_empty() { vec![] } else { self.ways(layers)? };
        for _ in 0..rounds {
            if open.is_empty() {
                break;
            }
            self.run.replace(&self.model)?;
            let started = Instant::now();
            let aims = open.iter().map(|(at, rectified, rounds)| Aim {
                layer: &layers[*at],
                rectified,
                way: ways[*at].clone(),
                origin: rounds.origin(),
                dark: rounds.dark(),
            });
            let residuals = self.residuals(&aims.collect::<Vec<_>>(), watch)?;
            measured += started.elapsed();
            let mut rest = Vec::with_capacity(open.len());
            for ((at, rectified, mut rounds), residuals) in open.into_iter().zip(residuals) {
                let nodes = self.nodes(&layers[at]);
                if rounds.take(&nodes, &mut self.model.weights, &residuals)? {
                    solutions[at].rounds += 1;
                    rest.push((at, rectified, rounds));
                }
            }
            open = rest;
        }
        let outcomes = layers.iter().zip(solutions);
        Ok((
            measured,
            outcomes.map(|(layer, solution)| (layer.nodes().collect(), Outcome::Weights(solution))).collect(),
        ))
    }

    /// The ridge of the last layer of that shape.
    fn ridge_near(&self, nodes: &[Node]) -> Option<f64> {
        let design = Design::of_all(nodes)?;
        self.ridges.iter().rfind(|(of, _)| *of == design).map(|(_, ridge)| *ridge)
    }

    /// How far what comes through behind layers is from what should.
    fn residuals(&self, aims: &[Aim<'_>], watch: &dyn Watch) -> Result<Vec<Residuals>> {
        let zeros =
            |aim: &Aim<'_>| Residuals::zeros(Design::of_all(&self.nodes(aim.layer)).expect("a layer with parameters"));
        let (zeros, pass) = (aims.iter().map(zeros).collect(), self.pass());
        self.run.pass(zeros, &Silent(watch), |networks, lane, batch| pass.residuals(aims, networks, lane, batch))
    }

    /// What layers read and should make, on one pass over the images: of those that are fitted to, and of those held out.
    fn sums(&self, layers: &[Layer], inputs: Inputs, in_rounds: bool, watch: &dyn Watch) -> Result<Vec<[Sums; 2]>> {
        let (ways, origins) = (self.ways(layers)?, FromFirst::new());
        let to_come = match &self.work {
            Work::Layers(all, ..) => &all[self.done + layers.len()..],
            Work::Sites(_) => &[],
        };
        let rests = rests(&self.run, &self.sources, Ahead { layers, to_come, reading: inputs, in_rounds })?;
        let zeros = layers.iter().zip(&ways).filter_map(|(layer, way)| {
            let design = Design::of_all(&self.nodes(layer))?;
            Some([(); 2].map(|()| Tally::zeros(design, way.offsets())))
        });
        let pass = self.pass();
        let group = Group { layers, reading: inputs, ways: &ways, origins: &origins, rests: &rests };
        let tallies =
            self.run.pass(zeros.collect(), watch, |networks, lane, batch| pass.sums(&group, networks, lane, batch))?;
        Ok(tallies.into_iter().map(|tallies| tallies.map(Tally::into_sums)).collect())
    }

    /// How sums are taken: over patches at as many positions as are needed, or without patches where that is cheaper.
    fn ways(&self, layers: &[Layer]) -> Result<Vec<Planned>> {
        let graph = &self.model.graph;
        let shapes = graph.shapes()?;
        let size = |value: &str| <[usize; 3]>::try_from(shapes.get(value)?.as_slice()).ok();
        let by_offsets = |nodes: &[&Node], step: usize| {
            let read = nodes.iter().map(|node| size(&node.inputs[0])).collect::<Option<Vec<_>>>()?;
            let [_, height, width] = size(&nodes[0].name)?;
            let ops: Vec<_> = nodes.iter().map(|node| &node.op).collect();
            Offsets::new(&ops, &read, [height, width], step).map(Arc::new)
        };
        let way = |layer: &Layer| {
            let nodes = self.nodes(layer);
            let positions = shapes.get(nodes[0].name.as_str()).map_or(&[][..], |shape| &shape[1..]);
            let of_owner = |owners: &Owners| Some(owners.n_images()[layer.target.own()?]);
            let n_images = self.owners.as_ref().and_then(of_owner).unwrap_or(self.n_images);
            let lattice = Design::of_all(&nodes).and_then(|design| self.positions.lattice(n_images, positions, design));
            let step = lattice.as_ref().map_or(1, Lattice::step);
            by_offsets(&nodes.iter().collect::<Vec<_>>(), step).map_or(Planned::Patches(lattice), Planned::Offsets)
        };
        Ok(layers.iter().map(way).collect())
    }

    /// Those of a layer, in the order of the graph.
    fn nodes(&self, layer: &Layer) -> Vec<Node> {
        layer.nodes().map(|at| self.model.graph.nodes[at].clone()).collect()
    }

    fn pass(&self) -> Pass<'_> {
        let held_out = self.seen.as_ref().map_or(&[][..], |(_, held_out)| held_out);
        let owners = self.owners.as_ref();
        Pass { sources: &self.sources, merged: &self.model.graph, owners, held_out }
    }

    /// A node of the models' graphs, by its name, and whether each model has its own: in heads.
    fn place(&self, source: usize, head: Option<usize>) -> (&str, bool) {
        (&self.sources[head.unwrap_or(0)].nodes[source].name, head.is_some())
    }

    /// The layers from the first one on that is not done that read nothing of each other.
    fn next_layers(&self) -> Range<usize> {
        let together = match &self.work {
            Work::Layers(layers, inputs, ..) => {
                let rest = &layers[self.done..];
                let place = |layer: &Layer| self.place(layer.source, layer.head);
                let free = |layer: &&Layer| {
                    let alone = layer.others.is_empty() && layer.partners.is_empty();
                    place(layer) == place(&rest[0]) && (alone || *inputs == Inputs::Layerwise)
                };
                rest.iter().skip(1).take_while(free).count() + usize::from(!rest.is_empty())
            }
            Work::Sites(sites) => {
                let rest = &sites[self.done..];
                let place = |site: &Site| self.place(site.source, site.head);
                rest.iter().take_while(|site| place(site) == place(&rest[0])).count()
            }
        };
        self.done..self.done + together
    }
}

/// The shapes of layers, several as one that were solved as one, and their ridges, where these were chosen.
fn chosen_ridges(graph: &Graph, solved: &[Solved]) -> Result<Vec<(Design, f64)>> {
    let mut ridges = vec![];
    for Solved { layers, outcome } in solved {
        let node = |name: &String| {
            let node = graph.node(name).cloned();
            node.ok_or_else(|| Error::Request(format!("there is no layer `{name}` to be restored")))
        };
        let nodes = layers.iter().map(node).collect::<Result<Vec<_>>>()?;
        if let Outcome::Weights(solution) = outcome
            && solution.held_out.is_some()
        {
            ridges.extend(Design::of_all(&nodes).map(|design| (design, solution.ridge)));
        }
    }
    Ok(ridges)
}

/// Sums of a convolution's patches of x `[B, C, H, W]` and of its outputs y `[B, O, H', W']`, by products of the patches or
/// of the images: what the benchmark compares.
///
/// # Errors
/// Tensors of other shapes.
#[doc(hidden)]
pub fn sums_of_batch(node: &Node, x: &Tensor, y: &Tensor, by_offsets: bool) -> Result<Option<Sums>> {
    let size = |tensor: &Tensor| [1, 2, 3].map(|axis| tensor.size()[axis] as usize);
    let [_, height, width] = size(y);
    let plan = Offsets::of(&[&node.op], &[size(x)], [height, width]).filter(|_| by_offsets).map(Arc::new);
    let Some(design) = Design::of(&node.op).filter(|_| plan.is_some() || !by_offsets) else { return Ok(None) };
    let read = vec![(node, x.shallow_clone())];
    let way = plan.as_deref().map_or(Way::Patches, Way::Offsets);
    let samples = Samples { read, y: y.shallow_clone(), way };
    let rows: Vec<i64> = (0..x.size()[0]).collect();
    let mut tally = Tally::zeros(design, plan.as_ref());
    tally.add(samples.products(&rows, &samples.origin()?, 0)?);
    Ok(Some(tally.into_sums()))
}

/// A node of a model and its tensors, as they were: a layer that is solved and not done yet would begin elsewhere when it
/// is solved again.
struct Before {
    at: usize,
    node: Node,
    tensors: Vec<(String, Option<ArrayD<f32>>)>,
}

impl Before {
    fn of(model: &Model, at: usize) -> Self {
        let node = model.graph.nodes[at].clone();
        let mut with_bias = node.clone();
        zipit::refit::give_bias(&mut with_bias);
        let names = with_bias.op.params().into_iter().map(|param| node.tensor(param.name));
        let tensors = names.map(|name| (name.clone(), model.weights.get(&name).cloned())).collect();
        Self { at, node, tensors }
    }

    fn put_back(self, model: &mut Model) {
        model.graph.nodes[self.at] = self.node;
        for (name, tensor) in self.tensors {
            match tensor {
                Some(tensor) => model.weights.insert(name, tensor),
                None => model.weights.remove(&name),
            };
        }
    }
}

/// Work that is not counted.
struct Silent<'a>(&'a dyn Watch);

impl Watch for Silent<'_> {
    fn advance(&self, _: u64) {}

    fn interrupted(&self) -> bool {
        self.0.interrupted()
    }
}
