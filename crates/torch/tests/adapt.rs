//! Adapting: the loss and the steps are PyTorch's, threads and interruptions change nothing, and what may not change stays.
#![allow(clippy::unwrap_used)]

mod networks;

use ndarray::{Array4, ArrayD, IxDyn};
use networks::{StopAfter, graph, model, resnet20, with_threads};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use zipit::graph::{Op, Window};
use zipit::watch::{Unwatched, Watch};
use zipit::{Graph, Model, StateDict};
use zipit_torch::adapt::{AdaptSettings, Adapter, Believed, Coefficients, Learn, Objective, Wanted};
use zipit_torch::images::{Images, InMemory};
use zipit_torch::{Device, Network};

fn adapter<'a>(
    network: &'a Model,
    sources: &'a [&'a Model],
    outputs: &'a [Vec<usize>],
    images: &'a InMemory,
    n: usize,
    settings: AdaptSettings,
) -> Adapter<'a> {
    let wanted = Wanted { network, sources, outputs, owners: None, judges: None };
    Adapter::new(wanted, images, n, settings, Device::Cpu, &Unwatched).unwrap()
}

/// Steps until it is done; every step's loss.
fn learn(adapter: &mut Adapter<'_>) -> Vec<f64> {
    let mut losses = Vec::new();
    while !adapter.is_done() {
        assert!(adapter.round(&Unwatched, &mut |step| losses.push(step.loss)).unwrap());
    }
    losses
}

/// sin(0.7 i + shift) and the like.
fn wave(shape: &[usize], step: f64, shift: f64, scale: f64) -> ArrayD<f32> {
    let n = shape.iter().product::<usize>();
    // As the derivation rounds: the sine, then what it is scaled to.
    let values = (0..n).map(|i| (f64::from((i as f64).mul_add(step, shift).sin() as f32) * scale) as f32);
    ArrayD::from_shape_vec(IxDyn(shape), values.collect()).unwrap()
}

/// A convolution, one in two groups with stride 2 and no bias, and a linear layer.
fn small() -> Graph {
    let conv = |i, stride, groups, bias| Op::Conv2d {
        in_channels: i,
        out_channels: 4,
        window: Window::square(3, stride, 1),
        groups,
        bias,
    };
    graph(
        [2, 6, 6],
        &[
            ("first", conv(2, 1, 1, true), &["input"]),
            ("relu", Op::Relu, &["first"]),
            ("second", conv(4, 2, 2, false), &["relu"]),
            ("relu_1", Op::Relu, &["second"]),
            ("mean", Op::Mean, &["relu_1"]),
            ("logits", Op::Linear { in_features: 4, out_features: 3, bias: true }, &["mean"]),
        ],
        &["logits"],
    )
}

fn waves(shift: f64) -> Model {
    let weights: StateDict = [
        ("first.weight", wave(&[4, 2, 3, 3], 0.7, shift, 0.3)),
        ("first.bias", wave(&[4], 1.1, shift, 0.2)),
        ("second.weight", wave(&[4, 2, 3, 3], 1.3, shift, 0.5)),
        ("logits.weight", wave(&[3, 4], 0.9, shift, 1.0)),
        ("logits.bias", wave(&[3], 2.0, shift, 0.1)),
    ]
    .map(|(name, tensor)| (name.to_owned(), tensor))
    .into();
    Model { weights, ..model(small(), 1) }
}

fn wave_images() -> InMemory {
    InMemory::new(wave(&[20, 2, 6, 6], 0.37, 0.5, 1.0).into_dimensionality().unwrap(), 7)
}

