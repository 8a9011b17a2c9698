//! Decoding, resizing and cropping against Pillow (tests/golden/make.py).
#![allow(clippy::unwrap_used, missing_docs)]

use ndarray::Array4;
use std::path::{Path, PathBuf};
use zipit::Preprocess;
use zipit_data::{Dataset, Split};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// The file through a class folder, as bytes again.
fn load(name: &str, size: [usize; 2], resize: Option<usize>, channels: usize) -> Array4<f32> {
    let folder = tempfile::tempdir().unwrap();
    let class = folder.path().join("train/only");
    std::fs::create_dir_all(&class).unwrap();
    std::fs::copy(golden(name), class.join(name)).unwrap();
    let data = Dataset::open(folder.path(), Split::Train).unwrap();
    let preprocess = Preprocess { size, resize, mean: vec![0.0; channels], std: vec![1.0; channels] };
    data.load(&[0], &preprocess).unwrap().mapv(|v| (v * 255.0).round())
}

/// Largest and mean difference to the expected image.
fn difference(got: &Array4<f32>, expected: &str) -> (f32, f32) {
    let expected = image::open(golden(expected)).unwrap();
    let channels = usize::from(expected.color().channel_count());
    assert_eq!(got.dim(), (1, channels, expected.height() as usize, expected.width() as usize));
    let bytes = expected.as_bytes();
    let differences = got.indexed_iter().map(|((_, c, y, x), value)| {
        (value - f32::from(bytes[(y * expected.width() as usize + x) * channels + c])).abs()
    });
    let differences: Vec<f32> = differences.collect();
    let largest = differences.iter().fold(0.0, |a: f32, &b| a.max(b));
    (largest, differences.iter().sum::<f32>() / differences.len() as f32)
}

#[test]
fn resize_and_crop_are_those_of_torchvision() {
    let table = std::fs::read_to_string(golden("cases.tsv")).unwrap();
    let mut n_cases = 0;
    for line in table.lines().skip(1) {
        let [name, input, height, width, resize] = line.split('\t').collect::<Vec<_>>().try_into().unwrap();
        let size = [height.parse().unwrap(), width.parse().unwrap()];
        let channels = if input.starts_with("gray") { 1 } else { 3 };
        let got = load(input, size, resize.parse().ok(), channels);
        let (largest, mean) = difference(&got, &format!("{name}.expected.png"));
        // Exact but for halves, which fixed-point coefficients of another width round the other way.
        assert!(largest <= 1.0 && mean < 0.07, "{name}: differs by up to {largest}, {mean} on average");
        n_cases += 1;
    }
    assert_eq!(n_cases, 14);
}

#[test]
fn jpeg_as_pillow_decodes_it() {
    for (name, channels) in [("photo_420", 3), ("photo_progressive", 3), ("photo_gray", 1)] {
        let got = load(&format!("{name}.jpg"), [66, 100], None, channels);
        let (largest, mean) = difference(&got, &format!("{name}.expected.png"));
        assert!(largest <= 11.0 && mean < 0.5, "{name}: differs by up to {largest}, {mean} on average");
    }
}
