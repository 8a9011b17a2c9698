//! What is run and not followed: PyTorch's ordinary functions of tensors.
//!
//! A call reads and makes tensors of any shape, the batch wherever it stands. Which of its numbers are features is not
//! known, so what it makes is *carried*: a merged network has a copy of it for every model (docs/ops.md).

use super::Activation;
use serde::{Deserialize, Serialize};
use std::fmt;

/// A length of an axis: a number, or as many times the number of images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Length {
    /// For any batch.
    Fixed(usize),
    /// For each image.
    PerImage {
        /// So many.
        per_image: usize,
    },
}

/// A function of tensors, with PyTorch's name, meaning and order of arguments. It reads as many tensors as the node has
/// inputs; which of the optional ones are there, its flags say.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "snake_case", deny_unknown_fields)]
#[allow(missing_docs, reason = "fields are PyTorch's arguments")]
pub enum Call {
    /// The same numbers in the same order.
    Reshape { shape: Vec<Length> },
    /// Axes of length 1 are repeated.
    Expand { shape: Vec<Length> },
    /// Axis i of the result is axis `dims[i]`.
    Permute { dims: Vec<usize> },
    /// Every `step`-th index of an axis from `start` to before `end`.
    Slice { dim: usize, start: usize, end: Length, step: usize },
    /// One after the other along an axis.
    Cat { dim: usize },
    /// Shifted around in circles.
    Roll { shifts: Vec<i64>, dims: Vec<usize> },
    /// The other way round.
    Flip { dims: Vec<usize> },
    /// The first input at the indices in the others, one for each axis of which `of` is true.
    Index { of: Vec<bool> },
    /// The first input along an axis at the indices in the second.
    Gather { dim: usize },
    /// A border, or a cut where negative; from the last axis, before and behind.
    Pad { pad: Vec<i64>, mode: Padding, value: f64 },
    /// Matrix product of the last two axes.
    Matmul,
    /// By a formula such as `bhid,bhjd->bhij`.
    Einsum { equation: String },
    /// Of the last axis, weight `[O, I]`.
    Linear { bias: bool },
    /// Over 1 to 3 axes, or transposed. Weights that are every image's own are groups, as many as there are images.
    Convolution {
        stride: Vec<usize>,
        padding: Vec<usize>,
        dilation: Vec<usize>,
        transposed: bool,
        output_padding: Vec<usize>,
        groups: Length,
        bias: bool,
    },
    /// softmax(scale · q kᵀ + mask) v, over the last two axes.
    Attention { scale: Option<f64>, causal: bool, mask: bool, grouped: bool },
    /// Positive, with sum 1 along an axis.
    Softmax { dim: usize },
    /// Its logarithm.
    LogSoftmax { dim: usize },
    /// One number for many.
    Reduce { function: Reduction, dims: Vec<usize>, keepdim: bool },
    /// Sums of all numbers so far.
    Cumsum { dim: usize },
    /// A function of each number.
    Map { function: Function },
    /// max(0, x).
    Relu,
    /// An activation of each number.
    Activate { function: Activation },
    /// `x · scale + shift` with constants.
    Affine { scale: f64, shift: f64 },
    /// x^exponent.
    Power { exponent: f64 },
    /// Cut off at bounds.
    Clamp { min: Option<f64>, max: Option<f64> },
    /// Of two tensors, number by number, repeated where an axis has length 1.
    Combine { function: Combination },
    /// Where the first input is not 0 the second, else the third.
    Where,
    /// Over the last axes; weight and bias where there are.
    LayerNorm { shape: Vec<usize>, eps: f64, weight: bool, bias: bool },
    /// Over the last axes, by the mean square.
    RmsNorm { shape: Vec<usize>, eps: Option<f64>, weight: bool },
    /// Over groups of axis 1 and all behind it.
    GroupNorm { groups: usize, eps: f64, weight: bool, bias: bool },
    /// By given means and variances of axis 1, after which come weight and bias.
    BatchNorm { eps: f64, weight: bool, bias: bool },
    /// Another size of the last one or two axes.
    Interpolate { mode: Resampling, size: Vec<usize>, align_corners: bool, scales: Option<Vec<f64>> },
    /// Features into positions.
    PixelShuffle { factor: usize },
    /// Positions into features.
    PixelUnshuffle { factor: usize },
    /// Patches as features.
    Unfold { kernel: [usize; 2], dilation: [usize; 2], padding: [usize; 2], stride: [usize; 2] },
    /// Patches added up where they overlap.
    Fold { size: [usize; 2], kernel: [usize; 2], dilation: [usize; 2], padding: [usize; 2], stride: [usize; 2] },
    /// Over one or two axes.
    AdaptiveAvgPool { size: Vec<usize> },
    /// Over one or two axes.
    AdaptiveMaxPool { size: Vec<usize> },
    /// Over one or two axes.
    AvgPool { kernel: Vec<usize>, stride: Vec<usize>, padding: Vec<usize>, ceil_mode: bool, count_include_pad: bool },
    /// Over one or two axes.
    MaxPool { kernel: Vec<usize>, stride: Vec<usize>, padding: Vec<usize>, dilation: Vec<usize>, ceil_mode: bool },
    /// Long short-term memory over axis 1 of `[B, T, C]`, from a state of zeros; four tensors per layer and direction.
    Lstm { layers: usize, bias: bool, bidirectional: bool },
}

