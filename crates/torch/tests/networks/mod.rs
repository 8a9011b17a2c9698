//! Small random networks and images.
#![allow(dead_code, clippy::unwrap_used)]

pub mod merging;

use ndarray::{Array4, ArrayD, IxDyn};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::sync::atomic::{AtomicU64, Ordering};
use zipit::graph::{ArchSpec, Input, Node, Op, arch::Arch};
use zipit::watch::Watch;
use zipit::{Graph, Model, Preprocess, Task};

/// A model of `graph` with random weights, BatchNorm statistics and affine parameters, too.
pub fn model(graph: Graph, seed: u64) -> Model {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut weights = zipit_torch::initialise::initialise(&graph, seed).unwrap();
    for (name, tensor) in &mut weights {
        if tensor.ndim() == 1 {
            let lowest = if name.ends_with("running_var") || name.ends_with("weight") { 0.5 } else { -0.2 };
            tensor.mapv_inplace(|_| lowest + rng.random::<f32>() * 0.4);
        }
    }
    let shapes = graph.shapes().unwrap();
    let tasks = graph
        .outputs
        .iter()
        .map(|output| Task {
            name: output.clone(),
            classes: (0..shapes[output.as_str()].iter().product::<usize>()).map(|c| format!("class {c}")).collect(),
        })
        .collect();
    let &[c, h, w] = &graph.input.shape[..] else { panic!("images") };
    let preprocess = Preprocess::new([h, w], vec![0.5; c], vec![0.25; c]);
    let model = Model { weights, tasks, preprocess, graph, joint: None };
    model.validate().unwrap();
    model
}

/// A quarter-width ResNet-20 on 8×8 images.
pub fn resnet20(seed: u64) -> Model {
    model(ArchSpec::new(Arch::ResNet20, 0.25, 1, [8, 8], 3).build().unwrap(), seed)
}

/// Images of N(0, 1)-like noise.
pub fn images(n: usize, shape: [usize; 3], seed: u64) -> Array4<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    Array4::from_shape_simple_fn((n, shape[0], shape[1], shape[2]), || rng.random::<f32>() * 2.0 - 1.0)
}

/// A graph whose nodes are `(name, op, inputs)`; a node with parameters is its own module.
pub fn graph(shape: [usize; 3], nodes: &[(&str, Op, &[&str])], outputs: &[&str]) -> Graph {
    Graph {
        arch: "test".into(),
        input: Input { name: "input".into(), shape: shape.to_vec() },
        nodes: nodes
            .iter()
            .map(|(name, op, inputs)| Node {
                name: (*name).into(),
                op: op.clone(),
                inputs: inputs.iter().map(|&i| i.into()).collect(),
                module: (!op.params().is_empty()).then(|| (*name).into()),
                params: std::collections::BTreeMap::new(),
            })
            .collect(),
        outputs: outputs.iter().map(|&o| o.into()).collect(),
    }
}

/// An array of any shape.
pub fn array(shape: &[usize], values: &[f32]) -> ArrayD<f32> {
    ArrayD::from_shape_vec(IxDyn(shape), values.to_vec()).unwrap()
}

/// Runs `work` in a pool of so many threads.
pub fn with_threads<T: Send>(n: usize, work: impl FnOnce() -> T + Send) -> T {
    rayon::ThreadPoolBuilder::new().num_threads(n).build().unwrap().install(work)
}

/// Interrupts once so many images were seen.
pub struct StopAfter {
    pub limit: u64,
    seen: AtomicU64,
}

impl StopAfter {
    pub fn new(limit: u64) -> Self {
        Self { limit, seen: AtomicU64::new(0) }
    }

    pub fn seen(&self) -> u64 {
        self.seen.load(Ordering::SeqCst)
    }
}

impl Watch for StopAfter {
    fn advance(&self, n: u64) {
        self.seen.fetch_add(n, Ordering::SeqCst);
    }

    fn interrupted(&self) -> bool {
        self.seen() >= self.limit
    }
}
