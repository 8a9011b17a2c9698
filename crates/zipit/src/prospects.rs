//! What a merge will be, told from graphs and weights alone: what is merged and what is not, what it will cost, and which
//! weights do nothing.

use crate::apply::{Heads, apply};
use crate::graph::{Cost, Fixed, Graph, MergePoint, Op, Space, SpaceId, Spaces};
use crate::matching::Method;
use crate::merge_set::{Bound, Chosen, Selection};
use crate::plan::{Plan, PlanSettings, PointPlan};
use crate::refit::Design;
use crate::unmerge::UnmergeRule;
use crate::{Model, Result};
use ndarray::Axis;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// Up to this share of a tensor's largest number, a number is none: less than f32 keeps of a sum with it.
const NOTHING: f32 = 1e-6;

/// What is merged of networks of one graph, and what stays as it is.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Prospects {
    /// Spaces that are merged.
    pub n_spaces: usize,
    /// Their features, of one model.
    pub n_features: usize,
    /// Spaces that could be merged, and every model keeps: [`Chosen::apart`](crate::merge_set::Chosen::apart).
    pub apart: Vec<String>,
    /// Spaces that are merged together or not at all, by name.
    pub together: Vec<Vec<String>>,
    /// Spaces whose features stand in blocks that no merge crosses: name and number of blocks.
    pub blocks: Vec<(String, usize)>,
    /// Spaces that are never merged.
    pub fixed: Vec<Kept>,
    /// Weights that `refit` leaves as the merge made them: the op, and how many there are.
    pub not_solved: BTreeMap<&'static str, usize>,
    /// How many `BatchNorm`s: without any, there is nothing to recalibrate.
    pub n_batch_norms: usize,
}

/// A space that is never merged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Kept {
    /// The value it would be measured at.
    pub name: String,
    /// Its features.
    pub dim: usize,
    /// `input`, `output`, `tied`, `blocks`, or the space that it is bound to.
    pub why: String,
    /// The node that binds it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}

impl Prospects {
    /// Of N networks of this graph.
    ///
    /// # Errors
    /// A graph that cannot be analysed.
    pub fn of(graph: &Graph, n_models: usize) -> Result<Self> {
        let spaces = graph.spaces()?;
        let Chosen { points, apart } = Selection::default().divide(graph, n_models)?;
        let mut kin: BTreeMap<usize, Vec<String>> = BTreeMap::new();
        for point in &points {
            kin.entry(spaces.spaces[point.space].kin).or_default().push(point.name.clone());
        }
        let mut not_solved = BTreeMap::new();
        for node in graph.nodes.iter().filter(|node| node.module.is_some() && Design::of(&node.op).is_none()) {
            *not_solved.entry(node.op.kind()).or_default() += 1;
        }
        let kept = |(id, space): (usize, &Space)| Some(kept(graph, &spaces, id, space.fixed?));
        Ok(Self {
            n_spaces: points.len(),
            n_features: points.iter().map(|point| point.dim).sum(),
            apart: apart.into_iter().map(|point| point.name).collect(),
            together: kin.into_values().filter(|names| names.len() > 1).collect(),
            blocks: points.iter().filter_map(|p| Some((p.name.clone(), p.blocks?.count))).collect(),
            fixed: spaces.spaces.iter().enumerate().filter_map(kept).collect(),
            not_solved,
            n_batch_norms: graph.nodes.iter().filter(|node| matches!(node.op, Op::BatchNorm2d { .. })).count(),
        })
    }
}

fn kept(graph: &Graph, spaces: &Spaces, id: SpaceId, fixed: Fixed) -> Kept {
    let space = &spaces.spaces[id];
    let (why, by) = match fixed {
        Fixed::Input => ("input".to_owned(), None),
        Fixed::Output => ("output".to_owned(), None),
        Fixed::Tied => {
            let opens = |node: &&crate::graph::Node| {
                node.op.opens() && spaces.axes[&node.name].iter().any(|segment| segment.space == id)
            };
            let mut layers = graph.nodes.iter().filter(opens);
            let tie = layers.find_map(|node| graph.first_tie(&node.name).ok().flatten());
            ("tied".to_owned(), tie.map(|node| node.name.clone()))
        }
        Fixed::Blocks => ("blocks".to_owned(), graph.blocked_by(spaces, id).map(|node| node.name.clone())),
        Fixed::Bound => {
            let other = |s: &&Space| s.kin == space.kin && matches!(s.fixed, Some(Fixed::Input | Fixed::Output));
            let other = spaces.spaces.iter().find(other).map_or_else(String::new, |s| s.name.clone());
            // The layer that makes both, or whose blocks belong together.
            let holds = |value: &String| spaces.axes[value].iter().any(|segment| segment.space == id);
            let ties = |op: &Op| op.opens() || matches!(op, Op::Attention { .. } | Op::GroupNorm { .. });
            let binds = |node: &&crate::graph::Node| {
                ties(&node.op) && std::iter::once(&node.name).chain(&node.inputs).any(holds)
            };
            (other, graph.nodes.iter().rfind(binds).map(|node| node.name.clone()))
        }
    };
    Kept { name: space.name.clone(), dim: space.dim, why, by }
}

