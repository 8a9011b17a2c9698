//! Selection: d' of the joint features are kept, and each stands for its group alone.
//!
//! At each [`Place`](crate::graph::Place) v let `C = Cov(z_v)` and G be the gradients' second moments, model by model along
//! the diagonal. The best linear reconstruction of all features from those in S, each seen with noise of variance `λ_k`, leaves
//! `R = C − C[:,S] (C[S,S] + diag λ)⁻¹ C[S,:]`, and `Σ_v tr(G R)` is what that does to the squared logits. Feature k lowers it by
//! `Σ_v (R G R)_kk / (R_kk + λ_k)`: the best one joins S, and R becomes `R − ccᵀ`, `c = R e_k / √(R_kk + λ_k)`, until S is full. Then
//! each one in S is taken out in turn (`R + ccᵀ`, `c = R e_k / √(λ_k − R_kk)`, is what remains without it) and the best in its
//! place taken in. What is left out joins the kept feature that is next to it in [Q](crate::importance).
//!
//! A merged feature is then one network's own, and what a ReLU makes of it is what it made of it there: of an average it is
//! not.

use super::metric::Metric;
use super::{Living, Matching};
use crate::importance::PlaceSums;
use crate::products::{add_product, times};
use crate::watch::Watch;
use crate::{Error, Importance, Moments, Result};
use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis, Slice};

/// Directions whose part of R is taken off together.
const BLOCK: usize = 64;
/// λ, in units of a feature's own variance: so that what the others say exactly gains next to nothing, and rounding less.
const NOISE: f64 = 1e-5;
/// A swap has to be better by more than rounding.
const BETTER: f64 = 1.0 + 1e-6;

/// `of.n_groups` of the features and those next to them; `gram` is Q among them.
pub(super) fn select(
    importance: &Importance,
    measured: &Moments,
    of: &Living<'_>,
    gram: ArrayView2<'_, f64>,
    watch: &dyn Watch,
) -> Result<Matching> {
    let mut selection = Selection::new(importance, measured, of.features);
    for _ in 0..of.n_groups {
        selection.extend(watch)?;
    }
    selection.swap(watch)?;
    let kept = selection.kept;
    let mut number = vec![None; of.features.len()];
    kept.iter().enumerate().for_each(|(g, &k)| number[k] = Some(g as u32));
    let next_to = |j: usize| {
        let apart = |k: usize| gram[[k, k]] - 2.0 * gram[[j, k]];
        let nearest = kept.iter().enumerate().min_by(|(_, a), (_, b)| apart(**a).total_cmp(&apart(**b)));
        nearest.map_or(0, |(g, _)| g as u32)
    };
    let groups: Vec<u32> = number.iter().enumerate().map(|(j, own)| own.unwrap_or_else(|| next_to(j))).collect();
    let weights = number.iter().map(|own| f32::from(u8::from(own.is_some()))).collect();
    Ok(Matching { weights: Some(weights), ..Matching::from_groups(&groups) })
}

/// What is lost with the first 1, 2, …, n of the `features` that are selected, `[n]`.
///
/// # Errors
/// [`Error::Interrupted`].
pub(super) fn losses(
    importance: &Importance,
    measured: &Moments,
    features: &[usize],
    watch: &dyn Watch,
) -> Result<Vec<f64>> {
    let mut selection = Selection::new(importance, measured, features);
    let mut left = selection.places.iter().map(Place::loss).sum::<f64>();
    let mut after = |gain: f64| {
        left = (left - gain).max(0.0);
        left
    };
    features.iter().map(|_| Ok(after(selection.extend(watch)?))).collect()
}

/// S, and what each place sees of it.
struct Selection {
    kept: Vec<usize>,
    is_kept: Vec<bool>,
    places: Vec<Place>,
}

impl Selection {
    fn new(importance: &Importance, measured: &Moments, features: &[usize]) -> Self {
        let places = importance.places.iter().map(|place| Place::new(place, measured, features)).collect();
        Self { kept: Vec::new(), is_kept: vec![false; features.len()], places }
    }

