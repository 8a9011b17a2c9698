//! Properties of the rules that merge fine-tunes of one base.

use ndarray::ArrayD;
use proptest::prelude::*;
use std::collections::BTreeMap;
use zipit::StateDict;
use zipit::task_vector::{Disjoint, Kernels, Recipe, Rescale, Rule, Scope, combined};

/// More numbers than are worked on at a time, few of them different: draws in every piece.
const LONG: usize = 150_000;

fn dict(tensors: Vec<(&str, Vec<usize>, Vec<f32>)>) -> StateDict {
    let tensor = |(name, shape, values): (&str, Vec<usize>, Vec<f32>)| {
        (name.to_owned(), ArrayD::from_shape_vec(shape, values).expect("as many as the shape says"))
    };
    tensors.into_iter().map(tensor).collect()
}

/// A matrix of 6 × 8 and a vector of 5.
fn networks(n: usize) -> impl Strategy<Value = Vec<StateDict>> {
    let one = (prop::collection::vec(-1.0f32..1.0, 48), prop::collection::vec(-1.0f32..1.0, 5));
    let one = one.prop_map(|(m, v)| dict(vec![("m", vec![6, 8], m), ("v", vec![5], v)]));
    prop::collection::vec(one, n)
}

fn every_rule() -> Vec<Rule> {
    vec![
        Rule::Average,
        Rule::TaskArithmetic,
        Rule::Ties { density: 0.5, scope: Scope::Tensor, disjoint: Disjoint::Mean },
        Rule::Ties { density: 0.5, scope: Scope::All, disjoint: Disjoint::Sum },
        Rule::Dare { density: 0.5, rescale: Rescale::L1, seed: 3, elect: None },
        Rule::Breadcrumbs { density: 0.5, gamma: 0.1 },
        Rule::ModelStock,
        Rule::IsoC { kernels: Kernels::Matrix },
        Rule::IsoCts { common: 0.5, kernels: Kernels::Matrix },
        Rule::TsvM { kernels: Kernels::Matrix },
    ]
}

fn far(a: &StateDict, b: &StateDict) -> f32 {
    let far = a.iter().map(|(name, x)| (x - &b[name]).fold(0.0_f32, |most, x| most.max(x.abs())));
    far.fold(0.0, f32::max)
}

fn merged(recipe: &Recipe, networks: &[StateDict]) -> StateDict {
    combined(recipe, Some(&networks[0]), &networks[1..]).expect("a recipe that makes sense")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn nothing_comes_of_fine_tunes_that_did_not_move(networks in networks(1)) {
        let still = vec![networks[0].clone(); 4];
        for rule in every_rule() {
            let out = merged(&Recipe::new(rule, 3), &still);
            prop_assert!(far(&out, &networks[0]) < 1e-6, "{rule:?}");
        }
    }

    #[test]
    fn a_scale_of_zero_leaves_the_base(networks in networks(4)) {
        for rule in every_rule().into_iter().filter(|rule| rule.takes_base()) {
            let recipe = Recipe { scale: 0.0, ..Recipe::new(rule, 3) };
            prop_assert!(far(&merged(&recipe, &networks), &networks[0]) < 1e-6, "{rule:?}");
        }
    }

    #[test]
    fn the_order_of_fine_tunes_does_not_matter(networks in networks(4)) {
        let [base, a, b, c] = networks.try_into().unwrap();
        let (one, other) = ([base.clone(), a.clone(), b.clone(), c.clone()], [base, c, a, b]);
        for rule in every_rule().into_iter().filter(|rule| !matches!(rule, Rule::Dare { .. })) {
            let recipe = Recipe::new(rule, 3);
            prop_assert!(far(&merged(&recipe, &one), &merged(&recipe, &other)) < 1e-4, "{rule:?}");
        }
    }

    #[test]
    fn nothing_trimmed_is_task_arithmetic_or_the_average(networks in networks(4)) {
        let sum = merged(&Recipe { scale: 0.7, ..Recipe::new(Rule::TaskArithmetic, 3) }, &networks);
        for rule in [
            Rule::Breadcrumbs { density: 1.0, gamma: 0.0 },
            Rule::Dare { density: 1.0, rescale: Rescale::Density, seed: 1, elect: None },
        ] {
            let out = merged(&Recipe { scale: 0.7, ..Recipe::new(rule, 3) }, &networks);
            prop_assert!(far(&out, &sum) < 1e-6, "{rule:?}");
        }
        let mean = merged(&Recipe { scale: 1.0 / 3.0, ..Recipe::new(Rule::TaskArithmetic, 3) }, &networks);
        prop_assert!(far(&merged(&Recipe::new(Rule::Average, 3), &networks), &mean) < 1e-6);
        // One network alone agrees with itself in every sign.
        let alone = [networks[0].clone(), networks[1].clone()];
        let ties = Rule::Ties { density: 1.0, scope: Scope::All, disjoint: Disjoint::Mean };
        prop_assert!(far(&merged(&Recipe::new(ties, 1), &alone), &networks[1]) < 1e-6);
    }

    #[test]
    fn isotropic_directions_are_equally_strong(networks in networks(3)) {
        let zero: StateDict = networks[0].iter().map(|(name, x)| (name.clone(), x * 0.0)).collect();
        let networks = [zero, networks[1].clone(), networks[2].clone()];
        for rule in [Rule::IsoC { kernels: Kernels::Matrix }, Rule::IsoCts { common: 0.5, kernels: Kernels::Matrix }] {
            let out = merged(&Recipe::new(rule, 2), &networks);
            let m = out["m"].to_shape((6, 8)).unwrap().mapv(f64::from);
            let gram = m.dot(&m.t());
            let strength = gram.diag().mean().unwrap();
            for ((i, j), x) in gram.indexed_iter() {
                let wanted = if i == j { strength } else { 0.0 };
                prop_assert!((x - wanted).abs() < 1e-4 * strength, "{rule:?} {i} {j}: {x}");
            }
        }
    }
}

