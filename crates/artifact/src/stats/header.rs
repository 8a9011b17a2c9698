//! What a stats file says of itself, and what its numbers must fit.

use crate::{InputRef, Provenance};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use zipit::apply::check_trunks;
use zipit::graph::{Node, Op, Place};
use zipit::refit::{Gram, gram::patch_size};
use zipit::{Extent, Fisher, Graph, Importance, Moments, Preprocess, Task};

/// What was measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StatsHeader {
    /// The network, as the first model has it.
    pub graph: Graph,
    /// Every other model's network, where heads differ; none where all are as the first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<Graph>,
    /// The models in the order of z = [x¹; …; xᴺ].
    pub models: Vec<InputRef>,
    /// Each model's tasks.
    pub tasks: Vec<Vec<Task>>,
    /// What the models expect of an image.
    pub preprocess: Preprocess,
    /// Merge points, in the order of the forward pass: name and d.
    pub points: Vec<(String, usize)>,
    /// Layers whose inputs were measured: module and F, numbers that it reads at once.
    pub layers: Vec<(String, usize)>,
    /// Whether the models were measured together there; `None` without layers.
    pub gram: Option<GramKind>,
    /// Seed of the probes by which importance was measured; `None`: it was not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probes: Option<u64>,
    /// Whose classes the Fisher information and the gradients at layers are of; `None`: neither was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub predicted: Option<Predicted>,
    /// Whether there is Fisher information.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub fisher: bool,
    /// Whether there are gradients at layers.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub gradients: bool,
    /// Images that are in these moments.
    pub n_images: u64,
    /// `Some((i, n))`: the i-th of n shards, i from 1; `None`: the whole.
    pub shard: Option<(usize, usize)>,
    /// Images per batch; another size gives other rounding.
    pub batch_size: usize,
    /// Batches that are in these moments.
    pub batches_done: u64,
    /// Batches there are for this file; fewer done means interrupted.
    pub n_batches: u64,
    /// Who measured, and on which data.
    pub provenance: Provenance,
}

/// Which products of what the models' layers read are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GramKind {
    /// Of all models with each other.
    Joint,
    /// Of each model by itself.
    Own,
}

/// Which classes' log-probabilities gradients are of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Predicted {
    /// All of a network's, by its own probabilities.
    Expected,
    /// The labels'.
    Labels,
}

impl GramKind {
    /// Nothing measured yet of a layer that reads F numbers in each of N models.
    #[must_use]
    pub fn zeros(self, n_models: usize, f: usize) -> Gram {
        match self {
            Self::Joint => Gram::Joint(Moments::zeros(n_models * f)),
            Self::Own => Gram::Own(vec![Moments::zeros(f); n_models]),
        }
    }
}

impl StatsHeader {
    /// The models' different networks.
    pub fn graphs(&self) -> impl Iterator<Item = &Graph> {
        std::iter::once(&self.graph).chain(&self.others)
    }

    /// N.
    #[must_use]
    pub fn n_models(&self) -> usize {
        self.models.len()
    }

    /// The tensors whose Fisher information is measured, and how many numbers each holds: what all models learn, under one
    /// name and in one shape.
    #[must_use]
    pub fn fisher_tensors(&self) -> Vec<(String, usize)> {
        let others: Vec<_> = self.others.iter().map(Graph::params).collect();
        let params = self.graph.params().into_iter().filter(|(_, param)| param.learned);
        let shared = params.filter(|(name, param)| others.iter().all(|other| other.get(name) == Some(param)));
        shared.map(|(name, param)| (name, param.shape.iter().product())).collect()
    }

