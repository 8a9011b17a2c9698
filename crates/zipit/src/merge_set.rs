//! Which spaces are merged. Graph surgery knows only the set; stopping early and starting late are ways to name it.

use crate::budget::MacModel;
use crate::graph::{Graph, MergePoint, SpaceId, Spaces};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::{fmt, str::FromStr};

/// A place in the network: a value, or a share of the layers.
///
/// ```
/// use zipit::merge_set::Bound;
/// assert_eq!("7/20".parse(), Ok(Bound::Layers { k: 7, n: 20 }));
/// assert_eq!("layer1.2.add".parse(), Ok(Bound::Value("layer1.2.add".into())));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Bound {
    /// Any value of a space names the space.
    Value(String),
    /// `k/n`: the first `k` of the network's `n` layers.
    Layers {
        /// Layers before the bound.
        k: usize,
        /// All layers; must be the network's, so that a bound meant for another network is noticed.
        n: usize,
    },
}

impl FromStr for Bound {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        if text.trim().is_empty() {
            return Err(Error::Request(
                "an empty name; give a value such as layer1.2.add or layers such as 7/20".into(),
            ));
        }
        match text.split_once('/').map(|(k, n)| (k.trim().parse(), n.trim().parse())) {
            Some((Ok(k), Ok(n))) => Ok(Self::Layers { k, n }),
            Some(_) | None => Ok(Self::Value(text.trim().to_owned())),
        }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value(value) => f.write_str(value),
            Self::Layers { k, n } => write!(f, "{k}/{n}"),
        }
    }
}

impl From<Bound> for String {
    fn from(bound: Bound) -> Self {
        bound.to_string()
    }
}

impl TryFrom<String> for Bound {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

/// A way to name the set of merged spaces. The default names all of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Selection {
    /// Partial zip. A value: the merge points measured up to and including its own. `k/n`: those reached within the
    /// first k layers; `0/n` merges nothing, which is the ensemble.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_at: Option<Bound>,
    /// N stems into one trunk. A value: the merge points measured from its own on. `k/n`: those reached after the first
    /// k layers, which stay separate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_at: Option<Bound>,
    /// Exactly the spaces of these values, and those that can only be merged together with them; excludes the bounds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub only: Option<Vec<String>>,
}

/// What a selection names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chosen {
    /// What is merged, in the order of the forward pass.
    pub points: Vec<MergePoint>,
    /// What every model keeps, though it could be merged: the layers between merged features and carried ones, two dense
    /// ones for each model, would take more multiply-adds than the merge saves. Only a list of points merges these.
    pub apart: Vec<MergePoint>,
}

impl Selection {
    /// The merge points that the selection names for N models.
    ///
    /// ```
    /// use zipit::{graph::{Arch, ArchSpec}, merge_set::Selection};
    /// let graph = ArchSpec::new(Arch::ResNet20, 1.0, 3, [32, 32], 10).build().unwrap();
    /// let stage_1 = Selection { stop_at: Some("7/20".parse().unwrap()), ..Selection::default() };
    /// assert_eq!(stage_1.resolve(&graph, 2).unwrap().points.last().unwrap().name, "layer1.2.relu_1");
    /// ```
    ///
    /// # Errors
    /// A name that is no value of the network or lies in a fixed space (the message lists the merge points), a share
    /// of another number of layers, bounds that leave nothing between them or only what is not worth merging, or `only`
    /// together with a bound.
    pub fn resolve(&self, graph: &Graph, n_models: usize) -> Result<Chosen> {
        let chosen = self.divide(graph, n_models)?;
        if chosen.points.is_empty() && !chosen.apart.is_empty() {
            let names: Vec<&str> = chosen.apart.iter().map(|point| point.name.as_str()).collect();
            return Err(Error::Request(format!(
                "nothing is left to merge: beside nodes that are carried, merging costs more FLOPs than it saves; a list of \
                 merge points (--merge-only) merges all the same: {}",
                names.join(", ")
            )));
        }
        Ok(chosen)
    }

