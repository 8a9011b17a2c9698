//! Functions of a single number.

use serde::{Deserialize, Serialize};
use std::fmt;

/// An activation function, under PyTorch's name.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// min(max(0, x), 6).
    Relu6,
    /// x·Φ(x).
    Gelu,
    /// GELU by its approximation with tanh.
    GeluTanh,
    /// x·σ(x).
    Silu,
    /// σ(x) = 1 / (1 + e⁻ˣ).
    Sigmoid,
    /// min(max(0, x + 3), 6) / 6.
    Hardsigmoid,
    /// x·hardsigmoid(x).
    Hardswish,
    /// Hyperbolic tangent.
    Tanh,
    /// x·tanh(softplus(x)).
    Mish,
    /// log(1 + eˣ).
    Softplus,
    /// max(0, x) + slope·min(0, x).
    LeakyRelu(f64),
    /// max(0, x) + alpha·(e^min(0, x) − 1).
    Elu(f64),
}

impl Activation {
    /// The number that comes with the function, where one does.
    #[must_use]
    pub fn number(self) -> Option<f64> {
        match self {
            Self::LeakyRelu(x) | Self::Elu(x) => Some(x),
            Self::Relu6
            | Self::Gelu
            | Self::GeluTanh
            | Self::Silu
            | Self::Sigmoid
            | Self::Hardsigmoid
            | Self::Hardswish
            | Self::Tanh
            | Self::Mish
            | Self::Softplus => None,
        }
    }

    /// What the field calls it.
    #[must_use]
    pub fn kind(self) -> &'static str {
        match self {
            Self::Relu6 => "ReLU6",
            Self::Gelu => "GELU",
            Self::GeluTanh => "GELU (tanh)",
            Self::Silu => "SiLU",
            Self::Sigmoid => "Sigmoid",
            Self::Hardsigmoid => "Hardsigmoid",
            Self::Hardswish => "Hardswish",
            Self::Tanh => "Tanh",
            Self::Mish => "Mish",
            Self::Softplus => "Softplus",
            Self::LeakyRelu(_) => "LeakyReLU",
            Self::Elu(_) => "ELU",
        }
    }
}

impl fmt::Display for Activation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind())?;
        self.number().map_or(Ok(()), |number| write!(f, " {number}"))
    }
}