/// In PyTorch, f64: `[W | b]` = `[W₀ | b₀]` + D S, S from `torch.linalg.eigh` of E x̂x̂ᵀ over `F.unfold`, `torch.optim.AdamW` on
/// D (betas 0.9, 0.99), gradients clipped at 5, the learning rate rising over 10 steps and falling along a cosine; images 9
/// and 19 are held out.
#[test]
fn losses_and_steps_are_pytorchs() {
    let (network, source) = (waves(0.3), waves(1.9));
    let images = wave_images();
    let settings = AdaptSettings { lr: 0.01, ..AdaptSettings::default() };
    let (sources, outputs) = ([&source], [vec![0]]);
    let mut adapter = adapter(&network, &sources, &outputs, &images, 20, settings);
    assert_eq!(adapter.n_images(), [20, 2]);
    adapter.plan(30);
    let losses = learn(&mut adapter);
    let near = |found: f64, wanted: f64, off: f64| {
        assert!((found / wanted - 1.0).abs() < off, "{found} instead of {wanted}");
    };
    near(adapter.judged()[0].loss, 104.437_724_484_655_4, 1e-5);
    for (found, wanted) in losses.iter().zip([97.768_414_67, 96.570_509_25, 94.219_661_99]) {
        near(*found, wanted, 1e-5);
    }
    near(losses[10], 41.605_396_316_736_69, 1e-4);
    near(losses[29], 3.442_713_458_391_952_9, 1e-3);
    near(adapter.best().unwrap().loss, 0.845_798_597_735_856_9, 1e-3);
}

/// A network of two outputs, and two sources of one each.
fn two_heads() -> (Model, Vec<Model>) {
    let base = resnet20(1).graph;
    let mut two = base.clone();
    let head = two.nodes.last().unwrap().clone();
    two.nodes.pop();
    for name in ["a", "b"] {
        two.nodes.push(zipit::graph::Node { name: name.into(), module: Some(name.into()), ..head.clone() });
    }
    two.outputs = vec!["a".into(), "b".into()];
    (model(two, 1), vec![model(base.clone(), 2), model(base, 3)])
}

fn noise(n: usize) -> InMemory {
    InMemory::new(networks::images(n, [1, 8, 8], 5), 16)
}

fn weights_after(threads: usize, settings: &AdaptSettings, stop: Option<u64>) -> (StateDict, Vec<f64>) {
    weights_of(120, threads, settings, stop)
}

fn weights_of(n: usize, threads: usize, settings: &AdaptSettings, stop: Option<u64>) -> (StateDict, Vec<f64>) {
    with_threads(threads, || {
        let (network, sources) = two_heads();
        let (sources, outputs): (Vec<&Model>, _) = (sources.iter().collect(), [vec![0], vec![1]]);
        let images = noise(n);
        let make = || adapter(&network, &sources, &outputs, &images, n, settings.clone());
        let mut adapter = make();
        adapter.plan(40);
        if let Some(limit) = stop {
            let whole = adapter.round(&StopAfter::new(limit), &mut |_| {}).unwrap();
            assert!(!whole && adapter.steps()[0] > 0, "it was not interrupted");
            let state = adapter.state().unwrap();
            adapter = make();
            adapter.restore(&state).unwrap();
        }
        learn(&mut adapter);
        (adapter.network(&Unwatched).unwrap().weights, adapter.judged().iter().map(|judged| judged.loss).collect())
    })
}

fn settings() -> AdaptSettings {
    AdaptSettings { batch_size: 40, flip: true, shift: 1, lr: 3e-3, ..AdaptSettings::default() }
}

#[test]
fn threads_and_interruptions_change_nothing() {
    let (one, judged) = weights_after(1, &settings(), None);
    assert!(judged.last() < judged.first(), "{judged:?}");
    assert_eq!(weights_after(3, &settings(), None), (one.clone(), judged.clone()));
    assert_eq!(weights_after(2, &settings(), Some(200)), (one.clone(), judged));
    // Steps of more images than one thread takes at once.
    let parts = AdaptSettings { batch_size: 150, ..settings() };
    assert_eq!(weights_of(200, 1, &parts, None), weights_of(200, 3, &parts, None));
    // What sources said is forgotten on the way, and asked again.
    let few = AdaptSettings { views: 2, ..settings() };
    let (two, judged) = weights_after(1, &few, None);
    assert_eq!(weights_after(2, &few, Some(600)), (two.clone(), judged));
    assert!(one != two && weights_after(2, &AdaptSettings { views: 0, ..few }, None).0 != two);
    let other = AdaptSettings { seed: 1, ..settings() };
    assert_ne!(weights_after(2, &other, None).0, one);
}

