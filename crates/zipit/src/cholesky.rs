//! Symmetric positive definite systems, in f64. Results do not depend on the number of threads.

use faer::{
    Accum, MatMut, MatRef, Par, Spec,
    dyn_stack::{MemBuffer, MemStack, StackReq},
    linalg::{
        cholesky::llt::{self, factor::LltRegularization},
        matmul::matmul,
        triangular_solve::solve_lower_triangular_in_place,
    },
};
use ndarray::{Array1, Array2, ArrayView1, Axis};
use rayon::prelude::*;

/// Right-hand sides are solved in blocks of this many, in parallel; fixed, so that results do not depend on threads.
const BLOCK: usize = 128;

/// Columns that are factorised at once, and rows and columns that a task makes of what is left.
const PANEL: usize = 256;

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
        let mut rest = MatMut::from_column_major_slice_mut(a.as_slice_mut().expect("standard layout"), n, n);
        let mut memory =
            MemBuffer::new(llt::factor::cholesky_in_place_scratch::<f64>(PANEL, Par::Seq, Spec::default()));
        while rest.nrows() > 0 {
            let width = PANEL.min(rest.nrows());
            let (mut diagonal, _, mut panel, mut below) = rest.split_at_mut(width, width);
            let stack = MemStack::new(&mut memory);
            let regularization = LltRegularization::default();
            let spec = Spec::default();
            llt::factor::cholesky_in_place(diagonal.as_mut(), regularization, Par::Seq, stack, spec).ok()?;
            let lower = diagonal.as_ref();
            panel
                .as_mut()
                .par_row_chunks_mut(PANEL)
                .for_each(|rows| solve_lower_triangular_in_place(lower, rows.transpose_mut(), Par::Seq));
            let panel = panel.as_ref();
            below.as_mut().par_col_chunks_mut(PANEL).enumerate().for_each(|(i, columns)| {
                let [from, n] = [i * PANEL, columns.ncols()];
                let own = panel.subrows(from, n);
                let rows = panel.subrows(from, panel.nrows() - from);
                matmul(columns.subrows_mut(from, rows.nrows()), Accum::Add, rows, own.transpose(), -1.0, Par::Seq);
            });
            rest = below;
        }
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// Symmetric and diagonally dominant.
    fn matrix(n: usize) -> Array2<f64> {
        let wave = |i: usize, j: usize| (((i * j + 3 * (i + j)) % 17) as f64 - 8.0) / 8.0;
        let matrix = Array2::from_shape_fn((n, n), |(i, j)| wave(i.min(j), i.max(j)));
        matrix + Array2::<f64>::eye(n) * n as f64
    }

    #[test]
    fn several_panels_are_one_factor_on_any_number_of_threads() {
        let n = 2 * PANEL + 77;
        let a = matrix(n);
        let factors = [1, 3].map(|n_threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(n_threads).build().unwrap();
            pool.install(|| Cholesky::new(a.clone(), 0.5).unwrap())
        });
        let x = Array1::from_shape_fn(n, |i| 1.0 / (i + 1) as f64);
        let product = a.dot(&x) + &x * 0.5;
        let found = factors[0].multiply(x.view());
        let off = (&found - &product).iter().fold(0.0, |m: f64, d| m.max(d.abs()));
        assert!(off < 1e-9, "{off}");
        let mut rows = product.insert_axis(Axis(0));
        factors[0].solve_rows(&mut rows);
        let off = (&rows.row(0) - &x).iter().fold(0.0, |m: f64, d| m.max(d.abs()));
        assert!(off < 1e-12, "{off}");
        let lower = |factor: &Cholesky| -> Vec<u64> {
            let rows = factor.factor.rows().into_iter().enumerate();
            rows.flat_map(|(i, row)| row.iter().skip(i).map(|x| x.to_bits()).collect::<Vec<_>>()).collect()
        };
        assert_eq!(lower(&factors[0]), lower(&factors[1]));
    }

    #[test]
    fn what_is_indefinite_in_a_later_panel_has_no_factor() {
        let mut a = matrix(PANEL + 10);
        a[[PANEL + 5, PANEL + 5]] = -1.0;
        assert!(Cholesky::new(a, 0.0).is_none());
    }
}
