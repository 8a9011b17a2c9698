//! HDF5 data sets.
#![allow(clippy::unwrap_used, missing_docs)]

use ndarray::Array4;
use std::{fs, path::Path};
use zipit::Preprocess;
use zipit_artifact::dataset;
use zipit_data::{Dataset, Kind, Split};

/// `n` images of 3×2×2 whose values are their number, of classes 0 and 1 in turn.
fn images(n: usize, first: u8) -> (Array4<u8>, Vec<u32>) {
    (Array4::from_shape_fn((n, 3, 2, 2), |(i, ..)| first + i as u8), (0..n as u32).map(|i| i % 2).collect())
}

fn write(path: &Path, splits: &[(&str, usize, u8)]) {
    let content: Vec<_> = splits.iter().map(|&(name, n, first)| (name, images(n, first))).collect();
    let views: Vec<_> =
        content.iter().map(|(name, (images, labels))| (*name, images.view(), labels.as_slice())).collect();
    dataset::write(path, &["ant".to_owned(), "bee".to_owned()], &views).unwrap();
}

fn plain() -> Preprocess {
    Preprocess::new([2, 2], vec![0.0; 3], vec![1.0; 3])
}

/// The values of the images asked for.
fn values(data: &Dataset, indices: &[usize]) -> Vec<u8> {
    let images = data.load(indices, &plain()).unwrap();
    images.outer_iter().map(|image| image[[2, 1, 1]]).map(|v| (v * 255.0).round() as u8).collect()
}

#[test]
fn splits_and_any_order_of_images() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bugs.h5");
    write(&path, &[("train", 30, 0), ("test", 5, 100)]);
    let [train, val, test] = [Split::Train, Split::Val, Split::Test].map(|s| Dataset::open(&path, s).unwrap());
    assert_eq!([train.len(), val.len(), test.len()], [27, 3, 5]);
    assert_eq!((train.kind(), train.name()), (Kind::Hdf5, "bugs"));
    assert_eq!(
        (test.classes(), test.labels()),
        (["ant", "bee"].map(String::from).as_slice(), [0, 1, 0, 1, 0].as_slice())
    );
    assert_eq!(test.image_shape(4).unwrap(), [3, 2, 2]);
    assert_eq!(values(&val, &[0, 1, 2]), [9, 19, 29]);
    assert_eq!(values(&train, &[26, 0, 9, 9, 10, 1]), [28, 0, 10, 10, 11, 1]);
    assert_eq!(values(&test, &[4, 2]), [104, 102]);
    assert_eq!(test.load(&[], &plain()).unwrap().dim(), (0, 3, 2, 2));
    assert_eq!(train.digest(), blake3::hash(&fs::read(&path).unwrap()).to_string());
    assert_eq!(Dataset::open(folder.path(), Split::Test).unwrap().len(), 5, "the only .h5 of a folder is found");
}

#[test]
fn val_is_the_test_part_unless_there_is_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.h5");
    write(&path, &[("train", 10, 0), ("val", 2, 100)]);
    let open = |split| Dataset::open(&path, split).unwrap();
    assert_eq!(values(&open(Split::Val), &[0]), [9]);
    assert_eq!(values(&open(Split::Test), &[0, 1]), [100, 101]);
    write(&path, &[("train", 10, 0), ("val", 2, 100), ("test", 1, 200)]);
    assert_eq!(values(&open(Split::Val), &[0, 1]), [100, 101]);
    assert_eq!(values(&open(Split::Test), &[0]), [200]);
    assert_eq!(open(Split::Train).len(), 10);
}

#[test]
fn missing_splits_strange_files_and_two_files_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.h5");
    let refused = |path: &Path, split: Split, words: &[&str]| {
        let message = Dataset::open(path, split).expect_err("should be refused").to_string();
        for word in words {
            assert!(message.contains(word), "`{word}` is not in: {message}");
        }
    };
    write(&path, &[("train", 10, 0)]);
    refused(&path, Split::Test, &["a.h5", "test split needs a group `test` (or `val`)", "the file has train"]);
    write(&path, &[("test", 10, 0)]);
    refused(&path, Split::Val, &["a.h5", "val split needs a group `train`", "the file has test"]);
    fs::copy(&path, folder.path().join("b.hdf5")).unwrap();
    refused(folder.path(), Split::Test, &["more than one data set (HDF5, HDF5)"]);
    fs::write(&path, b"not HDF5 at all").unwrap();
    refused(&path, Split::Test, &["a.h5", "train/images"]);
}