    /// As [`resolve`](Self::resolve), also where nothing is left to merge.
    ///
    /// # Errors
    /// The same, but for that.
    pub fn divide(&self, graph: &Graph, n_models: usize) -> Result<Chosen> {
        let spaces = graph.spaces()?;
        let network = Network { graph, points: graph.merge_points(&spaces), spaces, n_layers: graph.n_layers() };
        if let Some(values) = &self.only {
            if self.stop_at.is_some() || self.start_at.is_some() {
                return Err(Error::Request(
                    "a list of merge points and stop-at or start-at exclude each other; give one or the other".into(),
                ));
            }
            return Ok(Chosen { points: network.only(values)?, apart: vec![] });
        }
        let stop = self.stop_at.as_ref().map(|bound| network.positions(bound)).transpose()?;
        let start = self.start_at.as_ref().map(|bound| network.positions(bound)).transpose()?;
        let within = (network.points.iter().enumerate())
            .filter(|(i, p)| stop.as_ref().is_none_or(|bound| bound.holds_until(*i, p)))
            .filter(|(i, p)| start.as_ref().is_none_or(|bound| bound.holds_from(*i, p)))
            .map(|(i, _)| i)
            .collect();
        let chosen = network.with_kin(&within);
        if let (true, Some(stop), Some(start)) = (chosen.is_empty(), &self.stop_at, &self.start_at) {
            return Err(Error::Request(format!(
                "starting at {start} and stopping at {stop} leaves no merge point between them; {}",
                network.listing()
            )));
        }
        // Of the whole network, so that a trunk that ends earlier is the beginning of the whole one's.
        let apart = network.not_worth_merging(n_models)?;
        let (apart, points): (Vec<_>, Vec<_>) = chosen.into_iter().partition(|point| apart.contains(&point.space));
        Ok(Chosen { points, apart })
    }
}

/// A bound in the middle of a residual stream, which is one space: it is merged from end to end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MidStream {
    /// What was asked for.
    pub bound: Bound,
    /// The layers of the network that the stream's values come after, from its first to its last.
    pub layers: [usize; 2],
    /// The value at its end, the merge point.
    pub ends_at: String,
}

impl Selection {
    /// The bounds that name a value in the middle of a stream: before the last layer that writes it for `stop_at`, after
    /// the first for `start_at`.
    ///
    /// # Errors
    /// As [`resolve`](Self::resolve).
    pub fn mid_stream(&self, graph: &Graph) -> Result<Vec<MidStream>> {
        let spaces = graph.spaces()?;
        let depths = graph.layer_depths();
        let points = graph.merge_points(&spaces);
        let mut found = Vec::new();
        for (bound, stops) in [(&self.stop_at, true), (&self.start_at, false)] {
            let Some(Bound::Value(value)) = bound else { continue };
            let Some(space) = spaces.of_value(value) else { continue };
            let Some(point) = points.iter().find(|point| point.space == space) else { continue };
            let first = spaces.spaces[space].values.first().and_then(|value| depths.get(value.as_str()));
            let (first, at) = (first.copied().unwrap_or(0), depths[value.as_str()]);
            if if stops { at < point.layers } else { at > first } {
                let layers = [first, point.layers];
                found.push(MidStream { bound: Bound::Value(value.clone()), layers, ends_at: point.name.clone() });
            }
        }
        Ok(found)
    }
}

struct Network<'a> {
    graph: &'a Graph,
    spaces: Spaces,
    points: Vec<MergePoint>,
    n_layers: usize,
}

/// A bound in terms of merge points.
enum Position {
    /// First and last of the points the value touches.
    Points(usize, usize),
    Layers(usize),
}

impl Position {
    fn holds_until(&self, i: usize, point: &MergePoint) -> bool {
        match *self {
            Self::Points(_, last) => i <= last,
            Self::Layers(k) => point.layers <= k,
        }
    }

    fn holds_from(&self, i: usize, point: &MergePoint) -> bool {
        match *self {
            Self::Points(first, _) => i >= first,
            Self::Layers(k) => point.layers > k,
        }
    }
}

