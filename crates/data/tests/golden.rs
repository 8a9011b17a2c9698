//! Decoding, resizing and cropping against Pillow, torchvision and timm (tests/golden/make.py): the same bytes.
#![allow(clippy::unwrap_used, missing_docs)]

use ndarray::Array4;
use std::path::{Path, PathBuf};
use zipit::{Crop, Interpolation, Preprocess};
use zipit_data::{Dataset, Split};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn plain(size: [usize; 2], channels: usize) -> Preprocess {
    Preprocess::new(size, vec![0.0; channels], vec![1.0; channels])
}

/// The file through a class folder, as bytes again.
fn load(name: &str, preprocess: &Preprocess) -> Array4<f32> {
    let folder = tempfile::tempdir().unwrap();
    let class = folder.path().join("train/only");
    std::fs::create_dir_all(&class).unwrap();
    std::fs::copy(golden(name), class.join(name)).unwrap();
    let data = Dataset::open(folder.path(), Split::Train).unwrap();
    data.load(&[0], preprocess).unwrap_or_else(|e| panic!("{name}: {e}")).mapv(|v| (v * 255.0).round())
}

/// Largest difference to the expected image.
fn difference(got: &Array4<f32>, expected: &str) -> f32 {
    let expected = image::open(golden(expected)).unwrap();
    let channels = usize::from(expected.color().channel_count());
    assert_eq!(got.dim(), (1, channels, expected.height() as usize, expected.width() as usize));
    let bytes = expected.as_bytes();
    got.indexed_iter().fold(0.0, |largest: f32, ((_, c, y, x), value)| {
        largest.max((value - f32::from(bytes[(y * expected.width() as usize + x) * channels + c])).abs())
    })
}

#[test]
fn resize_and_crop_are_those_of_torchvision_and_timm() {
    let table = std::fs::read_to_string(golden("cases.tsv")).unwrap();
    let mut n_cases = 0;
    for line in table.lines().skip(1) {
        let [name, input, height, width, resize, crop, interpolation] =
            line.split('\t').collect::<Vec<_>>().try_into().unwrap();
        let channels = if input.starts_with("gray") { 1 } else { 3 };
        let number = |text: &str| text.parse::<usize>().unwrap();
        let resize = match resize.split_once('x') {
            Some((h, w)) => Some([number(h), number(w)]),
            None => (!resize.is_empty()).then(|| [number(resize); 2]),
        };
        let crop = Crop::ALL.into_iter().find(|known| known.name() == crop).unwrap();
        let fill = (crop == Crop::Border).then(|| vec![7, 100, 200][..channels].to_vec());
        let interpolation = Interpolation::ALL.into_iter().find(|known| known.name() == interpolation).unwrap();
        let size = [number(height), number(width)];
        let got = load(input, &Preprocess { resize, crop, fill, interpolation, ..plain(size, channels) });
        assert!(difference(&got, &format!("{name}.expected.png")) < 0.5, "{name}");
        n_cases += 1;
    }
    assert_eq!(n_cases, 31);
}

#[test]
fn photos_as_pillow_decodes_them() {
    for (name, channels) in [("photo_420", 3), ("photo_progressive", 3), ("photo_gray", 1)] {
        let got = load(&format!("{name}.jpg"), &plain([66, 100], channels));
        assert!(difference(&got, &format!("{name}.expected.png")) < 0.5, "{name}");
    }
}

/// One of every kind; compare.py takes hundreds of each through the same.
#[test]
fn files_of_every_kind_as_pillow_decodes_them() {
    let mut n_files = 0;
    for entry in std::fs::read_dir(golden("")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let Some(stem) = name.strip_prefix("file_").filter(|name| !name.ends_with(".expected.png")) else { continue };
        let expected = format!("file_{}.expected.png", stem.rsplit_once('.').unwrap().0);
        let size = image::image_dimensions(golden(&expected)).unwrap();
        let got = load(&name, &plain([size.1 as usize, size.0 as usize], 3));
        let off = difference(&got, &expected);
        // Halves of other scales than 255 are rounded up here, and to even by Pillow.
        let allowed = if name.contains("levels") { 1.0 } else { 0.0 };
        assert!(off <= allowed, "{name}: {off}");
        n_files += 1;
    }
    assert_eq!(n_files, 20);
}
