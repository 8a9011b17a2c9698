//! The smallest and the largest number that every feature of a value takes: what tells a constant from a feature that
//! varies little.

use crate::graph::Read;
use crate::{Error, Result};

/// min z and max z of the C features of a value in each of N models, over images and positions. Parts add exactly, in
/// any order.
#[derive(Debug, Clone, PartialEq)]
pub struct Extent {
    /// `[N·C]`, model after model; +∞ before anything was seen.
    pub low: Vec<f32>,
    /// `[N·C]`; −∞ before anything was seen.
    pub high: Vec<f32>,
}

impl Extent {
    /// Nothing seen of `n` = N·C features.
    #[must_use]
    pub fn none(n: usize) -> Self {
        Self { low: vec![f32::INFINITY; n], high: vec![f32::NEG_INFINITY; n] }
    }

    /// Adds what was seen on other images.
    ///
    /// # Errors
    /// When the other one is of another number of features.
    pub fn merge(&mut self, other: &Self) -> Result<()> {
        if [self.high.len(), other.low.len(), other.high.len()].iter().any(|&n| n != self.low.len()) {
            return Err(Error::Numbers(format!(
                "ranges of {} features cannot be added to ranges of {}",
                other.low.len(),
                self.low.len()
            )));
        }
        // Of 0 and −0 either may be taken for the smaller: both are 0, so that the order of parts does not matter.
        self.low.iter_mut().zip(&other.low).for_each(|(low, &x)| *low = low.min(x) + 0.0);
        self.high.iter_mut().zip(&other.high).for_each(|(high, &x)| *high = high.max(x) + 0.0);
        Ok(())
    }

    /// Checks that every feature has a range of finite numbers.
    ///
    /// # Errors
    /// [`Error::Numbers`], naming `value`.
    pub fn validate(&self, value: &str) -> Result<()> {
        let sound = |(&low, &high): (&f32, &f32)| low.is_finite() && high.is_finite() && low <= high;
        match self.low.iter().zip(&self.high).position(|range| !sound(range)) {
            _ if self.low.len() != self.high.len() => Err(Error::Numbers(format!(
                "`{value}`: {} lower ends of ranges and {} upper ones",
                self.low.len(),
                self.high.len()
            ))),
            Some(i) => Err(Error::Numbers(format!(
                "`{value}`: feature {i} is said to lie between {} and {}",
                self.low[i], self.high[i]
            ))),
            None => Ok(()),
        }
    }

    /// The ranges of a space's features `[N·d]`, of the value's in `n_models` models.
    ///
    /// # Panics
    /// When the value has fewer features than the read says.
    #[must_use]
    pub fn of(&self, read: &Read, n_models: usize) -> Self {
        let (n, d) = (self.low.len() / n_models, read.at.len() / read.repeat);
        let mut own = Self::none(n_models * d);
        for model in 0..n_models {
            for (k, &at) in read.at.iter().enumerate() {
                let (to, from) = (model * d + k / read.repeat, model * n + at);
                own.low[to] = own.low[to].min(self.low[from]);
                own.high[to] = own.high[to].max(self.high[from]);
            }
        }
        own
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn ranges_add_and_are_picked() {
        let mut all = Extent::none(4);
        assert!(all.validate("v").unwrap_err().to_string().contains("`v`: feature 0"));
        all.merge(&Extent { low: vec![0.0, -1.0, 2.0, 5.0], high: vec![0.0, 1.0, 2.0, 6.0] }).unwrap();
        all.merge(&Extent { low: vec![0.0, -3.0, 2.0, 5.0], high: vec![0.5, 0.0, 2.0, 7.0] }).unwrap();
        assert_eq!(all, Extent { low: vec![0.0, -3.0, 2.0, 5.0], high: vec![0.5, 1.0, 2.0, 7.0] });
        assert_eq!(all.validate("v"), Ok(()));
        assert!(all.merge(&Extent::none(3)).is_err());
        let zeros = |sign: f32| Extent { low: vec![0.0 * sign], high: vec![0.0 * sign] };
        for signs in [[1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]] {
            let mut sum = Extent::none(1);
            for sign in signs {
                sum.merge(&zeros(sign)).unwrap();
            }
            assert!([sum.low[0], sum.high[0]].iter().all(|x| x.is_sign_positive()), "{signs:?}");
        }
        // Two models of two numbers; the second number is the space's feature, or both are.
        let read = |at: Vec<usize>, repeat| Read { value: "v".into(), at, repeat };
        assert_eq!(all.of(&read(vec![1], 1), 2), Extent { low: vec![-3.0, 5.0], high: vec![1.0, 7.0] });
        assert_eq!(all.of(&read(vec![0, 1], 2), 2), Extent { low: vec![-3.0, 2.0], high: vec![1.0, 7.0] });
    }
}
