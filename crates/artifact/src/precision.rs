//! In which floating-point type a model's numbers are stored. Whatever it is, they are computed with in f32.

use crate::{Error, Result};
use half::{bf16, f16};
use ndarray::ArrayD;
use safetensors::tensor::Dtype;
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use zipit::StateDict;

/// A type of floating-point numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Precision {
    /// Half: 11 bits of precision, up to 65504.
    F16,
    /// Brain float: 8 bits of precision, the range of f32.
    Bf16,
    /// Single.
    #[default]
    F32,
    /// Double. Nothing here computes weights in it; a file may hold them all the same.
    F64,
}

impl Precision {
    /// The type that holds most of the numbers, by their count of each; the wider one of two.
    #[must_use]
    pub fn mostly(counts: impl IntoIterator<Item = (Self, usize)>) -> Self {
        let mut totals: BTreeMap<Self, usize> = BTreeMap::new();
        for (precision, n) in counts {
            *totals.entry(precision).or_default() += n;
        }
        totals.into_iter().max_by_key(|&(precision, n)| (n, precision)).map_or(Self::F32, |(precision, _)| precision)
    }

    pub(crate) fn of(dtype: Dtype) -> Option<Self> {
        match dtype {
            Dtype::F16 => Some(Self::F16),
            Dtype::BF16 => Some(Self::Bf16),
            Dtype::F32 => Some(Self::F32),
            Dtype::F64 => Some(Self::F64),
            _ => None,
        }
    }

    pub(crate) fn dtype(self) -> Dtype {
        match self {
            Self::F16 => Dtype::F16,
            Self::Bf16 => Dtype::BF16,
            Self::F32 => Dtype::F32,
            Self::F64 => Dtype::F64,
        }
    }

    /// Whether a finite number becomes infinite.
    fn overflows(self, x: f32) -> bool {
        match self {
            Self::F16 => x.is_finite() && !f16::from_f32(x).is_finite(),
            Self::Bf16 => x.is_finite() && !bf16::from_f32(x).is_finite(),
            Self::F32 | Self::F64 => false,
        }
    }

    fn beyond(self, numbers: impl IntoIterator<Item = f32>) -> Option<f32> {
        if matches!(self, Self::F32 | Self::F64) {
            return None;
        }
        numbers.into_iter().find(|&x| self.overflows(x))
    }

    fn refused(self, path: &Path, found: &[String]) -> Error {
        let advice = if self == Self::F16 { "bf16 or f32" } else { "f32" };
        let found = found.join(", ");
        Error::unwritable(path, &format!("numbers that would become infinite in {self}: {found}; store it as {advice}"))
    }

    /// Refuses numbers of one tensor that this type cannot hold.
    pub(crate) fn check(self, path: &Path, name: &str, numbers: &[f32]) -> Result<()> {
        let beyond = self.beyond(numbers.iter().copied());
        beyond.map_or(Ok(()), |x| Err(self.refused(path, &[format!("`{name}` holds {x:e}")])))
    }

    /// Refuses weights that this type cannot hold.
    pub(crate) fn check_all(self, path: &Path, weights: &StateDict) -> Result<()> {
        let beyond = |tensor: &ArrayD<f32>| self.beyond(tensor.iter().copied());
        let found: Vec<String> = weights
            .iter()
            .filter_map(|(name, tensor)| beyond(tensor).map(|x| format!("`{name}` holds {x:e}")))
            .collect();
        if found.is_empty() { Ok(()) } else { Err(self.refused(path, &found)) }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::F32 => "f32",
            Self::F64 => "f64",
        })
    }
}
