//! Arrays of NumPy, good and bad; their bytes are as `numpy.save` writes them.
#![allow(clippy::unwrap_used, missing_docs)]

use ndarray::{Array2, Array4};
use std::fs;
use zipit_data::numpy::{read_images, write_npz};

/// Format 1.0: magic, version, length of the header, header padded to 64 bytes, data.
fn npy(descr: &str, fortran: bool, shape: &str, data: &[u8]) -> Vec<u8> {
    let order = if fortran { "True" } else { "False" };
    header(&format!("{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}"), data)
}

fn header(text: &str, data: &[u8]) -> Vec<u8> {
    let length = (10 + text.len() + 1).next_multiple_of(64) - 10;
    let text = format!("{text:<width$}\n", width = length - 1);
    [b"\x93NUMPY\x01\0", &(length as u16).to_le_bytes()[..], text.as_bytes(), data].concat()
}

fn read(bytes: &[u8]) -> Result<Array4<f32>, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("images.npy");
    fs::write(&path, bytes).unwrap();
    read_images(&path).map_err(|e| e.to_string().replace(&path.display().to_string(), "images.npy"))
}

fn bytes<const K: usize>(numbers: impl Iterator<Item = [u8; K]>) -> Vec<u8> {
    numbers.flatten().collect()
}

#[test]
fn every_spelling_of_the_same_images() {
    let expected = Array4::from_shape_fn((2, 1, 3, 2), |(b, c, h, w)| (b * 100 + c * 50 + h * 10 + w) as f32 - 0.5);
    let shape = "(2, 1, 3, 2)";
    let c: Vec<f32> = expected.iter().copied().collect();
    // The first index runs fastest.
    let fortran: Vec<f32> = expected.t().iter().copied().collect();
    for file in [
        npy("<f4", false, shape, &bytes(c.iter().map(|x| x.to_le_bytes()))),
        npy(">f4", false, shape, &bytes(c.iter().map(|x| x.to_be_bytes()))),
        npy("<f8", false, shape, &bytes(c.iter().map(|x| f64::from(*x).to_le_bytes()))),
        npy("<f4", true, shape, &bytes(fortran.iter().map(|x| x.to_le_bytes()))),
        npy("<f8", true, shape, &bytes(fortran.iter().map(|x| f64::from(*x).to_le_bytes()))),
    ] {
        let found = read(&file).unwrap();
        assert_eq!(found, expected);
        assert!(found.is_standard_layout());
    }
}

#[test]
fn what_is_no_array_of_images_is_refused() {
    let zeros = [0_u8; 96];
    let numbers = |n: usize, last: f32| bytes((0..n).map(|i| if i + 1 == n { last } else { 0.0 }.to_le_bytes()));
    let good = npy("<f4", false, "(2, 1, 3, 2)", &numbers(12, 1.0));
    let deep = format!("{{'descr': {}", "(".repeat(900));
    let cases: &[(&str, Vec<u8>, &[&str])] = &[
        ("nothing", vec![], &["empty file", ".npy"]),
        ("text", b"hello".to_vec(), &["unknown kind", "numpy.save"]),
        ("archive", b"PK\x03\x04\0\0arr_0.npy".to_vec(), &["archive", "numpy.save"]),
        ("magic alone", good[..6].to_vec(), &["damaged", "header"]),
        ("half a header", good[..40].to_vec(), &["damaged", "header"]),
        ("cut data", good[..good.len() - 4].to_vec(), &["damaged", "44 bytes"]),
        ("too much data", [&good[..], &[0]].concat(), &["damaged", "49 bytes"]),
        ("version 9", [&good[..6], &[9], &good[7..]].concat(), &["format 9"]),
        ("no dictionary", header("[1, 2]", &zeros), &["damaged", "header"]),
        ("nested", header(&deep, &zeros), &["damaged", "header"]),
        ("long header", header(&" ".repeat(5000), &zeros), &["5046 bytes"]),
        ("bytes", npy("|u1", false, "(2, 1, 3, 2)", &zeros[..12]), &["|u1", "float32"]),
        ("half", npy("<f2", false, "(2, 1, 3, 2)", &zeros[..24]), &["<f2", "float32"]),
        ("complex", npy("<c8", false, "(2, 1, 3, 2)", &zeros), &["<c8", "float32"]),
        ("objects", npy("|O", false, "(2, 1, 3, 2)", &zeros), &["|O", "float32"]),
        ("one image", npy("<f4", false, "(1, 3, 2)", &zeros[..24]), &["[1, 3, 2]", "[B, C, H, W]", "images[None]"]),
        ("a scalar", npy("<f4", false, "()", &zeros[..4]), &["shape []", "[B, C, H, W]"]),
        ("no images", npy("<f4", false, "(0, 1, 3, 2)", &[]), &["no images", "[0, 1, 3, 2]"]),
        ("huge", npy("<f4", false, "(4294967296, 4294967296, 3, 2)", &zeros), &["damaged", "96 bytes"]),
        ("NaN", npy("<f4", false, "(2, 1, 3, 2)", &numbers(12, f32::NAN)), &["image 1", "NaN"]),
        ("infinity", npy("<f4", false, "(2, 1, 3, 2)", &numbers(12, f32::INFINITY)), &["image 1", "infinity"]),
        (
            "beyond f32",
            npy("<f8", false, "(1, 1, 1, 2)", &bytes([0.0, 1e300].iter().map(|x: &f64| x.to_le_bytes()))),
            &["image 0", "float32"],
        ),
    ];
    for (name, file, words) in cases {
        let message = read(file).expect_err(name);
        for word in [&["images.npy"], *words].concat() {
            assert!(message.contains(word), "{name}: `{word}` is not in: {message}");
        }
    }
    let folder = tempfile::tempdir().unwrap();
    assert!(read_images(&folder.path().join("absent.npy")).unwrap_err().to_string().contains("absent.npy"));
    assert!(read_images(folder.path()).is_err());
}

#[test]
fn archives_are_the_same_bytes_and_never_half_there() {
    let folder = tempfile::tempdir().unwrap();
    let arrays = [
        ("first".to_owned(), Array2::from_shape_fn((3, 2), |(i, j)| (2 * i + j) as f32)),
        ("gate/möwe".to_owned(), Array2::zeros((3, 1))),
    ];
    let [a, b] = ["a.npz", "b.npz"].map(|name| folder.path().join(name));
    write_npz(&a, &arrays).unwrap();
    write_npz(&b, &arrays).unwrap();
    let bytes = fs::read(&a).unwrap();
    assert_eq!(bytes, fs::read(&b).unwrap());
    let mut zip = zip::ZipArchive::new(std::io::Cursor::new(bytes)).unwrap();
    for (name, array) in &arrays {
        let entry = zip.by_name(&format!("{name}.npy")).unwrap();
        assert_eq!(entry.last_modified().unwrap().year(), 1980);
        let file = npyz::NpyFile::new(entry).unwrap();
        assert_eq!(file.shape(), [array.shape()[0] as u64, array.shape()[1] as u64]);
        assert_eq!(file.into_vec::<f32>().unwrap(), array.iter().copied().collect::<Vec<_>>());
    }
    let twice = [arrays[0].clone(), arrays[0].clone()];
    let error = write_npz(&a, &twice).unwrap_err().to_string();
    assert!(error.contains("a.npz") && error.contains("first"), "{error}");
    assert_eq!(fs::read(&a).unwrap(), fs::read(&b).unwrap());
    assert!(write_npz(&folder.path().join("nowhere/a.npz"), &arrays).unwrap_err().to_string().contains("nowhere"));
}
