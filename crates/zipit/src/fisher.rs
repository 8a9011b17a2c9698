//! The diagonal of a network's Fisher information: how much its predictions change with each parameter.
//!
//! `F = E_x Σ_y p(y|x) (∂ log p(y|x) / ∂θ)²`, y over the network's own classes (Fisher merging, Matena & Raffel 2022, arXiv
//! 2111.09832): no labels. With labels, the empirical one has the label's class alone in place of the expectation.

use crate::{Error, Result};
use std::collections::BTreeMap;

/// Sums over images of one network's squared gradients.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Fisher {
    /// Images.
    pub count: u64,
    /// By tensor, in row-major order.
    pub sums: BTreeMap<String, Vec<f64>>,
}

impl Fisher {
    /// Nothing measured yet, of tensors with so many numbers each.
    #[must_use]
    pub fn zeros<'a>(tensors: impl IntoIterator<Item = (&'a str, usize)>) -> Self {
        let sums = tensors.into_iter().map(|(name, n)| (name.to_owned(), vec![0.0; n])).collect();
        Self { count: 0, sums }
    }

    /// Adds what was measured on other images.
    ///
    /// ```
    /// use zipit::Fisher;
    /// let mut whole = Fisher { count: 1, sums: [("w".to_owned(), vec![1.0])].into() };
    /// whole.merge(&Fisher { count: 2, sums: [("w".to_owned(), vec![5.0])].into() }).unwrap();
    /// assert_eq!(whole, Fisher { count: 3, sums: [("w".to_owned(), vec![6.0])].into() });
    /// ```
    ///
    /// # Errors
    /// When the other one is of other tensors.
    pub fn merge(&mut self, other: &Self) -> Result<()> {
        let sizes = |of: &Self| of.sums.iter().map(|(name, sums)| (name.clone(), sums.len())).collect::<Vec<_>>();
        if sizes(self) != sizes(other) {
            return Err(Error::Numbers("squared gradients of other tensors cannot be added".into()));
        }
        self.count += other.count;
        for (sums, more) in self.sums.values_mut().zip(other.sums.values()) {
            sums.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
        }
        Ok(())
    }

    /// Checks that images were seen and that no number is negative, NaN or infinite.
    ///
    /// # Errors
    /// [`Error::Numbers`], naming the tensor.
    pub fn validate(&self) -> Result<()> {
        if self.count == 0 {
            return Err(Error::Numbers("no image's gradients were measured".into()));
        }
        let wrong = |sums: &Vec<f64>| sums.iter().any(|x| !x.is_finite() || *x < 0.0);
        match self.sums.iter().find(|(_, sums)| wrong(sums)) {
            Some((name, _)) => Err(Error::Numbers(format!(
                "`{name}`: squared gradients hold a number that is negative, NaN or infinite"
            ))),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(sums: &[f64]) -> Fisher {
        Fisher { count: 1, sums: [("w".to_owned(), sums.to_vec())].into() }
    }

    #[test]
    fn other_tensors_are_refused() {
        let mut fisher = Fisher::zeros([("w", 2)]);
        assert!(fisher.merge(&of(&[1.0])).is_err());
        assert!(fisher.validate().is_err());
        fisher.merge(&of(&[1.0, 0.0])).expect("of one size");
        assert!(fisher.validate().is_ok());
        for wrong in [-1.0, f64::NAN, f64::INFINITY] {
            assert!(of(&[1.0, wrong]).validate().is_err(), "{wrong}");
        }
    }
}
