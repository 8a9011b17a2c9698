//! REPAIR: every merged feature varies as its members do, measured or in closed form.
#![allow(clippy::unwrap_used)]

mod networks;

use ndarray::{Array1, Array4, ArrayD, Axis};
use networks::merging::{
    Merge, batches, grams, identity, linear_network, oddities, permuted_copy, plan, random, relative, samples,
    unsolved, values, weights_differ,
};
use networks::{images, resnet20};
use zipit::Model;
use zipit::apply::Role;
use zipit::refit::{Outcome, Spread, gram, rescale, sites};
use zipit_torch::refit::Task;

/// Mean and standard deviation of every feature, over images and positions.
fn moments(value: &ArrayD<f64>) -> [Array1<f64>; 2] {
    let rows = samples(value);
    [rows.mean_axis(Axis(0)).unwrap(), rows.std_axis(Axis(0), 0.0)]
}

/// How far every rescaled value of `network` is from its members' averages, relative to the value's size.
fn off(merge: &Merge, network: &Model, images: &Array4<f32>) -> f64 {
    let models: Vec<_> = merge.models.iter().map(|model| values(model, images)).collect();
    let found = values(network, images);
    let mut worst = 0.0_f64;
    let mut n_checked = 0;
    for (node, origin) in network.graph.nodes.iter().zip(&merge.grafted.origins) {
        let source = merge.models[0].graph.node(&origin.source).unwrap();
        let is_sum = node.module.is_none() && source.module.is_some();
        let is_part = matches!(origin.role, Role::Part(_));
        if !(is_sum || node.module.is_some() && !is_part) {
            continue;
        }
        let goal: [ArrayD<f64>; 2] = [0, 1].map(|k| {
            let own: Vec<ArrayD<f64>> = (models.iter())
                .map(|values| moments(&values[&origin.source])[k].clone().insert_axis(Axis(0)).into_dyn())
                .collect();
            match origin.role {
                Role::Own(i) => own[i].clone(),
                Role::Shared | Role::Part(_) => merge.blend(&origin.source, &own.iter().collect::<Vec<_>>()),
            }
        });
        let size = goal[1].iter().fold(0.0_f64, |m, x| m.max(*x)).max(1e-3);
        for (found, goal) in moments(&found[&node.name]).into_iter().zip(goal) {
            let found = found.insert_axis(Axis(0)).into_dyn();
            worst = worst.max((found - goal).iter().fold(0.0_f64, |m, x| m.max(x.abs())) / size);
        }
        n_checked += 1;
    }
    assert!(n_checked > 3);
    worst
}

#[test]
fn features_vary_as_their_members_do() {
    let models = [1, 2, 3].map(resnet20);
    let graph = &models[0].graph;
    let names: Vec<String> = graph.merge_points(&graph.spaces().unwrap()).into_iter().map(|p| p.name).collect();
    let part = |from: usize, to: usize| plan(graph, 3, |name| names[from..to].iter().any(|n| n == name), |_, _, j| j);
    let data = images(60, [1, 8, 8], 3);
    for plan in [identity(graph, 3), random(graph, 3, 1.4, 2), part(0, 7), part(7, 12), part(3, 8)] {
        let merge = Merge::new(&models.each_ref(), plan);
        let (network, solved) = merge.refit(&batches(&data, 16), Task::Scale).unwrap();
        let [before, after] = [&merge.grafted.model, &network].map(|network| off(&merge, network, &data));
        assert!(before > 0.1 && after < 1e-4, "{before} before, {after} after");
        assert!(solved.iter().all(|layer| matches!(layer.outcome, Outcome::Scale(told) if told.spread > 0.0)));
    }
    let odd = [1, 2].map(oddities);
    let merge = Merge::new(&odd.each_ref(), random(&odd[0].graph, 2, 0.8, 4));
    let data = images(60, [2, 4, 4], 3);
    let (network, _) = merge.refit(&batches(&data, 7), Task::Scale).unwrap();
    let [before, after] = [&merge.grafted.model, &network].map(|network| off(&merge, network, &data));
    assert!(before > 0.1 && after < 1e-4, "{before} before, {after} after");
}

