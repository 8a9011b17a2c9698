//! Which values are a model's head: made for its outputs and nothing else.

use super::arrange::Arranged;
use super::{Fixed, Segment, Space, SpaceId};
use crate::graph::{Graph, Nature, Op};
use std::collections::{BTreeMap, BTreeSet};

impl Graph {
    /// See [`Spaces::heads`](super::Spaces::heads).
    pub(super) fn heads(&self, spaces: &[Space], arranged: &BTreeMap<&str, Arranged>) -> BTreeSet<String> {
        let is_output = |space: &&Space| space.fixed == Some(Fixed::Output);
        let kin: BTreeSet<usize> = spaces.iter().filter(is_output).map(|space| space.kin).collect();
        let of_output = |segment: &Segment| kin.contains(&spaces[segment.space].kin);
        let is_carried = |op: &Op| op.nature() == Nature::Carrying;
        let mut found: BTreeSet<&str> = BTreeSet::new();
        for node in &self.nodes {
            let axis = &arranged[node.name.as_str()].segments;
            let goes_on = is_carried(&node.op) && node.inputs.iter().any(|name| found.contains(name.as_str()));
            if goes_on || !axis.is_empty() && axis.iter().all(of_output) {
                found.insert(&node.name);
            }
        }
        // An output may be an inner value, from which the trunk goes on.
        let readers = self.readers();
        let mut heads: BTreeSet<String> = BTreeSet::new();
        for node in self.nodes.iter().rev() {
            let mut reads =
                readers.get(node.name.as_str()).into_iter().flatten().map(|&i| &self.nodes[i].name).peekable();
            let stored_for_them = matches!(node.op, Op::Stored { .. }) && reads.peek().is_some();
            if (found.contains(node.name.as_str()) || stored_for_them) && reads.all(|name| heads.contains(name)) {
                heads.insert(node.name.clone());
            }
        }
        heads
    }

    /// The spaces that nothing reads but what is carried into an output: logits whose axes are turned, an embedding that is
    /// brought to length 1. They are of a head as if the output were theirs.
    pub(super) fn carried_out(&self, spaces: &[Space], arranged: &BTreeMap<&str, Arranged>) -> BTreeSet<SpaceId> {
        let heads = self.heads(spaces, arranged);
        let readers = self.readers();
        let outputs: BTreeSet<&str> = self.outputs.iter().map(String::as_str).collect();
        // Carried values from which nothing but outputs is computed.
        let mut ends: BTreeSet<&str> = BTreeSet::new();
        for node in self.nodes.iter().rev().filter(|node| node.op.nature() == Nature::Carrying) {
            let mut reads =
                readers.get(node.name.as_str()).into_iter().flatten().map(|&i| &self.nodes[i].name).peekable();
            let needed = outputs.contains(node.name.as_str()) || reads.peek().is_some();
            if needed && reads.all(|name| ends.contains(name.as_str()) || heads.contains(name)) {
                ends.insert(&node.name);
            }
        }
        let within = |id: SpaceId, value: &str| {
            let axis = &arranged[value].segments;
            !axis.is_empty() && axis.iter().all(|segment| segment.space == id)
        };
        let is_out = |id: SpaceId| {
            let values = &spaces[id].values;
            let reads = || values.iter().flat_map(|value| readers.get(value.as_str()).into_iter().flatten());
            let mut names = reads().map(|&i| self.nodes[i].name.as_str());
            reads().any(|&i| ends.contains(self.nodes[i].name.as_str()))
                && values.iter().all(|value| within(id, value))
                && names.all(|name| ends.contains(name) || within(id, name))
        };
        (0..spaces.len()).filter(|&id| spaces[id].fixed.is_none() && is_out(id)).collect()
    }
}