/// A merge of everything up to some point, and its cost.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Stop {
    /// The value to stop at (`--stop-at`); `None`: everything is merged.
    pub at: Option<String>,
    /// Layers up to there, of the network's.
    pub layers: [usize; 2],
    /// Merge points.
    pub n_points: usize,
    /// What the merged network costs, each space as wide as in one model.
    pub cost: Cost,
}

/// The full merge and some that stop earlier, at most `at_most` in all, the furthest first: where the network goes on
/// with other positions (its stages); every quarter of the way where it never does.
///
/// # Errors
/// Models that cannot be merged.
pub fn stops(models: &[&Model], at_most: usize) -> Result<Vec<Stop>> {
    let graph = &models[0].graph;
    let shapes = graph.shapes()?;
    let points = Selection::default().divide(graph, models.len())?.points;
    let positions = |point: &MergePoint| shapes[point.measured.value.as_str()][1..].iter().product::<usize>();
    let mut ends: BTreeSet<usize> =
        (1..points.len()).filter(|&i| positions(&points[i - 1]) != positions(&points[i])).map(|i| i - 1).collect();
    if ends.is_empty() {
        ends.extend((1..4).map(|quarter| quarter * points.len() / 4).filter(|&i| i > 0).map(|i| i - 1));
    }
    let n_layers = graph.n_layers();
    let stop = |at: Option<String>, points: &[MergePoint]| -> Result<Stop> {
        let cost = apply(models, &identity(points, models.len()), Heads::Separate)?.graph.cost()?;
        let layers = [points.iter().map(|point| point.layers).max().unwrap_or(0), n_layers];
        Ok(Stop { at, layers, n_points: points.len(), cost })
    };
    let mut stops = vec![stop(None, &points)?];
    let ends: Vec<usize> = ends.into_iter().rev().collect();
    let n = ends.len().min(at_most.saturating_sub(1));
    for k in 0..n {
        let name = &points[ends[k * ends.len() / n]].name;
        let selection = Selection { stop_at: Some(Bound::Value(name.clone())), ..Selection::default() };
        let chosen = selection.divide(graph, models.len())?.points;
        // What can only be merged together may come to the same as another stop.
        if stops.iter().all(|other| other.n_points != chosen.len()) {
            stops.push(stop(Some(name.clone()), &chosen)?);
        }
    }
    Ok(stops)
}

/// Weight averaging at these points: for its shapes.
#[must_use]
pub fn identity(points: &[MergePoint], n_models: usize) -> Plan {
    let settings = PlanSettings { method: Method::Identity, unmerge: UnmergeRule::Pinv };
    Plan { n_models, settings, points: points.iter().map(|point| PointPlan::identity(point, n_models)).collect() }
}

/// Weights that do nothing, counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Dead {
    /// Outputs of layers whose weights are all zero: filters, rows.
    pub filters: usize,
    /// BatchNorm channels whose weight is zero.
    pub norms: usize,
}

