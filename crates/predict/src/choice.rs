//! From logits to classes.

use ndarray::{Array2, ArrayView1};
use zipit::joint::{Joint, Rule, argmax};

/// The likeliest class of one head and its probability under the head's softmax.
pub fn best(logits: ArrayView1<'_, f32>) -> (usize, f64) {
    let scores = Rule::Softmax.scores(0, logits);
    let best = argmax(scores.iter().copied());
    (best, scores[best].exp())
}

/// The task, of `n_tasks`, and the class that a network's own rule takes image `i` for; `None` if it has no rule.
pub fn joint(joint: Option<&Joint>, n_tasks: usize, logits: &[Array2<f32>], i: usize) -> Option<(usize, usize)> {
    let joint = joint?;
    let rule = match logits.get(n_tasks) {
        Some(gate) if joint.gate => Rule::Gate(gate.row(i)),
        _ => Rule::Calibrated(&joint.heads),
    };
    Some(rule.choose(logits[..n_tasks].iter().map(|z| z.row(i))))
}
