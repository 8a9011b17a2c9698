//! MNIST-style IDX folders, good and bad.
#![allow(clippy::unwrap_used, missing_docs)]

use flate2::{Compression, write::GzEncoder};
use std::{fs, io::Write, path::Path};
use tempfile::TempDir;
use zipit::Preprocess;
use zipit_data::{Dataset, Kind, Split};

fn idx(shape: &[u32], values: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 0, 8, shape.len() as u8];
    bytes.extend(shape.iter().flat_map(|size| size.to_be_bytes()));
    bytes.extend(values);
    bytes
}

fn gz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// 20 training and 4 test images of 2×3 pixels in classes 0…4; every value of an image is its number.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (stem, n) in [("train", 20_u8), ("t10k", 4)] {
        let pixels: Vec<u8> = (0..n).flat_map(|i| [i; 6]).collect();
        let labels: Vec<u8> = (0..n).map(|i| i % 5).collect();
        put(&folder, &format!("{stem}-images-idx3-ubyte"), &idx(&[u32::from(n), 2, 3], &pixels));
        put(&folder, &format!("{stem}-labels-idx1-ubyte"), &idx(&[u32::from(n)], &labels));
    }
    folder
}

fn put(folder: &TempDir, name: &str, bytes: &[u8]) {
    fs::write(folder.path().join(name), bytes).unwrap();
}

/// Pixels as stored, one row per image.
fn stored(data: &Dataset) -> Vec<Vec<u8>> {
    let [c, h, w] = data.image_shape(0).unwrap();
    let plain = Preprocess::new([h, w], vec![0.0; c], vec![1.0; c]);
    let all: Vec<usize> = (0..data.len()).collect();
    let images = data.load(&all, &plain).unwrap();
    images.outer_iter().map(|image| image.iter().map(|v| (v * 255.0).round() as u8).collect()).collect()
}

#[track_caller]
fn refused(path: &Path, split: Split, words: &[&str]) {
    let message = Dataset::open(path, split).expect_err("should be refused").to_string();
    for word in words {
        assert!(message.contains(word), "`{word}` is not in: {message}");
    }
}

#[test]
fn train_and_val_are_disjoint_and_together_the_training_part() {
    let folder = folder();
    let [train, val, test] = [Split::Train, Split::Val, Split::Test].map(|s| Dataset::open(folder.path(), s).unwrap());
    assert_eq!(val.labels(), [4, 4]);
    assert_eq!(stored(&val), [[9; 6], [19; 6]]);
    let rest: Vec<u8> = stored(&train).iter().map(|image| image[0]).collect();
    assert_eq!(rest, (0..19).filter(|&i| i != 9).collect::<Vec<u8>>());
    assert_eq!(train.labels().len(), 18);
    assert_eq!(stored(&test).len(), 4);
    assert_eq!(test.labels(), [0, 1, 2, 3]);
}

#[test]
fn without_names_classes_are_numbers_and_all_splits_agree_on_them() {
    let folder = folder();
    let test = Dataset::open(folder.path(), Split::Test).unwrap();
    assert_eq!(test.classes(), ["0", "1", "2", "3", "4"], "the test part alone has only four");
    put(&folder, "classes.txt", b"ant\r\nbee\r\ncat\r\ndog\r\neel\r\n\r\n");
    assert_eq!(Dataset::open(folder.path(), Split::Test).unwrap().classes(), ["ant", "bee", "cat", "dog", "eel"]);
}

#[test]
fn gzip_dots_prefixes_and_an_inner_raw_folder_are_the_same_data() {
    let plain = folder();
    let expected = stored(&Dataset::open(plain.path(), Split::Train).unwrap());
    let renamings: [fn(&str) -> String; 4] = [
        |name| format!("{name}.gz"),
        |name| name.replace("-idx", ".idx"),
        |name| format!("emnist-digits-{}", name.replace("t10k", "test")),
        |name| format!("raw/{name}"),
    ];
    for rename in renamings {
        let other = tempfile::tempdir().unwrap();
        fs::create_dir(other.path().join("raw")).unwrap();
        for file in fs::read_dir(plain.path()).unwrap().map(Result::unwrap) {
            let name = rename(file.file_name().to_str().unwrap());
            let bytes = fs::read(file.path()).unwrap();
            put(&other, &name, &if rename("") == ".gz" { gz(&bytes) } else { bytes });
        }
        let data = Dataset::open(other.path(), Split::Train).unwrap();
        assert_eq!((data.kind(), stored(&data)), (Kind::Idx, expected.clone()), "{}", rename("…"));
        assert_eq!(Dataset::open(other.path(), Split::Test).unwrap().len(), 4);
    }
}

