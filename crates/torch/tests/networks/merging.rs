//! Merges of small networks, solved again, and what they compute.

use ndarray::{Array2, Array4, ArrayD, Axis, Ix2, Ix4, IxDyn};
use rand::{RngExt, SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Mutex;
use zipit::Collected;
use zipit::apply::{Grafted, Heads};
use zipit::graph::{Op, Segment, Window};
use zipit::images::ImageBatches;
use zipit::matching::Method;
use zipit::plan::{Plan, PlanSettings, PointPlan, PointSummary};
use zipit::refit::{Gram, Outcome, Positions, Ridge, Solution, graft_folded, gram::patch_size};
use zipit::scratch::Scratch;
use zipit::unmerge::UnmergeRule;
use zipit::watch::{Unwatched, Watch};
use zipit::{Graph, Model, Moments};
use zipit_torch::accumulate;
use zipit_torch::convert::to_array;
use zipit_torch::images::InMemory;
use zipit_torch::refit::{Inputs, Refit, Solved, Task};
use zipit_torch::{Device, Network, Result};

/// A plan over the points that `chosen` accepts; `label(space, i, j)` says what model i's feature j is.
pub fn plan(
    graph: &Graph,
    n_models: usize,
    mut chosen: impl FnMut(&str) -> bool,
    mut label: impl FnMut(usize, usize, usize) -> usize,
) -> Plan {
    let points = graph.merge_points(&graph.spaces().unwrap()).into_iter().filter(|point| chosen(&point.name));
    let points = points.map(|point| {
        let mut groups = BTreeMap::new();
        let assignment: Vec<u32> = (0..n_models * point.dim)
            .map(|k| {
                let next = groups.len() as u32;
                *groups.entry(label(point.space, k / point.dim, k % point.dim)).or_insert(next)
            })
            .collect();
        let n_groups = groups.len();
        let summary = PointSummary {
            across: assignment.len() - n_groups,
            within: vec![0; n_models],
            mean_correlation: None,
            caps_lifted: false,
            reconstruction_error: 0.0,
            condition: None,
            spread: None,
            dead: 0,
            constant: 0,
        };
        PointPlan {
            name: point.name,
            assignment,
            n_groups,
            resting: vec![],
            weights: None,
            merge: None,
            unmerge: None,
            summary,
        }
    });
    let points = points.collect();
    Plan { n_models, settings: PlanSettings { method: Method::Identity, unmerge: UnmergeRule::Pinv }, points }
}

/// Feature j with feature j.
pub fn identity(graph: &Graph, n_models: usize) -> Plan {
    plan(graph, n_models, |_| true, |_, _, j| j)
}

/// At every point, the features of all models thrown into so many groups, a share of one model's width.
pub fn random(graph: &Graph, n_models: usize, share: f64, seed: u64) -> Plan {
    let dims: Vec<usize> = graph.spaces().unwrap().spaces.iter().map(|space| space.dim).collect();
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    plan(
        graph,
        n_models,
        |_| true,
        |space, _, _| rng.random_range(0..((dims[space] as f64 * share).round() as usize).max(1)),
    )
}

/// The same function with the features of every free space in another order, and the plan that knows it.
pub fn permuted_copy(model: &Model, seed: u64) -> (Model, Plan) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let spaces = model.graph.spaces().unwrap();
    let mut orders: Vec<Vec<usize>> = spaces.spaces.iter().map(|space| (0..space.dim).collect()).collect();
    for (order, _) in orders.iter_mut().zip(&spaces.spaces).filter(|(_, space)| space.fixed.is_none()) {
        order.shuffle(&mut rng);
    }
    let positions = |axis: &[Segment]| -> Vec<usize> {
        let mut from = 0;
        let mut all = Vec::new();
        for segment in axis {
            let order = &orders[segment.space];
            all.extend(order.iter().flat_map(|&f| (0..segment.repeat).map(move |r| from + f * segment.repeat + r)));
            from += order.len() * segment.repeat;
        }
        all
    };
    let mut copy = model.clone();
    for node in model.graph.nodes.iter().filter(|node| node.module.is_some()) {
        for param in node.op.params() {
            let tensor = copy.weights.get_mut(&format!("{}.{}", node.module.as_ref().unwrap(), param.name)).unwrap();
            *tensor = tensor.select(Axis(0), &positions(&spaces.axes[&node.name]));
            if node.op.mixes() && param.name == "weight" {
                *tensor = tensor.select(Axis(1), &positions(&spaces.axes[&node.inputs[0]]));
            }
        }
    }
    let plan = plan(&model.graph, 2, |_| true, |space, i, j| if i == 0 { j } else { orders[space][j] });
    (copy, plan)
}

