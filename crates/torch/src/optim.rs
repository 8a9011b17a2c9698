//! Optimisers, as PyTorch computes them, and their learning rates. LibTorch's own keep their state to themselves as tch
//! gives them, and a run that is to go on after an interruption needs it.

use crate::Result;
use tch::Tensor;

/// How far the first learning rate lies below the highest one (PyTorch's `div_factor`).
const START: f64 = 25.0;
/// How far the last learning rate lies below the first one (PyTorch's `final_div_factor`).
const END: f64 = 1e4;

/// The one-cycle learning rate (Smith & Topin, 2018) as PyTorch's `OneCycleLR` computes it: half a cosine up from
/// `max_lr`/25 over the first `warm_up` share of the steps, half a cosine down to `max_lr`/250,000 over the rest.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OneCycle {
    /// The highest learning rate.
    pub max_lr: f64,
    /// Share of the steps on the way up, 0…1.
    pub warm_up: f64,
    /// Number of steps.
    pub n_steps: u64,
}

impl OneCycle {
    /// Learning rate of step `step`, counted from 0.
    #[must_use]
    pub fn at(&self, step: u64) -> f64 {
        let top = self.warm_up * self.n_steps as f64 - 1.0;
        let last = (self.n_steps as f64 - 1.0).max(1.0);
        let first_lr = self.max_lr / START;
        let step = step as f64;
        if step <= top {
            half_cosine(first_lr, self.max_lr, step / top.max(1.0))
        } else {
            half_cosine(self.max_lr, first_lr / END, (step - top) / (last - top))
        }
    }
}

fn half_cosine(from: f64, to: f64, share: f64) -> f64 {
    to + (from - to) / 2.0 * (1.0 + (std::f64::consts::PI * share.clamp(0.0, 1.0)).cos())
}

/// One parameter's share of an SGD step, as PyTorch's `SGD` computes it:
/// g ← ∇ + λw, v ← μv + g, w ← w − η·v (plain) or w − η·(g + μv) (Nesterov).
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Sgd {
    /// η.
    pub lr: f64,
    /// μ.
    pub momentum: f64,
    /// Whether to look ahead along v.
    pub nesterov: bool,
}

impl Sgd {
    /// Moves `weight` and `velocity`; call it without gradients.
    pub fn step(self, weight: &mut Tensor, velocity: &mut Tensor, gradient: Tensor, decay: f64) -> Result<()> {
        let mut gradient = gradient;
        if decay > 0.0 {
            gradient = gradient.f_add_(&weight.f_mul_scalar(decay)?)?;
        }
        let _ = velocity.f_mul_scalar_(self.momentum)?.f_add_(&gradient)?;
        let update = if self.nesterov {
            gradient.f_add_(&velocity.f_mul_scalar(self.momentum)?)?.f_mul_scalar_(self.lr)?
        } else {
            velocity.f_mul_scalar(self.lr)?
        };
        let _ = weight.f_sub_(&update)?;
        Ok(())
    }
}

/// A learning rate that rises from 0 over the first steps and falls to 0 along half a cosine (SGDR, Loshchilov & Hutter
/// 2017, without restarts):
///
/// ηₜ = η · min(1, (t + 1) / `warm_up`) · (1 + cos(π t / T)) / 2, t = 0 … T − 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Cosine {
    /// η.
    pub lr: f64,
    /// Steps on the way up.
    pub warm_up: u64,
    /// T.
    pub n_steps: u64,
}

impl Cosine {
    /// Of step `step`, counted from 0.
    pub fn at(&self, step: u64) -> f64 {
        let rising = ((step + 1) as f64 / self.warm_up.max(1) as f64).min(1.0);
        rising * half_cosine(self.lr, 0.0, step as f64 / self.n_steps.max(1) as f64)
    }
}

/// One parameter's share of a step of `AdamW` (Loshchilov & Hutter 2019), as PyTorch computes it; `Adam` without decay:
///
/// w ← w − ηλw, m ← β₁m + (1 − β₁)g, v ← β₂v + (1 − β₂)g²,
/// w ← w − η/(1 − β₁ᵗ) · m / (√v/√(1 − β₂ᵗ) + ε).
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Adam {
    /// η.
    pub lr: f64,
    /// β₁ and β₂.
    pub betas: [f64; 2],
    /// λ.
    pub weight_decay: f64,
    /// t, from 1.
    pub step: u64,
}

/// ε.
const EPSILON: f64 = 1e-8;

