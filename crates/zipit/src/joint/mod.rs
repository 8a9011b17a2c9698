//! Joint prediction: one class for an image of which nobody says to which task it belongs.
//!
//! The heads of a network were trained apart, so their softmaxes cannot be compared: each is sure of itself on images of
//! the others. Three rules give a score to every class c of every head h, from the head's logits z:
//!
//! | rule         | score                                     | needs                                                 |
//! |--------------|-------------------------------------------|-------------------------------------------------------|
//! | `softmax`    | `log softmax(z_h)[c]`                     | nothing                                               |
//! | `calibrated` | `z_h[c] / T_h + b_h`                      | a temperature and a bias per head                     |
//! | `gate`       | `log softmax(g)[h] + log softmax(z_h)[c]` | a [gate](gate()): a linear map from features to tasks |
//!
//! A head with one class has a sigmoid for a softmax, σ(z), as long as nothing else is known: its softmax is always 1.
//!
//! Temperatures, biases and the gate are fitted to unlabelled images of which it is known from which task's data they
//! came; no class label is used.

mod calibrate;
mod gate;

pub use calibrate::calibrate;
pub use gate::{Features, gate, without_gate};

use crate::{Error, Result};
use ndarray::ArrayView1;
use serde::{Deserialize, Serialize};

/// What the output of a gate is called, beside those that are called after their tasks.
pub const GATE: &str = "gate";

/// How the heads of a network are compared with each other.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Joint {
    /// One per task.
    pub heads: Vec<Calibration>,
    /// Whether the graph's last output is the gate, with one logit per task, rather than a task's.
    pub gate: bool,
}

/// z / T + b.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calibration {
    /// T > 0.
    pub temperature: f64,
    /// b.
    pub bias: f64,
}

impl Joint {
    /// # Errors
    /// Another number of heads, a temperature that is not positive, numbers that are not finite.
    pub fn validate(&self, n_tasks: usize) -> Result<()> {
        let bad = |what: String| Err(Error::Graph(format!("joint prediction: {what}")));
        if self.heads.len() != n_tasks {
            return bad(format!("{} calibrated heads for {n_tasks} tasks", self.heads.len()));
        }
        match self.heads.iter().find(|h| !(h.temperature.is_finite() && h.temperature > 0.0 && h.bias.is_finite())) {
            Some(h) => bad(format!("temperature {} and bias {} of a head", h.temperature, h.bias)),
            None => Ok(()),
        }
    }
}

/// How classes of different heads are compared.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Rule<'a> {
    /// Each head's own softmax; of a head with one class its sigmoid.
    Softmax,
    /// Logits after each head's temperature and bias.
    Calibrated(&'a [Calibration]),
    /// The gate's softmax times the head's, by the gate's logits for the image.
    Gate(ArrayView1<'a, f32>),
}

impl Rule<'_> {
    /// Scores of the classes of head `h`, the larger the likelier.
    ///
    /// ```
    /// use zipit::joint::{Calibration, Rule};
    /// let heads = [Calibration { temperature: 2.0, bias: 1.0 }];
    /// let z = ndarray::array![4.0_f32, 0.0];
    /// assert_eq!(Rule::Calibrated(&heads).scores(0, z.view()), [3.0, 1.0]);
    /// ```
    ///
    /// # Panics
    /// When there is no such head.
    #[must_use]
    pub fn scores(&self, h: usize, logits: ArrayView1<'_, f32>) -> Vec<f64> {
        let z = logits.iter().map(|&z| f64::from(z));
        match self {
            Self::Calibrated(heads) => z.map(|z| z / heads[h].temperature + heads[h].bias).collect(),
            // A lone logit is a detector's: σ(z), or it would always be certain.
            Self::Softmax if logits.len() == 1 => z.map(|z| -log_sum_exp([0.0, -z].into_iter())).collect(),
            Self::Softmax => {
                let all = log_sum_exp(z.clone());
                z.map(|z| z - all).collect()
            }
            Self::Gate(gate) => {
                let own = f64::from(gate[h]) - log_sum_exp(gate.iter().map(|&g| f64::from(g)));
                let all = log_sum_exp(z.clone());
                z.map(|z| own + z - all).collect()
            }
        }
    }

    /// The head and the class of the highest score, by every head's logits for one image; the first head and the lowest
    /// class win a tie.
    ///
    /// ```
    /// use zipit::joint::Rule;
    /// let heads = [ndarray::array![0.0_f32, 0.0], ndarray::array![0.0_f32, 2.0]];
    /// assert_eq!(Rule::Softmax.choose(heads.iter().map(|z| z.view())), (1, 1));
    /// ```
    ///
    /// # Panics
    /// When there are no heads.
    #[must_use]
    pub fn choose<'z>(&self, heads: impl IntoIterator<Item = ArrayView1<'z, f32>>) -> (usize, usize) {
        let of_head = |(h, z)| self.scores(h, z).into_iter().enumerate().map(move |(c, score)| ((h, c), score));
        let scores: Vec<((usize, usize), f64)> = heads.into_iter().enumerate().flat_map(of_head).collect();
        scores[argmax(scores.iter().map(|&(_, score)| score))].0
    }
}

