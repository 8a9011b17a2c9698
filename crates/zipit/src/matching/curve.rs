//! What the logits lose as groups become one, merge by merge.
//!
//! At each [`Place`](crate::graph::Place) v let ẑ = U M z be the best linear reconstruction of `z_v` from the merged
//! features, `R = E (z − ẑ)(z − ẑ)ᵀ` what it leaves, and G the gradients' second moments, model by model along the diagonal.
//! Then tr(G R) is what that does to the squared logits: the error back-propagated through the whole rest of each network.
//! Summed over the places, it is what a merge point loses at every width of one tree of merges.
//!
//! Merging the groups i and j, which count a and b, takes one direction out of what M z spans: with A = M C Mᵀ, C = E zzᵀ,
//! `n = b·e_i − a·e_j`, y = A⁻¹n, κ = nᵀy and q = U n / √κ, the residual R grows by qqᵀ, U becomes U − q yᵀ/√κ and A⁻¹ becomes
//! A⁻¹ − y yᵀ/κ, where columns i and j (and rows, of A⁻¹) are then added up to one. What is taken off is kept as two narrow
//! matrices until there is enough of it for a product of matrices.

use super::metric::Metric;
use crate::cholesky::Cholesky;
use crate::importance::PlaceSums;
use crate::products::add_product;
use crate::watch::Watch;
use crate::{Error, Importance, Moments, Result};
use ndarray::{Array1, Array2, ArrayView2, Axis, Slice};

/// Ridge of C, in units of its mean diagonal: what is known of features less well than that is not known.
const RIDGE: f64 = 1e-3;
/// Merges whose part is taken off together.
const BLOCK: usize = 64;

/// What merging in this order loses until 1, 2, …, n groups remain, `[n]`. The merges are of the `features` among the N·d,
/// by their places there, each of two groups by their lowest; `measured` are the merge point's own moments.
///
/// # Errors
/// [`Error::Numbers`] for moments that are none; [`Error::Interrupted`].
pub(super) fn losses(
    importance: &Importance,
    measured: &Moments,
    features: &[usize],
    merges: &[(u32, u32)],
    watch: &dyn Watch,
) -> Result<Vec<f64>> {
    let weights = importance.weights();
    let mut total = vec![0.0; features.len()];
    for place in &importance.places {
        let of = at_place(place, measured, (features, &weights), merges, BLOCK, watch)?;
        total.iter_mut().zip(of).for_each(|(sum, loss)| *sum += loss);
    }
    Ok(total)
}

fn at_place(
    place: &PlaceSums,
    measured: &Moments,
    (features, weights): (&[usize], &[f64]),
    merges: &[(u32, u32)],
    block: usize,
    watch: &dyn Watch,
) -> Result<Vec<f64>> {
    let n = features.len();
    let c = place.joint.as_ref().unwrap_or(measured).second_moment();
    let c = c.select(Axis(0), features).select(Axis(1), features);
    let mut left = Reconstruction::new(&c, block)?;
    let metric = Metric::new(place, features);
    let mut counts: Vec<f64> = features.iter().map(|&k| weights[k]).collect();
    let mut sizes = vec![1.0; n];
    let mut steps = vec![0.0; merges.len()];
    let mut kept = Vec::with_capacity(block);
    for (step, &(i, j)) in merges.iter().enumerate() {
        if watch.interrupted() {
            return Err(Error::Interrupted);
        }
        let (i, j) = (i as usize, j as usize);
        let (a, b) = if counts[i] + counts[j] > 0.0 { (counts[i], counts[j]) } else { (sizes[i], sizes[j]) };
        if left.merge((i, a), (j, b)) {
            kept.push(step);
        }
        counts[i] += counts[j];
        sizes[i] += sizes[j];
        if kept.len() == block || step + 1 == merges.len() {
            let found = metric.of(left.directions());
            kept.drain(..).zip(found).for_each(|(step, loss)| steps[step] = loss);
        }
    }
    let mut lost = vec![0.0; n];
    let mut sum = 0.0;
    for (step, loss) in steps.into_iter().enumerate() {
        sum += loss;
        lost[n - 2 - step] = sum;
    }
    Ok(lost)
}

/// U and A⁻¹ as groups become one. They stand where their lowest feature does; of those that are no more nothing is left.
struct Reconstruction {
    /// Uᵀ, `[groups, n]`, and A⁻¹, but for what has still to be taken off: `Y Qᵀ` and `Y Yᵀ`.
    u: Array2<f64>,
    inverse: Array2<f64>,
    /// Q and Y, `[n, block]`, of which so many columns are there.
    q: Array2<f64>,
    y: Array2<f64>,
    n_kept: usize,
}

