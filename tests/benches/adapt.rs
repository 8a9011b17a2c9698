//! `adapt` in images a second, beside a PyTorch loop of the same networks, loss, optimiser and augmentation
//! (`scripts/adapt_loop.py`) in the same run, taking turns: two ResNet-20s on Fashion-MNIST in one of their FLOPs.
//!
//! What `adapt` does once (reading, whitening, measuring) is left out, by the difference of a run of its ten epochs and one
//! of a step; its judging of held-out images is not. The loop asks the sources at every step, as such loops do; `adapt`
//! about each of an image's views once, and, in a column of its own, at every step, too. The loop's faster memory layout
//! counts.
#![allow(clippy::print_stdout, clippy::unwrap_used)]

use serde_json::Value;
use std::process::Command;
use zipit_tests::{Workplace, repository};

const N_IMAGES: usize = 1_000;
/// Of the long run and of the short one.
const EPOCHS: [f64; 2] = [10.0, 0.1];
const N_ROUNDS: usize = 3;
/// Steps of the loop that count.
const N_STEPS: usize = 15;

fn main() {
    // `cargo test --benches` and nextest call with flags; there is nothing to test here.
    if std::env::args().any(|arg| arg == "--test" || arg == "--list") {
        return;
    }
    let n_cores = std::thread::available_parallelism().map_or(1, usize::from);
    let place = Workplace::new();
    let at = |path: &str| repository().join(path).display().to_string();
    let sources =
        ["fashion_0-4_seed1", "fashion_5-9_seed2"].map(|name| at(&format!("data/checkpoints/{name}.safetensors")));
    let (sources, data) = (sources.join(" "), at("data/fashion-mnist"));
    place.ok("collect", &format!("{sources} --data {data} --images 1000 -o stats.h5"));
    place.ok("match", "stats.h5 --budget 1 -o plan.bin");
    place.ok("refit", &format!("plan.bin {sources} --data {data} --images 500 --rounds 0 -o network.safetensors"));
    let seconds = |epochs: f64, flags: &str| -> (f64, f64) {
        let flags = format!("--flip --shift 4 --images {N_IMAGES} --epochs {epochs} --report report.json {flags}");
        place.ok(
            "adapt",
            &format!("network.safetensors --to {sources} --data {data} {flags} --force -o out.safetensors"),
        );
        let manifest: Value = serde_json::from_slice(&place.bytes("manifest.json")).unwrap();
        let report: Value = serde_json::from_slice(&place.bytes("report.json")).unwrap();
        let of = |name: &str| report["report"][name].as_f64().unwrap();
        (manifest["out.safetensors"]["seconds"].as_f64().unwrap(), of("n_steps") * of("batch_size"))
    };
    let ours = |flags: &str| {
        let [long, short] = EPOCHS.map(|epochs| seconds(epochs, flags));
        (long.1 - short.1) / (long.0 - short.0)
    };
    let theirs = |flags: &str| -> f64 {
        let run = |layout: &str| -> f64 {
            let ran = Command::new(at(".venv-python/bin/python"))
                .arg(at("scripts/adapt_loop.py"))
                .arg(place.path("out.safetensors"))
                .arg("--to")
                .args(sources.split(' '))
                .args(["--threads", &n_cores.to_string(), "--layout", layout, "--steps", &N_STEPS.to_string()])
                .args(flags.split_whitespace())
                .env_remove("LD_LIBRARY_PATH")
                .output()
                .expect("make setup-python makes .venv-python");
            assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
            String::from_utf8(ran.stdout).unwrap().trim().parse().unwrap()
        };
        run("contiguous").max(run("channels_last"))
    };
    println!(
        "two ResNet-20s in one, {N_IMAGES} images 1×28×28, mirrored and shifted, {n_cores} cores: images a second"
    );
    let columns = ["adapt", "every step", "adapt bf16", "PyTorch, plain", "PyTorch, whitened"];
    let row =
        |first: &str, cells: [String; 5]| println!("{first:<6} {}", cells.map(|cell| format!("{cell:>18}")).concat());
    row("round", columns.map(str::to_owned));
    let mut rounds: Vec<[f64; 5]> = Vec::new();
    for i in 0..N_ROUNDS {
        let rates = [ours(""), ours("--views 0"), ours("--bf16"), theirs(""), theirs("--whitened")];
        row(&i.to_string(), rates.map(|rate| format!("{rate:.0}")));
        rounds.push(rates);
    }
    let median = |of: fn(&[f64; 5]) -> f64| {
        let mut all: Vec<f64> = rounds.iter().map(of).collect();
        all.sort_by(f64::total_cmp);
        all[all.len() / 2]
    };
    println!("median ratios      to weights as they are    to weights in whitened inputs");
    let ratios = |name: &str, plain: f64, whitened: f64| println!("{name:<18} {plain:>22.2} {whitened:>32.2}");
    ratios("adapt", median(|r| r[0] / r[3]), median(|r| r[0] / r[4]));
    ratios("every step", median(|r| r[1] / r[3]), median(|r| r[1] / r[4]));
    ratios("adapt bf16", median(|r| r[2] / r[3]), median(|r| r[2] / r[4]));
}
