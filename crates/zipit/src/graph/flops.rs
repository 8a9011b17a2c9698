//! What a network costs: multiply-adds and parameters.

use super::{Graph, Op};
use crate::Result;
use serde::{Deserialize, Serialize};
use std::{iter::Sum, ops::Add};

/// The cost of one forward pass of one image, and of keeping the network.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cost {
    /// Multiply-adds of the convolutions, Linear layers and attentions; what papers call the FLOPs of a network.
    pub macs: u64,
    /// Learned numbers.
    pub params: u64,
    /// Measured numbers: batch normalisation's running mean and variance.
    pub buffers: u64,
}

/// Networks side by side.
impl Add for Cost {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self {
            macs: self.macs.saturating_add(other.macs),
            params: self.params.saturating_add(other.params),
            buffers: self.buffers.saturating_add(other.buffers),
        }
    }
}

impl Sum for Cost {
    fn sum<I: Iterator<Item = Self>>(costs: I) -> Self {
        costs.fold(Self::default(), Add::add)
    }
}

impl Graph {
    /// Counts multiply-adds and parameters.
    ///
    /// # Errors
    /// A malformed graph, or one whose cost does not fit 64 bits.
    pub fn cost(&self) -> Result<Cost> {
        let shapes = self.shapes()?;
        let mut cost = Cost::default();
        for node in &self.nodes {
            let too_large = || node.op.error(&node.name, "its cost does not fit 64 bits");
            for param in node.op.params() {
                let size = volume(&param.shape).ok_or_else(too_large)?;
                let total = if param.learned { &mut cost.params } else { &mut cost.buffers };
                *total = total.checked_add(size).ok_or_else(too_large)?;
            }
            // One multiply-add per weight at every position of the output.
            let positions = volume(shapes[node.name.as_str()].get(1..).unwrap_or(&[]));
            let macs = match &node.op {
                Op::Conv2d { .. } | Op::Linear { .. } => {
                    volume(&node.op.params()[0].shape).zip(positions).and_then(|(weights, n)| weights.checked_mul(n))
                }
                // qᵀk and the weighted sum of v: every query meets every key.
                Op::Attention { .. } => {
                    let [keys, values] = [1, 2].map(|i| volume(&shapes[node.inputs[i].as_str()]));
                    let both = keys.zip(values).and_then(|(keys, values)| keys.checked_add(values));
                    // Every window by itself.
                    let n_queries = shapes[node.name.as_str()].last().map(|&n| n as u64);
                    both.zip(n_queries).and_then(|(numbers, n)| numbers.checked_mul(n))
                }
                Op::BatchNorm2d { .. }
                | Op::LayerNorm { .. }
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
                | Op::Add
                | Op::Mul
                | Op::Join { .. }
                | Op::Concat
                | Op::Slice { .. }
                | Op::ChannelShuffle { .. }
                | Op::Pad { .. }
                | Op::Stored { .. }
                | Op::Follow { .. } => Some(0),
                Op::Call { call, .. } => {
                    let read: Vec<&[usize]> = node.inputs.iter().map(|name| shapes[name.as_str()].as_slice()).collect();
                    call.macs(&read, &shapes[node.name.as_str()])
                }
            };
            cost.macs = macs.and_then(|macs| cost.macs.checked_add(macs)).ok_or_else(too_large)?;
        }
        Ok(cost)
    }
}

fn volume(shape: &[usize]) -> Option<u64> {
    shape.iter().try_fold(1_u64, |product, &n| product.checked_mul(n as u64))
}
