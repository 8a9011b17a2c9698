//! REPAIR (Jordan et al., ICLR 2023): a scale and a shift per feature, so that each merged feature has the mean and the
//! standard deviation that its members have on average. Averaging features that do not agree fully shrinks them; this
//! puts their size right and leaves everything else.

use super::design::{store, unknowns};
use crate::apply::{Blend, Blended, Grafted, Piece, Role};
use crate::graph::Op;
use crate::{Error, Model, Result};
use ndarray::{Array1, ArrayView1};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Below this share of its mean square a feature's variance is rounding error: it is constant, and has no scale.
const CONSTANT: f64 = 1e-10;

/// A value of the merged network that is rescaled, and the layers that write it.
#[derive(Debug, Clone, PartialEq)]
pub struct Site {
    /// Index of the node in the merged graph that makes the value: a layer, or the sum of the models' parts.
    pub value: usize,
    /// The layers whose outputs add up to it, in order: itself, or the parts.
    pub writers: Vec<usize>,
    /// What each writer reads.
    pub inputs: Vec<Blend>,
    /// Index of the node in the models' graph whose place it takes; in the first model's where all have it.
    pub source: usize,
    /// The only model that has that node, where it is part of a head.
    pub head: Option<usize>,
    /// How its features are made of the models'.
    pub target: Blend,
}

/// Every value that a layer makes and that is not one model's own yet, in the order of the merged graph.
///
/// # Panics
/// When `grafted` is not a merge of these models.
#[must_use]
pub fn sites(grafted: &Grafted, models: &[&Model]) -> Vec<Site> {
    let nodes = &grafted.model.graph.nodes;
    let places: BTreeMap<&str, usize> = nodes.iter().enumerate().map(|(i, node)| (node.name.as_str(), i)).collect();
    let sources = super::layers::Sources::of(models);
    let exact = super::layers::exactness(grafted);
    let site = |value: usize, writers: Vec<usize>| Site {
        value,
        inputs: writers.iter().map(|&i| super::layers::input(grafted, &places, i)).collect(),
        source: sources.place(&grafted.origins[value]),
        head: grafted.origins[value].head,
        target: grafted.origins[value].blend.clone(),
        writers,
    };
    let mut sites = Vec::new();
    for (i, node) in nodes.iter().enumerate() {
        let origin = &grafted.origins[i];
        match origin.role {
            Role::Shared | Role::Own(_) if super::layers::is_unknown(grafted, i) => {
                if exact[i] != super::layers::Exact::Own {
                    sites.push(site(i, vec![i]));
                }
            }
            // Where the models' parts of a layer are summed.
            Role::Shared if matches!(node.op, Op::Add) => {
                let read: Vec<usize> =
                    node.inputs.iter().filter_map(|name| places.get(name.as_str()).copied()).collect();
                let is_part = |&i: &usize| {
                    super::layers::is_unknown(grafted, i)
                        && matches!(grafted.origins[i].role, Role::Part(_))
                        && grafted.origins[i].source == origin.source
                };
                if !read.is_empty() && read.iter().all(is_part) {
                    sites.push(site(i, read));
                }
            }
            Role::Shared | Role::Own(_) | Role::Part(_) => {}
        }
    }
    sites
}

/// n, Σ and Σ² of a merged value's features, and of the models' features that they are made of.
#[derive(Debug, Clone, PartialEq)]
pub struct Spread {
    /// Samples: images times positions.
    pub count: f64,
    /// Σŷ and Σŷ² of the merged features, `[d']`.
    pub merged: [Array1<f64>; 2],
    /// Σy and Σy² of every model's features, `[N·d]`.
    pub models: [Array1<f64>; 2],
}

/// What rescaling a value did.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rescaled {
    /// Mean over the features of standard deviation / goal before.
    pub spread: f64,
}

impl Spread {
    /// Nothing measured yet.
    #[must_use]
    pub fn zeros(n_merged: usize, n_joint: usize) -> Self {
        let both = |n: usize| [Array1::zeros(n), Array1::zeros(n)];
        Self { count: 0.0, merged: both(n_merged), models: both(n_joint) }
    }

    /// Adds what `n` samples sum up to: Σŷ, Σŷ², Σy, Σy².
    ///
    /// # Panics
    /// When a slice is of another length.
    pub fn add(&mut self, n: u64, sums: [&[f64]; 4]) {
        self.count += n as f64;
        for (sum, part) in self.merged.iter_mut().chain(&mut self.models).zip(sums) {
            assert_eq!(sum.len(), part.len(), "sums of another value");
            sum.iter_mut().zip(part).for_each(|(sum, &part)| *sum += part);
        }
    }

