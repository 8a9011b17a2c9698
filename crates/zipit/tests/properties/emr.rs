//! Properties of EMR-Merging: one vector, a mask and a factor per network.

use ndarray::ArrayD;
use proptest::prelude::*;
use zipit::StateDict;
use zipit::task_vector::emr::{Rescaling, mask, put_on, rescalers, unified};
use zipit::task_vector::{InMemory, Tensor};
use zipit::watch::Unwatched;

/// More numbers than are worked on at a time, and no multiple of eight.
const LONG: usize = 50_003;
const GOOD: &str = "networks that make sense";

fn tensors() -> [Tensor; 2] {
    [("m", vec![6, 7]), ("v", vec![5])].map(|(name, shape)| Tensor { name: name.into(), shape })
}

fn dict(tensors: &[Tensor], numbers: &[f32]) -> StateDict {
    let mut rest = numbers;
    let mut dict = StateDict::new();
    for tensor in tensors {
        let (own, others) = rest.split_at(tensor.n_numbers());
        let numbers = ArrayD::from_shape_vec(tensor.shape.clone(), own.to_vec());
        dict.insert(tensor.name.clone(), numbers.expect("as many as the shape says"));
        rest = others;
    }
    dict
}

/// A base of zeros or of numbers, then fine-tunes; many entries are zero, and many equal.
fn networks(n: usize) -> impl Strategy<Value = Vec<StateDict>> {
    let number = prop_oneof![Just(0.0_f32), (-3_i8..=3).prop_map(f32::from), -1.0_f32..1.0];
    let one = prop::collection::vec(number, 47).prop_map(|numbers| dict(&tensors(), &numbers));
    prop::collection::vec(one, n)
}

/// λ of every task; of every tensor τᵤ, and of every task its bits.
struct Made {
    factors: Vec<f64>,
    unified: Vec<Vec<f32>>,
    masks: Vec<Vec<Vec<u8>>>,
}

fn made(rescaling: Rescaling, tensors: &[Tensor], base: &StateDict, tuned: &[StateDict]) -> Made {
    let source = InMemory { base: Some(base), tuned };
    let all: Vec<&Tensor> = tensors.iter().collect();
    let factors = rescalers(rescaling, &all, tuned.len(), &source, &Unwatched).expect(GOOD);
    let vectors: Vec<Vec<f32>> = tensors.iter().map(|of| unified(of, tuned.len(), &source).expect(GOOD)).collect();
    let of_task =
        |t| tensors.iter().zip(&vectors).map(|(of, vector)| mask(of, t, vector, &source).expect(GOOD)).collect();
    let masks = (0..tuned.len()).map(of_task).collect();
    Made { factors, unified: vectors, masks }
}

fn bit(mask: &[u8], i: usize) -> bool {
    mask[i / 8] >> (i % 8) & 1 == 1
}