#[test]
fn only_what_may_change_changes() {
    let (network, _) = two_heads();
    let changed = |learn: Learn| -> Vec<String> {
        let (after, _) = weights_after(2, &AdaptSettings { learn, ..settings() }, None);
        let differ = after.iter().filter(|(name, tensor)| network.weights[*name] != **tensor);
        differ.map(|(name, _)| name.clone()).collect()
    };
    assert_eq!(changed(Learn::Heads), ["a.bias", "a.weight", "b.bias", "b.weight"]);
    let all = changed(Learn::Weights);
    assert!(all.contains(&"conv1.weight".into()) && all.contains(&"bn1.bias".into()), "{all:?}");
    assert!(!all.iter().any(|name| name.contains("running")), "statistics are no parameters: {all:?}");
    let (after, _) = weights_after(2, &AdaptSettings { learn: Learn::Norms, ..settings() }, None);
    // A feature's weights keep their proportions.
    let [before, after] = [&network.weights, &after].map(|w| w["layer1.0.conv1.weight"].clone());
    let (before, after) = (before.index_axis(ndarray::Axis(0), 2), after.index_axis(ndarray::Axis(0), 2));
    let share = after.iter().next().unwrap() / before.iter().next().unwrap();
    assert!((share - 1.0).abs() > 1e-5);
    assert!(after.iter().zip(before).all(|(a, b)| (a - share * b).abs() < 1e-5 * b.abs().max(0.1)), "{share}");
}

/// A step in whitened inputs is one of the same function: its gradient is that of the weights.
#[test]
fn plain_and_whitened_begin_alike_and_both_learn() {
    for whitened in [false, true] {
        let lr = if whitened { 3e-3 } else { 1e-3 };
        let (_, judged) = weights_after(2, &AdaptSettings { whitened, lr, ..settings() }, None);
        assert!(judged.last() < judged.first(), "{whitened}: {judged:?}");
    }
    let first = |whitened| weights_after(2, &AdaptSettings { whitened, ..settings() }, None).1[0];
    assert!((first(true) - first(false)).abs() < 1e-12, "the first judgement is of the network as it was given");
}

#[test]
fn bf16_and_cross_entropy_learn_too() {
    let autocast = zipit_torch::train::Autocast::Bf16;
    let objective = Objective::CrossEntropy { temperature: 2.0 };
    for settings in [AdaptSettings { autocast, ..settings() }, AdaptSettings { objective, lr: 1e-3, ..settings() }] {
        let (_, judged) = weights_after(2, &settings, None);
        assert!(judged.iter().skip(1).any(|loss| *loss < judged[0]), "{:?}: {judged:?}", settings.objective);
    }
}