/// A merge that is to be solved.
pub struct Merge {
    pub plan: Plan,
    /// BatchNorm folded.
    pub models: Vec<Model>,
    pub grafted: Grafted,
    pub positions: Positions,
}

impl Merge {
    pub fn new(models: &[&Model], plan: Plan) -> Self {
        let (models, grafted) = graft_folded(models, &plan, Heads::Separate).unwrap();
        Self { plan, models, grafted, positions: Positions::All }
    }

    /// Some positions of every image, so many samples for each unknown.
    pub fn at_some_positions(self, n: u32) -> Self {
        Self { positions: Positions::Enough { per_unknown: n, in_all: 0 }, ..self }
    }

    pub fn models(&self) -> Vec<&Model> {
        self.models.iter().collect()
    }

    /// A refit that has not begun.
    pub fn start<'a>(
        &self,
        batches: &'a dyn ImageBatches,
        task: Task,
        limit: Option<(usize, &'a dyn Scratch)>,
    ) -> Result<Refit<'a>> {
        let refit = Refit::new(&self.models(), &self.grafted, batches, task, limit, Device::Cpu)?;
        Ok(refit.with_positions(self.positions, batches.n_images()))
    }

    /// The network after all layers are done.
    pub fn refit(&self, batches: &dyn ImageBatches, task: Task) -> Result<(Model, Vec<Solved>)> {
        let mut refit = self.start(batches, task, None)?;
        let solved = run(&mut refit, &Unwatched)?;
        assert_eq!(solved.len(), refit.n_layers());
        refit.model().validate().unwrap();
        Ok((refit.model().clone(), solved))
    }

    /// What `value` should be, of the models' values there, by the plan's M: `[B, C, H, W]` or `[B, F]`.
    pub fn blend(&self, value: &str, own: &[&ArrayD<f64>]) -> ArrayD<f64> {
        let spaces = self.models[0].graph.spaces().unwrap();
        let last: Vec<Array4<f64>> = own.iter().map(|value| features_last(value)).collect();
        let (b, h, w, _) = last[0].dim();
        let mut from = 0;
        let mut parts = Vec::new();
        for Segment { space, repeat } in &spaces.axes[value] {
            let space = &spaces.spaces[*space];
            let length = space.dim * repeat;
            // Features as the last axis, what repeats them with the samples.
            let part = |own: &Array4<f64>| -> Array2<f64> {
                let part = own.slice_axis(Axis(3), (from..from + length).into());
                let split = part.to_shape((b * h * w, space.dim, *repeat)).unwrap();
                split.permuted_axes([0, 2, 1]).to_shape((b * h * w * repeat, space.dim)).unwrap().into_owned()
            };
            let blended = match self.plan.points.iter().find(|point| point.name == space.name) {
                None => part(&last[0]),
                Some(point) => {
                    let all: Vec<Array2<f64>> = last.iter().map(part).collect();
                    let joint = ndarray::concatenate(Axis(1), &all.iter().map(Array2::view).collect::<Vec<_>>());
                    joint.unwrap().dot(&point.merge_matrix().mapv(f64::from).t())
                }
            };
            let width = blended.ncols();
            let split = blended.to_shape((b * h * w, *repeat, width)).unwrap();
            let rows = split.permuted_axes([0, 2, 1]);
            parts.push(rows.to_shape((b, h, w, width * repeat)).unwrap().into_owned());
            from += length;
        }
        let whole = ndarray::concatenate(Axis(3), &parts.iter().map(Array4::view).collect::<Vec<_>>()).unwrap();
        let width = whole.shape()[3];
        if own[0].ndim() == 2 {
            whole.to_shape(IxDyn(&[b, width])).unwrap().into_owned()
        } else {
            whole.permuted_axes([0, 3, 1, 2]).into_dyn()
        }
    }
}

/// Every layer that is left.
pub fn run(refit: &mut Refit<'_>, watch: &dyn Watch) -> Result<Vec<Solved>> {
    let mut all = Vec::new();
    while refit.n_done() < refit.n_layers() {
        all.extend(refit.step(watch)?);
    }
    assert!(refit.step(watch)?.is_empty(), "nothing is left");
    Ok(all)
}

/// As `refit --rounds 2` does it.
pub const SEQUENTIAL: Task =
    Task::Weights { inputs: Inputs::Sequential, ridge: Ridge::HeldOut, rounds: 2, together: true };

/// Least squares alone, one layer after the other.
pub const fn weights(inputs: Inputs, ridge: Ridge) -> Task {
    Task::Weights { inputs, ridge, rounds: 0, together: false }
}

pub fn solution(solved: &Solved) -> Solution {
    match solved.outcome {
        Outcome::Weights(solution) => solution,
        Outcome::Scale(_) => panic!("{solved:?}"),
    }
}

