//! What a node can compute. Matched exhaustively everywhere, so that the compiler lists what a new op needs.

mod activation;
mod call;
mod display;
mod numbers;
mod params;
mod shape;
mod window;

pub use activation::Activation;
pub use call::{Call, Combination, Function, Length, Padding, Reduction, Resampling};
pub use params::Param;
pub use window::Window;

use crate::Error;
use serde::{Deserialize, Serialize};

/// One operation. Values are `[B, C, H, W]`, `[B, C, T]` (T tokens) or `[B, C]`: the features always come first, then
/// the positions. What [`Call`](Op::Call) and [`Stored`](Op::Stored) make is carried: of any shape, and not followed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
pub enum Op {
    /// 2-d convolution, weight `[O, I / groups, kH, kW]`.
    Conv2d {
        /// I.
        in_channels: usize,
        /// O.
        out_channels: usize,
        /// The window; `ceil_mode` is unused.
        window: Window,
        /// Number of groups; `groups = I = O` is depthwise.
        groups: usize,
        /// Whether it has a bias `[O]`.
        bias: bool,
    },
    /// Fully connected at every position, weight `[O, I]`: `[I, …]` → `[O, …]`.
    Linear {
        /// I.
        in_features: usize,
        /// O.
        out_features: usize,
        /// Whether it has a bias `[O]`.
        bias: bool,
    },
    /// Batch normalisation with affine parameters and running statistics, each `[C]`.
    BatchNorm2d {
        /// C.
        num_features: usize,
        /// Added to the variance.
        eps: f64,
    },
    /// Normalises the features of each position by their own mean and variance; weight and bias `[C]`.
    LayerNorm {
        /// C.
        num_features: usize,
        /// Added to the variance.
        eps: f64,
        /// Whether it has a bias.
        bias: bool,
    },
    /// Normalises the features of each group, over all positions, by their own mean and variance; weight and bias `[C]`.
    GroupNorm {
        /// Number of groups.
        num_groups: usize,
        /// C.
        num_features: usize,
        /// Added to the variance.
        eps: f64,
    },
    /// Divides the features of each position by their power mean: `x_c / (mean_c x_c^p + ε)^{1/p}`. p = 2 is `RMSNorm`, with a
    /// weight `[C]`; p = 1, of norms over positions, is what ConvNeXt V2's global response normalisation multiplies with.
    PowerMeanNorm {
        /// C.
        num_features: usize,
        /// p: 1 or 2.
        power: usize,
        /// Added to the mean of the powers.
        eps: f64,
    },
    /// max(0, x).
    Relu,
    /// Another function of each number by itself.
    Activation {
        /// Which.
        function: Activation,
    },
    /// Max pooling.
    MaxPool2d {
        /// The window.
        window: Window,
    },
    /// Average pooling.
    AvgPool2d {
        /// The window; dilation is unused.
        window: Window,
        /// Whether padding counts as zeros.
        #[serde(default = "yes", skip_serializing_if = "is_yes")]
        count_include_pad: bool,
    },
    /// Average pooling to a given size.
    AdaptiveAvgPool2d {
        /// Output height and width.
        output: [usize; 2],
    },
    /// Mean over all positions: `[C, …]` → `[C]`.
    Mean,
    /// `[C, …]` → `[C·positions]`.
    Flatten,
    /// `[C, H, W]` → `[C, H·W]`: positions become tokens.
    Tokens,
    /// One token: `[C, T]` → `[C]`.
    SelectToken {
        /// Which.
        index: usize,
    },
    /// Learned tokens before the others, weight `[1, n, C]`: `[C, T]` → `[C, n + T]`. A class token is one.
    PrependTokens {
        /// n.
        num_tokens: usize,
        /// C.
        num_features: usize,
    },
    /// A learned tensor is added, the same for every image.
    PositionEmbedding {
        /// Shape of the tensor; without `axis` and leading ones it is the value's positions, each of them or 1.
        shape: Vec<usize>,
        /// Which of its axes are the features.
        axis: usize,
    },
    /// A learned tensor is multiplied with, the same for every image.
    LayerScale {
        /// Shape of the tensor; without `axis` and leading ones it is the value's positions, each of them or 1.
        shape: Vec<usize>,
        /// Which of its axes are the features.
        axis: usize,
    },
    /// `x · scale + shift` with constants.
    Affine {
        /// Factor.
        scale: f64,
        /// Summand.
        shift: f64,
    },
    /// Multi-head attention of queries, keys and values `[heads·h, …, T]`: per head, `softmax(scale · qᵀk + bias) v` over
    /// the last positions; those before are windows, each by itself.
    Attention {
        /// Number of heads; the features of a head lie side by side.
        heads: usize,
        /// Factor of the products; `1/√h` where it is not given.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        scale: Option<f64>,
        /// Shape `[windows, heads, T_q, T_k]` of what is added to the scores, the first two or 1; none where nothing is.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        bias: Option<[usize; 4]>,
    },
    /// A function of the positions of `[B, C, …]`: every feature is moved, pooled or filled up as every other.
    Positions {
        /// Which. It names the axes behind the features alone.
        call: Call,
        /// Shape of what it makes, features first.
        shape: Vec<usize>,
    },
    /// Element-wise sum of two or more values; a size of 1 is repeated along positions.
    Add,
    /// Element-wise product of two values; a size of 1 is repeated along positions (squeeze-and-excitation).
    Mul,
    /// Concatenation along positions: tokens behind tokens.
    Join {
        /// Which axis of the values, features being axis 0.
        axis: usize,
    },
    /// Concatenation along the feature axis.
    Concat,
    /// Some of the features: those of the ranges, one range after the other.
    Slice {
        /// Each `[start, end)`.
        ranges: Vec<[usize; 2]>,
    },
    /// The features as `[groups, C / groups]`, transposed.
    ChannelShuffle {
        /// Number of groups.
        groups: usize,
    },
    /// A border around the image.
    Pad {
        /// Left, right, top, bottom.
        padding: [usize; 4],
        /// What it is filled with.
        value: f64,
    },
    /// A learned or constant tensor by itself, the same for every image; what it makes is carried.
    Stored {
        /// Its shape.
        shape: Vec<usize>,
    },
    /// A function of tensors that is run and not followed; what it makes is carried.
    Call {
        /// Which.
        call: Call,
        /// Shape of what it makes of one image; axes that grow with the batch have their length for one.
        shape: Vec<usize>,
    },
    /// Features are followed from here on: a carried tensor as `[C, …]`.
    Follow {
        /// The tensor as `[B, …]`, without the batch.
        shape: Vec<usize>,
        /// Which of those axes are the features.
        axis: usize,
    },
}

