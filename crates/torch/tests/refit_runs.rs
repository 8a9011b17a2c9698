//! Refit: the same however the work is cut, put aside or interrupted; odd images; what is refused.
#![allow(clippy::unwrap_used)]

mod networks;

use ndarray::{Array4, ArrayD, Axis, concatenate};
use networks::merging::{
    Merge, SEQUENTIAL, Shelf, batches, identity, logits, oddities, random, relative, run, solution, was_solved,
    weights, weights_differ,
};
use networks::{StopAfter, graph, images, model, resnet20, with_threads};
use std::sync::atomic::Ordering;
use zipit::Model;
use zipit::graph::Op;
use zipit::refit::{Outcome, Ridge};
use zipit::scratch::Scratch;
use zipit::watch::Unwatched;
use zipit_torch::refit::{Inputs, RIDGE_OF_FEW, Seen, Solved, Task};
use zipit_torch::{Error, Result};

const LAYERWISE: Task = weights(Inputs::Layerwise, Ridge::Fixed(1e-2));

fn resnets() -> Merge {
    let [a, b] = [1, 2].map(resnet20);
    Merge::new(&[&a, &b], random(&a.graph, 2, 1.2, 5))
}

fn odd_ones() -> Merge {
    let [a, b] = [1, 2].map(oddities);
    Merge::new(&[&a, &b], random(&a.graph, 2, 1.2, 5))
}

/// LibTorch rounds a forward pass otherwise for other batches: these untrained networks' last features hardly vary, and
/// solving raises the difference by as much as the ridge is small. What the network computes moves less than its weights;
/// but no two networks can be told apart by less than one differs from itself, image by image and all at once, which
/// is up to 10⁻⁶ where vectors are long.
#[test]
fn batches_of_any_size_give_the_same_network() {
    let fixed = |inputs, ridge| weights(inputs, Ridge::Fixed(ridge));
    for (merge, data) in [
        (resnets(), images(130, [1, 8, 8], 3)),
        (odd_ones(), images(130, [2, 4, 4], 3)),
        (resnets().at_some_positions(1), images(130, [1, 8, 8], 3)),
        (odd_ones().at_some_positions(1), images(130, [2, 4, 4], 3)),
    ] {
        for (task, allowed, of_weights) in [
            (fixed(Inputs::Sequential, 1.0), 1e-6, 2e-5),
            (fixed(Inputs::Layerwise, 1.0), 2e-6, 1e-5),
            (fixed(Inputs::Layerwise, 0.01), 5e-5, 2e-4),
            (Task::Scale, 1e-6, 1e-6),
        ] {
            let (one, solved) = merge.refit(&batches(&data, 1), task).unwrap();
            let allowed = f64::max(allowed, 3.0 * rounding(&one, &data));
            for size in [7, 64] {
                let (other, others) = merge.refit(&batches(&data, size), task).unwrap();
                assert!(solved.iter().map(|s| &s.layers).eq(others.iter().map(|s| &s.layers)));
                let difference = weights_differ(&other, &one);
                assert!(difference < of_weights, "{task:?}, batches of {size}: {difference} in weights");
                for (x, y) in logits(&other, &data).iter().zip(&logits(&one, &data)) {
                    let difference = relative(x, y);
                    assert!(difference < allowed, "{task:?}, batches of {size}: {difference} in outputs");
                }
            }
        }
    }
}

/// How far outputs are from those of each image by itself.
fn rounding(model: &Model, data: &Array4<f32>) -> f64 {
    let alone: Vec<_> = (0..data.len_of(Axis(0))).map(|i| logits(model, &data.select(Axis(0), &[i]))).collect();
    let of_head = |(head, together): (usize, &ArrayD<f64>)| {
        let alone: Vec<_> = alone.iter().map(|outputs| outputs[head].view()).collect();
        relative(&concatenate(Axis(0), &alone).unwrap(), together)
    };
    logits(model, data).iter().enumerate().map(of_head).fold(0.0, f64::max)
}

/// Every fourth image of all is held out, not of a batch.
#[test]
fn batches_of_any_size_hold_the_same_images_out() {
    let (merge, data) = (resnets(), images(50, [1, 8, 8], 3));
    let first = |size: usize| {
        let data = batches(&data, size);
        let mut refit = merge.start(&data, weights(Inputs::Sequential, Ridge::HeldOut), None).unwrap();
        solution(&refit.step(&Unwatched).unwrap()[0])
    };
    let one = first(1);
    for size in [2, 7, 64] {
        let other = first(size);
        let [a, b] = [one, other].map(|told| told.held_out.unwrap());
        assert!(one.ridge.to_bits() == other.ridge.to_bits() && (a - b).abs() < 1e-4 * a, "{one:?}, {other:?}");
    }
}

