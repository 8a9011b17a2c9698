//! Refit against normal equations that are set up by loops and solved by elimination, layer by layer.
#![allow(clippy::unwrap_used)]

mod networks;

use ndarray::{Array1, Array2, Array4, ArrayD, Axis, Ix2, Ix4, concatenate};
use networks::merging::{Merge, batches, logits, plan, random, run, samples, solution, values, weights};
use networks::{graph, images, model};
use std::collections::BTreeMap;
use zipit::Model;
use zipit::graph::{Node, Op, Window};
use zipit::images::{ImageBatches, Mirrored};
use zipit::refit::{FOREIGN, Owners, Ridge};
use zipit::watch::Unwatched;
use zipit_torch::refit::{Inputs, Solved, Task};

/// A stride and a window that differ by axis, a depthwise convolution, a dilated one that is the last to write a sum,
/// and a Linear that reads several positions.
fn network(seed: u64) -> Model {
    let window = |kernel, stride, padding, dilation| Window { kernel, stride, padding, dilation, ceil_mode: false };
    let conv = |i, o, window, groups| Op::Conv2d { in_channels: i, out_channels: o, window, groups, bias: o != 4 };
    let linear = |i, o| Op::Linear { in_features: i, out_features: o, bias: o == 3 };
    let nodes: [(&str, Op, &[&str]); 13] = [
        ("first", conv(2, 4, Window::square(3, 1, 1), 1), &["input"]),
        ("first.relu", Op::Relu, &["first"]),
        ("strided", conv(4, 5, window([3, 2], [2, 1], [1, 0], [1, 1]), 1), &["first.relu"]),
        ("strided.relu", Op::Relu, &["strided"]),
        ("depthwise", conv(5, 5, Window::square(3, 1, 1), 5), &["strided.relu"]),
        ("depthwise.relu", Op::Relu, &["depthwise"]),
        ("dilated", conv(5, 5, window([3, 3], [1, 1], [2, 2], [2, 2]), 1), &["depthwise.relu"]),
        ("sum", Op::Add, &["dilated", "strided.relu"]),
        ("sum.relu", Op::Relu, &["sum"]),
        ("flatten", Op::Flatten, &["sum.relu"]),
        ("hidden", linear(5 * 3 * 3, 6), &["flatten"]),
        ("hidden.relu", Op::Relu, &["hidden"]),
        ("head", linear(6, 3), &["hidden.relu"]),
    ];
    model(graph([2, 6, 4], &nodes, &["head"]), seed)
}

/// `[n, F]` for each group: what the outputs of a convolution are sums of, in the order of PyTorch's weights.
fn patches(x: &Array4<f64>, window: &Window, groups: usize) -> Vec<Array2<f64>> {
    let (n, c, h, w) = x.dim();
    let [out_h, out_w] = window.output([h, w]).unwrap();
    let ([kh, kw], per_group) = (window.kernel, c / groups);
    let mut all = vec![Array2::zeros((n * out_h * out_w, per_group * kh * kw)); groups];
    for (group, rows) in all.iter_mut().enumerate() {
        for ((sample, column), to) in rows.indexed_iter_mut() {
            let (image, position) = (sample / (out_h * out_w), sample % (out_h * out_w));
            let (channel, tap) = (column / (kh * kw), column % (kh * kw));
            let at = |out: usize, axis: usize, tap: usize| {
                (out * window.stride[axis] + tap * window.dilation[axis]).checked_sub(window.padding[axis])
            };
            let (y, x_at) = (at(position / out_w, 0, tap / kw), at(position % out_w, 1, tap % kw));
            if let (Some(y), Some(x_at)) = (y, x_at)
                && y < h
                && x_at < w
            {
                *to = x[[image, group * per_group + channel, y, x_at]];
            }
        }
    }
    all
}

/// What a layer reads, group by group.
fn inputs(op: &Op, x: &ArrayD<f64>) -> Vec<Array2<f64>> {
    match op {
        Op::Conv2d { window, groups, .. } => patches(&x.clone().into_dimensionality::<Ix4>().unwrap(), window, *groups),
        _ => vec![x.clone().into_dimensionality::<Ix2>().unwrap()],
    }
}