fn yes() -> bool {
    true
}

#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_yes(b: &bool) -> bool {
    *b
}

/// What an op does to the features it reads: all that analysis and surgery ask of most ops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nature {
    /// A weight matrix takes features of one space to features of another, whole or block by block.
    Mixing,
    /// Every feature of its first input stays the feature it was, with parameters of its own or without.
    Keeping,
    /// Features of several values are tied to each other: sums and products.
    Tying,
    /// Features are picked, put one after the other or in another order.
    Arranging,
    /// Queries and keys are compared; the values' features stay what they are.
    Attending,
    /// It is not known which numbers are features: each model has its own.
    Carrying,
    /// New features, of what was carried.
    Opening,
}

impl Op {
    /// What it does to features.
    #[must_use]
    pub fn nature(&self) -> Nature {
        match self {
            Self::Conv2d { groups, in_channels, out_channels, .. } => {
                if *groups > 1 && groups == in_channels && in_channels == out_channels {
                    Nature::Keeping
                } else {
                    Nature::Mixing
                }
            }
            Self::Linear { .. } => Nature::Mixing,
            Self::BatchNorm2d { .. }
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
            | Self::PrependTokens { .. }
            | Self::PositionEmbedding { .. }
            | Self::LayerScale { .. }
            | Self::Affine { .. }
            | Self::Positions { .. }
            | Self::Pad { .. } => Nature::Keeping,
            Self::Add | Self::Mul | Self::Join { .. } => Nature::Tying,
            Self::Concat | Self::Slice { .. } | Self::ChannelShuffle { .. } => Nature::Arranging,
            Self::Attention { .. } => Nature::Attending,
            Self::Stored { .. } | Self::Call { .. } => Nature::Carrying,
            Self::Follow { .. } => Nature::Opening,
        }
    }

    /// Whether the weight takes features of one space to features of another; else every parameter has one entry, or
    /// one kernel, per feature.
    #[must_use]
    pub fn mixes(&self) -> bool {
        self.nature() == Nature::Mixing
    }

    /// Whether the features of what it makes are new ones.
    #[must_use]
    pub fn opens(&self) -> bool {
        matches!(self.nature(), Nature::Mixing | Nature::Opening)
    }

