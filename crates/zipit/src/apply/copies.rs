//! Which values of the merged network exist once.

use super::maps::Maps;
use crate::graph::{Fixed, Graph, Spaces};
use std::collections::BTreeSet;

/// The values with one copy; every other value has N.
pub(super) struct Copies<'a>(BTreeSet<&'a str>);

impl<'a> Copies<'a> {
    /// A value has one copy when its whole feature axis is merged. The input's features are fixed, not merged, so a
    /// value that holds some has one copy only as long as no model's own parameters have touched them.
    pub(super) fn new(graph: &'a Graph, spaces: &Spaces, maps: &Maps<'_>) -> Self {
        let mut shared = BTreeSet::from([graph.input.name.as_str()]);
        for node in &graph.nodes {
            let axis = &spaces.axes[&node.name];
            // What is carried is every model's own.
            if axis.is_empty() {
                continue;
            }
            let is_input = |id: usize| spaces.spaces[id].fixed == Some(Fixed::Input);
            let untouched = node.module.is_none() && node.inputs.iter().all(|i| shared.contains(i.as_str()));
            if axis.iter().all(|s| maps.get(s.space).is_some() || is_input(s.space) && untouched) {
                shared.insert(&node.name);
            }
        }
        Self(shared)
    }

    pub(super) fn is_shared(&self, value: &str) -> bool {
        self.0.contains(value)
    }
}