#[test]
fn colour_planes_and_colour_pixels() {
    let folder = tempfile::tempdir().unwrap();
    let labels = idx(&[2], &[0, 1]);
    put(&folder, "t10k-labels-idx1-ubyte", &labels);
    // Two images of 2×1 pixels: (1, 2, 3), (4, 5, 6) and the same plus ten.
    put(&folder, "t10k-images-idx4-ubyte", &idx(&[2, 2, 1, 3], &[1, 2, 3, 4, 5, 6, 11, 12, 13, 14, 15, 16]));
    let pixels = Dataset::open(folder.path(), Split::Test).unwrap();
    put(&folder, "t10k-images-idx4-ubyte", &idx(&[2, 3, 2, 1], &[1, 4, 2, 5, 3, 6, 11, 14, 12, 15, 13, 16]));
    let planes = Dataset::open(folder.path(), Split::Test).unwrap();
    assert_eq!(pixels.image_shape(0).unwrap(), [3, 2, 1]);
    assert_eq!(stored(&pixels), [[1, 4, 2, 5, 3, 6], [11, 14, 12, 15, 13, 16]]);
    assert_eq!(stored(&planes), stored(&pixels));
}

#[test]
fn gray_becomes_three_channels_and_is_normalised() {
    let folder = folder();
    let data = Dataset::open(folder.path(), Split::Test).unwrap();
    let preprocess = Preprocess::new([2, 3], vec![0.5, 0.0, 0.25], vec![0.5, 1.0, 2.0]);
    let images = data.load(&[3, 0, 3], &preprocess).unwrap();
    assert_eq!(images.dim(), (3, 3, 2, 3));
    let x = 3.0_f32 / 255.0;
    for y in 0..2 {
        let got: Vec<f32> = (0..3).map(|c| images[[0, c, y, 2]]).collect();
        assert_eq!(got, [(x - 0.5) / 0.5, x, (x - 0.25) / 2.0]);
    }
    assert_eq!(images.index_axis(ndarray::Axis(0), 0), images.index_axis(ndarray::Axis(0), 2));
    assert!((images[[1, 0, 0, 0]] + 1.0).abs() < 1e-6, "image 0 is black, (0 − 0.5) / 0.5");
}

#[test]
fn the_digest_is_what_b3sum_gives() {
    let folder = folder();
    put(&folder, "classes.txt", b"a\nb\nc\nd\ne\n");
    let data = Dataset::open(folder.path(), Split::Train).unwrap();
    let lines = ["classes.txt", "train-images-idx3-ubyte", "train-labels-idx1-ubyte"]
        .map(|name| format!("{}  {name}\n", blake3::hash(&fs::read(folder.path().join(name)).unwrap())));
    assert_eq!(data.digest(), blake3::hash(lines.concat().as_bytes()).to_string());
    put(&folder, "classes.txt", b"a\nb\nc\nd\nf\n");
    assert_ne!(Dataset::open(folder.path(), Split::Train).unwrap().digest(), data.digest());
}

#[test]
fn images_that_lie_are_refused() {
    let folder = folder();
    let name = "train-images-idx3-ubyte";
    let good = fs::read(folder.path().join(name)).unwrap();
    let cases: Vec<(Vec<u8>, &[&str])> = vec![
        (vec![], &["truncated", "header"]),
        (good[..3].to_vec(), &["truncated", "header"]),
        (good[..9].to_vec(), &["truncated", "header"]),
        (good[..good.len() - 1].to_vec(), &["truncated", "[20, 2, 3]", "120 bytes", "119 follow"]),
        ([&good[..], b"x"].concat(), &["longer", "120 bytes"]),
        (b"\x89PNG\r\n\x1a\n....".to_vec(), &["not an IDX file", "89, 50, 4e, 47"]),
        (
            idx(&[20, 2, 3], &[]).into_iter().enumerate().map(|(i, b)| if i == 2 { 0x0d } else { b }).collect(),
            &["0x0d"],
        ),
        (vec![0, 0, 8, 0], &["no dimensions"]),
        (idx(&[0, 2, 3], &[]), &["nothing in it"]),
        (idx(&[u32::MAX; 3], &[]), &["impossible shape"]),
        // Announces 4 GB: must not be allocated before they are there.
        (idx(&[u32::MAX, 1, 1], &[1, 2, 3]), &["truncated", "3 follow"]),
        (idx(&[20, 6], &[0; 120]), &["[20, 6]", "[N, H, W]"]),
        (idx(&[10, 2, 2, 3], &[0; 120]), &["10 images", "20 labels", "train-labels-idx1-ubyte"]),
        (idx(&[5, 2, 2, 6], &[0; 120]), &["[5, 2, 2, 6]", "1 or 3 channels"]),
    ];
    for (bytes, words) in cases {
        put(&folder, name, &bytes);
        refused(folder.path(), Split::Train, &[&[name], words].concat());
        if bytes.len() > 8 {
            put(&folder, name, &gz(&bytes));
            refused(folder.path(), Split::Train, words);
        }
    }
}

