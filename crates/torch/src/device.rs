//! Where a network runs, and which LibTorch runs it.

use crate::{Error, Result};
use std::fmt;
use std::str::FromStr;

/// A place to compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Device {
    /// The processor.
    #[default]
    Cpu,
    /// An NVIDIA GPU, by index.
    Cuda(usize),
}

impl Device {
    /// Checks that LibTorch can compute there.
    ///
    /// # Errors
    /// [`Error::Device`] saying what this LibTorch sees instead.
    pub fn check(self) -> Result<()> {
        let Self::Cuda(index) = self else { return Ok(()) };
        let n_devices = usize::try_from(tch::Cuda::device_count()).unwrap_or(0);
        if n_devices == 0 {
            return Err(Error::Device(format!(
                "{self} was asked for, but this LibTorch ({}) sees no CUDA device; use `cpu`, or point LIBTORCH to a \
                 CUDA build and build again",
                libtorch_version()
            )));
        }
        if index >= n_devices {
            return Err(Error::Device(format!(
                "{self} was asked for, but LibTorch sees {n_devices} CUDA device(s), numbered from 0"
            )));
        }
        Ok(())
    }

    pub(crate) fn tch(self) -> tch::Device {
        match self {
            Self::Cpu => tch::Device::Cpu,
            Self::Cuda(index) => tch::Device::Cuda(index),
        }
    }
}

impl FromStr for Device {
    type Err = Error;

    /// `cpu`, `cuda` (the first one) or `cuda:INDEX`.
    fn from_str(text: &str) -> Result<Self> {
        match text {
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(0)),
            _ => text
                .strip_prefix("cuda:")
                .and_then(|index| index.parse().ok())
                .map(Self::Cuda)
                .ok_or_else(|| Error::Device(format!("`{text}` is no device: use `cpu`, `cuda` or `cuda:0`"))),
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(index) => write!(f, "cuda:{index}"),
        }
    }
}

/// Whether LibTorch has fast kernels for bf16 there: on a processor oneDNN's need AVX-512, and without them a convolution
/// takes many times as long as in f32.
#[must_use]
pub fn multiplies_bf16(device: Device) -> bool {
    match device {
        Device::Cuda(_) => true,
        Device::Cpu => processor_multiplies_bf16(),
    }
}

#[cfg(target_arch = "x86_64")]
fn processor_multiplies_bf16() -> bool {
    is_x86_feature_detected!("avx512bw") && is_x86_feature_detected!("avx512vl") && is_x86_feature_detected!("avx512dq")
}

#[cfg(target_arch = "aarch64")]
fn processor_multiplies_bf16() -> bool {
    std::arch::is_aarch64_feature_detected!("bf16")
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn processor_multiplies_bf16() -> bool {
    false
}

/// Version of the LibTorch this build was compiled against (`2.11.0`, `2.11.0+cu130`), or `unknown`.
#[must_use]
pub fn libtorch_version() -> &'static str {
    env!("ZIPIT_LIBTORCH_VERSION")
}

/// Sets LibTorch's threads within one operation, for operations started from the calling thread. Work that this crate
/// spreads over batches always uses one thread per operation, whatever is set here.
pub fn set_intra_op_threads(n_threads: usize) {
    tch::set_num_threads(i32::try_from(n_threads.max(1)).unwrap_or(i32::MAX));
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_written_back() {
        for (text, device) in [("cpu", Device::Cpu), ("cuda:0", Device::Cuda(0)), ("cuda:12", Device::Cuda(12))] {
            assert_eq!(text.parse::<Device>().unwrap(), device);
            assert_eq!(device.to_string(), text);
        }
        assert_eq!("cuda".parse::<Device>().unwrap(), Device::Cuda(0));
        for wrong in ["", "gpu", "cuda:", "cuda:x", "CPU", "cuda:-1"] {
            let message = wrong.parse::<Device>().unwrap_err().to_string();
            assert!(message.contains("`cpu`, `cuda` or `cuda:0`"), "{message}");
        }
    }

    #[test]
    fn an_absent_gpu_is_said() {
        Device::Cpu.check().unwrap();
        let message = Device::Cuda(4096).check().unwrap_err().to_string();
        assert!(message.contains("cuda:4096 was asked for"), "{message}");
    }

    #[test]
    fn the_version_is_the_pinned_one() {
        assert!(libtorch_version().starts_with("2.11."), "{}", libtorch_version());
    }
}
