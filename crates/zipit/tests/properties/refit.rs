//! Refit by hand: the ridge, the weights of models, RegMean's formula, REPAIR in closed form.

use ndarray::{Array1, Array2, ArrayD, Axis, arr2, array};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use zipit::apply::{Blended, Grafted, Heads, graft};
use zipit::graph::{Graph, Input, Node, Op};
use zipit::matching::Method;
use zipit::plan::{Plan, PlanSettings, PointPlan, PointSummary};
use zipit::refit::{
    Design, Gram, Layer, Residuals, Ridge, Rounds, Solution, Spread, Sums, gram, layers, rescale, sites, solve,
    solve_openly, weighted,
};
use zipit::unmerge::UnmergeRule;
use zipit::{Model, Moments, Preprocess, StateDict, Task};

fn linear(n_inputs: usize, n_outputs: usize) -> Node {
    let op = Op::Linear { in_features: n_inputs, out_features: n_outputs, bias: true };
    Node { module: Some("fc".into()), ..Node::new("fc", op, vec!["x".into()]) }
}

/// `fc` with the given weights.
fn state(w: &Array2<f64>, b: &Array1<f64>) -> StateDict {
    [("fc.weight".to_owned(), w.mapv(|x| x as f32).into_dyn()), ("fc.bias".to_owned(), b.mapv(|x| x as f32).into_dyn())]
        .into()
}

/// W and b of `fc`.
fn found(weights: &StateDict) -> (Array2<f64>, Array1<f64>) {
    let of = |name: &str| weights[name].mapv(f64::from);
    (of("fc.weight").into_dimensionality().expect("a matrix"), of("fc.bias").into_dimensionality().expect("a vector"))
}

/// Samples x and y = A x + c + noise.
struct Problem {
    x: Array2<f64>,
    y: Array2<f64>,
}

impl Problem {
    fn new(n: usize, noise: f64, seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut normal = move || (0..6).map(|_| rng.random_range(-1.0..1.0)).sum::<f64>() * 0.707;
        let x = Array2::from_shape_simple_fn((n, 8), || 1.0 + normal());
        let noise = Array2::from_shape_simple_fn((n, 3), || noise * normal());
        let y = x.dot(&Self::a().t()) + array![1.0, -2.0, 0.5] + noise;
        Self { x, y }
    }

    fn a() -> Array2<f64> {
        Array2::from_shape_fn((3, 8), |(i, j)| ((3 * i + 5 * j) % 7) as f64 / 4.0 - 0.5)
    }

    fn sums(&self) -> Sums {
        let mut sums = Sums::zeros(Design { n_groups: 1, n_inputs: 8, n_outputs: 3 });
        sums.add_samples(&self.x, &self.y);
        sums
    }

    fn nothing() -> Sums {
        Sums::zeros(Design { n_groups: 1, n_inputs: 8, n_outputs: 3 })
    }

    /// E‖W x + b − y‖² / Σ Var(y).
    fn error(&self, (w, b): &(Array2<f64>, Array1<f64>)) -> f64 {
        let off = self.x.dot(&w.t()) + b - &self.y;
        (&off * &off).sum() / self.x.nrows() as f64 / self.y.var_axis(Axis(0), 0.0).sum()
    }
}

fn solved(fitted: Sums, held_out: &Sums, prior: &Array2<f64>, ridge: Ridge) -> (Solution, StateDict) {
    let mut weights = state(prior, &Array1::zeros(3));
    let told = solve(&mut [linear(8, 3)], &mut weights, [fitted, held_out.clone()], ridge).expect("a solution");
    (told, weights)
}

#[test]
fn a_linear_map_is_found() {
    let problem = Problem::new(50, 0.0, 1);
    let (told, weights) = solved(problem.sums(), &Problem::nothing(), &Array2::zeros((3, 8)), Ridge::Fixed(1e-9));
    let (w, b) = found(&weights);
    assert!((w - Problem::a()).iter().all(|x| x.abs() < 1e-6));
    assert!((b - array![1.0, -2.0, 0.5]).iter().all(|x| x.abs() < 1e-6));
    assert!(told.after < 1e-12 && told.before > 0.1 && told.held_out.is_none(), "{told:?}");
}