    /// Takes in the best that is left; what it gains.
    fn extend(&mut self, watch: &dyn Watch) -> Result<f64> {
        if watch.interrupted() {
            return Err(Error::Interrupted);
        }
        let gains = self.places.iter().map(Place::gains).fold(Array1::zeros(self.is_kept.len()), |sum, of| sum + of);
        let Some((k, gain)) = best(&gains, |k| self.is_kept[k]) else { return Ok(0.0) };
        self.places.iter_mut().for_each(|place| place.take_in(k));
        self.is_kept[k] = true;
        self.kept.push(k);
        Ok(gain)
    }

    /// Takes each one out and the best in its place in.
    fn swap(&mut self, watch: &dyn Watch) -> Result<()> {
        for at in 0..self.kept.len() {
            if watch.interrupted() {
                return Err(Error::Interrupted);
            }
            let out = self.kept[at];
            let without: Vec<Direction> = self.places.iter().map(|place| place.without(out)).collect();
            let mut gains = Array1::zeros(self.is_kept.len());
            for (place, direction) in self.places.iter().zip(&without) {
                gains += &place.gains_after(direction);
            }
            let Some((k, gain)) = best(&gains, |k| self.is_kept[k]) else { continue };
            let own = without.iter().map(|direction| direction.loss).sum::<f64>();
            if gain > own * BETTER {
                for (place, direction) in self.places.iter_mut().zip(without) {
                    place.add(direction, 1.0);
                    place.take_in(k);
                }
                (self.is_kept[out], self.is_kept[k], self.kept[at]) = (false, true, k);
            }
        }
        Ok(())
    }
}

/// The largest that is not left out, the first of equals.
fn best(gains: &Array1<f64>, left_out: impl Fn(usize) -> bool) -> Option<(usize, f64)> {
    let all = gains.iter().copied().enumerate().filter(|&(k, _)| !left_out(k));
    all.fold(None, |best, (k, gain)| match best {
        Some((_, most)) if gain <= most => best,
        _ => Some((k, gain)),
    })
}

/// A direction c by which R changes, `[n]`.
struct Direction {
    c: Array1<f64>,
    /// R G c.
    seen: Array1<f64>,
    /// cᵀ G c.
    loss: f64,
}

/// R at one place, and diag(R G R).
struct Place {
    metric: Metric,
    /// λ.
    noise: Array1<f64>,
    /// R but for ± ccᵀ of the directions in `recent`, `[block, n]`, of which as many are there as there are `signs`.
    base: Array2<f64>,
    recent: Array2<f64>,
    signs: Vec<f64>,
    variances: Array1<f64>,
    energies: Array1<f64>,
}

impl Place {
    fn new(place: &PlaceSums, measured: &Moments, features: &[usize]) -> Self {
        let c = place.joint.as_ref().unwrap_or(measured).covariance();
        let base = c.select(Axis(0), features).select(Axis(1), features).as_standard_layout().into_owned();
        let metric = Metric::new(place, features);
        let n = features.len();
        // By columns, so that no second matrix of the size is there.
        let mut energies = Array1::zeros(n);
        for first in (0..n).step_by(BLOCK) {
            let some = Slice::from(first..n.min(first + BLOCK));
            energies.slice_axis_mut(Axis(0), some).assign(&metric.of(base.slice_axis(Axis(1), some)));
        }
        let variances = base.diag().to_owned();
        // Where nothing happens, nothing is lost.
        let noise = variances.mapv(|variance| if variance > 0.0 { NOISE * variance } else { 1.0 });
        let recent = Array2::zeros((BLOCK, n));
        Self { metric, noise, base, recent, signs: Vec::with_capacity(BLOCK), variances, energies }
    }

    /// tr(G R).
    fn loss(&self) -> f64 {
        self.metric.trace_with(&self.base)
    }

    /// What each feature would gain, `[n]`.
    fn gains(&self) -> Array1<f64> {
        let gain = |k: usize| self.energies[k].max(0.0) / (self.variances[k].max(0.0) + self.noise[k]);
        (0..self.noise.len()).map(gain).collect()
    }

