//! The gradients' second moments at a place, by which errors of features are weighed.

use crate::Moments;
use crate::importance::PlaceSums;
use crate::products::product;
use ndarray::{Array1, Array2, ArrayView2, Axis};

/// G of some features: each model's block, and which of the features are its.
pub(super) struct Metric(Vec<(Vec<usize>, Array2<f64>)>);

impl Metric {
    pub fn new(place: &PlaceSums, features: &[usize]) -> Self {
        let mut first = 0;
        let block = |own: &Moments| {
            let d = own.n_joint();
            let at: Vec<usize> = (0..features.len()).filter(|&k| (first..first + d).contains(&features[k])).collect();
            let within: Vec<usize> = at.iter().map(|&k| features[k] - first).collect();
            first += d;
            let g = own.second_moment().select(Axis(0), &within).select(Axis(1), &within);
            (at, g.as_standard_layout().into_owned())
        };
        Self(place.gradients.iter().map(block).collect())
    }

    /// qᵀ G q of every column of `directions`.
    pub fn of(&self, directions: ArrayView2<'_, f64>) -> Array1<f64> {
        let mut of = Array1::zeros(directions.ncols());
        for (at, g) in &self.0 {
            let own = directions.select(Axis(0), at);
            of += &(product(g.view(), own.t()) * own).sum_axis(Axis(0));
        }
        of.mapv(|loss: f64| loss.max(0.0))
    }

    /// G x of one vector.
    pub fn times(&self, x: &Array1<f64>) -> Array1<f64> {
        let mut product = Array1::zeros(x.len());
        for (at, g) in &self.0 {
            let own = g.dot(&x.select(Axis(0), at));
            at.iter().zip(own).for_each(|(&k, own)| product[k] = own);
        }
        product
    }

    /// tr(G R).
    pub fn trace_with(&self, r: &Array2<f64>) -> f64 {
        let of = |(at, g): &(Vec<usize>, Array2<f64>)| (g * &r.select(Axis(0), at).select(Axis(1), at)).sum();
        self.0.iter().map(of).sum()
    }
}
