//! Sums of products of every two numbers that a layer's outputs are sums of, and of these with its targets.

use super::running::Running;
use crate::Result;
use crate::convert::numbers;
use tch::kind::Element;
use tch::{Kind, Tensor};

/// Samples of so few numbers are narrow: many sums are made of them in one call, of whole squares.
pub(super) const NARROW: i64 = 128;

/// Rows of Σxxᵀ of a group, from the `first` on, each from that column on.
pub(super) struct Strip {
    pub group: usize,
    pub first: usize,
    pub width: usize,
    pub numbers: Vec<f32>,
}

impl Strip {
    /// Sums of squares: where one is finite, so are the sums of products.
    pub fn diagonal(&self) -> Vec<f32> {
        self.numbers.iter().step_by(self.width + 1).copied().collect()
    }
}

/// Σxxᵀ of samples that come in parts.
pub(super) enum Squares {
    /// Of narrow samples and of several groups, `[G, F, F]`.
    Whole(Tensor),
    /// The upper triangle in strips of rows, with the first row of each.
    Upper(Vec<(i64, Running)>),
}

impl Squares {
    pub fn new(g: i64, f: i64, device: tch::Device) -> Result<Self> {
        if g > 1 || f <= NARROW {
            return Ok(Self::Whole(Tensor::f_zeros([g, f, f], (Kind::Double, device))?));
        }
        let strip = |(from, height): (i64, i64)| Ok((from, Running::zeros(height, f - from, device)?));
        Ok(Self::Upper(strips(f).map(strip).collect::<Result<_>>()?))
    }

    /// Of x `[parts, samples, F]` of one group, or `[G, samples, F]`.
    pub fn add(&mut self, x: &Tensor) -> Result<()> {
        match self {
            Self::Whole(sum) => add_products(sum, x, x)?,
            Self::Upper(sums) => {
                let x = x.f_flatten(0, 1)?;
                let f = x.size()[1];
                for ((from, height), (_, sum)) in strips(f).zip(sums) {
                    sum.add(&x.f_narrow(1, from, height)?, &x.f_narrow(1, from, f - from)?)?;
                }
            }
        }
        Ok(())
    }

    pub fn strips(self) -> Result<Vec<Strip>> {
        let strip = |group: usize, first: usize, sum: &Tensor| {
            Ok(Strip { group, first, width: sum.size()[1] as usize, numbers: numbers(sum)? })
        };
        match self {
            Self::Whole(sums) => (0..sums.size()[0]).map(|g| strip(g as usize, 0, &sums.f_get(g)?)).collect(),
            Self::Upper(sums) => sums.into_iter().map(|(from, sum)| strip(0, from as usize, &sum.sum()?)).collect(),
        }
    }
}

/// Σyxᵀ of samples that come in parts, `[G, O, F]`.
pub(super) enum Crossed {
    /// Of narrow samples and of several groups.
    Whole(Tensor),
    /// Of one group.
    Wide(Running),
}

impl Crossed {
    pub fn new(g: i64, o: i64, f: i64, device: tch::Device) -> Result<Self> {
        if g > 1 || f <= NARROW {
            return Ok(Self::Whole(Tensor::f_zeros([g, o, f], (Kind::Double, device))?));
        }
        Ok(Self::Wide(Running::zeros(o, f, device)?))
    }

    /// Of x `[parts, samples, F]` and y `[parts, samples, O]` of one group, or `[G, samples, F]` and `[G, samples, O]`.
    pub fn add(&mut self, y: &Tensor, x: &Tensor) -> Result<()> {
        match self {
            Self::Whole(sum) => add_products(sum, y, x),
            Self::Wide(sum) => sum.add(&y.f_flatten(0, 1)?, &x.f_flatten(0, 1)?),
        }
    }

    pub fn numbers<T: Element + Default + Clone>(self) -> Result<Vec<T>> {
        match self {
            Self::Whole(sum) => numbers(&sum),
            Self::Wide(sum) => numbers(&sum.sum()?),
        }
    }
}

/// Adds the products aᵀb of every part, or of every group where there are several.
fn add_products(sum: &mut Tensor, a: &Tensor, b: &Tensor) -> Result<()> {
    let products = a.f_transpose(1, 2)?.f_bmm(b)?;
    let all = if sum.size()[0] == 1 { products.f_sum_dim_intlist(0, true, Kind::Double)? } else { products };
    let _ = sum.f_add_(&all)?;
    Ok(())
}

/// The first row of each strip and its height.
fn strips(f: i64) -> impl Iterator<Item = (i64, i64)> {
    let height = (f / 8).max(64);
    (0..f).step_by(height as usize).map(move |from| (from, height.min(f - from)))
}
