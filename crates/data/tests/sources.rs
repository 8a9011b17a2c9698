//! Data sets as their makers distribute them: pickled CIFAR, STL-10, Tiny ImageNet, undivided class folders.
#![allow(clippy::unwrap_used, missing_docs)]

use std::{fs, path::Path};
use tempfile::TempDir;
use zipit::Preprocess;
use zipit_data::{Dataset, Kind, Split};

fn put(folder: &TempDir, name: &str, bytes: &[u8]) {
    let path = folder.path().join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

fn picture(folder: &TempDir, name: &str, red: u8) {
    let path = folder.path().join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let image = image::RgbImage::from_pixel(2, 2, image::Rgb([red, 0, 0]));
    image.save_with_format(path, image::ImageFormat::Png).unwrap();
}

/// All values of all images, as bytes.
fn bytes(data: &Dataset, size: [usize; 2]) -> Vec<u8> {
    let all: Vec<usize> = (0..data.len()).collect();
    let images = data.load(&all, &Preprocess::new(size, vec![0.0; 3], vec![1.0; 3])).unwrap();
    images.iter().map(|v| (v * 255.0).round() as u8).collect()
}

fn reds(data: &Dataset) -> Vec<u8> {
    bytes(data, [2, 2]).chunks(12).map(|image| image[0]).collect()
}

#[track_caller]
fn refused(path: &Path, split: Split, words: &[&str]) {
    let message = Dataset::open(path, split).expect_err("should be refused").to_string();
    for word in words {
        assert!(message.contains(word), "`{word}` is not in: {message}");
    }
}

/// As Python 2 and its NumPy wrote the official files.
fn python2(key: &str, labels: [u8; 2], pixels: &[u8]) -> Vec<u8> {
    let n = (pixels.len() as u32).to_le_bytes();
    [
        b"\x80\x02}q\x01(U\x04dataq\x02cnumpy.core.multiarray\n_reconstruct\nq\x03cnumpy\nndarray\nq\x04K\x00\x85U\x01b\x87Rq\x05",
        &b"(K\x01K\x02M\x00\x0c\x86cnumpy\ndtype\nq\x06U\x02u1K\x00K\x01\x87Rq\x07(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xff"[..],
        b"K\x00tb\x89T",
        &n,
        pixels,
        b"tbU",
        &[key.len() as u8],
        key.as_bytes(),
        b"](K",
        &labels[..1],
        b"K",
        &labels[1..],
        b"eU\x0bbatch_labelU\x03oneu.",
    ]
    .concat()
}

fn pattern() -> Vec<u8> {
    (0..2 * 3072).map(|i| (i % 251) as u8).collect()
}

fn cifar10(batch: &[u8]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in ["data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch"] {
        put(&folder, &format!("cifar-10-batches-py/{name}"), batch);
    }
    put(&folder, "cifar-10-batches-py/batches.meta", b"\x80\x02}U\x0blabel_names](U\x03catU\x03doges.");
    folder
}

#[test]
fn pickled_cifar_of_every_protocol() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut batches = vec![python2("labels", [1, 0], &pattern())];
    batches.extend((2..6).map(|p| fs::read(golden.join(format!("cifar_protocol{p}.pickle"))).unwrap()));
    for batch in batches {
        let folder = cifar10(&batch);
        let test = Dataset::open(folder.path(), Split::Test).unwrap();
        assert_eq!(
            (test.kind(), test.classes(), test.labels()),
            (Kind::Cifar10, ["cat", "dog"].map(String::from).as_slice(), [1, 0].as_slice())
        );
        assert_eq!(bytes(&test, [32, 32]), pattern());
        assert_eq!(Dataset::open(folder.path(), Split::Train).unwrap().len(), 9);
    }
    let folder = tempfile::tempdir().unwrap();
    put(&folder, "train", &python2("fine_labels", [0, 1], &pattern()));
    put(&folder, "meta", b"\x80\x02}U\x10fine_label_names](U\x03catU\x03doges.");
    let train = Dataset::open(folder.path(), Split::Train).unwrap();
    assert_eq!((train.kind(), train.labels()), (Kind::Cifar100, [0, 1].as_slice()));
    refused(folder.path(), Split::Test, &["needs test, which is missing"]);
}