#[test]
fn the_best_network_is_kept() {
    let (network, sources) = two_heads();
    let (sources, outputs): (Vec<&Model>, _) = (sources.iter().collect(), [vec![0], vec![1]]);
    let images = noise(120);
    // Nothing is better than what was given: it begins again with smaller steps, in vain, and what was given comes back.
    let (itself, all) = ([&network], [vec![0, 1]]);
    let mut vain = adapter(&network, &itself, &all, &images, 120, AdaptSettings { lr: 0.081, ..settings() });
    vain.plan(200);
    while vain.judged().len() == 1 && vain.round(&Unwatched, &mut |_| {}).unwrap() {}
    let judged: Vec<f64> = vain.judged().iter().map(|judged| judged.loss).collect();
    assert!(judged.len() == 2 && judged[1] > judged[0], "{judged:?}");
    assert!((vain.lr() - 0.001).abs() < 1e-9, "{}", vain.lr());
    assert_eq!(vain.network(&Unwatched).unwrap().weights, network.weights);
    // Where smaller ones do, the rest of the steps is made with them.
    let mut lowered = adapter(&network, &sources, &outputs, &images, 120, AdaptSettings { lr: 0.1, ..settings() });
    lowered.plan(400);
    learn(&mut lowered);
    assert!(lowered.lr() < 0.1 && lowered.steps()[1] < 400, "{} {:?}", lowered.lr(), lowered.steps());
    assert!(lowered.best().unwrap().loss < lowered.judged()[0].loss, "{:?}", lowered.judged());
    // What is written is what was judged best.
    let mut mild = adapter(&network, &sources, &outputs, &images, 120, settings());
    mild.plan(200);
    learn(&mut mild);
    let (best, after) = (mild.best().unwrap().loss, mild.network(&Unwatched).unwrap());
    let again = adapter(&after, &sources, &outputs, &images, 120, settings()).judged()[0].loss;
    assert!((again / best - 1.0).abs() < 1e-4, "{again} instead of {best}");
}

/// What broke late is as good as it was before.
#[test]
fn a_loss_that_becomes_no_number_ends_with_the_best_network() {
    let (network, sources) = two_heads();
    let (sources, outputs): (Vec<&Model>, _) = (sources.iter().collect(), [vec![0], vec![1]]);
    let images = Breaks { images: noise(120), left: AtomicUsize::new(usize::MAX) };
    let wanted = Wanted { network: &network, sources: &sources, outputs: &outputs, owners: None, judges: None };
    let mut adapter = Adapter::new(wanted, &images, 120, settings(), Device::Cpu, &Unwatched).unwrap();
    adapter.plan(200);
    assert!(adapter.round(&Unwatched, &mut |_| {}).unwrap());
    images.left.store(3, Ordering::Relaxed);
    learn(&mut adapter);
    assert!(adapter.broke().unwrap().contains("after step"), "{:?}", adapter.broke());
    assert!(adapter.is_done() && adapter.judged().len() >= 2);
    let after = adapter.network(&Unwatched).unwrap().weights;
    assert!(after.values().flatten().all(|x| x.is_finite()) && after != network.weights);
}

/// Images whose pixels are no numbers after a while.
struct Breaks {
    images: InMemory,
    left: AtomicUsize,
}

impl Images for Breaks {
    fn images(&self, indices: &[usize]) -> Result<Array4<f32>, zipit_torch::ImageError> {
        let images = self.images.images(indices)?;
        let left = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| Some(n.saturating_sub(1)));
        Ok(if left == Ok(0) { images * f32::NAN } else { images })
    }
}

