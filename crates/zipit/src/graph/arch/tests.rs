#![allow(clippy::unwrap_used)]

use super::{Arch, ArchSpec, VggHead};
use crate::graph::Graph;
use std::collections::BTreeMap;

fn imagenet(arch: Arch) -> Graph {
    ArchSpec::new(arch, 1.0, 3, [224, 224], 1000).build().unwrap()
}

fn cifar(arch: Arch) -> Graph {
    ArchSpec::new(arch, 1.0, 3, [32, 32], 10).build().unwrap()
}

fn points(graph: &Graph) -> Vec<(String, usize, usize)> {
    let spaces = graph.spaces().unwrap();
    graph.merge_points(&spaces).into_iter().map(|p| (p.name, p.dim, p.layers)).collect()
}

#[test]
fn resnet20_has_20_layers_and_12_merge_points() {
    let graph = cifar(Arch::ResNet20);
    assert_eq!(graph.n_layers(), 20);
    let expected = [
        ("layer1.0.relu", 16, 2),
        ("layer1.1.relu", 16, 4),
        ("layer1.2.relu", 16, 6),
        ("layer1.2.relu_1", 16, 7),
        ("layer2.0.relu", 32, 8),
        ("layer2.1.relu", 32, 10),
        ("layer2.2.relu", 32, 12),
        ("layer2.2.relu_1", 32, 13),
        ("layer3.0.relu", 64, 14),
        ("layer3.1.relu", 64, 16),
        ("layer3.2.relu", 64, 18),
        ("layer3.2.relu_1", 64, 19),
    ];
    assert_eq!(points(&graph), expected.map(|(n, d, l)| (n.to_owned(), d, l)));
}

#[test]
fn value_and_tensor_names_are_pytorchs() {
    let graph = cifar(Arch::ResNet20);
    let names: Vec<&str> = graph.nodes.iter().map(|n| n.name.as_str()).collect();
    assert_eq!(
        names[..10],
        [
            "conv1",
            "bn1",
            "relu",
            "layer1.0.conv1",
            "layer1.0.bn1",
            "layer1.0.relu",
            "layer1.0.conv2",
            "layer1.0.bn2",
            "layer1.0.add",
            "layer1.0.relu_1"
        ]
    );
    assert_eq!(names[names.len() - 3..], ["avgpool", "flatten", "linear"]);
    let params = graph.params();
    assert_eq!(params["layer3.0.shortcut.0.weight"].shape, [64, 32, 1, 1]);
    assert_eq!(params["layer2.0.shortcut.1.running_var"].shape, [32]);
    assert!(!params.contains_key("layer1.0.shortcut.0.weight") && !params.contains_key("conv1.bias"));

    let params = imagenet(Arch::ResNet50).params();
    assert_eq!(params["layer1.0.downsample.0.weight"].shape, [256, 64, 1, 1]);
    assert_eq!(params["layer4.2.conv3.weight"].shape, [2048, 512, 1, 1]);
    // conv, bn(4) ×53, fc(2); without num_batches_tracked
    assert_eq!(params.len(), 53 * 5 + 2);

    let params = imagenet(Arch::Vgg11Bn).params();
    assert_eq!(params["features.25.weight"].shape, [512, 512, 3, 3]);
    assert_eq!(params["classifier.0.weight"].shape, [4096, 25088]);
}

#[test]
fn torchvision_networks_have_their_spaces() {
    let names = |arch| -> Vec<String> { points(&imagenet(arch)).into_iter().map(|p| p.0).collect() };
    let resnet50 = names(Arch::ResNet50);
    assert_eq!(resnet50.len(), 37);
    assert_eq!(resnet50[0], "relu");
    assert_eq!(resnet50[36], "layer4.2.relu_2");
    assert_eq!(imagenet(Arch::ResNet50).n_layers(), 50);
    // The stem belongs to stage 1's stream: 8 block insides and 4 streams.
    assert_eq!(names(Arch::ResNet18).len(), 12);
    assert_eq!(imagenet(Arch::ResNet34).n_layers(), 34);
}

#[test]
fn vgg_is_measured_before_pooling() {
    let graph = cifar(Arch::Vgg11Bn);
    let names: Vec<String> = points(&graph).into_iter().map(|p| p.0).collect();
    let expected = [2, 6, 10, 13, 17, 20, 24, 27].map(|n| format!("features.{n}"));
    assert_eq!(names, expected);
    assert_eq!(imagenet(Arch::Vgg16Bn).n_layers(), 16);
    let names: Vec<String> = points(&imagenet(Arch::Vgg11Bn)).into_iter().map(|p| p.0).collect();
    assert_eq!(names[8..], ["classifier.1", "classifier.4"]);
}

