//! What networks have in common before anything is run: classes, and perhaps the weights they began with.

use crate::Model;
use serde::Serialize;
use std::collections::BTreeMap;

/// Above this cosine two networks' weights cannot be independent: at the sizes of real layers independent ones stay
/// within a few hundredths of zero.
const RELATED: f64 = 0.2;

/// Two of the networks.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Pair {
    /// Which, from 0.
    pub models: [usize; 2],
    /// Cosine between all weights of convolutions and linear layers that both have in the same shape; `None` where there
    /// are none.
    pub weight_cosine: Option<f64>,
    /// Whether they were trained from the same weights: then averaging weights may do, and methods for fine-tunes of one
    /// network; else features must be matched first.
    pub shared_initialisation: bool,
}

/// All pairs of the networks, in order.
#[must_use]
pub fn pairs(models: &[&Model]) -> Vec<Pair> {
    let mut pairs = Vec::new();
    for (i, a) in models.iter().enumerate() {
        for (j, b) in models.iter().enumerate().skip(i + 1) {
            let weight_cosine = weight_cosine(a, b);
            let shared_initialisation = weight_cosine.is_some_and(|c| c > RELATED);
            pairs.push(Pair { models: [i, j], weight_cosine, shared_initialisation });
        }
    }
    pairs
}

/// The classes that several networks predict, with those networks, from 0.
#[must_use]
pub fn classes_in_common<'a>(models: &[&'a Model]) -> BTreeMap<&'a str, Vec<usize>> {
    let mut owners: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (i, model) in models.iter().enumerate() {
        for class in model.tasks.iter().flat_map(|t| &t.classes) {
            let of = owners.entry(class).or_default();
            if of.last() != Some(&i) {
                of.push(i);
            }
        }
    }
    owners.retain(|_, of| of.len() > 1);
    owners
}

fn weight_cosine(a: &Model, b: &Model) -> Option<f64> {
    let (mut ab, mut aa, mut bb) = (0.0, 0.0, 0.0);
    for (name, x) in a.weights.iter().filter(|(_, t)| t.ndim() > 1) {
        let Some(y) = b.weights.get(name).filter(|y| y.shape() == x.shape()) else { continue };
        for (&x, &y) in x.iter().zip(y) {
            let (x, y) = (f64::from(x), f64::from(y));
            ab += x * y;
            aa += x * x;
            bb += y * y;
        }
    }
    (aa > 0.0 && bb > 0.0).then(|| ab / (aa * bb).sqrt())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::graph::{Arch, ArchSpec};
    use crate::{Preprocess, Task};
    use ndarray::{ArrayD, IxDyn};

    /// Weights that are a wave of their own plus `base` times one of all.
    fn model(phase: f32, base: f32, classes: &[&str]) -> Model {
        let graph = ArchSpec::new(Arch::ResNet20, 0.25, 1, [8, 8], classes.len()).build().unwrap();
        let mut i = 0.0_f32;
        let mut next = || {
            i += 1.0;
            (phase * i).sin() + base * (0.7 * i).sin()
        };
        let tensor = |shape: &[usize], next: &mut dyn FnMut() -> f32| ArrayD::from_shape_simple_fn(IxDyn(shape), next);
        let weights = graph.params().into_iter().map(|(name, p)| (name, tensor(&p.shape, &mut next))).collect();
        let classes = classes.iter().map(|&c| c.to_owned()).collect();
        let preprocess = Preprocess::new([8, 8], vec![0.5], vec![0.5]);
        Model { graph, weights, tasks: vec![Task { name: "t".into(), classes }], preprocess, joint: None }
    }

    #[test]
    fn what_began_alike_is_told_from_what_did_not() {
        let [a, b, c] = [model(1.1, 0.0, &["x", "y"]), model(2.3, 0.0, &["y", "z"]), model(2.3, 1.0, &["z", "y"])];
        let found = pairs(&[&a, &b, &c]);
        assert_eq!(found.iter().map(|p| p.models).collect::<Vec<_>>(), [[0, 1], [0, 2], [1, 2]]);
        assert_eq!(found.iter().map(|p| p.shared_initialisation).collect::<Vec<_>>(), [false, false, true]);
        // One wave of two equal ones: 1/√2.
        assert!((found[2].weight_cosine.unwrap() - 0.5_f64.sqrt()).abs() < 0.02, "{found:?}");
        let common = classes_in_common(&[&a, &b, &c]);
        assert_eq!(common, BTreeMap::from([("y", vec![0, 1, 2]), ("z", vec![1, 2])]));
    }
}
