//! How strongly a layer is held at W*: the power of ten that predicts the held-out images best.
//!
//! Every power that is tried takes a factorisation of Cov(x), F³/6 multiply-adds, and 2·O·F² for what it predicts. So the
//! slope of what is off says on which side of a power to look, and whether that can be worth it. Where there are many
//! outputs, slopes, and larger powers than the first, are told from a few random sums of outputs, Σₒ ±yₒ: the expectation
//! over signs of what such sums are off is what all outputs are off (Hutchinson's estimator of a trace), and what two
//! powers differ by is told as well as it is large. How much is off at all is then told of some outputs.

use super::system::{Central, Pair, share};
use crate::Result;
use crate::cholesky::Cholesky;
use ndarray::{Array1, Array2};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::cell::OnceCell;

/// The powers of ten that are tried.
const FIRST_TRIED: i32 = -6;
pub(super) const LAST_DECADE: i32 = 2;
/// The first of those that are taken where they are no worse, and where the search begins; one above it, where there are
/// fewer samples than [`FEW`] for every input; of at least [`WIDE`] inputs, at what a layer of that shape took.
pub(super) const FIRST_DECADE: i32 = -3;
const FEW: f64 = 4.0;
const WIDE: usize = 1024;
/// A ridge below the first is chosen if it leaves no more than this share of the next larger one's error. On images that
/// are nearly among the fitted ones (frames of a film), the error falls with the ridge for ever, but hardly.
const WORTH_IT: f64 = 0.9;
/// By so many slopes the error can fall where the ridge falls to a tenth, if W* is what is off: in a direction that varies
/// by e it is (λ/(λ + e))² of what W* is off, and the slope grows no faster than 1/λ.
const TO_A_TENTH: f64 = 9.0;
/// Random sums of outputs, where there are more than [`MANY`].
const N_SUMS: usize = 32;
const MANY: usize = 4 * N_SUMS;

/// Factors of what is fitted, with one ridge.
type Factors = Vec<Option<Cholesky>>;

/// A power of ten that was tried.
struct Attempt {
    /// What its solution of the fitted images is off on the held-out ones, of all outputs or beyond what is the same for all
    /// powers; infinite without a solution.
    error: f64,
    /// How that grows with the logarithm of the ridge.
    slope: f64,
    factors: Factors,
}

/// The power of ten, and what its solution of the fitted images is off on the held-out ones, as a share of the targets'
/// variance, of [`MANY`] outputs where there are more; infinite where none has a solution. What is fitted is left
/// factorised with it. `near` is the ridge of a layer of that shape.
pub(super) fn choose(pairs: &mut [Pair], prior: &Array2<f64>, near: Option<f64>) -> (i32, f64) {
    let tried = Tried { near, ..Tried::new(pairs, prior) };
    let energy: f64 = tried.judged.iter().map(|[_, held]| held.central.energy).sum();
    let (decade, best) = if many(pairs) { tried.by_sums() } else { tried.in_full() };
    for ([fit, _], factor) in pairs.iter_mut().zip(best.factors) {
        fit.factor = factor;
    }
    (decade, if best.error.is_finite() { share(best.error, energy) } else { best.error })
}

/// Whether there are many outputs in each.
fn many(pairs: &[Pair]) -> bool {
    pairs.iter().all(|[fit, _]| fit.rows.len() > MANY)
}

struct Tried<'a> {
    pairs: &'a [Pair],
    prior: &'a Array2<f64>,
    /// Some outputs of each: all, where there are few in any.
    judged: Vec<Pair>,
    /// W* of these, and what is through it.
    priors: OnceCell<Vec<[Array2<f64>; 2]>>,
    near: Option<f64>,
}

impl<'a> Tried<'a> {
    fn new(pairs: &'a [Pair], prior: &'a Array2<f64>) -> Self {
        Self::judging(if many(pairs) { MANY } else { usize::MAX }, pairs, prior)
    }

    /// By so many outputs of each.
    fn judging(most: usize, pairs: &'a [Pair], prior: &'a Array2<f64>) -> Self {
        let judged = pairs.iter().map(|pair| pair.each_ref().map(|system| system.some_outputs(most))).collect();
        Self { pairs, prior, judged, priors: OnceCell::new(), near: None }
    }

