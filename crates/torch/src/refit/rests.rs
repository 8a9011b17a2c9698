//! Where the models' runs rest between two layers.

use super::Inputs;
use super::lockstep::Lockstep;
use crate::Result;
use std::collections::BTreeSet;
use zipit::Graph;
use zipit::refit::Layer;

/// What is done next, and what comes after it.
#[derive(Clone, Copy)]
pub(super) struct Ahead<'a> {
    /// Layers whose sums are taken.
    pub layers: &'a [Layer],
    /// Those that follow.
    pub to_come: &'a [Layer],
    pub reading: Inputs,
    /// Whether the layers are solved again.
    pub in_rounds: bool,
}

/// The node before which each model's runs rest once the layers' sums are taken: where they take the least room, with all
/// that rounds of these layers and the layers to come read. Between a block's last layer and the next one that is after the
/// block's sum, which is half of what it adds up.
///
/// # Errors
/// A malformed graph.
pub(super) fn rests(run: &Lockstep<'_>, sources: &[Graph], ahead: Ahead<'_>) -> Result<Vec<usize>> {
    let Ahead { layers, to_come, reading, in_rounds } = ahead;
    let name = |layer: &Layer| sources[layer.head.unwrap_or(0)].nodes[layer.source].name.as_str();
    let mut needed: BTreeSet<&str> = BTreeSet::new();
    for layer in to_come {
        let node = &sources[layer.head.unwrap_or(0)].nodes[layer.source];
        let input = node.inputs.iter().filter(|_| reading == Inputs::Layerwise);
        let beside = layer.rectified.iter().flat_map(|rectified| &rectified.beside);
        let others = layer.others.iter().chain(beside).map(|term| &term.source);
        let partners = layer.partners.iter().map(|partner| &partner.source);
        needed.extend([&node.name].into_iter().chain(input).chain(others).chain(partners).map(String::as_str));
    }
    // What rounds read is the value that is cut, or all that it is the sum of: not something between.
    let open = layers.iter().filter(|_| in_rounds).filter_map(|layer| layer.rectified.as_ref());
    let cut: Vec<&str> = open.map(|rectified| rectified.source.as_str()).collect();
    needed.extend(&cut);
    let rest_of = |(model, graph): (usize, &Graph)| {
        let place = |name: &str| graph.nodes.iter().position(|node| node.name == name);
        let own = |layer: &&Layer| layer.head.is_none_or(|head| head == model);
        let Some(last) = layers.iter().filter(own).filter_map(|layer| place(name(layer))).max() else { return Ok(0) };
        let first = cut.iter().filter_map(|name| place(name)).fold(last, usize::max) + 1;
        // Beyond the last of them there is nothing to be run for.
        let end = to_come.iter().filter(own).filter_map(|layer| place(name(layer))).max().map_or(0, |last| last + 1);
        Ok(run.lightest(model, first..=end, &needed)?.unwrap_or(last + 1))
    };
    sources.iter().enumerate().map(rest_of).collect()
}
