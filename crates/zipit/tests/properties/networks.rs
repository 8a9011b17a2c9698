//! Random networks and copies of them with permuted features.

use ndarray::{ArrayD, Axis, IxDyn};
use rand::{RngExt, SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;
use zipit::graph::{Graph, Input, Node, Op, Segment, Spaces, Window};
use zipit::{Model, Preprocess, Task};

/// What the builders do not make: a depthwise convolution, a concatenation, a Flatten of several positions, and a
/// convolution that reads and writes the same space.
pub fn oddities() -> Graph {
    let conv = |i, o, kernel, groups| Op::Conv2d {
        in_channels: i,
        out_channels: o,
        window: Window::square(kernel, 1, kernel / 2),
        groups,
        bias: true,
    };
    let nodes = [
        ("a", conv(2, 5, 3, 1), "x"),
        ("b", conv(2, 6, 1, 1), "x"),
        ("ab", Op::Concat, "a b"),
        ("depthwise", conv(11, 11, 3, 11), "ab"),
        ("bn", Op::BatchNorm2d { num_features: 11, eps: 1e-5 }, "depthwise"),
        ("relu", Op::Relu, "bn"),
        ("c", conv(11, 7, 3, 1), "relu"),
        ("square", conv(7, 7, 1, 1), "c"),
        ("add", Op::Add, "c square"),
        ("flatten", Op::Flatten, "add"),
        ("hidden", Op::Linear { in_features: 7 * 4, out_features: 9, bias: true }, "flatten"),
        ("head", Op::Linear { in_features: 9, out_features: 3, bias: false }, "hidden"),
    ];
    Graph {
        arch: "oddities".into(),
        input: Input { name: "x".into(), shape: vec![2, 2, 2] },
        nodes: nodes
            .into_iter()
            .map(|(name, op, inputs)| Node {
                name: name.into(),
                module: (!op.params().is_empty()).then(|| name.into()),
                op,
                inputs: inputs.split(' ').map(Into::into).collect(),
                params: std::collections::BTreeMap::new(),
            })
            .collect(),
        outputs: vec!["head".into()],
    }
}

/// Random weights.
pub fn model(graph: &Graph, seed: u64) -> Model {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let shapes = graph.shapes().expect("a valid graph");
    let mut weights = zipit::StateDict::new();
    for (name, param) in graph.params() {
        let fan_in: usize = param.shape[1..].iter().product();
        let bound = (3.0 / fan_in as f32).sqrt();
        let range = match param.name {
            "running_var" => 0.5..1.5,
            "weight" if param.shape.len() == 1 => 0.5..1.5,
            "weight" => -bound..bound,
            _ => -0.5..0.5,
        };
        weights.insert(name, ArrayD::from_shape_simple_fn(IxDyn(&param.shape), || rng.random_range(range.clone())));
    }
    let classes = (0..shapes[graph.outputs[0].as_str()][0]).map(|c| format!("class {c}")).collect();
    let [c, h, w] = graph.input.shape[..] else { panic!("an image") };
    let preprocess = Preprocess::new([h, w], vec![0.5; c], vec![0.25; c]);
    Model { graph: graph.clone(), weights, tasks: vec![Task { name: "task".into(), classes }], preprocess, joint: None }
}

/// For every space a random order of its features; fixed ones stay.
pub fn orders(spaces: &Spaces, seed: u64) -> Vec<Vec<usize>> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let order = |space: &zipit::graph::Space| {
        let mut order: Vec<usize> = (0..space.dim).collect();
        if space.fixed.is_none() {
            order.shuffle(&mut rng);
        }
        order
    };
    spaces.spaces.iter().map(order).collect()
}

/// The same function with other features in other places: feature j of the copy is feature `orders[space][j]`.
pub fn permuted(model: &Model, spaces: &Spaces, orders: &[Vec<usize>]) -> Model {
    let positions = |axis: &[Segment]| -> Vec<usize> {
        let mut positions = Vec::new();
        let mut offset = 0;
        for segment in axis {
            for &origin in &orders[segment.space] {
                positions.extend((0..segment.repeat).map(|j| offset + origin * segment.repeat + j));
            }
            offset += orders[segment.space].len() * segment.repeat;
        }
        positions
    };
    let mut copy = model.clone();
    for node in &model.graph.nodes {
        let mixes = node.op.is_weight_layer() && !matches!(node.op, Op::Conv2d { groups, .. } if groups > 1);
        for param in node.op.params() {
            let module = node.module.as_ref().expect("a node with parameters has a module");
            let tensor = copy.weights.get_mut(&format!("{module}.{}", param.name)).expect("every parameter");
            *tensor = tensor.select(Axis(0), &positions(&spaces.axes[&node.name]));
            if mixes && param.name == "weight" {
                *tensor = tensor.select(Axis(1), &positions(&spaces.axes[&node.inputs[0]]));
            }
        }
    }
    copy
}