/// What fills a border.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "PyTorch's modes")]
pub enum Padding {
    Constant,
    Reflect,
    Replicate,
    Circular,
}

/// One number for many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "PyTorch's functions")]
pub enum Reduction {
    Mean,
    Sum,
    Amax,
    Amin,
    Prod,
    /// Of the population.
    Var,
    /// Of a sample: divided by n − 1.
    SampleVar,
    /// Of the population.
    Std,
    /// Of a sample.
    SampleStd,
    /// √Σx².
    Norm,
    /// Σ|x|.
    Norm1,
    Logsumexp,
}

/// A function of each number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "PyTorch's functions")]
pub enum Function {
    Exp,
    Expm1,
    Log,
    Log1p,
    Sqrt,
    Rsqrt,
    Reciprocal,
    Sin,
    Cos,
    Erf,
    Sign,
    Floor,
    Ceil,
    Round,
    LogicalNot,
}

/// A function of two numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "PyTorch's functions")]
pub enum Combination {
    Add,
    Sub,
    Mul,
    Div,
    Pow,
    Maximum,
    Minimum,
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
}

/// How numbers are found between positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "PyTorch's modes")]
pub enum Resampling {
    Nearest,
    NearestExact,
    Linear,
    Bilinear,
    Bicubic,
}

