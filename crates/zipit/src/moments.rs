//! Raw moments of the joint features at a merge point: n, Σz and Σzzᵀ in f64, so that shards add exactly.
//!
//! z = [x¹; …; xᴺ] ∈ R^{Nd} are the features of all N models for the **same** image and position; spatial positions
//! are samples. Covariance and correlation are derived, never stored.

use crate::{Error, Result};
use ndarray::{Array1, Array2, ArrayView2, Axis};

/// Up to this share of its mean square a feature's variance is rounding error: a standard deviation of a few units in the
/// last place of an f32. Products are counted from a batch's own numbers, so that they round no worse than these.
pub(crate) const DEAD: f64 = 1e-13;

/// n, Σz and the packed upper triangle of Σzzᵀ.
#[derive(Debug, Clone, PartialEq)]
pub struct Moments {
    /// n, the number of samples (images × positions).
    pub count: u64,
    /// Σz, `[N·d]`.
    pub sum: Vec<f64>,
    /// Upper triangle of Σzzᵀ, row by row: (0,0), (0,1), …, (1,1), …; `N·d·(N·d+1)/2` numbers.
    pub outer: Vec<f64>,
}

/// What a batch of y = z − o takes to be moved back to the origin 0.
#[derive(Debug)]
pub struct Moved<'a> {
    count: u64,
    sum: &'a [f32],
    /// o.
    origin: Vec<f64>,
    /// Σy + n·o/2, so that the products are Σyyᵀ + o·half + half·o.
    half: Vec<f64>,
    at_zero: bool,
}

impl<'a> Moved<'a> {
    /// n samples and their Σy, counted from `origin`.
    ///
    /// # Panics
    /// When the two are of different lengths.
    #[must_use]
    pub fn new(origin: &[f32], count: u64, sum: &'a [f32]) -> Self {
        assert_eq!(origin.len(), sum.len(), "an origin of another number of features");
        let origin: Vec<f64> = origin.iter().map(|&x| f64::from(x)).collect();
        let half = origin.iter().zip(sum).map(|(o, &y)| f64::from(y) + 0.5 * count as f64 * o).collect();
        Self { count, sum, at_zero: origin.iter().all(|&o| o == 0.0), origin, half }
    }
}

impl Moments {
    /// No samples of `n_joint` = N·d features.
    #[must_use]
    pub fn zeros(n_joint: usize) -> Self {
        Self { count: 0, sum: vec![0.0; n_joint], outer: vec![0.0; n_joint * (n_joint + 1) / 2] }
    }

    /// N·d.
    #[must_use]
    pub fn n_joint(&self) -> usize {
        self.sum.len()
    }

    /// Adds a batch: its number of samples, Σz, and Σzzᵀ as a full matrix of which the upper triangle is read.
    ///
    /// # Panics
    /// When the shapes differ from this one's.
    pub fn add_batch(&mut self, count: u64, sum: &[f32], outer: ArrayView2<'_, f32>) {
        self.add_batch_from(&vec![0.0; sum.len()], count, sum, outer);
    }

    /// As [`add_batch`](Self::add_batch) of y = z − o, with an `origin` o near the features: of a mean of 1000 and a
    /// standard deviation of 0.3, f32 products about zero would keep nothing. Moved back in f64, which loses 10⁻⁹ of that
    /// variance: `Σz = Σy + n·o`, `Σzzᵀ = Σyyᵀ + o(Σy)ᵀ + (Σy)oᵀ + n·ooᵀ`.
    ///
    /// # Panics
    /// When the shapes differ from this one's.
    pub fn add_batch_from(&mut self, origin: &[f32], count: u64, sum: &[f32], outer: ArrayView2<'_, f32>) {
        let n = self.n_joint();
        assert_eq!((origin.len(), sum.len(), outer.dim()), (n, n, (n, n)), "a batch of another number of features");
        let moved = Moved::new(origin, count, sum);
        self.add_sums(&moved);
        self.add_rows(&moved, 0, outer);
    }

