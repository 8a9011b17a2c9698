//! What a graph says about running it, worked out once: who reads what, when a value dies, what may be overwritten.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use zipit::graph::{Node, Op};
use zipit::{Graph, Result};

/// A graph's nodes as steps over numbered values: value 0 is the input, value i + 1 what node i makes.
#[derive(Debug)]
pub(crate) struct Schedule {
    /// One per node, in order.
    pub steps: Vec<Step>,
    /// Value number of each output, in order.
    pub outputs: Vec<usize>,
}

/// One node.
#[derive(Debug)]
pub(crate) struct Step {
    /// Values it reads, in order.
    pub inputs: Vec<usize>,
    /// Values nobody needs after it.
    pub release: Vec<usize>,
    /// Whether it may overwrite its first input.
    pub in_place: bool,
}

impl Schedule {
    /// The outputs and the values in `keep` live to the end.
    ///
    /// # Errors
    /// A malformed graph.
    pub fn new(graph: &Graph, keep: &BTreeSet<String>) -> Result<Self> {
        let shapes = graph.shapes()?;
        let mut numbers = BTreeMap::from([(graph.input.name.as_str(), 0)]);
        numbers.extend(graph.nodes.iter().enumerate().map(|(i, node)| (node.name.as_str(), i + 1)));
        let inputs: Vec<Vec<usize>> =
            graph.nodes.iter().map(|node| node.inputs.iter().map(|name| numbers[name.as_str()]).collect()).collect();
        let outputs: Vec<usize> = graph.outputs.iter().map(|name| numbers[name.as_str()]).collect();

        let n_values = graph.nodes.len() + 1;
        // A value nobody reads lives until the step after its own, so that it can be observed.
        let mut last_use: Vec<usize> = (0..n_values).collect();
        let mut n_reads = vec![0_usize; n_values];
        for (step, read) in inputs.iter().enumerate() {
            for &value in read {
                last_use[value] = last_use[value].max(step);
                n_reads[value] += 1;
            }
        }
        let kept = keep.iter().filter_map(|name| numbers.get(name.as_str()));
        for &value in outputs.iter().chain(kept) {
            last_use[value] = usize::MAX;
            n_reads[value] += 1;
        }
        let steps = inputs
            .into_iter()
            .enumerate()
            .map(|(step, inputs)| Step {
                in_place: inputs.first().is_some_and(|&first| {
                    let read = |name: &String| &shapes[name.as_str()];
                    let node = &graph.nodes[step];
                    let alike = node.inputs.windows(2).all(|pair| read(&pair[0]) == read(&pair[1]));
                    first > 0 && n_reads[first] == 1 && overwrites(&node.op, &graph.nodes[first - 1], alike)
                }),
                release: (0..n_values).filter(|&value| last_use[value] == step).collect(),
                inputs,
            })
            .collect();
        Ok(Self { steps, outputs })
    }

    /// The step among `steps` before which the values that are still there take the least room, of `sizes` each, the first
    /// of several; `None` where one of the `needed` values is gone before all of them.
    ///
    /// # Panics
    /// When `sizes` are of other values.
    pub fn lightest(&self, steps: RangeInclusive<usize>, sizes: &[usize], needed: &BTreeSet<usize>) -> Option<usize> {
        assert_eq!(sizes.len(), self.steps.len() + 1, "a size for every value");
        let mut lightest = None;
        let mut room = sizes[0];
        for step in 0..=*steps.end() {
            if step > 0 {
                let released = &self.steps[step - 1].release;
                if released.iter().any(|value| needed.contains(value)) {
                    break;
                }
                room = room + sizes[step] - released.iter().map(|&value| sizes[value]).sum::<usize>();
            }
            if steps.contains(&step) && lightest.is_none_or(|(least, _)| room < least) {
                lightest = Some((room, step));
            }
        }
        lightest.map(|(_, step)| step)
    }
}

