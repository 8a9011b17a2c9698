//! Random weights for the graphs, copies with permuted features, and plans that are right by construction.

use crate::graph::{Graph, Op, Segment, Spaces};
use crate::matching::Method;
use crate::plan::{Plan, PlanSettings, PointPlan, PointSummary};
use crate::unmerge::UnmergeRule;
use crate::{Model, Preprocess, Task};
use ndarray::{Array2, ArrayD, Axis, IxDyn};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;

pub fn rng(seed: u64) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(seed)
}

/// The same trunk with heads of its own, one of each width for every head there is: under other names, with a bias where
/// there was none and the other way round.
pub fn with_heads(graph: &Graph, widths: &[usize]) -> Graph {
    let heads = graph.spaces().unwrap().heads;
    let mut other = Graph { nodes: vec![], outputs: vec![], ..graph.clone() };
    for node in &graph.nodes {
        if !heads.contains(&node.name) {
            other.nodes.push(node.clone());
            continue;
        }
        for (k, &width) in widths.iter().enumerate() {
            let named = |name: &String| if heads.contains(name) { format!("own{k}.{name}") } else { name.clone() };
            let mut own = node.clone();
            own.name = named(&node.name);
            own.module = node.module.as_ref().map(|module| format!("own{k}.{module}"));
            own.inputs = node.inputs.iter().map(named).collect();
            match &mut own.op {
                Op::Linear { out_features: n, bias, .. } | Op::Conv2d { out_channels: n, bias, .. } => {
                    (*n, *bias) = (width, !*bias);
                }
                Op::Positions { shape, .. } => shape[0] = width,
                _ => {}
            }
            other.nodes.push(own);
        }
    }
    // Inner values that are outputs stay what they are.
    let (own, inner): (Vec<&String>, Vec<_>) = graph.outputs.iter().partition(|output| heads.contains(*output));
    other.outputs.extend(inner.into_iter().cloned());
    for k in 0..widths.len() {
        other.outputs.extend(own.iter().map(|output| format!("own{k}.{output}")));
    }
    other
}

/// Random weights that keep values of order one.
pub fn model(graph: &Graph, seed: u64) -> Model {
    let mut rng = rng(seed);
    let shapes = graph.output_shapes().unwrap();
    let weights = graph
        .params()
        .into_iter()
        .map(|(name, param)| {
            let fan_in: usize = param.shape[1..].iter().product();
            let bound = (3.0 / fan_in as f32).sqrt();
            let range = match param.name {
                "running_var" => 0.5..1.5,
                "weight" if param.shape.len() == 1 => 0.5..1.5,
                "weight" => -bound..bound,
                _ => -0.5..0.5,
            };
            (name, ArrayD::from_shape_simple_fn(IxDyn(&param.shape), || rng.random_range(range.clone())))
        })
        .collect();
    let named = |(i, output): (usize, &String)| {
        let again = if graph.outputs[..i].contains(output) { " again" } else { "" };
        let n_classes = shapes[i].first().copied().unwrap_or(0);
        let classes = (0..n_classes).map(|c| format!("class {c}")).collect();
        Task { name: format!("task {output}{again}"), classes }
    };
    let tasks = graph.outputs.iter().enumerate().map(named).collect();
    let [c, h, w] = graph.input.shape[..] else { panic!("an image") };
    let preprocess = Preprocess::new([h, w], vec![0.5; c], vec![0.25; c]);
    Model { graph: graph.clone(), weights, tasks, preprocess, joint: None }
}

pub fn image(graph: &Graph, seed: u64) -> ArrayD<f64> {
    let mut rng = rng(seed);
    ArrayD::from_shape_simple_fn(IxDyn(&graph.input.shape), || rng.random_range(-1.0..1.0))
}

/// For every space, where each feature of a copy comes from: feature j is feature `origin[j]` of the original.
pub type Origins = Vec<Vec<usize>>;

/// Nothing moves.
pub fn unmoved(spaces: &Spaces) -> Origins {
    spaces.spaces.iter().map(|s| (0..s.dim).collect()).collect()
}

/// Some features of every free space become copies of others.
pub fn duplication(spaces: &Spaces, seed: u64) -> Origins {
    let mut rng = rng(seed);
    let mut origins = unmoved(spaces);
    for (origin, space) in origins.iter_mut().zip(&spaces.spaces) {
        if space.fixed.is_none() {
            let kept = rng.random_range(1..=space.dim);
            origin.iter_mut().skip(kept).for_each(|j| *j = rng.random_range(0..kept));
        }
    }
    origins
}

