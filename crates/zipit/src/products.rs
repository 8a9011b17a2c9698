//! Products of large f64 matrices, in parallel and the same on any number of threads.

use faer::{Accum, MatMut, MatRef, Par, linalg::matmul::matmul};
use ndarray::{Array1, Array2, ArrayView2, Axis, CowArray, Ix2};
use rayon::prelude::*;

/// Rows of a result that one task makes; fixed, so that results do not depend on threads.
const BLOCK: usize = 128;

/// A Bᵀ `[m, n]` for A `[m, k]` and B `[n, k]`.
///
/// # Panics
/// When the shapes differ from these.
pub(crate) fn product(a: ArrayView2<'_, f64>, b: ArrayView2<'_, f64>) -> Array2<f64> {
    let mut product = Array2::zeros((a.nrows(), b.nrows()));
    add_product(&mut product, a, b);
    product
}

/// `sum` `[m, n]` += A Bᵀ for A `[m, k]` and B `[n, k]`.
///
/// # Panics
/// When the shapes differ from these.
pub(crate) fn add_product(sum: &mut Array2<f64>, a: ArrayView2<'_, f64>, b: ArrayView2<'_, f64>) {
    assert_eq!(sum.dim(), (a.nrows(), b.nrows()), "the sum has another shape than A Bᵀ");
    assert_eq!(a.ncols(), b.ncols(), "the rows of A and B differ in length");
    let (a, b) = (a.as_standard_layout(), b.as_standard_layout());
    let rows = sum.axis_chunks_iter_mut(Axis(0), BLOCK).into_par_iter();
    rows.zip(a.axis_chunks_iter(Axis(0), BLOCK)).for_each(|(mut sum, a)| {
        let [m, n] = [sum.nrows(), sum.ncols()];
        let sum = sum.as_slice_mut().expect("blocks of rows are contiguous");
        let sum = MatMut::from_row_major_slice_mut(sum, m, n);
        let a = MatRef::from_row_major_slice(a.as_slice().expect("blocks of rows are contiguous"), m, a.ncols());
        matmul(sum, Accum::Add, a, row_major(&b).transpose(), 1.0, Par::Seq);
    });
}

/// A x, `[m]`.
///
/// # Panics
/// When the shapes do not fit.
pub(crate) fn times(a: &Array2<f64>, x: &Array1<f64>) -> Array1<f64> {
    let mut product = Array1::zeros(a.nrows());
    let rows = product.axis_chunks_iter_mut(Axis(0), BLOCK).into_par_iter();
    rows.zip(a.axis_chunks_iter(Axis(0), BLOCK)).for_each(|(mut own, a)| own.assign(&a.dot(x)));
    product
}

fn row_major<'a>(matrix: &'a CowArray<'_, f64, Ix2>) -> MatRef<'a, f64> {
    let numbers = matrix.as_slice().expect("standard layout");
    MatRef::from_row_major_slice(numbers, matrix.nrows(), matrix.ncols())
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    #[test]
    fn products_by_hand_and_of_several_blocks() {
        let mut sum = array![[1.0, 0.0]];
        add_product(&mut sum, array![[2.0, 3.0]].view(), array![[1.0, 1.0], [0.0, -1.0]].view());
        assert_eq!(sum, array![[6.0, -3.0]]);
        let a = Array2::from_shape_fn((300, 7), |(i, j)| ((i * 5 + j * 3) % 11) as f64);
        assert_eq!(product(a.view(), a.view()), a.dot(&a.t()), "small integers are exact");
        let x = a.column(3).to_owned();
        assert_eq!(times(&a, &a.row(5).to_owned()), a.dot(&a.row(5)));
        assert_eq!(times(&Array2::ones((1, 300)), &x).to_vec(), [x.sum()]);
        let none = Array2::zeros((300, 0));
        assert_eq!(product(none.view(), none.view()), Array2::<f64>::zeros((300, 300)), "nothing adds nothing");
    }
}
