//! What one batch contributes: it is brought to the layers at hand, and what they read and should make is summed up.

use super::Inputs;
use super::blend::blend;
use super::lanes::Lane;
use super::lockstep::{Batch, Part};
use super::offsets::Offsets;
use super::products::{Cross, Moments, Origin, Products, Samples, Tally, Way, moments};
use super::sampled::Sampled;
use crate::forward::Run;
use crate::parallel::FromFirst;
use crate::{Network, Result};
use std::ops::Range;
use std::sync::Arc;
use tch::{Kind, Tensor};
use zipit::Graph;
use zipit::apply::Blend;
use zipit::graph::Node;
use zipit::refit::{Clip, Lattice, Layer, Owners, Rectified, Residuals, Site, Spread};

/// The graphs that the networks run, and how they are listened to.
pub(super) struct Pass<'a> {
    pub sources: &'a [Graph],
    pub merged: &'a Graph,
    /// Whose the images are, where not all models count on all.
    pub owners: Option<&'a Owners>,
    /// Which images are held out.
    pub held_out: &'a [bool],
}

/// A batch's sums at one layer, of the fitted and of the held-out images.
pub(super) struct Measured([Option<Products>; 2]);

impl Part<[Tally; 2]> for Measured {
    fn add_to(self, tallies: &mut [Tally; 2]) {
        for (tally, products) in tallies.iter_mut().zip(self.0) {
            if let Some(products) = products {
                tally.add(products);
            }
        }
    }
}

/// How a layer's sums are taken: over which positions, and how.
#[derive(Clone)]
pub(super) enum Planned {
    /// Over patches at all positions, or at some.
    Patches(Option<Lattice>),
    /// Without patches.
    Offsets(Arc<Offsets>),
}

impl Planned {
    pub fn offsets(&self) -> Option<&Arc<Offsets>> {
        match self {
            Self::Offsets(plan) => Some(plan),
            Self::Patches(_) => None,
        }
    }

    /// On some images.
    fn sampled(&self, images: &Range<usize>) -> Option<Sampled> {
        match self {
            Self::Patches(Some(lattice)) => Some(Sampled::new(lattice, images)),
            Self::Patches(None) | Self::Offsets(_) => None,
        }
    }

    fn on<'a>(&'a self, sampled: Option<&'a Sampled>) -> Way<'a> {
        match (self, sampled) {
            (Self::Offsets(plan), _) => Way::Offsets(plan),
            (Self::Patches(_), Some(sampled)) => Way::Sampled(sampled),
            (Self::Patches(_), None) => Way::Patches,
        }
    }
}

/// Layers whose sums are taken together.
pub(super) struct Group<'a> {
    pub layers: &'a [Layer],
    pub reading: Inputs,
    pub ways: &'a [Planned],
    pub origins: &'a FromFirst<Vec<Origin>>,
    /// Where the models' runs rest afterwards.
    pub rests: &'a [usize],
}

/// A batch's residuals at one layer, of the fitted and of the held-out images.
pub(super) struct MeasuredResiduals([Option<Cross>; 2]);

impl Part<Residuals> for MeasuredResiduals {
    fn add_to(self, residuals: &mut Residuals) {
        for (held_out, cross) in [false, true].into_iter().zip(self.0) {
            if let Some(cross) = cross {
                residuals.add(held_out, cross.count, cross.sums.each_ref().map(Vec::as_slice));
            }
        }
    }
}

/// A layer that is solved again.
pub(super) struct Aim<'a> {
    pub layer: &'a Layer,
    pub rectified: &'a Rectified,
    pub way: Planned,
    /// What its inputs are counted from.
    pub origin: Vec<f32>,
    /// How far from where it is cut a target is dark.
    pub dark: f32,
}

/// A batch's sums of a merged value and of the models' values there.
pub(super) struct MeasuredSpread(Moments);

impl Part<Spread> for MeasuredSpread {
    fn add_to(self, spread: &mut Spread) {
        let sums = self.0.sums.each_ref().map(Vec::as_slice);
        spread.add(self.0.count, sums);
    }
}

