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
    /// λ·(max(0, x) + α·(e^min(0, x) − 1)), λ = 1.0507…, α = 1.6732….
    Selu,
    /// max(0, x) + alpha·(e^(min(0, x) / alpha) − 1).
    Celu(f64),
    /// min(max(x, low), high).
    Hardtanh(f64, f64),
    /// x where x > threshold, else value: (threshold, value).
    Threshold(f64, f64),
    /// x / (1 + |x|).
    Softsign,
    /// log σ(x).
    LogSigmoid,
    /// x where |x| > lambda, else 0.
    Hardshrink(f64),
    /// x − lambda above lambda, x + lambda below −lambda, else 0.
    Softshrink(f64),
    /// x − tanh(x).
    Tanhshrink,
    /// |x|.
    Abs,
}

impl Activation {
    /// The numbers that come with the function, where some do.
    #[must_use]
    pub fn numbers(self) -> Vec<f64> {
        match self {
            Self::LeakyRelu(x) | Self::Elu(x) | Self::Celu(x) | Self::Hardshrink(x) | Self::Softshrink(x) => vec![x],
            Self::Hardtanh(x, y) | Self::Threshold(x, y) => vec![x, y],
            Self::Relu6
            | Self::Gelu
            | Self::GeluTanh
            | Self::Silu
            | Self::Sigmoid
            | Self::Hardsigmoid
            | Self::Hardswish
            | Self::Tanh
            | Self::Mish
            | Self::Softplus
            | Self::Selu
            | Self::Softsign
            | Self::LogSigmoid
            | Self::Tanhshrink
            | Self::Abs => vec![],
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
            Self::Selu => "SELU",
            Self::Celu(_) => "CELU",
            Self::Hardtanh(..) => "Hardtanh",
            Self::Threshold(..) => "Threshold",
            Self::Softsign => "Softsign",
            Self::LogSigmoid => "LogSigmoid",
            Self::Hardshrink(_) => "Hardshrink",
            Self::Softshrink(_) => "Softshrink",
            Self::Tanhshrink => "Tanhshrink",
            Self::Abs => "Abs",
        }
    }
}

impl fmt::Display for Activation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind())?;
        self.numbers().iter().try_for_each(|number| write!(f, " {number}"))
    }
}
