//! In which type the stages that make models store the numbers: `--dtype`.

use clap::{Args, ValueEnum};
use zipit_artifact::Precision;

/// The flag.
#[derive(Debug, Clone, Copy, Args)]
pub struct PrecisionArg {
    /// How the weights are stored; computed is in f32
    #[arg(long, value_enum, default_value_t)]
    dtype: Dtype,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum Dtype {
    /// Single precision
    #[default]
    F32,
    /// Half precision, up to 65504
    F16,
    /// Half the size of f32 and its range, with 8 bits of precision
    Bf16,
    /// As most numbers of the input, or of the first of several
    Input,
}

impl PrecisionArg {
    /// What was asked for, where the first input is stored as `input`.
    #[must_use]
    pub fn given(self, input: Precision) -> Precision {
        match self.dtype {
            Dtype::F32 => Precision::F32,
            Dtype::F16 => Precision::F16,
            Dtype::Bf16 => Precision::Bf16,
            Dtype::Input => input,
        }
    }
}