impl Call {
    /// PyTorch's name.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Reshape { .. } => "reshape",
            Self::Expand { .. } => "expand",
            Self::Permute { .. } => "permute",
            Self::Slice { .. } => "slice",
            Self::Cat { .. } => "cat",
            Self::Roll { .. } => "roll",
            Self::Flip { .. } => "flip",
            Self::Index { .. } => "index",
            Self::Gather { .. } => "gather",
            Self::Pad { .. } => "pad",
            Self::Matmul => "matmul",
            Self::Einsum { .. } => "einsum",
            Self::Linear { .. } => "linear",
            Self::Convolution { .. } => "convolution",
            Self::Attention { .. } => "attention",
            Self::Softmax { .. } => "softmax",
            Self::LogSoftmax { .. } => "log_softmax",
            Self::Reduce { .. } => "reduce",
            Self::Cumsum { .. } => "cumsum",
            Self::Map { .. } => "map",
            Self::Relu => "relu",
            Self::Activate { .. } => "activate",
            Self::Affine { .. } => "affine",
            Self::Power { .. } => "power",
            Self::Clamp { .. } => "clamp",
            Self::Combine { .. } => "combine",
            Self::Where => "where",
            Self::LayerNorm { .. } => "layer_norm",
            Self::RmsNorm { .. } => "rms_norm",
            Self::GroupNorm { .. } => "group_norm",
            Self::BatchNorm { .. } => "batch_norm",
            Self::Interpolate { .. } => "interpolate",
            Self::PixelShuffle { .. } => "pixel_shuffle",
            Self::PixelUnshuffle { .. } => "pixel_unshuffle",
            Self::Unfold { .. } => "unfold",
            Self::Fold { .. } => "fold",
            Self::AdaptiveAvgPool { .. } => "adaptive_avg_pool",
            Self::AdaptiveMaxPool { .. } => "adaptive_max_pool",
            Self::AvgPool { .. } => "avg_pool",
            Self::MaxPool { .. } => "max_pool",
            Self::Lstm { .. } => "lstm",
        }
    }

    /// How many tensors it reads, or at least so many where there may be more.
    fn n_inputs(&self) -> (usize, bool) {
        match self {
            Self::Reshape { .. }
            | Self::Expand { .. }
            | Self::Permute { .. }
            | Self::Slice { .. }
            | Self::Roll { .. }
            | Self::Flip { .. }
            | Self::Pad { .. }
            | Self::Softmax { .. }
            | Self::LogSoftmax { .. }
            | Self::Reduce { .. }
            | Self::Cumsum { .. }
            | Self::Map { .. }
            | Self::Relu
            | Self::Activate { .. }
            | Self::Affine { .. }
            | Self::Power { .. }
            | Self::Clamp { .. }
            | Self::Interpolate { .. }
            | Self::PixelShuffle { .. }
            | Self::PixelUnshuffle { .. }
            | Self::Unfold { .. }
            | Self::Fold { .. }
            | Self::AdaptiveAvgPool { .. }
            | Self::AdaptiveMaxPool { .. }
            | Self::AvgPool { .. }
            | Self::MaxPool { .. } => (1, false),
            Self::Cat { .. } | Self::Einsum { .. } => (1, true),
            Self::Index { of } => (1 + of.iter().filter(|x| **x).count(), false),
            Self::Gather { .. } | Self::Matmul | Self::Combine { .. } => (2, false),
            Self::Linear { bias } | Self::Convolution { bias, .. } => (2 + usize::from(*bias), false),
            Self::Attention { mask, .. } => (3 + usize::from(*mask), false),
            Self::Where => (3, false),
            Self::LayerNorm { weight, bias, .. } | Self::GroupNorm { weight, bias, .. } => {
                (1 + usize::from(*weight) + usize::from(*bias), false)
            }
            Self::RmsNorm { weight, .. } => (1 + usize::from(*weight), false),
            Self::BatchNorm { weight, bias, .. } => (3 + usize::from(*weight) + usize::from(*bias), false),
            Self::Lstm { layers, bias, bidirectional } => {
                let per_layer = if *bias { 4 } else { 2 };
                (layers.saturating_mul(per_layer << usize::from(*bidirectional)).saturating_add(1), false)
            }
        }
    }

    /// # Errors
    /// Where it cannot read so many tensors, or weights of such shapes.
    pub fn check_inputs(&self, inputs: &[&[usize]]) -> Result<(), String> {
        let (n, more) = self.n_inputs();
        let found = inputs.len();
        if let (Self::Lstm { .. }, [_, weight, recurrent, ..]) = (self, inputs)
            && (weight.len(), recurrent.len()) != (2, 2)
        {
            return Err(format!("the weights {weight:?} and {recurrent:?} of an LSTM must have two axes each"));
        }
        if let Self::Lstm { layers: 0, .. } = self {
            return Err("an LSTM of 0 layers".into());
        }
        if found == n || more && found > n {
            return Ok(());
        }
        Err(format!("{} needs {n}{} tensors, has {found}", self.kind(), if more { " or more" } else { "" }))
    }

    /// Whether it commutes with linear maps of features, where it works along positions.
    #[must_use]
    pub(super) fn is_linear(&self) -> bool {
        match self {
            Self::Reshape { .. }
            | Self::Permute { .. }
            | Self::Expand { .. }
            | Self::Slice { .. }
            | Self::Roll { .. }
            | Self::Flip { .. }
            | Self::Cumsum { .. }
            | Self::Interpolate { .. }
            | Self::AdaptiveAvgPool { .. }
            | Self::AvgPool { .. } => true,
            Self::Pad { mode, value, .. } => *mode != Padding::Constant || *value == 0.0,
            Self::Reduce { function, .. } => matches!(function, Reduction::Mean | Reduction::Sum),
            _ => false,
        }
    }

    /// Whether what it makes has the positions it read, in whatever order, and no others.
    #[must_use]
    pub(super) fn keeps_positions(&self) -> bool {
        matches!(self, Self::Reshape { .. } | Self::Permute { .. } | Self::Roll { .. } | Self::Flip { .. })
    }

    /// Checks that it works along the positions of `[B, C, …]` and leaves images and features where they are.
    ///
    /// # Errors
    /// The reason why it does not.
    pub(super) fn check_positions(&self, given: &[usize]) -> Result<(), String> {
        let behind = |dims: &[usize]| dims.iter().all(|&dim| (2..=given.len()).contains(&dim));
        let kept = |shape: &[Length]| matches!(shape, [Length::PerImage { per_image: 1 }, Length::Fixed(c), ..] if *c == given[0]);
        let fits = match self {
            Self::Reshape { shape } | Self::Expand { shape } => kept(shape),
            Self::Permute { dims } => dims.starts_with(&[0, 1]),
            Self::Slice { dim, .. } | Self::Cumsum { dim } | Self::Softmax { dim } => behind(&[*dim]),
            Self::Roll { dims, .. } | Self::Flip { dims } | Self::Reduce { dims, .. } => behind(dims),
            Self::Pad { pad, .. } => pad.len() / 2 < given.len(),
            Self::Interpolate { size, .. } | Self::AdaptiveAvgPool { size } | Self::AdaptiveMaxPool { size } => {
                size.len() + 1 == given.len()
            }
            Self::AvgPool { kernel, .. } | Self::MaxPool { kernel, .. } => kernel.len() + 1 == given.len(),
            _ => false,
        };
        if fits { Ok(()) } else { Err(format!("{self} of {given:?} is no function of the positions alone")) }
    }

    /// The same for another number of features, where it names that.
    #[must_use]
    pub(crate) fn with_features(mut self, n: usize) -> Self {
        if let Self::Reshape { shape } | Self::Expand { shape } = &mut self
            && let Some(features) = shape.get_mut(1)
        {
            *features = Length::Fixed(n);
        }
        self
    }

    /// Multiply-adds for one image, where it is one of those that papers count; shapes are for one image.
    #[must_use]
    pub fn macs(&self, inputs: &[&[usize]], made: &[usize]) -> Option<u64> {
        let volume = |shape: &[usize]| shape.iter().try_fold(1_u64, |all, &n| all.checked_mul(n as u64));
        let last = |shape: &[usize]| shape.last().map_or(1, |&n| n as u64);
        match self {
            Self::Matmul | Self::Linear { .. } => volume(made)?.checked_mul(last(inputs[0])),
            Self::Convolution { transposed, .. } => {
                let weight = inputs[1];
                let per_number = volume(weight.get(1..)?)?;
                volume(if *transposed { inputs[0] } else { made })?.checked_mul(per_number)
            }
            Self::Attention { .. } => {
                let queries = volume(inputs[0])? / last(inputs[0]).max(1);
                let keys = inputs[1].len().checked_sub(2).map_or(1, |axis| inputs[1][axis] as u64);
                queries.checked_mul(keys)?.checked_mul(last(inputs[0]) + last(inputs[2]))
            }
            Self::Einsum { equation } => einsum_macs(equation, inputs),
            Self::Lstm { .. } => {
                let steps = *inputs[0].get(inputs[0].len().checked_sub(2)?)? as u64;
                let sequences = volume(inputs[0])? / (steps * last(inputs[0])).max(1);
                let weights = inputs[1..].iter().filter(|shape| shape.len() == 2).map(|shape| volume(shape));
                let all = weights.sum::<Option<u64>>()?;
                all.checked_mul(steps)?.checked_mul(sequences)
            }
            _ => Some(0),
        }
    }
}

/// Products of all letters' lengths.
fn einsum_macs(equation: &str, inputs: &[&[usize]]) -> Option<u64> {
    let terms = equation.split("->").next()?.split(',');
    let mut lengths = std::collections::BTreeMap::new();
    for (term, shape) in terms.zip(inputs) {
        let letters = term.chars().filter(|c| c.is_alphabetic());
        letters.zip(shape.iter()).for_each(|(letter, &n)| {
            let known = lengths.entry(letter).or_insert(n);
            *known = n.max(*known);
        });
    }
    lengths.values().try_fold(1_u64, |all, &n| all.checked_mul(n as u64))
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind())?;
        match self {
            Self::Einsum { equation } => write!(f, " {equation}"),
            Self::Activate { function } => write!(f, " {function}"),
            Self::Map { function } => write!(f, " {function:?}"),
            Self::Combine { function } => write!(f, " {function:?}"),
            Self::Reduce { function, dims, .. } => write!(f, " {function:?} of axes {dims:?}"),
            _ => Ok(()),
        }
    }
}
