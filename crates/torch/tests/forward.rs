//! The interpreter on whole networks: shapes, folding, what is refused.
#![allow(clippy::unwrap_used)]

mod networks;

use ndarray::Axis;
use networks::{graph, images, model, resnet20};
use std::collections::{BTreeMap, BTreeSet};
use zipit::Model;
use zipit::fold::fold_batch_norm;
use zipit::graph::{ArchSpec, Op, Window, arch::Arch};
use zipit_torch::{Device, Network, convert::to_array};

fn small_networks() -> Vec<Model> {
    [
        (Arch::ResNet20, 0.25, [9, 8]),
        (Arch::Vgg11Bn, 0.125, [32, 32]),
        (Arch::ResNet18, 0.125, [40, 32]),
        (Arch::ResNet50, 0.0625, [32, 32]),
    ]
    .into_iter()
    .map(|(arch, width, size)| model(ArchSpec::new(arch, width, 3, size, 4).build().unwrap(), 7))
    .collect()
}

#[test]
fn values_have_the_shapes_the_graph_says() {
    for model in small_networks() {
        let shapes = model.graph.shapes().unwrap();
        let network = Network::new(&model, Device::Cpu).unwrap();
        let &[c, h, w] = &model.graph.input.shape[..] else { panic!() };
        let mut seen = BTreeSet::new();
        let outputs = network
            .observe(network.input(&images(2, [c, h, w], 1)).unwrap(), |name, value| {
                let found: Vec<usize> = value.size().iter().map(|&n| n as usize).collect();
                assert_eq!((found[0], &found[1..]), (2, &shapes[name][..]), "{}: {name}", model.graph.arch);
                seen.insert(name.to_owned());
                Ok(())
            })
            .unwrap();
        assert_eq!(seen.len(), model.graph.nodes.len());
        assert_eq!(outputs[0].size(), [2, 4]);
    }
}

#[test]
fn folding_keeps_the_function_and_the_kept_values() {
    for model in small_networks() {
        let points = model.graph.merge_points(&model.graph.spaces().unwrap());
        let keep: BTreeSet<String> = points.iter().map(|p| p.name.clone()).collect();
        let plain = Network::new(&model, Device::Cpu).unwrap();
        let folded = Network::folded(&model, &keep, Device::Cpu).unwrap();
        let n_norms = |g: &zipit::Graph| g.nodes.iter().filter(|n| matches!(n.op, Op::BatchNorm2d { .. })).count();
        assert!(n_norms(plain.graph()) > 0);
        assert_eq!(n_norms(folded.graph()), 0, "{}", model.graph.arch);
        let &[c, h, w] = &model.graph.input.shape[..] else { panic!() };
        let images = images(3, [c, h, w], 2);
        let values = |network: &Network| {
            let mut values = BTreeMap::new();
            let outputs = network
                .observe(network.input(&images).unwrap(), |name, value| {
                    if keep.contains(name) {
                        values.insert(name.to_owned(), to_array(value)?);
                    }
                    Ok(())
                })
                .unwrap();
            values.insert("logits".into(), to_array(&outputs[0]).unwrap());
            values
        };
        let (plain, folded) = (values(&plain), values(&folded));
        assert_eq!(plain.keys().collect::<Vec<_>>(), folded.keys().collect::<Vec<_>>());
        for (name, a) in &plain {
            let scale = a.iter().fold(1.0_f32, |m, x| m.max(x.abs()));
            let error = a.iter().zip(&folded[name]).fold(0.0_f32, |m, (x, y)| m.max((x - y).abs()));
            assert!(error <= 1e-5 * scale, "{}, {name}: {error} of {scale}", model.graph.arch);
        }
    }
}

/// conv `a` is kept, conv `b` has two readers, conv `c` is free, and a second BatchNorm follows the first.
#[test]
fn only_free_convolutions_are_folded() {
    let conv =
        || Op::Conv2d { in_channels: 1, out_channels: 1, window: Window::square(1, 1, 0), groups: 1, bias: false };
    let norm = || Op::BatchNorm2d { num_features: 1, eps: 1e-5 };
    let graph = graph(
        [1, 2, 2],
        &[
            ("a", conv(), &["input"]),
            ("a_bn", norm(), &["a"]),
            ("b", conv(), &["a_bn"]),
            ("b_bn", norm(), &["b"]),
            ("sum", Op::Add, &["b", "b_bn"]),
            ("c", conv(), &["sum"]),
            ("c_bn", norm(), &["c"]),
            ("c_bn2", norm(), &["c_bn"]),
            ("output", Op::Flatten, &["c_bn2"]),
        ],
        &["output"],
    );
    let model = model(graph, 3);
    let keep = BTreeSet::from(["a".to_owned()]);
    let (folded, weights) = fold_batch_norm(&model.graph, &model.weights, &keep).unwrap();
    let names: Vec<&str> = folded.nodes.iter().map(|n| n.name.as_str()).collect();
    assert_eq!(names, ["a", "a_bn", "b", "b_bn", "sum", "c_bn2", "output"]);
    folded.check_weights(&weights).unwrap();
    let images = images(2, [1, 2, 2], 4);
    let logits = |network: &Network| to_array(&network.outputs(network.input(&images).unwrap()).unwrap()[0]).unwrap();
    let plain = logits(&Network::new(&model, Device::Cpu).unwrap());
    let folded = logits(&Network::folded(&model, &keep, Device::Cpu).unwrap());
    assert!((plain - folded).iter().all(|d| d.abs() < 1e-5));
}

/// Channels-last is only a layout: one image more or less in the batch changes no other image's logits beyond rounding.
#[test]
fn images_do_not_see_each_other() {
    let network = Network::new(&resnet20(1), Device::Cpu).unwrap();
    let all = images(5, [1, 8, 8], 3);
    let logits =
        |images: &ndarray::Array4<f32>| to_array(&network.outputs(network.input(images).unwrap()).unwrap()[0]).unwrap();
    let together = logits(&all);
    for i in 0..5 {
        let alone = logits(&all.select(Axis(0), &[i]));
        assert!((&together.index_axis(Axis(0), i) - &alone.index_axis(Axis(0), 0)).iter().all(|d| d.abs() < 1e-4));
    }
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let good = resnet20(1);
    let network = Network::new(&good, Device::Cpu).unwrap();
    let message = network.input(&images(1, [3, 8, 8], 1)).unwrap_err().to_string();
    assert_eq!(message, "images are [3, 8, 8] but the network expects [1, 8, 8]");

    let mut wrong = good.clone();
    wrong.weights.remove("conv1.weight");
    let message = Network::new(&wrong, Device::Cpu).unwrap_err().to_string();
    assert!(message.contains("missing: conv1.weight [4, 1, 3, 3]"), "{message}");

    let message = Network::new(&good, Device::Cuda(999)).unwrap_err().to_string();
    assert!(message.contains("cuda:999 was asked for"), "{message}");
}
