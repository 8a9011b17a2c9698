//! Symmetric positive definite systems, in f64. Results do not depend on the number of threads.

use faer::{
    MatMut, MatRef, Par, Spec,
    dyn_stack::{MemBuffer, MemStack, StackReq},
    linalg::cholesky::llt::{self, factor::LltRegularization},
};
use ndarray::{Array1, Array2, ArrayView1, Axis};
use rayon::prelude::*;

/// Right-hand sides are solved in blocks of this many, in parallel; fixed, so that results do not depend on threads.
const BLOCK: usize = 128;

/// Steps of the power iterations below: enough for the first digit.
const STEPS: usize = 8;

/// A + load·I = L·Lᵀ.
#[derive(Debug, Clone)]
pub(crate) struct Cholesky {
    /// L in the lower triangle as faer reads the memory: row i from i on is column i of L.
    factor: Array2<f64>,
}

impl Cholesky {
    /// `None` where A + load·I is not positive definite. Only the lower triangle of A, in memory, counts.
    ///
    /// # Panics
    /// When A is not square or not in standard layout.
    pub fn new(mut a: Array2<f64>, load: f64) -> Option<Self> {
        let n = a.nrows();
        a.diag_mut().iter_mut().for_each(|x| *x += load);
        let matrix = MatMut::from_column_major_slice_mut(a.as_slice_mut().expect("standard layout"), n, n);
        let mut memory = MemBuffer::new(llt::factor::cholesky_in_place_scratch::<f64>(n, Par::Seq, Spec::default()));
        llt::factor::cholesky_in_place(
            matrix,
            LltRegularization::default(),
            Par::Seq,
            MemStack::new(&mut memory),
            Spec::default(),
        )
        .ok()?;
        Some(Self { factor: a })
    }

    /// Solves for every row of `x` `[rows, n]`, in place.
    pub fn solve_rows(&self, x: &mut Array2<f64>) {
        let n = x.ncols();
        x.axis_chunks_iter_mut(Axis(0), BLOCK).into_par_iter().for_each(|mut block| {
            let rows = block.nrows();
            let block = block.as_slice_mut().expect("blocks of rows are contiguous");
            let rhs = MatMut::from_column_major_slice_mut(block, n, rows);
            let mut memory = MemBuffer::new(StackReq::EMPTY);
            llt::solve::solve_in_place(self.lower(), rhs, Par::Seq, MemStack::new(&mut memory));
        });
    }

    /// Condition number (2-norm) of the matrix that was factorised, from below: the largest eigenvalue by power
    /// iteration, the smallest by inverse iteration.
    pub fn condition(&self) -> f64 {
        let n = self.factor.nrows();
        // No direction is left out, and no two features weigh the same.
        let start = || Array2::from_shape_fn((1, n), |(_, i)| 1.0 + (i as f64 * 0.618_033_988_749_895).fract());
        let normalise = |x: &mut Array2<f64>| {
            let norm = x.iter().map(|x| x * x).sum::<f64>().sqrt();
            *x /= norm;
            norm
        };
        let (mut up, mut down) = (start(), start());
        for _ in 0..STEPS {
            normalise(&mut up);
            up = self.multiply(up.row(0)).insert_axis(Axis(0));
            normalise(&mut down);
            self.solve_rows(&mut down);
        }
        normalise(&mut up) * normalise(&mut down)
    }

    /// L·Lᵀ·x.
    fn multiply(&self, x: ArrayView1<'_, f64>) -> Array1<f64> {
        let mut product = Array1::zeros(x.len());
        for (i, row) in self.factor.rows().into_iter().enumerate() {
            let (_, column) = row.split_at(Axis(0), i);
            let (_, mut below) = product.view_mut().split_at(Axis(0), i);
            below.scaled_add(column.dot(&x.split_at(Axis(0), i).1), &column);
        }
        product
    }

    fn lower(&self) -> MatRef<'_, f64> {
        let n = self.factor.nrows();
        MatRef::from_column_major_slice(self.factor.as_slice().expect("standard layout"), n, n)
    }
}