/// Learned tokens and positions beside layers in bf16, as PyTorch's autocast has them.
#[test]
fn a_transformer_learns_in_bf16_too() {
    let norm = || Op::LayerNorm { num_features: 8, eps: 1e-5, bias: true };
    let linear = |i, o| Op::Linear { in_features: i, out_features: o, bias: true };
    let patches =
        Op::Conv2d { in_channels: 1, out_channels: 8, window: Window::square(2, 2, 0), groups: 1, bias: true };
    let attention = Op::Attention { heads: 2, scale: None, bias: Some([1, 2, 5, 5]) };
    let transformer = graph(
        [1, 4, 4],
        &[
            ("patches", patches, &["input"]),
            ("tokens", Op::Tokens, &["patches"]),
            ("class", Op::PrependTokens { num_tokens: 1, num_features: 8 }, &["tokens"]),
            ("embedded", Op::PositionEmbedding { shape: vec![1, 5, 8], axis: 2 }, &["class"]),
            ("norm1", norm(), &["embedded"]),
            ("qkv", linear(8, 8), &["norm1"]),
            ("attention", attention, &["qkv", "qkv", "qkv"]),
            ("projection", linear(8, 8), &["attention"]),
            ("scale", Op::LayerScale { shape: vec![8], axis: 0 }, &["projection"]),
            ("add", Op::Add, &["embedded", "scale"]),
            ("up", linear(8, 12), &["add"]),
            ("act", Op::Activation { function: zipit::graph::Activation::Gelu }, &["up"]),
            ("down", linear(12, 8), &["act"]),
            ("add2", Op::Add, &["add", "down"]),
            ("norm2", norm(), &["add2"]),
            ("token", Op::SelectToken { index: 0 }, &["norm2"]),
            ("logits", linear(8, 3), &["token"]),
        ],
        &["logits"],
    );
    let network = model(transformer.clone(), 1);
    let source = model(transformer, 2);
    let [channels, h, w] = network.graph.input.shape[..] else { panic!("images") };
    let images = InMemory::new(networks::images(60, [channels, h, w], 5), 16);
    let (sources, outputs) = ([&source], [vec![0]]);
    for autocast in [zipit_torch::train::Autocast::Off, zipit_torch::train::Autocast::Bf16] {
        let settings = AdaptSettings { autocast, batch_size: 30, lr: 1e-3, ..AdaptSettings::default() };
        let mut adapter = adapter(&network, &sources, &outputs, &images, 60, settings);
        adapter.plan(60);
        learn(&mut adapter);
        assert!(adapter.best().unwrap().loss < adapter.judged()[0].loss, "{:?}", adapter.judged());
    }
}

/// Entropy of softmax(θ₀ + λ₁τ₁ + λ₂τ₂), by a grid over λ: that is where the coefficients go.
#[test]
fn coefficients_move_to_where_the_entropy_is_least() {
    let linear = graph(
        [3, 2, 2],
        &[
            ("mean", Op::Mean, &["input"]),
            ("logits", Op::Linear { in_features: 3, out_features: 4, bias: true }, &["mean"]),
        ],
        &["logits"],
    );
    let network = model(linear, 1);
    let tensor = |step: f64| -> StateDict {
        [
            ("logits.weight".to_owned(), wave(&[4, 3], step, 0.2, 3.0)),
            ("logits.bias".to_owned(), wave(&[4], step, 1.0, 0.5)),
        ]
        .into()
    };
    let (base, vectors) = (tensor(0.4), vec![tensor(1.7), tensor(2.9)]);
    let images = InMemory::new(networks::images(60, [3, 2, 2], 3), 16);
    let fitted: Vec<usize> = (0..60).filter(|i| i % 10 != 9).collect();
    let entropy = |lambda: [f32; 2]| -> f64 {
        let mut at = network.clone();
        for (name, start) in &base {
            at.weights
                .insert(name.clone(), start + &(&vectors[0][name] * lambda[0]) + &(&vectors[1][name] * lambda[1]));
        }
        let network = Network::new(&at, Device::Cpu).unwrap();
        let logits = network.outputs(network.input(&images.images(&fitted).unwrap()).unwrap()).unwrap();
        let log = logits[0].log_softmax(1, tch::Kind::Float);
        -(log.exp() * log).sum(tch::Kind::Double).double_value(&[]) / fitted.len() as f64
    };
    let grid = (0..=20).flat_map(|a| (0..=20).map(move |b| [a, b].map(|x: i32| x as f32 / 20.0)));
    let least = grid.min_by(|a, b| entropy(*a).total_cmp(&entropy(*b))).unwrap();
    let coefficients =
        Coefficients { base: base.clone(), vectors: vectors.clone(), per_tensor: false, initial: 0.3, clamp: true };
    let settings = AdaptSettings {
        objective: Objective::Entropy,
        learn: Learn::Coefficients(coefficients),
        lr: 0.05,
        believed: Believed::All,
        ..AdaptSettings::default()
    };
    let mut adapter = Adapter::new(wanted(&network), &images, 60, settings, Device::Cpu, &Unwatched).unwrap();
    adapter.plan(200);
    learn(&mut adapter);
    let found = adapter.coefficients().unwrap().unwrap();
    let off: Vec<f32> = found.iter().zip(least).map(|(found, least)| (found - least).abs()).collect();
    assert!(off.iter().all(|off| *off <= 0.1), "{found} instead of {least:?}");
    assert!(found.iter().any(|found| (found - 0.3).abs() > 0.1), "they did not move: {found}");
}

