//! What a change of a feature does to the logits: which features matter, and how much.
//!
//! For model i and a [`Place`] v of a space, let `y_v` be the features before the activation, `z_v`
//! those of all models after it, and `g = ∂(r·logitsᵢ)/∂y_v` with r ~ N(0, I), its mean over the classes taken away: of a
//! random direction among the logits' differences. Then `E ggᵀ = E JᵀPJ`, J the logits' Jacobian and P the projection onto
//! the differences, and a change δ of `y_v` moves these by `δᵀ E[ggᵀ] δ` in the square. No label is used.
//!
//! Summed over places, with the energies `a²_{v,k} = E g_k²`, a mean over images and positions:
//!
//! - `Q = Σ_v diag(a_v) Cov(z_v) diag(a_v)`, the inner products of the features as the logits see them;
//! - `α_k = √Σ_v a²_{v,k}`, what feature k counts in its group's average.
//!
//! Of few images, energies are [steadied](Importance::steadied) before they are used.

use crate::graph::Place;
use crate::{Error, Moments, Result};
use ndarray::{Array2, Axis};

/// κ, by which energies are steadied: of 0, 30, 100 and 300 the best in most of the cases tried on validation images of
/// Fashion-MNIST and CIFAR-10, with 30, 100 and 300 images.
pub const PRIOR_IMAGES: u64 = 30;

/// How what is lost at a position adds up over positions: with this power of their number. Errors that are independent
/// add up with the first power, and later layers that are solved again make up for some of them. (Task average / joint on
/// validation images at one network's FLOPs with the powers 0, 1/2, 0.65 and 1: VGG-11 on CIFAR-10 81.58 / 59.30,
/// 88.06 / 69.84, 88.34 / 70.74, 88.48 / 70.42; ResNet-20 there 90.38 / 72.84, 90.16 / 73.42, 90.24 / 73.86, 89.16 / 71.36;
/// `MobileNetV2` on Fashion-MNIST 94.28, 94.53, 94.54, 94.38; ResNet-20 there 96.57, 96.47, 96.64, 96.59. Logarithms of the
/// shares that are left, by the layers they join, as [`MacModel::energy_loss`](crate::budget::MacModel::energy_loss): 88.58,
/// 89.10, 94.41, 96.54.)
pub const POSITIONS: f64 = 2.0 / 3.0;

/// What was measured at one place.
#[derive(Debug, Clone, PartialEq)]
pub struct PlaceSums {
    /// Of `z_v`, N·d features; `None` where that is where the merge point itself is measured.
    pub joint: Option<Moments>,
    /// Of g, for each model, d features.
    pub gradients: Vec<Moments>,
}

/// What was measured of a merge point, place by place.
#[derive(Debug, Clone, PartialEq)]
pub struct Importance {
    /// In the order of the forward pass.
    pub places: Vec<PlaceSums>,
}

impl PlaceSums {
    /// `a²_v`, `[N·d]`: what a change of each feature by 1, at one position, does to the squared logits.
    fn energies(&self) -> Vec<f64> {
        let mean = |own: &Moments| own.squares().map(|sum| sum / own.count as f64).collect::<Vec<_>>();
        self.gradients.iter().flat_map(mean).collect()
    }
}

impl Importance {
    /// Nothing yet, at the places of a point of `dim` features in each model.
    #[must_use]
    pub fn zeros(places: &[Place], n_models: usize, dim: usize) -> Self {
        let place = |place: &Place| PlaceSums {
            joint: (!place.measured).then(|| Moments::zeros(n_models * dim)),
            gradients: vec![Moments::zeros(dim); n_models],
        };
        Self { places: places.iter().map(place).collect() }
    }

    /// Adds another shard's.
    ///
    /// # Errors
    /// Other places, or another number of features.
    pub fn merge(&mut self, other: &Self) -> Result<()> {
        if self.places.len() != other.places.len() {
            return Err(Error::Numbers(format!(
                "importance at {} places cannot be added to that at {}",
                other.places.len(),
                self.places.len()
            )));
        }
        for (own, other) in self.places.iter_mut().zip(&other.places) {
            match (&mut own.joint, &other.joint) {
                (Some(own), Some(other)) => own.merge(other)?,
                (None, None) => {}
                _ => return Err(Error::Numbers("importance of another merge point cannot be added".into())),
            }
            if own.gradients.len() != other.gradients.len() {
                return Err(Error::Numbers("importance of other models cannot be added".into()));
            }
            own.gradients.iter_mut().zip(&other.gradients).try_for_each(|(own, other)| own.merge(other))?;
        }
        Ok(())
    }

