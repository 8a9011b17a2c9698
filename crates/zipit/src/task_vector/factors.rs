//! Singular value decompositions of task vectors' matrices, in f64; the same on any number of threads.

use crate::products::product;
use crate::{Error, Result};
use faer::{
    MatMut, MatRef, Par, Spec,
    diag::DiagMut,
    dyn_stack::{MemBuffer, MemStack},
    linalg::svd::{ComputeSvdVectors, svd, svd_scratch},
};
use ndarray::{Array1, Array2, ArrayView2, Axis, concatenate};

/// A = U diag(S) Vᵀ, r = min(m, n).
pub(super) struct Factors {
    /// `[m, r]`.
    pub u: Array2<f64>,
    /// Descending.
    pub s: Array1<f64>,
    /// `[n, r]`.
    pub v: Array2<f64>,
}

impl Factors {
    /// # Errors
    /// A matrix whose decomposition does not converge.
    pub fn of(matrix: ArrayView2<'_, f64>) -> Result<Self> {
        let (m, n) = matrix.dim();
        let r = m.min(n);
        let matrix = matrix.as_standard_layout();
        let (mut u, mut v, mut s) = (Array2::zeros((m, r)), Array2::zeros((n, r)), Array1::zeros(r));
        let thin = ComputeSvdVectors::Thin;
        svd(
            MatRef::from_row_major_slice(matrix.as_slice().expect("standard layout"), m, n),
            DiagMut::from_slice_mut(s.as_slice_mut().expect("contiguous")),
            Some(MatMut::from_row_major_slice_mut(u.as_slice_mut().expect("standard layout"), m, r)),
            Some(MatMut::from_row_major_slice_mut(v.as_slice_mut().expect("standard layout"), n, r)),
            Par::Seq,
            MemStack::new(&mut MemBuffer::new(svd_scratch::<f64>(m, n, thin, thin, Par::Seq, Spec::default()))),
            Spec::default(),
        )
        .map_err(|_| Error::Numbers("a task vector's singular values cannot be computed".to_owned()))?;
        Ok(Self { u, s, v })
    }

    /// The `k` largest.
    pub fn first(&self, k: usize) -> Self {
        Self {
            u: self.u.slice_axis(Axis(1), (..k).into()).to_owned(),
            s: self.s.slice_axis(Axis(0), (..k).into()).to_owned(),
            v: self.v.slice_axis(Axis(1), (..k).into()).to_owned(),
        }
    }

    /// Side by side.
    pub fn joined(parts: &[Self]) -> Self {
        let columns = |of: fn(&Self) -> ArrayView2<'_, f64>| {
            let parts: Vec<_> = parts.iter().map(of).collect();
            concatenate(Axis(1), &parts).expect("of one matrix's sizes")
        };
        let values: Vec<_> = parts.iter().map(|part| part.s.view()).collect();
        Self {
            u: columns(|part| part.u.view()),
            s: concatenate(Axis(0), &values).expect("vectors"),
            v: columns(|part| part.v.view()),
        }
    }

    /// The same values between the orthonormal columns nearest to U and V: of X = P Σ Qᵀ these are P Qᵀ.
    ///
    /// # Errors
    /// As [`of`](Self::of).
    pub fn orthogonal(self) -> Result<Self> {
        let nearest = |x: &Array2<f64>| -> Result<Array2<f64>> {
            let found = Self::of(x.view())?;
            Ok(product(found.u.view(), found.v.view()))
        };
        Ok(Self { u: nearest(&self.u)?, s: self.s, v: nearest(&self.v)? })
    }

    /// All values at their mean.
    pub fn isotropic(mut self) -> Self {
        let mean = self.s.mean().unwrap_or(0.0);
        self.s.fill(mean);
        self
    }

    /// U diag(S) Vᵀ.
    pub fn product(&self) -> Array2<f64> {
        product((&self.u * &self.s.view().insert_axis(Axis(0))).view(), self.v.view())
    }
}