#[test]
fn costs_are_the_known_ones() {
    let cost = |arch| imagenet(arch).cost().unwrap();
    assert_eq!(cost(Arch::ResNet18).params, 11_689_512);
    assert_eq!(cost(Arch::ResNet34).params, 21_797_672);
    assert_eq!(cost(Arch::ResNet50).params, 25_557_032);
    assert_eq!(cost(Arch::Vgg11Bn).params, 132_868_840);
    assert_eq!(cost(Arch::Vgg16Bn).params, 138_365_992);
    // torchvision's model cards, in GFLOPS: 1.81, 3.66, 4.09, 7.61, 15.47.
    assert_eq!(cost(Arch::ResNet18).macs, 1_814_073_344);
    assert_eq!(cost(Arch::ResNet34).macs, 3_663_761_408);
    assert_eq!(cost(Arch::ResNet50).macs, 4_089_184_256);
    assert_eq!(cost(Arch::Vgg11Bn).macs, 7_609_090_048);
    assert_eq!(cost(Arch::Vgg16Bn).macs, 15_470_264_320);
    assert_eq!(cost(Arch::ResNet50).buffers, 53_120);
    // The authors' projections add 32·16 + 64·32 weights and 2·(32 + 64) affine numbers to the paper's 0.27 M.
    let resnet20 = cifar(Arch::ResNet20).cost().unwrap();
    assert_eq!((resnet20.params, resnet20.macs), (272_474, 40_813_184));
}

#[test]
fn every_size_is_free() {
    for arch in Arch::ALL {
        for (width, channels, size) in [(0.25, 1, [32, 40]), (1.5, 4, [64, 64]), (0.001, 3, [32, 32])] {
            let spec = ArchSpec::new(arch, width, channels, size, 7);
            let graph = spec.build().unwrap();
            graph.spaces().unwrap();
            assert_eq!(graph.shapes().unwrap()[graph.outputs[0].as_str()], [7]);
        }
        assert_eq!(arch.name().parse::<Arch>().unwrap(), arch);
    }
    assert_eq!(
        ArchSpec::new(Arch::ResNet20, 0.3, 1, [28, 28], 5).build().unwrap().params()["conv1.weight"].shape[0],
        5
    );
}

#[test]
fn impossible_sizes_are_refused() {
    let refused = |width, channels, size, classes, arch| {
        ArchSpec::new(arch, width, channels, size, classes).build().unwrap_err().to_string()
    };
    for width in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e9] {
        assert!(refused(width, 3, [32, 32], 10, Arch::ResNet20).contains("width"));
    }
    assert!(refused(1.0, 0, [32, 32], 10, Arch::ResNet20).contains("at least 1"));
    assert!(refused(1.0, 3, [32, 0], 10, Arch::ResNet20).contains("at least 1"));
    assert!(refused(1.0, 3, [32, 32], 0, Arch::ResNet20).contains("at least 1"));
    let small = refused(1.0, 3, [28, 28], 10, Arch::Vgg11Bn);
    assert!(small.contains("features.28") && small.contains("too small"), "{small}");
    let mut spec = ArchSpec::new(Arch::ResNet20, 1.0, 3, [32, 32], 10);
    spec.projection_kernel = 2;
    assert!(spec.build().is_err());
}

/// Everything but the image size comes back from the tensor shapes alone.
#[test]
fn a_spec_is_read_back_from_its_shapes() {
    let widths = [1.0, 0.25, 0.3, 0.278, 1.7, 2.0, 0.01, 4.0];
    for arch in Arch::ALL {
        for width in widths {
            let mut heads = vec![VggHead::Linear { pool: None }];
            if matches!(arch, Arch::Vgg11Bn | Arch::Vgg16Bn) {
                heads.extend([VggHead::Mlp { hidden: 33 }, VggHead::Linear { pool: Some([2, 2]) }]);
            }
            for (vgg_head, projection_kernel) in heads.into_iter().zip([3, 1, 1]) {
                let spec = ArchSpec { projection_kernel, vgg_head, ..ArchSpec::new(arch, width, 2, [96, 96], 6) };
                let graph = spec.build().unwrap();
                let params = graph.params();
                let shapes: BTreeMap<&str, Vec<usize>> =
                    params.iter().map(|(name, p)| (name.as_str(), p.shape.clone())).collect();
                let inferred = ArchSpec::infer(arch, [96, 96], &shapes).unwrap();
                assert_eq!(inferred.build().unwrap(), graph, "{arch} {width} {vgg_head:?}");
            }
        }
    }
}

#[test]
fn inference_is_forgiving_but_not_blind() {
    let shapes = BTreeMap::from([("conv1.weight", vec![8, 1, 3, 3])]);
    let spec = ArchSpec::infer(Arch::ResNet20, [28, 28], &shapes).unwrap();
    assert_eq!((spec.in_channels, spec.n_classes), (1, 10));
    let error = spec.build().unwrap().check_tensor_shapes(&shapes).unwrap_err().to_string();
    assert!(error.contains("missing: linear.bias [10]"), "{error}");

    let foreign = BTreeMap::from([("module.conv1.weight", vec![16, 3, 3, 3])]);
    let error = ArchSpec::infer(Arch::ResNet20, [32, 32], &foreign).unwrap_err().to_string();
    assert!(error.contains("module.conv1.weight") && error.contains("prefix"), "{error}");
    let wrong = BTreeMap::from([("conv1.weight", vec![0]), ("linear.weight", vec![])]);
    assert!(ArchSpec::infer(Arch::ResNet20, [32, 32], &wrong).is_ok());
    let wrong = BTreeMap::from([("layer1.0.conv1.weight", vec![usize::MAX])]);
    assert!(ArchSpec::infer(Arch::ResNet20, [32, 32], &wrong).is_ok());
}