#[test]
fn a_merge_that_loses_nothing_stays_as_it_is() {
    for original in [resnet20(1), oddities(1), linear_network(1, [1, 2, 3], 2)] {
        let (copy, plan) = permuted_copy(&original, 5);
        let merge = Merge::new(&[&original, &copy], plan);
        let &[c, h, w] = &original.graph.input.shape[..] else { panic!("images") };
        let (network, solved) = merge.refit(&batches(&images(50, [c, h, w], 3), 16), Task::Scale).unwrap();
        // Batch normalisation by itself is written in another form: without statistics.
        let function = |mut network: Model| {
            if let Some(var) = network.weights.get("ab.bn.running_var").cloned() {
                let std = var.mapv(|v| (v + 1e-3).sqrt());
                let mean = network.weights["ab.bn.running_mean"].clone();
                let scale = &network.weights["ab.bn.weight"] / &std;
                *network.weights.get_mut("ab.bn.bias").unwrap() -= &(&scale * &mean);
                network.weights.insert("ab.bn.weight".into(), scale);
                network.weights.retain(|name, _| !name.contains("running"));
            }
            network
        };
        let difference = weights_differ(&function(network.clone()), &function(unsolved(&merge, &network)));
        assert!(difference < 1e-5, "{}: {difference}", original.graph.arch);
        for layer in solved {
            let Outcome::Scale(told) = layer.outcome else { panic!("{layer:?}") };
            assert!((told.spread - 1.0).abs() < 1e-5, "{layer:?}");
        }
    }
}

/// Site by site in closed form, from the models' second moments.
fn in_closed_form(merge: &Merge, images: &Array4<f32>) -> Model {
    let graph = &merge.models[0].graph;
    let grams = grams(merge, &batches(images, 16), true);
    let mut network = merge.grafted.model.clone();
    for site in &sites(&merge.grafted, &merge.models()) {
        let source = &graph.nodes[site.source];
        let gram = &grams[source.module.as_deref().unwrap()];
        let spread: Spread = gram::spread(site, &network, source, &merge.models(), gram).unwrap();
        rescale(site, &mut network, &spread).unwrap();
    }
    network
}

/// The first layer reads the images, the second, where nothing but it lies between, exactly the averages that REPAIR of
/// the first one stretched: there the closed form is exact.
#[test]
fn the_closed_form_is_what_is_measured() {
    let models = [1, 2].map(|seed| linear_network(seed, [3, 1, 1], 1));
    let data = images(80, [3, 1, 1], 3);
    for plan in [identity(&models[0].graph, 2), random(&models[0].graph, 2, 1.3, 2)] {
        let merge = Merge::new(&models.each_ref(), plan);
        let (mut measured, _) = merge.refit(&batches(&data, 16), Task::Scale).unwrap();
        let mut closed = in_closed_form(&merge, &data);
        let mut before = unsolved(&merge, &measured);
        for network in [&mut measured, &mut closed, &mut before] {
            network.weights.retain(|name, _| name.starts_with("conv") || name.starts_with("hidden"));
            assert_eq!(network.weights.len(), 4);
        }
        assert!(weights_differ(&closed, &measured) < 1e-4, "{}", weights_differ(&closed, &measured));
        assert!(weights_differ(&before, &measured) > 0.1);
    }
    // With ReLU between, the first layer still is: it reads the images.
    let models = [1, 2].map(resnet20);
    let data = images(60, [1, 8, 8], 3);
    let merge = Merge::new(&models.each_ref(), identity(&models[0].graph, 2));
    let (measured, _) = merge.refit(&batches(&data, 16), Task::Scale).unwrap();
    let closed = in_closed_form(&merge, &data);
    for name in ["conv1.weight", "conv1.bias"] {
        let [a, b] = [&closed, &measured].map(|network| network.weights[name].mapv(f64::from));
        assert!(relative(&a, &b) < 1e-4, "{name}");
    }
    // And it brings the others nearer to their members than merging left them.
    let [before, after] = [&merge.grafted.model, &closed].map(|network| off(&merge, network, &data));
    assert!(after < before, "{before} before, {after} after");
}