/// Copies of an image say no more than it says; fitted to one and judged on the other, the smallest ridge would win.
#[test]
fn images_that_are_there_twice_choose_the_ridge_that_they_choose_once() {
    let merge = resnets();
    let once = images(12, [1, 8, 8], 3);
    let of = |order: &[usize]| {
        let data = batches(&once.select(Axis(0), order), 5);
        let mut refit = merge.start(&data, weights(Inputs::Layerwise, Ridge::HeldOut), None).unwrap();
        let seen = refit.look(&Unwatched).unwrap();
        (seen, run(&mut refit, &Unwatched).unwrap())
    };
    let (seen, alone) = of(&(0..12).collect::<Vec<_>>());
    assert_eq!(seen, Seen { n_images: 12, n_different: 12, n_held_out: 3 });
    for order in [(0..36).map(|i| i / 3).collect::<Vec<_>>(), (0..36).map(|i| i % 12).collect()] {
        let (seen, copied) = of(&order);
        assert_eq!(seen, Seen { n_images: 36, n_different: 12, n_held_out: 9 });
        for (one, other) in alone.iter().zip(&copied) {
            let [one, other] = [one, other].map(solution);
            assert!(one.ridge.to_bits() == other.ridge.to_bits(), "{one:?}, {other:?}");
            let [a, b] = [one, other].map(|told| told.held_out.unwrap());
            assert!((a - b).abs() < 1e-3 * a, "{one:?}, {other:?}");
        }
    }
    // Nothing to judge on: a strong hold at W*.
    let (seen, solved) = of(&[7; 36]);
    assert_eq!((seen.n_different, seen.n_held_out), (1, 0));
    assert!(solved.iter().map(solution).all(|told| told.ridge.to_bits() == RIDGE_OF_FEW.to_bits()));
}

#[test]
fn threads_do_not_change_a_bit() {
    for (merge, data) in [
        (resnets(), images(70, [1, 8, 8], 3)),
        (odd_ones(), images(70, [2, 4, 4], 3)),
        (resnets().at_some_positions(1), images(70, [1, 8, 8], 3)),
    ] {
        for task in [SEQUENTIAL, LAYERWISE, Task::Scale] {
            let one = with_threads(1, || merge.refit(&batches(&data, 8), task).unwrap());
            for n in [2, 5] {
                let other = with_threads(n, || merge.refit(&batches(&data, 8), task).unwrap());
                assert!(one == other, "{task:?}, {n} threads");
            }
        }
    }
}

/// Fewer samples give other weights, which are hardly further off on the images that none of them were taken from.
#[test]
fn some_positions_say_what_all_of_them_say() {
    let data = images(400, [1, 8, 8], 3);
    let held_out = |merge: Merge| {
        let (model, solved) = merge.refit(&batches(&data, 50), weights(Inputs::Layerwise, Ridge::HeldOut)).unwrap();
        (model, solved.iter().map(|one| solution(one).held_out.unwrap()).collect::<Vec<_>>())
    };
    let ((all, full), (some, sampled)) = (held_out(resnets()), held_out(resnets().at_some_positions(16)));
    assert!(weights_differ(&all, &some) > 1e-4);
    for (full, sampled) in full.iter().zip(&sampled) {
        assert!((sampled - full).abs() < 0.1 * full + 1e-3, "{full} of all, {sampled}");
    }
}

#[test]
fn activations_put_aside_come_back_as_they_were() {
    for (merge, data) in [(resnets(), images(70, [1, 8, 8], 3)), (odd_ones(), images(70, [2, 4, 4], 3))] {
        for task in [SEQUENTIAL, LAYERWISE, Task::Scale] {
            let batches = batches(&data, 8);
            let in_memory = merge.refit(&batches, task).unwrap();
            let mut written = Vec::new();
            for limit in [0, 60_000] {
                let shelf = Shelf::default();
                let found = with_threads(3, || {
                    let mut refit = merge.start(&batches, task, Some((limit, &shelf as &dyn Scratch))).unwrap();
                    let mut solved = Vec::new();
                    while refit.n_done() < refit.n_layers() {
                        solved.extend(refit.step(&Unwatched).unwrap());
                        assert!(refit.bytes_in_memory() <= limit);
                    }
                    (refit.model().clone(), solved)
                });
                assert!(in_memory == found, "{task:?}, {limit} bytes");
                written.push(shelf.n_written.load(Ordering::Relaxed));
            }
            assert!(written[0] > written[1] && written[1] > 0, "{task:?}: {written:?}");
        }
    }
}

