//! Trees of class folders, good and bad.
#![allow(clippy::unwrap_used, missing_docs)]

use image::{GrayImage, Luma, Rgb, RgbImage};
use std::{fs, path::Path};
use tempfile::TempDir;
use zipit::Preprocess;
use zipit_data::{Dataset, Kind, Split};

/// `train/{cat,dog}/0.png … 9.png` of 4×4 pixels, `test/{cat,dog}/0.png`; the red value counts the images.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (part, n) in [("train", 10), ("test", 1)] {
        for (c, class) in ["dog", "cat"].iter().enumerate() {
            for i in 0..n {
                rgb(&folder, &format!("{part}/{class}/{i}.png"), (c * 10 + i) as u8);
            }
        }
    }
    folder
}

fn rgb(folder: &TempDir, name: &str, red: u8) {
    let path = folder.path().join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    RgbImage::from_pixel(4, 4, Rgb([red, 100, 200])).save(path).unwrap();
}

fn put(folder: &TempDir, name: &str, bytes: &[u8]) {
    let path = folder.path().join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

fn plain(channels: usize) -> Preprocess {
    Preprocess::new([4, 4], vec![0.0; channels], vec![1.0; channels])
}

fn reds(data: &Dataset) -> Vec<u8> {
    let all: Vec<usize> = (0..data.len()).collect();
    let images = data.load(&all, &plain(3)).unwrap();
    images.outer_iter().map(|image| (image[[0, 0, 0]] * 255.0).round() as u8).collect()
}

#[track_caller]
fn refused(path: &Path, split: Split, words: &[&str]) {
    let message = Dataset::open(path, split).expect_err("should be refused").to_string();
    for word in words {
        assert!(message.contains(word), "`{word}` is not in: {message}");
    }
}

#[track_caller]
fn load_refused(path: &Path, channels: usize, words: &[&str]) {
    let data = Dataset::open(path, Split::Test).unwrap();
    let all: Vec<usize> = (0..data.len()).collect();
    let message = data.load(&all, &plain(channels)).expect_err("should be refused").to_string();
    for word in words {
        assert!(message.contains(word), "`{word}` is not in: {message}");
    }
}

#[test]
fn classes_are_sorted_and_images_in_path_order() {
    let folder = folder();
    let train = Dataset::open(folder.path(), Split::Train).unwrap();
    assert_eq!((train.kind(), train.classes()), (Kind::Folder, ["cat", "dog"].map(String::from).as_slice()));
    assert_eq!(reds(&train), (10..19).chain(0..9).collect::<Vec<u8>>());
    assert_eq!(train.images_of(&[1]), (9..18).collect::<Vec<_>>());
    assert_eq!(reds(&Dataset::open(folder.path(), Split::Val).unwrap()), [19, 9]);
    assert_eq!(reds(&Dataset::open(folder.path(), Split::Test).unwrap()), [10, 0]);
    assert!(train.warnings().is_empty());
    let renamed = folder.path().join("pets.v2");
    fs::create_dir(&renamed).unwrap();
    fs::rename(folder.path().join("test"), renamed.join("test")).unwrap();
    assert_eq!(Dataset::open(&renamed, Split::Test).unwrap().name(), "pets.v2");
}

#[test]
fn val_is_the_test_part_unless_there_is_one() {
    let folder = folder();
    fs::rename(folder.path().join("test"), folder.path().join("val")).unwrap();
    assert_eq!(reds(&Dataset::open(folder.path(), Split::Test).unwrap()), [10, 0]);
    assert_eq!(reds(&Dataset::open(folder.path(), Split::Val).unwrap()), [19, 9]);
    rgb(&folder, "test/cat/x.png", 77);
    rgb(&folder, "test/dog/x.png", 78);
    assert_eq!(reds(&Dataset::open(folder.path(), Split::Test).unwrap()), [77, 78]);
    assert_eq!(reds(&Dataset::open(folder.path(), Split::Val).unwrap()), [10, 0]);
    assert_eq!(Dataset::open(folder.path(), Split::Train).unwrap().len(), 20);
}

#[test]
fn gray_files_nested_folders_and_wrong_extensions() {
    let folder = folder();
    let nested = folder.path().join("test/cat/more");
    fs::create_dir(&nested).unwrap();
    GrayImage::from_pixel(4, 4, Luma([42])).save(nested.join("gray.PNG")).unwrap();
    // A PNG that is called JPEG, as ImageNet has one.
    fs::copy(folder.path().join("test/dog/0.png"), folder.path().join("test/dog/1.JPEG")).unwrap();
    let test = Dataset::open(folder.path(), Split::Test).unwrap();
    assert_eq!(reds(&test), [10, 42, 0, 0]);
    assert_eq!(test.image_shape(0).unwrap(), [3, 4, 4]);
    assert_eq!(test.image_shape(1).unwrap(), [1, 4, 4]);
}

#[test]
fn other_files_are_ignored_with_a_warning() {
    let folder = folder();
    put(&folder, "test/cat/notes.txt", b"");
    put(&folder, "test/list.csv", b"");
    let test = Dataset::open(folder.path(), Split::Test).unwrap();
    assert_eq!(test.len(), 2);
    let [warning] = test.warnings() else { panic!("{:?}", test.warnings()) };
    assert!(warning.starts_with("2 files that are not") && warning.ends_with("test/list.csv"), "{warning}");
}

/// What file managers do not show, and what systems leave behind, as folders with images in them, empty, and as files.
#[test]
fn hidden_files_and_folders_are_no_data() {
    let folder = folder();
    let digest = Dataset::open(folder.path(), Split::Test).unwrap().digest().to_owned();
    let names = [".ipynb_checkpoints", ".thumbnails", "__MACOSX", "lost+found", "@eaDir", "$RECYCLE.BIN"];
    for (i, name) in names.iter().enumerate() {
        rgb(&folder, &format!("{name}/0.png"), 99);
        rgb(&folder, &format!("test/{name}/0.png"), 99);
        rgb(&folder, &format!("test/cat/{name}/0-checkpoint.png"), 99);
        // Empty in one part, missing from the other.
        if i % 2 == 0 {
            fs::create_dir_all(folder.path().join("train").join(name)).unwrap();
        }
    }
    for name in ["._0.png", ".DS_Store", "Thumbs.db", "desktop.ini", ".hidden.jpg"] {
        put(&folder, &format!("test/dog/{name}"), b"no image");
    }
    put(&folder, "._data.h5", b"no HDF5");
    put(&folder, "._train-images-idx3-ubyte.gz", b"no IDX");
    let test = Dataset::open(folder.path(), Split::Test).unwrap();
    assert_eq!((test.classes(), reds(&test)), (["cat", "dog"].map(String::from).as_slice(), vec![10, 0]));
    assert_eq!(test.digest(), digest);
    let [note] = test.warnings() else { panic!("{:?}", test.warnings()) };
    assert!(note.starts_with("25 hidden files and folders ignored: ") && note.contains("$RECYCLE.BIN"), "{note}");
    assert_eq!(Dataset::open(folder.path(), Split::Train).unwrap().classes(), ["cat", "dog"]);
    // A folder that is asked for by name is not hidden.
    let hidden = folder.path().join(".cache");
    fs::create_dir(&hidden).unwrap();
    fs::rename(folder.path().join("test"), hidden.join("test")).unwrap();
    assert_eq!(Dataset::open(&hidden, Split::Test).unwrap().len(), 2);
}

#[test]
fn the_digest_is_of_paths_and_sizes() {
    let folder = folder();
    let digest = |split| Dataset::open(folder.path(), split).unwrap().digest().to_owned();
    let size = |name: &str| fs::metadata(folder.path().join(name)).unwrap().len();
    let lines = ["test/cat/0.png", "test/dog/0.png"].map(|name| {
        format!(
            "{name}	{}
",
            size(name)
        )
    });
    assert_eq!(digest(Split::Test), blake3::hash(lines.concat().as_bytes()).to_string());
    let before = digest(Split::Train);
    fs::rename(folder.path().join("train/cat/3.png"), folder.path().join("train/cat/33.png")).unwrap();
    assert_ne!(digest(Split::Train), before);
}

#[test]
fn damaged_images_are_named() {
    let folder = folder();
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let jpeg = fs::read(golden.join("photo_420.jpg")).unwrap();
    let progressive = fs::read(golden.join("photo_progressive.jpg")).unwrap();
    let png = fs::read(golden.join("rgb_45x70.png")).unwrap();
    let dht = jpeg.windows(2).position(|pair| pair == [0xff, 0xc4]).unwrap();
    let huffman_tables_damaged = [&jpeg[..dht + 5], &[0xff; 16], &jpeg[dht + 21..]].concat();
    for (bytes, words) in [
        (vec![], "is empty"),
        (b"GIF89a...".to_vec(), "no image that can be read (JPEG, PNG"),
        (b"x".to_vec(), "no image that can be read (JPEG, PNG"),
        (jpeg[..2].to_vec(), "truncated JPEG"),
        (jpeg[..20].to_vec(), "truncated JPEG"),
        (jpeg[..jpeg.len() / 2].to_vec(), "truncated JPEG"),
        (jpeg[..jpeg.len() - 2].to_vec(), "truncated JPEG"),
        (progressive[..progressive.len() * 3 / 4].to_vec(), "truncated JPEG"),
        ([&jpeg[..2], &[0xff, 0xd9]].concat(), "damaged JPEG"),
        (huffman_tables_damaged, "damaged JPEG"),
        (png[..png.len() / 2].to_vec(), "damaged PNG"),
        (png[..10].to_vec(), "damaged PNG"),
    ] {
        put(&folder, "test/dog/bad.jpg", &bytes);
        load_refused(folder.path(), 3, &["test/dog/bad.jpg", words, "remove it"]);
    }
}

/// Zeros before the end are no damage; cut-off data are.
#[test]
fn jpegs_that_are_filled_up_are_read() {
    let folder = folder();
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let jpeg = fs::read(golden.join("file_JPEG_420.jpg")).unwrap();
    let with = |bytes: &[u8]| [&jpeg[..jpeg.len() - 2], bytes, &[0xff, 0xd9]].concat();
    put(&folder, "test/dog/0.png", &with(&[0; 7]));
    let data = Dataset::open(folder.path(), Split::Test).unwrap();
    data.load(&[1], &plain(3)).unwrap();
    put(&folder, "test/dog/0.png", &with(&[0x11; 7]));
    load_refused(folder.path(), 3, &["test/dog/0.png", "damaged JPEG", "extraneous bytes before marker 0xd9"]);
    // The frames of films leave the tables out, which are the standard's then.
    let dht = jpeg.windows(2).position(|pair| pair == [0xff, 0xc4]).unwrap();
    put(&folder, "test/dog/0.png", &[&jpeg[..dht], &[0xff, 0xfe], &jpeg[dht + 2..]].concat());
    put(&folder, "test/dog/1.png", &jpeg);
    let data = Dataset::open(folder.path(), Split::Test).unwrap();
    assert_eq!(data.load(&[1], &plain(3)).unwrap(), data.load(&[2], &plain(3)).unwrap());
    put(&folder, "test/dog/0.png", &[&jpeg[..], b"trailing bytes after the end"].concat());
    Dataset::open(folder.path(), Split::Test).unwrap().load(&[1], &plain(3)).unwrap();
}

/// Whatever bytes are flipped or cut, a JPEG or PNG is an image or an error, never a panic.
#[test]
fn no_damage_panics() {
    let folder = tempfile::tempdir().unwrap();
    put(&folder, "test/only/bad.jpg", b"");
    let data = Dataset::open(folder.path(), Split::Test).unwrap();
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let jpegs = ["photo_420.jpg", "photo_progressive.jpg", "file_JPEG_CMYK.jpg", "file_JPEG_arithmetic.jpg"];
    let others = ["file_BMP_RLE.bmp", "file_PPM_text.ppm", "file_TIFF_LZW.tif", "file_WebP_lossy.webp"];
    let gray = [("photo_gray.jpg", 1), ("gray_28x28.png", 1)];
    for (name, channels) in jpegs.iter().chain(&others).map(|&name| (name, 3)).chain(gray) {
        let good = fs::read(golden.join(name)).unwrap();
        let mut outcomes = [0; 2];
        for (k, at) in zipit_data::sample(good.len(), 150, 0).into_iter().enumerate() {
            let mut bad = good.clone();
            if k % 3 == 0 {
                bad.truncate(at);
            } else {
                bad[at] ^= 1 << (k % 8);
            }
            put(&folder, "test/only/bad.jpg", &bad);
            outcomes[usize::from(data.load(&[0], &plain(channels)).is_ok())] += 1;
        }
        // Of what is not compressed only a third, those that are cut, can be told.
        let least = if others.contains(&name) { 25 } else { 50 };
        assert!(outcomes[0] > least, "{name}: only {} of 150 damaged files were refused", outcomes[0]);
    }
}

#[test]
fn the_first_bad_image_is_named_whatever_the_threads() {
    let folder = folder();
    for i in [2, 5, 8] {
        put(&folder, &format!("train/cat/{i}.png"), b"bad");
    }
    let data = Dataset::open(folder.path(), Split::Train).unwrap();
    let all: Vec<usize> = (0..data.len()).collect();
    for n_threads in [1, 4] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(n_threads).build().unwrap();
        let message = pool.install(|| data.load(&all, &plain(3))).unwrap_err().to_string();
        assert!(message.contains("train/cat/2.png"), "{message}");
    }
}