    /// Whether it commutes with linear maps of the features, applied alike at every position: what is true of a mean of
    /// features stays true of the mean of what it makes of them.
    #[must_use]
    pub fn is_linear_in_features(&self) -> bool {
        match self {
            Self::AvgPool2d { .. }
            | Self::AdaptiveAvgPool2d { .. }
            | Self::Mean
            | Self::Flatten
            | Self::Tokens
            | Self::SelectToken { .. }
            | Self::Add
            | Self::Join { .. }
            | Self::Concat
            | Self::Slice { .. }
            | Self::ChannelShuffle { .. } => true,
            Self::Affine { shift, .. } => *shift == 0.0,
            Self::Pad { value, .. } => *value == 0.0,
            Self::Positions { call, .. } => call.is_linear(),
            Self::Conv2d { .. }
            | Self::Linear { .. }
            | Self::BatchNorm2d { .. }
            | Self::LayerNorm { .. }
            | Self::PowerMeanNorm { .. }
            | Self::GroupNorm { .. }
            | Self::Relu
            | Self::Activation { .. }
            | Self::MaxPool2d { .. }
            | Self::PrependTokens { .. }
            | Self::PositionEmbedding { .. }
            | Self::LayerScale { .. }
            | Self::Attention { .. }
            | Self::Mul
            | Self::Stored { .. }
            | Self::Call { .. }
            | Self::Follow { .. } => false,
        }
    }

    /// Whether it makes fewer or other positions of what it reads, so that a space is rather measured before it.
    #[must_use]
    pub fn pools(&self) -> bool {
        match self {
            Self::MaxPool2d { .. }
            | Self::AvgPool2d { .. }
            | Self::AdaptiveAvgPool2d { .. }
            | Self::Mean
            | Self::Flatten
            | Self::SelectToken { .. }
            | Self::Pad { .. } => true,
            Self::Positions { call, .. } => !call.keeps_positions(),
            Self::Conv2d { .. }
            | Self::Linear { .. }
            | Self::BatchNorm2d { .. }
            | Self::LayerNorm { .. }
            | Self::PowerMeanNorm { .. }
            | Self::GroupNorm { .. }
            | Self::Relu
            | Self::Activation { .. }
            | Self::Tokens
            | Self::PrependTokens { .. }
            | Self::PositionEmbedding { .. }
            | Self::LayerScale { .. }
            | Self::Affine { .. }
            | Self::Attention { .. }
            | Self::Add
            | Self::Mul
            | Self::Join { .. }
            | Self::Concat
            | Self::Slice { .. }
            | Self::ChannelShuffle { .. }
            | Self::Stored { .. }
            | Self::Call { .. }
            | Self::Follow { .. } => false,
        }
    }

    /// Whether it divides by the spread of each sample's own features, so that their common spread matters.
    #[must_use]
    pub fn normalises_samples(&self) -> bool {
        match self {
            Self::LayerNorm { .. } | Self::GroupNorm { .. } | Self::PowerMeanNorm { .. } => true,
            Self::Conv2d { .. }
            | Self::Linear { .. }
            | Self::BatchNorm2d { .. }
            | Self::Relu
            | Self::Activation { .. }
            | Self::MaxPool2d { .. }
            | Self::AvgPool2d { .. }
            | Self::AdaptiveAvgPool2d { .. }
            | Self::Mean
            | Self::Flatten
            | Self::Tokens
            | Self::SelectToken { .. }
            | Self::PrependTokens { .. }
            | Self::PositionEmbedding { .. }
            | Self::LayerScale { .. }
            | Self::Affine { .. }
            | Self::Attention { .. }
            | Self::Add
            | Self::Mul
            | Self::Join { .. }
            | Self::Concat
            | Self::Slice { .. }
            | Self::ChannelShuffle { .. }
            | Self::Pad { .. }
            | Self::Positions { .. }
            | Self::Stored { .. }
            | Self::Call { .. }
            | Self::Follow { .. } => false,
        }
    }

    /// A layer in the sense of "ResNet-20 has 20 layers": it mixes features by a weight matrix.
    #[must_use]
    pub fn is_weight_layer(&self) -> bool {
        match self {
            Self::Conv2d { .. } | Self::Linear { .. } => true,
            Self::BatchNorm2d { .. }
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
            | Self::PrependTokens { .. }
            | Self::PositionEmbedding { .. }
            | Self::LayerScale { .. }
            | Self::Affine { .. }
            | Self::Attention { .. }
            | Self::Add
            | Self::Mul
            | Self::Join { .. }
            | Self::Concat
            | Self::Slice { .. }
            | Self::ChannelShuffle { .. }
            | Self::Pad { .. }
            | Self::Positions { .. }
            | Self::Stored { .. }
            | Self::Follow { .. } => false,
            Self::Call { call, .. } => {
                matches!(call, Call::Linear { .. } | Call::Convolution { .. } | Call::Lstm { .. })
            }
        }
    }

    pub(crate) fn error(&self, node: &str, reason: impl Into<String>) -> Error {
        Error::Node { node: node.to_owned(), op: self.kind(), reason: reason.into() }
    }
}