/// Once a block's last layer is solved, its sum is all that there is of the models' runs, not what it adds up; the merged
/// network waits before that layer, with what it reads and what it is added to.
#[test]
fn runs_rest_after_the_sum_of_a_block() {
    let (merge, data) = (resnets(), images(24, [1, 8, 8], 3));
    let given = batches(&data, 8);
    for rounds in [0, 2] {
        let task = Task::Weights { inputs: Inputs::Sequential, ridge: Ridge::Fixed(0.1), rounds, together: true };
        let mut refit = merge.start(&given, task, None).unwrap();
        let steps = std::iter::from_fn(|| Some(refit.step(&Unwatched).unwrap()));
        let mut solved = steps.take_while(|solved| !solved.is_empty()).flatten().map(|solved| solved.layers);
        assert!(solved.any(|layers| layers == ["layer1.1.bn2"]));
        let size = |model: &Model, value: &str| model.graph.shapes().unwrap()[value].iter().product::<usize>();
        let read = &refit.model().graph.node("layer1.1.bn2").unwrap().inputs[0];
        let waiting = size(refit.model(), "layer1.1.bn2") + size(refit.model(), read);
        let resting = 2 * size(&merge.models[0], "layer1.1.bn2");
        assert_eq!(refit.bytes_in_memory(), 24 * 4 * (waiting + resting), "{rounds} rounds");
    }
}

#[test]
fn an_interrupted_refit_goes_on_where_it_stopped() {
    let data = images(60, [1, 8, 8], 3);
    let merge = resnets();
    for task in [SEQUENTIAL, LAYERWISE, Task::Scale] {
        let batches = batches(&data, 8);
        let (whole, all) = merge.refit(&batches, task).unwrap();
        // In the middle of a pass, between two, and again and again.
        for limit in [5, 200, 570] {
            let mut solved: Vec<Solved> = Vec::new();
            let mut kept = merge.grafted.model.weights.clone();
            let mut n_rounds = 0;
            let network = loop {
                let mut refit = merge.start(&batches, task, None).unwrap();
                refit.restore(&solved, kept).unwrap();
                // The first round may stop before anything is done; each later one sees more.
                let watch = StopAfter::new(limit * (1 + n_rounds));
                n_rounds += 1;
                let stopped = loop {
                    match refit.step(&watch) {
                        Ok(now) if now.is_empty() => break false,
                        Ok(now) => solved.extend(now),
                        Err(Error::Zipit(zipit::Error::Interrupted)) => break true,
                        Err(error) => panic!("{error}"),
                    }
                };
                assert_eq!(refit.n_done(), solved.len());
                if !stopped {
                    break refit.model().clone();
                }
                kept = refit.model().weights.clone();
            };
            assert!(n_rounds > 1, "{limit}: it was interrupted");
            assert!(network == whole && solved == all, "{task:?}, every {limit} images");
        }
    }
}

/// Layers wide enough for their search for a ridge to begin at that of the one before, whichever run solved that.
#[test]
fn wide_layers_are_solved_alike_before_and_after_an_interruption() {
    let linear = |n| Op::Linear { in_features: 1024, out_features: n, bias: true };
    let nodes: [(&str, Op, &[&str]); 8] = [
        ("flat", Op::Flatten, &["input"]),
        ("a", linear(1024), &["flat"]),
        ("relu", Op::Relu, &["a"]),
        ("b", linear(1024), &["relu"]),
        ("relu_1", Op::Relu, &["b"]),
        ("c", linear(1024), &["relu_1"]),
        ("relu_2", Op::Relu, &["c"]),
        ("d", linear(3), &["relu_2"]),
    ];
    let [a, b] = [1, 2].map(|seed| model(graph([1, 32, 32], &nodes, &["d"]), seed));
    let merge = Merge::new(&[&a, &b], random(&a.graph, 2, 1.0, 5));
    let (task, data) = (weights(Inputs::Sequential, Ridge::HeldOut), images(40, [1, 32, 32], 3));
    let batches = batches(&data, 8);
    let mut refit = merge.start(&batches, task, None).unwrap();
    let (mut solved, mut kept) = (vec![], vec![(0, refit.model().weights.clone())]);
    loop {
        let now = refit.step(&Unwatched).unwrap();
        if now.is_empty() {
            break;
        }
        solved.extend(now);
        kept.push((solved.len(), refit.model().weights.clone()));
    }
    // What reads the image is exact.
    assert!(solved.len() > 3 && solved[1..3].iter().all(|layer| solution(layer).held_out.is_some()), "{solved:?}");
    for (n, kept) in kept {
        let mut again = merge.start(&batches, task, None).unwrap();
        again.restore(&solved[..n], kept).unwrap();
        let rest = run(&mut again, &Unwatched).unwrap();
        assert!(rest == solved[n..] && again.model() == refit.model(), "after {n} layers");
    }
}

