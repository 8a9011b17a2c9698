//! How strongly a layer is held at W*: the power of ten that predicts the held-out images best.
//!
//! Every power that is tried takes a factorisation of Cov(x), F³/6 multiply-adds, and 2·O·F² for what it predicts. Where
//! there are many outputs, larger powers than the first are compared by a few random sums of outputs, Σₒ ±yₒ: the
//! expectation over signs of what such sums are off is what all outputs are off (Hutchinson's estimator of a trace), and
//! what two powers differ by is told as well as it is large. In the same way the slope at the first power says on which of
//! its sides to look.

use super::system::{Central, Pair};
use crate::Result;
use crate::cholesky::Cholesky;
use ndarray::{Array1, Array2};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::cell::OnceCell;

/// The powers of ten that are tried.
const FIRST_TRIED: i32 = -6;
pub(super) const LAST_DECADE: i32 = 2;
/// Where the search begins.
pub(super) const FIRST_DECADE: i32 = -3;
/// A ridge below the first is chosen if it leaves no more than this share of the next larger one's error. On images that
/// are nearly among the fitted ones (frames of a film), the error falls with the ridge for ever, but hardly.
const WORTH_IT: f64 = 0.9;
/// Random sums of outputs, where there are more than [`MANY`].
const N_SUMS: usize = 32;
const MANY: usize = 4 * N_SUMS;

/// Factors of what is fitted, with one ridge.
type Factors = Vec<Option<Cholesky>>;

/// The power of ten, and what its solution of the fitted images is off on the held-out ones; infinite where none has a
/// solution. What is fitted is left factorised with it.
pub(super) fn choose(pairs: &mut [Pair], prior: &Array2<f64>) -> (i32, f64) {
    let tried = Tried { pairs, prior, priors: OnceCell::new() };
    let (decade, error, factors) =
        if pairs.iter().all(|[fit, _]| fit.rows.len() > MANY) { tried.by_sums() } else { tried.in_full() };
    for ([fit, _], factor) in pairs.iter_mut().zip(factors) {
        fit.factor = factor;
    }
    (decade, error)
}

struct Tried<'a> {
    pairs: &'a [Pair],
    prior: &'a Array2<f64>,
    /// W* of each, and what is through it.
    priors: OnceCell<Vec<[Array2<f64>; 2]>>,
}

impl Tried<'_> {
    fn factors(&self, decade: i32) -> Result<Factors> {
        self.pairs.iter().map(|[fit, _]| fit.central.factor(ridge(decade))).collect()
    }

    /// What a power's solutions are off.
    fn error(&self, decade: i32, factors: &Factors) -> f64 {
        let priors = self.priors.get_or_init(|| self.pairs.iter().map(|[fit, _]| fit.prior(self.prior)).collect());
        let each = self.pairs.iter().zip(priors).zip(factors);
        each.map(|(([fit, held], [prior, through]), factor)| {
            let (w, b, _) = fit.central.solve(prior, through, factor.as_ref(), ridge(decade));
            held.central.error(&w, &b)
        })
        .sum()
    }

    fn score(&self, decade: i32) -> Result<(f64, Factors)> {
        let factors = self.factors(decade)?;
        Ok((self.error(decade, &factors), factors))
    }

    fn in_full(&self) -> (i32, f64, Factors) {
        let score = |decade| self.score(decade);
        descend(attempt(score, FIRST_DECADE), &[-1, 1], score)
    }

    fn by_sums(&self) -> (i32, f64, Factors) {
        let Ok(factors) = self.factors(FIRST_DECADE) else { return self.in_full() };
        let each = self.pairs.iter().zip(&factors);
        let starts: Vec<Start> =
            each.map(|(pair, factor)| Start::new(pair, &pair[0].own(self.prior), factor.as_ref())).collect();
        if starts.iter().map(|start| start.slope).sum::<f64>() > 0.0 {
            // What is left may be a small part of the first power's error: sums do not tell it from none.
            let first = self.error(FIRST_DECADE, &factors);
            return descend((first, factors), &[-1], |decade| self.score(decade));
        }
        let score = |decade: i32| {
            let factors = self.factors(decade)?;
            let each = self.pairs.iter().zip(&starts).zip(&factors);
            Ok((each.map(|(([_, held], start), factor)| start.more(&held.central, factor.as_ref())).sum(), factors))
        };
        let (decade, _, factors) = descend((0.0, factors), &[1], score);
        (decade, self.error(decade, &factors), factors)
    }
}

/// Sums of a group's outputs with random signs, at the first power of ten.
struct Start {
    /// How what they are off grows with the logarithm of the ridge.
    slope: f64,
    /// The sums of W* and of Cov(y, x) − W*·Cov(x), `[K, F]`, and of the means of y `[K]`; the fitted means of x.
    prior: Array2<f64>,
    missing: Array2<f64>,
    y: Array1<f64>,
    x: Array1<f64>,
    /// The same of the held-out images' Cov(y, x) and means of y.
    held: (Array2<f64>, Array1<f64>),
    /// What depends on the ridge of what the sums are off.
    off: f64,
}

