//! Networks with dead and constant features: a permuted copy is found by every method, and nothing of it is lost.

use super::graphs::{modern, zoo};
use super::networks::{image, model, rng};
use crate::apply::{Heads, Orders, apply, permuted, random_orders, reference::logits, reference::values};
use crate::graph::{Graph, MergePoint, Op, Spaces};
use crate::matching::blocks::{Member, match_blocks};
use crate::matching::{Method, Similarity, Solver, cca::cca, match_features, mudsc::mudsc, weight::weight_matching};
use crate::plan::{Plan, PlanSettings, PointNature, PointPlan};
use crate::unmerge::UnmergeRule;
use crate::{Constants, Extent, Model, Moments, Observed};
use ndarray::{Array2, ArrayD, Axis, concatenate};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;

/// What was measured at every point.
struct Measured(Vec<(Moments, Constants)>);

/// `[C, positions]` of a value in every model, on so many images: samples `[n, N·C]`.
fn samples(all: &[Vec<BTreeMap<String, ArrayD<f64>>>], value: &str, features: Option<&[usize]>) -> Array2<f32> {
    let of_model = |images: &Vec<BTreeMap<String, ArrayD<f64>>>| {
        let each: Vec<Array2<f32>> = images
            .iter()
            .map(|values| {
                let value = &values[value];
                let (c, n) = (value.shape()[0], value.len() / value.shape()[0]);
                let x = value.to_shape((c, n)).unwrap().t().mapv(|x| x as f32);
                features.map_or_else(|| x.clone(), |features| x.select(Axis(1), features))
            })
            .collect();
        concatenate(Axis(0), &each.iter().map(Array2::view).collect::<Vec<_>>()).unwrap()
    };
    let each: Vec<Array2<f32>> = all.iter().map(of_model).collect();
    concatenate(Axis(1), &each.iter().map(Array2::view).collect::<Vec<_>>()).unwrap()
}

impl Measured {
    fn of(models: &[&Model], points: &[MergePoint], n_images: u64) -> Self {
        let graph = &models[0].graph;
        let run = |model: &&Model| (0..n_images).map(|i| values(model, &image(graph, 1000 + i))).collect();
        let all: Vec<Vec<_>> = models.iter().map(run).collect();
        let at = |point: &MergePoint| {
            let z = samples(&all, &point.measured.value, point.measured.features.as_deref());
            let mut moments = Moments::zeros(z.ncols());
            let origin = z.mean_axis(Axis(0)).unwrap();
            let y = &z - &origin;
            let sum = y.sum_axis(Axis(0)).to_vec();
            moments.add_batch_from(&origin.to_vec(), z.nrows() as u64, &sum, y.t().dot(&y).view());
            let reads = point.reads.iter().map(|read| {
                let z = samples(&all, &read.value, None);
                let end = |pick: fn(f32, f32) -> f32, first: f32| z.fold_axis(Axis(0), first, |&a, &b| pick(a, b));
                let (low, high) = (end(f32::min, f32::INFINITY), end(f32::max, f32::NEG_INFINITY));
                Extent { low: low.to_vec(), high: high.to_vec() }.of(read, models.len())
            });
            let reads: Vec<Extent> = reads.collect();
            let constants = Constants::new(&moments, &reads, models.len(), point.normalised || point.compared);
            (moments, constants)
        };
        Self(points.iter().map(at).collect())
    }

    fn observed(&self) -> Vec<Observed<'_>> {
        self.0.iter().map(|(moments, constants)| (moments, constants).into()).collect()
    }

    /// As the binaries do it.
    fn plan(&self, models: &[&Model], points: &[MergePoint], method: Method, unmerge: UnmergeRule) -> Option<Plan> {
        let (n, observed) = (models.len(), self.observed());
        let dims: Vec<usize> = points.iter().map(|point| point.dim).collect();
        let settings = PlanSettings { method, unmerge };
        let nature = |p: usize| PointNature::from(&points[p]);
        if let Method::Cca { gamma } = method {
            let maps = |p: usize| {
                let maps = cca(observed[p].clone(), n, gamma).unwrap();
                let of = observed[p].clone();
                PointPlan::from_maps(&points[p].name, &maps.merge, &maps.unmerge, of, n, &unmerge).unwrap()
            };
            // Fewer samples than features leave directions that any rotation serves.
            let enough = |(point, of): (&MergePoint, &Observed<'_>)| of.moments.count as usize > 4 * point.dim;
            let serves = points.iter().zip(&observed).all(enough) && points.iter().all(|point| point.blocks.is_none());
            return serves.then(|| Plan { n_models: n, settings, points: (0..points.len()).map(maps).collect() });
        }
        let mut matchings: Vec<_> = match method {
            Method::Weight { seed } => weight_matching(models, points, seed).ok()?.into_iter().map(Some).collect(),
            Method::Mudsc { rho, solver, seed } => {
                mudsc(models, points, &observed, rho, solver, &dims, seed).ok()?.into_iter().map(Some).collect()
            }
            _ => vec![None; points.len()],
        };
        for (p, point) in points.iter().enumerate() {
            if let (None, Some(blocks)) = (&matchings[p], point.blocks) {
                let own = |q: &usize| points[*q].blocks.is_some_and(|other| other.family == blocks.family);
                let family: Vec<usize> = (0..points.len()).filter(own).collect();
                let members: Vec<Member<'_>> = (family.iter())
                    .map(|&q| Member { observed: observed[q].clone(), blocks: points[q].blocks.unwrap() })
                    .collect();
                let found = match_blocks(&method, &members, n).ok()?;
                family.iter().zip(found).for_each(|(&q, found)| matchings[q] = Some(found));
            }
        }
        let maps = |p: usize| {
            let of = observed[p].clone();
            let matching =
                matchings[p].clone().unwrap_or_else(|| match_features(&method, of.clone(), n, dims[p]).unwrap());
            PointPlan::new(&points[p].name, &matching, of, n, &unmerge, nature(p)).unwrap()
        };
        Some(Plan { n_models: n, settings, points: (0..points.len()).map(maps).collect() })
    }
}