    fn factors(&self, decade: i32) -> Result<Factors> {
        self.pairs.iter().map(|[fit, _]| fit.central.factor(ridge(decade))).collect()
    }

    fn priors(&self) -> &[[Array2<f64>; 2]] {
        self.priors.get_or_init(|| self.judged.iter().map(|[fit, _]| fit.prior(self.prior)).collect())
    }

    /// W and b of the outputs that are judged.
    fn solutions(&self, decade: i32, factors: &Factors) -> Vec<(Array2<f64>, Array1<f64>)> {
        let each = self.judged.iter().zip(self.priors()).zip(factors);
        each.map(|(([fit, _], [prior, through]), factor)| {
            let (w, b, _) = fit.central.solve(prior, through, factor.as_ref(), ridge(decade));
            (w, b)
        })
        .collect()
    }

    /// What a power's solutions are off.
    fn error(&self, decade: i32, factors: &Factors) -> f64 {
        let solutions = self.solutions(decade, factors);
        self.judged.iter().zip(solutions).map(|([_, held], (w, b))| held.central.error(&w, &b)).sum()
    }

    fn start(&self) -> i32 {
        let is_wide = self.pairs.iter().any(|[fit, _]| fit.central.x.len() >= WIDE);
        if let Some(near) = self.near.filter(|_| is_wide) {
            return (near.log10().round() as i32).clamp(FIRST_DECADE, LAST_DECADE);
        }
        let few = |[fit, _]: &Pair| fit.count < FEW * fit.central.x.len() as f64;
        FIRST_DECADE + i32::from(self.pairs.iter().all(few))
    }

    fn in_full(&self) -> (i32, Attempt) {
        let start = self.start();
        let score = |decade| self.score(decade);
        descend(start, attempt(score, start), FIRST_TRIED, score)
    }

    fn score(&self, decade: i32) -> Result<Attempt> {
        let factors = self.factors(decade)?;
        let (mut error, mut slope) = (0.0, 0.0);
        let solved = self.solutions(decade, &factors);
        for ((([fit, held], [prior, _]), (w, b)), factor) in
            self.judged.iter().zip(self.priors()).zip(solved).zip(&factors)
        {
            let both = [&fit.central, &held.central];
            let held = &held.central;
            let through = held.through(&w);
            error += held.error_through(&w, &b, &through);
            let aside = w.dot(&held.x) + b - &held.y;
            let off = w - prior;
            slope += slope_of(off, through - &held.yx, &aside, both, factor.as_ref(), ridge(decade));
        }
        Ok(Attempt { error, slope, factors })
    }

    fn by_sums(&self) -> (i32, Attempt) {
        let sums: Vec<SomeSums> = self.pairs.iter().map(|pair| SomeSums::new(pair, &pair[0].own(self.prior))).collect();
        let score = |decade: i32| {
            let factors = self.factors(decade)?;
            let each = self.pairs.iter().zip(&sums).zip(&factors);
            let each = each.map(|((pair, sums), factor)| sums.off(pair, factor.as_ref(), ridge(decade)));
            let (error, slope) = each.fold((0.0, 0.0), |(error, slope), [a, b]| (error + a, slope + b));
            Ok(Attempt { error, slope, factors })
        };
        let energy = |pairs: &[Pair]| pairs.iter().map(|[_, held]| held.central.energy).sum::<f64>();
        let judged = share(energy(&self.judged), energy(self.pairs));
        // What is left below may be a small part of the first power's error: sums do not tell it from none.
        let in_full = |decade: i32, mut tried: Attempt| {
            if tried.error.is_finite() {
                (tried.error, tried.slope) = (self.error(decade, &tried.factors), tried.slope * judged);
            }
            tried
        };
        let start = self.start();
        let (decade, best) = descend(start, attempt(score, start), FIRST_DECADE, score);
        let best = in_full(decade, best);
        if decade == FIRST_DECADE && best.slope > 0.0 {
            return descend(decade, best, FIRST_TRIED, |decade| score(decade).map(|tried| in_full(decade, tried)));
        }
        (decade, best)
    }
}

