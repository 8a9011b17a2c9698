//! Each model's features assigned one to one onto the first model's by their weights alone: no data.
//!
//! Git Re-Basin's weight matching (Ainsworth et al. 2023, arXiv 2209.04836, §3.2, Algorithm 1) on derived spaces, so for
//! every network a [`Graph`](crate::Graph) can describe. With W¹ and Wⁱ the learned tensors of the first model and of
//! model i, and P the permutations of model i's spaces along every axis of a tensor, it climbs
//!
//! `L(P) = Σ over tensors ⟨W¹, P(Wⁱ)⟩`,
//!
//! one space at a time with all others held: L is then linear in that space's permutation, and the best one is a linear
//! sum assignment ([`permute`](mod@super::permute)).

use super::layout::{Axes, Layout};
use super::{Matching, permute};
use crate::graph::{MergePoint, SpaceId, Spaces};
use crate::products::add_product;
use crate::{Error, Model, Result, apply::check_mergeable};
use ndarray::{Array2, Axis};
use rand::{SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;

/// Matches every model's features onto the first's by weights, at the given `points`; one matching for each, d' = d.
///
/// Starting from the identity, the points are visited in a random order that `seed` determines, a new one each sweep,
/// and each takes the permutation that is best while the others stand, if it raises L; until nothing moves. Spaces that
/// are not among `points`, and fixed ones, keep the identity. Models are matched onto the first independently of each
/// other. The result is a local maximum: another seed may find another.
///
/// The tensors that count are the learned ones: weights, biases, and the weight and bias of batch normalisation; not its
/// running statistics. Sums are in f64 and do not depend on the number of threads. Beside the models, the largest tensor
/// is held twice in f64.
///
/// ```
/// use std::collections::BTreeMap;
/// use zipit::graph::{Input, Node, Op};
/// use zipit::{Graph, Model, Preprocess, Task, matching::weight::weight_matching};
/// // y = V W x with two hidden features.
/// let linear = |name: &str, input: &str| Node {
///     name: name.into(),
///     op: Op::Linear { in_features: 2, out_features: 2, bias: false },
///     inputs: vec![input.into()],
///     module: Some(name.into()),
///     params: BTreeMap::new(),
/// };
/// let flatten = Node::new("x", Op::Flatten, vec!["image".into()]);
/// let graph = Graph {
///     arch: "mlp".into(),
///     input: Input { name: "image".into(), shape: vec![2, 1, 1] },
///     nodes: vec![flatten, linear("W", "x"), linear("V", "W")],
///     outputs: vec!["V".into()],
/// };
/// let model = |w: [[f32; 2]; 2], v: [[f32; 2]; 2]| Model {
///     graph: graph.clone(),
///     weights: BTreeMap::from([("W", w), ("V", v)].map(|(name, m)| {
///         (format!("{name}.weight"), ndarray::arr2(&m).into_dyn())
///     })),
///     tasks: vec![Task { name: "t".into(), classes: vec!["a".into(), "b".into()] }],
///     preprocess: Preprocess::new([1, 1], vec![0.5; 2], vec![0.5; 2]),
///     joint: None,
/// };
/// let first = model([[1.0, 0.0], [0.0, 3.0]], [[1.0, 2.0], [0.0, 1.0]]);
/// // The hidden features exchanged: the rows of W and the columns of V.
/// let second = model([[0.0, 3.0], [1.0, 0.0]], [[2.0, 1.0], [1.0, 0.0]]);
/// let points = graph.merge_points(&graph.spaces().unwrap());
/// let matchings = weight_matching(&[&first, &second], &points, 0).unwrap();
/// // By W alone: 3 · 3 + 1 · 1 beats 0; V agrees.
/// assert_eq!(matchings[0].assignment, [0, 1, 1, 0]);
/// ```
///
/// # Errors
/// Models that cannot be merged or that are not valid by themselves; points that are not the models' merge points, or
/// one of them twice.
pub fn weight_matching(models: &[&Model], points: &[MergePoint], seed: u64) -> Result<Vec<Matching>> {
    let spaces = matchable_spaces(models, points)?;
    let layout = Layout::new(models, &spaces);
    let still: Vec<Axes> = spaces.spaces.iter().map(|space| Axes::identity(space.dim)).collect();
    let moved: Vec<Vec<Axes>> = (models[1..].iter())
        .map(|model| {
            let mut ascent = Ascent { layout: &layout, first: models[0], still: &still, model, axes: still.clone() };
            ascent.climb(points, seed);
            ascent.axes
        })
        .collect();
    let matching = |point: &MergePoint| {
        let onto = moved.iter().flat_map(|axes| axes[point.space].to.iter().copied());
        let assignment: Vec<u32> = (0..point.dim as u32).chain(onto).collect();
        Matching::from_assignment(&assignment)
    };
    Ok(points.iter().map(matching).collect())
}

/// What [`weight_matching`] climbs, for any matchings of the `points`: `Σ_{i>1} Σ_tensors ⟨C¹(W¹), Cⁱ(Wⁱ)⟩`, where C adds
/// up each group's members along every axis.
///
/// # Errors
/// As [`weight_matching`], and for matchings that are not one for each point, of all its features.
pub fn objective(models: &[&Model], points: &[MergePoint], matchings: &[Matching]) -> Result<f64> {
    let spaces = matchable_spaces(models, points)?;
    let layout = Layout::new(models, &spaces);
    let fits = points.len() == matchings.len()
        && points.iter().zip(matchings).all(|(p, m)| m.assignment.len() == models.len() * p.dim);
    if !fits {
        return Err(Error::Request("the matchings are not those of the merge points".into()));
    }
    let axes = |i: usize| {
        let mut axes: Vec<Axes> = spaces.spaces.iter().map(|space| Axes::identity(space.dim)).collect();
        for (point, matching) in points.iter().zip(matchings) {
            let to = matching.assignment[i * point.dim..(i + 1) * point.dim].to_vec();
            axes[point.space] = Axes { to, scale: vec![1.0; matching.n_groups] };
        }
        axes
    };
    let still = axes(0);
    let agreement = |i: usize| {
        let own = axes(i);
        let on =
            |place| (&layout.in_common(models[0], place, &still) * &layout.in_common(models[i], place, &own)).sum();
        layout.blocks().map(on).sum::<f64>()
    };
    Ok((1..models.len()).map(agreement).sum())
}

/// The spaces of models that can be merged, and at these points.
pub(super) fn matchable_spaces(models: &[&Model], points: &[MergePoint]) -> Result<Spaces> {
    check_mergeable(models)?;
    for (i, model) in models.iter().enumerate() {
        model.validate().map_err(|e| Error::Request(format!("model {}: {e}", i + 1)))?;
    }
    let graph = &models[0].graph;
    let spaces = graph.spaces()?;
    if let Some(space) = spaces.spaces.iter().find(|space| space.blocks.is_some()) {
        return Err(Error::Request(format!(
            "weights cannot be matched here: `{}` is in blocks (a grouped convolution, attention heads), which this \
             method does not know; use `zip`, `ward`, `average`, `permute` or `identity`",
            space.name
        )));
    }
    if let Some(value) = spaces.orders.keys().next() {
        return Err(Error::Request(format!(
            "weights cannot be matched here: `{value}` is shuffled, which this method does not know; use `zip`, `ward`, \
             `average`, `permute` or `identity`"
        )));
    }
    let known = graph.merge_points(&spaces);
    for (i, point) in points.iter().enumerate() {
        if !known.contains(point) {
            return Err(Error::Request(format!("`{}` is none of {}'s merge points", point.name, graph.arch)));
        }
        if points[..i].contains(point) {
            return Err(Error::Request(format!("the merge point `{}` is named twice", point.name)));
        }
    }
    Ok(spaces)
}

/// One model on its way onto the first.
struct Ascent<'a> {
    layout: &'a Layout,
    first: &'a Model,
    /// The first model's, by space: the identity.
    still: &'a [Axes],
    model: &'a Model,
    /// By space.
    axes: Vec<Axes>,
}

