//! Random networks, copies of them with permuted features, and plans that are right by construction.

use crate::graph::{Arch, ArchSpec, Graph, Input, Node, Op, Segment, Spaces, VggHead, Window};
use crate::matching::Method;
use crate::plan::{Plan, PlanSettings, PointPlan, PointSummary};
use crate::unmerge::UnmergeRule;
use crate::{Model, Preprocess, Task};
use ndarray::{Array2, ArrayD, Axis, IxDyn};
use rand::{RngExt, SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;

pub fn rng(seed: u64) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(seed)
}

/// Small networks of every kind.
pub fn zoo() -> Vec<Graph> {
    let spec = |arch, width, size| ArchSpec::new(arch, width, 2, [size; 2], 3);
    let three = ArchSpec { projection_kernel: 3, ..spec(Arch::ResNet20, 0.25, 8) };
    let vgg = |head, size| ArchSpec { vgg_head: head, ..spec(Arch::Vgg11Bn, 0.07, size) };
    let mut graphs: Vec<Graph> = [
        spec(Arch::ResNet20, 0.3, 8),
        three,
        spec(Arch::ResNet18, 0.1, 32),
        spec(Arch::ResNet50, 0.05, 32),
        vgg(VggHead::Linear { pool: None }, 64),
        vgg(VggHead::Linear { pool: Some([1, 2]) }, 32),
        vgg(VggHead::Mlp { hidden: 6 }, 32),
    ]
    .iter()
    .map(|spec| spec.build().unwrap())
    .collect();
    graphs.push(oddities());
    graphs
}

/// Everything the builders do not make: batch normalisation of the input, depthwise convolution, concatenations of
/// concatenations and of the input, average pooling, a dead end, Linear without bias, two outputs.
pub fn oddities() -> Graph {
    let conv = |i, o, kernel, groups| Op::Conv2d {
        in_channels: i,
        out_channels: o,
        window: Window::square(kernel, 1, kernel / 2),
        groups,
        bias: groups > 1,
    };
    let bn = |c| Op::BatchNorm2d { num_features: c, eps: 1e-3 };
    let pool = Op::AvgPool2d { window: Window::square(3, 2, 1) };
    let linear = |i, o, bias| Op::Linear { in_features: i, out_features: o, bias };
    let nodes = [
        ("bn0", bn(2), "x"),
        ("a", conv(2, 4, 3, 1), "bn0"),
        ("a.relu", Op::Relu, "a"),
        ("b", conv(2, 5, 1, 1), "x"),
        ("ab", Op::Concat, "a.relu b"),
        ("ab.bn", bn(9), "ab"),
        ("depthwise", conv(9, 9, 3, 9), "ab.bn"),
        ("abx", Op::Concat, "depthwise x"),
        ("dead", conv(11, 3, 1, 1), "abx"),
        ("c", conv(11, 6, 3, 1), "abx"),
        ("c.relu", Op::Relu, "c"),
        ("abc", Op::Concat, "c.relu ab.bn"),
        ("pool", pool, "abc"),
        ("abc.flatten", Op::Flatten, "pool"),
        ("hidden", linear(15 * 4, 7, false), "abc.flatten"),
        ("hidden.relu", Op::Relu, "hidden"),
        ("head", linear(7, 3, true), "hidden.relu"),
        ("c.flatten", Op::Flatten, "c.relu"),
        ("early", linear(6 * 16, 2, false), "c.flatten"),
    ];
    Graph {
        arch: "oddities".into(),
        input: Input { name: "x".into(), shape: vec![2, 4, 4] },
        nodes: nodes
            .into_iter()
            .map(|(name, op, inputs)| Node {
                name: name.into(),
                module: (!op.params().is_empty()).then(|| format!("net.{name}")),
                op,
                inputs: inputs.split(' ').map(Into::into).collect(),
            })
            .collect(),
        outputs: vec!["head".into(), "early".into()],
    }
}

/// Random weights that keep values of order one.
pub fn model(graph: &Graph, seed: u64) -> Model {
    let mut rng = rng(seed);
    let shapes = graph.shapes().unwrap();
    let weights = graph
        .params()
        .into_iter()
        .map(|(name, param)| {
            let fan_in: usize = param.shape[1..].iter().product();
            let bound = (3.0 / fan_in as f32).sqrt();
            let range = match param.name {
                "running_var" => 0.5..1.5,
                "weight" if param.shape.len() == 1 => 0.5..1.5,
                "weight" => -bound..bound,
                _ => -0.5..0.5,
            };
            (name, ArrayD::from_shape_simple_fn(IxDyn(&param.shape), || rng.random_range(range.clone())))
        })
        .collect();
    let tasks = graph
        .outputs
        .iter()
        .map(|output| {
            let classes = (0..shapes[output.as_str()][0]).map(|c| format!("class {c}")).collect();
            Task { name: format!("task {output}"), classes }
        })
        .collect();
    let [c, h, w] = graph.input.shape[..] else { panic!("an image") };
    let preprocess = Preprocess { size: [h, w], resize: None, mean: vec![0.5; c], std: vec![0.25; c] };
    Model { graph: graph.clone(), weights, tasks, preprocess, joint: None }
}