/// Makes features of every space constant: what every layer writes of them is a number of its own, or 0.
fn with_constants(model: &Model, spaces: &Spaces, seed: u64, share: f64) -> Model {
    with_still(model, spaces, seed, share, |rng| [0.0, -1.0, rng.random_range(-0.5..2.0)][rng.random_range(0..3)])
}

fn with_still(
    model: &Model,
    spaces: &Spaces,
    seed: u64,
    share: f64,
    mut number: impl FnMut(&mut ChaCha8Rng) -> f32,
) -> Model {
    let mut rng = rng(seed);
    let mut model = model.clone();
    let still: Vec<Vec<bool>> =
        spaces.spaces.iter().map(|space| (0..space.dim).map(|_| rng.random_bool(share)).collect()).collect();
    for node in model.graph.nodes.clone() {
        let scales = matches!(node.op, Op::BatchNorm2d { .. }) || node.op.mixes();
        if !scales || spaces.axes[&node.name].iter().any(|s| s.repeat > 1) {
            continue;
        }
        let order = spaces.orders.get(&node.name);
        let mut at = 0;
        for segment in &spaces.axes[&node.name] {
            for &still in &still[segment.space] {
                let place = order.map_or(at, |order| order[at]);
                at += 1;
                if !still || spaces.spaces[segment.space].fixed.is_some() {
                    continue;
                }
                model.weights.get_mut(&node.tensor("weight")).unwrap().index_axis_mut(Axis(0), place).fill(0.0);
                let number = number(&mut rng);
                if let Some(bias) = model.weights.get_mut(&node.tensor("bias")) {
                    bias[place] = number;
                }
            }
        }
    }
    model
}

/// Largest difference of logits from the original's, over the largest of these.
fn error(merged: &Model, original: &Model, n_models: usize) -> f64 {
    let x = image(&original.graph, 99);
    let own = logits(original, &x).concat();
    let ours = logits(merged, &x).concat();
    let largest = own.iter().fold(0.0_f64, |m, y| m.max(y.abs()));
    assert!(largest > 1e-3, "a network that says something");
    assert_eq!(ours.len(), n_models * own.len());
    ours.iter().zip(own.iter().cycle()).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max) / largest
}

fn methods() -> Vec<Method> {
    let mut methods = vec![
        Method::Zip { alpha: 1.0, beta: 1.0 },
        Method::Zip { alpha: 0.3, beta: 0.15 },
        Method::Zip { alpha: 0.0, beta: 0.0 },
        Method::Permute,
        Method::Kmeans { seed: 1 },
        Method::Optimal,
        Method::Cca { gamma: 0.0 },
        Method::Mudsc { rho: 0.5, solver: Solver::Permute, seed: 1 },
        Method::Mudsc { rho: 0.5, solver: Solver::Zip { alpha: 1.0, beta: 1.0 }, seed: 1 },
    ];
    for similarity in Similarity::ALL {
        methods.extend([Method::Ward { similarity }, Method::Average { similarity }]);
    }
    methods
}

const RULES: [UnmergeRule; 2] = [UnmergeRule::Pinv, UnmergeRule::Covariance { ridge: 1e-6 }];