#[test]
fn of_a_long_tensor_the_largest_are_left_wherever_they_stand() {
    let value = |i: usize, t: usize| ((i * (7919 + 2 * t)) % 41) as f32 - 20.0;
    let tuned: Vec<StateDict> =
        (0..2).map(|t| dict(vec![("w", vec![300, 500], (0..LONG).map(|i| value(i, t)).collect())])).collect();
    let base = dict(vec![("w", vec![300, 500], vec![0.0; LONG])]);
    let sorted = |t: usize| {
        let mut order: Vec<usize> = (0..LONG).collect();
        order.sort_by(|&a, &b| value(a, t).abs().total_cmp(&value(b, t).abs()));
        order
    };
    for (density, gamma) in [(0.3, 0.05), (0.017, 0.0), (0.5, 0.5)] {
        let mut wanted = vec![0.0_f32; LONG];
        let [left, largest] = [density, gamma].map(|share| (share * LONG as f64) as usize);
        for t in 0..2 {
            for &i in &sorted(t)[LONG - left - largest..LONG - largest] {
                wanted[i] += value(i, t);
            }
        }
        let out = combined(&Recipe::new(Rule::Breadcrumbs { density, gamma }, 2), Some(&base), &tuned).unwrap();
        assert!(out["w"].iter().eq(&wanted), "{density} {gamma}");
    }
    // Elected: with one network nothing is lost but what is trimmed.
    let ties = Rule::Ties { density: 0.3, scope: Scope::Tensor, disjoint: Disjoint::Mean };
    let out = combined(&Recipe::new(ties, 1), Some(&base), &tuned[..1]).unwrap();
    let kept = sorted(0)[LONG - 45_000..].iter().filter(|&&i| value(i, 0) != 0.0).count();
    assert_eq!(out["w"].iter().filter(|&&x| x != 0.0).count(), kept);
}

#[test]
fn what_chance_drops_keeps_the_expectation() {
    let base = dict(vec![("w", vec![LONG], vec![1.0; LONG]), ("z", vec![3], vec![0.0; 3])]);
    let tuned = [dict(vec![("w", vec![LONG], vec![3.0; LONG]), ("z", vec![3], vec![1.0; 3])])];
    let run = |density, rescale, seed| {
        let rule = Rule::Dare { density, rescale, seed, elect: None };
        combined(&Recipe::new(rule, 1), Some(&base), &tuned).unwrap()
    };
    let out = run(0.25, Rescale::Density, 1);
    let values: BTreeMap<u32, usize> = out["w"].iter().fold(BTreeMap::new(), |mut counts, x| {
        *counts.entry(x.to_bits()).or_default() += 1;
        counts
    });
    assert_eq!(values.keys().copied().collect::<Vec<_>>(), [1.0_f32.to_bits(), 9.0_f32.to_bits()]);
    let share = values[&9.0_f32.to_bits()] as f64 / LONG as f64;
    assert!((share - 0.25).abs() < 0.005, "{share}");
    assert_eq!(run(0.25, Rescale::Density, 1), out);
    assert_ne!(run(0.25, Rescale::Density, 2), out);
    // The sum of magnitudes stays to rounding, whatever was drawn.
    let l1: f64 = run(0.25, Rescale::L1, 1)["w"].iter().map(|&x| f64::from(x) - 1.0).sum();
    assert!((l1 / (2.0 * LONG as f64) - 1.0).abs() < 1e-6, "{l1}");
}
