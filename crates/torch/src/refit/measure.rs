//! What one batch contributes: it is brought to the layers at hand, and what they read and should make is summed up.

use super::blend::blend;
use super::lanes::Lane;
use super::lockstep::{Batch, Part};
use super::products::{Moments, Origin, Products, Samples, moments};
use super::{HELD_OUT, Inputs};
use crate::forward::Run;
use crate::parallel::FromFirst;
use crate::{Network, Result};
use tch::Tensor;
use zipit::Graph;
use zipit::refit::{Layer, Site, Spread, Sums};

/// The graphs that the networks run.
pub(super) struct Pass<'a> {
    pub source: &'a Graph,
    pub merged: &'a Graph,
}

/// A batch's sums at one layer, of the fitted and of the held-out images.
pub(super) struct Measured([Option<Products>; 2]);

impl Part<[Sums; 2]> for Measured {
    fn add_to(self, sums: &mut [Sums; 2]) {
        for (sums, products) in sums.iter_mut().zip(self.0) {
            if let Some(products) = products {
                products.add_to(sums);
            }
        }
    }
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
        (layers, reading, origins): (&[Layer], Inputs, &FromFirst<Vec<Origin>>),
        networks: &[Network],
        lane: Lane,
        batch: Batch<'_>,
    ) -> Result<(Lane, Vec<Measured>, u64)> {
        let (mut runs, mut merged) = resume(networks, lane);
        let (at, source) = (layers[0].source, &self.source.nodes[layers[0].source]);
        let of_models = |runs: &[Run<'_>], name: &str| -> Vec<Tensor> {
            runs.iter().map(|run| run.value(name).shallow_clone()).collect()
        };
        for run in &mut runs {
            run.advance_to(at)?;
        }
        let inputs: Vec<Tensor> = match reading {
            Inputs::Sequential => {
                merged.advance_to(layers[0].node)?;
                let read = layers.iter().map(|layer| &self.merged.nodes[layer.node].inputs[0]);
                read.map(|name| merged.value(name).shallow_clone()).collect()
            }
            Inputs::Layerwise => {
                let read = of_models(&runs, &source.inputs[0]);
                layers.iter().map(|layer| blend(&layer.input, &read)).collect::<Result<_>>()?
            }
        };
        for run in &mut runs {
            run.advance_to(at + 1)?;
        }
        let outputs = of_models(&runs, &source.name);
        let n_images = outputs[0].size()[0];
        let mut samples = Vec::with_capacity(layers.len());
        for (layer, x) in layers.iter().zip(inputs) {
            let mut y = blend(&layer.target, &outputs)?;
            if reading == Inputs::Sequential {
                for term in &layer.others {
                    let wanted = blend(&term.blend, &of_models(&runs, &term.source))?;
                    y = y.f_add(&wanted)?.f_sub(merged.value(&term.value))?;
                }
            }
            samples.push(Samples { node: &self.merged.nodes[layer.node], x, y });
        }
        let origins =
            origins.get(batch.number == 0, batch.failure, || samples.iter().map(Samples::origin).collect())?;
        let split = split(batch.first_image, n_images as usize, outputs[0].device())?;
        let measured = samples.iter().zip(&*origins).map(|(samples, origin)| {
            let part = |rows: &Option<Tensor>| {
                rows.as_ref().map(|rows| samples.products(rows, origin, batch.number)).transpose()
            };
            Ok(Measured([part(&split[0])?, part(&split[1])?]))
        });
        let measured = measured.collect::<Result<_>>()?;
        Ok((pause(runs, merged), measured, n_images as u64))
    }

    /// At values that take the place of one source node.
    pub fn spreads(
        &self,
        sites: &[Site],
        networks: &[Network],
        lane: Lane,
        batch: usize,
    ) -> Result<(Lane, Vec<MeasuredSpread>, u64)> {
        let (mut runs, mut merged) = resume(networks, lane);
        // The writers themselves run once they are rescaled.
        merged.advance_to(sites[0].writers[0])?;
        for run in &mut runs {
            run.advance_to(sites[0].source + 1)?;
        }
        let source = &self.source.nodes[sites[0].source].name;
        let models: Vec<Tensor> = runs.iter().map(|run| run.value(source).shallow_clone()).collect();
        let mut measured = Vec::with_capacity(sites.len());
        for site in sites {
            let mut value = merged.peek(site.writers[0])?;
            for &writer in &site.writers[1..] {
                value = value.f_add(&merged.peek(writer)?)?;
            }
            measured.push(MeasuredSpread(moments(&value, &models, &self.merged.nodes[site.value].name, batch)?));
        }
        let n_images = models[0].size()[0] as u64;
        Ok((pause(runs, merged), measured, n_images))
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

/// The rows of a batch that are fitted and those that are held out, by the images' places among all; `None` for none.
fn split(first: usize, n: usize, device: tch::Device) -> Result<[Option<Tensor>; 2]> {
    let rows = |held: bool| -> Result<Option<Tensor>> {
        let rows: Vec<i64> =
            (0..n).filter(|row| ((first + row) % HELD_OUT == HELD_OUT - 1) == held).map(|row| row as i64).collect();
        if rows.is_empty() {
            return Ok(None);
        }
        Ok(Some(Tensor::f_from_slice(&rows)?.f_to_device(device)?))
    };
    Ok([rows(false)?, rows(true)?])
}
