//! CIFAR's binary batches, good and bad.
#![allow(clippy::unwrap_used, missing_docs)]

use std::{fs, path::Path};
use tempfile::TempDir;
use zipit::Preprocess;
use zipit_data::{Dataset, Kind, Split};

const NAMES: &str = "airplane\nautomobile\nbird\n\n";

/// An image whose planes are filled with three values in a row.
fn record(labels: &[u8], first: u8) -> Vec<u8> {
    let planes = (first..first + 3).flat_map(|value| [value; 1024]);
    labels.iter().copied().chain(planes).collect()
}

/// Four images per training batch, two in the test batch.
fn cifar10() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    put(&folder, "batches.meta.txt", NAMES.as_bytes());
    for batch in 1..=5_u8 {
        let records: Vec<u8> = (0..4).flat_map(|i| record(&[i % 3], batch * 10 + i)).collect();
        put(&folder, &format!("data_batch_{batch}.bin"), &records);
    }
    put(&folder, "test_batch.bin", &[record(&[2], 100), record(&[0], 200)].concat());
    folder
}

fn put(folder: &TempDir, name: &str, bytes: &[u8]) {
    fs::write(folder.path().join(name), bytes).unwrap();
}

fn plain() -> Preprocess {
    Preprocess::new([32, 32], vec![0.0; 3], vec![1.0; 3])
}

#[track_caller]
fn refused(path: &Path, split: Split, words: &[&str]) {
    let message = Dataset::open(path, split).expect_err("should be refused").to_string();
    for word in words {
        assert!(message.contains(word), "`{word}` is not in: {message}");
    }
}

#[test]
fn cifar10_batches_in_order() {
    let folder = cifar10();
    let [train, val, test] = [Split::Train, Split::Val, Split::Test].map(|s| Dataset::open(folder.path(), s).unwrap());
    assert_eq!([train.len(), val.len(), test.len()], [18, 2, 2]);
    assert_eq!(
        (test.kind(), test.classes()),
        (Kind::Cifar10, ["airplane", "automobile", "bird"].map(String::from).as_slice())
    );
    assert_eq!(test.labels(), [2, 0]);
    let images = test.load(&[1, 0], &plain()).unwrap().mapv(|v| (v * 255.0).round());
    for ((i, c, ..), &value) in images.indexed_iter() {
        assert_eq!(value as usize, [200, 100][i] + c);
    }
    // Position 9 is the second image of batch 3.
    assert_eq!((val.load(&[0], &plain()).unwrap()[[0, 0, 0, 0]] * 255.0).round() as u8, 31);
}

#[test]
fn the_archive_s_own_folder_is_found_inside() {
    let outer = tempfile::tempdir().unwrap();
    let inner = cifar10();
    fs::rename(inner.path(), outer.path().join("cifar-10-batches-bin")).unwrap();
    assert_eq!(Dataset::open(outer.path(), Split::Test).unwrap().len(), 2);
}

#[test]
fn cifar100_takes_the_fine_label() {
    let folder = tempfile::tempdir().unwrap();
    put(&folder, "fine_label_names.txt", NAMES.as_bytes());
    put(&folder, "coarse_label_names.txt", b"things\nanimals\n");
    put(&folder, "train.bin", &record(&[1, 2], 5));
    put(&folder, "test.bin", &[record(&[0, 1], 7), record(&[9, 0], 8)].concat());
    let test = Dataset::open(folder.path(), Split::Test).unwrap();
    assert_eq!((test.kind(), test.labels()), (Kind::Cifar100, [1, 0].as_slice()));
    assert_eq!((test.load(&[0], &plain()).unwrap()[[0, 2, 31, 31]] * 255.0).round() as u8, 9);
    assert_eq!(Dataset::open(folder.path(), Split::Train).unwrap().labels(), [2]);
    refused(folder.path(), Split::Val, &["val split is empty", "only 1 images"]);
}

#[test]
fn a_network_of_one_channel_is_refused_with_advice() {
    let folder = cifar10();
    let gray = Preprocess::new([32, 32], vec![0.5], vec![0.5]);
    let message = Dataset::open(folder.path(), Split::Test).unwrap().load(&[0], &gray).unwrap_err().to_string();
    assert!(message.contains("RGB") && message.contains("grayscale"), "{message}");
}

#[test]
fn files_that_lie_are_refused() {
    let folder = cifar10();
    let good = fs::read(folder.path().join("test_batch.bin")).unwrap();
    for bad in [&good[..good.len() - 1], &[good.clone(), vec![0]].concat(), &[]] {
        put(&folder, "test_batch.bin", bad);
        refused(folder.path(), Split::Test, &["test_batch.bin", &format!("{} bytes", bad.len()), "3073-byte records"]);
    }
    put(&folder, "test_batch.bin", &[record(&[0], 1), record(&[3], 1)].concat());
    refused(folder.path(), Split::Test, &["test_batch.bin", "record 1", "label 3", "batches.meta.txt names 3 classes"]);

    fs::remove_file(folder.path().join("data_batch_3.bin")).unwrap();
    fs::remove_file(folder.path().join("data_batch_5.bin")).unwrap();
    refused(folder.path(), Split::Train, &["data_batch_3.bin, data_batch_5.bin", "missing"]);
    fs::remove_file(folder.path().join("batches.meta.txt")).unwrap();
    refused(folder.path(), Split::Test, &["batches.meta.txt", "missing"]);
}

#[test]
fn two_data_sets_in_one_folder_are_ambiguous() {
    let folder = cifar10();
    fs::create_dir(folder.path().join("train")).unwrap();
    refused(folder.path(), Split::Test, &["more than one data set", "CIFAR-10, class folders"]);
}