impl Reconstruction {
    /// Of single features with C = `second_moment`.
    fn new(second_moment: &Array2<f64>, block: usize) -> Result<Self> {
        let n = second_moment.nrows();
        let mean = second_moment.diag().mean().unwrap_or(0.0);
        // Where nothing happens, nothing is lost.
        let load = if mean > 0.0 { RIDGE * mean } else { 1.0 };
        let indefinite = || Error::Numbers("the features' second moment is not positive definite".into());
        let factor = Cholesky::new(second_moment.as_standard_layout().into_owned(), load).ok_or_else(indefinite)?;
        let mut inverse = Array2::eye(n);
        factor.solve_rows(&mut inverse);
        let narrow = || Array2::zeros((n, block));
        Ok(Self { u: Array2::eye(n), inverse, q: narrow(), y: narrow(), n_kept: 0 })
    }

    /// Unites the group j with i, which count b and a. Whether a direction q is lost, which is then the last of
    /// [`directions`](Self::directions); what was a full block of them is taken off before.
    fn merge(&mut self, (i, a): (usize, f64), (j, b): (usize, f64)) -> bool {
        if self.n_kept == self.y.ncols() {
            self.take_off();
        }
        let kept = Slice::from(0..self.n_kept);
        let (q, y) = (self.q.slice_axis(Axis(1), kept), self.y.slice_axis(Axis(1), kept));
        let own = &y.row(i) * b - &y.row(j) * a;
        let of = |matrix: &Array2<f64>, taken: &ArrayView2<'_, f64>| -> Array1<f64> {
            &matrix.row(i) * b - &matrix.row(j) * a - taken.dot(&own)
        };
        let (direction, row) = (of(&self.u, &q), of(&self.inverse, &y));
        let kappa = b * row[i] - a * row[j];
        let is_lost = kappa > 0.0;
        if is_lost {
            self.q.column_mut(self.n_kept).assign(&(direction / kappa.sqrt()));
            self.y.column_mut(self.n_kept).assign(&(row / kappa.sqrt()));
            self.n_kept += 1;
        }
        for matrix in [&mut self.u, &mut self.inverse, &mut self.y] {
            let row = matrix.row(j).to_owned();
            matrix.row_mut(i).scaled_add(1.0, &row);
            matrix.row_mut(j).fill(0.0);
        }
        let column = self.inverse.column(j).to_owned();
        self.inverse.column_mut(i).scaled_add(1.0, &column);
        self.inverse.column_mut(j).fill(0.0);
        is_lost
    }

    /// Q, `[n, kept]`.
    fn directions(&self) -> ArrayView2<'_, f64> {
        self.q.slice_axis(Axis(1), Slice::from(0..self.n_kept))
    }

    fn take_off(&mut self) {
        let kept = Slice::from(0..self.n_kept);
        let y = self.y.slice_axis(Axis(1), kept);
        let taken = -&y;
        add_product(&mut self.u, taken.view(), self.q.slice_axis(Axis(1), kept));
        add_product(&mut self.inverse, taken.view(), y);
        self.n_kept = 0;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::watch::Unwatched;

    #[test]
    fn what_is_taken_off_late_is_taken_off() {
        let n = 90;
        let x = Array2::from_shape_fn((200, n), |(s, k)| ((s * 37 + k * k * 11 + s * k) % 101) as f32 / 30.0 - 1.5);
        let moments = |x: &Array2<f32>| {
            let mut moments = Moments::zeros(x.ncols());
            moments.add_batch(x.nrows() as u64, &x.sum_axis(Axis(0)).to_vec(), x.t().dot(x).view());
            moments
        };
        let gradients = [0..n / 2, n / 2..n].map(|own| moments(&x.slice_axis(Axis(1), Slice::from(own)).to_owned()));
        let place = PlaceSums { joint: None, gradients: gradients.to_vec() };
        let (features, weights): (Vec<usize>, Vec<f64>) = (0..n).map(|k| (k, 1.0 + (k % 3) as f64)).unzip();
        // Neighbours first, then their neighbours.
        let mut merges = Vec::new();
        let mut width = 1;
        while width < n {
            merges.extend((0..n).step_by(2 * width).filter(|i| i + width < n).map(|i| (i as u32, (i + width) as u32)));
            width *= 2;
        }
        assert_eq!(merges.len(), n - 1);
        let measured = moments(&x);
        let lost = |block| at_place(&place, &measured, (&features, &weights), &merges, block, &Unwatched).unwrap();
        let (late, at_once) = (lost(BLOCK), lost(1));
        assert!(at_once[0] > at_once[n / 2] && at_once[n / 2] > 0.0);
        for (late, now) in late.iter().zip(&at_once) {
            assert!((late - now).abs() < 1e-9 * at_once[0], "{late} {now}");
        }
    }
}