/// Positions along an axis after every space's features moved.
fn moved(axis: &[Segment], origins: &Origins) -> Vec<usize> {
    let mut positions = Vec::new();
    let mut offset = 0;
    for segment in axis {
        for &origin in &origins[segment.space] {
            positions.extend((0..segment.repeat).map(|j| offset + origin * segment.repeat + j));
        }
        offset += origins[segment.space].len() * segment.repeat;
    }
    positions
}

/// A network in which feature j equals feature `origin[j]` everywhere.
pub fn duplicated(model: &Model, spaces: &Spaces, origins: &Origins) -> Model {
    let mut copy = model.clone();
    for node in &model.graph.nodes {
        for param in node.op.params() {
            let tensor = copy.weights.get_mut(&node.tensor(param.name)).unwrap();
            *tensor = tensor.select(Axis(0), &moved(&spaces.axes[&node.name], origins));
        }
    }
    copy
}

/// A plan over the free spaces that `chosen` accepts, kin by kin; `label(space, i, j)` says what model i's feature j is.
pub fn plan(
    graph: &Graph,
    n_models: usize,
    mut chosen: impl FnMut(&str) -> bool,
    mut label: impl FnMut(usize, usize, usize) -> usize,
) -> Plan {
    let spaces = graph.spaces().unwrap();
    let mut kin = BTreeMap::new();
    let points = graph
        .merge_points(&spaces)
        .into_iter()
        .filter(|point| *kin.entry(spaces.spaces[point.space].kin).or_insert_with(|| chosen(&point.name)))
        .map(|point| {
            let mut groups = BTreeMap::new();
            let assignment: Vec<u32> = (0..n_models * point.dim)
                .map(|k| {
                    let next = groups.len() as u32;
                    *groups.entry(label(point.space, k / point.dim, k % point.dim)).or_insert(next)
                })
                .collect();
            let n_groups = groups.len();
            let summary = PointSummary {
                across: assignment.len() - n_groups,
                within: vec![0; n_models],
                mean_correlation: None,
                caps_lifted: false,
                reconstruction_error: 0.0,
                condition: None,
                spread: None,
                dead: 0,
                constant: 0,
            };
            PointPlan {
                name: point.name,
                assignment,
                n_groups,
                resting: vec![],
                weights: None,
                merge: None,
                unmerge: None,
                summary,
            }
        })
        .collect();
    Plan { n_models, settings: PlanSettings { method: Method::Identity, unmerge: UnmergeRule::Pinv }, points }
}

pub fn identity(graph: &Graph, n_models: usize, chosen: impl FnMut(&str) -> bool) -> Plan {
    plan(graph, n_models, chosen, |_, _, j| j)
}

/// Makes every unmerge dense without changing what it gives back: where two groups always hold the same value
/// (`kind` of a space's group, by its lowest joint feature), some of one is exchanged for the other.
pub fn thicken(plan: &mut Plan, seed: u64, mut kind: impl FnMut(&str, usize) -> usize) {
    let mut rng = rng(seed);
    plan.settings.unmerge = UnmergeRule::Covariance { ridge: 0.0 };
    for point in &mut plan.points {
        let member = |g: usize| point.assignment.iter().position(|&own| own as usize == g).unwrap();
        let kinds: Vec<usize> = (0..point.n_groups).map(|g| kind(&point.name, member(g))).collect();
        let mut u = Array2::<f32>::zeros((point.assignment.len(), point.n_groups));
        let mut seen = vec![None; point.n_groups];
        for (k, &group) in point.assignment.iter().enumerate() {
            let group = group as usize;
            u[[k, group]] = 1.0;
            // The exchange within one group sums to zero, so that M U = I.
            if let (Some(first), Some(twin)) =
                (seen[group].replace(k), (0..point.n_groups).find(|&g| g != group && kinds[g] == kinds[group]))
            {
                let share = rng.random_range(-0.5..0.5_f32);
                for (row, share) in [(k, share), (first, -share)] {
                    u[[row, group]] += share;
                    u[[row, twin]] -= share;
                }
            }
        }
        point.unmerge = Some(u);
    }
}