impl Pass<'_> {
    /// At layers that take the place of one source node. Sums are of what is left beyond the first batch's means: a
    /// feature that varies little around a large mean would else be lost in rounding.
    pub fn sums(
        &self,
        Group { layers, reading, ways, origins, rests }: &Group<'_>,
        networks: &[Network],
        lane: Lane,
        batch: Batch<'_>,
    ) -> Result<(Lane, Vec<Measured>)> {
        let (mut runs, mut merged) = resume(networks, lane);
        let source = |layer: &Layer| &self.sources[layer.head.unwrap_or(0)].nodes[layer.source];
        for layer in *layers {
            self.advance(&mut runs, layer.head, &source(layer).name, 0)?;
        }
        let trust = self.owners.map(|owners| trust(owners, networks, batch.images)).transpose()?;
        let trust = trust.as_deref();
        let inputs: Vec<Vec<(&Node, Tensor)>> = match reading {
            Inputs::Sequential => {
                merged.advance_to(layers[0].nodes().next().unwrap_or_default())?;
                layers.iter().map(|layer| self.read(layer, &merged)).collect::<Result<_>>()?
            }
            Inputs::Layerwise => {
                let mut read = |layer: &Layer| {
                    let name = &source(layer).inputs[0];
                    if layer.input.whose().is_none() {
                        self.advance(&mut runs, None, name, 1)?;
                    }
                    let blended = blend(&layer.input, &of_models(&runs, &layer.input, name)?, trust)?;
                    Ok(vec![(&self.merged.nodes[layer.node], blended)])
                };
                layers.iter().map(&mut read).collect::<Result<_>>()?
            }
        };
        for layer in *layers {
            self.advance(&mut runs, layer.head, &source(layer).name, 1)?;
        }
        let mut samples = Vec::with_capacity(layers.len());
        let chosen: Vec<Option<Sampled>> = ways.iter().map(|way| way.sampled(batch.images)).collect();
        for (((layer, read), way), chosen) in layers.iter().zip(inputs).zip(*ways).zip(&chosen) {
            let chosen = chosen.as_ref();
            let y = self.target(layer, *reading, (&runs, &merged), chosen, trust)?;
            samples.push(Samples { read, y, way: way.on(chosen) });
        }
        let origins =
            origins.get(batch.number == 0, batch.failure, || samples.iter().map(Samples::origin).collect())?;
        let measured = samples.iter().zip(*layers).zip(&*origins).map(|((samples, layer), origin)| {
            let part = |held: bool| {
                let rows = self.rows(layer, batch.images, held);
                rows.map(|rows| samples.products(&rows, origin, batch.number)).transpose()
            };
            Ok(Measured([part(false)?, part(true)?]))
        });
        let measured = measured.collect::<Result<_>>()?;
        // Sums overwrite what they read, which the samples may share.
        drop(samples);
        for (run, &rest) in runs.iter_mut().zip(*rests) {
            run.advance_to(rest)?;
        }
        Ok((pause(runs, merged), measured))
    }

    /// At layers whose [`sums`](Self::sums) were taken and that are solved: how far what comes through is from what should.
    pub fn residuals(
        &self,
        aims: &[Aim<'_>],
        networks: &[Network],
        lane: Lane,
        batch: Batch<'_>,
    ) -> Result<(Lane, Vec<MeasuredResiduals>)> {
        let (runs, merged) = resume(networks, lane);
        let trust = self.owners.map(|owners| trust(owners, networks, batch.images)).transpose()?;
        let mut measured = Vec::with_capacity(aims.len());
        for Aim { layer, rectified, way, origin, dark } in aims {
            let chosen = way.sampled(batch.images);
            let chosen = chosen.as_ref();
            let partners = layer.partners.iter().map(|partner| merged.peek(partner.node));
            let beside = rectified.beside.iter().map(|term| Ok(merged.value(&term.value)?.shallow_clone()));
            let parts = [merged.peek(layer.node)].into_iter().chain(partners).chain(beside);
            let mut parts = at(chosen, parts.collect::<Result<_>>()?)?.into_iter();
            let first = parts.next().expect("the layer's own");
            let found = parts.try_fold(first, |sum, part| sum.f_add(&part))?;
            let models = at(chosen, self.before_the_cut(layer, rectified, &runs)?)?;
            let Clip { low, high } = rectified.clip;
            let models: Vec<Tensor> = models.iter().map(|y| y.f_clamp(low, high)).collect::<Result<_, _>>()?;
            let wanted = blend(&rectified.blend, &models, trust.as_deref())?;
            let dark = f64::from(*dark);
            let mut residual = wanted.f_sub(&found)?;
            let off = wanted.f_le(low + dark)?.f_logical_and(&found.f_lt(low)?)?;
            residual = residual.f_masked_fill(&off, 0.0)?;
            if high.is_finite() {
                let over = wanted.f_ge(high - dark)?.f_logical_and(&found.f_gt(high)?)?;
                residual = residual.f_masked_fill(&over, 0.0)?;
            }
            let samples = Samples { read: self.read(layer, &merged)?, y: residual, way: way.on(chosen) };
            let part = |held: bool| {
                let rows = self.rows(layer, batch.images, held);
                rows.map(|rows| samples.cross(&rows, origin, batch.number)).transpose()
            };
            measured.push(MeasuredResiduals([part(false)?, part(true)?]));
        }
        Ok((pause(runs, merged), measured))
    }

    /// What the models have where it is cut; of a run that has not made it yet, of what it is the sum of.
    fn before_the_cut(&self, layer: &Layer, rectified: &Rectified, runs: &[Run<'_>]) -> Result<Vec<Tensor>> {
        let Rectified { source, blend, beside, .. } = rectified;
        let own = &self.sources[layer.head.unwrap_or(0)].nodes[layer.source].name;
        let partners = layer.partners.iter().map(|partner| &partner.source);
        let others: Vec<&String> = partners.chain(beside.iter().map(|term| &term.source)).collect();
        let of = |i: usize| {
            let run = &runs[blend.whose().unwrap_or(i)];
            if let Ok(sum) = run.value(source) {
                return Ok(sum.shallow_clone());
            }
            let first = run.value(own)?.shallow_clone();
            others.iter().try_fold(first, |sum, other| Ok(sum.f_add(run.value(other)?)?))
        };
        (0..runs.len()).map(of).collect()
    }

    /// What a layer should make.
    fn target(
        &self,
        layer: &Layer,
        reading: Inputs,
        (runs, merged): (&[Run<'_>], &Run<'_>),
        chosen: Option<&Sampled>,
        trust: Option<&[Tensor]>,
    ) -> Result<Tensor> {
        let own = &layer.target;
        let models = |of: &Blend, source: &str| at(chosen, of_models(runs, of, source)?);
        let mut all = models(own, &self.sources[layer.head.unwrap_or(0)].nodes[layer.source].name)?;
        let mut apart = vec![];
        let mut gone = vec![];
        let partners = layer.partners.iter().map(|partner| (&partner.target, &partner.source, None));
        let others = layer.others.iter().filter(|_| reading == Inputs::Sequential);
        for (of, source, value) in
            partners.chain(others.map(|term| (&term.blend, &term.source, Some(term.value.as_str()))))
        {
            let found = match value {
                Some(value) => at(chosen, vec![merged.value(value)?.shallow_clone()])?.pop(),
                None => None,
            };
            let values = models(of, source)?;
            // What is blended alike is added up first: a blend takes longer than a sum.
            if own.own().is_none() && of == own && values[0].size() == all[0].size() {
                all = all.iter().zip(&values).map(|(a, b)| a.f_add(b)).collect::<Result<_, _>>()?;
                gone.extend(found);
            } else {
                apart.push((blend(of, &values, trust)?, found));
            }
        }
        let mut y = blend(own, &all, trust)?;
        for found in gone {
            y = y.f_sub(&found)?;
        }
        for (wanted, found) in apart {
            y = match found {
                Some(found) => made_up(&y, &wanted, &found)?,
                None => y.f_add(&wanted)?,
            };
        }
        Ok(y)
    }

    /// What a layer's nodes read in the merged network.
    fn read(&self, layer: &Layer, merged: &Run<'_>) -> Result<Vec<(&Node, Tensor)>> {
        let nodes = layer.nodes().map(|at| &self.merged.nodes[at]);
        nodes.map(|node| Ok((node, merged.value(&node.inputs[0])?.shallow_clone()))).collect()
    }

    /// Brings the models that have the node `name` (`head`: one of them, else all) to just before it, or `past` it.
    fn advance(&self, runs: &mut [Run<'_>], head: Option<usize>, name: &str, past: usize) -> Result<()> {
        for (i, (run, graph)) in runs.iter_mut().zip(self.sources).enumerate() {
            let at = graph.nodes.iter().position(|node| node.name == name);
            if let Some(at) = at.filter(|_| head.is_none_or(|head| head == i)) {
                run.advance_to(at + past)?;
            }
        }
        Ok(())
    }

    /// The rows of a batch, `images` of all, to which a layer is fitted, or those that are held out; `None` for none.
    fn rows(&self, layer: &Layer, images: &Range<usize>, held: bool) -> Option<Vec<i64>> {
        let fits = |image: usize| match (self.owners, layer.target.own()) {
            (Some(owners), Some(model)) => owners.fits(model, image),
            _ => true,
        };
        let rows: Vec<i64> = images
            .clone()
            .enumerate()
            .filter(|&(_, image)| self.held_out[image] == held && fits(image))
            .map(|(row, _)| row as i64)
            .collect();
        (!rows.is_empty()).then_some(rows)
    }

    /// At values that take the place of one source node.
    pub fn spreads(
        &self,
        sites: &[Site],
        networks: &[Network],
        lane: Lane,
        batch: usize,
    ) -> Result<(Lane, Vec<MeasuredSpread>)> {
        let (mut runs, mut merged) = resume(networks, lane);
        // The writers themselves run once they are rescaled.
        merged.advance_to(sites[0].writers[0])?;
        let name = |site: &Site| &self.sources[site.head.unwrap_or(0)].nodes[site.source].name;
        for site in sites {
            self.advance(&mut runs, site.head, name(site), 1)?;
        }
        let mut measured = Vec::with_capacity(sites.len());
        for site in sites {
            let mut value = merged.peek(site.writers[0])?;
            for &writer in &site.writers[1..] {
                value = value.f_add(&merged.peek(writer)?)?;
            }
            let models = of_models(&runs, &site.target, name(site))?;
            measured.push(MeasuredSpread(moments(&value, &models, &self.merged.nodes[site.value].name, batch)?));
        }
        Ok((pause(runs, merged), measured))
    }
}

/// The target y of a summand that makes up for another one: y + wanted − found. Where y is repeated over positions, it
/// can make up for the mean over them.
fn made_up(y: &Tensor, wanted: &Tensor, found: &Tensor) -> Result<Tensor> {
    let axes = wanted.size().into_iter().zip(y.size()).zip(0_i64..);
    let repeated: Vec<i64> = axes.filter(|((n, own), _)| *n > 1 && *own == 1).map(|(_, axis)| axis).collect();
    if repeated.is_empty() {
        return Ok(y.f_add(wanted)?.f_sub(found)?);
    }
    Ok(y.f_add(&wanted.f_sub(found)?.f_mean_dim(&repeated[..], true, Kind::Float)?)?)
}

/// What the models have at `name`; where a blend takes one model's features alone, that one's in all places.
fn of_models(runs: &[Run<'_>], blend: &Blend, name: &str) -> Result<Vec<Tensor>> {
    let of = |i: usize| Ok(runs[blend.whose().unwrap_or(i)].value(name)?.shallow_clone());
    (0..runs.len()).map(of).collect()
}

/// Values at the chosen positions, or at all.
fn at(chosen: Option<&Sampled>, values: Vec<Tensor>) -> Result<Vec<Tensor>> {
    match chosen {
        Some(chosen) => values.iter().map(|value| chosen.of(value)).collect(),
        None => Ok(values),
    }
}

fn resume(networks: &[Network], lane: Lane) -> (Vec<Run<'_>>, Run<'_>) {
    let mut runs: Vec<Run<'_>> = networks.iter().zip(lane.runs).map(|(network, run)| network.resume(run)).collect();
    let merged = runs.pop().expect("the merged network's run");
    (runs, merged)
}

fn pause(runs: Vec<Run<'_>>, merged: Run<'_>) -> Lane {
    Lane { runs: runs.into_iter().chain([merged]).map(Run::pause).collect() }
}

/// How much each model counts on `images`, `[B]` of each, where the networks live.
fn trust(owners: &Owners, networks: &[Network], images: &Range<usize>) -> Result<Vec<Tensor>> {
    (0..owners.n_images().len())
        .map(|model| {
            let trust: Vec<f32> = images.clone().map(|image| owners.trust(model, image)).collect();
            Ok(Tensor::f_from_slice(&trust)?.f_to_device(networks[0].device().tch())?)
        })
        .collect()
}
