//! Refit: what can be recovered is recovered, and everything else gets better, whatever is merged how.
#![allow(clippy::unwrap_used)]

mod networks;

use ndarray::{Array2, Array4, Axis};
use networks::merging::{
    Merge, SEQUENTIAL, batches, identity, linear_network, logit_error, logits, oddities, permuted_copy, plan, random,
    samples, solution, values, was_solved, weights,
};
use networks::{images, model, resnet20};
use rand::{RngExt, SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;
use zipit::Model;
use zipit::graph::{ArchSpec, arch::Arch};
use zipit::refit::Ridge;
use zipit_torch::refit::{Inputs, Solved, Task};

fn of(model: &Model) -> [usize; 3] {
    let &[c, h, w] = &model.graph.input.shape[..] else { panic!("images") };
    [c, h, w]
}

fn small_networks() -> Vec<Model> {
    let spec = |arch, width, size| ArchSpec::new(arch, width, 3, [size, size], 4).build().unwrap();
    let mut all: Vec<Model> = [
        spec(Arch::ResNet20, 0.25, 8),
        spec(Arch::Vgg11Bn, 0.0625, 64),
        spec(Arch::ResNet18, 0.0625, 32),
        spec(Arch::ResNet50, 0.0625, 32),
    ]
    .into_iter()
    .map(|graph| model(graph, 7))
    .collect();
    all.push(oddities(7));
    all
}

#[test]
fn a_permuted_copy_gives_the_function_back() {
    for original in small_networks() {
        let (copy, plan) = permuted_copy(&original, 5);
        let merge = Merge::new(&[&original, &copy], plan);
        let [seen, unseen] = [1, 2].map(|seed| images(40, of(&original), seed));
        let (network, solved) = merge.refit(&batches(&seen, 16), SEQUENTIAL).unwrap();
        assert!(!solved.is_empty());
        // Where few images say little, what rounding of the sums adds to W* shows on others.
        for (images, allowed) in [(&seen, 1e-5), (&unseen, 1e-4)] {
            let error = logit_error(&network, &[&original, &copy], images);
            assert!(error <= allowed, "{}: logits are off by {error}", original.graph.arch);
        }
    }
}

/// The same where every weight that is solved begins somewhere else: only the images say what it was.
#[test]
fn spoilt_weights_are_found_again() {
    let original = resnet20(1);
    let (copy, plan) = permuted_copy(&original, 5);
    let mut merge = Merge::new(&[&original, &copy], plan);
    let [seen, unseen] = [1, 2].map(|seed| images(400, [1, 8, 8], seed));
    let exact = merge.grafted.model.clone();
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    for (name, tensor) in merge.grafted.model.weights.iter_mut().filter(|(name, _)| !name.starts_with("conv1.")) {
        let size = tensor.iter().fold(0.0_f32, |m, x| m.max(x.abs()));
        tensor.mapv_inplace(|x| x + size * rng.random_range(-0.5..0.5));
        assert_ne!(*tensor, exact.weights[name]);
    }
    let spoilt = logit_error(&merge.grafted.model, &[&original, &copy], &unseen);
    let (network, solved) = merge.refit(&batches(&seen, 50), SEQUENTIAL).unwrap();
    let found = logit_error(&network, &[&original, &copy], &unseen);
    // No ridge is less than 1e-6, and rounding in one layer is the next one's noise.
    assert!(spoilt > 10.0 && found < 0.02, "{spoilt} before, {found} after");
    assert_eq!(solved.iter().filter(|layer| !was_solved(layer)).count(), 1, "the stem is exact");
    for layer in solved.iter().filter(|layer| was_solved(layer)) {
        let told = solution(layer);
        assert!(told.before > 0.01 && told.after < 1e-5 && told.held_out.unwrap() < 1e-5, "{layer:?}");
    }
}

/// A merge of linear layers loses nothing as long as no layer has fewer features than the image has numbers, however
/// they were thrown together.
#[test]
fn a_linear_network_is_recovered_from_enough_features() {
    let models = [1, 2, 3].map(|seed| linear_network(seed, [3, 1, 1], 1));
    let [seen, unseen] = [4, 5].map(|seed| images(300, [3, 1, 1], seed));
    for (seed, width) in [(1, 4), (2, 6), (3, 9), (4, 12)] {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let dims: Vec<usize> = models[0].graph.spaces().unwrap().spaces.iter().map(|space| space.dim).collect();
        let shuffled = |d: usize| -> Vec<usize> {
            let mut groups: Vec<usize> = (0..3 * d).map(|k| k % width).collect();
            groups.shuffle(&mut rng);
            groups
        };
        let groups_of: Vec<Vec<usize>> = dims.iter().copied().map(shuffled).collect();
        let groups = plan(&models[0].graph, 3, |_| true, |space, i, j| groups_of[space][i * dims[space] + j]);
        assert!(groups.points.iter().all(|point| point.n_groups == width), "every group has a member");
        let merge = Merge::new(&models.each_ref(), groups);
        let before = logit_error(&merge.grafted.model, &models.each_ref(), &unseen);
        let (network, _) = merge.refit(&batches(&seen, 64), SEQUENTIAL).unwrap();
        let after = logit_error(&network, &models.each_ref(), &unseen);
        assert!(before > 0.1 && after < 1e-3, "{width} features: {before} before, {after} after");
    }
    // Two numbers cannot carry three.
    let narrow = Merge::new(&models.each_ref(), plan(&models[0].graph, 3, |_| true, |_, _, j| j % 2));
    let (network, _) = narrow.refit(&batches(&seen, 64), SEQUENTIAL).unwrap();
    assert!(logit_error(&network, &models.each_ref(), &unseen) > 0.1);
}

#[test]
fn what_is_not_merged_is_not_touched() {
    let models = [1, 2].map(resnet20);
    let apart = plan(&models[0].graph, 2, |_| false, |_, _, j| j);
    let merge = Merge::new(&models.each_ref(), apart);
    let (network, solved) = merge.refit(&batches(&images(8, [1, 8, 8], 1), 4), SEQUENTIAL).unwrap();
    assert!(solved.is_empty());
    assert_eq!(network, merge.grafted.model);
    // Features side by side in one space: every layer is solved, and loses nothing.
    let wide = plan(&models[0].graph, 2, |_| true, |space, i, j| (space * 2 + i) * 1000 + j);
    let merge = Merge::new(&models.each_ref(), wide);
    let data = images(200, [1, 8, 8], 1);
    let (network, solved) = merge.refit(&batches(&data, 40), SEQUENTIAL).unwrap();
    assert!(!solved.is_empty());
    let error = logit_error(&network, &models.each_ref(), &data);
    assert!(error <= 1e-5, "{error}");
}

/// Σ over heads of E‖logits − the model's own‖².
fn lost(network: &Model, models: &[&Model], images: &Array4<f32>) -> f64 {
    let own = models.iter().flat_map(|model| logits(model, images));
    let square = |off: ndarray::Array2<f64>| off.mapv(|x| x * x).sum() / images.shape()[0] as f64;
    logits(network, images).iter().zip(own).map(|(found, own)| square(samples(found) - samples(&own))).sum()
}

fn gets_better(merge: &Merge, images: &Array4<f32>, what: &str) -> (Model, Vec<Solved>) {
    let (network, solved) = merge.refit(&batches(images, 25), SEQUENTIAL).unwrap();
    for layer in solved.iter().filter(|layer| was_solved(layer)) {
        let told = solution(layer);
        assert!(told.after <= told.before + 1e-9, "{what}: {layer:?}");
        assert!((1e-6..=1e2).contains(&told.ridge) && told.held_out.is_some(), "{what}: {layer:?}");
    }
    let [before, after] = [&merge.grafted.model, &network].map(|network| lost(network, &merge.models(), images));
    assert!(after < 0.7 * before, "{what}: {before} before, {after} after");
    (network, solved)
}

#[test]
fn any_width_gets_better() {
    let models = [1, 2].map(resnet20);
    let data = images(120, [1, 8, 8], 3);
    for share in [0.5, 1.0, 1.5] {
        let merge = Merge::new(&models.each_ref(), random(&models[0].graph, 2, share, 5));
        let (network, _) = gets_better(&merge, &data, &format!("{share} of the width"));
        assert_eq!(network.graph.outputs, ["models.0.linear", "models.1.linear"]);
    }
    let models = [1, 2].map(oddities);
    let merge = Merge::new(&models.each_ref(), random(&models[0].graph, 2, 1.2, 5));
    gets_better(&merge, &images(100, [2, 4, 4], 4), "oddities");
}

#[test]
fn heads_and_stems_of_a_partial_merge_are_their_models_own() {
    let models = [1, 2, 3].map(resnet20);
    let graph = &models[0].graph;
    let points = graph.merge_points(&graph.spaces().unwrap());
    let data = images(120, [1, 8, 8], 3);
    // Up to the middle: after it, only what reads merged features is solved, each for its own model.
    let stop: Vec<&str> = points.iter().take(7).map(|point| point.name.as_str()).collect();
    let merge = Merge::new(&models.each_ref(), plan(graph, 3, |name| stop.contains(&name), |_, _, j| j));
    let (network, solved) = gets_better(&merge, &data, "stop in the middle");
    let own: Vec<&[String]> =
        solved.iter().map(|s| &s.layers[..]).filter(|names| names[0].starts_with("models.")).collect();
    let model = |name: &str| name["models.".len()..][..1].parse::<usize>().unwrap();
    let models_values: Vec<_> = merge.models.iter().map(|model| values(model, &data)).collect();
    let [found, unsolved] = [&network, &merge.grafted.model].map(|network| values(network, &data));
    let (mut n_parts, mut n_pairs) = (0, 0);
    for names in own {
        // The models' parts of one merged layer add up to their mean; a layer and its shortcut are one model's.
        let parts = names.iter().any(|name| model(name) != model(&names[0]));
        let share = if parts { 1.0 / names.len() as f64 } else { 1.0 };
        (n_parts, n_pairs) = (n_parts + usize::from(parts), n_pairs + usize::from(!parts && names.len() > 1));
        let sum = |of: &dyn Fn(&String) -> Array2<f64>| names.iter().map(of).reduce(|a, b| a + b).unwrap();
        let target = sum(&|name| samples(&models_values[model(name)][&name["models.0.".len()..]]) * share);
        let [after, before] =
            [&found, &unsolved].map(|values| (sum(&|name| samples(&values[name])) - &target).mapv(|x| x * x).sum());
        assert!(after <= before, "{names:?}: {before} before, {after} after");
    }
    assert!(n_parts == 2 && n_pairs == 6, "{n_parts} layers of parts, {n_pairs} shortcuts");
    // From the middle on: the stems are the models' own and stay as they are.
    let start: Vec<&str> = points.iter().skip(7).map(|point| point.name.as_str()).collect();
    let merge = Merge::new(&models.each_ref(), plan(graph, 3, |name| start.contains(&name), |_, _, j| j));
    let (network, _) = gets_better(&merge, &data, "start in the middle");
    let mut n_stems = 0;
    for (name, tensor) in &merge.grafted.model.weights {
        if name.contains(".layer1.") {
            assert_eq!(network.weights[name], *tensor, "{name}");
            n_stems += 1;
        }
    }
    assert!(n_stems > 30, "{n_stems}");
}

#[test]
fn a_later_layer_makes_up_for_earlier_ones() {
    let models = [1, 2].map(resnet20);
    let merge = Merge::new(&models.each_ref(), identity(&models[0].graph, 2));
    let data = images(300, [1, 8, 8], 3);
    let lost = [Inputs::Sequential, Inputs::Layerwise].map(|inputs| {
        let (network, _) = merge.refit(&batches(&data, 50), weights(inputs, Ridge::Fixed(1e-3))).unwrap();
        lost(&network, &merge.models(), &data)
    });
    assert!(lost[0] < 0.8 * lost[1], "{lost:?}");
}

/// E‖relu(ỹ) − M·relu([y¹; …; yᴺ])‖² / Var of the wanted, at `value`, where model features k are in groups `of`.
fn cut_off(network: &Model, models: &[&Model], images: &Array4<f32>, value: &str, of: &[u32]) -> f64 {
    let relu = |model: &Model| samples(&values(model, images)[value]).mapv(|x| x.max(0.0));
    let found = relu(network);
    let own: Vec<Array2<f64>> = models.iter().map(|model| relu(model)).collect();
    let mut wanted = Array2::<f64>::zeros(found.raw_dim());
    let mut members = vec![0.0; found.ncols()];
    for &g in of {
        members[g as usize] += 1.0;
    }
    for (k, &g) in of.iter().enumerate() {
        let d = own[0].ncols();
        wanted.column_mut(g as usize).scaled_add(1.0 / members[g as usize], &own[k / d].column(k % d));
    }
    (&found - &wanted).mapv(|x| x * x).sum() / wanted.var_axis(Axis(0), 0.0).sum() / found.nrows() as f64
}

#[test]
fn rounds_bring_what_comes_through_nearer() {
    let [a, b] = [1, 2].map(resnet20);
    let merge = Merge::new(&[&a, &b], random(&a.graph, 2, 0.8, 5));
    let [seen, unseen] = [1, 2].map(|seed| images(200, of(&a), seed));
    let task = |rounds| Task::Weights { inputs: Inputs::Sequential, ridge: Ridge::HeldOut, rounds, together: false };
    let runs = [0, 1, 4].map(|rounds| merge.refit(&batches(&seen, 50), task(rounds)).unwrap());
    let taken: Vec<Vec<u32>> = runs.iter().map(|(_, all)| all.iter().map(|s| solution(s).rounds).collect()).collect();
    assert!(taken[0].iter().all(|&n| n == 0) && taken[1].iter().sum::<u32>() > 5, "{taken:?}");
    assert!(taken[1].iter().all(|&n| n <= 1) && taken[2].iter().all(|&n| n <= 4) && taken[2].contains(&4), "{taken:?}");
    // The first block's first layer reads what the stem makes, and the stem what all runs read.
    let (point, layer) = (&merge.plan.points[0], &runs[0].1[0].layers[0]);
    let off = |images| {
        runs.each_ref().map(|(network, _)| cut_off(network, &merge.models(), images, layer, &point.assignment))
    };
    for images in [&seen, &unseen] {
        let [none, one, four] = off(images);
        assert!(four < one && one < none, "{none} {one} {four}");
    }
    // Heads have no ReLU behind them.
    assert_eq!(taken[2].last(), Some(&0));
}