/// Position of the largest value, the first where several are; 0 where there are none.
#[must_use]
pub fn argmax(values: impl IntoIterator<Item = f64>) -> usize {
    let mut best = (0, f64::NEG_INFINITY);
    for (i, value) in values.into_iter().enumerate() {
        if value > best.1 {
            best = (i, value);
        }
    }
    best.0
}

/// log Σ exp x, without overflow.
pub(crate) fn log_sum_exp(x: impl Iterator<Item = f64> + Clone) -> f64 {
    let largest = x.clone().fold(f64::NEG_INFINITY, f64::max);
    if largest == f64::NEG_INFINITY { largest } else { largest + x.map(|x| (x - largest).exp()).sum::<f64>().ln() }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use ndarray::array;

    #[test]
    fn the_gate_multiplies_the_softmaxes() {
        let (g, z) = (array![0.0_f32, 3.0_f32.ln()], array![0.0_f32, 0.0]);
        let [a, b] = [0, 1].map(|h| Rule::Gate(g.view()).scores(h, z.view()));
        assert!((a[0].exp() - 0.125).abs() < 1e-7 && (b[1].exp() - 0.375).abs() < 1e-7);
        assert!((Rule::Softmax.scores(1, z.view())[0].exp() - 0.5).abs() < 1e-12);
        assert!(Rule::Softmax.scores(0, array![1e30_f32, -1e30].view())[0].abs() < 1e-12);
    }

    #[test]
    fn a_head_with_one_class_is_as_sure_as_its_logit() {
        let (one, two) = (array![-2.0_f32], array![1.0_f32, 0.0]);
        assert!((Rule::Softmax.scores(0, one.view())[0] - (1.0 / (1.0 + 2.0_f64.exp())).ln()).abs() < 1e-12);
        assert_eq!(Rule::Softmax.choose([one.view(), two.view()]), (1, 0));
        assert_eq!(Rule::Softmax.choose([array![2.0].view(), two.view()]), (0, 0));
        // By a gate the task is known, and with it the class.
        let gate = array![1.0_f32, 0.0];
        assert_eq!(Rule::Gate(gate.view()).choose([one.view(), two.view()]), (0, 0));
        assert!(Rule::Softmax.scores(0, array![-1e30].view())[0] < -1e29);
    }

    #[test]
    fn what_no_network_can_mean_is_refused() {
        let joint = |temperature, bias| Joint { heads: vec![Calibration { temperature, bias }], gate: false };
        assert!(joint(1.0, -3.0).validate(1).is_ok());
        assert!(joint(1.0, 0.0).validate(2).unwrap_err().to_string().contains("1 calibrated heads for 2"));
        for (t, b) in [(0.0, 0.0), (-1.0, 0.0), (f64::NAN, 0.0), (1.0, f64::INFINITY)] {
            assert!(joint(t, b).validate(1).unwrap_err().to_string().contains("temperature"));
        }
    }
}
