//! Where features do what they do: every value of a space that a layer reads, before pooling, and what its activation
//! takes.

use super::merge_points::n_read;
use super::{Graph, Measured, MergePoint, Nature, Node, Op};
use crate::Result;
use std::collections::BTreeSet;

/// A value of a merge point's space that some layer reads: of a residual stream there is one for the stem and for every sum.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The value, after its activation and before it is pooled.
    pub read: Measured,
    /// The same features before the activation, where a change is what a layer makes; `read`'s where there is none.
    pub made: Measured,
    /// Whether the point itself is measured at `read`.
    pub measured: bool,
}

impl Graph {
    /// The places of a merge point, in the order of the forward pass; at least one.
    ///
    /// # Errors
    /// A malformed graph.
    pub fn places(&self, point: &MergePoint) -> Result<Vec<Place>> {
        let shapes = self.shapes()?;
        let position = |value: &str| self.nodes.iter().position(|node| node.name == value);
        let by_layers: BTreeSet<&str> =
            self.nodes.iter().flat_map(|node| node.inputs.iter().take(n_read(&node.op))).map(String::as_str).collect();
        let mut found: Vec<(usize, Place)> = Vec::new();
        for read in point.reads.iter().filter(|read| by_layers.contains(read.value.as_str())) {
            let (mut value, mut at, mut repeat) = (read.value.as_str(), read.at.clone(), read.repeat);
            while let Some(before) = self.node(value).filter(|node| repeat > 1 || pools(&node.op)).and_then(kept) {
                if matches!(self.node(value).map(|node| &node.op), Some(Op::Flatten)) {
                    let n: usize = shapes[before][1..].iter().product();
                    at = at.iter().step_by(n).map(|number| number / n).collect();
                    repeat /= n;
                }
                value = before;
            }
            let Some(order) = position(value).filter(|_| repeat == 1) else { continue };
            let of = |value: &str| {
                let whole = at.len() == shapes[value][0] && at.iter().copied().eq(0..at.len());
                Measured { value: value.to_owned(), features: (!whole).then(|| at.clone()) }
            };
            let mut made = value;
            while let Some(before) = self.node(made).filter(|node| activates(&node.op)).and_then(kept) {
                made = before;
            }
            let read = of(value);
            let place = Place { measured: read == point.measured, read, made: of(made) };
            if found.iter().all(|(_, other)| *other != place) {
                found.push((order, place));
            }
        }
        found.sort_by_key(|(order, _)| *order);
        let mut places: Vec<Place> = found.into_iter().map(|(_, place)| place).collect();
        if places.is_empty() {
            let [read, made] = [&point.measured; 2].map(Clone::clone);
            places.push(Place { read, made, measured: true });
        }
        Ok(places)
    }
}

/// Whether it makes of the same features fewer or other positions. One token of many is another thing than all.
fn pools(op: &Op) -> bool {
    op.pools() && !matches!(op, Op::SelectToken { .. })
}

fn activates(op: &Op) -> bool {
    matches!(op, Op::Relu | Op::Activation { .. })
}

/// What a node reads that keeps its features.
fn kept(node: &Node) -> Option<&str> {
    (node.op.nature() == Nature::Keeping).then(|| node.inputs[0].as_str())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::graph::{Arch, ArchSpec};

    fn places(graph: &Graph, name: &str) -> Vec<(String, String)> {
        let points = graph.merge_points(&graph.spaces().unwrap());
        let point = points.iter().find(|point| point.name == name).unwrap();
        graph.places(point).unwrap().into_iter().map(|place| (place.read.value, place.made.value)).collect()
    }

    #[test]
    fn a_stream_has_its_stem_and_all_its_sums() {
        let graph = ArchSpec::new(Arch::ResNet20, 0.25, 1, [16, 16], 3).build().unwrap();
        let pairs = |all: &[(&str, &str)]| -> Vec<(String, String)> {
            all.iter().map(|&(read, made)| (read.to_owned(), made.to_owned())).collect()
        };
        let points = graph.merge_points(&graph.spaces().unwrap());
        let first = points.iter().find(|point| graph.places(point).unwrap().len() == 4).unwrap();
        let found = places(&graph, &first.name);
        assert!(found.iter().all(|(read, _)| read.contains("relu")), "{found:?}");
        assert_eq!(found.last().unwrap().0, first.name);
        let last = points.last().unwrap();
        // The head reads the mean: the place is before it.
        assert_eq!(found.len(), 4);
        assert_eq!(places(&graph, &last.name).last().unwrap().0, last.measured.value);
        let inner = points.iter().find(|point| point.name == "layer1.0.relu").unwrap();
        assert_eq!(places(&graph, &inner.name), pairs(&[("layer1.0.relu", "layer1.0.bn1")]));
    }
}
