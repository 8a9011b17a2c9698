//! Proof obligation: zip of a network with a randomly permuted copy of itself gives back its function.

use crate::support::{max_difference, model_and_permuted_copy, network_and_permuted_copy, tensors};
use zipit::graph::{Arch, ArchSpec, Input, Node, Op, Window};
use zipit::{Graph, Model};
use zipit_tests::{Workplace, random_model};

/// |Δlogit| allowed, for logits of order one.
const TOLERANCE: f32 = 1e-4;

/// Merges a network with its permuted copy and compares every head's logits with the network's.
fn gives_the_function_back(graph: &Graph, match_flags: &str) {
    let place = network_and_permuted_copy(graph, 400);
    place.ok("collect", "a.safetensors b.safetensors --data data -o stats.h5");
    place.ok("match", &format!("stats.h5 {match_flags} -o plan.bin"));
    place.ok("apply", "plan.bin a.safetensors b.safetensors -o merged.safetensors");
    let (difference, _) = off(&place);
    assert!(difference <= TOLERANCE, "{} {match_flags}: off by {difference}", graph.arch);
}

/// How far the logits of `merged` are from those of `a`, and the largest of these.
fn off(place: &Workplace) -> (f32, f32) {
    place.ok("eval", "a.safetensors merged.safetensors --data data --logits logits.safetensors --force");
    let logits = tensors(place, "logits.safetensors");
    let original = &logits["a/first"];
    let size = original.iter().fold(0f32, |m, x| m.max(x.abs()));
    assert!(size > 0.05, "logits of order one are compared, these are at most {size}");
    let heads = ["merged/first", "merged/second"];
    (heads.map(|head| max_difference(original, &logits[head])).into_iter().fold(0.0, f32::max), size)
}

/// Two convolutions with a BatchNorm and ReLU between them, and a classifier.
fn two_layers() -> Graph {
    let conv =
        |i, o, bias| Op::Conv2d { in_channels: i, out_channels: o, window: Window::square(3, 1, 1), groups: 1, bias };
    let nodes = [
        ("c1", conv(1, 16, true), "x"),
        ("b1", Op::BatchNorm2d { num_features: 16, eps: 1e-5 }, "c1"),
        ("relu", Op::Relu, "b1"),
        ("c2", conv(16, 12, true), "relu"),
        ("relu_1", Op::Relu, "c2"),
        ("mean", Op::Mean, "relu_1"),
        ("fc", Op::Linear { in_features: 12, out_features: 3, bias: true }, "mean"),
    ];
    let node = |(name, op, input): (&str, Op, &str)| Node {
        module: (!op.params().is_empty()).then(|| name.to_owned()),
        ..Node::new(name, op, vec![input.to_owned()])
    };
    Graph {
        arch: "two layers".into(),
        input: Input { name: "x".into(), shape: vec![1, 12, 12] },
        nodes: nodes.into_iter().map(node).collect(),
        outputs: vec!["fc".into()],
    }
}

/// Of every BatchNorm's channels, `still(j)` of each 16 gives a constant the place of what comes in.
fn with_constants(graph: &Graph, still: impl Fn(usize) -> Option<f32>) -> Model {
    let mut model = random_model(graph, 1, "first", &["0", "1", "2"]);
    for node in graph.nodes.iter().filter(|node| matches!(node.op, Op::BatchNorm2d { .. })) {
        let n = model.weights[&node.tensor("weight")].len();
        for j in 0..n {
            if let Some(constant) = still(j) {
                model.weights.get_mut(&node.tensor("weight")).unwrap()[j] = 0.0;
                model.weights.get_mut(&node.tensor("bias")).unwrap()[j] = constant;
            }
        }
    }
    model
}