fn vector(tensor: &Tensor, base: &StateDict, tuned: &StateDict) -> Vec<f32> {
    (&tuned[&tensor.name] - &base[&tensor.name]).into_iter().collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_network_alone_comes_back(networks in networks(2)) {
        for rescaling in [Rescaling::Entries, Rescaling::Tensors] {
            let made = made(rescaling, &tensors(), &networks[0], &networks[1..]);
            prop_assert_eq!(&made.factors, &[1.0]);
            for (k, tensor) in tensors().iter().enumerate() {
                let mut found: Vec<f32> = networks[0][&tensor.name].iter().copied().collect();
                put_on(&mut found, &made.unified[k], &made.masks[0][k], made.factors[0]);
                for (found, wanted) in found.into_iter().zip(&networks[1][&tensor.name]) {
                    // θ₀ + (θ − θ₀), rounded twice.
                    prop_assert!((found - wanted).abs() <= 1e-6, "{found} {wanted}");
                }
            }
        }
    }

    #[test]
    fn what_a_mask_leaves_has_the_sign_of_its_task_and_at_least_its_size(networks in networks(5)) {
        let (base, tuned) = (&networks[0], &networks[1..]);
        let made = made(Rescaling::Entries, &tensors(), base, tuned);
        for (k, tensor) in tensors().iter().enumerate() {
            let vectors: Vec<Vec<f32>> = tuned.iter().map(|tuned| vector(tensor, base, tuned)).collect();
            for (i, &unified) in made.unified[k].iter().enumerate() {
                let mut largest = 0.0_f32;
                for (t, vector) in vectors.iter().enumerate() {
                    let agrees = vector[i] * unified > 0.0;
                    prop_assert_eq!(bit(&made.masks[t][k], i), agrees);
                    if agrees {
                        largest = largest.max(vector[i].abs());
                    }
                }
                prop_assert!(unified.abs().total_cmp(&largest).is_eq());
                let sum: f64 = vectors.iter().map(|vector| f64::from(vector[i])).sum();
                // A sum of zero counts as negative.
                prop_assert_eq!(unified > 0.0, sum > 0.0);
            }
        }
    }

    #[test]
    fn as_much_is_left_of_every_vector_as_there_was(networks in networks(4)) {
        let (base, tuned) = (&networks[0], &networks[1..]);
        let made = made(Rescaling::Entries, &tensors(), base, tuned);
        for (t, tuned) in tuned.iter().enumerate() {
            let [mut own, mut left] = [0.0, 0.0];
            for (k, tensor) in tensors().iter().enumerate() {
                own += vector(tensor, base, tuned).iter().map(|x| f64::from(x.abs())).sum::<f64>();
                let mut put = vec![0.0; tensor.n_numbers()];
                put_on(&mut put, &made.unified[k], &made.masks[t][k], made.factors[t]);
                left += put.iter().map(|x| f64::from(x.abs())).sum::<f64>();
            }
            let nothing = made.masks[t].iter().flatten().all(|&byte| byte == 0);
            prop_assert!(nothing || (own - left).abs() < 1e-5 * own, "{own} {left}");
            prop_assert!(!nothing || made.factors[t].total_cmp(&1.0).is_eq());
        }
    }

    #[test]
    fn the_order_of_networks_is_theirs_alone(networks in networks(4)) {
        let [base, a, b, c] = <[StateDict; 4]>::try_from(networks).unwrap();
        let one = made(Rescaling::Tensors, &tensors(), &base, &[a.clone(), b.clone(), c.clone()]);
        let other = made(Rescaling::Tensors, &tensors(), &base, &[c, a, b]);
        for (t, at) in [1, 2, 0].into_iter().enumerate() {
            prop_assert!((one.factors[t] - other.factors[at]).abs() < 1e-12);
        }
    }
}

#[test]
fn pieces_of_a_long_tensor_are_as_the_whole() {
    let tensors = [Tensor { name: "w".into(), shape: vec![LONG] }];
    let network = |t: usize| -> Vec<f32> { (0..LONG).map(|i| ((i * (7919 + 2 * t)) % 41) as f32 - 20.0).collect() };
    let [a, b] = [network(1), network(2)];
    let tuned = [dict(&tensors, &a), dict(&tensors, &b)];
    let made = made(Rescaling::Entries, &tensors, &dict(&tensors, &vec![0.0; LONG]), &tuned);
    let largest = |a: f32, b: f32| if a + b > 0.0 { a.max(b).max(0.0) } else { a.min(b).min(0.0) };
    let wanted: Vec<f32> = a.iter().zip(&b).map(|(&a, &b)| largest(a, b)).collect();
    assert_eq!(made.unified[0], wanted);
    for (t, vector) in [a, b].iter().enumerate() {
        assert_eq!(made.masks[t][0].len(), LONG.div_ceil(8));
        assert!((0..LONG).all(|i| bit(&made.masks[t][0], i) == (vector[i] * wanted[i] > 0.0)));
        let sum = |numbers: &mut dyn Iterator<Item = f32>| numbers.map(|x| f64::from(x.abs())).sum::<f64>();
        let left = sum(&mut (0..LONG).filter(|&i| bit(&made.masks[t][0], i)).map(|i| wanted[i]));
        assert!((made.factors[t] - sum(&mut vector.iter().copied()) / left).abs() < 1e-12);
    }
}

#[test]
fn vectors_that_are_not_finite_are_refused() {
    let tensors = [Tensor { name: "w".into(), shape: vec![2] }];
    let [base, tuned] = [[-3e38, 1.0], [3e38, 1.0]].map(|numbers| dict(&tensors, &numbers));
    let source = InMemory { base: Some(&base), tuned: &[tuned] };
    let error = rescalers(Rescaling::Entries, &[&tensors[0]], 1, &source, &Unwatched).unwrap_err().to_string();
    assert!(error.contains("the rescaler of network 1 would be NaN"), "{error}");
}