/// A x = B by elimination with row exchanges.
fn eliminate(mut a: Array2<f64>, mut b: Array2<f64>) -> Array2<f64> {
    let n = a.nrows();
    for k in 0..n {
        let pivot = (k..n).max_by(|&i, &j| a[[i, k]].abs().total_cmp(&a[[j, k]].abs())).unwrap();
        for column in 0..n {
            a.swap([k, column], [pivot, column]);
        }
        for column in 0..b.ncols() {
            b.swap([k, column], [pivot, column]);
        }
        for i in (0..n).filter(|&i| i != k) {
            let factor = a[[i, k]] / a[[k, k]];
            let (row, other) = (a.row(k).to_owned(), b.row(k).to_owned());
            a.row_mut(i).scaled_add(-factor, &row);
            b.row_mut(i).scaled_add(-factor, &other);
        }
    }
    Array2::from_shape_fn(b.dim(), |(i, j)| b[[i, j]] / a[[i, i]])
}

/// A layer's solution and its errors before and after, in units of the target's variance.
struct Expected {
    w: Array2<f64>,
    b: Array1<f64>,
    before: f64,
    after: f64,
}

/// min over W and b of E‖W x + b − y‖² + λ·c·‖W − W*‖², group by group, b as one more unknown without a price.
fn normal_equations(x: &[Array2<f64>], y: &Array2<f64>, prior: (&ArrayD<f64>, &Array1<f64>), ridge: f64) -> Expected {
    let n_outputs = y.ncols() / x.len();
    let n = y.nrows() as f64;
    let (w_star, b_star) = prior;
    let w_star = w_star.to_shape((y.ncols(), w_star.len() / y.ncols())).unwrap();
    let (mut w, mut b) = (Array2::zeros(w_star.dim()), Array1::zeros(y.ncols()));
    let (mut before, mut after, mut energy) = (0.0, 0.0, 0.0);
    for (group, x) in x.iter().enumerate() {
        let f = x.ncols();
        let outputs: Vec<usize> = (group * n_outputs..(group + 1) * n_outputs).collect();
        let (own, y) = (w_star.select(Axis(0), &outputs), y.select(Axis(1), &outputs));
        let price = ridge * x.var_axis(Axis(0), 0.0).mean().unwrap();
        let with_one = ndarray::concatenate![Axis(1), *x, Array2::ones((x.nrows(), 1))];
        let mut a = with_one.t().dot(&with_one) / n;
        let mut right = with_one.t().dot(&y) / n;
        for k in 0..f {
            a[[k, k]] += price;
            right.row_mut(k).scaled_add(price, &own.column(k));
        }
        let solved = eliminate(a, right);
        for (k, &output) in outputs.iter().enumerate() {
            w.row_mut(output).assign(&solved.column(k).slice_axis(Axis(0), (..f).into()));
            b[output] = solved[[f, k]];
        }
        let error = |off: Array2<f64>| (&off * &off).sum() / n;
        before += error(x.dot(&own.t()) + b_star.select(Axis(0), &outputs) - &y);
        after += error(with_one.dot(&solved) - &y);
        energy += y.var_axis(Axis(0), 0.0).sum();
    }
    Expected { w, b, before: before / energy, after: after / energy }
}

/// Values of the models and of the solved network, and who is believed where.
struct Seen {
    models: Vec<BTreeMap<String, ArrayD<f64>>>,
    solved: BTreeMap<String, ArrayD<f64>>,
    owners: Option<Owners>,
}

impl Seen {
    /// Blending is linear, so averages that count models differently are a quotient of two.
    fn blend(&self, merge: &Merge, value: &str) -> ArrayD<f64> {
        let own: Vec<&ArrayD<f64>> = self.models.iter().map(|values| &values[value]).collect();
        let Some(owners) = &self.owners else { return merge.blend(value, &own) };
        let counted = |of: &dyn Fn(usize) -> ArrayD<f64>| {
            let values: Vec<ArrayD<f64>> = (0..own.len())
                .map(|model| {
                    let mut value = of(model);
                    for (image, mut row) in value.outer_iter_mut().enumerate() {
                        row *= if owners.of()[image] == model { 1.0 } else { f64::from(FOREIGN) };
                    }
                    value
                })
                .collect();
            merge.blend(value, &values.iter().collect::<Vec<_>>())
        };
        counted(&|model| own[model].clone()) / counted(&|model| ArrayD::ones(own[model].raw_dim()))
    }
}