    /// The layers at which gradients are measured, and how many features each makes: those with a weight that all models have
    /// alike, by module.
    #[must_use]
    pub fn gradient_layers(&self) -> Vec<(String, usize)> {
        let features = |node: &Node| match node.op {
            Op::Conv2d { out_channels, .. } => Some(out_channels),
            Op::Linear { out_features, .. } => Some(out_features),
            _ => None,
        };
        let find = |graph: &Graph, module: &String| {
            graph.nodes.iter().find(|node| node.module.as_ref() == Some(module)).map(|node| node.op.clone())
        };
        let modules =
            self.graph.nodes.iter().filter_map(|node| Some((node.module.clone()?, features(node)?, &node.op)));
        let shared =
            modules.filter(|(module, _, op)| self.others.iter().all(|graph| find(graph, module).as_ref() == Some(*op)));
        let mut layers: Vec<(String, usize)> = shared.map(|(module, o, _)| (module, o)).collect();
        layers.sort();
        layers.dedup_by(|a, b| a.0 == b.0);
        layers
    }

    /// Whether every batch was measured.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.batches_done == self.n_batches
    }

    /// Everything about the header that can be wrong by itself.
    pub(super) fn validate(&self) -> Result<(), String> {
        let shapes = self.graph.shapes().map_err(|e| e.to_string())?;
        let spaces = self.graph.spaces().map_err(|e| e.to_string())?;
        let dims: BTreeMap<String, usize> =
            self.graph.merge_points(&spaces).into_iter().map(|point| (point.name, point.dim)).collect();
        if self.models.is_empty() || self.tasks.len() != self.models.len() {
            return Err(format!("{} models with {} lists of tasks", self.models.len(), self.tasks.len()));
        }
        if !self.others.is_empty() && self.others.len() + 1 != self.models.len() {
            return Err(format!("{} models with the graphs of {}", self.models.len(), self.others.len() + 1));
        }
        check_trunks(&self.graphs().collect::<Vec<_>>()).map_err(|e| e.to_string())?;
        if self.points.is_empty() {
            return Err("no merge points".to_owned());
        }
        for (i, (name, d)) in self.points.iter().enumerate() {
            match dims.get(name) {
                None => return Err(format!("`{name}` is no merge point of its graph")),
                Some(dim) if dim != d => {
                    return Err(format!("`{name}` has {d} features, its graph says {dim}"));
                }
                Some(_) if self.points[..i].iter().any(|(other, _)| other == name) => {
                    return Err(format!("`{name}` is there twice"));
                }
                Some(_) => {}
            }
        }
        if self.gram.is_some() == self.layers.is_empty() {
            return Err("layers are measured, or they are not".to_owned());
        }
        for (i, (name, f)) in self.layers.iter().enumerate() {
            let node = self.graphs().flat_map(|graph| &graph.nodes).find(|node| node.module.as_ref() == Some(name));
            match node.and_then(|node| patch_size(&node.op)) {
                None => return Err(format!("`{name}` is no layer of its graph")),
                Some(size) if size != *f => {
                    return Err(format!("`{name}` reads {f} numbers, its graph says {size}"));
                }
                Some(_) if self.layers[..i].iter().any(|(other, _)| other == name) => {
                    return Err(format!("layer `{name}` is there twice"));
                }
                Some(_) => {}
            }
        }
        if self.predicted.is_some() != (self.fisher || self.gradients) {
            return Err("gradients are measured, or they are not".to_owned());
        }
        let input = &shapes[self.graph.input.name.as_str()];
        let expected = [self.preprocess.channels(), self.preprocess.size[0], self.preprocess.size[1]];
        if **input != expected {
            return Err(format!("the graph's input is {input:?} but the preprocessing gives {expected:?}"));
        }
        if let Some((i, n)) = self.shard
            && !(1..=n).contains(&i)
        {
            return Err(format!("shard {i}/{n}; shards count from 1"));
        }
        if self.n_images == 0 || self.batch_size == 0 || self.batches_done == 0 {
            return Err(format!(
                "{} images in {} batches of {}: nothing was measured",
                self.n_images, self.batches_done, self.batch_size
            ));
        }
        if self.batches_done > self.n_batches {
            return Err(format!("{} of {} batches are done", self.batches_done, self.n_batches));
        }
        Ok(())
    }

    /// The value at which a point is measured: its own name, unless no value holds its space alone.
    pub(super) fn measured_value(&self, name: &str) -> Result<String, String> {
        if self.graph.node(name).is_some() {
            return Ok(name.to_owned());
        }
        let spaces = self.graph.spaces().map_err(|e| e.to_string())?;
        let space = spaces.spaces.into_iter().find(|space| space.name == name);
        space.map(|space| space.measured.value).ok_or_else(|| format!("`{name}` is no merge point of its graph"))
    }

    /// Checks one point's moments against the header: N·d features, every position of every image, finite.
    pub(super) fn check(&self, name: &str, moments: &Moments) -> Result<(), String> {
        let d = self.dim(name)?;
        let n_joint = self.n_models() * d;
        if moments.n_joint() != n_joint {
            return Err(format!("`{name}`: {} features, expected {n_joint}", moments.n_joint()));
        }
        moments.validate(name).map_err(|e| e.to_string())?;
        let shapes = self.graph.shapes().map_err(|e| e.to_string())?;
        let value = self.measured_value(name)?;
        let positions: usize = shapes.get(value.as_str()).map_or(1, |shape| shape[1..].iter().product());
        let expected = self.n_images.checked_mul(positions as u64);
        if Some(moments.count) != expected {
            return Err(format!(
                "`{name}`: {} samples, but {} images of {positions} positions were measured",
                moments.count, self.n_images
            ));
        }
        Ok(())
    }

    /// Checks one layer's second moments: what the header says, finite, of whole images.
    pub(super) fn check_gram(&self, name: &str, gram: &Gram) -> Result<(), String> {
        let (f, kind) = self.layer(name)?;
        let each: Vec<&Moments> = match (gram, kind) {
            (Gram::Joint(moments), GramKind::Joint) => vec![moments],
            (Gram::Own(each), GramKind::Own) => each.iter().collect(),
            _ => return Err(format!("`{name}`: moments of another kind than the header says")),
        };
        let sizes: Vec<usize> = each.iter().map(|moments| moments.n_joint()).collect();
        let expected = match kind {
            GramKind::Joint => vec![self.n_models() * f],
            GramKind::Own => vec![f; self.n_models()],
        };
        if sizes != expected {
            return Err(format!("`{name}`: {sizes:?} numbers, expected {expected:?}"));
        }
        for moments in each {
            moments.validate(name).map_err(|e| e.to_string())?;
            if !moments.count.is_multiple_of(self.n_images) {
                return Err(format!("`{name}`: {} samples are no whole images of {}", moments.count, self.n_images));
            }
        }
        Ok(())
    }

    /// Checks one point's importance: every place of the graph, every position of every image, finite.
    pub(super) fn check_importance(&self, name: &str, found: &Importance) -> Result<(), String> {
        let (d, places) = (self.dim(name)?, self.places(name)?);
        let shapes = self.graph.shapes().map_err(|e| e.to_string())?;
        if found.places.len() != places.len() {
            return Err(format!("`{name}`: importance at {} places, expected {}", found.places.len(), places.len()));
        }
        found.validate(name).map_err(|e| e.to_string())?;
        for (sums, place) in found.places.iter().zip(&places) {
            let count = |value: &str| -> u64 {
                shapes[value][1..].iter().fold(self.n_images, |count, &n| count.saturating_mul(n as u64))
            };
            let joint = sums.joint.as_ref().map(|moments| (moments.n_joint(), moments.count));
            let expected = (!place.measured).then(|| (self.n_models() * d, count(&place.read.value)));
            let own: Vec<(usize, u64)> = sums.gradients.iter().map(|g| (g.n_joint(), g.count)).collect();
            if joint != expected || own != vec![(d, count(&place.made.value)); self.n_models()] {
                return Err(format!("`{name}`: importance at `{}` is of other features or samples", place.read.value));
            }
        }
        Ok(())
    }

    /// Checks one layer's gradients: what the header says, finite, of whole images.
    pub(super) fn check_gradients(&self, name: &str, found: &Gram) -> Result<(), String> {
        let o = self.gradient_layers().into_iter().find(|(layer, _)| layer == name).map(|(_, o)| o);
        let o = o.ok_or_else(|| format!("gradients at `{name}` were not measured"))?;
        let Gram::Own(each) = found else { return Err(format!("`{name}`: gradients of models together")) };
        let sizes: Vec<usize> = each.iter().map(Moments::n_joint).collect();
        if sizes != vec![o; self.n_models()] {
            return Err(format!(
                "`{name}`: gradients of {sizes:?} features, expected {o} of each of {} models",
                self.n_models()
            ));
        }
        for moments in each {
            moments.validate(name).map_err(|e| e.to_string())?;
            if !moments.count.is_multiple_of(self.n_images) {
                return Err(format!("`{name}`: {} gradients are no whole images of {}", moments.count, self.n_images));
            }
        }
        Ok(())
    }

    /// Checks every model's Fisher information: of all tensors, no number negative, of all images.
    pub(super) fn check_fisher(&self, found: &[Fisher]) -> Result<(), String> {
        let n = if self.fisher { self.n_models() } else { 0 };
        if found.len() != n {
            return Err(format!("Fisher information of {} models, expected {n}", found.len()));
        }
        let expected = self.fisher_tensors();
        for (i, own) in found.iter().enumerate() {
            let sizes = own.sums.iter().map(|(name, sums)| (name.clone(), sums.len()));
            if !sizes.eq(expected.iter().cloned()) || own.count != self.n_images {
                return Err(format!("the Fisher information of model {i} is of other tensors or images"));
            }
            own.validate().map_err(|e| format!("model {i}: {e}"))?;
        }
        Ok(())
    }

    /// The places of a merge point.
    pub(super) fn places(&self, name: &str) -> Result<Vec<Place>, String> {
        let spaces = self.graph.spaces().map_err(|e| e.to_string())?;
        let points = self.graph.merge_points(&spaces);
        let point = points.iter().find(|point| point.name == name);
        let point = point.ok_or_else(|| format!("it has no merge point `{name}`"))?;
        self.graph.places(point).map_err(|e| e.to_string())
    }

    /// Checks the ranges of one value: a finite one of every feature of every model.
    pub(super) fn check_extent(&self, value: &str, extent: &Extent) -> Result<(), String> {
        let expected = self.width(value)?;
        if extent.low.len() != expected {
            return Err(format!("`{value}`: ranges of {} features, expected {expected}", extent.low.len()));
        }
        extent.validate(value).map_err(|e| e.to_string())
    }

    /// N·C of a value.
    pub(super) fn width(&self, value: &str) -> Result<usize, String> {
        let shapes = self.graph.shapes().map_err(|e| e.to_string())?;
        let shape = shapes.get(value).ok_or_else(|| format!("its graph has no value `{value}`"))?;
        shape[0].checked_mul(self.n_models()).ok_or_else(|| "too many features".to_owned())
    }

    pub(super) fn layer(&self, name: &str) -> Result<(usize, GramKind), String> {
        let found = self.layers.iter().find(|(layer, _)| layer == name);
        match (found, self.gram) {
            (Some((_, f)), Some(kind)) => Ok((*f, kind)),
            _ => Err(format!("what `{name}` reads was not measured")),
        }
    }

    pub(super) fn dim(&self, name: &str) -> Result<usize, String> {
        self.points
            .iter()
            .find(|(point, _)| point == name)
            .map(|(_, d)| *d)
            .ok_or_else(|| format!("it has no merge point `{name}`"))
    }
}
