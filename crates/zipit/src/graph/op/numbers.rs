//! The numbers an op names, looked at before anything is computed from them.

use super::{Activation, Op, Window};

/// Largest number an op may name. Far beyond any network, and small enough that no size computed from a file overflows.
const MAX_NUMBER: usize = 1 << 28;
/// Axes of a learned tensor, at most.
const MAX_RANK: usize = 16;

impl Op {
    /// # Errors
    /// The reason why no such op can be.
    pub(crate) fn check_numbers(&self) -> Result<(), String> {
        let eps = |eps: &f64| {
            if eps.is_finite() && *eps >= 0.0 {
                Ok(())
            } else {
                Err(format!("eps {eps} must be a number of at least 0"))
            }
        };
        let finite = |name: &str, x: f64| {
            if x.is_finite() { Ok(()) } else { Err(format!("{name} {x} must be a finite number")) }
        };
        let mut window: Option<&Window> = None;
        let mut numbers = match self {
            Self::Conv2d { in_channels, out_channels, window: w, groups, .. } => {
                window = Some(w);
                vec![*in_channels, *out_channels, *groups]
            }
            Self::Linear { in_features, out_features, .. } => vec![*in_features, *out_features],
            Self::BatchNorm2d { eps: e, num_features } | Self::LayerNorm { eps: e, num_features, .. } => {
                eps(e)?;
                vec![*num_features]
            }
            Self::PowerMeanNorm { eps: e, num_features, power } => {
                eps(e)?;
                if ![1, 2].contains(power) {
                    return Err(format!("a power mean of order {power} is not known, only 1 and 2"));
                }
                vec![*num_features]
            }
            Self::GroupNorm { eps: e, num_features, num_groups } => {
                eps(e)?;
                vec![*num_features, *num_groups]
            }
            Self::MaxPool2d { window: w } | Self::AvgPool2d { window: w, .. } => {
                if (0..2).any(|axis| w.padding[axis] > w.kernel[axis] / 2) {
                    return Err(format!("padding {:?} is more than half of the kernel {:?}", w.padding, w.kernel));
                }
                window = Some(w);
                vec![]
            }
            Self::AdaptiveAvgPool2d { output } => output.to_vec(),
            Self::Activation { function } => {
                function.numbers().into_iter().try_for_each(|x| finite("the function's number", x))?;
                match function {
                    Activation::Celu(0.0) => return Err("a CELU of alpha 0 divides by it".into()),
                    Activation::Hardtanh(low, high) if low > high => {
                        return Err(format!("its lower bound {low} is above the upper one {high}"));
                    }
                    _ => vec![],
                }
            }
            Self::Affine { scale, shift } => {
                finite("scale", *scale)?;
                finite("shift", *shift)?;
                vec![]
            }
            Self::SelectToken { index } => vec![*index],
            Self::Join { axis } => vec![*axis],
            Self::PrependTokens { num_tokens, num_features } => vec![*num_tokens, *num_features],
            Self::PositionEmbedding { shape, .. }
            | Self::LayerScale { shape, .. }
            | Self::Stored { shape }
            | Self::Follow { shape, .. }
            | Self::Call { shape, .. }
            | Self::Positions { shape, .. } => {
                if shape.len() > MAX_RANK {
                    return Err(format!("a tensor of {} axes", shape.len()));
                }
                shape.clone()
            }
            Self::Attention { heads, scale, bias } => {
                finite("scale", scale.unwrap_or_default())?;
                bias.iter().flatten().chain([heads]).copied().collect()
            }
            Self::Slice { ranges } if ranges.is_empty() => return Err("takes no features".into()),
            Self::Slice { ranges } => ranges.concat(),
            Self::ChannelShuffle { groups } => vec![*groups],
            Self::Pad { padding, value } => {
                finite("the value", *value)?;
                padding.to_vec()
            }
            Self::Relu | Self::Mean | Self::Flatten | Self::Tokens | Self::Add | Self::Mul | Self::Concat => vec![],
        };
        if let Some(w) = window {
            if [w.kernel, w.stride, w.dilation].concat().contains(&0) {
                return Err("a kernel, stride or dilation of 0".into());
            }
            numbers.extend([w.kernel, w.stride, w.padding, w.dilation].concat());
        }
        match numbers.iter().find(|&&n| n > MAX_NUMBER) {
            Some(n) => Err(format!("the number {n} is too large")),
            None => Ok(()),
        }
    }
}
