//! How many features to keep at each merge point for a given number of FLOPs, chosen from the statistics alone.
//!
//! The widths d'ₚ are lowered from "nothing merged" one step at a time, always where the unmerge then loses the least
//! per multiply-add saved, until the network fits.

use crate::graph::{Fixed, Graph, MergePoint, Op, Segment, SpaceId, Spaces};
use crate::{Error, Result};
use std::collections::BTreeSet;

/// Multiply-adds of the merged network as a function of the widths of its merged spaces.
#[derive(Debug)]
pub struct MacModel {
    layers: Vec<Layer>,
    /// Width of each space in a source model, `[spaces]`.
    dims: Vec<usize>,
    /// Whether each space is the input's, `[spaces]`.
    input: Vec<bool>,
    n_models: usize,
    one: u64,
    /// Multiply-adds of what is carried: in the trunk, of each model; in heads, of all.
    carried: [u64; 2],
    /// What calls read and make.
    crossings: Vec<Crossing>,
}

/// A layer for each model between merged features and carried ones.
#[derive(Debug)]
struct Crossing {
    axis: Vec<Segment>,
    positions: u64,
    /// Whether it is there even where nothing is merged, to put features back in their order.
    reorders: bool,
    /// One for each model, or one alone in a head unlike the others'.
    copies: u64,
}

#[derive(Debug)]
struct Layer {
    made: Vec<Segment>,
    read: Read,
    /// Multiply-adds per pair of features.
    unit: u64,
    /// Whether one model alone has it, in a head unlike the others'.
    own: bool,
    /// Whether what it reads holds features of the input on which a model's own parameters have worked.
    touched: bool,
}

/// The values that hold features of the input on which parameters have worked: every model has its own.
fn touched<'a>(graph: &'a Graph, spaces: &Spaces) -> BTreeSet<&'a str> {
    let mut found = BTreeSet::new();
    for node in &graph.nodes {
        let of_input = |segment: &Segment| spaces.spaces[segment.space].fixed == Some(Fixed::Input);
        let is_worked_on = node.module.is_some() || node.inputs.iter().any(|name| found.contains(name.as_str()));
        if is_worked_on && spaces.axes[&node.name].iter().any(of_input) {
            found.insert(node.name.as_str());
        }
    }
    found
}

/// What each number that a layer makes is a sum of.
#[derive(Debug)]
enum Read {
    /// Everything along an axis.
    Axis(Vec<Segment>),
    /// So many numbers of an axis: one (depthwise), or a block's.
    Block(u64, Vec<Segment>),
}

impl Read {
    fn axis(&self) -> &[Segment] {
        match self {
            Self::Axis(axis) | Self::Block(_, axis) => axis,
        }
    }
}

impl MacModel {
    /// The layers of N models: of the first one's graph, whose spaces these are, and where heads differ of every `other`
    /// model's, which has the same trunk.
    ///
    /// # Errors
    /// A malformed graph.
    pub fn new(first: &Graph, spaces: &Spaces, others: &[Graph], n_models: usize) -> Result<Self> {
        let mut model = Self {
            layers: vec![],
            dims: spaces.spaces.iter().map(|space| space.dim).collect(),
            input: spaces.spaces.iter().map(|space| space.fixed == Some(Fixed::Input)).collect(),
            n_models,
            one: first.cost()?.macs,
            carried: [0; 2],
            crossings: vec![],
        };
        let heads = if others.is_empty() { BTreeSet::new() } else { spaces.heads.clone() };
        let ids: Vec<SpaceId> = (0..spaces.spaces.len()).collect();
        model.add_layers(first, spaces, &ids, |node| Some(heads.contains(node)))?;
        for graph in others {
            let own = graph.spaces()?;
            let mut ids = Vec::with_capacity(own.spaces.len());
            for space in &own.spaces {
                let known = spaces.spaces.iter().position(|s| s.name == space.name && s.fixed != Some(Fixed::Output));
                ids.push(known.unwrap_or(model.dims.len()));
                if known.is_none() {
                    model.dims.push(space.dim);
                    model.input.push(false);
                }
            }
            model.add_layers(graph, &own, &ids, |node| own.heads.contains(node).then_some(true))?;
        }
        Ok(model)
    }