#[test]
fn rgb_for_one_channel_is_refused_by_path() {
    let folder = folder();
    load_refused(folder.path(), 1, &["test/cat/0.png", "RGB", "grayscale"]);
}

#[test]
fn trees_that_lie_are_refused() {
    let empty_class = folder();
    fs::create_dir(empty_class.path().join("train/ant")).unwrap();
    refused(empty_class.path(), Split::Train, &["train/ant", "holds no .jpg"]);
    refused(empty_class.path(), Split::Test, &["test: lacks class folders", "train has: ant"]);

    let strange_class = folder();
    rgb(&strange_class, "test/eel/0.png", 1);
    refused(strange_class.path(), Split::Test, &["train: lacks class folders", "test has: eel"]);

    let no_test = folder();
    fs::remove_dir_all(no_test.path().join("test")).unwrap();
    refused(no_test.path(), Split::Test, &["test split needs a folder test/ (or val/)", "there is train/"]);
    let no_train = folder();
    fs::remove_dir_all(no_train.path().join("train")).unwrap();
    refused(no_train.path(), Split::Train, &["train split needs a folder train/", "there is test/"]);
    assert_eq!(Dataset::open(no_train.path(), Split::Test).unwrap().len(), 2);

    let flat = tempfile::tempdir().unwrap();
    rgb(&flat, "train/0.png", 1);
    refused(flat.path(), Split::Train, &["one folder of images per class", "0.png"]);
    let images_only = tempfile::tempdir().unwrap();
    rgb(&images_only, "0.png", 1);
    refused(images_only.path(), Split::Train, &["holds no data set", "train/<class>", "found 0.png"]);
}