/// Every method gives every copy's function back.
fn copies_are_found(original: &Model, orders: &[Orders], spaces: &Spaces, methods: &[Method], n_images: u64) {
    let graph = &original.graph;
    let models: Vec<Model> = orders.iter().map(|orders| permuted(original, orders).unwrap()).collect();
    let models: Vec<&Model> = std::iter::once(original).chain(&models).collect();
    let points = graph.merge_points(spaces);
    let measured = Measured::of(&models, &points, n_images);
    for &method in methods {
        // `b` of the oddities makes five features of two channels, which leaves directions that any rotation serves.
        // k-means makes groups of unequal sizes of features that are equal, which a norm counts.
        let normalised = points.iter().any(|point| point.normalised);
        let ambiguous = graph.arch == "oddities" && matches!(method, Method::Cca { .. })
            || normalised && matches!(method, Method::Kmeans { .. });
        if ambiguous || method == Method::Optimal && models.len() > 2 {
            continue;
        }
        for rule in RULES {
            let Some(plan) = measured.plan(&models, &points, method, rule) else { continue };
            plan.validate().unwrap();
            for point in &plan.points {
                let lost = point.summary.reconstruction_error;
                assert!(lost < 1e-5, "{} {method:?} {rule:?} `{}`: lost {lost}", graph.arch, point.name);
            }
            let merged = apply(&models, &plan, Heads::Separate).unwrap();
            let error = error(&merged, original, models.len());
            assert!(error <= 1e-4, "{} {method:?} {rule:?}: {error}", graph.arch);
        }
    }
}

#[test]
fn permuted_copies_with_constants_give_the_function_back() {
    let all = zoo();
    // A residual network, one that is flattened, concatenations; blocks, heads, norms of samples.
    let graphs: Vec<Graph> = [0, 5, 7].map(|i| all[i].clone()).into_iter().chain(modern()).collect();
    for (seed, graph) in (0..).zip(&graphs) {
        let spaces = graph.spaces().unwrap();
        for share in [0.1, 0.4] {
            let original = with_constants(&model(graph, 7 + seed), &spaces, seed, share);
            let copy = random_orders(&spaces, seed + 50);
            copies_are_found(&original, &[copy], &spaces, &methods(), 40);
        }
    }
}

#[test]
fn equal_features_are_kept_apart_where_a_norm_counts_them() {
    for (seed, graph) in (0..).zip(&modern()) {
        let spaces = graph.spaces().unwrap();
        for share in [0.2, 0.5] {
            let original = with_still(&model(graph, 17 + seed), &spaces, seed, share, |_| 0.0);
            let copy = random_orders(&spaces, seed + 70);
            copies_are_found(&original, &[copy], &spaces, &methods(), 40);
        }
    }
}

#[test]
fn three_networks_and_streams_that_fall_silent() {
    let graph = &zoo()[0];
    let spaces = graph.spaces().unwrap();
    let mut original = with_constants(&model(graph, 3), &spaces, 3, 0.2);
    // Features 0 and 1 of the first stream are 0 where the stream ends and is measured, and alive in its earlier blocks.
    let last = graph.nodes.iter().find(|node| node.name == "layer1.2.bn2").unwrap();
    for (j, shift) in [(0, -50.0), (1, -60.0)] {
        original.weights.get_mut(&last.tensor("bias")).unwrap()[j] = shift;
        for node in graph.nodes.iter().filter(|node| ["bn1", "layer1.0.bn2", "layer1.1.bn2"].contains(&&*node.name)) {
            original.weights.get_mut(&node.tensor("weight")).unwrap()[j] = 1.0;
            original.weights.get_mut(&node.tensor("bias")).unwrap()[j] = 0.3;
        }
        let conv = original.weights.get_mut("conv1.weight").unwrap();
        conv.index_axis_mut(Axis(0), j).iter_mut().enumerate().for_each(|(i, w)| *w = 0.1 * ((i + 3 * j) % 5) as f32);
    }
    let copies = [10, 11].map(|seed| random_orders(&spaces, seed));
    let models = [original.clone(), permuted(&original, &copies[0]).unwrap()];
    let points = graph.merge_points(&spaces);
    let measured = Measured::of(&models.each_ref(), &points, 10);
    let (stream, (moments, constants)) =
        points.iter().zip(&measured.0).find(|(point, _)| point.name == "layer1.2.relu_1").unwrap();
    assert!(stream.reads.len() > 2, "the first convolutions of the blocks, and the next stage");
    assert_eq!(moments.covariance()[[0, 0]], 0.0, "nothing is seen of it at the end");
    assert!(!constants.rests(0) && !constants.rests(1), "and yet it is read");
    copies_are_found(&original, &copies[..1], &spaces, &methods(), 40);
    // With damping, chance within a model would beat the third copy.
    let undamped = |method: &Method| !matches!(method, Method::Zip { alpha, .. } if *alpha < 1.0);
    let methods: Vec<Method> = methods().into_iter().filter(undamped).collect();
    copies_are_found(&original, &copies, &spaces, &methods, 40);
}