impl Start {
    fn new([fit, held]: &Pair, prior: &Array2<f64>, factor: Option<&Cholesky>) -> Self {
        let (fit, held) = (&fit.central, &held.central);
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        let signs = Array2::from_shape_simple_fn((N_SUMS, prior.nrows()), || if rng.random() { 1.0 } else { -1.0 });
        let prior = signs.dot(prior);
        let missing = signs.dot(&fit.yx) - fit.through(&prior);
        let held_sums = (signs.dot(&held.yx), signs.dot(&held.y));
        let (y, x) = (signs.dot(&fit.y), fit.x.clone());
        let mut start = Self { slope: 0.0, prior, missing, y, x, held: held_sums, off: 0.0 };
        let w = start.solution(factor);
        let through = held.through(&w);
        start.off = start.off_at(&w, &through, &held.x);
        if let Some(factor) = factor {
            // dW/dlnλ = −load·(W − W*)·(Cov(x) + load)⁻¹, and b follows.
            let mut moved = (&w - &start.prior) * (-ridge(FIRST_DECADE) * fit.scale);
            factor.solve_rows(&mut moved);
            let aside = w.dot(&held.x) + start.bias(&w) - &start.held.1;
            let shift = moved.dot(&(&held.x - &fit.x));
            start.slope = 2.0 * (((through - &start.held.0) * &moved).sum() + aside.dot(&shift)) / N_SUMS as f64;
        }
        start
    }

    fn solution(&self, factor: Option<&Cholesky>) -> Array2<f64> {
        let mut w = self.prior.clone();
        if let Some(factor) = factor {
            let mut off = self.missing.clone();
            factor.solve_rows(&mut off);
            w += &off;
        }
        w
    }

    /// How much more than the first power another one's solution is off.
    fn more(&self, held: &Central, factor: Option<&Cholesky>) -> f64 {
        let w = self.solution(factor);
        (self.off_at(&w, &held.through(&w), &held.x) - self.off) / N_SUMS as f64
    }

    fn bias(&self, w: &Array2<f64>) -> Array1<f64> {
        &self.y - &w.dot(&self.x)
    }

    fn off_at(&self, w: &Array2<f64>, through: &Array2<f64>, x: &Array1<f64>) -> f64 {
        let (yx, y) = &self.held;
        let aside = w.dot(x) + self.bias(w) - y;
        ((through - &(yx * 2.0)) * w).sum() + aside.dot(&aside)
    }
}

fn ridge(decade: i32) -> f64 {
    10_f64.powi(decade)
}

/// A ridge too small for the rounding of the sums is no candidate.
fn attempt(score: impl Fn(i32) -> Result<(f64, Factors)>, decade: i32) -> (f64, Factors) {
    score(decade).ok().filter(|(error, _)| !error.is_nan()).unwrap_or((f64::INFINITY, vec![]))
}

/// The decade with the lowest score, downhill from the first one to the sides given, and below it only where that is worth
/// it.
fn descend(
    (error, factors): (f64, Factors),
    sides: &[i32],
    score: impl Fn(i32) -> Result<(f64, Factors)>,
) -> (i32, f64, Factors) {
    let mut best = (FIRST_DECADE, error, factors);
    for &side in sides {
        let mut at = FIRST_DECADE + side;
        while (FIRST_TRIED..=LAST_DECADE).contains(&at) {
            let (found, factors) = attempt(&score, at);
            let enough = if side < 0 { WORTH_IT * best.1 } else { best.1 };
            if found >= enough && (best.1.is_finite() || side < 0) {
                break;
            }
            best = (at, found, factors);
            at += side;
        }
        if best.0 != FIRST_DECADE {
            break;
        }
    }
    best
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::design::Design;
    use super::super::sums::Sums;
    use super::super::system::pairs;
    use super::*;

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
            let tried = Tried { pairs: &pairs, prior: &prior, priors: OnceCell::new() };
            let [(full, best, _), (decade, found, factors)] = [tried.in_full(), tried.by_sums()];
            assert!(
                (decade - full).abs() <= 1 && found <= 1.02 * best,
                "{n}, {noise}: {decade} {found}, {full} {best}"
            );
            let own = tried.error(decade, &factors);
            assert!((found - own).abs() <= 1e-12 * own, "{found} {own}");
            chosen.push(decade);
        }
        chosen.sort_unstable();
        assert!(chosen[0] < FIRST_DECADE && chosen[4] > FIRST_DECADE, "both sides are looked at: {chosen:?}");
    }

    /// The slope says how the error changes with the ridge.
    #[test]
    fn the_slope_is_that_of_the_error() {
        let [fitted, held_out] = [sums(60, 1.0, 1), sums(100, 1.0, 2)];
        let pairs = pairs(&fitted, &held_out);
        let [fit, held] = &pairs[0];
        let prior = Array2::from_elem((N_OUTPUTS, N_INPUTS), 0.1);
        let factor = |ridge: f64| fit.central.factor(ridge).unwrap();
        let first = ridge(FIRST_DECADE);
        let start = Start::new(&pairs[0], &prior, factor(first).as_ref());
        let step = 1e-3_f64;
        let [less, more] = [-step, step].map(|by| start.more(&held.central, factor(first * by.exp()).as_ref()));
        let slope = (more - less) / (2.0 * step);
        assert!((start.slope - slope).abs() < 1e-4 * slope.abs(), "{} {slope}", start.slope);
        assert!(start.more(&held.central, factor(first).as_ref()).abs() < 1e-12, "no other ridge, no difference");
    }
}
