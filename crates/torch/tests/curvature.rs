//! Fisher information and gradients at layers are what finite differences of log-probabilities say.
#![allow(clippy::unwrap_used)]

mod networks;

use ndarray::{Array2, Array4};
use networks::{images, resnet20, with_threads};
use std::collections::BTreeMap;
use zipit::refit::Gram;
use zipit::watch::Unwatched;
use zipit::{Fisher, Model, Moments};
use zipit_torch::convert::to_array;
use zipit_torch::curvature::{self, Differentiable};
use zipit_torch::images::InMemory;
use zipit_torch::{Device, Network};

/// log p(y|x), `[n, K]`.
fn log_probabilities(model: &Model, images: &Array4<f32>) -> Array2<f64> {
    let network = Network::new(model, Device::Cpu).unwrap();
    let logits = network.outputs(network.input(images).unwrap()).unwrap().remove(0);
    let z = to_array(&logits).unwrap().mapv(f64::from);
    let mut z = z.into_dimensionality().unwrap();
    for mut row in z.rows_mut() {
        let highest = row.fold(f64::NEG_INFINITY, |a: f64, b| a.max(*b));
        let sum = row.iter().map(|x| (x - highest).exp()).sum::<f64>().ln() + highest;
        row -= sum;
    }
    z
}

fn fisher_of(model: &Model, names: &[String], batches: &InMemory, n_batches: usize) -> Fisher {
    let network = Differentiable::new(model, names, &[], Device::Cpu).unwrap().exact();
    let sizes = names.iter().map(|name| (name.as_str(), model.weights[name].len()));
    let mut fisher = [Fisher::zeros(sizes)];
    let sums = (&mut fisher[..], &mut BTreeMap::new());
    curvature::measure(&[network], sums, None, batches, 0..n_batches, &Unwatched).unwrap();
    let [fisher] = fisher;
    fisher
}

#[test]
fn fisher_information_is_the_square_of_what_a_small_change_does() {
    let model = resnet20(3);
    let images = images(6, [1, 8, 8], 2);
    let params = model.graph.params();
    let names: Vec<String> = params.iter().filter(|(_, param)| param.learned).map(|(name, _)| name.clone()).collect();
    let fisher = fisher_of(&model, &names, &InMemory::new(images.clone(), 6), 1);
    assert_eq!(fisher.count, 6);
    let p = log_probabilities(&model, &images).mapv(f64::exp);
    // Far enough apart to be seen in f32.
    let step = 2e-3_f32;
    let (mut compared, mut worst) = (0, 0.0_f64);
    for name in &names {
        let n = model.weights[name].len();
        for at in [0, n / 2, n - 1] {
            let moved = |by: f32| {
                let mut model = model.clone();
                *model.weights.get_mut(name).unwrap().iter_mut().nth(at).unwrap() += by;
                log_probabilities(&model, &images)
            };
            let slope = (moved(step) - moved(-step)) / (2.0 * f64::from(step));
            let wanted = (&p * &slope * &slope).sum();
            let found = fisher.sums[name][at];
            // A ReLU's kink between the two, or f32's rounding, moves some of them.
            let far = (found - wanted).abs() / (wanted + 1e-3);
            worst = worst.max(far);
            compared += usize::from(far < 0.05);
            assert!(far < 0.5, "`{name}` {at}: {found} instead of {wanted}");
        }
    }
    assert!(compared * 10 >= 3 * names.len() * 9, "{compared} of {} are near; {worst}", 3 * names.len());
}

#[test]
fn sums_are_the_same_on_any_threads_and_nearly_in_any_batches() {
    let model = resnet20(5);
    let images = images(14, [1, 8, 8], 2);
    let names: Vec<String> = model.weights.keys().filter(|name| name.contains("conv1")).cloned().collect();
    let run = |size: usize, n: usize| fisher_of(&model, &names, &InMemory::new(images.clone(), size), n);
    let whole = with_threads(1, || run(4, 4));
    assert_eq!(with_threads(3, || run(4, 4)), whole);
    assert_eq!(whole.count, 14);
    let other = run(5, 3);
    for (name, sums) in &whole.sums {
        let scale = sums.iter().fold(0.0_f64, |a, b| a.max(*b));
        for (a, b) in sums.iter().zip(&other.sums[name]) {
            assert!((a - b).abs() < 1e-4 * scale, "`{name}`: {a} {b}");
        }
    }
}

/// At the logits themselves the gradients' second moments are diag(p) − p pᵀ.
#[test]
fn gradients_at_the_head_are_the_logits_curvature() {
    let model = resnet20(4);
    let images = images(10, [1, 8, 8], 1);
    let head = model.graph.nodes.last().unwrap().module.clone().unwrap();
    let stem = model.graph.nodes[0].module.clone().unwrap();
    let network = Differentiable::new(&model, &[], &[head.clone(), stem.clone()], Device::Cpu).unwrap().exact();
    let p = log_probabilities(&model, &images).mapv(f64::exp);
    let k = p.ncols();
    let n_channels = model.weights[&format!("{stem}.weight")].shape()[0];
    let mut gradients: BTreeMap<String, Gram> = [(head.clone(), k), (stem.clone(), n_channels)]
        .map(|(name, o)| (name, Gram::Own(vec![Moments::zeros(o)])))
        .into();
    let batches = InMemory::new(images, 4);
    let sums = (&mut [][..], &mut gradients);
    curvature::measure(&[network], sums, None, &batches, 0..3, &Unwatched).unwrap();
    let own = |name: &str| match &gradients[name] {
        Gram::Own(each) => each[0].clone(),
        Gram::Joint(_) => panic!("not together"),
    };
    let found = own(&head);
    assert_eq!(found.count, 10);
    for ((i, j), x) in found.second_moment().indexed_iter() {
        let wanted: f64 =
            p.rows().into_iter().map(|p| if i == j { p[i] } else { 0.0 } - p[i] * p[j]).sum::<f64>() / 10.0;
        assert!((x - wanted).abs() < 1e-6, "{i} {j}: {x} {wanted}");
    }
    // Every position of a convolution is a sample.
    assert_eq!(own(&stem).count, 10 * 64);
    assert!(own(&stem).squares().all(|x| x > 0.0));
}
