//! What a node can compute. Matched exhaustively everywhere, so that the compiler lists what a new op needs.

use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fmt;

/// A sliding window over the two spatial axes, PyTorch's meaning of each word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Window {
    /// Height and width.
    pub kernel: [usize; 2],
    /// Step.
    pub stride: [usize; 2],
    /// Implicit border on both sides.
    pub padding: [usize; 2],
    /// Distance between taps.
    #[serde(default = "one_one")]
    pub dilation: [usize; 2],
    /// Whether a last partial window counts (pooling only).
    #[serde(default)]
    pub ceil_mode: bool,
}

fn one_one() -> [usize; 2] {
    [1, 1]
}

impl Window {
    /// A square window without dilation.
    #[must_use]
    pub fn square(kernel: usize, stride: usize, padding: usize) -> Self {
        Self { kernel: [kernel; 2], stride: [stride; 2], padding: [padding; 2], dilation: [1, 1], ceil_mode: false }
    }

    /// Output height and width for an input of `size`, or `None` where the window does not fit.
    #[must_use]
    pub fn output(&self, size: [usize; 2]) -> Option<[usize; 2]> {
        let mut out = [0; 2];
        for axis in 0..2 {
            let span = self.dilation[axis] * (self.kernel[axis].checked_sub(1)?) + 1;
            let free = (size[axis] + 2 * self.padding[axis]).checked_sub(span)?;
            let stride = self.stride[axis];
            if stride == 0 {
                return None;
            }
            out[axis] = free / stride + 1;
            // PyTorch: a partial window must start inside the input or its left padding.
            if self.ceil_mode && free % stride != 0 && out[axis] * stride < size[axis] + self.padding[axis] {
                out[axis] += 1;
            }
        }
        Some(out)
    }
}

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

/// One operation on `[B, C, H, W]` or `[B, F]` values.
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
    /// Fully connected, weight `[O, I]`.
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
    /// max(0, x).
    Relu,
    /// Max pooling.
    MaxPool2d {
        /// The window.
        window: Window,
    },
    /// Average pooling; padding counts as zeros (PyTorch's `count_include_pad=True`).
    AvgPool2d {
        /// The window; dilation is unused.
        window: Window,
    },
    /// Average pooling to a given size.
    AdaptiveAvgPool2d {
        /// Output height and width.
        output: [usize; 2],
    },
    /// `[B, C, H, W]` → `[B, C·H·W]`.
    Flatten,
    /// Element-wise sum of two or more values.
    Add,
    /// Concatenation along the channel (or feature) axis.
    Concat,
}

impl Op {
    /// Whether the weight takes features of one space to features of another; else every parameter has one entry, or
    /// one kernel, per feature.
    #[must_use]
    pub fn mixes(&self) -> bool {
        match self {
            Self::Conv2d { groups, .. } => *groups == 1,
            Self::Linear { .. } => true,
            Self::BatchNorm2d { .. }
            | Self::Relu
            | Self::MaxPool2d { .. }
            | Self::AvgPool2d { .. }
            | Self::AdaptiveAvgPool2d { .. }
            | Self::Flatten
            | Self::Add
            | Self::Concat => false,
        }
    }