pub fn image(graph: &Graph, seed: u64) -> ArrayD<f64> {
    let mut rng = rng(seed);
    ArrayD::from_shape_simple_fn(IxDyn(&graph.input.shape), || rng.random_range(-1.0..1.0))
}

/// For every space, where each feature of a copy comes from: feature j is feature `origin[j]` of the original.
pub type Origins = Vec<Vec<usize>>;

/// Nothing moves.
pub fn unmoved(spaces: &Spaces) -> Origins {
    spaces.spaces.iter().map(|s| (0..s.dim).collect()).collect()
}

/// A random permutation of every free space.
pub fn permutation(spaces: &Spaces, seed: u64) -> Origins {
    let mut rng = rng(seed);
    let mut origins = unmoved(spaces);
    for (origin, space) in origins.iter_mut().zip(&spaces.spaces) {
        if space.fixed.is_none() {
            origin.shuffle(&mut rng);
        }
    }
    origins
}

/// Some features of every free space become copies of others.
pub fn duplication(spaces: &Spaces, seed: u64) -> Origins {
    let mut rng = rng(seed);
    let mut origins = unmoved(spaces);
    for (origin, space) in origins.iter_mut().zip(&spaces.spaces) {
        if space.fixed.is_none() {
            let kept = rng.random_range(1..=space.dim);
            origin.iter_mut().skip(kept).for_each(|j| *j = rng.random_range(0..kept));
        }
    }
    origins
}

/// Positions along an axis after every space's features moved.
fn moved(axis: &[Segment], origins: &Origins) -> Vec<usize> {
    let mut positions = Vec::new();
    let mut offset = 0;
    for segment in axis {
        for &origin in &origins[segment.space] {
            positions.extend((0..segment.repeat).map(|j| offset + origin * segment.repeat + j));
        }
        offset += origins[segment.space].len() * segment.repeat;
    }
    positions
}

/// What features are made of moves; with `readers`, so do the weights that read them (a permutation then keeps the
/// function).
fn rewire(model: &Model, spaces: &Spaces, origins: &Origins, readers: bool) -> Model {
    let mut copy = model.clone();
    for node in &model.graph.nodes {
        for param in node.op.params() {
            let tensor = copy.weights.get_mut(&format!("{}.{}", node.module.as_ref().unwrap(), param.name)).unwrap();
            *tensor = tensor.select(Axis(0), &moved(&spaces.axes[&node.name], origins));
            if node.op.mixes() && readers && param.name == "weight" {
                *tensor = tensor.select(Axis(1), &moved(&spaces.axes[&node.inputs[0]], origins));
            }
        }
    }
    copy
}

pub fn permuted(model: &Model, spaces: &Spaces, origins: &Origins) -> Model {
    rewire(model, spaces, origins, true)
}

/// A network in which feature j equals feature `origin[j]` everywhere.
pub fn duplicated(model: &Model, spaces: &Spaces, origins: &Origins) -> Model {
    rewire(model, spaces, origins, false)
}

/// A plan over the free spaces that `chosen` accepts; `label(space, i, j)` says what model i's feature j is.
pub fn plan(
    graph: &Graph,
    n_models: usize,
    mut chosen: impl FnMut(&str) -> bool,
    mut label: impl FnMut(usize, usize, usize) -> usize,
) -> Plan {
    let spaces = graph.spaces().unwrap();
    let points = graph
        .merge_points(&spaces)
        .into_iter()
        .filter(|point| chosen(&point.name))
        .map(|point| {
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
            };
            PointPlan { name: point.name, assignment, n_groups, merge: None, unmerge: None, summary }
        })
        .collect();
    Plan { n_models, settings: PlanSettings { method: Method::Identity, unmerge: UnmergeRule::Pinv }, points }
}

pub fn identity(graph: &Graph, n_models: usize, chosen: impl FnMut(&str) -> bool) -> Plan {
    plan(graph, n_models, chosen, |_, _, j| j)
}

/// Makes every unmerge dense without changing what it gives back: where two groups always hold the same value
/// (`kind` of a space's group, by its lowest joint feature), some of one is exchanged for the other.
pub fn thicken(plan: &mut Plan, seed: u64, mut kind: impl FnMut(&str, usize) -> usize) {
    let mut rng = rng(seed);
    plan.settings.unmerge = UnmergeRule::Covariance { ridge: 0.0 };
    for point in &mut plan.points {
        let member = |g: usize| point.assignment.iter().position(|&own| own as usize == g).unwrap();
        let kinds: Vec<usize> = (0..point.n_groups).map(|g| kind(&point.name, member(g))).collect();
        let mut u = Array2::<f32>::zeros((point.assignment.len(), point.n_groups));
        let mut seen = vec![None; point.n_groups];
        for (k, &group) in point.assignment.iter().enumerate() {
            let group = group as usize;
            u[[k, group]] = 1.0;
            // The exchange within one group sums to zero, so that M U = I.
            if let (Some(first), Some(twin)) =
                (seen[group].replace(k), (0..point.n_groups).find(|&g| g != group && kinds[g] == kinds[group]))
            {
                let share = rng.random_range(-0.5..0.5_f32);
                for (row, share) in [(k, share), (first, -share)] {
                    u[[row, group]] += share;
                    u[[row, twin]] -= share;
                }
            }
        }
        point.unmerge = Some(u);
    }
}
