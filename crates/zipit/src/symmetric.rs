//! Powers of symmetric matrices, in f64. Results do not depend on the number of threads.

use crate::products::product;
use crate::{Error, Result};
use faer::{
    MatMut, MatRef, Par, Spec,
    diag::DiagMut,
    dyn_stack::{MemBuffer, MemStack},
    linalg::evd::{ComputeEigenvectors, self_adjoint_evd, self_adjoint_evd_scratch},
};
use ndarray::{Array2, ArrayView2};

/// A = Σ λ v vᵀ of a positive semidefinite matrix.
pub(crate) struct Spectrum {
    values: Vec<f64>,
    /// By column.
    vectors: Array2<f64>,
}

impl Spectrum {
    /// `None` where the decomposition does not converge.
    pub fn of(matrix: ArrayView2<'_, f64>) -> Option<Self> {
        let n = matrix.nrows();
        let matrix = matrix.as_standard_layout();
        let mut values = vec![0.0; n];
        let mut vectors = Array2::zeros((n, n));
        let scratch = self_adjoint_evd_scratch::<f64>(n, ComputeEigenvectors::Yes, Par::Seq, Spec::default());
        self_adjoint_evd(
            MatRef::from_row_major_slice(matrix.as_slice()?, n, n),
            DiagMut::from_slice_mut(&mut values),
            Some(MatMut::from_row_major_slice_mut(vectors.as_slice_mut()?, n, n)),
            Par::Seq,
            MemStack::new(&mut MemBuffer::new(scratch)),
            Spec::default(),
        )
        .ok()?;
        Some(Self { values, vectors })
    }

    /// (A + load·I)^exponent.
    pub fn power(&self, load: f64, exponent: f64) -> Array2<f64> {
        let mut scaled = self.vectors.clone();
        for (mut column, value) in scaled.columns_mut().into_iter().zip(&self.values) {
            // Rounding leaves eigenvalues a little below zero.
            column *= (value.max(0.0) + load).powf(exponent);
        }
        product(scaled.view(), self.vectors.view())
    }
}

/// S = (A + ridge·mean(diag A)·I)^(−½): inputs x with E xxᵀ = A are white as S x, but for the ridge. Zeros, where A is zero.
///
/// ```
/// let a = ndarray::array![[4.0, 0.0], [0.0, 4.0]];
/// let s = zipit::symmetric::whitening(a.view(), 1e-9).unwrap();
/// assert!((s[[0, 0]] - 0.5).abs() < 1e-6 && s[[0, 1]].abs() < 1e-12);
/// ```
///
/// # Errors
/// [`Error::Numbers`] for a matrix with numbers that are not finite.
pub fn whitening(a: ArrayView2<'_, f64>, ridge: f64) -> Result<Array2<f64>> {
    let load = ridge * a.diag().mean().unwrap_or(0.0);
    if !(load > 0.0 && load.is_finite()) {
        return Ok(Array2::zeros(a.raw_dim()));
    }
    let spectrum = Spectrum::of(a).ok_or_else(|| {
        Error::Numbers("what a layer reads has no spectrum: the network's values are not finite".to_owned())
    })?;
    Ok(spectrum.power(load, -0.5))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use ndarray::array;

    #[test]
    fn whitened_inputs_are_white() {
        let a = array![[5.0, 2.0, 0.5], [2.0, 3.0, 1.0], [0.5, 1.0, 2.0]];
        let ridge = 1e-3;
        let s = whitening(a.view(), ridge).unwrap();
        let load = ridge * 10.0 / 3.0;
        let white = s.dot(&(&a + &(Array2::<f64>::eye(3) * load))).dot(&s);
        assert!((&white - &Array2::<f64>::eye(3)).iter().all(|x| x.abs() < 1e-12), "{white}");
    }

    #[test]
    fn inputs_that_are_never_there_stay_away() {
        assert_eq!(whitening(Array2::zeros((2, 2)).view(), 1e-3).unwrap(), Array2::<f64>::zeros((2, 2)));
        // One of them: its direction is as long as the ridge allows.
        let s = whitening(array![[2.0, 0.0], [0.0, 0.0]].view(), 1e-3).unwrap();
        assert!((s[[1, 1]] - 1e-3_f64.powf(-0.5)).abs() < 1e-6, "{s}");
    }
}