impl Adam {
    /// Moves `weight` and its moments, m and v; call it without gradients.
    pub fn step(self, weight: &mut Tensor, moments: &mut [Tensor; 2], gradient: &Tensor) -> Result<()> {
        let [beta1, beta2] = self.betas;
        if self.weight_decay > 0.0 {
            let _ = weight.f_mul_scalar_(1.0 - self.lr * self.weight_decay)?;
        }
        let [m, v] = moments;
        let _ = m.f_mul_scalar_(beta1)?.f_add_(&gradient.f_mul_scalar(1.0 - beta1)?)?;
        let _ = v.f_mul_scalar_(beta2)?.f_add_(&gradient.f_square()?.f_mul_scalar_(1.0 - beta2)?)?;
        let corrected = |beta: f64| 1.0 - beta.powi(i32::try_from(self.step).unwrap_or(i32::MAX));
        let spread = v.f_sqrt()?.f_div_scalar_(corrected(beta2).sqrt())?.f_add_scalar_(EPSILON)?;
        let _ = weight.f_sub_(&m.f_div(&spread)?.f_mul_scalar_(self.lr / corrected(beta1))?)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// ```python
    /// sgd = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    /// cycle = torch.optim.lr_scheduler.OneCycleLR(sgd, max_lr=1.0, total_steps=10, pct_start=0.3, cycle_momentum=False)
    /// for _ in range(10): print(sgd.param_groups[0]["lr"]); sgd.step(); cycle.step()
    /// ```
    #[test]
    fn the_cycle_is_pytorchs() {
        let cycle = OneCycle { max_lr: 1.0, warm_up: 0.3, n_steps: 10 };
        let expected = [0.04, 0.52, 1.0];
        for (step, lr) in expected.into_iter().enumerate() {
            assert!((cycle.at(step as u64) - lr).abs() < 1e-12, "{step}: {}", cycle.at(step as u64));
        }
        // After the top: 4e-6 + (1 − 4e-6)/2·(1 + cos(π·k/7)).
        for k in 0..=7_u32 {
            let lr = 4e-6 + (1.0 - 4e-6) / 2.0 * (1.0 + (std::f64::consts::PI * f64::from(k) / 7.0).cos());
            assert!((cycle.at(u64::from(2 + k)) - lr).abs() < 1e-12);
        }
        assert!((cycle.at(9) - 4e-6).abs() < 1e-15);
    }

    #[test]
    fn one_step_is_a_cycle_too() {
        assert!(OneCycle { max_lr: 1.0, warm_up: 0.3, n_steps: 1 }.at(0).is_finite());
        assert!(OneCycle { max_lr: 1.0, warm_up: 0.3, n_steps: 3 }.at(2) <= 1.0);
    }

    /// ```python
    /// w = torch.nn.Parameter(torch.tensor([1.0]))
    /// sgd = torch.optim.SGD([w], lr=0.1, momentum=0.5, weight_decay=0.2, nesterov=N)
    /// for g in (1.0, 2.0): w.grad = torch.tensor([g]); sgd.step(); print(w.item())
    /// ```
    /// plain: v = 1.2, w = 0.88; v = 0.6 + 2.176 = 2.776, w = 0.6024.
    /// Nesterov: w = 1 − 0.1·(1.2 + 0.6) = 0.82; v = 0.6 + 2.164 = 2.764, w = 0.82 − 0.1·(2.164 + 1.382) = 0.4654.
    #[test]
    fn sgd_is_pytorchs() {
        for (nesterov, expected) in [(false, [0.88, 0.6024]), (true, [0.82, 0.4654])] {
            let sgd = Sgd { lr: 0.1, momentum: 0.5, nesterov };
            let mut weight = Tensor::from_slice(&[1.0_f32]);
            let mut velocity = Tensor::from_slice(&[0.0_f32]);
            for (gradient, expected) in [1.0_f32, 2.0].into_iter().zip(expected) {
                sgd.step(&mut weight, &mut velocity, Tensor::from_slice(&[gradient]), 0.2).expect("a step");
                assert!((weight.double_value(&[0]) - expected).abs() < 1e-6, "{}", weight.double_value(&[0]));
            }
        }
    }

    #[test]
    fn adam_is_libtorchs() {
        use tch::nn::{AdamW, OptimizerConfig, VarStore};
        let store = VarStore::new(tch::Device::Cpu);
        let mut theirs = store.root().var("w", &[3], tch::nn::Init::Const(0.5));
        let config = AdamW { beta1: 0.9, beta2: 0.99, wd: 0.01, ..AdamW::default() };
        let mut optimizer = config.build(&store, 0.1).expect("an optimiser");
        let mut ours = Tensor::from_slice(&[0.5_f32; 3]);
        let mut moments = [0, 1].map(|_| ours.zeros_like());
        for step in 1..=20 {
            let lr = Cosine { lr: 0.1, warm_up: 5, n_steps: 20 }.at(step - 1);
            optimizer.set_lr(lr);
            let target = Tensor::from_slice(&[1.0_f32, -2.0, 0.5]);
            optimizer.backward_step(&(&theirs - &target).square().sum(None));
            let gradient = (&ours - &target) * 2.0;
            let adam = Adam { lr, betas: [0.9, 0.99], weight_decay: 0.01, step };
            adam.step(&mut ours, &mut moments, &gradient).expect("a step");
            let off = tch::no_grad(|| (&ours - &theirs).abs().max().double_value(&[]));
            assert!(off < 1e-6, "step {step}: off by {off}");
        }
        assert!((ours.double_value(&[1]) + 2.0).abs() < 2.0);
        let _ = tch::no_grad(|| theirs.zero_());
    }

    #[test]
    fn the_cosine_rises_and_falls() {
        let cosine = Cosine { lr: 2.0, warm_up: 4, n_steps: 100 };
        assert!((cosine.at(0) - 0.5).abs() < 1e-3 && cosine.at(3) > 1.9);
        assert!((cosine.at(50) - 1.0).abs() < 1e-12 && cosine.at(99) < 1e-3);
    }
}