/// By what matters to the logits, averaged by it or one of each group kept; `apply` alone, and `refit` in rounds.
fn importance_gives_it_back(place: &Workplace) {
    place.ok("collect", "a.safetensors b.safetensors --data data --importance -o important.h5");
    for how in ["--unmerge covariance", "--unmerge pinv", "--method select"] {
        place.ok("match", &format!("important.h5 {how} -o important.bin --force"));
        for stage in ["apply important.bin", "refit --data data important.bin"] {
            let (binary, args) = stage.split_once(' ').unwrap();
            place.ok(binary, &format!("{args} a.safetensors b.safetensors -o merged.safetensors --force"));
            let (difference, size) = off(place);
            assert!(difference <= TOLERANCE * size, "{how}, {binary}: off by {difference} of {size}");
        }
    }
}

/// By every method that groups features, and by CCA; `apply` alone and `refit`.
fn every_method_gives_it_back(model: &Model, counts: (usize, usize)) {
    let place = model_and_permuted_copy(model, 240);
    importance_gives_it_back(&place);
    place.ok("collect", "a.safetensors b.safetensors --data data -o stats.h5");
    for method in ["ward", "zip", "average", "kmeans", "cca", "optimal", "permute", "weight", "mudsc"] {
        // These two compare weights.
        let models = if ["weight", "mudsc"].contains(&method) { "--models a.safetensors b.safetensors" } else { "" };
        let flags = format!("stats.h5 --method {method} {models} -o plan.bin --format json --force");
        let table = place.ok("match", &flags);
        let table: serde_json::Value = serde_json::from_str(&table).unwrap();
        let sum = |what: &str| -> u64 {
            table[1].as_array().unwrap().iter().map(|point| point[2][what].as_u64().unwrap()).sum()
        };
        assert_eq!((sum("dead"), sum("constant")), (counts.0 as u64, counts.1 as u64), "{method}");
        let lost = |point: &serde_json::Value| point[2]["reconstruction_error"].as_f64().unwrap();
        assert!(table[1].as_array().unwrap().iter().all(|point| lost(point) < 1e-5), "{method}: {table}");
        let mut stages = vec!["apply plan.bin a.safetensors b.safetensors -o merged.safetensors --force"];
        if ["ward", "cca"].contains(&method) {
            stages.push("refit plan.bin a.safetensors b.safetensors --data data -o merged.safetensors --force");
        }
        for stage in stages {
            let (binary, args) = stage.split_once(' ').unwrap();
            place.ok(binary, args);
            let (difference, size) = off(&place);
            assert!(difference <= TOLERANCE * size, "{method}, {binary}: off by {difference} of {size}");
        }
    }
}

#[test]
fn dead_and_constant_features_take_no_place() {
    let graph = two_layers();
    for n in [1, 4] {
        every_method_gives_it_back(&with_constants(&graph, |j| (j < n).then_some(-1.0)), (2 * n, 0));
    }
    // Borders are padded with zeros, where a constant is none.
    let mixed = |j: usize| [None, Some(0.7), Some(-1.0), Some(2.0), None, None, Some(0.2), None][j % 8];
    every_method_gives_it_back(&with_constants(&graph, mixed), (4, 12));
}

#[test]
fn a_residual_network_with_constant_channels() {
    let graph = spec(Arch::ResNet20, 0.5, 1, 12).build().unwrap();
    let mixed = |j: usize| [None, Some(0.7), Some(-1.0), None, None][j % 5];
    let model = with_constants(&graph, mixed);
    let place = model_and_permuted_copy(&model, 300);
    importance_gives_it_back(&place);
    place.ok("collect", "a.safetensors b.safetensors --data data -o stats.h5");
    for method in ["ward", "zip", "average", "permute"] {
        place.ok("match", &format!("stats.h5 --method {method} --unmerge pinv -o plan.bin --force"));
        place.ok("apply", "plan.bin a.safetensors b.safetensors -o merged.safetensors --force");
        let (difference, size) = off(&place);
        assert!(difference <= TOLERANCE * size, "{method}: off by {difference} of {size}");
    }
    place.ok("refit", "plan.bin a.safetensors b.safetensors --data data -o merged.safetensors --force");
    let (difference, size) = off(&place);
    assert!(difference <= TOLERANCE * size, "refit: off by {difference} of {size}");
}