#[test]
fn a_huge_ridge_gives_the_merged_weights_back() {
    let problem = Problem::new(50, 0.3, 1);
    let prior = Array2::from_elem((3, 8), 0.25);
    let (told, weights) = solved(problem.sums(), &Problem::nothing(), &prior, Ridge::Fixed(1e12));
    let (w, b) = found(&weights);
    assert_eq!(w, prior);
    // The bias has no price: means are always met.
    let means = problem.y.mean_axis(Axis(0)).unwrap() - problem.x.mean_axis(Axis(0)).unwrap().dot(&prior.t());
    assert!((b - means).iter().all(|x| x.abs() < 1e-6));
    assert!(told.after <= told.before);
}

#[test]
fn held_out_images_choose_the_power_of_ten() {
    let prior = Array2::from_elem((3, 8), 0.1);
    let mut chosen = Vec::new();
    for (n, noise) in [(60, 0.0), (12, 0.3), (12, 3.0), (10, 30.0), (200, 0.5)] {
        let [fit, held] = [1, 2].map(|seed| Problem::new(n, noise, seed));
        let (told, weights) = solved(fit.sums(), &held.sums(), &prior, Ridge::HeldOut);
        let error = |decade: i32| {
            let alone = solved(fit.sums(), &Problem::nothing(), &prior, Ridge::Fixed(10_f64.powi(decade))).1;
            held.error(&found(&alone))
        };
        let decade = told.ridge.log10().round() as i32;
        assert!((-6..=2).contains(&decade), "{told:?}");
        // What it told is what it found, and neither neighbour does better; a smaller one below the first, not by a tenth.
        assert!((told.held_out.unwrap() - error(decade)).abs() < 1e-5 * (1e-3 + error(decade)), "{told:?}");
        for other in [decade - 1, decade + 1].into_iter().filter(|other| (-6..=2).contains(other)) {
            let worth_it = if other < decade && other < -3 { 0.9 } else { 1.0 };
            assert!(error(other) >= worth_it * error(decade) - 1e-9, "{noise}: {other} instead of {decade}");
        }
        // All images are fitted then.
        let mut all = fit.sums();
        all.merge(&held.sums());
        let (again, expected) = solved(all, &Problem::nothing(), &prior, Ridge::Fixed(told.ridge));
        assert_eq!(weights, expected);
        assert!((told.after - again.after).abs() < 1e-12);
        chosen.push(decade);
    }
    assert_eq!(chosen[0], -6, "nothing to be careful about: {chosen:?}");
    assert!(chosen[3] > chosen[1] && chosen[1] > -6, "the more noise, the more careful: {chosen:?}");
}

#[test]
fn ridges_and_images_that_are_none_are_refused() {
    for ridge in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let message = Ridge::Fixed(ridge).validate().unwrap_err().to_string();
        assert_eq!(message, format!("the ridge of the refit is {ridge}; it must be a positive number"));
    }
    assert!(Ridge::Fixed(1e-300).validate().is_ok() && Ridge::HeldOut.validate().is_ok());
    let mut weights = state(&Array2::zeros((3, 8)), &Array1::zeros(3));
    let nothing = Problem::nothing();
    for ridge in [Ridge::HeldOut, Ridge::Fixed(1.0)] {
        let refused = solve(&mut [linear(8, 3)], &mut weights, [nothing.clone(), nothing.clone()], ridge)
            .unwrap_err()
            .to_string();
        assert_eq!(refused, "`fc`: there are no images to fit it to");
    }
    let mut broken = Problem::new(20, 0.1, 1);
    broken.y[[3, 1]] = f64::NAN;
    let refused = solve(&mut [linear(8, 3)], &mut weights, [broken.sums(), nothing], Ridge::HeldOut).unwrap_err();
    assert!(refused.to_string().contains("`fc`: its solution is not finite"), "{refused}");
}

/// What comes through, relu(x).
fn relu(x: &Array2<f64>) -> Array2<f64> {
    x.mapv(|x| x.max(0.0))
}

