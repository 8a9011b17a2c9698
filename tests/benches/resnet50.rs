//! Time and peak memory of every stage on ResNet-50s (torchvision's layout, random weights): two and four networks,
//! 64 images of 224×224; and of refit on 256, layer by layer, beside the bare forward passes that it needs. The figures
//! are those that the stages write into `manifest.json` themselves.
#![allow(clippy::print_stdout, clippy::unwrap_used)]

use ndarray::Array4;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;
use zipit::graph::{Arch, ArchSpec};
use zipit_artifact::{dataset, header::Provenance, model};
use zipit_tests::{Workplace, random_model};

const N_IMAGES: usize = 64;
const N_REFIT: usize = 256;
const SIZE: usize = 224;

fn main() {
    // `cargo test --benches` and nextest call with flags; there is nothing to test here.
    if std::env::args().any(|arg| arg == "--test" || arg == "--list") {
        return;
    }
    let only_refit = std::env::args().any(|arg| arg == "refit");
    let place = Workplace::new();
    write_images(&place, "images.h5", N_IMAGES);
    let graph = ArchSpec::new(Arch::ResNet50, 1.0, 3, [SIZE, SIZE], 4).build().unwrap();
    for i in 0..4u64 {
        let classes: Vec<String> = (4 * i..4 * i + 4).map(|c| format!("c{c:02}")).collect();
        let classes: Vec<&str> = classes.iter().map(String::as_str).collect();
        let raw = random_model(&graph, i, &format!("task{i}"), &classes);
        model::write(&place.path("raw.safetensors"), &raw, &Provenance::default()).unwrap();
        // BatchNorm's statistics as in a trained network, so that activations have an ordinary size.
        place.ok("recalibrate", &format!("raw.safetensors --data images.h5 --images 16 -o m{i}.safetensors"));
    }
    if !only_refit {
        stages(&place);
    }
    refit(&place);
}

/// The pipeline on two and four networks.
fn stages(place: &Workplace) {
    println!("ResNet-50, {N_IMAGES} images 3×{SIZE}×{SIZE}, zip to 100 % of the layers, covariance unmerge\n");
    println!("{:<3} {:<12} {:>8} {:>10} {:>10}", "N", "stage", "s", "peak GiB", "file GiB");
    for n in [2, 4] {
        let models = (0..n).map(|i| format!("m{i}.safetensors")).collect::<Vec<_>>().join(" ");
        place.ok("collect", &format!("{models} --data images.h5 --images {N_IMAGES} -o {n}.stats.h5"));
        place.ok("match", &format!("{n}.stats.h5 -o {n}.plan.bin"));
        place.ok("apply", &format!("{n}.plan.bin {models} -o {n}.merged.safetensors"));
        place.ok("recalibrate", &format!("{n}.merged.safetensors --data images.h5 -o {n}.network.safetensors"));
        place.ok("eval", &format!("{n}.network.safetensors --data images.h5 -o {n}.report.json"));
        for (stage, file) in [
            ("collect", "stats.h5"),
            ("match", "plan.bin"),
            ("apply", "merged.safetensors"),
            ("recalibrate", "network.safetensors"),
            ("eval", "report.json"),
        ] {
            let file = format!("{n}.{file}");
            let (seconds, peak) = cost(place, &file);
            let size = std::fs::metadata(place.path(&file)).unwrap().len() as f64;
            println!("{n:<3} {stage:<12} {seconds:>8.1} {peak:>10.2} {:>10.3}", size / f64::from(1 << 30));
        }
    }
}

/// Refit of two networks' full merge, its layers' times, and one forward pass of all three networks on the same images.
fn refit(place: &Workplace) {
    // Two networks know half of the classes, and every tenth training image is left out for validation.
    write_images(place, "more.h5", 2 * N_REFIT * 10 / 9 + 16);
    let models = "m0.safetensors m1.safetensors";
    place.ok("collect", &format!("{models} --data images.h5 -o r.stats.h5"));
    place.ok("match", "r.stats.h5 -o r.plan.bin");
    let data = format!("--data more.h5 --images {N_REFIT}");
    for rounds in [0, 2] {
        let out = format!("r{rounds}.network.safetensors");
        let args = format!("r.plan.bin {models} {data} --rounds {rounds} -v -o {out}");
        let ran = place.run("refit", &args).code(0);
        // Three networks of the same FLOPs.
        place.ok("eval", &format!("m0.safetensors m1.safetensors {out} {data} --split train -o r{rounds}.report.json"));
        println!("\nrefit of two ResNet-50s on {N_REFIT} images, {rounds} rounds, layer by layer");
        for line in ran.stderr().lines().filter(|line| line.contains("summed up") || line.contains("summing up")) {
            println!("{line}");
        }
        let ((seconds, peak), (forward, _)) = (cost(place, &out), cost(place, &format!("r{rounds}.report.json")));
        println!(
            "refit {seconds:.1} s, peak {peak:.2} GiB; the three networks run once in {forward:.1} s: ratio {:.2}",
            seconds / forward
        );
    }
}

/// Seconds and peak GiB of the stage that made a file.
fn cost(place: &Workplace, file: &str) -> (f64, f64) {
    let manifest: Value = serde_json::from_slice(&place.bytes("manifest.json")).unwrap();
    let entry = &manifest[file];
    (entry["seconds"].as_f64().unwrap(), entry["peak_memory"].as_f64().unwrap() / f64::from(1 << 30))
}

/// Sixteen classes, each image a random 7×7 pattern blown up to blocks of 32×32 pixels, with noise.
fn write_images(place: &Workplace, name: &str, n_images: usize) {
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    let mut draw = |n: usize| -> Array4<u8> {
        let patterns = Array4::from_shape_simple_fn((n, 3, 7, 7), || rng.random_range(0..224u8));
        Array4::from_shape_fn((n, 3, SIZE, SIZE), |(i, c, y, x)| {
            patterns[[i, c, y / 32, x / 32]] + ((x * 7 + y * 13 + i) % 32) as u8
        })
    };
    let (train, test) = (draw(n_images), draw(N_IMAGES));
    let labels = |n: usize| (0..n).map(|i| (i % 16) as u32).collect::<Vec<u32>>();
    let (train_labels, test_labels) = (labels(n_images), labels(N_IMAGES));
    let classes: Vec<String> = (0..16).map(|c| format!("c{c:02}")).collect();
    let splits = [("train", train.view(), &train_labels[..]), ("test", test.view(), &test_labels[..])];
    dataset::write(&place.path(name), &classes, &splits).unwrap();
}
