//! `MaTS`, merging by matching models in task parameter subspaces (Tam, Bansal & Raffel 2024, arXiv 2312.04339): with every
//! fine-tune's Fisher information as a Kronecker product, Bₜ of what a layer reads and Aₜ of the gradients at what it makes,
//! `Σₜ wₜ Aₜ W Bₜ = Σₜ wₜ Aₜ Wₜ Bₜ`, by conjugate gradients. With A = I it is `RegMean`.

use crate::products::product;
use ndarray::{Array2, Zip};

/// How a system of equations was solved.
#[derive(Debug, Clone, PartialEq)]
pub struct Solved {
    /// The tensor.
    pub name: String,
    /// Iterations, the most of its groups.
    pub n_iterations: usize,
    /// ‖what is left‖ / ‖what was there at the start‖, the worst of its groups.
    pub residual: f64,
}

impl Solved {
    pub(super) fn new(name: &str) -> Self {
        Self { name: name.to_owned(), n_iterations: 0, residual: 0.0 }
    }

    /// Takes another group in.
    pub(super) fn worst(&mut self, n_iterations: usize, residual: f64) {
        self.n_iterations = self.n_iterations.max(n_iterations);
        self.residual = self.residual.max(residual);
    }
}

/// When conjugate gradients end.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Stop {
    /// After so many iterations.
    pub n_iterations: usize,
    /// Or when as little is left of the residual at the start.
    pub tolerance: f64,
}

/// One fine-tune's layer: Wₜ `[O, F]`, wₜ Aₜ `[O, O]` and Bₜ `[F, F]`, both symmetric.
pub(super) struct Term {
    pub w: Array2<f64>,
    pub a: Array2<f64>,
    pub b: Array2<f64>,
}

/// W from `start`, the number of iterations and what is left of the residual. Preconditioned by the operator's diagonal,
/// `Σₜ diag(Aₜ) diag(Bₜ)ᵀ`; where that is zero nothing changes.
pub(super) fn solve(start: &Array2<f64>, terms: &[Term], stop: Stop) -> (Array2<f64>, usize, f64) {
    let apply = |of: &dyn Fn(&Term) -> Array2<f64>| {
        let mut sum = Array2::<f64>::zeros(start.dim());
        for term in terms {
            // Bₜ is symmetric, so that X B = X Bᵀ.
            let right = product(of(term).view(), term.b.view());
            sum += &product(term.a.view(), right.t().as_standard_layout().view());
        }
        sum
    };
    let mut diagonal = Array2::<f64>::zeros(start.dim());
    for Term { a, b, .. } in terms {
        Zip::indexed(&mut diagonal).for_each(|(o, f), x| *x += a[[o, o]] * b[[f, f]]);
    }
    let precondition =
        |r: &Array2<f64>| Zip::from(r).and(&diagonal).map_collect(|r, d| if *d > 0.0 { r / d } else { 0.0 });
    let dot = |a: &Array2<f64>, b: &Array2<f64>| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let mut w = start.clone();
    let mut r = apply(&|term| &term.w - start);
    let at_start = dot(&r, &r).sqrt();
    let (mut z, mut left, mut n) = (precondition(&r), 1.0, 0);
    let (mut p, mut rz) = (z.clone(), dot(&r, &z));
    while n < stop.n_iterations && left > stop.tolerance && rz > 0.0 {
        let q = apply(&|_| p.clone());
        let curvature = dot(&p, &q);
        // Beyond what f64 resolves there is nothing more to be found.
        if curvature <= 0.0 {
            break;
        }
        let step = rz / curvature;
        w.scaled_add(step, &p);
        r.scaled_add(-step, &q);
        z = precondition(&r);
        let next = dot(&r, &z);
        p = &z + &(p * (next / rz));
        rz = next;
        n += 1;
        left = dot(&r, &r).sqrt() / at_start;
    }
    (w, n, if at_start > 0.0 { left } else { 0.0 })
}