/// r of the layer (W, b) at the problem's samples, and what is left behind the ReLU.
fn residual(problem: &Problem, (w, b): &(Array2<f64>, Array1<f64>), dark: f64) -> (Array2<f64>, f64) {
    let p = problem.x.dot(&w.t()) + b;
    let t = relu(&problem.y);
    let left = (relu(&p) - &t).mapv(|x| x * x).sum();
    let r = ndarray::Zip::from(&p).and(&t).map_collect(|&p, &t| if t <= dark && p < 0.0 { 0.0 } else { t - p });
    (r, left)
}

fn add(residuals: &mut Residuals, held_out: bool, problem: &Problem, r: &Array2<f64>, origin: &[f32]) {
    let from = &problem.x - &Array1::from_iter(origin.iter().map(|&x| f64::from(x)));
    let [sum, squares] = [r.sum_axis(Axis(0)), (r * r).sum_axis(Axis(0))];
    let cross = r.t().dot(&from).as_standard_layout().into_owned();
    let slices = [sum.as_slice(), cross.as_slice(), squares.as_slice()].map(|s| s.expect("standard layout"));
    residuals.add(held_out, r.nrows() as u64, slices);
}

fn opened(fit: &Problem, held: &Problem) -> (Node, StateDict, f64, Rounds) {
    let (mut node, mut weights) = (linear(8, 3), state(&Array2::from_elem((3, 8), 0.1), &Array1::zeros(3)));
    let (told, open) = solve_openly(
        std::slice::from_mut(&mut node),
        &mut weights,
        [fit.sums(), held.sums()],
        Ridge::HeldOut,
        None,
        true,
    )
    .expect("a solution");
    (node, weights, told.ridge, Rounds::new(open.expect("images are held out")))
}

/// A round is the solution around the last W for ỹ = p + r, and what comes through is nearer to what should.
#[test]
fn a_round_solves_for_what_comes_through() {
    let design = Design { n_groups: 1, n_inputs: 8, n_outputs: 3 };
    let mut total = 0;
    for seed in 0..5 {
        let [fit, held] = [seed, seed + 10].map(|seed| {
            let mut problem = Problem::new(500, 0.3, seed);
            // No affine map, and dark half of the time.
            for i in 0..3 {
                let bent = &problem.x.column(i) * &problem.x.column(i + 1) * 2.0;
                problem.y.column_mut(i).scaled_add(1.0, &bent);
            }
            let mean = problem.y.mean_axis(Axis(0)).expect("samples");
            problem.y -= &mean;
            problem
        });
        let (node, mut weights, ridge, mut rounds) = opened(&fit, &held);
        let dark = f64::from(rounds.dark());
        assert!(dark > 0.0 && dark < 0.01, "{dark}");
        let (mut taken, mut last) = (0, f64::INFINITY);
        for _ in 0..4 {
            let now = found(&weights);
            let mut residuals = Residuals::zeros(design);
            let (mut again, mut left) = (Problem::nothing(), 0.0);
            for (held_out, problem) in [(false, &fit), (true, &held)] {
                let (r, off) = residual(problem, &now, dark);
                left += off;
                add(&mut residuals, held_out, problem, &r, &rounds.origin());
                again.add_samples(&problem.x, &(problem.x.dot(&now.0.t()) + &now.1 + r));
            }
            assert!(left < last, "round {taken}: {left} after {last}");
            last = left;
            if !rounds.take(std::slice::from_ref(&node), &mut weights, &residuals).unwrap() {
                assert_eq!(found(&weights), now);
                break;
            }
            taken += 1;
            let mut expected = state(&now.0, &now.1);
            solve(&mut [linear(8, 3)], &mut expected, [again, Problem::nothing()], Ridge::Fixed(ridge)).unwrap();
            let [(w, b), (ew, eb)] = [found(&weights), found(&expected)];
            assert!((w - ew).iter().chain(&(b - eb)).all(|x| x.abs() < 1e-5));
        }
        assert!(taken >= 1, "seed {seed}");
        total += taken;
    }
    assert!(total > 5, "none took two: {total}");
}

