//! BatchNorm reset and logits: right, and the same for any number of threads.
#![allow(clippy::unwrap_used)]

mod networks;

use ndarray::{Array4, Axis, array};
use networks::{StopAfter, graph, images, model, resnet20, with_threads};
use zipit::graph::{Op, Window};
use zipit::watch::Unwatched;
use zipit_torch::images::InMemory;
use zipit_torch::{Device, Error, Network, batch_norm, convert::to_array, evaluate};

/// ```python
/// bn = torch.nn.BatchNorm2d(2, momentum=None)          # cumulative average
/// bn(torch.tensor([1., 2, 3, 6, 10, 10, 10, 10]).view(2, 2, 1, 2))   # channel 0: 1, 2, 10, 10; channel 1: 3, 6, 10, 10
/// bn(torch.tensor([0., 4, 5, 5]).view(1, 2, 1, 2)); print(bn.running_mean, bn.running_var)
/// ```
/// Batch 1 (2 images): means 5.75, 7.25, unbiased variances 24.25, 34.75/3. Batch 2 (1 image): means 2, 5, variances
/// 8, 0. PyTorch weighs both batches alike, we weigh images: (2·5.75 + 2)/3 and so on.
#[test]
fn statistics_are_averaged_over_images() {
    let graph = graph(
        [2, 1, 2],
        &[("bn", Op::BatchNorm2d { num_features: 2, eps: 1e-5 }, &["input"]), ("output", Op::Flatten, &["bn"])],
        &["output"],
    );
    let model = model(graph, 1);
    let data =
        Array4::from_shape_vec((3, 2, 1, 2), vec![1.0, 2.0, 3.0, 6.0, 10.0, 10.0, 10.0, 10.0, 0.0, 4.0, 5.0, 5.0])
            .unwrap();
    let reset = batch_norm::reset(&model, &InMemory::new(data, 2), Device::Cpu, &Unwatched).unwrap();
    let near = |name: &str, expected: ndarray::Array1<f32>| {
        let found = &reset.weights[name];
        assert!((found - &expected.into_dyn()).iter().all(|d| d.abs() < 1e-5), "{name}: {found}");
    };
    near("bn.running_mean", array![13.5 / 3.0, 19.5 / 3.0]);
    near("bn.running_var", array![56.5 / 3.0, 69.5 / 9.0]);
    for name in ["bn.weight", "bn.bias"] {
        assert_eq!(reset.weights[name], model.weights[name], "only statistics change");
    }
}

/// After a reset on one batch, running that batch with the new statistics normalises it: what each later BatchNorm saw
/// was normalised by the batch, not by the old statistics. (Not exactly: `running_var` is unbiased.)
#[test]
fn a_reset_network_normalises_every_layer() {
    let old = resnet20(1);
    let images = images(32, [1, 8, 8], 2);
    let reset = batch_norm::reset(&old, &InMemory::new(images.clone(), 32), Device::Cpu, &Unwatched).unwrap();
    let network = Network::new(&reset, Device::Cpu).unwrap();
    let mut n_checked = 0;
    network
        .observe(network.input(&images).unwrap(), |name, value| {
            let node = reset.graph.node(name).unwrap();
            if let (Op::BatchNorm2d { .. }, Some(module)) = (&node.op, &node.module) {
                let value = to_array(value)?;
                let weight = &reset.weights[&format!("{module}.weight")];
                let bias = &reset.weights[&format!("{module}.bias")];
                for (c, channel) in value.axis_iter(Axis(1)).enumerate() {
                    let mean = channel.mean().unwrap();
                    let std = channel.mapv(|x| (x - mean).powi(2)).mean().unwrap().sqrt();
                    assert!((mean - bias[c]).abs() < 0.05, "{name}: mean {mean}, bias {}", bias[c]);
                    assert!((std / weight[c] - 1.0).abs() < 0.05, "{name}: deviation {std}, weight {}", weight[c]);
                    n_checked += 1;
                }
            }
            Ok(())
        })
        .unwrap();
    assert!(n_checked > 100, "{n_checked}");
}