/// Whether a layer's weights were solved: what is exact already is only solved again, in rounds.
pub fn was_solved(solved: &Solved) -> bool {
    solution(solved).before > 1e-6
}

/// Every value of a network, the input too, in f64.
pub fn values(model: &Model, images: &Array4<f32>) -> BTreeMap<String, ArrayD<f64>> {
    let network = Network::new(model, Device::Cpu).unwrap();
    let mut values = BTreeMap::from([(model.graph.input.name.clone(), images.mapv(f64::from).into_dyn())]);
    let seen = network.observe(network.input(images).unwrap(), |name, value| {
        values.insert(name.to_owned(), to_array(value)?.mapv(f64::from));
        Ok(())
    });
    seen.unwrap();
    values
}

/// Second moments of what every layer of the models reads, by module.
pub fn grams(merge: &Merge, batches: &dyn ImageBatches, joint: bool) -> BTreeMap<String, Gram> {
    let networks: Vec<Network> = merge.models.iter().map(|model| Network::new(model, Device::Cpu).unwrap()).collect();
    let networks: Vec<&Network> = networks.iter().collect();
    let nodes = networks[0].graph().nodes.iter();
    let grams: BTreeMap<String, Gram> = nodes
        .filter_map(|node| {
            let (f, n) = (patch_size(&node.op)?, networks.len());
            let own = || Gram::Own(vec![Moments::zeros(f); n]);
            Some((node.module.clone()?, if joint { Gram::Joint(Moments::zeros(n * f)) } else { own() }))
        })
        .collect();
    let mut totals = Collected { grams, ..Collected::default() };
    let all = 0..batches.n_batches();
    let done = accumulate::measure(&networks, &[], &mut totals, None, batches, all, &Unwatched).unwrap();
    assert_eq!(done, batches.n_batches());
    totals.grams
}

/// One per output.
pub fn logits(model: &Model, images: &Array4<f32>) -> Vec<ArrayD<f64>> {
    let values = values(model, images);
    model.graph.outputs.iter().map(|output| values[output].clone()).collect()
}

/// Largest difference of the heads' logits from their own models', relative to the logits' size.
pub fn logit_error(merged: &Model, models: &[&Model], images: &Array4<f32>) -> f64 {
    let own: Vec<ArrayD<f64>> = models.iter().flat_map(|model| logits(model, images)).collect();
    let found = logits(merged, images);
    assert_eq!(found.len(), own.len());
    found.iter().zip(&own).map(|(found, own)| relative(found, own)).fold(0.0, f64::max)
}

/// Largest difference in units of the largest number expected.
pub fn relative(found: &ArrayD<f64>, expected: &ArrayD<f64>) -> f64 {
    assert_eq!(found.shape(), expected.shape());
    let largest = |x: &mut dyn Iterator<Item = f64>| x.fold(0.0_f64, |m, x| m.max(x.abs()));
    assert!(found.iter().all(|x| x.is_finite()));
    let scale = largest(&mut expected.iter().copied()).max(f64::MIN_POSITIVE);
    largest(&mut found.iter().zip(expected).map(|(x, y)| x - y)) / scale
}

/// The largest difference of two networks' parameters, relative to the largest number of their layer: a bias is what is
/// left of a mean and may be much smaller than what it is computed from.
pub fn weights_differ(found: &Model, expected: &Model) -> f64 {
    assert!(found.weights.keys().eq(expected.weights.keys()));
    let module = |name: &str| name.rsplit_once('.').unwrap().0.to_owned();
    let mut sizes: BTreeMap<String, f64> = BTreeMap::new();
    for (name, tensor) in &expected.weights {
        let size = sizes.entry(module(name)).or_insert(f64::MIN_POSITIVE);
        *size = tensor.iter().fold(*size, |m, x| m.max(f64::from(x.abs())));
    }
    let differ = |(name, tensor): (&String, &ArrayD<f32>)| {
        let pairs = tensor.iter().zip(&expected.weights[name]);
        pairs.map(|(x, y)| f64::from((x - y).abs())).fold(0.0, f64::max) / sizes[&module(name)]
    };
    found.weights.iter().map(differ).fold(0.0, f64::max)
}

/// The merged network as it is before anything is solved, with a bias of zero where it has none.
pub fn unsolved(merge: &Merge, like: &Model) -> Model {
    let mut before = merge.grafted.model.clone();
    for (name, tensor) in &like.weights {
        before.weights.entry(name.clone()).or_insert_with(|| ArrayD::zeros(tensor.raw_dim()));
    }
    before
}