/// What the fitted images teach is taken only where it serves the held-out ones.
#[test]
fn held_out_images_judge_a_round() {
    let [fit, held] = [1, 2].map(|seed| Problem::new(60, 0.5, seed));
    let r = fit.x.dot(&Problem::a().t());
    for (sign, kept) in [(1.0, true), (-1.0, false), (0.0, false)] {
        let (node, mut weights, _, mut rounds) = opened(&fit, &held);
        let before = weights.clone();
        let mut residuals = Residuals::zeros(rounds.design());
        add(&mut residuals, false, &fit, &(if sign == 0.0 { &r * 0.0 } else { r.clone() }), &rounds.origin());
        add(&mut residuals, true, &held, &(sign * held.x.dot(&Problem::a().t())), &rounds.origin());
        assert_eq!(rounds.take(std::slice::from_ref(&node), &mut weights, &residuals).unwrap(), kept, "{sign}");
        assert_eq!(weights != before, kept);
    }
    // Without images of either kind there is nothing to judge.
    let (node, mut weights, _, mut rounds) = opened(&fit, &held);
    let mut residuals = Residuals::zeros(rounds.design());
    add(&mut residuals, false, &fit, &r, &rounds.origin());
    assert!(!rounds.take(std::slice::from_ref(&node), &mut weights, &residuals).unwrap());
    add(&mut residuals, true, &held, &r.mapv(|_| f64::NAN), &rounds.origin());
    let refused = rounds.take(std::slice::from_ref(&node), &mut weights, &residuals).unwrap_err().to_string();
    assert_eq!(refused, "`fc`: its residuals are not finite");
}

/// A feature that never varies, and two that are one: neither hinders the rest, and what is not seen stays.
#[test]
fn what_the_images_do_not_show_stays_as_it_was() {
    let mut problem = Problem::new(40, 0.0, 1);
    problem.x.column_mut(2).fill(0.3);
    let twin = problem.x.column(4).to_owned();
    problem.x.column_mut(5).assign(&twin);
    problem.y = problem.x.dot(&Problem::a().t());
    let prior = Array2::from_elem((3, 8), 0.1);
    for ridge in [Ridge::Fixed(1e-6), Ridge::HeldOut] {
        let (told, weights) = solved(problem.sums(), &Problem::new(20, 0.0, 2).sums(), &prior, ridge);
        assert!(told.after.is_finite());
        assert!(found(&weights).0.iter().all(|x| x.is_finite()));
    }
    let (_, weights) = solved(problem.sums(), &Problem::nothing(), &prior, Ridge::Fixed(1e-6));
    let (w, _) = found(&weights);
    for i in 0..3 {
        assert_eq!(w[[i, 2]].to_bits(), f64::from(0.1_f32).to_bits(), "a constant feature says nothing");
        assert!((w[[i, 4]] - w[[i, 5]]).abs() < 1e-3, "twins share what they explain");
    }
    assert!(problem.error(&found(&weights)) < 1e-6);
}

/// flatten → one → relu → two → relu → head on images of `d` numbers.
fn chain(d: usize, one: &Array2<f64>, two: (&Array2<f64>, &Array1<f64>)) -> Model {
    let linear = |name: &str, n: usize, input: &str| Node {
        name: name.into(),
        op: Op::Linear { in_features: d, out_features: n, bias: name == "two" },
        inputs: vec![input.into()],
        module: Some(name.into()),
        params: std::collections::BTreeMap::new(),
    };
    let plain = |name: &str, op: Op, input: &str| Node::new(name, op, vec![input.into()]);
    let graph = Graph {
        arch: "chain".into(),
        input: Input { name: "x".into(), shape: vec![d, 1, 1] },
        nodes: vec![
            plain("flatten", Op::Flatten, "x"),
            linear("one", d, "flatten"),
            plain("one.relu", Op::Relu, "one"),
            linear("two", d, "one.relu"),
            plain("two.relu", Op::Relu, "two"),
            linear("head", 1, "two.relu"),
        ],
        outputs: vec!["head".into()],
    };
    let weights: StateDict = [
        ("one.weight", one.mapv(|x| x as f32).into_dyn()),
        ("two.weight", two.0.mapv(|x| x as f32).into_dyn()),
        ("two.bias", two.1.mapv(|x| x as f32).into_dyn()),
        ("head.weight", ArrayD::from_elem(vec![1, d], 1.0)),
    ]
    .map(|(name, tensor)| (name.to_owned(), tensor))
    .into();
    let tasks = vec![Task { name: "task".into(), classes: vec!["it".into()] }];
    let preprocess = Preprocess::new([1, 1], vec![0.5; d], vec![0.25; d]);
    Model { graph, weights, tasks, preprocess, joint: None }
}