    /// Adds the layers of which `own` says whether one model alone has them; `ids` are the graph's spaces here.
    fn add_layers(
        &mut self,
        graph: &Graph,
        spaces: &Spaces,
        ids: &[SpaceId],
        own: impl Fn(&String) -> Option<bool>,
    ) -> Result<()> {
        let shapes = graph.shapes()?;
        let touched = touched(graph, spaces);
        let positions_of = |value: &str| shapes[value].get(1..).map_or(1, |all| all.iter().product::<usize>());
        let axis = |value: &String| -> Vec<Segment> {
            spaces.axes[value].iter().map(|s| Segment { space: ids[s.space], ..*s }).collect()
        };
        let n_models = self.n_models as u64;
        let crossing = |value: &String, own: bool| Crossing {
            axis: axis(value),
            positions: positions_of(value) as u64,
            reorders: spaces.orders.contains_key(value),
            copies: if own { 1 } else { n_models },
        };
        let is_own = |node: &String| own(node) == Some(true);
        // What a value needs once for each model is counted where the trunk needs it.
        let calls = graph.nodes.iter().filter(|node| matches!(node.op, Op::Call { .. }) && !is_own(&node.name));
        let of_trunk: BTreeSet<&String> = calls.flat_map(|node| &node.inputs).collect();
        let mut crossed: BTreeSet<&String> = BTreeSet::new();
        let mut cross = |value, own: bool| (!own || !of_trunk.contains(value)) && crossed.insert(value);
        for node in &graph.nodes {
            let Some(own) = own(&node.name) else { continue };
            let positions = positions_of(&node.name);
            let read = node.inputs.first().map(axis).unwrap_or_default();
            let touched = node.inputs.first().is_some_and(|value| touched.contains(value.as_str()));
            let mut push =
                |made, read, unit: usize| self.layers.push(Layer { made, read, unit: unit as u64, own, touched });
            match &node.op {
                Op::Conv2d { window, groups, in_channels, .. } => {
                    let unit = window.kernel[0] * window.kernel[1] * positions;
                    let whole = *groups == 1;
                    let read = if whole { Read::Axis(read) } else { Read::Block((in_channels / groups) as u64, read) };
                    push(axis(&node.name), read, unit);
                }
                Op::Linear { .. } => push(axis(&node.name), Read::Axis(read), positions),
                // Every query meets every key: their products, and the values' weighted sums.
                Op::Attention { .. } => {
                    let n_keys = shapes[node.inputs[1].as_str()].last().copied().unwrap_or(1);
                    push(axis(&node.inputs[1]), Read::Block(1, read.clone()), n_keys * positions);
                    push(axis(&node.inputs[2]), Read::Block(1, read), n_keys * positions);
                }
                Op::Call { call, .. } => {
                    let inputs: Vec<&[usize]> =
                        node.inputs.iter().map(|name| shapes[name.as_str()].as_slice()).collect();
                    self.carried[usize::from(own)] += call.macs(&inputs, &shapes[node.name.as_str()]).unwrap_or(0);
                    let needed = node.inputs.iter().filter(|value| cross(value, own));
                    self.crossings.extend(needed.map(|value| crossing(value, own)));
                }
                Op::Follow { .. } => self.crossings.push(Crossing { reorders: false, ..crossing(&node.name, own) }),
                _ => {}
            }
        }
        let ordered = graph.outputs.iter().filter(|output| spaces.orders.contains_key(*output));
        let ordered = ordered.filter_map(|output| Some((output, own(output)?)));
        self.crossings
            .extend(ordered.filter(|&(value, own)| cross(value, own)).map(|(value, own)| crossing(value, own)));
        Ok(())
    }

    /// Multiply-adds of one network, by which all others are measured: the first model's.
    #[must_use]
    pub fn one(&self) -> u64 {
        self.one
    }

