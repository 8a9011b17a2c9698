//! Training: it learns, it repeats itself, and it goes on where it stopped.
#![allow(clippy::unwrap_used)]

mod networks;

use ndarray::Array4;
use networks::StopAfter;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use zipit::graph::{ArchSpec, arch::Arch};
use zipit::watch::Unwatched;
use zipit::{Graph, Preprocess};
use zipit_torch::images::InMemory;
use zipit_torch::train::{Autocast, EpochStats, TrainSettings, Trainer};
use zipit_torch::{Device, device::set_intra_op_threads};

const N_IMAGES: usize = 96;

fn net() -> Graph {
    ArchSpec::new(Arch::ResNet20, 0.25, 1, [8, 8], 2).build().unwrap()
}

fn preprocess() -> Preprocess {
    Preprocess::new([8, 8], vec![0.5], vec![0.25])
}

fn settings() -> TrainSettings {
    TrainSettings { epochs: 3, batch_size: 16, max_lr: 0.1, shift: 1, ..TrainSettings::default() }
}

/// Class 1 has brighter rows, class 0 brighter columns.
fn stripes() -> InMemory {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let labels: Vec<u32> = (0..N_IMAGES as u32).map(|i| i % 2).collect();
    let images = Array4::from_shape_fn((N_IMAGES, 1, 8, 8), |(i, _, y, x)| {
        let stripe = if labels[i] == 1 { y } else { x } % 2;
        stripe as f32 + rng.random::<f32>() - 1.0
    });
    InMemory::labelled(images, labels, 16)
}

fn trainer(settings: TrainSettings, seed: u64) -> Trainer {
    set_intra_op_threads(1);
    Trainer::new(&net(), &preprocess(), settings, seed, N_IMAGES, Device::Cpu).unwrap()
}

fn epoch(trainer: &mut Trainer) -> EpochStats {
    trainer.epoch(&stripes(), &Unwatched, &mut |_| {}).unwrap()
}

#[test]
fn it_learns() {
    let mut trainer = trainer(settings(), 1);
    let first = epoch(&mut trainer);
    assert_eq!((first.n_images, first.complete, trainer.epochs_done()), (N_IMAGES, true, 1));
    epoch(&mut trainer);
    let last = epoch(&mut trainer);
    assert!(trainer.is_done());
    assert!(last.loss < 0.5 * first.loss && last.accuracy() > 0.95, "{first:?} … {last:?}");
    let again = epoch(&mut trainer);
    assert_eq!((again.n_images, again.complete), (0, true), "nothing is left to do");
    assert_eq!(trainer.weights().unwrap().len(), net().params().len());
}

#[test]
fn it_learns_in_bf16_and_its_weights_are_of_f32() {
    let mut half = trainer(TrainSettings { autocast: Autocast::Bf16, ..settings() }, 1);
    let mut full = trainer(settings(), 1);
    let (first, same) = (epoch(&mut half), epoch(&mut full));
    assert!((first.loss - same.loss).abs() < 0.1 * same.loss, "{first:?} against {same:?}");
    epoch(&mut half);
    let last = epoch(&mut half);
    assert!(last.loss < 0.5 * first.loss && last.accuracy() > 0.95, "{first:?} … {last:?}");
    let low_bits = |x: &f32| x.to_bits() & 0xffff != 0;
    for name in ["conv1.weight", "bn1.running_var", "linear.weight"] {
        let weights = half.weights().unwrap();
        assert!(weights[name].iter().any(low_bits), "{name} is rounded to bf16");
    }
}

#[test]
fn a_restored_run_is_the_uninterrupted_one_bit_for_bit() {
    let mut whole = trainer(settings(), 5);
    while !whole.is_done() {
        epoch(&mut whole);
    }
    let mut first = trainer(settings(), 5);
    epoch(&mut first);
    // Stopped in the middle of the second epoch.
    let part = first.epoch(&stripes(), &StopAfter::new(40), &mut |_| {}).unwrap();
    assert_eq!((part.complete, part.n_images, first.step()), (false, 48, 9));
    let state = first.state().unwrap();

    let mut second = trainer(settings(), 5);
    second.restore(&state).unwrap();
    assert_eq!(second.state().unwrap(), state);
    let mut steps = Vec::new();
    while !second.is_done() {
        second.epoch(&stripes(), &Unwatched, &mut |s| steps.push(s.step)).unwrap();
    }
    assert_eq!(steps, (10..=18).collect::<Vec<_>>());
    assert_eq!(second.state().unwrap(), whole.state().unwrap());
}

#[test]
fn the_seed_decides_everything() {
    let weights = |seed| {
        let mut t = trainer(settings(), seed);
        epoch(&mut t);
        t.weights().unwrap()
    };
    assert_eq!(weights(1), weights(1));
    assert_ne!(weights(1), weights(2));
}

#[test]
fn smoothing_and_decay_are_heard() {
    let loss = |settings| epoch(&mut trainer(settings, 1)).loss;
    let plain = loss(settings());
    assert!((loss(TrainSettings { label_smoothing: 0.2, ..settings() }) - plain).abs() > 1e-3);
    assert!((loss(TrainSettings { weight_decay: 0.5, ..settings() }) - plain).abs() > 1e-6);
    assert!((loss(TrainSettings { flip: false, ..settings() }) - plain).abs() > 1e-6);
    let norms_after = |decay_all| {
        let mut t = trainer(TrainSettings { weight_decay: 0.5, decay_all, ..settings() }, 1);
        epoch(&mut t);
        t.weights().unwrap()["bn1.weight"].sum()
    };
    assert!(norms_after(true) < 0.9 * norms_after(false), "BatchNorm's weights decay only when asked to");
}

#[test]
fn what_makes_no_sense_is_refused() {
    let refused = |settings: TrainSettings, n_images| {
        Trainer::new(&net(), &preprocess(), settings, 1, n_images, Device::Cpu).unwrap_err().to_string()
    };
    assert!(refused(TrainSettings { epochs: 0, ..settings() }, 96).contains("epochs"));
    assert!(refused(TrainSettings { max_lr: f64::NAN, ..settings() }, 96).contains("learning rate"));
    assert!(refused(TrainSettings { momentum: 1.0, ..settings() }, 96).contains("momentum"));
    assert!(refused(settings(), 15).contains("15 images do not fill a batch of 16"));

    let mut t = trainer(settings(), 1);
    let wrong = InMemory::labelled(Array4::zeros((N_IMAGES, 1, 8, 8)), vec![2; N_IMAGES], 16);
    let message = t.epoch(&wrong, &Unwatched, &mut |_| {}).unwrap_err().to_string();
    assert_eq!(message, "image 0 has label 2, but the network has 2 classes, numbered from 0");

    let mut state = t.state().unwrap();
    state.tensors.remove("momentum.conv1.weight");
    assert!(t.restore(&state).unwrap_err().to_string().contains("missing: momentum.conv1.weight"));
    state.step = 19;
    assert!(t.restore(&state).unwrap_err().to_string().contains("at step 19, but these settings make only 18"));
}

#[test]
fn a_loss_that_explodes_is_said() {
    let mut t = trainer(TrainSettings { max_lr: 1e30, ..settings() }, 1);
    let mut failed = None;
    while failed.is_none() && !t.is_done() {
        failed = t.epoch(&stripes(), &Unwatched, &mut |_| {}).err();
    }
    let message = failed.unwrap().to_string();
    assert!(message.contains("lower the learning rate"), "{message}");
}