fn plan(d: usize, groups: &[u32]) -> Plan {
    let n_groups = groups.iter().max().map_or(0, |&g| g as usize + 1);
    let summary = PointSummary {
        across: groups.len() - n_groups,
        within: vec![0, 0],
        mean_correlation: None,
        caps_lifted: false,
        reconstruction_error: 0.0,
        condition: None,
        spread: None,
        dead: 0,
        constant: 0,
    };
    let points = ["one.relu", "two.relu"].map(|name| PointPlan {
        name: name.into(),
        assignment: groups.to_vec(),
        n_groups,
        resting: vec![],
        weights: None,
        merge: None,
        unmerge: None,
        summary: summary.clone(),
    });
    assert_eq!(groups.len(), 2 * d);
    let settings = PlanSettings { method: Method::Identity, unmerge: UnmergeRule::Pinv };
    Plan { n_models: 2, settings, points: points.into() }
}

fn merged(models: [&Model; 2], groups: &[u32]) -> Grafted {
    graft(&models, &plan(models[0].graph.input.shape[0], groups), Heads::Separate).expect("a merge")
}

fn layer<'a>(all: &'a [Layer], grafted: &Grafted, name: &str) -> &'a Layer {
    all.iter().find(|layer| grafted.model.graph.nodes[layer.node].name == name).expect("a layer")
}

fn moments(samples: &Array2<f64>) -> Moments {
    let outer = samples.t().dot(samples);
    let n = samples.ncols();
    Moments {
        count: samples.nrows() as u64,
        sum: samples.sum_axis(Axis(0)).to_vec(),
        outer: (0..n).flat_map(|i| (i..n).map(move |j| (i, j))).map(|at| outer[at]).collect(),
    }
}

/// Jin et al.: W = (Σ aᵢWᵢGᵢ)(Σ aᵢGᵢ)⁻¹, with samples of mean zero so that G is the covariance.
///
/// a = (1, 2): Σ aG = [[4, 0], [0, 16]] + 2·[[10, 2], [2, 4]] = [[24, 4], [4, 24]], its inverse is [[24, −4], [−4, 24]] / 560,
/// Σ aWG = [[4, 32], [12, 64]] + [[4, 8], [−12, 12]] = [[8, 40], [0, 76]].
#[test]
fn own_moments_of_identical_features_are_regmean() {
    let eye = Array2::eye(2);
    let a = chain(2, &eye, (&arr2(&[[1.0, 2.0], [3.0, 4.0]]), &array![3.0, -1.0]));
    let b = chain(2, &eye, (&arr2(&[[0.0, 1.0], [-1.0, 2.0]]), &array![0.0, 2.0]));
    let grafted = merged([&a, &b], &[0, 1, 0, 1]);
    let all = layers(&grafted, &[&a, &b], false);
    let layer = layer(&all, &grafted, "two");
    let own = Gram::Own(vec![
        moments(&arr2(&[[1.0, 2.0], [1.0, -2.0], [-1.0, 2.0], [-1.0, -2.0]])),
        moments(&arr2(&[[2.0, 1.0], [-2.0, -1.0], [1.0, -1.0], [-1.0, 1.0]])),
    ]);
    let mut network = grafted.model.clone();
    let node = &mut network.graph.nodes[layer.node];
    let source = &a.graph.nodes[layer.source];
    let sums = gram::sums(layer, node, source, &[&a, &b], &own, &[1.0, 2.0]).unwrap();
    let nothing = Sums::zeros(sums.design);
    solve(std::slice::from_mut(node), &mut network.weights, [sums, nothing.clone()], Ridge::Fixed(1e-12)).unwrap();
    let expected = arr2(&[[32.0, 928.0], [-304.0, 1824.0]]) / 560.0;
    let w = network.weights["two.weight"].mapv(f64::from);
    assert!((&w - &expected.into_dyn()).iter().all(|x| x.abs() < 1e-6), "{w}");
    // The bias is the mean target: (3 + 2·0)/3 and (−1 + 2·2)/3.
    let b = &network.weights["two.bias"];
    assert!((b[[0]] - 1.0).abs() < 1e-6 && (b[[1]] - 1.0).abs() < 1e-6, "{b}");
}

