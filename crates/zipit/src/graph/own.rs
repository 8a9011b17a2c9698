//! The part of a network that is one output's alone.

use super::Graph;
use std::collections::{BTreeMap, BTreeSet};

impl Graph {
    /// Numbers of the nodes that one output alone needs; of a network with one output, of its last ones with parameters:
    /// those behind which there are no others.
    #[must_use]
    pub fn own_nodes(&self) -> BTreeSet<usize> {
        let readers = self.readers();
        let mut needed: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        let mut behind: BTreeMap<&str, bool> = BTreeMap::new();
        let mut found = BTreeSet::new();
        for (i, node) in self.nodes.iter().enumerate().rev() {
            let name = node.name.as_str();
            let own = self.outputs.iter().filter(|output| *output == name).map(String::as_str);
            let mut outputs: BTreeSet<&str> = own.collect();
            let mut others_behind = false;
            for &reader in readers.get(name).into_iter().flatten() {
                let reader = &self.nodes[reader];
                outputs.extend(&needed[reader.name.as_str()]);
                others_behind |= behind[reader.name.as_str()] || !reader.op.params().is_empty();
            }
            if (self.outputs.len() > 1 && outputs.len() == 1) || (self.outputs.len() == 1 && !others_behind) {
                found.insert(i);
            }
            needed.insert(name, outputs);
            behind.insert(name, others_behind);
        }
        found
    }
    /// Names of these nodes' tensors.
    pub fn tensors_of(&self, nodes: impl IntoIterator<Item = usize>) -> BTreeSet<String> {
        let nodes = nodes.into_iter().map(|i| &self.nodes[i]);
        nodes.flat_map(|node| node.op.params().into_iter().map(|param| node.tensor(param.name))).collect()
    }
}
