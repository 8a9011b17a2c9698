//! All networks side by side, batch by batch: what has been run stays, and a pass over the images goes on from there.

use super::lanes::{Lane, Lanes};
use crate::parallel::{Failure, InOrder, all_batches, n_workers, read};
use crate::{Device, Network, Result};
use std::collections::BTreeSet;
use std::ops::{Range, RangeInclusive};
use zipit::Model;
use zipit::images::ImageBatches;
use zipit::scratch::Scratch;
use zipit::watch::Watch;

/// What a batch contributes to a sum.
pub(super) trait Part<T>: Send {
    fn add_to(self, sum: &mut T);
}

/// A batch that is brought on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Batch<'a> {
    pub number: usize,
    /// Which of all images it holds.
    pub images: &'a Range<usize>,
    /// Whether another one failed.
    pub failure: &'a Failure,
}

/// Where heads differ: the values of the trunk that they read. A layer of one model's head reads a blend of what all
/// models have there, whoever of them is done with it.
fn read_by_heads(models: &[&Model]) -> Result<BTreeSet<String>> {
    let mut read = BTreeSet::new();
    if models.iter().any(|model| model.graph.nodes != models[0].graph.nodes) {
        for model in models {
            let heads = model.graph.spaces()?.heads;
            let of_heads = model.graph.nodes.iter().filter(|node| heads.contains(&node.name));
            read.extend(of_heads.flat_map(|node| &node.inputs).filter(|value| !heads.contains(*value)).cloned());
        }
    }
    Ok(read)
}

/// The models and the merged network, and for every batch how far they have run.
pub(super) struct Lockstep<'a> {
    models: Vec<Network>,
    merged: Network,
    batches: &'a dyn ImageBatches,
    lanes: Lanes<'a>,
    device: Device,
}

impl<'a> Lockstep<'a> {
    pub fn new(
        models: &[&Model],
        merged: &Model,
        batches: &'a dyn ImageBatches,
        limit: Option<(usize, &'a dyn Scratch)>,
        device: Device,
    ) -> Result<Self> {
        let keep = read_by_heads(models)?;
        Ok(Self {
            models: models.iter().map(|model| Network::keeping(model, &keep, device)).collect::<Result<_>>()?,
            merged: Network::new(merged, device)?,
            lanes: Lanes::new(batches.n_batches(), limit, device),
            batches,
            device,
        })
    }

    /// The merged network goes on with other weights.
    pub fn replace(&mut self, merged: &Model) -> Result<()> {
        self.merged = Network::new(merged, self.device)?;
        Ok(())
    }

    /// Where a model's runs may rest, as [`Network::lightest`].
    ///
    /// # Errors
    /// A malformed graph.
    pub fn lightest(
        &self,
        model: usize,
        steps: RangeInclusive<usize>,
        needed: &BTreeSet<&str>,
    ) -> Result<Option<usize>> {
        self.models[model].lightest(steps, needed)
    }

    pub fn bytes_in_memory(&self) -> usize {
        self.lanes.in_memory()
    }

    /// Brings every batch on by `advance`, which is given the networks, the merged one last, and the batch's lane, and adds
    /// its parts to `sums` in batch order.
    pub fn pass<T: Send, P: Part<T>>(
        &self,
        sums: Vec<T>,
        watch: &dyn Watch,
        advance: impl Fn(&[Network], Lane, Batch<'_>) -> Result<(Lane, Vec<P>)> + Sync,
    ) -> Result<Vec<T>> {
        let n_batches = self.batches.n_batches();
        let sums: Vec<InOrder<T, P>> = sums.into_iter().map(|sum| InOrder::new(0, sum)).collect();
        let failure = Failure::default();
        let networks: Vec<&Network> = self.models.iter().chain([&self.merged]).collect();
        let (batches, lanes) = (self.batches, &self.lanes);
        let workers: Vec<Vec<Network>> = (0..n_workers(self.device, n_batches))
            .map(|_| networks.iter().map(|network| network.replicate()).collect())
            .collect();
        all_batches(workers, n_batches, watch, &failure, |networks: &mut Vec<Network>, batch| {
            let lane = if let Some(lane) = lanes.take(batch)? {
                lane
            } else {
                let input = networks[0].input(&read(batches, batch)?)?;
                Lane { runs: networks.iter().map(|network| network.before(input.shallow_clone())).collect() }
            };
            let images = batches.n_images_in(batch)..batches.n_images_in(batch + 1);
            let at = Batch { number: batch, images: &images, failure: &failure };
            let (lane, parts) = advance(networks, lane, at)?;
            lanes.put(batch, lane)?;
            for (sum, part) in sums.iter().zip(parts) {
                sum.hand_in(batch, part, &failure, |sum, part| {
                    part.add_to(sum);
                    Ok(())
                })?;
            }
            Ok(images.len() as u64)
        })?;
        Ok(sums.into_iter().map(InOrder::into_inner).collect())
    }
}
