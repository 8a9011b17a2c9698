//! Properties of the rules that weigh by what was measured of fine-tunes.

use ndarray::{Array2, ArrayD, IxDyn};
use proptest::prelude::*;
use zipit::StateDict;
use zipit::task_vector::{
    InMemory, Made, Network, Part, Recipe, Rule, Solved, Source, Stop, Tensor, combine, combined,
};
use zipit::watch::Unwatched;

/// Rows and columns of a layer's weight.
const SHAPE: [usize; 2] = [4, 6];
const EXACT: Stop = Stop { n_iterations: 200, tolerance: 1e-12 };

#[derive(Debug, Clone)]
struct Measured {
    base: StateDict,
    tuned: Vec<StateDict>,
    inputs: Vec<Array2<f64>>,
    gradients: Vec<Array2<f64>>,
    fisher: Vec<Vec<f64>>,
}

impl Source for Measured {
    fn read(&self, of: Network, name: &str, start: usize, into: &mut [f32]) -> zipit::Result<()> {
        InMemory { base: Some(&self.base), tuned: &self.tuned }.read(of, name, start, into)
    }

    fn is_measured(&self, _: &str) -> bool {
        true
    }

    fn fisher(&self, t: usize, _: &str, start: usize, into: &mut [f64]) -> zipit::Result<()> {
        into.copy_from_slice(&self.fisher[t][start..start + into.len()]);
        Ok(())
    }

    fn inputs(&self, t: usize, _: &str) -> zipit::Result<Vec<Array2<f64>>> {
        Ok(vec![self.inputs[t].clone()])
    }

    fn gradients(&self, t: usize, _: &str) -> zipit::Result<Vec<Array2<f64>>> {
        Ok(vec![self.gradients[t].clone()])
    }
}

fn dict(values: Vec<f32>) -> StateDict {
    StateDict::from([("w".to_owned(), ArrayD::from_shape_vec(IxDyn(&SHAPE), values).expect("as many"))])
}

/// X Xᵀ / n of as many samples as there are features, and a little of I.
fn second_moments(n: usize) -> impl Strategy<Value = Array2<f64>> {
    prop::collection::vec(-1.0f64..1.0, n * n).prop_map(move |x| {
        let x = Array2::from_shape_vec((n, n), x).expect("a square");
        x.dot(&x.t()) / n as f64 + Array2::<f64>::eye(n) * 0.05
    })
}

fn networks(n: usize) -> impl Strategy<Value = Measured> {
    let [o, f] = SHAPE;
    let weights = prop::collection::vec(prop::collection::vec(-1.0f32..1.0, o * f), n + 1);
    let fisher = prop::collection::vec(prop::collection::vec(0.01f64..1.0, o * f), n);
    let inputs = prop::collection::vec(second_moments(f), n);
    let gradients = prop::collection::vec(second_moments(o), n);
    (weights, inputs, gradients, fisher).prop_map(|(weights, inputs, gradients, fisher)| {
        let mut all = weights.into_iter().map(dict);
        Measured { base: all.next().expect("a base"), tuned: all.collect(), inputs, gradients, fisher }
    })
}

fn merged(rule: Rule, weights: &[f64], of: &Measured) -> (Vec<f64>, Vec<Solved>) {
    let tensor = Tensor { name: "w".into(), shape: SHAPE.to_vec() };
    let part = Part { name: "w".into(), tensor, made: Made::ByRule };
    let mut out = Vec::new();
    let mut write = |numbers: &[f32]| {
        out.extend(numbers.iter().map(|&x| f64::from(x)));
        Ok(())
    };
    let recipe = Recipe { rule, weights: weights.to_vec(), scale: 1.0 };
    let solved = combine(&recipe, &[part], of, &Unwatched, &mut write).expect("a recipe that makes sense");
    (out, solved)
}

