//! Random joint features: samples, and the moments measured on them.

use ndarray::{Array2, Axis};
use proptest::prelude::*;
use zipit::Moments;

/// Samples of the joint features of N models, `[samples, N·d]`.
#[derive(Debug, Clone)]
pub struct Features {
    pub n_models: usize,
    pub z: Array2<f32>,
}

impl Features {
    /// Which are constant, `[N·d]`.
    #[expect(clippy::float_cmp, reason = "a constant is the same to the bit")]
    pub fn constants(&self) -> Vec<bool> {
        self.z.columns().into_iter().map(|z| z.iter().all(|&x| x == z[0])).collect()
    }

    pub fn moments(&self) -> Moments {
        let z = &self.z;
        let mut moments = Moments::zeros(z.ncols());
        moments.add_batch(z.nrows() as u64, &z.sum_axis(Axis(0)).to_vec(), z.t().dot(z).view());
        moments
    }
}

/// Few-valued samples, so that every moment is exact in f32, with dead (0), constant (1) and duplicate features among
/// them, and sometimes fewer samples than features.
pub fn features() -> impl Strategy<Value = Features> {
    (2..=4_usize, 1..=8_usize, 2..60_usize).prop_flat_map(|(n_models, d, n_samples)| {
        let n = n_models * d;
        let entries = prop::collection::vec(-4_i8..=8, n_samples * n);
        (entries, prop::collection::vec(0..20_u8, n)).prop_map(move |(entries, kinds)| {
            let mut z = Array2::from_shape_fn((n_samples, n), |(s, k)| f32::from(entries[s * n + k].max(0)));
            for (k, kind) in kinds.into_iter().enumerate() {
                match kind {
                    0 | 1 => z.column_mut(k).fill(f32::from(kind)),
                    2 | 3 if k > 0 => {
                        let copied = z.column(k / 2).to_owned();
                        z.column_mut(k).assign(&(copied * f32::from(kind - 1)));
                    }
                    _ => {}
                }
            }
            Features { n_models, z }
        })
    })
}