    /// The same if R were R + ccᵀ.
    fn gains_after(&self, Direction { c, seen, loss }: &Direction) -> Array1<f64> {
        let gain = |k: usize| {
            let energy = self.energies[k] + c[k] * (2.0 * seen[k] + loss * c[k]);
            energy.max(0.0) / ((self.variances[k] + c[k] * c[k]).max(0.0) + self.noise[k])
        };
        (0..c.len()).map(gain).collect()
    }

    fn take_in(&mut self, k: usize) {
        let direction = self.direction(k, self.variances[k].max(0.0) + self.noise[k]);
        self.add(direction, -1.0);
    }

    /// What taking out k would add.
    fn without(&self, k: usize) -> Direction {
        // Of λ, that is λ over what the others leave of k: at least λ over its variance, which rounding must not take away.
        self.direction(k, (self.noise[k] - self.variances[k]).max(self.noise[k] * NOISE / 2.0))
    }

    /// `c = R e_k / √square`.
    fn direction(&self, k: usize, square: f64) -> Direction {
        let mut c = self.base.row(k).to_owned();
        self.add_recent(&mut c, self.recent().column(k));
        c /= square.sqrt();
        let weighed = self.metric.times(&c);
        let mut seen = times(&self.base, &weighed);
        self.add_recent(&mut seen, self.recent().dot(&weighed).view());
        Direction { loss: c.dot(&weighed), c, seen }
    }

    /// x + Σ ± c (cᵀy) for what each direction has in common with y.
    fn add_recent(&self, x: &mut Array1<f64>, common: ArrayView1<'_, f64>) {
        for ((c, sign), common) in self.recent.rows().into_iter().zip(&self.signs).zip(common) {
            x.scaled_add(sign * common, &c);
        }
    }

    /// R ± ccᵀ.
    fn add(&mut self, Direction { c, seen, loss }: Direction, sign: f64) {
        self.energies.zip_mut_with(&(&c * &(seen * 2.0 * sign + &c * loss)), |energy, x| *energy += x);
        self.variances.zip_mut_with(&c, |variance, c| *variance += sign * c * c);
        self.recent.row_mut(self.signs.len()).assign(&c);
        self.signs.push(sign);
        if self.signs.len() == BLOCK {
            let recent = self.recent.t().as_standard_layout().into_owned();
            let signed = &recent * &Array1::from(std::mem::take(&mut self.signs));
            add_product(&mut self.base, signed.view(), recent.view());
        }
    }

    fn recent(&self) -> ArrayView2<'_, f64> {
        self.recent.slice_axis(Axis(0), Slice::from(0..self.signs.len()))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::cholesky::Cholesky;
    use crate::watch::Unwatched;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    fn moments(x: &Array2<f32>) -> Moments {
        let mut moments = Moments::zeros(x.ncols());
        moments.add_batch(x.nrows() as u64, &x.sum_axis(Axis(0)).to_vec(), x.t().dot(x).view());
        moments
    }