    /// Multiply-adds for one image when space s has `widths[s]` = d' features, or is not merged (`None`): a layer
    /// exists once if what it makes is merged and what it reads is, or is the same for all models; else N times.
    #[must_use]
    pub fn macs(&self, widths: &[Option<usize>]) -> u64 {
        let merged = |s: &Segment| widths.get(s.space).copied().flatten();
        let width = |axis: &[Segment]| -> u64 {
            axis.iter().map(|s| (merged(s).unwrap_or(self.dims[s.space]) * s.repeat) as u64).sum()
        };
        let shared = |axis: &[Segment]| axis.iter().all(|s| merged(s).is_some());
        let one_source = |layer: &Layer| {
            layer.read.axis().iter().all(|s| merged(s).is_some() || self.input[s.space] && !layer.touched)
        };
        let there = |c: &&Crossing| c.reorders || c.axis.iter().any(|s| merged(s).is_some());
        let crossings = self.crossings.iter().filter(there).map(|Crossing { axis, positions, copies, .. }| {
            let own: u64 = axis.iter().map(|s| (self.dims[s.space] * s.repeat) as u64).sum();
            copies * own * width(axis) * positions
        });
        let layers = self.layers.iter().map(|layer| {
            let read = match &layer.read {
                Read::Axis(axis) => width(axis),
                Read::Block(n, _) => *n,
            };
            let once = layer.own || shared(&layer.made) && one_source(layer);
            let copies = if once { 1 } else { self.n_models as u64 };
            copies * width(&layer.made) * read * layer.unit
        });
        self.n_models as u64 * self.carried[0] + self.carried[1] + layers.chain(crossings).sum::<u64>()
    }

    /// Spaces between which and carried features there is a layer for each model once they are merged.
    #[must_use]
    pub fn crossed(&self) -> BTreeSet<SpaceId> {
        self.crossings.iter().flat_map(|crossing| &crossing.axis).map(|segment| segment.space).collect()
    }

    /// Pairs of a layer that writes each space and one that reads it, `[spaces]`.
    fn paths(&self) -> Vec<f64> {
        let count = |axis: fn(&Layer) -> &[Segment]| {
            let mut layers = vec![0.0; self.dims.len()];
            for layer in &self.layers {
                // The models' own heads stand for one layer together.
                let share = if layer.own { 1.0 / self.n_models as f64 } else { 1.0 };
                for segment in axis(layer) {
                    layers[segment.space] += share;
                }
            }
            layers
        };
        let writers = count(|layer| &layer.made);
        let readers = count(|layer| layer.read.axis());
        writers.iter().zip(readers).map(|(writers, readers)| writers * readers).collect()
    }

    /// What losing a share of a space's energy costs, where nothing is known of what it does to the logits.
    ///
    /// What one layer writes and another reads loses energy in the merged space between them, and what goes on through
    /// several spaces loses in each: the network's loss is Σ over such pairs of layers of −ln(1 − lost), so that a residual
    /// stream, which many layers write and read, counts far more than the space inside a block. (Task
    /// average on the demo's validation split at budgets 1 and 1.25: all spaces alike 59.6 and 76.8 %, each times its readers
    /// 85.5 and 90.3 %, times its writers and readers 90.6 and 94.1 %.)
    #[must_use]
    pub fn energy_loss(&self, space: SpaceId, lost: f64) -> f64 {
        -(1.0 - lost).max(1e-9).ln() * self.paths()[space]
    }

    /// The widths of a trunk of all `points` that [`allocate`] arrives at, and what they lose.
    fn shrink(&self, points: &[MergePoint], choices: &[Vec<Choice>], budget: f64) -> (f64, Allocation) {
        let mut at = vec![0; points.len()];
        let mut widths: Vec<Option<usize>> = vec![None; self.dims.len()];
        for (point, choices) in points.iter().zip(choices) {
            widths[point.space] = choices.first().map(|c| c.n_groups);
        }
        let mut macs = self.macs(&widths);
        while macs as f64 > budget {
            let mut best: Option<(f64, usize, u64)> = None;
            for (p, point) in points.iter().enumerate() {
                let Some(next) = choices[p].get(at[p] + 1) else { continue };
                let before = widths[point.space].replace(next.n_groups);
                let then = self.macs(&widths);
                widths[point.space] = before;
                let saved = macs.saturating_sub(then).max(1) as f64;
                let price = (next.loss - choices[p][at[p]].loss).max(0.0) / saved;
                if best.is_none_or(|(lowest, ..)| price < lowest) {
                    best = Some((price, p, then));
                }
            }
            let Some((_, p, then)) = best else { break };
            at[p] += 1;
            widths[points[p].space] = Some(choices[p][at[p]].n_groups);
            macs = then;
        }
        let choices: Vec<Choice> = choices.iter().zip(&at).map(|(choices, &at)| choices[at]).collect();
        (choices.iter().map(|choice| choice.loss).sum(), Allocation { choices, macs })
    }
}

