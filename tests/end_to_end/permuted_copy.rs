//! Proof obligation: zip of a network with a randomly permuted copy of itself gives back its function.

use crate::support::{max_difference, network_and_permuted_copy, tensors};
use zipit::Graph;
use zipit::graph::{Arch, ArchSpec};

/// |Δlogit| allowed, for logits of order one.
const TOLERANCE: f32 = 1e-4;

/// Merges a network with its permuted copy and compares every head's logits with the network's.
fn gives_the_function_back(graph: &Graph, match_flags: &str) {
    let place = network_and_permuted_copy(graph, 400);
    place.ok("collect", "a.safetensors b.safetensors --data data -o stats.h5");
    place.ok("match", &format!("stats.h5 {match_flags} -o plan.bin"));
    place.ok("apply", "plan.bin a.safetensors b.safetensors -o merged.safetensors");
    place.ok("eval", "a.safetensors merged.safetensors --data data --logits logits.safetensors");
    let logits = tensors(&place, "logits.safetensors");
    let original = &logits["a/first"];
    let size = original.iter().fold(0f32, |m, x| m.max(x.abs()));
    assert!(size > 0.05, "logits of order one are compared, these are at most {size}");
    for head in ["merged/first", "merged/second"] {
        let difference = max_difference(original, &logits[head]);
        assert!(difference <= TOLERANCE, "{} {match_flags}: {head} is off by {difference}", graph.arch);
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