    /// Means and standard deviations.
    fn of(&self, [sum, squares]: &[Array1<f64>; 2]) -> [Array1<f64>; 2] {
        let mean = sum / self.count;
        let std = squares.iter().zip(&mean).map(|(square, mean)| {
            let square = square / self.count;
            let variance = square - mean * mean;
            if variance > CONSTANT * square { variance.sqrt() } else { 0.0 }
        });
        let std = std.collect();
        [mean, std]
    }
}

/// Rescales a value: `scale` = goal std / std, shift = goal mean − scale·mean, put into the layers that write it. A
/// constant feature keeps its scale.
///
/// # Errors
/// [`Error::Numbers`] without images, or for sums that are not finite.
///
/// # Panics
/// When the spread is of another value.
pub fn rescale(site: &Site, model: &mut Model, spread: &Spread) -> Result<Rescaled> {
    let name = model.graph.nodes[site.value].name.clone();
    let named = |what: &str| Error::Numbers(format!("`{name}`: {what}"));
    if spread.count <= 0.0 {
        return Err(named("there are no images to measure it on"));
    }
    let [mean, std] = spread.of(&spread.merged);
    let [own_mean, own_std] = spread.of(&spread.models);
    let goal = [blended(&site.target, own_mean.view(), |w| w), blended(&site.target, own_std.view(), f64::abs)];
    let [goal_mean, goal_std] = &goal;
    assert_eq!(mean.len(), goal_mean.len(), "a spread of another value");
    let scale: Array1<f64> =
        std.iter().zip(goal_std).map(|(&std, &goal)| if std > 0.0 && goal > 0.0 { goal / std } else { 1.0 }).collect();
    let shift = goal_mean - &(&scale * &mean);
    if scale.iter().chain(&shift).any(|x| !x.is_finite()) {
        return Err(named("its mean or variance is not finite; check the models' weights"));
    }
    for (at, &writer) in site.writers.iter().enumerate() {
        let node = &mut model.graph.nodes[writer];
        let (mut w, mut b) = unknowns(node, &model.weights);
        w.rows_mut().into_iter().zip(&scale).for_each(|(mut row, &scale)| row *= scale);
        b *= &scale;
        if at == 0 {
            b += &shift;
        }
        store(node, &mut model.weights, &w, &b);
    }
    let ratios: Vec<f64> =
        std.iter().zip(goal_std).filter(|(_, goal)| **goal > 0.0).map(|(std, goal)| std / goal).collect();
    Ok(Rescaled { spread: if ratios.is_empty() { 1.0 } else { ratios.iter().sum::<f64>() / ratios.len() as f64 } })
}

/// M·v for one number per joint feature, `[N·d]` → `[d']`, with every entry of M as `weight` makes it.
fn blended(blend: &Blend, joint: ArrayView1<'_, f64>, weight: impl Fn(f64) -> f64) -> Array1<f64> {
    let d: usize = blend.pieces.iter().map(|piece| piece.dim * piece.repeat).sum();
    let width: usize = blend.pieces.iter().map(|piece| piece.width * piece.repeat).sum();
    let mut merged = Array1::zeros(width);
    let n_models = joint.len() / d;
    for i in (0..n_models).filter(|&i| blend.only.is_none_or(|only| only == i)) {
        for (channel, entries) in channels(blend, i).iter().enumerate() {
            for &(to, w) in entries {
                merged[to] += weight(w) * joint[i * d + channel];
            }
        }
    }
    merged
}

/// For each channel of model i, the merged channels it is in, and with which entry of M.
pub(super) fn channels(blend: &Blend, i: usize) -> Vec<Vec<(usize, f64)>> {
    let mut all = Vec::new();
    let mut to = 0;
    for Piece { dim, width, repeat, made } in &blend.pieces {
        for k in 0..*dim {
            let joint = i * dim + k;
            let groups: Vec<(usize, f64)> = match made {
                Blended::Own(own) if *own == i => vec![(k, 1.0)],
                Blended::Own(_) => vec![],
                // Constants without weight are no part of it.
                Blended::Groups(groups) if groups.share[joint] == 0.0 => vec![],
                Blended::Groups(groups) => vec![(groups.of[joint] as usize, f64::from(groups.share[joint]))],
                Blended::Dense(merge) => (0..*width).map(|g| (g, f64::from(merge[[g, joint]]))).collect(),
            };
            for r in 0..*repeat {
                all.push(groups.iter().map(|&(g, w)| (to + g * repeat + r, w)).collect());
            }
        }
        to += width * repeat;
    }
    if blend.only.is_some_and(|only| only != i) {
        all.iter_mut().for_each(Vec::clear);
    }
    all
}