#[test]
fn weights_of_models_are_their_shares_in_each_group() {
    let eye = Array2::eye(2);
    let model = chain(2, &eye, (&eye, &array![0.0, 0.0]));
    // Both features of the first model and one of the second in one group; the other one by itself.
    let grafted = merged([&model, &model], &[0, 0, 0, 1]);
    let shares = |grafted: &Grafted| {
        let at = grafted.model.graph.nodes.iter().position(|node| node.name == "two").unwrap();
        match &grafted.origins[at].blend.pieces[..] {
            [piece] => match &piece.made {
                Blended::Groups(groups) => groups.share.clone(),
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        }
    };
    let near = |found: Vec<f32>, expected: [f32; 4]| found.iter().zip(expected).all(|(x, y)| (x - y).abs() < 1e-6);
    assert!(near(shares(&grafted), [1.0 / 3.0, 1.0 / 3.0, 1.0 / 3.0, 1.0]));
    let heavy = weighted(grafted.clone(), &[1.0, 3.0], 2).unwrap();
    assert!(near(shares(&heavy), [0.2, 0.2, 0.6, 1.0]), "{:?}", shares(&heavy));
    assert_eq!(heavy.model, grafted.model, "targets change, not W*");
    assert!(near(shares(&weighted(grafted.clone(), &[2.0, 2.0], 2).unwrap()), [1.0 / 3.0, 1.0 / 3.0, 1.0 / 3.0, 1.0]));
    let refusal = |weights: &[f64]| weighted(grafted.clone(), weights, 2).unwrap_err().to_string();
    assert_eq!(refusal(&[1.0]), "1 weights for 2 models: give one for each");
    for bad in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert_eq!(refusal(&[1.0, bad]), format!("the weight {bad} is not a positive number"));
    }
}