/// How what is off on held-out images grows with the logarithm of the ridge: dW/dlnλ = −load·(W − W*)·(Cov(x) + load)⁻¹,
/// and b follows. Given W − W*, W Cov(x) − Cov(y, x) and W x̄ + b − ȳ, the latter two of the held-out images.
fn slope_of(
    off: Array2<f64>,
    missed: Array2<f64>,
    aside: &Array1<f64>,
    [fit, held]: [&Central; 2],
    factor: Option<&Cholesky>,
    ridge: f64,
) -> f64 {
    let Some(factor) = factor else { return 0.0 };
    let mut moved = off * (-ridge * fit.scale);
    factor.solve_rows(&mut moved);
    let shift = moved.dot(&(&held.x - &fit.x));
    2.0 * ((missed * moved).sum() + aside.dot(&shift))
}

/// Sums of a group's outputs with random signs.
struct SomeSums {
    /// Of W* and of Cov(y, x) − W*·Cov(x), `[K, F]`, and of the means of y `[K]`; the fitted means of x.
    prior: Array2<f64>,
    missing: Array2<f64>,
    y: Array1<f64>,
    x: Array1<f64>,
    /// The same of the held-out images' Cov(y, x) and means of y.
    held: (Array2<f64>, Array1<f64>),
}

impl SomeSums {
    fn new([fit, held]: &Pair, prior: &Array2<f64>) -> Self {
        let (fit, held) = (&fit.central, &held.central);
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        let signs = Array2::from_shape_simple_fn((N_SUMS, prior.nrows()), || if rng.random() { 1.0 } else { -1.0 });
        let prior = signs.dot(prior);
        let missing = signs.dot(&fit.yx) - fit.through(&prior);
        let held = (signs.dot(&held.yx), signs.dot(&held.y));
        let (y, x) = (signs.dot(&fit.y), fit.x.clone());
        Self { prior, missing, y, x, held }
    }

    /// What all outputs are off, without what is the same for all powers; and how that grows.
    fn off(&self, [fit, held]: &Pair, factor: Option<&Cholesky>, ridge: f64) -> [f64; 2] {
        let (fit, held) = (&fit.central, &held.central);
        let mut off = Array2::zeros(self.prior.raw_dim());
        if let Some(factor) = factor {
            off.assign(&self.missing);
            factor.solve_rows(&mut off);
        }
        let w = &self.prior + &off;
        let b = &self.y - &w.dot(&self.x);
        let (yx, y) = &self.held;
        let (through, aside) = (held.through(&w), w.dot(&held.x) + b - y);
        let error = ((&through - &(yx * 2.0)) * &w).sum() + aside.dot(&aside);
        let slope = slope_of(off, through - yx, &aside, [fit, held], factor, ridge);
        [error, slope].map(|of_sums| of_sums / N_SUMS as f64)
    }
}

fn ridge(decade: i32) -> f64 {
    10_f64.powi(decade)
}

/// A ridge too small for the rounding of the sums is no candidate, and larger ones may be.
fn attempt(score: impl Fn(i32) -> Result<Attempt>, decade: i32) -> Attempt {
    let none = Attempt { error: f64::INFINITY, slope: f64::NEG_INFINITY, factors: vec![] };
    score(decade).ok().filter(|tried| !tried.error.is_nan()).unwrap_or(none)
}