#[test]
fn by_what_matters_to_the_logits() {
    for graph in [
        spec(Arch::ResNet20, 0.25, 1, 12).build().unwrap(),
        spec(Arch::Vgg11Bn, 0.125, 3, 32).build().unwrap(),
        spec(Arch::ResNet50, 0.125, 3, 32).build().unwrap(),
    ] {
        importance_gives_it_back(&network_and_permuted_copy(&graph, 400));
    }
}

#[test]
fn a_small_variance_about_a_large_mean() {
    let graph = two_layers();
    for mean in [100.0, 250.0, 1000.0] {
        let mut model = random_model(&graph, 1, "first", &["0", "1", "2"]);
        model.weights.get_mut("b1.weight").unwrap().fill(0.3);
        for j in (0..16).step_by(2) {
            for mut kernel in model.weights.get_mut("c2.weight").unwrap().outer_iter_mut() {
                let mut kernel = kernel.index_axis_mut(ndarray::Axis(0), j);
                let share = kernel.sum() / 9.0;
                kernel -= share;
            }
            model.weights.get_mut("b1.bias").unwrap()[j] = mean;
        }
        let place = model_and_permuted_copy(&model, 240);
        place.ok("collect", "a.safetensors b.safetensors --data data -o stats.h5");
        place.ok("match", "stats.h5 -o plan.bin");
        for stage in
            ["apply plan.bin a.safetensors b.safetensors", "refit plan.bin a.safetensors b.safetensors --data data"]
        {
            let (binary, args) = stage.split_once(' ').unwrap();
            place.ok(binary, &format!("{args} -o merged.safetensors --force"));
            let (difference, size) = off(&place);
            assert!(difference <= TOLERANCE * size, "{mean}, {binary}: off by {difference} of {size}");
        }
    }
}

fn spec(arch: Arch, width: f64, channels: usize, size: usize) -> ArchSpec {
    ArchSpec::new(arch, width, channels, [size, size], 3)
}

#[test]
fn resnet20_by_every_matching() {
    let graph = spec(Arch::ResNet20, 0.5, 1, 28).build().unwrap();
    gives_the_function_back(&graph, "--method zip --alpha 1 --beta 0 --unmerge pinv");
    gives_the_function_back(&graph, "--method permute --unmerge pinv");
    gives_the_function_back(&graph, "--method zip --alpha 0.3 --beta 0 --unmerge covariance --ridge 1e-9");
}

#[test]
fn resnet20_merged_in_part() {
    let graph = spec(Arch::ResNet20, 0.5, 1, 28).build().unwrap();
    for which in [
        "--stop-at 7/20",
        "--stop-at layer2.1.relu",
        "--start-at 13/20",
        "--start-at layer1.1.relu --stop-at layer3.0.relu",
        "--merge-only layer1.0.relu,layer2.2.relu_1,layer3.1.relu",
    ] {
        gives_the_function_back(&graph, &format!("--method permute --unmerge pinv {which}"));
    }
}

#[test]
fn vgg11_flattened_over_several_positions() {
    let graph = spec(Arch::Vgg11Bn, 0.125, 1, 64).build().unwrap();
    let flatten = graph.nodes.iter().find(|n| n.name == "flatten").unwrap();
    assert!(graph.shapes().unwrap()[flatten.inputs[0].as_str()][1] > 1, "several positions");
    gives_the_function_back(&graph, "--method zip --alpha 1 --beta 0 --unmerge pinv");
    gives_the_function_back(&graph, "--method permute --unmerge pinv --stop-at 5/9");
}

#[test]
fn resnet18_of_torchvision() {
    let graph = spec(Arch::ResNet18, 0.25, 1, 64).build().unwrap();
    gives_the_function_back(&graph, "--method zip --alpha 1 --beta 0 --unmerge pinv");
    gives_the_function_back(&graph, "--method permute --unmerge pinv --stop-at layer2.1.relu_1");
}

#[test]
fn resnet50_bottlenecks() {
    let graph = spec(Arch::ResNet50, 0.125, 1, 64).build().unwrap();
    gives_the_function_back(&graph, "--method zip --alpha 1 --beta 0 --unmerge pinv");
}