    /// Checks that there is a place, that there are samples, and that every number is finite.
    ///
    /// # Errors
    /// [`Error::Numbers`], naming `point`.
    pub fn validate(&self, point: &str) -> Result<()> {
        if self.places.is_empty() {
            return Err(Error::Numbers(format!("`{point}`: no importance was measured")));
        }
        let all = self.places.iter().flat_map(|place| place.joint.iter().chain(&place.gradients));
        all.into_iter().try_for_each(|moments| moments.validate(point))
    }

    /// As so many images tell it. A few images' gradients single out what they happen to show, so what is known without any
    /// counts as [`PRIOR_IMAGES`] would: that all features matter alike. With ē the mean energy at a place, of all models'
    /// features, `G ← (n·G + κ·ē·I)/(n + κ)`.
    ///
    /// ```
    /// use zipit::{Moments, importance::{Importance, PRIOR_IMAGES, PlaceSums}};
    /// let g = |square| Moments { count: 2, sum: vec![0.0], outer: vec![square] };
    /// let place = PlaceSums { joint: None, gradients: vec![g(12.0), g(4.0)] };
    /// let importance = Importance { places: vec![place] };
    /// let steady = importance.steadied(PRIOR_IMAGES);
    /// assert_eq!(steady.places[0].gradients, [g(10.0), g(6.0)]);
    /// ```
    #[must_use]
    pub fn steadied(mut self, n_images: u64) -> Self {
        let share = PRIOR_IMAGES as f64 / (n_images + PRIOR_IMAGES) as f64;
        for place in &mut self.places {
            let energies = place.energies();
            let mean = energies.iter().sum::<f64>() / energies.len() as f64;
            for own in &mut place.gradients {
                let alike = own.count as f64 * mean * share;
                own.outer.iter_mut().chain(&mut own.sum).for_each(|sum| *sum *= 1.0 - share);
                own.add_to_squares(alike);
            }
        }
        self
    }

    /// At all positions together, where energies are means over them: times their number to the power [`POSITIONS`], place by
    /// place. The sums are of `n_images`.
    ///
    /// ```
    /// use zipit::{Moments, importance::{Importance, PlaceSums}};
    /// let at = |positions: u64| {
    ///     let g = Moments { count: 5 * positions, sum: vec![0.0], outer: vec![positions as f64] };
    ///     PlaceSums { joint: None, gradients: vec![g] }
    /// };
    /// let importance = Importance { places: vec![at(1), at(8)] }.at_all_positions(5);
    /// assert_eq!(importance.places[0].gradients[0].outer, [1.0]);
    /// assert!((importance.places[1].gradients[0].outer[0] - 8.0 * 4.0).abs() < 1e-9);
    /// ```
    #[must_use]
    pub fn at_all_positions(mut self, n_images: u64) -> Self {
        for own in self.places.iter_mut().flat_map(|place| &mut place.gradients) {
            let factor = (own.count as f64 / n_images.max(1) as f64).powf(POSITIONS);
            own.outer.iter_mut().for_each(|sum| *sum *= factor);
            own.sum.iter_mut().for_each(|sum| *sum *= factor.sqrt());
        }
        self
    }

    /// α, `[N·d]`.
    #[must_use]
    pub fn weights(&self) -> Vec<f64> {
        let mut total: Vec<f64> = Vec::new();
        for place in &self.places {
            let energies = place.energies();
            total.resize(energies.len(), 0.0);
            total.iter_mut().zip(energies).for_each(|(sum, x)| *sum += x);
        }
        total.into_iter().map(f64::sqrt).collect()
    }

