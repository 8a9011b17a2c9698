//! Small image data sets on disk.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::path::Path;

/// Writes an IDX data set (train and test) of smooth random gray images, `size`×`size`, `n` of them in each part, with
/// labels 0…`n_classes`−1 in turn.
///
/// # Panics
/// When the folder cannot be written.
pub fn write_idx(folder: &Path, n: usize, size: usize, n_classes: usize) {
    std::fs::create_dir_all(folder).expect("a folder for the images");
    for (part, seed) in [("train", 1), ("t10k", 2)] {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut images = header(3, &[n, size, size]);
        for _ in 0..n {
            images.extend(smooth(&mut rng, size));
        }
        let mut labels = header(1, &[n]);
        labels.extend((0..n).map(|i| (i % n_classes) as u8));
        std::fs::write(folder.join(format!("{part}-images-idx3-ubyte")), images).expect("images");
        std::fs::write(folder.join(format!("{part}-labels-idx1-ubyte")), labels).expect("labels");
    }
}

/// Writes a data set in CIFAR-10's binary layout, 32×32 smooth random colour images, `n` of them in each part, with labels
/// 0…9 in turn.
///
/// # Panics
/// When the folder cannot be written.
pub fn write_cifar(folder: &Path, n: usize) {
    std::fs::create_dir_all(folder).expect("a folder for the images");
    let batch = |seed: u64, n: usize| -> Vec<u8> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        (0..n).flat_map(|i| [vec![(i % 10) as u8], smooth_colours(&mut rng, 32)].concat()).collect()
    };
    for part in 1..=5 {
        std::fs::write(folder.join(format!("data_batch_{part}.bin")), batch(part, n.div_ceil(5))).expect("images");
    }
    std::fs::write(folder.join("test_batch.bin"), batch(6, n)).expect("images");
    std::fs::write(folder.join("batches.meta.txt"), "0\n1\n2\n3\n4\n5\n6\n7\n8\n9\n").expect("class names");
}

fn smooth_colours(rng: &mut ChaCha8Rng, size: usize) -> Vec<u8> {
    (0..3).flat_map(|_| smooth(rng, size)).collect()
}

fn header(n_dims: u8, dims: &[usize]) -> Vec<u8> {
    let mut bytes = vec![0, 0, 8, n_dims];
    for &d in dims {
        bytes.extend((d as u32).to_be_bytes());
    }
    bytes
}

/// A sum of a few plane waves: neighbouring pixels correlate, as in real images.
fn smooth(rng: &mut ChaCha8Rng, size: usize) -> Vec<u8> {
    let waves: Vec<[f64; 4]> =
        (0..4).map(|_| [0, 1, 2, 3].map(|i| rng.random_range(-1.0..1.0) * if i < 2 { 4.0 } else { 1.0 })).collect();
    let pixel = |y: usize, x: usize| {
        let (y, x) = (y as f64 / size as f64, x as f64 / size as f64);
        let value: f64 = waves.iter().map(|[a, b, c, d]| d * (3.0 * (a * y + b * x + c)).sin()).sum();
        (127.0 + 60.0 * value).clamp(0.0, 255.0) as u8
    };
    (0..size * size).map(|i| pixel(i / size, i % size)).collect()
}

/// Writes a tree of class folders of PNG images, `per_class` training images and half as many (at least one) to test on.
///
/// # Panics
/// When nothing can be written.
pub fn write_class_folders(folder: &Path, classes: &[String], per_class: usize, size: usize) {
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    for (part, n) in [("train", per_class), ("val", (per_class / 2).max(1))] {
        for class in classes {
            let folder = folder.join(part).join(class);
            std::fs::create_dir_all(&folder).expect("a folder for the images");
            for i in 0..n {
                let planes = smooth_colours(&mut rng, size);
                let pixel = |x: u32, y: u32| {
                    let at = |c: usize| planes[c * size * size + y as usize * size + x as usize];
                    image::Rgb([at(0), at(1), at(2)])
                };
                let image = image::RgbImage::from_fn(size as u32, size as u32, pixel);
                image.save(folder.join(format!("{i:04}.png"))).expect("an image");
            }
        }
    }
}