    /// The first half of [`add_batch_from`](Self::add_batch_from): how many samples, and Σy.
    ///
    /// # Panics
    /// When the batch is of another number of features.
    pub fn add_sums(&mut self, batch: &Moved<'_>) {
        assert_eq!(batch.sum.len(), self.n_joint(), "a batch of another number of features");
        self.count += batch.count;
        for ((total, &y), o) in self.sum.iter_mut().zip(batch.sum).zip(&batch.origin) {
            *total += f64::from(y) + batch.count as f64 * o;
        }
    }

    /// The other half, for rows `first…` of Σyyᵀ, `[rows, N·d]`: where a matrix need not lie in one piece.
    ///
    /// # Panics
    /// When the batch is of another number of features, or there are more rows than features.
    pub fn add_rows(&mut self, batch: &Moved<'_>, first: usize, rows: ArrayView2<'_, f32>) {
        let (n, Moved { origin, half, .. }) = (self.n_joint(), batch);
        assert!(origin.len() == n && rows.ncols() == n && first + rows.nrows() <= n, "a batch of other features");
        let mut totals = &mut self.outer[first * n - first * first.saturating_sub(1) / 2..];
        for (i, row) in (first..).zip(rows.rows()) {
            let (head, tail) = totals.split_at_mut(n - i);
            let row = row.split_at(Axis(0), i).1;
            let (oi, hi) = (origin[i], half[i]);
            if batch.at_zero {
                head.iter_mut().zip(row).for_each(|(total, &y)| *total += f64::from(y));
            } else {
                for ((total, &y), (oj, hj)) in head.iter_mut().zip(row).zip(origin[i..].iter().zip(&half[i..])) {
                    *total += f64::from(y) + (oi * hj + hi * oj);
                }
            }
            totals = tail;
        }
    }

    /// Adds another shard's moments.
    ///
    /// ```
    /// use zipit::Moments;
    /// let mut whole = Moments { count: 1, sum: vec![1.0], outer: vec![1.0] };
    /// whole.merge(&Moments { count: 1, sum: vec![3.0], outer: vec![9.0] }).unwrap();
    /// assert_eq!(whole, Moments { count: 2, sum: vec![4.0], outer: vec![10.0] });
    /// ```
    ///
    /// # Errors
    /// When the other one measures another number of features.
    pub fn merge(&mut self, other: &Self) -> Result<()> {
        if self.n_joint() != other.n_joint() {
            return Err(Error::Numbers(format!(
                "moments of {} features cannot be added to moments of {}",
                other.n_joint(),
                self.n_joint()
            )));
        }
        self.count += other.count;
        self.sum.iter_mut().zip(&other.sum).for_each(|(a, b)| *a += b);
        self.outer.iter_mut().zip(&other.outer).for_each(|(a, b)| *a += b);
        Ok(())
    }

    /// Checks that there are samples and that every number is finite.
    ///
    /// # Errors
    /// [`Error::Numbers`], naming `point`.
    pub fn validate(&self, point: &str) -> Result<()> {
        let n = self.n_joint();
        if self.outer.len() != n * (n + 1) / 2 {
            return Err(Error::Numbers(format!(
                "`{point}`: {} products for {n} features, expected {}",
                self.outer.len(),
                n * (n + 1) / 2
            )));
        }
        if self.count == 0 {
            return Err(Error::Numbers(format!("`{point}`: no samples were measured")));
        }
        if self.sum.iter().chain(&self.outer).any(|x| !x.is_finite()) {
            return Err(Error::Numbers(format!("`{point}`: the moments hold NaN or infinity")));
        }
        if let Some(i) = (0..n).find(|&i| self.outer[self.position(i, i)] < 0.0) {
            return Err(Error::Numbers(format!("`{point}`: the sum of squares of feature {i} is negative")));
        }
        Ok(())
    }

