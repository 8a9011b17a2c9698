//! RegMean (Jin et al. 2023, arXiv 2212.09849): the matrix that does to what each fine-tune's layer reads what that layer does,
//! `W = (Σₜ wₜ Wₜ Gₜ) (Σₜ wₜ Gₜ)⁻¹`, Gₜ = E\[x xᵀ\] with its off-diagonal entries times α.

use crate::cholesky::Cholesky;
use crate::products::add_product;
use crate::{Error, Result};
use ndarray::Array2;

/// Shares of the mean diagonal that are added to it, until it can be inverted: features that are never there, or are others'
/// sums, leave it without an inverse. What they are multiplied with stays near the average.
const LOADS: [f64; 4] = [1e-12, 1e-9, 1e-6, 1e-3];

/// W of one group `[O, F]`, of fine-tunes' Wₜ and of what each reads, `[F, F]`. The solution is sought as a change of
/// the weighted average.
pub(super) fn merged(
    tuned: &[Array2<f64>],
    inputs: &[&Array2<f64>],
    (weights, shares): (&[f64], &[f64]),
    off_diagonal: f64,
) -> Result<Array2<f64>> {
    let mut average = Array2::<f64>::zeros(tuned[0].dim());
    tuned.iter().zip(shares).for_each(|(of, &share)| average.scaled_add(share, of));
    let n = average.ncols();
    let (mut sum, mut change) = (Array2::<f64>::zeros((n, n)), Array2::<f64>::zeros(average.dim()));
    for (t, of) in tuned.iter().enumerate() {
        let mut gram = inputs[t] * weights[t];
        gram.indexed_iter_mut().filter(|((i, j), _)| i != j).for_each(|(_, x)| *x *= off_diagonal);
        add_product(&mut change, (of - &average).view(), gram.view());
        sum += &gram;
    }
    let mean = sum.diag().sum() / n.max(1) as f64;
    if mean <= 0.0 {
        return Ok(average);
    }
    let factor = LOADS.iter().find_map(|load| Cholesky::new(sum.clone(), load * mean));
    let factor = factor
        .ok_or_else(|| Error::Numbers("what the layers read has second moments that cannot be inverted".into()))?;
    factor.solve_rows(&mut change);
    Ok(average + change)
}
