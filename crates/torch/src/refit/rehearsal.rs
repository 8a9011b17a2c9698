//! A refit without its solutions, to see what it takes.

use super::measure::{Aim, Planned};
use super::{Refit, Silent, Work};
use crate::Result;
use std::time::Instant;
use zipit::graph::Node;
use zipit::refit::{Design, Layer, Sums};
use zipit::watch::Watch;

/// A layer, or several that are solved as one, that was run and summed up, but not solved.
#[derive(Debug, Clone, PartialEq)]
pub struct Rehearsed {
    /// Its nodes in the merged graph.
    pub nodes: Vec<Node>,
    /// What would be solved, of the fitted and of the held-out images.
    pub sums: [Sums; 2],
}

impl Refit<'_> {
    /// As [`step`](Self::step), but the layers stay as the merge made them, and go through all their rounds; nothing after
    /// the last, nor of scales.
    ///
    /// # Errors
    /// As [`step`](Self::step).
    pub fn rehearse(&mut self, watch: &dyn Watch) -> Result<Vec<Rehearsed>> {
        let now = self.next_layers();
        if now.is_empty() {
            return Ok(vec![]);
        }
        let started = Instant::now();
        self.look(&Silent(watch))?;
        let Work::Layers(layers, inputs, _, rounds) = &self.work else { return Ok(vec![]) };
        let layers = &layers[now.clone()];
        let sums = self.sums(layers, *inputs, *rounds > 0, watch)?;
        let aim = |((layer, way), [sums, _]): ((_, Planned), &[Sums; 2])| {
            let layer: &Layer = layer;
            let Design { n_groups, n_inputs, .. } = sums.design;
            let rectified = layer.rectified.as_ref()?;
            Some(Aim { layer, rectified, way, origin: vec![0.0; n_groups * n_inputs], dark: 0.0 })
        };
        let aims: Vec<Aim<'_>> = layers.iter().zip(self.ways(layers)?).zip(&sums).filter_map(aim).collect();
        for _ in 0..if aims.is_empty() { 0 } else { *rounds } {
            self.residuals(&aims, watch)?;
        }
        let measured = started.elapsed();
        let rehearsed =
            layers.iter().zip(sums).map(|(layer, sums)| Rehearsed { nodes: self.nodes(layer), sums }).collect();
        self.done = now.end;
        self.run.replace(&self.model)?;
        self.clock[0] += measured;
        self.clock[1] += started.elapsed().saturating_sub(measured);
        Ok(rehearsed)
    }
}