/// A layer that is the last to write a sum, and what is added to it, each as often as it is added.
type Sum<'a> = (&'a str, &'a [&'a str]);

fn check(merge: &Merge, network: &Model, solved: &Solved, seen: &Seen, (mode, ridge, sums): (Inputs, f64, &[Sum<'_>])) {
    let (name, partners) = solved.layers.split_last().unwrap();
    let node = network.graph.node(name).unwrap();
    let read = |node: &Node| match mode {
        Inputs::Sequential => seen.solved[&node.inputs[0]].clone(),
        Inputs::Layerwise => seen.blend(merge, &node.inputs[0]),
    };
    let mut x = read(node);
    let own = name.strip_prefix("models.").map(|own| (own[..1].parse::<usize>().unwrap(), &own[2..]));
    let mut y = match own {
        Some((model, name)) => seen.models[model][name].clone(),
        None => seen.blend(merge, name),
    };
    if let (Inputs::Sequential, Some((_, others))) = (mode, sums.iter().find(|(last, _)| *last == name)) {
        for partner in partners {
            y = y + seen.blend(merge, partner);
        }
        for other in others.iter().filter(|&&other| partners.iter().all(|partner| partner != other)) {
            y = y.clone() + mean_like(seen.blend(merge, other) - &seen.solved[*other], y.shape());
        }
    }
    if let (Some(owners), Some((model, _))) = (&seen.owners, own) {
        let mine: Vec<usize> = (0..owners.of().len()).filter(|&image| owners.of()[image] == model).collect();
        (x, y) = (x.select(Axis(0), &mine), y.select(Axis(0), &mine));
    }
    let mut x = inputs(&node.op, &x);
    for partner in partners.iter().rev() {
        let node = network.graph.node(partner).unwrap();
        x = vec![ndarray::concatenate![Axis(1), inputs(&node.op, &read(node))[0], x[0]]];
    }
    // Side by side; biases add.
    let n_outputs = samples(&y).ncols();
    let of = |model: &Model| {
        let get = |name: &String, param: &str| model.weights.get(&format!("{name}.{param}"));
        let rows = |name: &String| {
            let weight = get(name, "weight").unwrap().mapv(f64::from);
            weight.to_shape((n_outputs, weight.len() / n_outputs)).unwrap().into_owned()
        };
        let each: Vec<Array2<f64>> = solved.layers.iter().map(rows).collect();
        let w = ndarray::concatenate(Axis(1), &each.iter().map(Array2::view).collect::<Vec<_>>()).unwrap();
        let biases = solved.layers.iter().filter_map(|name| get(name, "bias"));
        let b = biases.fold(Array1::zeros(n_outputs), |sum, b| sum + Array1::from_iter(b.mapv(f64::from)));
        (w.into_dyn(), b)
    };
    let ((w_star, b_star), (w, b)) = (of(&merge.grafted.model), of(network));
    let expected = normal_equations(&x, &samples(&y), (&w_star, &b_star), ridge);
    let largest = |x: &mut dyn Iterator<Item = f64>| x.fold(0.0_f64, |m, x| m.max(x.abs()));
    let size = largest(&mut expected.w.iter().chain(&expected.b).copied());
    let off_w = largest(&mut (w - &expected.w.into_dyn()).into_iter());
    let off_b = largest(&mut (b - &expected.b).into_iter());
    assert!(
        off_w.max(off_b) < 1e-4 * size,
        "{mode:?}, ridge {ridge}, {:?}: W and b are off by {off_w} and {off_b}",
        solved.layers
    );
    let told = solution(solved);
    assert!((told.before - expected.before).abs() < 1e-4 * (1.0 + expected.before), "`{name}`: {told:?}");
    assert!((told.after - expected.after).abs() < 1e-4, "`{name}`: {told:?}, expected {}", expected.after);
    assert!(told.after <= told.before && told.ridge.to_bits() == ridge.to_bits() && told.held_out.is_none());
}

/// The mean over positions where `shape` has one and `x` several.
fn mean_like(x: ArrayD<f64>, shape: &[usize]) -> ArrayD<f64> {
    (0..shape.len()).filter(|&axis| shape[axis] == 1).fold(x, |x, axis| {
        let mean = x.mean_axis(Axis(axis)).unwrap();
        mean.insert_axis(Axis(axis))
    })
}

const WAYS: [(f64, Inputs); 3] = [(1.2, Inputs::Sequential), (0.8, Inputs::Sequential), (1.2, Inputs::Layerwise)];

/// Merges two networks to a share of their features, solves every layer and checks it; the names of the layers.
fn check_all((share, mode): (f64, Inputs), ridge: f64, owners: Option<Owners>) -> Vec<String> {
    let [a, b] = [network(1), network(2)];
    let merge = Merge::new(&[&a, &b], random(&a.graph, 2, share, 3));
    let data = images(150, [2, 6, 4], 4);
    let given = batches(&data, 16);
    let mut refit = merge.start(&given, weights(mode, Ridge::Fixed(ridge)), None).unwrap();
    if let Some(owners) = owners.clone() {
        refit = refit.with_owners(owners).unwrap();
    }
    let solved = run(&mut refit, &Unwatched).unwrap();
    assert_eq!(solved.len(), refit.n_layers());
    let network = refit.model();
    network.validate().unwrap();
    let models = merge.models.iter().map(|model| values(model, &data)).collect();
    let seen = Seen { models, solved: values(network, &data), owners };
    for layer in &solved {
        check(&merge, network, layer, &seen, (mode, ridge, &[("dilated", &["strided.relu"])]));
    }
    solved.into_iter().map(|layer| layer.layers.join(" + ")).collect()
}

#[test]
fn every_layer_solves_its_normal_equations() {
    for way in WAYS {
        for ridge in [1e-3, 0.3, 30.0] {
            // The first layer reads the images themselves: what is merged there is exact.
            let layers = ["strided", "depthwise", "dilated", "hidden", "models.0.head", "models.1.head"];
            assert_eq!(check_all(way, ridge, None), layers);
        }
    }
}

/// The same where on every image one model is believed: targets follow it, and its own layers are fitted to its images.
#[test]
fn layers_are_fitted_to_the_model_that_is_believed() {
    let owners = Owners::new((0..150).map(|image| usize::from(image % 5 > 2)).collect(), 2).unwrap();
    for way in WAYS {
        assert_eq!(check_all(way, 0.3, Some(owners.clone())).len(), 6);
    }
}

#[test]
fn owners_of_other_images_or_models_are_refused() {
    let [a, b] = [network(1), network(2)];
    let merge = Merge::new(&[&a, &b], random(&a.graph, 2, 1.0, 3));
    let data = images(20, [2, 6, 4], 4);
    let given = batches(&data, 16);
    let refused = |task, n: usize, n_models: usize| {
        let refit = merge.start(&given, task, None).unwrap();
        refit.with_owners(Owners::new(vec![0; n], n_models).unwrap()).err().map(|error| error.to_string())
    };
    let weights = weights(Inputs::Sequential, Ridge::HeldOut);
    assert!(refused(weights, 19, 2).unwrap().contains("19 images of 2 models"));
    assert!(refused(weights, 20, 3).unwrap().contains("there are 20 images and 2 models"));
    assert!(refused(Task::Scale, 20, 2).unwrap().contains("all images alike"));
    assert_eq!(refused(weights, 20, 2), None);
}

/// Mirror images are images, but not other ones: they are held out with their originals.
#[test]
fn mirror_images_are_fitted_and_held_out_with_their_originals() {
    let [a, b] = [network(1), network(2)];
    let merge = Merge::new(&[&a, &b], random(&a.graph, 2, 1.0, 3));
    let data = images(21, [2, 6, 4], 4);
    let given = batches(&data, 8);
    let mirrored = Mirrored::new(&given);
    let mut last_to_first = data.clone();
    last_to_first.invert_axis(Axis(3));
    let part = |from: usize, to: usize| [&data, &last_to_first].map(|all| all.slice_axis(Axis(0), (from..to).into()));
    let all: Vec<_> = [(0, 8), (8, 16), (16, 21)].into_iter().flat_map(|(from, to)| part(from, to)).collect();
    let all = batches(&concatenate(Axis(0), &all).unwrap(), 16);
    let [by_mirror, by_hand] = [&mirrored as &dyn ImageBatches, &all].map(|images| {
        let mut refit = merge.start(images, weights(Inputs::Sequential, Ridge::Fixed(0.3)), None).unwrap();
        let seen = refit.look(&Unwatched).unwrap();
        run(&mut refit, &Unwatched).unwrap();
        ([seen.n_images, seen.n_different, seen.n_held_out], refit.model().weights.clone())
    });
    assert_eq!(by_mirror.0, [42, 21, 10]);
    assert_eq!(by_hand.0, [42, 42, 10]);
    for (name, weight) in &by_mirror.1 {
        let off = (weight - &by_hand.1[name]).mapv(f32::abs).fold(0.0, |m: f32, &x| m.max(x));
        assert!(off < 1e-5, "{name}: {off}");
    }
}

/// The last writer of a sum makes up for what the skip path lost: fitted to its own target alone, on the same inputs, it
/// would leave the sum further off.
#[test]
fn a_sum_is_nearer_to_its_target_than_its_summands_would_bring_it() {
    let [a, b] = [network(1), network(2)];
    let merge = Merge::new(&[&a, &b], random(&a.graph, 2, 1.0, 3));
    let data = images(150, [2, 6, 4], 4);
    let (solved, _) = merge.refit(&batches(&data, 50), weights(Inputs::Sequential, Ridge::Fixed(1e-3))).unwrap();
    let models = merge.models.iter().map(|model| values(model, &data)).collect();
    let seen = Seen { models, solved: values(&solved, &data), owners: None };
    let node = solved.graph.node("dilated").unwrap();
    let x = inputs(&node.op, &seen.solved[&node.inputs[0]]);
    let of = |param: &str| merge.grafted.model.weights[&format!("dilated.{param}")].mapv(f64::from);
    let prior = (&of("weight"), &Array1::from_iter(of("bias")));
    let alone = normal_equations(&x, &samples(&seen.blend(&merge, "dilated")), prior, 1e-3);
    let sum_alone = x[0].dot(&alone.w.t()) + &alone.b + samples(&seen.solved["strided.relu"]);
    let target = samples(&seen.blend(&merge, "sum"));
    let error = |sum: &Array2<f64>| (sum - &target).mapv(|x| x * x).sum();
    let (found, alone) = (error(&samples(&seen.solved["sum"])), error(&sum_alone));
    assert!(found < 0.9 * alone, "{found}, and {alone} without the skip path's error");
}

/// Branches on `x` between a stem and a head: `a` is a convolution, `n` a norm, `g` a gate for every channel, `r` what
/// others make of `a`; `s=a+b` is a sum, and the last one is what the head reads.
fn branches(description: &str, seed: u64) -> Model {
    let conv = |i: usize, kernel: usize, groups| Op::Conv2d {
        in_channels: i,
        out_channels: 4,
        window: Window::square(kernel, 1, kernel / 2),
        groups,
        bias: kernel == 1,
    };
    let mut nodes = vec![("stem", conv(2, 3, 1), vec!["input"]), ("x", Op::Relu, vec!["stem"])];
    let mut sum = "";
    for word in description.split(' ') {
        match word.split_once('=') {
            Some((name, summands)) => {
                nodes.push((name, Op::Add, summands.split('+').collect()));
                sum = name;
            }
            None => nodes.extend(match word {
                "a" => vec![("a", conv(4, 3, 1), vec!["x"])],
                "b" => vec![("b", conv(4, 1, 1), vec!["x"])],
                "c" => vec![("c", conv(4, 5, 1), vec!["x"])],
                "d" => vec![("d", conv(4, 3, 4), vec!["x"])],
                "n" => vec![("n", Op::BatchNorm2d { num_features: 4, eps: 1e-3 }, vec!["x"])],
                "g" => vec![
                    ("pool", Op::AdaptiveAvgPool2d { output: [1, 1] }, vec!["x"]),
                    ("g", conv(4, 1, 1), vec!["pool"]),
                ],
                "r" => vec![("other", conv(4, 1, 1), vec!["a"]), ("r", Op::Relu, vec!["other"])],
                unknown => panic!("{unknown}"),
            }),
        }
    }
    let head = Op::Linear { in_features: 4, out_features: 3, bias: true };
    nodes.extend([("act", Op::Relu, vec![sum]), ("mean", Op::Mean, vec!["act"]), ("head", head, vec!["mean"])]);
    let nodes: Vec<(&str, Op, &[&str])> = nodes.iter().map(|(name, op, read)| (*name, op.clone(), &read[..])).collect();
    model(graph([2, 5, 4], &nodes, &["head"]), seed)
}

/// Sums of three and more, added up in any order, with a summand that others read too, that is added twice or repeated
/// over positions: the last layer to write them makes up for every other, also for those that are gone by then.
#[test]
fn the_last_layer_of_any_sum_makes_up_for_all_others() {
    let rows: [(&str, &[Sum<'_>]); 12] = [
        ("a b s=a+b c t=s+c", &[("c", &["a", "b"])]),
        ("a b c s=b+c t=a+s", &[("c", &["a", "b"])]),
        ("a b s=a+b d t=d+s", &[("d", &["a", "b"])]),
        ("n a s=n+a b t=s+b", &[("b", &["n", "a"])]),
        ("a b s=a+b c t=s+c d u=t+d", &[("d", &["a", "b", "c"])]),
        ("a b s=a+b c d t=c+d u=t+s", &[("d", &["a", "b", "c"])]),
        ("a b c t=a+x+b+c", &[("c", &["a", "b", "x"])]),
        // Added twice.
        ("a b t=a+b+a", &[("b", &["a", "a"])]),
        ("a s=a+a b t=s+b", &[("b", &["a", "a"])]),
        ("a b s=a+b t=s+s c u=t+c", &[("b", &["a"]), ("c", &["a", "b", "a", "b"])]),
        // Read by another layer, too: others make up for it, and it for none.
        ("b a s=b+a r t=s+r", &[("b", &[])]),
        ("a b g s=a+b t=g+s", &[("g", &["a", "b"])]),
    ];
    for (row, sums) in rows {
        let all: Vec<Model> = (1..4).map(|seed| branches(row, seed)).collect();
        for (n_models, mode) in [(2, Inputs::Sequential), (3, Inputs::Sequential), (2, Inputs::Layerwise)] {
            let models: Vec<&Model> = all.iter().take(n_models).collect();
            let merge = Merge::new(&models, random(&models[0].graph, n_models, 1.2, 3));
            let data = images(32, [2, 5, 4], 4);
            let (network, solved) = merge.refit(&batches(&data, 16), weights(mode, Ridge::Fixed(0.1))).unwrap();
            let models = merge.models.iter().map(|model| values(model, &data)).collect();
            let seen = Seen { models, solved: values(&network, &data), owners: None };
            assert!(sums.iter().all(|(last, _)| solved.iter().any(|layer| layer.layers == [*last])), "{row}");
            for layer in solved.iter().filter(|layer| layer.layers != ["n"]) {
                check(&merge, &network, layer, &seen, (mode, 0.1, sums));
            }
        }
    }
}

/// Layers that write one sum and nothing else are one least-squares problem, with what they read side by side, and bring
/// the sum nearer than one after the other can; others make up for nothing, or are made up for.
#[test]
fn layers_that_write_one_sum_are_solved_as_one() {
    let rows: [(&str, &[Sum<'_>], &str); 9] = [
        ("a b t=a+b", &[("b", &["a"])], "a + b"),
        ("a b s=a+b c t=s+c", &[("c", &["a", "b"])], "c"),
        ("a b c s=b+c t=a+s", &[("c", &["a", "b"])], "a + b + c"),
        ("a b c t=a+x+b+c", &[("c", &["a", "b", "x"])], "a + b + c"),
        ("n a s=n+a b t=s+b", &[("b", &["n", "a"])], "b"),
        ("n a b t=n+a+b", &[("b", &["n", "a"])], "a + b"),
        ("a d b t=a+d+b", &[("b", &["a", "d"])], "a + b"),
        // In groups, added twice, read by another layer, of another shape.
        ("a b d t=a+b+d", &[("d", &["a", "b"])], "d"),
        ("a b c t=a+b+a+c", &[("c", &["a", "b", "a"])], "b + c"),
    ];
    for (row, sums, expected) in rows {
        let all: Vec<Model> = (1..4).map(|seed| branches(row, seed)).collect();
        for n_models in [2, 3] {
            let models: Vec<&Model> = all.iter().take(n_models).collect();
            let merge = Merge::new(&models, random(&models[0].graph, n_models, 1.2, 3));
            let data = images(32, [2, 5, 4], 4);
            let given = batches(&data, 16);
            let refit = |ridge, together| {
                let (inputs, ridge) = (Inputs::Sequential, Ridge::Fixed(ridge));
                merge.refit(&given, Task::Weights { inputs, ridge, rounds: 0, together }).unwrap()
            };
            let (network, solved) = refit(0.1, true);
            let models = merge.models.iter().map(|model| values(model, &data)).collect();
            let seen = Seen { models, solved: values(&network, &data), owners: None };
            assert!(solved.iter().any(|layer| layer.layers.join(" + ") == expected), "{row}: {solved:?}");
            for layer in solved.iter().filter(|layer| layer.layers != ["n"]) {
                check(&merge, &network, layer, &seen, (Inputs::Sequential, 0.1, sums));
            }
            let off = |network: &Model| {
                let off = seen.blend(&merge, "t") - &values(network, &data)["t"];
                off.mapv(|x| x * x).sum()
            };
            // Where nothing holds them at W*, it is all that counts.
            let [together, one_by_one] = [true, false].map(|together| off(&refit(1e-6, together).0));
            // c sees all that a and b see.
            let least = if expected == "a + b" { 0.95 } else { 1.0 + 1e-6 };
            assert!(together < least * one_by_one, "{row}: {together}, one by one {one_by_one}");
        }
    }
}

/// The same where only some of the spaces are merged: every model's own branches, or parts that are summed.
#[test]
fn sums_in_partly_merged_networks_are_solved() {
    for row in ["a b s=a+b c t=s+c", "n a s=n+a b t=s+b", "a b c s=b+c t=a+s", "a b g s=a+b t=g+s", "b a s=b+a r t=s+r"]
    {
        let models: Vec<Model> = (1..4).map(|seed| branches(row, seed)).collect();
        let graph = &models[0].graph;
        let points = graph.merge_points(&graph.spaces().unwrap());
        let data = images(12, [2, 5, 4], 4);
        for n_models in [2, 3] {
            let models: Vec<&Model> = models.iter().take(n_models).collect();
            // None and all of them are other tests' work.
            for chosen in 1..(1 << points.len()) - 1 {
                let is_chosen = |name: &str| (chosen >> points.iter().position(|p| p.name == name).unwrap()) & 1 == 1;
                let merge =
                    Merge::new(&models, plan(graph, n_models, is_chosen, |space, i, j| (space + i + 2 * j) % 5));
                let (network, _) =
                    merge.refit(&batches(&data, 6), weights(Inputs::Sequential, Ridge::HeldOut)).unwrap();
                let lost = |network: &Model| -> f64 {
                    let own = merge.models.iter().flat_map(|model| logits(model, &data));
                    logits(network, &data).iter().zip(own).map(|(z, own)| (z - own).mapv(|x| x * x).sum()).sum()
                };
                let [before, after] = [&merge.grafted.model, &network].map(lost);
                assert!(after <= before + 1e-6, "{row}, {n_models} models, {chosen:b}: {before} before, {after} after");
            }
        }
    }
}