#[test]
fn threads_do_not_change_a_bit() {
    let data = InMemory::new(images(19, [1, 8, 8], 5), 4);
    let reset = |n| with_threads(n, || batch_norm::reset(&resnet20(1), &data, Device::Cpu, &Unwatched).unwrap());
    let one = reset(1);
    assert_ne!(one, resnet20(1));
    let logits =
        |n| with_threads(n, || evaluate::logits(&Network::new(&one, Device::Cpu).unwrap(), &data, &Unwatched).unwrap());
    let one_thread = logits(1);
    for n in [2, 7] {
        assert_eq!(reset(n), one, "{n} threads");
        assert_eq!(logits(n), one_thread, "{n} threads");
    }
}

#[test]
fn logits_stand_in_the_order_of_the_images() {
    let linear = |n| Op::Linear { in_features: 4, out_features: n, bias: true };
    let two_heads = graph(
        [1, 2, 2],
        &[("flat", Op::Flatten, &["input"]), ("a", linear(2), &["flat"]), ("b", linear(3), &["flat"])],
        &["b", "a"],
    );
    let model = model(two_heads, 4);
    let images = images(11, [1, 2, 2], 5);
    let network = Network::new(&model, Device::Cpu).unwrap();
    let found = evaluate::logits(&network, &InMemory::new(images.clone(), 3), &Unwatched).unwrap();
    let x = images.into_shape_with_order((11, 4)).unwrap();
    for (logits, head) in found.iter().zip(["b", "a"]) {
        let weight = model.weights[&format!("{head}.weight")].clone().into_dimensionality::<ndarray::Ix2>().unwrap();
        let expected = x.dot(&weight.t()) + &model.weights[&format!("{head}.bias")];
        assert_eq!(logits.shape(), expected.shape());
        assert!((logits - &expected).iter().all(|d| d.abs() < 1e-5), "{head}");
    }
    let none = evaluate::logits(&network, &InMemory::new(Array4::zeros((0, 1, 2, 2)), 3), &Unwatched).unwrap();
    assert_eq!((none[0].dim(), none[1].dim()), ((0, 3), (0, 2)));
}

#[test]
fn an_interruption_is_said() {
    let data = InMemory::new(images(8, [1, 8, 8], 5), 1);
    let interrupted = |error: Error| matches!(error, Error::Zipit(zipit::Error::Interrupted));
    assert!(interrupted(batch_norm::reset(&resnet20(1), &data, Device::Cpu, &StopAfter::new(2)).unwrap_err()));
    let network = Network::new(&resnet20(1), Device::Cpu).unwrap();
    assert!(interrupted(evaluate::logits(&network, &data, &StopAfter::new(2)).unwrap_err()));
}

#[test]
fn numbers_that_are_none_are_refused() {
    let mut broken = resnet20(1);
    broken.weights.get_mut("linear.bias").unwrap()[1] = f32::NAN;
    let data = InMemory::new(images(3, [1, 8, 8], 5), 2);
    let network = Network::new(&broken, Device::Cpu).unwrap();
    let message = evaluate::logits(&network, &data, &Unwatched).unwrap_err().to_string();
    assert!(message.contains("output `linear` is NaN or infinity"), "{message}");

    broken.weights.get_mut("conv1.weight").unwrap().fill(f32::INFINITY);
    let message = batch_norm::reset(&broken, &data, Device::Cpu, &Unwatched).unwrap_err().to_string();
    assert!(message.contains("`bn1.running_mean` came out as NaN"), "{message}");
}

/// A BatchNorm over one position and one image has nothing to compare.
#[test]
fn a_single_value_has_no_variance() {
    let conv = Op::Conv2d { in_channels: 1, out_channels: 2, window: Window::square(2, 1, 0), groups: 1, bias: false };
    let graph = graph(
        [1, 2, 2],
        &[
            ("c", conv, &["input"]),
            ("bn", Op::BatchNorm2d { num_features: 2, eps: 1e-5 }, &["c"]),
            ("output", Op::Flatten, &["bn"]),
        ],
        &["output"],
    );
    let go = |n_images, batch_size| {
        batch_norm::reset(
            &model(graph.clone(), 1),
            &InMemory::new(images(n_images, [1, 2, 2], 1), batch_size),
            Device::Cpu,
            &Unwatched,
        )
    };
    let message = go(3, 2).unwrap_err().to_string();
    assert!(message.contains("batch 1 has one image and `bn` one position"), "{message}");
    go(4, 2).unwrap();
    assert!(go(0, 2).unwrap_err().to_string().contains("no images"));
}