/// A pickle may run anything; here it is only read.
#[test]
fn pickles_that_do_more_are_refused() {
    let good = python2("labels", [1, 0], &pattern());
    // Ten lists of ten lists of ten lists …
    let laughs = (1..40).fold(b"\x80\x02]q\x00".to_vec(), |mut all, i: u8| {
        all.push(b'(');
        all.extend([b'h', i - 1].repeat(10));
        all.extend([b'l', b'q', i]);
        all
    });
    let laughs = [laughs, b".".to_vec()].concat();
    for (batch, words) in [
        (b"cos\nsystem\n(S'echo gotcha'\ntR.".to_vec(), "it calls `os.system`, which is not run here"),
        (b"\x80\x02cos\nsystem\nU\x02ls\x85R.".to_vec(), "it calls `os.system`"),
        (b"\x80\x02(cos\nsystem\no.".to_vec(), "instruction 0x6f"),
        (good[..good.len() - 30].to_vec(), "pickled batches"),
        (python2("names", [1, 0], &pattern()), "has no list `labels`"),
        (python2("labels", [1, 7], &pattern()), "image 1 (counted from 0) has label 7"),
        (python2("labels", [1, 0], &pattern()[..3072]), "an array of shape [2, 3072] has 3072 bytes"),
        (b"\x80\x02]q\x00(h\x00h\x00h\x00h\x00e.".to_vec(), "nested too deep"),
        (laughs, "without end"),
        (b"\x80\x02)))))))))))))).".to_vec(), "has no array of bytes `data`"),
        (b".".to_vec(), "more from its stack"),
        (b"".to_vec(), "truncated"),
    ] {
        let folder = cifar10(&good);
        put(&folder, "cifar-10-batches-py/test_batch", &batch);
        refused(folder.path(), Split::Test, &["test_batch", words]);
    }
}

#[test]
fn stl10_is_stored_column_by_column() {
    let folder = tempfile::tempdir().unwrap();
    let plane: Vec<u8> = (0..96 * 96).map(|i| (i / 96) as u8).collect();
    for part in ["train", "test"] {
        put(&folder, &format!("stl10_binary/{part}_X.bin"), &plane.repeat(3 * 10));
        put(&folder, &format!("stl10_binary/{part}_y.bin"), &[1, 2, 1, 2, 1, 2, 1, 2, 1, 2]);
    }
    put(&folder, "stl10_binary/class_names.txt", b"airplane\nbird\n");
    let test = Dataset::open(folder.path(), Split::Test).unwrap();
    assert_eq!((test.kind(), test.classes()), (Kind::Stl10, ["airplane", "bird"].map(String::from).as_slice()));
    assert_eq!(test.labels()[..3], [0, 1, 0]);
    assert_eq!(bytes(&test, [96, 96])[..96], (0..96).collect::<Vec<u8>>());
    assert_eq!(Dataset::open(folder.path(), Split::Val).unwrap().labels(), [1]);
    put(&folder, "stl10_binary/test_y.bin", &[1, 2, 1, 2, 1, 2, 1, 2, 1, 3]);
    refused(folder.path(), Split::Test, &["test_y.bin", "label 9 (counted from 0) is 3", "(1 to 2)"]);
    put(&folder, "stl10_binary/test_y.bin", &[1; 9]);
    refused(folder.path(), Split::Test, &["test_X.bin", "has 9 labels", "truncated"]);
    put(&folder, "stl10_binary/test_y.bin", b"");
    fs::remove_file(folder.path().join("stl10_binary/class_names.txt")).unwrap();
    refused(folder.path(), Split::Train, &["needs class_names.txt"]);
}

fn tiny_imagenet() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for i in 0..3 {
        for (c, class) in ["n01443537", "n01629819"].iter().enumerate() {
            picture(&folder, &format!("train/{class}/images/{class}_{i}.JPEG"), (10 * c + i) as u8);
            put(&folder, &format!("train/{class}/{class}_boxes.txt"), b"");
        }
        picture(&folder, &format!("val/images/val_{i}.JPEG"), 100 + i as u8);
        picture(&folder, &format!("test/images/test_{i}.JPEG"), 200);
    }
    let annotations =
        b"val_2.JPEG\tn01443537\t0\t0\t62\t62\nval_0.JPEG\tn01629819\t3\t3\t1\t1\nval_1.JPEG\tn01443537\t0\t0\t1\t1\n";
    put(&folder, "val/val_annotations.txt", annotations);
    folder
}