/// Whether `op` may overwrite what `producer` made, being its only reader: the producer must own its result (Flatten
/// gives a view, and so does a sum of one value) and must not need it for its gradient (ReLU does). `alike`: what it reads
/// has one shape.
fn overwrites(op: &Op, producer: &Node, alike: bool) -> bool {
    let free = match producer.op {
        Op::Conv2d { .. } | Op::Linear { .. } | Op::BatchNorm2d { .. } => true,
        Op::Add => producer.inputs.len() > 1,
        Op::LayerNorm { .. }
        | Op::PowerMeanNorm { .. }
        | Op::GroupNorm { .. }
        | Op::Relu
        | Op::Activation { .. }
        | Op::MaxPool2d { .. }
        | Op::AvgPool2d { .. }
        | Op::AdaptiveAvgPool2d { .. }
        | Op::Mean
        | Op::Flatten
        | Op::Tokens
        | Op::SelectToken { .. }
        | Op::PrependTokens { .. }
        | Op::PositionEmbedding { .. }
        | Op::LayerScale { .. }
        | Op::Affine { .. }
        | Op::Positions { .. }
        | Op::Attention { .. }
        | Op::Mul
        | Op::Join { .. }
        | Op::Concat
        | Op::Slice { .. }
        | Op::ChannelShuffle { .. }
        | Op::Pad { .. }
        | Op::Stored { .. }
        | Op::Call { .. }
        | Op::Follow { .. } => false,
    };
    match op {
        Op::Relu => free,
        // A sum may be larger than its first summand, along positions.
        Op::Add => free && alike,
        Op::Conv2d { .. }
        | Op::Linear { .. }
        | Op::BatchNorm2d { .. }
        | Op::LayerNorm { .. }
        | Op::PowerMeanNorm { .. }
        | Op::GroupNorm { .. }
        | Op::Activation { .. }
        | Op::MaxPool2d { .. }
        | Op::AvgPool2d { .. }
        | Op::AdaptiveAvgPool2d { .. }
        | Op::Mean
        | Op::Flatten
        | Op::Tokens
        | Op::SelectToken { .. }
        | Op::PrependTokens { .. }
        | Op::PositionEmbedding { .. }
        | Op::LayerScale { .. }
        | Op::Affine { .. }
        | Op::Positions { .. }
        | Op::Attention { .. }
        | Op::Mul
        | Op::Join { .. }
        | Op::Concat
        | Op::Slice { .. }
        | Op::ChannelShuffle { .. }
        | Op::Pad { .. }
        | Op::Stored { .. }
        | Op::Call { .. }
        | Op::Follow { .. } => false,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use zipit::graph::{ArchSpec, arch::Arch};

    /// A block: two convolutions, each with BatchNorm, beside a stream, their sum and its ReLU.
    #[test]
    fn a_run_rests_where_least_is_there() {
        let graph = ArchSpec::new(Arch::ResNet20, 0.25, 1, [8, 8], 3).build().unwrap();
        let schedule = Schedule::new(&graph, &BTreeSet::new()).unwrap();
        let shapes = graph.shapes().unwrap();
        let values = graph.nodes.iter().map(|node| &node.name);
        let sizes: Vec<usize> = [&graph.input.name]
            .into_iter()
            .chain(values)
            .map(|value| shapes[value.as_str()].iter().product())
            .collect();
        let sum = graph.nodes.iter().position(|node| matches!(node.op, Op::Add)).unwrap();
        let none = BTreeSet::new();
        // Between the last convolution and the sum, stream and convolution are there; after it, the sum alone.
        assert_eq!(schedule.lightest(sum - 1..=sum + 2, &sizes, &none), Some(sum + 1));
        assert_eq!(schedule.lightest(sum - 1..=sum, &sizes, &none), Some(sum - 1));
        // Its ReLU takes its place, and what it adds up is gone with it. (Value i + 1 is what node i makes.)
        assert_eq!(schedule.lightest(sum + 2..=sum + 2, &sizes, &BTreeSet::from([sum + 1])), None);
        assert_eq!(schedule.lightest(sum - 1..=sum + 2, &sizes, &BTreeSet::from([sum])), Some(sum - 1));
        // What is not made yet cannot be gone; where there is no step, there is none.
        assert_eq!(schedule.lightest(sum - 1..=sum + 2, &sizes, &BTreeSet::from([sum + 4])), Some(sum + 1));
        let nowhere = sum + 2..=sum + 1;
        assert_eq!(schedule.lightest(nowhere, &sizes, &none), None);
    }
}