    /// Q, `[N·d, N·d]`; `measured` are the merge point's own moments.
    ///
    /// ```
    /// use zipit::{Moments, importance::{Importance, PlaceSums}};
    /// // z = (x, x) for x = 1, 3; a change of the first feature moves the logits twice as far.
    /// let z = Moments { count: 2, sum: vec![4.0, 4.0], outer: vec![10.0, 10.0, 10.0] };
    /// let g = |square| Moments { count: 2, sum: vec![0.0], outer: vec![square] };
    /// let place = PlaceSums { joint: None, gradients: vec![g(8.0), g(2.0)] };
    /// let importance = Importance { places: vec![place] };
    /// assert_eq!(importance.gram(&z), ndarray::array![[4.0, 2.0], [2.0, 1.0]]);
    /// assert_eq!(importance.weights(), [2.0, 1.0]);
    /// ```
    ///
    /// # Panics
    /// When the moments are of another number of features.
    #[must_use]
    pub fn gram(&self, measured: &Moments) -> Array2<f64> {
        let n = measured.n_joint();
        let mut q = Array2::zeros((n, n));
        for place in &self.places {
            let mut covariance = place.joint.as_ref().unwrap_or(measured).covariance();
            let scale: Vec<f64> = place.energies().into_iter().map(f64::sqrt).collect();
            assert_eq!(scale.len(), n, "importance of another number of features");
            for (mut row, own) in covariance.axis_iter_mut(Axis(0)).zip(&scale) {
                row.iter_mut().zip(&scale).for_each(|(x, other)| *x *= own * other);
            }
            q += &covariance;
        }
        q
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn moments(x: &[f64]) -> Moments {
        Moments { count: x.len() as u64, sum: vec![x.iter().sum()], outer: vec![x.iter().map(|x| x * x).sum()] }
    }

    fn place(first: &[f64], second: &[f64], joint: Option<Moments>) -> PlaceSums {
        PlaceSums { joint, gradients: vec![moments(first), moments(second)] }
    }

    #[test]
    fn places_add_up() {
        let own = Moments { count: 2, sum: vec![4.0, 4.0], outer: vec![10.0, 10.0, 10.0] };
        let other = Moments { count: 2, sum: vec![0.0, 0.0], outer: vec![2.0, -2.0, 2.0] };
        let places = vec![place(&[1.0, 1.0], &[1.0, 1.0], None), place(&[2.0, 0.0], &[0.0, 0.0], Some(other))];
        let both = Importance { places };
        let off = both.gram(&own) - ndarray::array![[1.0 + 2.0, 1.0], [1.0, 1.0]];
        assert!(off.iter().all(|x| x.abs() < 1e-12), "{off}");
        assert_eq!(both.weights(), [3.0_f64.sqrt(), 1.0]);
    }

    /// Place by place, all models' features alike: half of what few images say and half of their mean.
    #[test]
    fn few_images_say_little() {
        let g = |squares: [f64; 2]| Moments { count: 4, sum: vec![2.0, 0.0], outer: vec![squares[0], 1.0, squares[1]] };
        let at = |first, second| PlaceSums { joint: None, gradients: vec![g(first), g(second)] };
        let importance = Importance { places: vec![at([8.0, 0.0], [4.0, 4.0]), at([0.0, 0.0], [80.0, 0.0])] };
        let many = importance.clone().steadied(1000 * PRIOR_IMAGES);
        assert!((many.places[0].gradients[0].outer[0] - 8.0).abs() < 0.01);
        let steady = importance.steadied(PRIOR_IMAGES);
        let squares =
            steady.places.iter().flat_map(|place| &place.gradients).map(|own| own.squares().collect::<Vec<_>>());
        let expected = [[6.0, 2.0], [4.0, 4.0], [10.0, 10.0], [50.0, 10.0]];
        assert!(squares.eq(expected.map(|own| own.to_vec())));
        let own = &steady.places[0].gradients[0];
        assert_eq!((own.outer[1], own.sum[0], own.count), (0.5, 1.0, 4));
    }

    #[test]
    fn shards_add_up_and_others_do_not() {
        let of = |x: &[f64]| Importance { places: vec![place(x, x, None)] };
        let mut sum = of(&[1.0, 2.0]);
        sum.merge(&of(&[3.0])).unwrap();
        assert_eq!(sum, of(&[1.0, 2.0, 3.0]));
        assert!(sum.validate("relu").is_ok());
        assert!(sum.merge(&Importance { places: vec![] }).is_err());
        let elsewhere = Importance { places: vec![place(&[1.0], &[1.0], Some(Moments::zeros(2)))] };
        assert!(sum.merge(&elsewhere).is_err());
        assert!(Importance::zeros(&[], 2, 3).validate("relu").unwrap_err().to_string().contains("no importance"));
        let zeros = Importance { places: vec![place(&[], &[], None)] };
        assert!(zeros.validate("relu").unwrap_err().to_string().contains("no samples"));
    }
}
