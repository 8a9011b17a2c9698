//! Sliding windows.

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