#[test]
fn what_does_not_belong_to_it_is_not_restored() {
    let data = images(8, [1, 8, 8], 3);
    let (merge, batches) = (resnets(), batches(&data, 8));
    let kept = merge.grafted.model.weights.clone();
    let (_, mut solved) = merge.refit(&batches, SEQUENTIAL).unwrap();
    let restore = |solved: &[Solved], weights| {
        let mut refit = merge.start(&batches, SEQUENTIAL, None).unwrap();
        let refused = refit.restore(solved, weights).unwrap_err().to_string();
        assert_eq!((refit.n_done(), refit.model()), (0, &merge.grafted.model), "nothing changed");
        refused
    };
    let n = merge.start(&batches, SEQUENTIAL, None).unwrap().n_layers();
    let named = |name: &str| Solved { layers: vec![name.to_owned()], ..solved[0].clone() };
    assert!(restore(&[named("elsewhere")], kept.clone()).contains("no layer `elsewhere`"));
    solved.push(solved[0].clone());
    assert!(restore(&solved, kept.clone()).contains(&format!("{} layers of {n}", n + 1)));
    let mut fewer = kept.clone();
    fewer.remove("models.0.linear.weight");
    assert!(restore(&[], fewer).contains("missing: models.0.linear.weight"));
    let mut broken = kept;
    broken.get_mut("models.0.linear.weight").unwrap().fill(f32::NAN);
    assert!(restore(&[], broken).contains("not finite"));
}

fn finite(network: &Model) -> bool {
    network.weights.values().flatten().all(|x| x.is_finite())
}

#[test]
fn fewer_images_than_unknowns_will_do() {
    for (merge, shape) in [(resnets(), [1, 8, 8]), (odd_ones(), [2, 4, 4])] {
        let two = images(2, shape, 3);
        // One image, two, the same one many times, and no more than two among many.
        let one = two.select(Axis(0), &[0; 9]);
        let four = images(4, shape, 4);
        for (data, held_out) in [
            (two.select(Axis(0), &[0]), false),
            (two.clone(), false),
            (one, false),
            (two.select(Axis(0), &[0, 1, 1, 0, 1, 0, 1, 1]), false),
            (four.select(Axis(0), &[0, 1, 1, 2, 0, 3, 3, 1]), true),
        ] {
            for task in [SEQUENTIAL, weights(Inputs::Layerwise, Ridge::HeldOut), Task::Scale] {
                let (network, solved) = merge.refit(&batches(&data, 3), task).unwrap();
                assert!(finite(&network), "{task:?}");
                let largest =
                    logits(&network, &images(20, shape, 9)).iter().flatten().fold(0.0_f64, |m, x| m.max(x.abs()));
                assert!(largest < 1e3, "{task:?}: logits of up to {largest}");
                for layer in solved.iter().filter(|layer| matches!(layer.outcome, Outcome::Weights(_))) {
                    assert_eq!(solution(layer).held_out.is_some(), held_out && was_solved(layer), "{layer:?}");
                    assert!(solution(layer).after <= solution(layer).before + 1e-9, "{layer:?}");
                }
            }
        }
    }
}

#[test]
fn dead_and_constant_features_do_no_harm() {
    let [mut a, mut b] = [1, 2].map(resnet20);
    // In layer1.0, feature 0 is dead in both models, 1 in one; everything behind layer2.0 is constant in both.
    for model in [&mut a, &mut b] {
        for (name, value) in [("weight", 0.0), ("bias", -1.0)] {
            model.weights.get_mut(&format!("layer1.0.bn1.{name}")).unwrap()[[0]] = value;
        }
        model.weights.get_mut("layer2.0.bn1.weight").unwrap().fill(0.0);
    }
    a.weights.get_mut("layer1.0.bn1.weight").unwrap()[[1]] = 0.0;
    let merge = Merge::new(&[&a, &b], identity(&a.graph, 2));
    let data = concatenate![Axis(0), images(40, [1, 8, 8], 3), Array4::zeros((10, 1, 8, 8))];
    for task in [SEQUENTIAL, LAYERWISE, Task::Scale] {
        let (network, solved) = merge.refit(&batches(&data, 8), task).unwrap();
        assert!(finite(&network), "{task:?}");
        for layer in &solved {
            if let Outcome::Weights(told) = layer.outcome {
                assert!(told.after <= told.before + 1e-9 && told.after.is_finite(), "{layer:?}");
            }
        }
    }
}