/// The layer that reads the images: in closed form as it is measured.
#[test]
fn the_spread_of_a_layer_on_images_is_the_measured_one() {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut square = || Array2::from_shape_simple_fn((3, 3), || rng.random_range(-1.0_f32..1.0)).mapv(f64::from);
    let one = [square(), square()];
    let bias = Array1::zeros(3);
    let eye = Array2::eye(3);
    let models = one.each_ref().map(|w| chain(3, w, (&eye, &bias)));
    let grafted = merged(models.each_ref(), &[0, 1, 1, 2, 0, 1]);
    let site = sites(&grafted, &models.each_ref()).remove(0);
    let source = &models[0].graph.nodes[site.source];
    assert_eq!(source.name, "one");
    let x = Array2::from_shape_simple_fn((40, 3), || rng.random_range(-1.0_f32..2.0)).mapv(f64::from);
    let joint = Gram::Joint(moments(&ndarray::concatenate![Axis(1), x, x]));
    let closed = gram::spread(&site, &grafted.model, source, &models.each_ref(), &joint).unwrap();

    let star = grafted.model.weights["one.weight"].mapv(f64::from).into_dimensionality().unwrap();
    let value = x.dot::<Array2<f64>>(&star.t().to_owned());
    let own = ndarray::concatenate![Axis(1), x.dot(&one[0].t()), x.dot(&one[1].t())];
    let both = |value: &Array2<f64>| [value.sum_axis(Axis(0)), (value * value).sum_axis(Axis(0))];
    let measured = Spread { count: 40.0, merged: both(&value), models: both(&own) };
    for (closed_sum, sum) in
        closed.merged.iter().chain(&closed.models).zip(measured.merged.iter().chain(&measured.models))
    {
        let off = closed_sum / closed.count - sum / measured.count;
        assert!(off.iter().all(|x| x.abs() < 1e-6), "{off}");
    }
    // And so it is rescaled: mean and deviation are the members' averages.
    let mut network = grafted.model.clone();
    rescale(&site, &mut network, &closed).unwrap();
    let [w, b] = ["weight", "bias"].map(|name| network.weights[&format!("one.{name}")].mapv(f64::from));
    let value =
        x.dot(&w.into_dimensionality::<ndarray::Ix2>().unwrap().t()) + b.into_dimensionality::<ndarray::Ix1>().unwrap();
    let (mean, std) = (own.mean_axis(Axis(0)).unwrap(), own.std_axis(Axis(0), 0.0));
    for (group, members) in [vec![0, 4], vec![1, 2, 5], vec![3]].iter().enumerate() {
        let average = |of: &Array1<f64>| members.iter().map(|&k| of[k]).sum::<f64>() / members.len() as f64;
        let column = value.column(group);
        assert!((column.mean().unwrap() - average(&mean)).abs() < 1e-5);
        assert!((column.std(0.0) - average(&std)).abs() < 1e-5);
    }
}

/// What a later layer reads counts as repaired: an average of x¹ and x² with deviations 1 and 3 varies by 2, whatever
/// their correlation left of it.
#[test]
fn a_later_layer_reads_what_was_repaired() {
    let one = arr2(&[[1.0]]);
    let model = chain(1, &one, (&one, &array![0.5]));
    let grafted = merged([&model, &model], &[0, 0]);
    let site = sites(&grafted, &[&model, &model]).into_iter().find(|site| model.graph.nodes[site.source].name == "two");
    let site = site.expect("the second layer");
    let source = &model.graph.nodes[site.source];
    // Uncorrelated: 1 ± 1 and 4 ± 3.
    let x = arr2(&[[2.0, 7.0], [2.0, 1.0], [0.0, 7.0], [0.0, 1.0]]);
    let spread = gram::spread(&site, &grafted.model, source, &[&model, &model], &Gram::Joint(moments(&x))).unwrap();
    let (mean, square) = (spread.merged[0][0] / spread.count, spread.merged[1][0] / spread.count);
    assert!((mean - 3.0).abs() < 1e-9, "(1 + 4)/2 + 0.5: {mean}");
    assert!((square - mean * mean - 4.0).abs() < 1e-9, "the variance is 2²: {}", square - mean * mean);
    let own = Gram::Own(vec![moments(&x.select(Axis(1), &[0])), moments(&x.select(Axis(1), &[1]))]);
    let refused = gram::spread(&site, &grafted.model, source, &[&model, &model], &own).unwrap_err().to_string();
    assert!(refused.contains("--gram joint"), "{refused}");
}

#[test]
fn moments_of_one_kind_add_and_others_do_not() {
    let [a, b] = [arr2(&[[1.0, 2.0]]), arr2(&[[3.0, -1.0], [0.5, 2.0]])];
    let together = moments(&ndarray::concatenate![Axis(0), a, b]);
    let mut joint = Gram::Joint(moments(&a));
    joint.merge(&Gram::Joint(moments(&b))).unwrap();
    assert_eq!(joint, Gram::Joint(together.clone()));
    let mut own = Gram::Own(vec![moments(&a), moments(&a)]);
    own.merge(&Gram::Own(vec![moments(&b), moments(&b)])).unwrap();
    assert_eq!(own, Gram::Own(vec![together.clone(), together]));
    assert!(own.merge(&joint).is_err() && joint.merge(&own).is_err());
    assert!(own.merge(&Gram::Own(vec![moments(&b)])).is_err());
    assert!(joint.merge(&Gram::Joint(Moments::zeros(3))).is_err());
}