fn far(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn what_matters_alike_is_averaged(mut of in networks(3), weights in prop::collection::vec(0.1f64..2.0, 3)) {
        of.inputs = vec![of.inputs[0].clone(); 3];
        of.gradients = vec![of.gradients[0].clone(); 3];
        of.fisher = vec![of.fisher[0].clone(); 3];
        let recipe = Recipe { rule: Rule::Average, weights: weights.clone(), scale: 1.0 };
        let mean = combined(&recipe, None, &of.tuned).expect("an average");
        let mean: Vec<f64> = mean["w"].iter().map(|&x| f64::from(x)).collect();
        for rule in [Rule::Fisher, Rule::RegMean { off_diagonal: 1.0 }, Rule::Mats { stop: EXACT }] {
            let (out, _) = merged(rule, &weights, &of);
            prop_assert!(far(&out, &mean) < 1e-5, "{rule:?}");
        }
    }

    #[test]
    fn without_gradients_mats_is_regmean(mut of in networks(3), weights in prop::collection::vec(0.1f64..2.0, 3)) {
        of.gradients = vec![Array2::eye(SHAPE[0]); 3];
        let (regmean, none) = merged(Rule::RegMean { off_diagonal: 1.0 }, &weights, &of);
        let (mats, solved) = merged(Rule::Mats { stop: EXACT }, &weights, &of);
        prop_assert!(none.is_empty() && solved[0].residual <= 1e-10, "{solved:?}");
        prop_assert!(far(&mats, &regmean) < 1e-5);
    }

    #[test]
    fn with_diagonal_factors_mats_is_fisher_merging(mut of in networks(3), weights in prop::collection::vec(0.1f64..2.0, 3)) {
        let diagonal = |of: &Array2<f64>| Array2::from_diag(&of.diag());
        of.inputs = of.inputs.iter().map(diagonal).collect();
        of.gradients = of.gradients.iter().map(diagonal).collect();
        let product = |(b, a): (&Array2<f64>, &Array2<f64>)| {
            a.diag().iter().flat_map(|a| b.diag().iter().map(|b| a * b).collect::<Vec<_>>()).collect()
        };
        of.fisher = of.inputs.iter().zip(&of.gradients).map(product).collect();
        let (fisher, _) = merged(Rule::Fisher, &weights, &of);
        // The diagonal is the operator: one step.
        let stop = Stop { n_iterations: 1, tolerance: 0.0 };
        let (mats, solved) = merged(Rule::Mats { stop }, &weights, &of);
        prop_assert!(solved[0].residual < 1e-12, "{solved:?}");
        prop_assert!(far(&mats, &fisher) < 1e-5);
    }

    /// Σ wₜ Aₜ W Bₜ = Σ wₜ Aₜ Wₜ Bₜ.
    #[test]
    fn mats_solves_its_equations(of in networks(2)) {
        let (out, solved) = merged(Rule::Mats { stop: EXACT }, &[1.0, 1.0], &of);
        let w = Array2::from_shape_vec((SHAPE[0], SHAPE[1]), out).expect("as many");
        let mut left = Array2::<f64>::zeros((SHAPE[0], SHAPE[1]));
        for t in 0..2 {
            let own = of.tuned[t]["w"].to_shape((SHAPE[0], SHAPE[1])).expect("a matrix").mapv(f64::from);
            left += &of.gradients[t].dot(&(&w - &own)).dot(&of.inputs[t]);
        }
        prop_assert!(left.iter().all(|x| x.abs() < 1e-6), "{}", left);
        prop_assert!(solved[0].n_iterations <= 200 && solved[0].name == "w");
        // The start is task arithmetic.
        let stop = Stop { n_iterations: 0, tolerance: 1e-6 };
        let (start, _) = merged(Rule::Mats { stop }, &[1.0, 1.0], &of);
        let sum = combined(&Recipe::new(Rule::TaskArithmetic, 2), Some(&of.base), &of.tuned).expect("a sum");
        let sum: Vec<f64> = sum["w"].iter().map(|&x| f64::from(x)).collect();
        prop_assert!(far(&start, &sum) < 1e-6);
    }
}

/// Features that are never there leave second moments without an inverse: what they are multiplied with is averaged.
#[test]
fn dead_features_are_averaged() {
    let mut gram = Array2::<f64>::zeros((6, 6));
    for i in 0..3 {
        gram[[i, i]] = 1.0 + i as f64;
    }
    let values = |k: f32| (0..24).map(|i| i as f32 * k).collect::<Vec<_>>();
    let of = Measured {
        base: dict(values(0.0)),
        tuned: vec![dict(values(1.0)), dict(values(3.0))],
        inputs: vec![gram.clone(), gram * 3.0],
        gradients: vec![Array2::eye(4); 2],
        fisher: vec![vec![0.0; 24]; 2],
    };
    let (out, _) = merged(Rule::RegMean { off_diagonal: 1.0 }, &[1.0, 1.0], &of);
    for (i, x) in out.iter().enumerate() {
        let k = if i % 6 < 3 { 2.5 } else { 2.0 };
        assert!((x - i as f64 * k).abs() < 1e-5, "{i}: {x}");
    }
    let (out, _) = merged(Rule::Fisher, &[1.0, 3.0], &of);
    assert!(out.iter().enumerate().all(|(i, x)| (x - i as f64 * 2.5).abs() < 1e-5), "{out:?}");
}