/// The nine places around a constant feature's border vary together, and no product in f32 tells how.
#[test]
fn a_ridge_too_small_for_the_numbers_is_said() {
    let [mut a, b] = [1, 2].map(resnet20);
    let mut dead = b;
    for model in [&mut a, &mut dead] {
        model.weights.get_mut("layer2.0.bn1.weight").unwrap().fill(0.0);
    }
    let merge = Merge::new(&[&a, &dead], identity(&a.graph, 2));
    let data = batches(&images(40, [1, 8, 8], 3), 8);
    let message = refusal(merge.refit(&data, weights(Inputs::Sequential, Ridge::Fixed(1e-12)))).to_string();
    assert!(message.contains("not positive definite at ridge 1e-12: raise the ridge or use more images"), "{message}");
}

fn refusal<T>(result: Result<T>) -> Error {
    result.err().expect("a refusal")
}

#[test]
fn no_images_and_ridges_that_are_none_are_refused() {
    let merge = resnets();
    let none = batches(&Array4::zeros((0, 1, 8, 8)), 4);
    for task in [SEQUENTIAL, Task::Scale] {
        let message = refusal(merge.start(&none, task, None)).to_string();
        assert_eq!(message, "there are no images to fit the layers to");
    }
    let some = batches(&images(4, [1, 8, 8], 1), 4);
    for ridge in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let error = refusal(merge.start(&some, weights(Inputs::Sequential, Ridge::Fixed(ridge)), None));
        assert!(error.to_string().contains(&format!("ridge of the refit is {ridge}")), "{error}");
    }
    let wrong = batches(&images(4, [1, 9, 9], 1), 4);
    let error = refusal(merge.refit(&wrong, SEQUENTIAL));
    assert!(error.to_string().contains("images are [1, 9, 9] but the network expects [1, 8, 8]"), "{error}");
}

#[test]
fn numbers_that_are_none_name_the_layer() {
    for task in [SEQUENTIAL, LAYERWISE, Task::Scale] {
        let says = |merge: &Merge, data: &Array4<f32>, words: &[&str]| {
            let error = refusal(with_threads(2, || merge.refit(&batches(data, 4), task)));
            assert!(matches!(error, Error::NotFinite(_)), "{task:?}: {error}");
            let message = error.to_string();
            assert!(words.iter().all(|word| message.contains(word)), "{task:?}: {message}");
        };
        let good = images(12, [1, 8, 8], 3);
        let mut holed = good.clone();
        holed[[6, 0, 2, 2]] = f32::NAN;
        says(&resnets(), &holed, &["`", "batch 1", "NaN or too large"]);
        // A model that is not a number, and one too large to square in f32, at the layer `layer2.1.bn1`.
        for value in if task == Task::Scale { vec![f32::NAN] } else { vec![f32::NAN, 1e30] } {
            let mut merge = resnets();
            merge.models[1].weights.get_mut("layer2.1.conv1.weight").unwrap()[[0, 0, 1, 1]] = value;
            says(&merge, &good, &["`layer2.1.bn1`", "batch 0", "NaN or too large"]);
        }
    }
    // A target that is finite, but not its square.
    let mut merge = resnets();
    merge.models[1].weights.get_mut("linear.weight").unwrap()[[0, 0]] = 1e30;
    let error = refusal(merge.refit(&batches(&images(12, [1, 8, 8], 3), 4), SEQUENTIAL)).to_string();
    assert!(error.contains("`models.1.linear`"), "{error}");
}

#[test]
fn a_shelf_that_breaks_is_said() {
    struct Full;
    impl Scratch for Full {
        fn write(&self, _: usize, _: &[f32]) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
            Err("no space left".into())
        }
        fn read(&self, _: usize, _: &mut [f32]) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
            Err("nothing there".into())
        }
    }
    let (merge, data) = (resnets(), batches(&images(12, [1, 8, 8], 3), 4));
    let mut refit = merge.start(&data, SEQUENTIAL, Some((0, &Full))).unwrap();
    let message = refusal(run(&mut refit, &Unwatched)).to_string();
    assert_eq!(message, "cannot put activations aside: no space left");
}
