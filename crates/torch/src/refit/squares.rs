//! Sums of products of every two numbers that a layer's outputs are sums of.

use super::offsets::{SAMPLES, numbers};
use crate::Result;
use tch::{Kind, Tensor};

/// Samples of so few numbers are narrow: many sums are made of them in one call, of whole squares.
pub(super) const NARROW: i64 = 128;
/// Of so many sums in f32 each is moved by itself.
const FEW: i64 = 2;

/// Rows of Σxxᵀ of a group, from the `first` on, each from that column on.
pub(super) struct Strip {
    pub group: usize,
    pub first: usize,
    pub width: usize,
    pub numbers: Numbers,
}

/// Sums of few samples are as good in f32, and many of them take half the time to move.
pub(super) enum Numbers {
    F32(Vec<f32>),
    F64(Vec<f64>),
}

impl Strip {
    /// Sums of squares: where one is finite, so are the sums of products.
    pub fn diagonal(&self) -> Vec<f64> {
        let step = self.width + 1;
        match &self.numbers {
            Numbers::F32(rows) => rows.iter().step_by(step).map(|&x| f64::from(x)).collect(),
            Numbers::F64(rows) => rows.iter().step_by(step).copied().collect(),
        }
    }
}

/// Σxxᵀ of samples that come in parts.
pub(super) enum Squares {
    /// Of narrow samples and of several groups, `[G, F, F]`.
    Whole(Tensor),
    /// The upper triangle in strips of rows, in f64.
    Upper(Vec<(i64, Tensor)>),
    /// The same of each part in f32, where there are few.
    Parts(i64, Vec<Strip>),
}

impl Squares {
    pub fn new(g: i64, n: i64, f: i64, device: tch::Device) -> Result<Self> {
        let zeros = |shape: &[i64]| Tensor::f_zeros(shape, (Kind::Double, device));
        if g > 1 || f <= NARROW {
            return Ok(Self::Whole(zeros(&[g, f, f])?));
        }
        if n <= FEW * SAMPLES {
            return Ok(Self::Parts(f, vec![]));
        }
        let strip = |(from, height): (i64, i64)| Ok((from, zeros(&[height, f - from])?));
        Ok(Self::Upper(strips(f).map(strip).collect::<Result<_>>()?))
    }

    /// Of x `[parts, samples, F]` of one group, or `[G, samples, F]`.
    pub fn add(&mut self, x: &Tensor) -> Result<()> {
        let of_strip = |from: i64, height: i64| -> Result<Tensor> {
            let x = x.f_squeeze_dim(0)?;
            let right = x.f_narrow(1, from, x.size()[1] - from)?;
            Ok(x.f_narrow(1, from, height)?.f_tr()?.f_mm(&right)?)
        };
        match self {
            Self::Whole(sum) => {
                let products = x.f_transpose(1, 2)?.f_bmm(x)?;
                let all =
                    if sum.size()[0] == 1 { products.f_sum_dim_intlist(0, true, Kind::Double)? } else { products };
                let _ = sum.f_add_(&all)?;
            }
            Self::Upper(sums) => {
                for (from, sum) in sums {
                    let _ = sum.f_add_(&of_strip(*from, sum.size()[0])?)?;
                }
            }
            Self::Parts(f, parts) => {
                for (from, height) in strips(*f) {
                    let numbers = Numbers::F32(numbers(&of_strip(from, height)?)?);
                    parts.push(Strip { group: 0, first: from as usize, width: (*f - from) as usize, numbers });
                }
            }
        }
        Ok(())
    }

    pub fn strips(self) -> Result<Vec<Strip>> {
        let strip = |group: usize, first: usize, sum: &Tensor| {
            Ok(Strip { group, first, width: sum.size()[1] as usize, numbers: Numbers::F64(numbers(sum)?) })
        };
        match self {
            Self::Whole(sums) => (0..sums.size()[0]).map(|g| strip(g as usize, 0, &sums.f_get(g)?)).collect(),
            Self::Upper(sums) => sums.iter().map(|(from, sum)| strip(0, *from as usize, sum)).collect(),
            Self::Parts(_, parts) => Ok(parts),
        }
    }
}

/// The first row of each strip and its height.
fn strips(f: i64) -> impl Iterator<Item = (i64, i64)> {
    let height = (f / 8).max(64);
    (0..f).step_by(height as usize).map(move |from| (from, height.min(f - from)))
}