    /// Two models of `d` features at two places, each feature noise and a part of its neighbours.
    fn measured(d: usize, seed: u64) -> (Importance, Moments) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut draw = |width: usize| {
            let x = Array2::from_shape_simple_fn((300, width), || rng.random_range(-1.0_f32..1.0));
            let mix = Array2::from_shape_simple_fn((width, width), || rng.random_range(-1.0_f32..1.0).powi(3));
            moments(&x.dot(&mix))
        };
        let own = draw(2 * d);
        let places = [None, Some(draw(2 * d))];
        let places = places.map(|joint| PlaceSums { joint, gradients: vec![draw(d), draw(d)] });
        (Importance { places: places.into() }, own)
    }

    /// Σ tr(G R) by the formula.
    fn lost(importance: &Importance, own: &Moments, kept: &[usize]) -> f64 {
        let at = |place: &PlaceSums| {
            let c = place.joint.as_ref().unwrap_or(own).covariance();
            let columns = c.select(Axis(1), kept);
            let mut own = columns.select(Axis(0), kept);
            own.diag_mut().mapv_inplace(|variance| variance * (1.0 + NOISE));
            let factor = Cholesky::new(own, 0.0).unwrap();
            let mut solved = columns.as_standard_layout().into_owned();
            factor.solve_rows(&mut solved);
            let all: Vec<usize> = (0..c.nrows()).collect();
            Metric::new(place, &all).trace_with(&(&c - &solved.dot(&columns.t())))
        };
        importance.places.iter().map(at).sum()
    }

    /// What is taken out again is known but for λ² of its variance.
    fn close(a: f64, b: f64, scale: f64) {
        assert!((a - b).abs() < 1e-6 * scale, "{a} {b}");
    }

    #[test]
    fn the_best_one_joins_and_what_is_left_is_the_formula() {
        // More than one block of directions.
        let (importance, own) = measured(50, 1);
        let all: Vec<usize> = (0..100).collect();
        let curve = losses(&importance, &own, &all, &Unwatched).unwrap();
        let mut selection = Selection::new(&importance, &own, &all);
        let scale = lost(&importance, &own, &[0]);
        for (step, left) in curve.iter().enumerate() {
            let before = selection.kept.clone();
            selection.extend(&Unwatched).unwrap();
            close(*left, lost(&importance, &own, &selection.kept), scale);
            if step % 20 == 0 {
                let with = |k: usize| lost(&importance, &own, &[&before[..], &[k]].concat());
                let others = (0..100).filter(|k| !before.contains(k));
                let best = others.min_by(|&a, &b| with(a).total_cmp(&with(b))).unwrap();
                assert_eq!(best, selection.kept[step]);
            }
        }
    }

    #[test]
    fn swaps_only_help_and_what_is_left_is_the_formula() {
        let mut swapped = 0;
        for seed in 0..6 {
            let (importance, own) = measured(12, seed);
            let all: Vec<usize> = (0..24).collect();
            let mut selection = Selection::new(&importance, &own, &all);
            (0..9).for_each(|_| assert!(selection.extend(&Unwatched).unwrap() > 0.0));
            let (before, greedy) = (selection.kept.clone(), lost(&importance, &own, &selection.kept));
            selection.swap(&Unwatched).unwrap();
            let after = lost(&importance, &own, &selection.kept);
            swapped += before.iter().zip(&selection.kept).filter(|(a, b)| a != b).count();
            assert!(after <= greedy * (1.0 + 1e-9), "{after} {greedy}");
            assert_eq!(selection.is_kept.iter().filter(|kept| **kept).count(), 9);
            // R and what is kept of it are still those of the selection.
            let fresh = Selection::new(&importance, &own, &all);
            let left = |(place, fresh): (&Place, &Place)| {
                let recent = place.recent().t().to_owned();
                let r = &place.base + &(&recent * &Array1::from(place.signs.clone())).dot(&recent.t());
                let energy = |k: usize| r.column(k).dot(&place.metric.times(&r.column(k).to_owned()));
                (0..24).for_each(|k| close(place.energies[k], energy(k), fresh.energies.sum()));
                place.metric.trace_with(&r)
            };
            close(
                selection.places.iter().zip(&fresh.places).map(left).sum(),
                after,
                fresh.places.iter().map(Place::loss).sum(),
            );
        }
        assert!(swapped > 0, "no case in which a swap helps");
    }

    #[test]
    fn one_of_every_pair_of_twins_is_kept() {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let x = Array2::from_shape_simple_fn((200, 6), || rng.random_range(-1.0_f32..1.0));
        let twins = ndarray::concatenate(Axis(1), &[x.view(), x.select(Axis(1), &[3, 1, 5, 0, 2, 4]).view()]).unwrap();
        let g = moments(&x);
        let importance = Importance { places: vec![PlaceSums { joint: None, gradients: vec![g.clone(), g] }] };
        let own = moments(&twins);
        let of = Living { features: &(0..12).collect::<Vec<_>>(), sizes: &[6, 6], n_groups: 6 };
        let matching = select(&importance, &own, &of, importance.gram(&own).view(), &Unwatched).unwrap();
        let second: Vec<u32> = [3, 1, 5, 0, 2, 4].to_vec();
        assert_eq!(matching.assignment, [(0..6).collect::<Vec<_>>(), second].concat());
        let weights: Vec<bool> = matching.weights.unwrap().into_iter().map(|x| x > 0.5).collect();
        assert!((0..6).all(|j| weights[j] != weights[6 + [3, 1, 4, 0, 5, 2][j]]), "{weights:?}");
    }
}