#[test]
fn damaged_gzip_is_refused() {
    let folder = folder();
    let name = "train-labels-idx1-ubyte";
    let good = gz(&fs::read(folder.path().join(name)).unwrap());
    let mut checksum = good.clone();
    *checksum.iter_mut().rev().nth(5).unwrap() ^= 1;
    for bad in [good[..good.len() - 9].to_vec(), good[..6].to_vec(), checksum, [&good[..], b"tail"].concat()] {
        put(&folder, name, &bad);
        refused(folder.path(), Split::Train, &[name]);
    }
    put(&folder, name, &good);
    Dataset::open(folder.path(), Split::Train).unwrap();
}

#[test]
fn labels_that_lie_are_refused() {
    let folder = folder();
    let name = "train-labels-idx1-ubyte";
    put(&folder, name, &idx(&[19], &[0; 19]));
    refused(folder.path(), Split::Val, &["20 images", "19 labels"]);
    put(&folder, name, &idx(&[20, 1], &[0; 20]));
    refused(folder.path(), Split::Train, &[name, "[20, 1]"]);
    let mut labels = [0; 20];
    labels[7] = 5;
    put(&folder, name, &idx(&[20], &labels));
    put(&folder, "classes.txt", b"a\nb\nc\nd\ne\n");
    refused(folder.path(), Split::Train, &[name, "label 7", "class 5", "classes.txt names 5 classes"]);
}

#[test]
fn class_names_that_lie_are_refused() {
    let folder = folder();
    for (names, words) in [
        ("\n\n", ["names no classes", "classes.txt"]),
        ("a\n\nc\nd\ne", ["line 2 is empty", "classes.txt"]),
        ("a\nb\na\nd\ne", ["line 3", "`a` a second time"]),
    ] {
        put(&folder, "classes.txt", names.as_bytes());
        refused(folder.path(), Split::Train, &words);
    }
    put(&folder, "classes.txt", &[b'a', 0xff, b'\n']);
    refused(folder.path(), Split::Train, &["UTF-8"]);
}

#[test]
fn missing_and_ambiguous_files_are_named() {
    let folder = folder();
    fs::remove_file(folder.path().join("t10k-labels-idx1-ubyte")).unwrap();
    Dataset::open(folder.path(), Split::Train).unwrap();
    refused(folder.path(), Split::Test, &["t10k-labels-idx1-ubyte", "missing", "the folder holds t10k-images"]);
    put(&folder, "emnist-letters-train-images-idx3-ubyte", b"");
    refused(folder.path(), Split::Train, &["several IDX data sets", "(no prefix), emnist-letters"]);
}

#[test]
fn nothing_there_says_what_was_looked_for() {
    let folder = tempfile::tempdir().unwrap();
    refused(folder.path(), Split::Train, &["holds no data set", "train-images-idx3-ubyte", "HDF5", "found nothing"]);
    put(&folder, "notes.txt", b"");
    refused(folder.path(), Split::Train, &["data_batch_1.bin", "train/<class>", "found notes.txt"]);
    refused(&folder.path().join("absent"), Split::Train, &["cannot read", "absent", "No such file"]);
    let file = folder.path().join("train-images-idx3-ubyte");
    fs::write(&file, b"").unwrap();
    refused(&file, Split::Train, &["one file of a data set", "give its folder"]);
}

#[test]
fn preprocessing_that_makes_no_sense_is_refused() {
    let folder = folder();
    let data = Dataset::open(folder.path(), Split::Test).unwrap();
    let good = Preprocess::new([2, 3], vec![0.5], vec![0.5]);
    let cases = [
        (Preprocess { std: vec![], ..good.clone() }, "1 means and 0 standard deviations"),
        (Preprocess { std: vec![0.0], ..good.clone() }, "std positive"),
        (Preprocess { mean: vec![f32::NAN], ..good.clone() }, "finite"),
        (Preprocess { size: [0, 3], ..good.clone() }, "leaves no image"),
        (Preprocess { size: [3, 3], resize: Some([2, 2]), ..good.clone() }, "resize to 3 or more"),
        (Preprocess { mean: vec![0.5; 2], std: vec![0.5; 2], ..good.clone() }, "1 channels but the network expects 2"),
    ];
    for (preprocess, words) in cases {
        let message = data.load(&[0], &preprocess).unwrap_err().to_string();
        assert!(message.contains(words), "{message}");
    }
    assert_eq!(data.load(&[], &good).unwrap().dim(), (0, 1, 2, 3));
}
