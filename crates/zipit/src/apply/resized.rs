//! Ops with the widths of the merged graph.

use super::View;
use crate::graph::{Node, Op};

impl View<'_> {
    /// The op with the widths of the merged graph. Blocks keep their width; their number changes.
    pub(super) fn resized(&self, node: &Node) -> Op {
        let width = |value: &str| self.maps.axis_width(&self.spaces.axes[value]);
        let read = || width(&node.inputs[0]);
        let made = width(&node.name);
        match node.op.clone() {
            Op::Conv2d { out_channels, window, groups, bias, .. } => Op::Conv2d {
                in_channels: read(),
                out_channels: made,
                window,
                groups: if groups == 1 { 1 } else { made / (out_channels / groups) },
                bias,
            },
            Op::Linear { bias, .. } => Op::Linear { in_features: read(), out_features: made, bias },
            Op::BatchNorm2d { eps, .. } => Op::BatchNorm2d { num_features: made, eps },
            Op::LayerNorm { eps, bias, .. } => Op::LayerNorm { num_features: made, eps, bias },
            Op::PowerMeanNorm { power, eps, .. } => Op::PowerMeanNorm { num_features: made, power, eps },
            Op::GroupNorm { num_groups, num_features, eps } => Op::GroupNorm {
                num_groups: if num_groups == 1 { 1 } else { made / (num_features / num_groups) },
                num_features: made,
                eps,
            },
            Op::PrependTokens { num_tokens, .. } => Op::PrependTokens { num_tokens, num_features: made },
            Op::PositionEmbedding { mut shape, axis } => {
                shape[axis] = made;
                Op::PositionEmbedding { shape, axis }
            }
            Op::LayerScale { mut shape, axis } => {
                shape[axis] = made;
                Op::LayerScale { shape, axis }
            }
            Op::Positions { call, mut shape } => {
                shape[0] = made;
                Op::Positions { call: call.with_features(made), shape }
            }
            Op::Attention { heads, scale, mut bias } => {
                let per_head = self.spaces.axes[&node.name]
                    .iter()
                    .map(|segment| self.maps.dim(segment.space) * segment.repeat)
                    .sum::<usize>()
                    / heads;
                let merged = made / per_head;
                if let Some(shape) = bias.as_mut().filter(|shape| shape[1] > 1) {
                    shape[1] = merged;
                }
                Op::Attention { heads: merged, scale, bias }
            }
            // The merged graph holds features space after space, so shuffling is picking.
            op @ (Op::Slice { .. } | Op::ChannelShuffle { .. }) => match self.spaces.picks.get(&node.name) {
                Some(picks) => Op::Slice { ranges: self.picked(node, picks) },
                None => op,
            },
            op @ (Op::Relu
            | Op::Activation { .. }
            | Op::MaxPool2d { .. }
            | Op::AvgPool2d { .. }
            | Op::AdaptiveAvgPool2d { .. }
            | Op::Mean
            | Op::Flatten
            | Op::Tokens
            | Op::SelectToken { .. }
            | Op::Affine { .. }
            | Op::Add
            | Op::Mul
            | Op::Join { .. }
            | Op::Concat
            | Op::Pad { .. }
            | Op::Stored { .. }
            | Op::Call { .. }
            | Op::Follow { .. }) => op,
        }
    }

    /// The ranges that a Slice or ChannelShuffle takes in the merged graph.
    fn picked(&self, node: &Node, picks: &[usize]) -> Vec<[usize; 2]> {
        let mut starts = vec![0];
        for segment in &self.spaces.axes[&node.inputs[0]] {
            starts.push(starts[starts.len() - 1] + self.maps.width(segment.space) * segment.repeat);
        }
        let mut ranges: Vec<[usize; 2]> = Vec::new();
        for &segment in picks {
            match ranges.last_mut() {
                Some(last) if last[1] == starts[segment] => last[1] = starts[segment + 1],
                _ => ranges.push([starts[segment], starts[segment + 1]]),
            }
        }
        ranges
    }
}
