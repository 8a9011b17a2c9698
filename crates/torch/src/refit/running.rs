//! Sums of products over samples, in f32 as far as that is exact enough.

use crate::Result;
use tch::{Device, Kind, Tensor};

/// Samples that are summed in f32 in one go: the longer such a sum, the more of it is rounding, on processors with short
/// vectors above all.
pub(super) const SAMPLES: i64 = 256;
/// Sums of [`SAMPLES`] that are added in f32 before they are added in f64.
const PARTS: i64 = 16;

/// Σ abᵀ, `[a, b]`.
pub(super) struct Running {
    recent: Tensor,
    n_recent: i64,
    /// Of those before, in f64.
    before: Option<Tensor>,
}

impl Running {
    pub fn zeros(a: i64, b: i64, device: Device) -> Result<Self> {
        Ok(Self { recent: Tensor::f_zeros([a, b], (Kind::Float, device))?, n_recent: 0, before: None })
    }

    /// Of samples a `[n, a]` and b `[n, b]`.
    pub fn add(&mut self, a: &Tensor, b: &Tensor) -> Result<()> {
        let n = a.size()[0];
        for from in (0..n).step_by(SAMPLES as usize) {
            if self.n_recent == PARTS {
                match &mut self.before {
                    Some(before) => drop(before.f_add_(&self.recent)?),
                    none => *none = Some(self.recent.f_to_kind(Kind::Double)?),
                }
                let _ = self.recent.f_zero_()?;
                self.n_recent = 0;
            }
            let length = SAMPLES.min(n - from);
            let _ = self.recent.f_addmm_(&a.f_narrow(0, from, length)?.f_tr()?, &b.f_narrow(0, from, length)?)?;
            self.n_recent += 1;
        }
        Ok(())
    }

    /// In f32 or f64.
    pub fn sum(self) -> Result<Tensor> {
        match self.before {
            Some(mut before) => Ok(before.f_add_(&self.recent)?),
            None => Ok(self.recent),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::convert::numbers;

    /// One call or several, of fewer samples than are added in f32 and of more, exactly: of whole numbers.
    #[test]
    fn sums_are_those_of_all_samples() {
        tch::manual_seed(1);
        for n in [1, SAMPLES, PARTS * SAMPLES, 2 * PARTS * SAMPLES + 3 * SAMPLES + 5] {
            let [a, b] = [3, 5].map(|width| Tensor::randint_low(-4, 5, [n, width], (Kind::Float, Device::Cpu)));
            let expected: Vec<f64> = numbers(&a.tr().to_kind(Kind::Double).mm(&b.to_kind(Kind::Double))).unwrap();
            for first in [n, n / 3] {
                let mut sum = Running::zeros(3, 5, Device::Cpu).unwrap();
                for (from, length) in [(0, first), (first, n - first)] {
                    sum.add(&a.narrow(0, from, length), &b.narrow(0, from, length)).unwrap();
                }
                assert_eq!(numbers::<f64>(&sum.sum().unwrap()).unwrap(), expected, "{n} samples, {first} first");
            }
        }
    }
}