fn wanted(network: &Model) -> Wanted<'_> {
    Wanted { network, sources: &[], outputs: &[], owners: None, judges: None }
}

/// Running statistics are of the network that is given, not of the sum: they play no part, and are measured in the end.
#[test]
fn sums_of_task_vectors_have_statistics_of_their_own() {
    let (network, sources) = two_heads();
    let vector = |of: &Model| -> StateDict {
        let shared = network.weights.iter().filter(|(name, _)| name.contains("conv") || name.starts_with("layer"));
        let shared = shared.filter(|(name, _)| !name.contains("running"));
        shared.map(|(name, start)| (name.clone(), &of.weights[name] - start)).collect()
    };
    let vectors: Vec<StateDict> = sources.iter().map(vector).collect();
    let base: StateDict = vectors[0].keys().map(|name| (name.clone(), network.weights[name].clone())).collect();
    let coefficients =
        Coefficients { base: base.clone(), vectors: vectors.clone(), per_tensor: true, initial: 0.3, clamp: false };
    let settings = AdaptSettings {
        objective: Objective::Entropy,
        learn: Learn::Coefficients(coefficients),
        batch_size: 40,
        lr: 0.01,
        ..AdaptSettings::default()
    };
    let images = noise(120);
    let learned = |network: &Model, n_steps: u64| {
        let made = Adapter::new(wanted(network), &images, 120, settings.clone(), Device::Cpu, &Unwatched);
        let mut adapter = made.unwrap();
        adapter.plan(n_steps);
        while adapter.steps()[0] < n_steps {
            assert!(adapter.round(&Unwatched, &mut |_| {}).unwrap());
        }
        let losses: Vec<f64> = adapter.judged().iter().map(|judged| judged.loss).collect();
        let stopped = adapter.network(&StopAfter::new(0)).unwrap_err().to_string();
        assert!(stopped.contains("interrupted"), "{stopped}");
        (adapter.network(&Unwatched).unwrap(), losses, adapter.coefficients().unwrap().unwrap())
    };
    let (after, losses, found) = learned(&network, 40);
    assert!(losses.last() < losses.first(), "{losses:?}");
    let mut others = network.clone();
    for (name, tensor) in &mut others.weights {
        if name.contains("running") {
            tensor.mapv_inplace(|x| 3.0 * x + 1.0);
        }
    }
    let (same, again, _) = learned(&others, 40);
    assert_eq!((same.weights, again), (after.weights.clone(), losses));
    let mut sum = network.clone();
    for (at, (name, start)) in base.iter().enumerate() {
        let scaled = (0..2).map(|task| &vectors[task][name] * found[[task, at]]);
        sum.weights.insert(name.clone(), scaled.fold(start.clone(), |sum, vector| sum + vector));
    }
    let batches = zipit_torch::images::Picked::new(&images, (0..120).collect(), zipit_torch::batch_norm::BATCH);
    let measured = zipit_torch::batch_norm::reset(&sum, &batches, Device::Cpu, &Unwatched).unwrap();
    for (name, tensor) in &measured.weights {
        let far = tensor.iter().zip(&after.weights[name]).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(far < 1e-4 * tensor.iter().fold(1.0, |most: f32, x| most.max(x.abs())), "{name}: {far}");
    }
    // No image is left alone, whose statistics would say nothing: neither in a step, nor by a judge, nor in the end.
    let odd = noise(251);
    let single = AdaptSettings { batch_size: 33, ..settings.clone() };
    let mut adapter = Adapter::new(wanted(&network), &odd, 251, single, Device::Cpu, &Unwatched).unwrap();
    adapter.plan(2);
    assert!(adapter.round(&Unwatched, &mut |_| {}).unwrap());
    assert!(adapter.network(&Unwatched).unwrap().weights.values().flatten().all(|x| x.is_finite()));
    for (n, settings) in [(19, settings.clone()), (120, AdaptSettings { batch_size: 1, ..settings.clone() })] {
        let refused = Adapter::new(wanted(&network), &noise(n), n, settings, Device::Cpu, &Unwatched).err().unwrap();
        assert!(refused.to_string().contains("take 20 images or more"), "{refused}");
    }
}