    /// Σz², `[N·d]`.
    pub fn squares(&self) -> impl Iterator<Item = f64> {
        (0..self.n_joint()).map(|i| self.outer[self.position(i, i)])
    }

    /// Adds the same to every feature's Σz².
    pub(crate) fn add_to_squares(&mut self, more: f64) {
        for i in 0..self.n_joint() {
            let at = self.position(i, i);
            self.outer[at] += more;
        }
    }

    /// E\[z\], `[N·d]`.
    #[must_use]
    pub fn mean(&self) -> Array1<f64> {
        self.sum.iter().map(|s| s / self.count as f64).collect()
    }

    /// G = E\[zzᵀ\], uncentred, `[N·d, N·d]`.
    #[must_use]
    pub fn second_moment(&self) -> Array2<f64> {
        self.unpack(|_, _, g| g)
    }

    /// Cov(z) = E\[zzᵀ\] − E\[z\]E\[z\]ᵀ, `[N·d, N·d]`.
    #[must_use]
    pub fn covariance(&self) -> Array2<f64> {
        let mean = self.mean();
        self.unpack(|i, j, g| g - mean[i] * mean[j])
    }

    /// R, the correlation of every pair of features, `[N·d, N·d]`. A dead feature (variance zero, or lost in the
    /// rounding of its mean square) correlates 0 with everything; R's diagonal is 1.
    ///
    /// ```
    /// // z = (x, −x) for x = 1, 3: perfectly anti-correlated.
    /// let m = zipit::Moments { count: 2, sum: vec![4.0, -4.0], outer: vec![10.0, -10.0, 10.0] };
    /// assert_eq!(m.correlation(), ndarray::array![[1.0, -1.0], [-1.0, 1.0]]);
    /// ```
    #[must_use]
    pub fn correlation(&self) -> Array2<f32> {
        let (mean, scale) = (self.mean(), self.inverse_std());
        self.unpack(|i, j, g| if i == j { 1.0 } else { standardised(g, i, j, &mean, &scale) as f32 })
    }

    /// R's entry for each of the pairs (i, j), i < j, without the rest of R and in f64.
    pub fn correlations_of(&self, pairs: impl IntoIterator<Item = (usize, usize)>) -> impl Iterator<Item = f64> {
        let (mean, scale) = (self.mean(), self.inverse_std());
        pairs
            .into_iter()
            .map(move |(i, j)| standardised(self.outer[self.position(i, j)] / self.count as f64, i, j, &mean, &scale))
    }

    /// One over each feature's standard deviation, 0 for a dead one.
    pub(crate) fn inverse_std(&self) -> Vec<f64> {
        let mean = self.mean();
        (0..self.n_joint())
            .map(|i| {
                let square = self.outer[self.position(i, i)] / self.count as f64;
                let variance = square - mean[i] * mean[i];
                if variance > DEAD * square { variance.sqrt().recip() } else { 0.0 }
            })
            .collect()
    }

    /// Position of (i, j), i ≤ j, in the packed triangle.
    fn position(&self, i: usize, j: usize) -> usize {
        i * self.n_joint() - i * i.saturating_sub(1) / 2 + j - i
    }

    fn unpack<T: Copy + Default>(&self, entry: impl Fn(usize, usize, f64) -> T) -> Array2<T> {
        let n = self.n_joint();
        let mut full = Array2::from_elem((n, n), T::default());
        let mut packed = self.outer.iter();
        for i in 0..n {
            for (j, &outer) in (i..n).zip(&mut packed) {
                let value = entry(i, j, outer / self.count as f64);
                full[[i, j]] = value;
                full[[j, i]] = value;
            }
        }
        full
    }
}

