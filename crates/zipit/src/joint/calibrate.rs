//! A temperature and a bias per head.

use super::{Calibration, log_sum_exp};
use crate::{Error, Result};
use argmin::core::{CostFunction, Executor, State};
use argmin::solver::neldermead::NelderMead;
use ndarray::{Array2, ArrayView1};

/// Steps of the search; it converges in far fewer.
const MAX_STEPS: u64 = 2000;

/// The T and b of every head under which the tasks of the images are likeliest, when the probability of task h is that
/// of its classes together: `softmax(log Σ_c exp(z_h[c] / T_h) + b_h)[h]`. `logits[h]` is `[n, classes]`, `tasks` `[n]`.
///
/// By Nelder and Mead's simplex, from T = 1 and b = 0: few unknowns, no gradient.
///
/// # Errors
/// [`Error::Numbers`] without images.
///
/// # Panics
/// When logits and tasks are of different images.
pub fn calibrate(logits: &[Array2<f32>], tasks: &[usize]) -> Result<Vec<Calibration>> {
    let n_heads = logits.len();
    let identity = Calibration { temperature: 1.0, bias: 0.0 };
    if n_heads < 2 {
        return Ok(vec![identity; n_heads]);
    }
    if tasks.is_empty() {
        return Err(Error::Numbers("there are no images to calibrate the heads on".into()));
    }
    let cost = Unlikeliness { logits, tasks };
    // log T of every head, then b of every head but the first: only differences count.
    let start = vec![0.0; 2 * n_heads - 1];
    minimise(cost, start).map(|found| unpack(&found, n_heads))
}

/// The lowest point that the simplex method finds from `start`.
pub(super) fn minimise<C>(cost: C, start: Vec<f64>) -> Result<Vec<f64>>
where
    C: CostFunction<Param = Vec<f64>, Output = f64>,
{
    let failed = |e: argmin::core::Error| Error::Numbers(format!("calibration: {e}"));
    let mut simplex = vec![start.clone()];
    for i in 0..start.len() {
        let mut corner = start.clone();
        corner[i] += 0.5;
        simplex.push(corner);
    }
    let solver = NelderMead::new(simplex).with_sd_tolerance(1e-9).map_err(failed)?;
    let done = Executor::new(cost, solver).configure(|state| state.max_iters(MAX_STEPS)).run().map_err(failed)?;
    Ok(done.state().get_best_param().cloned().unwrap_or(start))
}

fn unpack(parameters: &[f64], n_heads: usize) -> Vec<Calibration> {
    let (log_t, b) = parameters.split_at(n_heads);
    let biases = std::iter::once(0.0).chain(b.iter().copied());
    log_t.iter().zip(biases).map(|(t, bias)| Calibration { temperature: t.clamp(-5.0, 5.0).exp(), bias }).collect()
}

/// −mean log p(task).
struct Unlikeliness<'a> {
    logits: &'a [Array2<f32>],
    tasks: &'a [usize],
}

impl CostFunction for Unlikeliness<'_> {
    type Param = Vec<f64>;
    type Output = f64;

    fn cost(&self, parameters: &Vec<f64>) -> Result<f64, argmin::core::Error> {
        let heads = unpack(parameters, self.logits.len());
        let energy = |h: usize, z: ArrayView1<'_, f32>| {
            let c = heads[h];
            log_sum_exp(z.iter().map(move |&z| f64::from(z) / c.temperature)) + c.bias
        };
        let unlikeliness = self.tasks.iter().enumerate().map(|(i, &task)| {
            let energies: Vec<f64> = self.logits.iter().enumerate().map(|(h, z)| energy(h, z.row(i))).collect();
            log_sum_exp(energies.iter().copied()) - energies[task]
        });
        Ok(unlikeliness.sum::<f64>() / self.tasks.len() as f64)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_loud_head_is_turned_down() {
        // Head 1 shouts ten times as loud on images of both tasks, but louder still on its own.
        let quiet = |own: bool| if own { [2.0, 0.0] } else { [0.5, 0.0] };
        let loud = |own: bool| if own { [20.0, 0.0] } else { [5.0, 0.0] };
        let tasks: Vec<usize> = (0..40).map(|i| i % 2).collect();
        let row = |head: fn(bool) -> [f32; 2], h: usize| {
            Array2::from_shape_fn((40, 2), |(i, c)| head(i % 2 == h)[c] + 0.01 * (i as f32))
        };
        let logits = [row(quiet, 0), row(loud, 1)];
        let heads = calibrate(&logits, &tasks).unwrap();
        let right = tasks.iter().enumerate().filter(|&(i, &task)| {
            let of = |h: usize| f64::from(logits[h][[i, 0]]) / heads[h].temperature + heads[h].bias;
            (of(1) > of(0)) == (task == 1)
        });
        assert_eq!(right.count(), 40, "{heads:?}");
        assert!(calibrate(&logits, &[]).is_err());
        assert_eq!(calibrate(&logits[..1], &[]).unwrap().len(), 1);
    }
}