    /// What the field calls it.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Conv2d { .. } => "Conv2d",
            Self::Linear { .. } => "Linear",
            Self::BatchNorm2d { .. } => "BatchNorm2d",
            Self::Relu => "ReLU",
            Self::MaxPool2d { .. } => "MaxPool2d",
            Self::AvgPool2d { .. } => "AvgPool2d",
            Self::AdaptiveAvgPool2d { .. } => "AdaptiveAvgPool2d",
            Self::Flatten => "Flatten",
            Self::Add => "Add",
            Self::Concat => "Concat",
        }
    }

    /// Parameters and buffers, in PyTorch's order.
    #[must_use]
    pub fn params(&self) -> Vec<Param> {
        let learned = |name, shape| Param { name, shape, learned: true };
        let buffer = |name, shape| Param { name, shape, learned: false };
        match *self {
            Self::Conv2d { in_channels, out_channels, window, groups, bias } => {
                let [kh, kw] = window.kernel;
                let mut params =
                    vec![learned("weight", vec![out_channels, in_channels.checked_div(groups).unwrap_or(0), kh, kw])];
                if bias {
                    params.push(learned("bias", vec![out_channels]));
                }
                params
            }
            Self::Linear { in_features, out_features, bias } => {
                let mut params = vec![learned("weight", vec![out_features, in_features])];
                if bias {
                    params.push(learned("bias", vec![out_features]));
                }
                params
            }
            Self::BatchNorm2d { num_features: c, .. } => vec![
                learned("weight", vec![c]),
                learned("bias", vec![c]),
                buffer("running_mean", vec![c]),
                buffer("running_var", vec![c]),
            ],
            Self::Relu
            | Self::MaxPool2d { .. }
            | Self::AvgPool2d { .. }
            | Self::AdaptiveAvgPool2d { .. }
            | Self::Flatten
            | Self::Add
            | Self::Concat => vec![],
        }
    }

    /// A layer in the sense of "ResNet-20 has 20 layers": it mixes features by a weight matrix.
    #[must_use]
    pub fn is_weight_layer(&self) -> bool {
        match self {
            Self::Conv2d { .. } | Self::Linear { .. } => true,
            Self::BatchNorm2d { .. }
            | Self::Relu
            | Self::MaxPool2d { .. }
            | Self::AvgPool2d { .. }
            | Self::AdaptiveAvgPool2d { .. }
            | Self::Flatten
            | Self::Add
            | Self::Concat => false,
        }
    }

    /// Shape of the value it makes from values of `inputs` shapes, all without the batch.
    ///
    /// # Errors
    /// The reason why the inputs do not fit.
    pub fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        let one = || match inputs {
            [only] => Ok(*only),
            _ => Err(format!("needs one input, has {}", inputs.len())),
        };
        let image = || match one()? {
            &[c, h, w] => Ok((c, [h, w])),
            other => Err(format!("needs a [C, H, W] value, is given {other:?}")),
        };
        let slide = |window: &Window, size: [usize; 2]| {
            window.output(size).ok_or_else(|| {
                format!(
                    "a {}×{} window does not fit {}×{} positions: the image is too small for this network",
                    window.kernel[0], window.kernel[1], size[0], size[1]
                )
            })
        };
        match self {
            Self::Conv2d { in_channels, out_channels, window, groups, .. } => {
                let (c, size) = image()?;
                if c != *in_channels {
                    return Err(format!("expects {in_channels} channels, is given {c}"));
                }
                if *groups == 0 || !in_channels.is_multiple_of(*groups) || !out_channels.is_multiple_of(*groups) {
                    return Err(format!(
                        "{groups} groups do not divide {in_channels} input and {out_channels} output channels"
                    ));
                }
                let [h, w] = slide(window, size)?;
                Ok(vec![*out_channels, h, w])
            }
            Self::Linear { in_features, out_features, .. } => match one()? {
                [f] if f == in_features => Ok(vec![*out_features]),
                other => Err(format!("expects [{in_features}] features, is given {other:?}")),
            },
            Self::BatchNorm2d { num_features, .. } => {
                let (c, [h, w]) = image()?;
                if c != *num_features {
                    return Err(format!("expects {num_features} channels, is given {c}"));
                }
                Ok(vec![c, h, w])
            }
            Self::Relu => Ok(one()?.to_vec()),
            Self::MaxPool2d { window } | Self::AvgPool2d { window } => {
                let (c, size) = image()?;
                let [h, w] = slide(window, size)?;
                Ok(vec![c, h, w])
            }
            Self::AdaptiveAvgPool2d { output } => {
                let (c, _) = image()?;
                Ok(vec![c, output[0], output[1]])
            }
            Self::Flatten => Ok(vec![one()?.iter().product()]),
            Self::Add => {
                let (first, rest) = inputs.split_first().ok_or("needs at least one input")?;
                match rest.iter().find(|shape| *shape != first) {
                    Some(other) => Err(format!("adds {first:?} and {other:?}")),
                    None => Ok(first.to_vec()),
                }
            }
            Self::Concat => {
                let (first, rest) = inputs.split_first().ok_or("needs at least one input")?;
                let mut shape = first.to_vec();
                for other in rest {
                    if other.len() != shape.len() || other[1..] != shape[1..] {
                        return Err(format!("concatenates {first:?} and {other:?}"));
                    }
                    shape[0] += other[0];
                }
                Ok(shape)
            }
        }
    }

    pub(crate) fn error(&self, node: &str, reason: impl Into<String>) -> Error {
        Error::Node { node: node.to_owned(), op: self.kind(), reason: reason.into() }
    }
}

/// One line for people: `Conv2d 16→32, 3×3, stride 2, padding 1`.
impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
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
            Self::MaxPool2d { window } | Self::AvgPool2d { window } => write!(f, " {window}"),
            Self::AdaptiveAvgPool2d { output: [h, w] } => write!(f, " to {h}×{w}"),
            Self::Relu | Self::Flatten | Self::Add | Self::Concat => Ok(()),
        }
    }
}

/// `3×3, stride 2, padding 1`; what is at its default is left out.
impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pair = |[a, b]: [usize; 2]| if a == b { a.to_string() } else { format!("{a}×{b}") };
        write!(f, "{}×{}", self.kernel[0], self.kernel[1])?;
        for (word, value, default) in
            [("stride", self.stride, 1), ("padding", self.padding, 0), ("dilation", self.dilation, 1)]
        {
            if value != [default; 2] {
                write!(f, ", {word} {}", pair(value))?;
            }
        }
        f.write_str(if self.ceil_mode { ", ceil" } else { "" })
    }
}
