//! The demo's data, as it is committed.
#![allow(clippy::unwrap_used, missing_docs)]

use std::path::PathBuf;
use zipit::Preprocess;
use zipit_data::{Dataset, Kind, Split};

/// The committed folder, or `None` where someone has left it out.
fn fashion_mnist() -> Option<PathBuf> {
    let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../data/fashion-mnist"));
    path.exists().then_some(path)
}

#[test]
fn counts_classes_and_first_labels() {
    let Some(path) = fashion_mnist() else { return };
    let [train, val, test] = [Split::Train, Split::Val, Split::Test].map(|s| Dataset::open(&path, s).unwrap());
    assert_eq!([train.len(), val.len(), test.len()], [54_000, 6_000, 10_000]);
    assert_eq!(train.kind(), Kind::Idx);
    assert_eq!(train.name(), "fashion-mnist");
    assert_eq!(train.classes()[0], "T-shirt/top");
    assert_eq!(train.labels()[..9], [9, 0, 0, 3, 0, 2, 7, 2, 5]);
    assert_eq!(test.labels()[..5], [9, 2, 1, 1, 6]);
    for class in 0..10 {
        assert_eq!(test.images_of(&[class]).len(), 1000);
        assert_eq!(train.images_of(&[class]).len() + val.images_of(&[class]).len(), 6000);
    }
    assert_eq!(train.digest(), val.digest());
    assert_ne!(train.digest(), test.digest());
}

#[test]
fn pixels_of_the_first_test_image() {
    let Some(path) = fashion_mnist() else { return };
    let test = Dataset::open(&path, Split::Test).unwrap();
    let plain = Preprocess::new([28, 28], vec![0.0], vec![1.0]);
    let image = test.load(&[0], &plain).unwrap();
    assert_eq!(image.dim(), (1, 1, 28, 28));
    // Python: sum(gzip.open(path).read()[16:16 + 784])
    let sum: f64 = image.iter().map(|&v| f64::from(v * 255.0).round()).sum();
    assert!((sum - 33_456.0).abs() < 0.5);
}