impl Ascent<'_> {
    /// Sweeps over the points until none moves.
    ///
    /// A point is left out while nothing it shares a tensor with has moved since its last turn: it would stay.
    fn climb(&mut self, points: &[MergePoint], seed: u64) {
        let mut stale = vec![true; self.axes.len()];
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut order: Vec<usize> = (0..points.len()).collect();
        let mut moved = true;
        while moved {
            moved = false;
            order.shuffle(&mut rng);
            for &at in &order {
                let space = points[at].space;
                if std::mem::take(&mut stale[space]) && self.step(space) > 0.0 {
                    moved = true;
                    self.layout.neighbours(space).for_each(|neighbour| stale[neighbour] = true);
                }
            }
        }
    }

    /// Takes the best permutation of one space while the others stand, and returns by how much that raised L: 0 where it
    /// did not, by more than rounding, and the old one was kept.
    fn step(&mut self, space: SpaceId) -> f64 {
        let mut similarity = self.similarity(space);
        // Every permutation's sum loses the same by this. What remains is what tells partners apart, without the pull of
        // a few large features on all others, over which the assignment would take several times as long.
        for axis in [Axis(0), Axis(1)] {
            if let Some(mean) = similarity.mean_axis(axis) {
                similarity -= &mean.insert_axis(axis);
            }
        }
        let largest = similarity.iter().fold(0.0_f64, |largest, x| largest.max(x.abs()));
        if largest == 0.0 {
            return 0.0;
        }
        let d = similarity.nrows();
        let onto = permute::assign(d, |j, k| similarity[[j, k]] / largest);
        if onto == self.axes[space].to {
            return 0.0;
        }
        let read_off = |to: &[u32]| to.iter().enumerate().map(|(j, &k)| similarity[[j, k as usize]]).sum::<f64>();
        // Of a tensor with this space along both axes the similarity is only the slope, so there L is measured.
        let squares = self.layout.places(space).iter().any(|&place| self.layout.is_square(place));
        let gain = if squares {
            let before = self.objective(space);
            let old = std::mem::replace(&mut self.axes[space].to, onto.clone());
            let gain = self.objective(space) - before;
            self.axes[space].to = old;
            gain
        } else {
            read_off(&onto) - read_off(&self.axes[space].to)
        };
        // The assignment rounds each of d similarities to this unit.
        if gain > d as f64 * largest / permute::UNIT {
            self.axes[space].to = onto;
            return gain;
        }
        0.0
    }

    /// `[j, k] = Σ over tensors ⟨slice j of this model, slice k of the first⟩`, `[d, d]`, with every other axis permuted.
    fn similarity(&self, space: SpaceId) -> Array2<f64> {
        let d = self.axes[space].to.len();
        let mut similarity = Array2::zeros((d, d));
        for &place in self.layout.places(space) {
            let own = self.layout.slices(self.model, place, &self.axes);
            let first = self.layout.slices(self.first, place, self.still);
            add_product(&mut similarity, own.view(), first.view());
        }
        similarity
    }

    /// The part of L that this space's permutation decides.
    fn objective(&self, space: SpaceId) -> f64 {
        let places = self.layout.places(space).iter();
        // A block with the space along both axes has two places, and counts once.
        let blocks = places.filter(|&&place| place.is_rows() || !self.layout.is_square(place));
        let agreement = |&place| {
            let first = self.layout.in_common(self.first, place, self.still);
            (&first * &self.layout.in_common(self.model, place, &self.axes)).sum()
        };
        blocks.map(agreement).sum()
    }
}