/// One choice at a merge point: keep d' features and lose something.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Choice {
    /// d'.
    pub n_groups: usize,
    /// In any unit that adds up over points: what it does to the logits, or [`MacModel::energy_loss`].
    pub loss: f64,
}

/// The widths that a budget leaves, in the order of the points; fewer than the points where the trunk ends earlier.
#[derive(Debug, Clone, PartialEq)]
pub struct Allocation {
    /// One choice per merged point.
    pub choices: Vec<Choice>,
    /// Multiply-adds of the merged network for one image.
    pub macs: u64,
}

/// Chooses how far to merge and d' at each point so that the merged network takes at most `budget` times the
/// multiply-adds of one source network ([`MacModel::one`]) and loses least; `choices[p]` are those of point p, descending d'.
///
/// For every trunk that ends at one of `points` (`ends_anywhere`), or the one that ends at the last, the widths go down
/// from the widest, again and again by the step that adds the least loss per multiply-add saved; the trunk that loses least
/// is taken, among equals the longest. Ties go to the earlier point.
///
/// # Errors
/// [`Error::Request`] where even the narrowest choices take more, saying how much they take.
pub fn allocate(
    model: &MacModel,
    spaces: &Spaces,
    points: &[MergePoint],
    choices: &[Vec<Choice>],
    budget: f64,
    ends_anywhere: bool,
) -> Result<Allocation> {
    let one = model.one as f64;
    let shortest = if ends_anywhere { 1 } else { points.len() };
    let mut best: Option<(f64, Allocation)> = None;
    let mut least = f64::INFINITY;
    let kin = |point: &MergePoint| spaces.spaces[point.space].kin;
    for length in (shortest..=points.len()).rev() {
        let (inside, outside) = points.split_at(length);
        if outside.iter().any(|other| inside.iter().any(|point| kin(point) == kin(other))) {
            continue;
        }
        let (loss, found) = model.shrink(&points[..length], &choices[..length], budget * one);
        least = least.min(found.macs as f64);
        if found.macs as f64 <= budget * one && best.as_ref().is_none_or(|(lowest, _)| loss < *lowest) {
            best = Some((loss, found));
        }
    }
    best.map(|(_, found)| found).ok_or_else(|| {
        Error::Request(format!(
            "a budget of {budget} times one network's FLOPs cannot be met: with every merge point as narrow as it may \
             be the merged network still takes {:.2} times",
            least / one
        ))
    })
}