/// Features of a model that are the same for every image, as far as weights tell.
#[must_use]
pub fn dead(model: &Model) -> Dead {
    let mut dead = Dead::default();
    for node in model.graph.nodes.iter().filter(|node| node.module.is_some()) {
        let Some(weight) = model.weights.get(&node.tensor("weight")) else { continue };
        let largest = weight.iter().fold(0.0_f32, |largest, x| largest.max(x.abs()));
        let rows = weight.axis_iter(Axis(0));
        let n = rows.filter(|row| row.iter().all(|x| x.abs() <= NOTHING * largest)).count();
        match node.op {
            Op::Conv2d { .. } | Op::Linear { .. } => dead.filters += n,
            Op::BatchNorm2d { .. } => dead.norms += n,
            _ => {}
        }
    }
    dead
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::apply::tests::networks::model;
    use crate::graph::{Arch, ArchSpec, Input, Node, Window};

    fn resnet20() -> Graph {
        ArchSpec::new(Arch::ResNet20, 0.25, 1, [16, 16], 3).build().unwrap()
    }

    #[test]
    fn a_resnet_stops_where_its_stages_end() {
        let models = [1, 2].map(|seed| model(&resnet20(), seed));
        let one = models[0].graph.cost().unwrap();
        let found = stops(&models.each_ref(), 8).unwrap();
        let names: Vec<_> = found.iter().map(|stop| stop.at.as_deref()).collect();
        assert_eq!(names, [None, Some("layer2.2.relu_1"), Some("layer1.2.relu_1")]);
        assert_eq!(found.iter().map(|stop| stop.layers[0]).collect::<Vec<_>>(), [19, 13, 7]);
        let macs: Vec<u64> = found.iter().map(|stop| stop.cost.macs).collect();
        // Two heads and one trunk; the earlier it stops, the more there is twice.
        assert!(one.macs < macs[0] && macs[0] < macs[1] && macs[1] < macs[2] && macs[2] < 2 * one.macs, "{macs:?}");
        assert_eq!(stops(&models.each_ref(), 2).unwrap().len(), 2);
    }

    #[test]
    fn what_is_merged_and_what_is_not_is_told() {
        let conv = |i, o, groups| Op::Conv2d {
            in_channels: i,
            out_channels: o,
            window: Window::square(1, 1, 0),
            groups,
            bias: true,
        };
        let linear = |i, o| Op::Linear { in_features: i, out_features: o, bias: true };
        let layer = |name: &str, op: Op, input: &str| Node {
            module: Some(name.to_owned()),
            ..Node::new(name, op, vec![input.to_owned()])
        };
        let graph = Graph {
            arch: "parts".into(),
            input: Input { name: "x".into(), shape: vec![2, 4, 4] },
            nodes: vec![
                layer("a", conv(2, 8, 1), "x"),
                layer("b", conv(8, 4, 2), "a"),
                layer("norm", Op::LayerNorm { num_features: 4, eps: 1e-5, bias: true }, "b"),
                Node::new("mean", Op::Mean, vec!["norm".into()]),
                layer("fc", linear(4, 3), "mean"),
            ],
            outputs: vec!["fc".into()],
        };
        let found = Prospects::of(&graph, 2).unwrap();
        assert_eq!((found.n_spaces, found.n_features, found.n_batch_norms), (2, 12, 0));
        assert_eq!(found.together, [["a", "norm"]]);
        assert_eq!(found.blocks, [("a".to_owned(), 2), ("norm".to_owned(), 2)]);
        let fixed: Vec<_> = found.fixed.iter().map(|kept| (kept.why.as_str(), kept.name.as_str(), kept.dim)).collect();
        assert_eq!(fixed, [("input", "x", 2), ("output", "fc", 3)]);
        assert_eq!(found.not_solved, BTreeMap::from([("LayerNorm", 1)]));

        // The logits' blocks bind what the grouped layer reads.
        let mut bound = graph.clone();
        bound.nodes.truncate(1);
        bound.nodes.extend([layer("logits", conv(8, 4, 2), "a"), Node::new("pooled", Op::Mean, vec!["logits".into()])]);
        bound.outputs = vec!["pooled".into()];
        let found = Prospects::of(&bound, 2).unwrap();
        let kept = found.fixed.iter().find(|kept| kept.name == "a").unwrap();
        assert_eq!((kept.why.as_str(), kept.by.as_deref()), ("logits", Some("logits")));
        assert_eq!(found.n_spaces, 0);
    }

    #[test]
    fn weights_that_do_nothing_are_counted() {
        let mut own = model(&resnet20(), 1);
        assert_eq!(dead(&own), Dead::default());
        own.weights.get_mut("layer1.0.conv1.weight").unwrap().index_axis_mut(Axis(0), 2).fill(1e-12);
        own.weights.get_mut("layer3.2.bn2.weight").unwrap().fill(0.0);
        assert_eq!(dead(&own), Dead { filters: 1, norms: 16 });
    }
}
