//! Ops in words.

use super::Op;
use std::fmt;

impl Op {
    /// What the field calls it.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Conv2d { .. } => "Conv2d",
            Self::Linear { .. } => "Linear",
            Self::BatchNorm2d { .. } => "BatchNorm2d",
            Self::LayerNorm { .. } => "LayerNorm",
            Self::GroupNorm { .. } => "GroupNorm",
            Self::PowerMeanNorm { .. } => "PowerMeanNorm",
            Self::Relu => "ReLU",
            Self::Activation { function } => function.kind(),
            Self::MaxPool2d { .. } => "MaxPool2d",
            Self::AvgPool2d { .. } => "AvgPool2d",
            Self::AdaptiveAvgPool2d { .. } => "AdaptiveAvgPool2d",
            Self::Mean => "Mean",
            Self::Flatten => "Flatten",
            Self::Tokens => "Tokens",
            Self::SelectToken { .. } => "SelectToken",
            Self::PrependTokens { .. } => "PrependTokens",
            Self::PositionEmbedding { .. } => "PositionEmbedding",
            Self::LayerScale { .. } => "LayerScale",
            Self::Affine { .. } => "Affine",
            Self::Attention { .. } => "Attention",
            Self::Add => "Add",
            Self::Mul => "Mul",
            Self::Join { .. } => "Join",
            Self::Concat => "Concat",
            Self::Slice { .. } => "Slice",
            Self::ChannelShuffle { .. } => "ChannelShuffle",
            Self::Pad { .. } => "Pad",
            Self::Stored { .. } => "Stored",
            Self::Call { call, .. } | Self::Positions { call, .. } => call.kind(),
            Self::Follow { .. } => "Follow",
        }
    }
}

/// One line for people: `Conv2d 16→32, 3×3, stride 2, padding 1`.
impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Self::Activation { function } = self {
            return write!(f, "{function}");
        }
        if let Self::Call { call, .. } | Self::Positions { call, .. } = self {
            return write!(f, "{call}");
        }
        f.write_str(self.kind())?;
        match self {
            Self::Conv2d { in_channels, out_channels, window, groups, bias } => {
                write!(f, " {in_channels}→{out_channels}, {window}")?;
                if *groups != 1 {
                    write!(f, ", {groups} groups")?;
                }
                f.write_str(if *bias { ", bias" } else { "" })
            }
            Self::Linear { in_features, out_features, bias } => {
                write!(f, " {in_features}→{out_features}{}", if *bias { "" } else { ", no bias" })
            }
            Self::BatchNorm2d { num_features, eps } => write!(f, " {num_features}, eps {eps}"),
            Self::LayerNorm { num_features, eps, bias } => {
                write!(f, " {num_features}, eps {eps}{}", if *bias { "" } else { ", no bias" })
            }
            Self::GroupNorm { num_groups, num_features, eps } => {
                write!(f, " {num_features}, {num_groups} groups, eps {eps}")
            }
            Self::PowerMeanNorm { num_features, power, eps } => write!(f, " {num_features}, power {power}, eps {eps}"),
            Self::MaxPool2d { window } => write!(f, " {window}"),
            Self::AvgPool2d { window, count_include_pad } => {
                write!(f, " {window}{}", if *count_include_pad { "" } else { ", padding not counted" })
            }
            Self::AdaptiveAvgPool2d { output: [h, w] } => write!(f, " to {h}×{w}"),
            Self::SelectToken { index } => write!(f, " {index}"),
            Self::PrependTokens { num_tokens, num_features } => write!(f, " {num_tokens} of {num_features}"),
            Self::PositionEmbedding { shape, axis } | Self::LayerScale { shape, axis } => {
                write!(f, " {shape:?}, features along axis {axis}")
            }
            Self::Affine { scale, shift } => write!(f, " ×{scale} + {shift}"),
            Self::Attention { heads, scale, bias } => {
                write!(f, " of {heads} heads")?;
                bias.map_or(Ok(()), |shape| write!(f, ", bias {shape:?}"))?;
                scale.map_or(Ok(()), |scale| write!(f, ", scale {scale}"))
            }
            Self::Slice { ranges } => {
                let all: Vec<String> = ranges.iter().map(|[from, to]| format!("{from}–{to}")).collect();
                write!(f, " {}", all.join(", "))
            }
            Self::ChannelShuffle { groups } => write!(f, " of {groups} groups"),
            Self::Pad { padding: [left, right, top, bottom], value } => {
                write!(f, " left {left}, right {right}, top {top}, bottom {bottom}, with {value}")
            }
            Self::Join { axis } => write!(f, " along axis {axis}"),
            Self::Stored { shape } => write!(f, " {shape:?}"),
            Self::Follow { shape, axis } => write!(f, " of axis {axis} of {shape:?}"),
            Self::Activation { .. }
            | Self::Call { .. }
            | Self::Positions { .. }
            | Self::Relu
            | Self::Mean
            | Self::Flatten
            | Self::Tokens
            | Self::Add
            | Self::Mul
            | Self::Concat => Ok(()),
        }
    }
}