#[test]
fn tiny_imagenet_as_it_is_unpacked() {
    let folder = tiny_imagenet();
    let test = Dataset::open(folder.path(), Split::Test).unwrap();
    assert_eq!(test.classes(), ["n01443537", "n01629819"]);
    assert_eq!((reds(&test), test.labels()), (vec![100, 101, 102], [1, 0, 0].as_slice()));
    assert!(test.warnings().iter().any(|note| note.contains("test has no labels")), "{:?}", test.warnings());
    assert_eq!(reds(&Dataset::open(folder.path(), Split::Train).unwrap()), [0, 1, 2, 10, 11, 12]);
    let before = test.digest().to_owned();
    put(&folder, "val/val_annotations.txt", b"val_2.JPEG\tn01443537\nval_0.JPEG\tn01629819\nval_1.JPEG\tn01443537\n");
    assert_ne!(Dataset::open(folder.path(), Split::Test).unwrap().digest(), before);
    for (text, words) in [
        ("val_0.JPEG\tn01443537\n", "says no class for"),
        ("val_0.JPEG n01443537\n", "line 1 is no image and its class"),
        ("val_0.JPEG\tx\nval_1.JPEG\tx\nval_2.JPEG\tx\n", "the class `x`, which train has no folder for"),
        ("val_0.JPEG\tn01443537\nval_0.JPEG\tn01629819\n", "line 2 gives `val_0.JPEG` another class"),
        (
            "val_0.JPEG\tn01443537\nval_1.JPEG\tn01443537\nval_2.JPEG\tn01443537\nval_3.JPEG\tn01443537\n",
            "names 4 images of which 3 are there",
        ),
    ] {
        put(&folder, "val/val_annotations.txt", text.as_bytes());
        refused(folder.path(), Split::Test, &["val_annotations.txt", words]);
    }
}

#[test]
fn undivided_class_folders_are_divided_by_position() {
    let folder = tempfile::tempdir().unwrap();
    for i in 0..20 {
        picture(&folder, &format!("{}/{:02}.png", if i < 10 { "cat" } else { "dog" }, i), i);
    }
    put(&folder, ".DS_Store", b"");
    put(&folder, "cat/._00.png", b"");
    let test = Dataset::open(folder.path(), Split::Test).unwrap();
    assert_eq!((test.classes(), reds(&test)), (["cat", "dog"].map(String::from).as_slice(), vec![8, 18]));
    assert!(test.warnings().iter().any(|note| note.contains("the ninth is taken for `test`")), "{:?}", test.warnings());
    assert!(test.warnings().iter().any(|note| note.starts_with("2 hidden files")), "{:?}", test.warnings());
    assert_eq!(reds(&Dataset::open(folder.path(), Split::Val).unwrap()), [9, 19]);
    let train = Dataset::open(folder.path(), Split::Train).unwrap();
    assert_eq!(reds(&train), (0..8).chain(10..18).collect::<Vec<u8>>());
    assert_eq!(train.file(0).unwrap(), Path::new("cat/00.png"));
    fs::create_dir(folder.path().join("emu")).unwrap();
    refused(folder.path(), Split::Test, &["emu", "remove the class folder or fill it"]);
}

/// A folder around the data set, or around the class folders, is not a class.
#[test]
fn a_folder_around_is_no_class() {
    let folder = tempfile::tempdir().unwrap();
    picture(&folder, "pets/train/cat/0.png", 0);
    refused(folder.path(), Split::Train, &["holds no data set", "found pets/"]);
    let folder = tempfile::tempdir().unwrap();
    picture(&folder, "pets/cat/0.png", 0);
    refused(folder.path(), Split::Train, &["holds no data set", "found pets/"]);
    let folder = tempfile::tempdir().unwrap();
    put(&folder, "notes/a.txt", b"");
    refused(folder.path(), Split::Train, &["holds no data set", "<class>/*.jpg"]);
}

#[test]
fn hdf5_compressed_as_h5py_does() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/gzip.h5");
    let train = Dataset::open(&path, Split::Train).unwrap();
    assert_eq!(bytes(&train, [32, 32]), pattern());
}