#[test]
fn a_state_of_something_else_is_refused() {
    let (network, sources) = two_heads();
    let (sources, outputs): (Vec<&Model>, _) = (sources.iter().collect(), [vec![0], vec![1]]);
    let images = noise(60);
    let mut adapter = adapter(&network, &sources, &outputs, &images, 60, settings());
    adapter.plan(4);
    let good = adapter.state().unwrap();
    let mut missing = good.clone();
    missing.tensors.remove("best.conv1.weight");
    let mut shaped = good.clone();
    shaped.tensors.insert("now.conv1.weight".into(), ArrayD::zeros(IxDyn(&[2])));
    let mut steps = good.clone();
    steps.steps = [5, 4];
    let mut lowered = good.clone();
    lowered.lowered = 9;
    for (state, said) in [
        (missing, "missing: best.conv1.weight"),
        (shaped, "wrong shape"),
        (steps, "no adaptation"),
        (lowered, "no adaptation"),
    ] {
        let error = adapter.restore(&state).unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
    }
    adapter.restore(&good).unwrap();
}

/// Reads no image twice as something else, and stops when it is told to.
struct Broken;

impl Images for Broken {
    fn images(&self, _: &[usize]) -> Result<Array4<f32>, zipit_torch::ImageError> {
        Err("a hole in the disk".into())
    }
}

#[test]
fn what_goes_wrong_is_said() {
    let (network, sources) = two_heads();
    let sources: Vec<&Model> = sources.iter().collect();
    let images = noise(20);
    let fails = |wanted: Wanted<'_>, images: &dyn Images, n: usize, settings: AdaptSettings, watch: &dyn Watch| {
        let made = Adapter::new(wanted, images, n, settings, Device::Cpu, watch);
        made.err().map_or_else(|| "nothing went wrong".to_owned(), |e| e.to_string())
    };
    let (right, wrong) = ([vec![0], vec![1]], [vec![0], vec![7]]);
    let good = Wanted { network: &network, sources: &sources, outputs: &right, owners: None, judges: None };
    let default = AdaptSettings::default;
    let said: BTreeMap<&str, String> = [
        ("a hole in the disk", fails(good, &Broken, 20, default(), &Unwatched)),
        ("no images", fails(good, &images, 0, default(), &Unwatched)),
        (
            "learning rate must be positive",
            fails(good, &images, 20, AdaptSettings { lr: 0.0, ..default() }, &Unwatched),
        ),
        ("that say who judges", fails(Wanted { judges: Some(&[true; 3]), ..good }, &images, 20, default(), &Unwatched)),
        ("output 0 of source 1", fails(Wanted { outputs: &wrong, ..good }, &images, 20, default(), &Unwatched)),
        ("interrupted", fails(good, &images, 20, default(), &StopAfter::new(0))),
    ]
    .into();
    for (words, found) in said {
        assert!(found.contains(words), "`{words}` is not in: {found}");
    }
}