impl Network<'_> {
    fn positions(&self, bound: &Bound) -> Result<Position> {
        match bound {
            Bound::Layers { k, n } => {
                if *n != self.n_layers || k > n {
                    return Err(Error::Request(format!(
                        "{bound} of the layers makes no sense here: {} has {}, so write k/{} with k from 0 to {}",
                        self.graph.arch, self.n_layers, self.n_layers, self.n_layers
                    )));
                }
                Ok(Position::Layers(*k))
            }
            Bound::Value(value) => {
                let touched = self.points_of(value).map_err(|reason| self.refusal(&[reason]))?;
                Ok(Position::Points(touched[0], touched[touched.len() - 1]))
            }
        }
    }

    fn only(&self, values: &[String]) -> Result<Vec<MergePoint>> {
        let mut chosen = BTreeSet::new();
        let mut reasons = Vec::new();
        for value in values {
            match self.points_of(value) {
                Ok(points) => chosen.extend(points),
                Err(reason) => reasons.push(reason),
            }
        }
        if reasons.is_empty() { Ok(self.with_kin(&chosen)) } else { Err(self.refusal(&reasons)) }
    }

    /// Indices of the merge points along the value's feature axis, ascending; never empty.
    fn points_of(&self, value: &str) -> Result<Vec<usize>, String> {
        let Some(axis) = self.spaces.axes.get(value) else {
            return Err(format!("`{value}` is no value of {}", self.graph.arch));
        };
        let spaces: BTreeSet<SpaceId> = axis.iter().map(|segment| segment.space).collect();
        let points: Vec<usize> =
            self.points.iter().enumerate().filter(|(_, p)| spaces.contains(&p.space)).map(|(i, _)| i).collect();
        if points.is_empty() {
            return Err(format!("`{value}` belongs to the network's input or outputs, which are never merged here"));
        }
        Ok(points)
    }

    /// These points and those that can only be merged together with them.
    fn with_kin(&self, chosen: &BTreeSet<usize>) -> Vec<MergePoint> {
        let kin = |point: &MergePoint| self.spaces.spaces[point.space].kin;
        let merged: BTreeSet<usize> = chosen.iter().map(|&i| kin(&self.points[i])).collect();
        self.points.iter().filter(|point| merged.contains(&kin(point))).cloned().collect()
    }

    /// The spaces that are better left out: one after the other, what saves most by being left out, of those that carried
    /// features meet.
    fn not_worth_merging(&self, n_models: usize) -> Result<BTreeSet<SpaceId>> {
        let model = MacModel::new(self.graph, &self.spaces, &[], n_models)?;
        let crossed = model.crossed();
        let mut widths = vec![None; self.spaces.spaces.len()];
        let mut together: BTreeMap<usize, Vec<SpaceId>> = BTreeMap::new();
        for point in &self.points {
            widths[point.space] = Some(point.dim);
            together.entry(self.spaces.spaces[point.space].kin).or_default().push(point.space);
        }
        let mut together: Vec<Vec<SpaceId>> = together.into_values().collect();
        together.retain(|spaces| spaces.iter().any(|space| crossed.contains(space)));
        let mut macs = model.macs(&widths);
        let mut found = BTreeSet::new();
        loop {
            let without = |spaces: &[SpaceId]| {
                let mut widths = widths.clone();
                for &space in spaces {
                    widths[space] = None;
                }
                model.macs(&widths)
            };
            let least = together.iter().map(|spaces| without(spaces)).enumerate().min_by_key(|&(_, macs)| macs);
            let Some((i, then)) = least.filter(|&(_, then)| then < macs) else { break };
            for space in together.remove(i) {
                widths[space] = None;
                found.insert(space);
            }
            macs = then;
        }
        Ok(found)
    }

    fn refusal(&self, reasons: &[String]) -> Error {
        Error::Request(format!("{}; {}", reasons.join("; "), self.listing()))
    }

    fn listing(&self) -> String {
        let points: Vec<String> =
            self.points.iter().map(|p| format!("{} ({}/{})", p.name, p.layers, self.n_layers)).collect();
        format!("the merge points, with their layers, are {}", points.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{Arch, ArchSpec};

    fn resolve(stop: &str, start: &str, only: &[&str]) -> Result<Vec<String>> {
        let graph = ArchSpec::new(Arch::ResNet20, 0.25, 3, [32, 32], 10).build().unwrap();
        let bound = |text: &str| (!text.is_empty()).then(|| text.parse().unwrap());
        let selection = Selection {
            stop_at: bound(stop),
            start_at: bound(start),
            only: (!only.is_empty()).then(|| only.iter().map(|&s| s.to_owned()).collect()),
        };
        Ok(selection.resolve(&graph, 2)?.points.into_iter().map(|p| p.name).collect())
    }

    const STAGE_1: [&str; 4] = ["layer1.0.relu", "layer1.1.relu", "layer1.2.relu", "layer1.2.relu_1"];

    #[test]
    fn stop_at_includes_its_own_point() {
        assert_eq!(resolve("", "", &[]).unwrap().len(), 12);
        assert_eq!(resolve("7/20", "", &[]).unwrap(), STAGE_1);
        // Any value of stage 1's stream, the stem's too, names the stream.
        for value in ["layer1.2.relu_1", "layer1.2.add", "conv1", "layer1.0.bn2"] {
            assert_eq!(resolve(value, "", &[]).unwrap(), STAGE_1, "{value}");
        }
        assert_eq!(resolve("layer1.1.bn1", "", &[]).unwrap(), STAGE_1[..2]);
        assert_eq!(resolve("13/20", "", &[]).unwrap().last().unwrap(), "layer2.2.relu_1");
        // Global average pooling and Flatten keep the space.
        assert_eq!(resolve("flatten", "", &[]).unwrap().len(), 12);
        assert_eq!(resolve("20/20", "", &[]).unwrap().len(), 12);
        assert!(resolve("0/20", "", &[]).unwrap().is_empty());
    }

    #[test]
    fn start_at_includes_its_own_point_and_k_layers_stay_separate() {
        assert_eq!(resolve("", "layer3.1.relu", &[]).unwrap(), ["layer3.1.relu", "layer3.2.relu", "layer3.2.relu_1"]);
        assert_eq!(resolve("", "13/20", &[]).unwrap()[0], "layer3.0.relu");
        assert_eq!(resolve("", "0/20", &[]).unwrap().len(), 12);
        assert_eq!(resolve("layer2.0.relu", "layer1.2.add", &[]).unwrap(), ["layer1.2.relu_1", "layer2.0.relu"]);
        let error = resolve("7/20", "13/20", &[]).unwrap_err().to_string();
        assert!(error.contains("leaves no merge point"), "{error}");
    }

    #[test]
    fn the_middle_of_a_stream_is_told() {
        let graph = ArchSpec::new(Arch::ResNet20, 0.25, 3, [32, 32], 10).build().unwrap();
        let middle = |stop: &str, start: &str| {
            let bound = |text: &str| (!text.is_empty()).then(|| text.parse().unwrap());
            let selection = Selection { stop_at: bound(stop), start_at: bound(start), only: None };
            let told = selection.mid_stream(&graph).unwrap();
            told.into_iter().map(|m| (m.bound.to_string(), m.layers, m.ends_at)).collect::<Vec<_>>()
        };
        let stage_1 = |value: &str| vec![(value.to_owned(), [1, 7], "layer1.2.relu_1".to_owned())];
        assert_eq!(middle("layer1.0.add", ""), stage_1("layer1.0.add"));
        assert_eq!(middle("conv1", ""), stage_1("conv1"));
        assert_eq!(middle("", "layer1.1.relu_1"), stage_1("layer1.1.relu_1"));
        // Its end, its beginning, a space inside a block, a share of the layers.
        for (stop, start) in [("layer1.2.add", "conv1"), ("layer1.2.relu_1", "relu"), ("layer1.1.relu", "layer2.0.bn1")]
        {
            assert_eq!(middle(stop, start), []);
        }
        assert_eq!(middle("8/20", "3/20"), []);
    }

    #[test]
    fn only_is_exact_and_exclusive() {
        let chosen = resolve("", "", &["layer3.0.bn1", "conv1", "layer3.0.relu"]).unwrap();
        assert_eq!(chosen, ["layer1.2.relu_1", "layer3.0.relu"]);
        assert!(resolve("7/20", "", &["conv1"]).unwrap_err().to_string().contains("exclude each other"));
        let error = resolve("", "", &["conv1", "conv9", "linear"]).unwrap_err().to_string();
        assert!(error.contains("`conv9` is no value") && error.contains("`linear` belongs"), "{error}");
    }

    #[test]
    fn wrong_bounds_are_refused_with_the_choices() {
        let error = resolve("layer9.relu", "", &[]).unwrap_err().to_string();
        assert!(error.contains("`layer9.relu` is no value of resnet20") && error.contains("layer1.0.relu (2/20)"));
        for bound in ["7/32", "21/20"] {
            let error = resolve(bound, "", &[]).unwrap_err().to_string();
            assert!(error.contains("has 20"), "{error}");
        }
        assert!(resolve("x", "", &[]).unwrap_err().to_string().contains("never merged"));
        assert!(" ".parse::<Bound>().is_err());
    }

    #[test]
    fn a_concatenation_names_all_its_parts() {
        let mut graph = ArchSpec::new(Arch::ResNet20, 0.25, 3, [32, 32], 10).build().unwrap();
        let parts = vec!["layer1.0.relu".into(), "layer1.1.relu".into()];
        graph.nodes.push(crate::graph::Node::new("cat", crate::graph::Op::Concat, parts));
        let stop = Selection { stop_at: Some(Bound::Value("cat".into())), ..Selection::default() };
        let start = Selection { start_at: Some(Bound::Value("cat".into())), ..Selection::default() };
        assert_eq!(stop.resolve(&graph, 2).unwrap().points.len(), 2);
        assert_eq!(start.resolve(&graph, 2).unwrap().points.len(), 12);
    }

    /// An inverted bottleneck whose wide features go through something that is not followed.
    fn carried_inside(wide: usize) -> Graph {
        use crate::graph::{Call, Input, Node, Op, Window};
        let conv = |in_channels, out_channels, k| Op::Conv2d {
            in_channels,
            out_channels,
            window: Window::square(k, 1, k / 2),
            groups: 1,
            bias: true,
        };
        let layer = |name: &str, op: Op, input: &str| Node {
            module: (!op.params().is_empty()).then(|| name.to_owned()),
            ..Node::new(name, op, vec![input.to_owned()])
        };
        let rolled = Op::Call { call: Call::Roll { shifts: vec![1], dims: vec![1] }, shape: vec![1, wide, 4, 4] };
        Graph {
            arch: "bottleneck".into(),
            input: Input { name: "x".into(), shape: vec![3, 4, 4] },
            nodes: vec![
                layer("stem", conv(3, 8, 3), "x"),
                layer("wide", conv(8, wide, 1), "stem"),
                layer("rolled", rolled, "wide"),
                layer("followed", Op::Follow { shape: vec![wide, 4, 4], axis: 0 }, "rolled"),
                layer("narrow", conv(wide, 8, 1), "followed"),
                Node::new("sum", Op::Add, vec!["stem".into(), "narrow".into()]),
                layer("deep", conv(8, 8, 3), "sum"),
                Node::new("mean", Op::Mean, vec!["deep".into()]),
                layer("head", Op::Linear { in_features: 8, out_features: 3, bias: true }, "mean"),
            ],
            outputs: vec!["head".into()],
        }
    }

    #[test]
    fn what_costs_more_merged_than_apart_stays_apart() {
        let graph = carried_inside(32);
        let spaces = graph.spaces().unwrap();
        let all = graph.merge_points(&spaces);
        let Chosen { points, apart } = Selection::default().resolve(&graph, 2).unwrap();
        let names = |points: &[MergePoint]| points.iter().map(|p| p.name.clone()).collect::<Vec<_>>();
        assert_eq!((names(&points), names(&apart)), (vec!["sum".into(), "deep".into()], names(&all[..2])));
        // No other choice is cheaper.
        let model = MacModel::new(&graph, &spaces, &[], 2).unwrap();
        let macs = |points: &[&MergePoint]| {
            let mut widths = vec![None; spaces.spaces.len()];
            for point in points {
                widths[point.space] = Some(point.dim);
            }
            model.macs(&widths)
        };
        let chosen = macs(&points.iter().collect::<Vec<_>>());
        for subset in 0..1_usize << all.len() {
            let some: Vec<_> = all.iter().enumerate().filter(|(i, _)| subset >> i & 1 == 1).map(|(_, p)| p).collect();
            assert!(macs(&some) >= chosen, "{subset:b}");
        }
        // Whoever names them has them merged; more models save more.
        let only = Selection { only: Some(names(&all)), ..Selection::default() };
        assert_eq!(only.resolve(&graph, 2).unwrap(), Chosen { points: all.clone(), apart: vec![] });
        assert_eq!(Selection::default().resolve(&carried_inside(2), 2).unwrap().apart, vec![]);
    }

    #[test]
    fn a_shorter_trunk_is_the_beginning_and_nothing_left_is_an_error() {
        let graph = carried_inside(32);
        let stop = |value: &str| Selection { stop_at: Some(Bound::Value(value.into())), ..Selection::default() };
        let error = stop("followed").resolve(&graph, 2).unwrap_err().to_string();
        assert!(error.contains("nothing is left to merge") && error.contains("wide, followed"), "{error}");
        assert_eq!(stop("followed").divide(&graph, 2).unwrap().apart.len(), 2);
        let whole = Selection::default().resolve(&graph, 2).unwrap();
        let shorter = stop("sum").resolve(&graph, 2).unwrap();
        assert_eq!((&shorter.points[..], &shorter.apart), (&whole.points[..1], &whole.apart));
    }
}