fn features_last(value: &ArrayD<f64>) -> Array4<f64> {
    match value.ndim() {
        4 => value.clone().into_dimensionality::<Ix4>().unwrap().permuted_axes([0, 2, 3, 1]),
        _ => value.clone().into_dimensionality::<Ix2>().unwrap().insert_axis(Axis(1)).insert_axis(Axis(1)),
    }
}

/// `[samples, C]`, positions as samples.
pub fn samples(value: &ArrayD<f64>) -> Array2<f64> {
    let last = features_last(value);
    let (b, h, w, c) = last.dim();
    Array2::from_shape_vec((b * h * w, c), last.iter().copied().collect()).unwrap()
}

/// What the builders do not make: batch normalisation that cannot be folded, depthwise convolution, concatenations, of
/// the input too, Flatten of several positions, a sum of three.
pub fn oddities(seed: u64) -> Model {
    let conv = |i, o, kernel, groups| Op::Conv2d {
        in_channels: i,
        out_channels: o,
        window: Window::square(kernel, 1, kernel / 2),
        groups,
        bias: groups > 1,
    };
    let linear = |i, o| Op::Linear { in_features: i, out_features: o, bias: false };
    let nodes: [(&str, Op, &[&str]); 17] = [
        ("a", conv(2, 4, 3, 1), &["input"]),
        ("a.relu", Op::Relu, &["a"]),
        ("b", conv(2, 5, 1, 1), &["input"]),
        ("ab", Op::Concat, &["a.relu", "b"]),
        ("ab.bn", Op::BatchNorm2d { num_features: 9, eps: 1e-3 }, &["ab"]),
        ("depthwise", conv(9, 9, 3, 9), &["ab.bn"]),
        ("abx", Op::Concat, &["depthwise", "input"]),
        ("c", conv(11, 6, 3, 1), &["abx"]),
        ("c.relu", Op::Relu, &["c"]),
        ("d", conv(6, 6, 1, 1), &["c.relu"]),
        ("e", conv(6, 6, 3, 1), &["c.relu"]),
        ("sum", Op::Add, &["d", "c.relu", "e"]),
        ("pool", Op::AvgPool2d { window: Window::square(2, 2, 0), count_include_pad: true }, &["sum"]),
        ("flatten", Op::Flatten, &["pool"]),
        ("hidden", linear(6 * 4, 7), &["flatten"]),
        ("hidden.relu", Op::Relu, &["hidden"]),
        ("head", linear(7, 3), &["hidden.relu"]),
    ];
    super::model(super::graph([2, 4, 4], &nodes, &["head"]), seed)
}

/// A convolution over whole images and Linear layers without anything between: logits are an affine function of the
/// image.
pub fn linear_network(seed: u64, image: [usize; 3], kernel: usize) -> Model {
    let [c, h, w] = image;
    let linear = |i, o| Op::Linear { in_features: i, out_features: o, bias: o != 7 };
    let window = Window::square(kernel, 1, 0);
    let conv = Op::Conv2d { in_channels: c, out_channels: 8, window, groups: 1, bias: true };
    let [out_h, out_w] = window.output([h, w]).unwrap();
    let nodes: [(&str, Op, &[&str]); 5] = [
        ("conv", conv, &["input"]),
        ("flatten", Op::Flatten, &["conv"]),
        ("hidden", linear(8 * out_h * out_w, 7), &["flatten"]),
        ("last", linear(7, 9), &["hidden"]),
        ("head", linear(9, 4), &["last"]),
    ];
    super::model(super::graph(image, &nodes, &["head"]), seed)
}

/// Images in batches of so many.
pub fn batches(images: &Array4<f32>, size: usize) -> InMemory {
    InMemory::new(images.clone(), size)
}

/// Room beyond memory, in memory; it counts what went through it.
#[derive(Default)]
pub struct Shelf {
    slots: Mutex<BTreeMap<usize, Vec<f32>>>,
    pub n_written: std::sync::atomic::AtomicUsize,
}

impl Scratch for Shelf {
    fn write(&self, slot: usize, values: &[f32]) -> Result<(), Box<dyn Error + Send + Sync>> {
        self.n_written.fetch_add(values.len(), std::sync::atomic::Ordering::Relaxed);
        self.slots.lock().unwrap().insert(slot, values.to_vec());
        Ok(())
    }

    fn read(&self, slot: usize, values: &mut [f32]) -> Result<(), Box<dyn Error + Send + Sync>> {
        let slots = self.slots.lock().unwrap();
        let kept = slots.get(&slot).ok_or("nothing is kept there")?;
        if kept.len() != values.len() {
            return Err(format!("{} numbers are kept there, not {}", kept.len(), values.len()).into());
        }
        values.copy_from_slice(kept);
        Ok(())
    }
}
