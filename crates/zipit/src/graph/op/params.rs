//! Parameters and buffers of each op, by PyTorch's names.

use super::Op;

/// A parameter or buffer of an op, by its PyTorch name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Param {
    /// `weight`, `bias`, `running_mean`, `running_var`.
    pub name: &'static str,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Learned (a parameter) or measured (a buffer).
    pub learned: bool,
}

impl Op {
    /// Parameters and buffers, in PyTorch's order.
    #[must_use]
    pub fn params(&self) -> Vec<Param> {
        let learned = |name, shape| Param { name, shape, learned: true };
        let buffer = |name, shape| Param { name, shape, learned: false };
        let with_bias = |weight: Vec<usize>, n: usize, bias: bool| {
            let mut params = vec![learned("weight", weight)];
            if bias {
                params.push(learned("bias", vec![n]));
            }
            params
        };
        match self {
            Self::Conv2d { in_channels, out_channels, window, groups, bias } => {
                let [kh, kw] = window.kernel;
                let per_group = in_channels.checked_div(*groups).unwrap_or(0);
                with_bias(vec![*out_channels, per_group, kh, kw], *out_channels, *bias)
            }
            Self::Linear { in_features, out_features, bias } => {
                with_bias(vec![*out_features, *in_features], *out_features, *bias)
            }
            Self::BatchNorm2d { num_features: c, .. } => vec![
                learned("weight", vec![*c]),
                learned("bias", vec![*c]),
                buffer("running_mean", vec![*c]),
                buffer("running_var", vec![*c]),
            ],
            Self::LayerNorm { num_features: c, bias, .. } => with_bias(vec![*c], *c, *bias),
            Self::GroupNorm { num_features: c, .. } => with_bias(vec![*c], *c, true),
            Self::PowerMeanNorm { num_features: c, power: 2, .. } => vec![learned("weight", vec![*c])],
            Self::PrependTokens { num_tokens, num_features } => {
                vec![learned("weight", vec![1, *num_tokens, *num_features])]
            }
            Self::PositionEmbedding { shape, .. } | Self::LayerScale { shape, .. } | Self::Stored { shape } => {
                vec![learned("weight", shape.clone())]
            }
            Self::Attention { bias, .. } => bias.iter().map(|shape| learned("bias", shape.to_vec())).collect(),
            Self::Relu
            | Self::PowerMeanNorm { .. }
            | Self::Activation { .. }
            | Self::MaxPool2d { .. }
            | Self::AvgPool2d { .. }
            | Self::AdaptiveAvgPool2d { .. }
            | Self::Mean
            | Self::Flatten
            | Self::Tokens
            | Self::SelectToken { .. }
            | Self::Affine { .. }
            | Self::Positions { .. }
            | Self::Add
            | Self::Mul
            | Self::Join { .. }
            | Self::Concat
            | Self::Slice { .. }
            | Self::ChannelShuffle { .. }
            | Self::Pad { .. }
            | Self::Call { .. }
            | Self::Follow { .. } => vec![],
        }
    }

    /// Which axis of its parameters holds the features of the value it makes.
    #[must_use]
    pub fn feature_axis(&self) -> usize {
        match self {
            Self::PrependTokens { .. } => 2,
            // A head's numbers.
            Self::Attention { .. } => 1,
            Self::PositionEmbedding { axis, .. } | Self::LayerScale { axis, .. } => *axis,
            Self::Conv2d { .. }
            | Self::Linear { .. }
            | Self::BatchNorm2d { .. }
            | Self::LayerNorm { .. }
            | Self::PowerMeanNorm { .. }
            | Self::GroupNorm { .. }
            | Self::Relu
            | Self::Activation { .. }
            | Self::MaxPool2d { .. }
            | Self::AvgPool2d { .. }
            | Self::AdaptiveAvgPool2d { .. }
            | Self::Mean
            | Self::Flatten
            | Self::Tokens
            | Self::SelectToken { .. }
            | Self::Affine { .. }
            | Self::Positions { .. }
            | Self::Add
            | Self::Mul
            | Self::Join { .. }
            | Self::Concat
            | Self::Slice { .. }
            | Self::ChannelShuffle { .. }
            | Self::Pad { .. }
            | Self::Stored { .. }
            | Self::Call { .. }
            | Self::Follow { .. } => 0,
        }
    }
}