/// The decade with the lowest score, downhill from one that was attempted, upwards or, where that may be worth it, below,
/// down to the `lowest`.
fn descend(mut decade: i32, mut best: Attempt, lowest: i32, score: impl Fn(i32) -> Result<Attempt>) -> (i32, Attempt) {
    let below = best.slope > 0.0;
    let side = if below { -1 } else { 1 };
    while (lowest..=LAST_DECADE).contains(&(decade + side)) {
        let next = decade + side;
        let enough = if next < FIRST_DECADE { WORTH_IT * best.error } else { best.error };
        let may_fall = if below { TO_A_TENTH * best.slope } else { -best.slope };
        if may_fall <= best.error - enough {
            break;
        }
        let tried = attempt(&score, next);
        if tried.error >= enough && (best.error.is_finite() || below) {
            break;
        }
        (decade, best) = (next, tried);
    }
    (decade, best)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::design::Design;
    use super::super::sums::Sums;
    use super::super::system::pairs;
    use super::*;
    use std::cell::RefCell;

    const N_INPUTS: usize = 24;
    const N_OUTPUTS: usize = MANY + 40;

    /// Sums of n samples x and y = A x + c + noise, the inputs' scales falling as 1/i.
    fn sums(n: usize, noise: f64, seed: u64) -> Sums {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut normal = move || (0..6).map(|_| rng.random_range(-1.0..1.0)).sum::<f64>() * 0.707;
        let x = Array2::from_shape_fn((n, N_INPUTS), |(_, i)| 1.0 + normal() / (i + 1) as f64);
        let a = Array2::from_shape_fn((N_OUTPUTS, N_INPUTS), |(o, i)| ((5 * o + 3 * i) % 11) as f64 / 5.0 - 1.0);
        let y = x.dot(&a.t()) + 0.5 + Array2::from_shape_simple_fn((n, N_OUTPUTS), || noise * normal());
        let mut sums = Sums::zeros(Design { n_groups: 1, n_inputs: N_INPUTS, n_outputs: N_OUTPUTS });
        sums.add_samples(&x, &y);
        sums
    }

    /// Few random sums of outputs choose what all outputs choose, or what is as good; and what is off is of all outputs.
    #[test]
    fn random_sums_of_outputs_choose_as_all_of_them() {
        let prior = Array2::from_elem((N_OUTPUTS, N_INPUTS), 0.1);
        let mut chosen = vec![];
        for (seed, (n, noise)) in [(2000, 0.0), (200, 0.01), (200, 1.0), (40, 0.3), (30, 3.0)].into_iter().enumerate() {
            let [fitted, held_out] = [sums(n, noise, seed as u64), sums(100, noise, seed as u64 + 100)];
            let pairs = pairs(&fitted, &held_out);
            let all = Tried::judging(usize::MAX, &pairs, &prior);
            let [(full, best), (decade, found)] = [all.in_full(), Tried::new(&pairs, &prior).by_sums()];
            let off = all.error(decade, &found.factors);
            assert!(
                (decade - full).abs() <= 1 && off <= 1.02 * best.error,
                "{n}, {noise}: {decade} {off}, {full} {}",
                best.error
            );
            let share = [&found, &best].map(|tried| tried.error).map(|error| error / pairs[0][1].central.energy);
            let some = Tried::new(&pairs, &prior).judged[0][1].central.energy / pairs[0][1].central.energy;
            assert!((share[0] / some / share[1] - 1.0).abs() < 0.3, "some outputs say what all do: {share:?}");
            chosen.push(decade);
        }
        chosen.sort_unstable();
        assert!(chosen[0] < FIRST_DECADE && chosen[4] > FIRST_DECADE, "both sides are looked at: {chosen:?}");
    }

    /// The slope says how the error changes with the ridge, of sums of outputs and of outputs.
    #[test]
    fn the_slope_is_that_of_the_error() {
        let [fitted, held_out] = [sums(60, 1.0, 1), sums(100, 1.0, 2)];
        let pairs = pairs(&fitted, &held_out);
        let [fit, held] = &pairs[0];
        let prior = Array2::from_elem((N_OUTPUTS, N_INPUTS), 0.1);
        let some = SomeSums::new(&pairs[0], &prior);
        let sums_off = |ridge: f64| some.off(&pairs[0], fit.central.factor(ridge).unwrap().as_ref(), ridge);
        let all_off = |ridge: f64| {
            let [own, through] = fit.prior(&prior);
            let factor = fit.central.factor(ridge).unwrap();
            let (w, b, _) = fit.central.solve(&own, &through, factor.as_ref(), ridge);
            held.central.error(&w, &b)
        };
        let first = ridge(FIRST_DECADE);
        let (step, sides) = (1e-3_f64, [1.0, -1.0]);
        let [more, less] = sides.map(|side| sums_off(first * (side * step).exp())[0]);
        let (found, expected) = (sums_off(first)[1], (more - less) / (2.0 * step));
        assert!((found - expected).abs() < 1e-4 * expected.abs(), "{found} {expected}");
        let tried = Tried::judging(usize::MAX, &pairs, &prior);
        let score = tried.score(FIRST_DECADE).unwrap();
        let [more, less] = sides.map(|side| all_off(first * (side * step).exp()));
        let expected = (more - less) / (2.0 * step);
        assert!((score.slope - expected).abs() < 1e-4 * expected.abs(), "{} {expected}", score.slope);
        assert!((score.error - all_off(first)).abs() < 1e-9 * score.error);
    }

    /// Where many inputs make a factorisation dear, the search begins at the ridge of a layer of that shape.
    #[test]
    fn it_begins_where_a_layer_like_it_ended() {
        let start = |n_inputs: usize, near: Option<f64>| {
            let mut rng = ChaCha8Rng::seed_from_u64(1);
            let x = Array2::from_shape_simple_fn((10, n_inputs), || rng.random_range(-1.0..1.0));
            let mut sums = Sums::zeros(Design { n_groups: 1, n_inputs, n_outputs: 1 });
            sums.add_samples(&x, &x.select(ndarray::Axis(1), &[0]));
            let (pairs, prior) = (pairs(&sums, &sums), Array2::zeros((1, n_inputs)));
            Tried { near, ..Tried::new(&pairs, &prior) }.start()
        };
        assert_eq!([1e-6, 1e-1, 0.99e2, 1e9].map(|ridge| start(WIDE, Some(ridge))), [FIRST_DECADE, -1, 2, LAST_DECADE]);
        assert_eq!([start(WIDE, None), start(WIDE - 1, Some(10.0))], [FIRST_DECADE + 1; 2], "few samples");
    }

    /// Errors as they fall and rise, with slopes of their own; what is tried, in order, and what is chosen.
    #[test]
    fn only_what_may_be_better_is_tried() {
        let walk_from = |start: i32, scores: &dyn Fn(i32) -> Option<(f64, f64)>| {
            let tried = RefCell::new(vec![]);
            let score = |decade: i32| {
                tried.borrow_mut().push(decade);
                let none = || crate::Error::Numbers("not positive definite".into());
                let (error, slope) = scores(decade).ok_or_else(none)?;
                Ok(Attempt { error, slope, factors: vec![] })
            };
            let (decade, best) = descend(start, attempt(score, start), FIRST_TRIED, score);
            (decade, best.error.is_finite(), tried.into_inner())
        };
        let walk = |scores: &dyn Fn(i32) -> Option<(f64, f64)>| walk_from(FIRST_DECADE, scores);
        let parabola = |lowest: f64, flat: f64| {
            move |decade: i32| {
                let off = f64::from(decade) - lowest;
                Some((1.0 + off * off / flat, 2.0 * off / flat / std::f64::consts::LN_10))
            }
        };
        assert_eq!(walk(&parabola(-1.4, 1.0)), (-1, true, vec![-3, -2, -1]));
        assert_eq!(walk(&parabola(-1.6, 1.0)), (-2, true, vec![-3, -2, -1]));
        assert_eq!(walk(&parabola(-5.2, 1.0)), (-5, true, vec![-3, -4, -5, -6]));
        assert_eq!(walk(&parabola(-3.4, 100.0)), (-3, true, vec![-3]), "not worth it");
        assert_eq!(walk(&parabola(9.0, 1.0)), (LAST_DECADE, true, vec![-3, -2, -1, 0, 1, 2]));
        assert_eq!(walk(&parabola(-9.0, 1.0)), (FIRST_TRIED, true, vec![-3, -4, -5, -6]));
        // All that W* leaves is in a direction that varies by a hundredth of the ridge: hardly a slope, but much to win.
        let far = |decade: i32| {
            let share = 1.0 / (1.0 + 1e-5 / ridge(decade));
            Some((share * share, 2.0 * share * share * (1.0 - share)))
        };
        assert_eq!(walk(&far), (FIRST_TRIED, true, vec![-3, -4, -5, -6]));
        // Too small a ridge for the rounding of the sums.
        let singular = |decade: i32| (decade > -2).then_some((f64::from(decade), 1.0));
        assert_eq!(walk(&singular), (-1, true, vec![-3, -2, -1]));
        assert!(!walk(&|_| None).1);
        // From one above, down to the first where that is better at all.
        assert_eq!(walk_from(-2, &parabola(-2.8, 100.0)), (-3, true, vec![-2, -3]));
        assert_eq!(walk_from(-2, &parabola(-2.4, 100.0)), (-2, true, vec![-2, -3]));
        assert_eq!(walk_from(-2, &parabola(-0.9, 1.0)), (-1, true, vec![-2, -1, 0]));
    }
}