/// The widths that a budget chooses among: multiples of d/8 from N·d down to d/8, at least one feature.
///
/// ```
/// assert_eq!(zipit::budget::widths(16, 2)[..3], [32, 30, 28]);
/// assert_eq!(zipit::budget::widths(2, 2), [4, 3, 2, 1]);
/// ```
#[must_use]
pub fn widths(dim: usize, n_models: usize) -> Vec<usize> {
    let mut widths: Vec<usize> = (1..=8 * n_models).rev().map(|eighths| (eighths * dim / 8).max(1)).collect();
    widths.dedup();
    widths
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::apply::{Heads, apply};
    use crate::graph::{Arch, ArchSpec};
    use crate::matching::Method;
    use crate::plan::{Plan, PlanSettings, PointPlan, PointSummary};
    use crate::unmerge::UnmergeRule;
    use crate::{Model, Preprocess, Task};
    use ndarray::{ArrayD, IxDyn};

    fn model(graph: &Graph) -> Model {
        let weights = graph.params().into_iter().map(|(n, p)| (n, ArrayD::ones(IxDyn(&p.shape)))).collect();
        let [_, h, w] = graph.input.shape[..] else { panic!("an image goes in") };
        Model {
            graph: graph.clone(),
            weights,
            tasks: vec![Task { name: "t".into(), classes: ["a", "b", "c"].map(str::to_owned).to_vec() }],
            preprocess: Preprocess::new([h, w], vec![0.5], vec![0.5]),
            joint: None,
        }
    }

    fn point(name: &str, n_joint: usize, n_groups: usize) -> PointPlan {
        PointPlan {
            name: name.to_owned(),
            assignment: (0..n_joint).map(|k| (k % n_groups) as u32).collect(),
            n_groups,
            resting: vec![],
            weights: None,
            merge: None,
            unmerge: None,
            summary: PointSummary {
                across: n_joint - n_groups,
                within: vec![0; 2],
                mean_correlation: None,
                caps_lifted: false,
                reconstruction_error: 0.0,
                condition: None,
                spread: None,
                dead: 0,
                constant: 0,
            },
        }
    }

    #[test]
    fn it_costs_what_apply_makes() {
        for (arch, size) in [(Arch::ResNet20, 16), (Arch::Vgg11Bn, 64), (Arch::ResNet18, 32), (Arch::ResNet50, 32)] {
            let graph = ArchSpec::new(arch, 0.125, 1, [size, size], 3).build().unwrap();
            let spaces = graph.spaces().unwrap();
            let points = graph.merge_points(&spaces);
            let macs = MacModel::new(&graph, &spaces, &[], 2).unwrap();
            let models = [model(&graph), model(&graph)];
            // All points, the first half, the second half, every other one; widths of all kinds.
            for pattern in 0..4 {
                let half = points.len() / 2;
                let chosen = |p: usize| [true, p < half, p >= half, p.is_multiple_of(2)][pattern];
                let mut widths = vec![None; spaces.spaces.len()];
                let mut planned = Vec::new();
                for (p, at) in points.iter().enumerate().filter(|(p, _)| chosen(*p)) {
                    let n_groups = [at.dim, (at.dim / 2).max(1), at.dim + at.dim / 3, 2 * at.dim][(p + pattern) % 4];
                    widths[at.space] = Some(n_groups);
                    planned.push(point(&at.name, 2 * at.dim, n_groups));
                }
                let settings = PlanSettings { method: Method::Identity, unmerge: UnmergeRule::Pinv };
                let plan = Plan { n_models: 2, settings, points: planned };
                let merged = apply(&models.each_ref(), &plan, Heads::Separate).unwrap();
                assert_eq!(macs.macs(&widths), merged.graph.cost().unwrap().macs, "{} {pattern}", graph.arch);
            }
        }
    }

    #[test]
    fn the_cheapest_loss_goes_first() {
        let graph = ArchSpec::new(Arch::ResNet20, 0.25, 1, [16, 16], 3).build().unwrap();
        let spaces = graph.spaces().unwrap();
        let points = graph.merge_points(&spaces);
        let macs = MacModel::new(&graph, &spaces, &[], 2).unwrap();
        // Every point loses nothing down to d and much below, but for the last one, which loses nothing at all.
        let choices: Vec<Vec<Choice>> = points
            .iter()
            .enumerate()
            .map(|(p, at)| {
                let free = p == points.len() - 1;
                let lost = |n: usize| if n >= at.dim || free { 0.0 } else { (at.dim - n) as f64 / at.dim as f64 };
                widths(at.dim, 2)
                    .into_iter()
                    .map(|n_groups| Choice { n_groups, loss: macs.energy_loss(at.space, lost(n_groups)) })
                    .collect()
            })
            .collect();
        let one = macs.one();
        for budget in [0.25, 0.5, 1.0, 1.5, 2.0, 4.0] {
            let found = allocate(&macs, &spaces, &points, &choices, budget, false).unwrap();
            assert!(found.macs as f64 <= budget * one as f64, "{budget}: {} of {one}", found.macs);
            if budget >= 1.0 {
                assert!(found.choices.iter().all(|c| c.loss == 0.0), "{budget}: {found:?}");
            }
        }
        let message = allocate(&macs, &spaces, &points, &choices, 0.001, false).unwrap_err().to_string();
        assert!(message.contains("cannot be met"), "{message}");
    }
}