#[cfg(unix)]
#[test]
fn links_are_followed_but_not_forever() {
    let folder = folder();
    std::os::unix::fs::symlink("../../train/cat/4.png", folder.path().join("test/cat/4.png")).unwrap();
    assert_eq!(reds(&Dataset::open(folder.path(), Split::Test).unwrap()), [10, 14, 0]);
    std::os::unix::fs::symlink("missing.png", folder.path().join("test/dog/5.png")).unwrap();
    refused(folder.path(), Split::Test, &["cannot read", "test/dog/5.png", "No such file"]);
    std::os::unix::fs::symlink("..", folder.path().join("train/dog/loop")).unwrap();
    refused(folder.path(), Split::Train, &["nested too deep"]);
}

#[cfg(unix)]
#[test]
fn unreadable_folders_and_files_are_named() {
    use std::os::unix::fs::PermissionsExt;
    let folder = folder();
    let forbid = |name: &str| {
        let path = folder.path().join(name);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
        path
    };
    let class = forbid("train/cat");
    // Root reads everything: there is nothing to see then.
    if fs::read_dir(&class).is_err() {
        refused(folder.path(), Split::Train, &["cannot read", "train/cat", "denied"]);
        forbid("test/cat/0.png");
        load_refused(folder.path(), 3, &["cannot read", "test/cat/0.png", "denied"]);
    }
    fs::set_permissions(&class, fs::Permissions::from_mode(0o755)).unwrap();
}