/// The correlation of features i and j with E\[zᵢzⱼ\] = `g`; 0 where one of them is dead.
fn standardised(g: f64, i: usize, j: usize, mean: &Array1<f64>, scale: &[f64]) -> f64 {
    if scale[i] > 0.0 && scale[j] > 0.0 {
        ((g - mean[i] * mean[j]) * scale[i] * scale[j]).clamp(-1.0, 1.0)
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::{Axis, array};

    fn of(z: &Array2<f32>) -> Moments {
        let mut moments = Moments::zeros(z.ncols());
        moments.add_batch(z.nrows() as u64, &z.sum_axis(Axis(0)).to_vec(), z.t().dot(z).view());
        moments
    }

    #[test]
    fn moments_by_hand() {
        let m = of(&array![[1.0, 2.0, 0.0], [3.0, -2.0, 0.0]]);
        assert_eq!((m.count, &m.sum[..]), (2, &[4.0, 0.0, 0.0][..]));
        assert_eq!(m.outer, [10.0, -4.0, 0.0, 8.0, 0.0, 0.0]);
        assert_eq!(m.mean(), array![2.0, 0.0, 0.0]);
        assert_eq!(m.second_moment(), array![[5.0, -2.0, 0.0], [-2.0, 4.0, 0.0], [0.0, 0.0, 0.0]]);
        assert_eq!(m.covariance(), array![[1.0, -2.0, 0.0], [-2.0, 4.0, 0.0], [0.0, 0.0, 0.0]]);
        assert_eq!(m.correlation(), array![[1.0, -1.0, 0.0], [-1.0, 1.0, 0.0], [0.0, 0.0, 1.0]]);
        assert_eq!(m.correlations_of([(0, 1), (1, 2)]).collect::<Vec<_>>(), [-1.0, 0.0]);
    }

    #[test]
    fn constant_features_are_dead_and_scale_and_shift_do_not_matter() {
        // 0.1, whose square is no binary number; x; 3 + 2x.
        let m = of(&array![[0.1, 1.0, 5.0], [0.1, 2.0, 7.0], [0.1, 4.0, 11.0]]);
        let r = m.correlation();
        assert_eq!((r[[0, 1]], r[[0, 2]], r[[0, 0]]), (0.0, 0.0, 1.0));
        assert!((r[[1, 2]] - 1.0).abs() < 1e-6);
    }

    #[test]
    fn shards_add_up_in_any_order() {
        let part = |seed: usize| of(&Array2::from_shape_fn((7, 4), |(s, k)| ((s * 5 + k * 3 + seed) % 9) as f32 / 3.0));
        let sum = |order: [usize; 3]| {
            let mut total = Moments::zeros(4);
            for seed in order {
                total.merge(&part(seed)).expect("same size");
            }
            total
        };
        let (a, b) = (sum([0, 1, 2]), sum([2, 0, 1]));
        assert_eq!(a.count, 21);
        let pairs = a.sum.iter().chain(&a.outer).zip(b.sum.iter().chain(&b.outer));
        assert!(pairs.into_iter().all(|(x, y)| (x - y).abs() <= 1e-12 * x.abs()));
        assert!(Moments::zeros(4).merge(&Moments::zeros(5)).is_err());
    }

    #[test]
    fn defects_are_named() {
        let good = of(&array![[1.0, 2.0], [0.0, 1.0]]);
        assert_eq!(good.validate("relu"), Ok(()));
        let message = |spoil: fn(&mut Moments)| {
            let mut bad = good.clone();
            spoil(&mut bad);
            bad.validate("relu").expect_err("defective").to_string()
        };
        assert_eq!(message(|m| m.count = 0), "`relu`: no samples were measured");
        assert_eq!(message(|m| m.sum[1] = f64::NAN), "`relu`: the moments hold NaN or infinity");
        assert_eq!(message(|m| m.outer[1] = f64::INFINITY), "`relu`: the moments hold NaN or infinity");
        assert_eq!(message(|m| m.outer.truncate(2)), "`relu`: 2 products for 2 features, expected 3");
        assert_eq!(message(|m| m.outer[2] = -1.0), "`relu`: the sum of squares of feature 1 is negative");
    }
}
