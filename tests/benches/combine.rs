//! `combine` beside mergekit-pytorch on the same files in the same run, taking turns: four fine-tunes and a base of 300 million
//! parameters each, in f32 and bf16; seconds and peak memory, and the seconds that only reading the five files and writing one
//! takes. The files are in the page cache for all of them.
//!
//! Both trim within tensors and merge what agrees by its mean; mergekit computes in the files' precision, ours in f32 and f64,
//! and ours compares every file with its digest, before and after.
#![allow(clippy::print_stdout, clippy::unwrap_used)]

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use zipit::graph::{Graph, Input, Node, Op};
use zipit::{Model, Preprocess, Task};
use zipit_artifact::header::Provenance;
use zipit_artifact::{Precision, weights};
use zipit_tests::{Workplace, repository};

/// Of a layer; with `N_LAYERS` of them 302 million parameters.
const WIDTH: usize = 2048;
const N_LAYERS: usize = 72;
const N_TUNED: usize = 4;
/// Of rules that are a matter of seconds; a median is told. mergekit's TIES takes minutes, and runs once.
const N_ROUNDS: usize = 3;

fn main() {
    // `cargo test --benches` and nextest call with flags; there is nothing to test here.
    if std::env::args().any(|arg| arg == "--test" || arg == "--list") {
        return;
    }
    let n_cores = std::thread::available_parallelism().map_or(1, usize::from);
    println!(
        "{N_TUNED} fine-tunes and a base of {} million parameters, {n_cores} cores",
        WIDTH * WIDTH * N_LAYERS / 1_000_000
    );
    let columns = ["s", "peak GiB", "mergekit s", "peak GiB", "bytes s", "× faster", "× memory"];
    println!("{:<6} {:<16} {}", "files", "rule", columns.map(|name| format!("{name:>11}")).concat());
    for precision in [Precision::F32, Precision::Bf16] {
        let place = Workplace::new();
        (0..=N_TUNED).for_each(|t| write(&place.path(&name(t)), precision, t));
        for rule in ["task-arithmetic", "ties"] {
            let mut rounds: Vec<[f64; 5]> = Vec::new();
            for _ in 0..if rule == "ties" { 1 } else { N_ROUNDS } {
                let (ours, own_peak) = ours(&place, rule);
                let (theirs, peak) = theirs(&place, rule);
                rounds.push([ours, own_peak, theirs, peak, bytes(&place)]);
            }
            let median = |of: &dyn Fn(&[f64; 5]) -> f64| {
                let mut all: Vec<f64> = rounds.iter().map(of).collect();
                all.sort_by(f64::total_cmp);
                all[all.len() / 2]
            };
            let cells: Vec<f64> = (0..5).map(|i| median(&|round| round[i])).collect();
            let ratios = [median(&|round| round[2] / round[0]), median(&|round| round[1] / round[3])];
            let cells: Vec<String> = cells.iter().chain(&ratios).map(|cell| format!("{cell:>11.2}")).collect();
            println!("{:<6} {rule:<16} {}", precision.to_string(), cells.concat());
        }
    }
}

fn name(t: usize) -> String {
    format!("{t}.safetensors")
}

/// Network 0 is the base, from which the others differ by a tenth.
fn write(path: &Path, precision: Precision, t: usize) {
    let linear = |i: usize| Node {
        module: Some(format!("layer{i}")),
        ..Node::new(
            format!("layer{i}"),
            Op::Linear { in_features: WIDTH, out_features: if i == N_LAYERS { 10 } else { WIDTH }, bias: false },
            vec![if i == 0 { "flat".to_owned() } else { format!("relu{}", i - 1) }],
        )
    };
    let mut nodes = vec![Node::new("flat", Op::Flatten, vec!["x".into()])];
    for i in 0..N_LAYERS {
        nodes.extend([linear(i), Node::new(format!("relu{i}"), Op::Relu, vec![format!("layer{i}")])]);
    }
    nodes.push(linear(N_LAYERS));
    let graph = Graph {
        arch: "wide".into(),
        input: Input { name: "x".into(), shape: vec![WIDTH, 1, 1] },
        nodes,
        outputs: vec![format!("layer{N_LAYERS}")],
    };
    let shapes: BTreeMap<String, Vec<usize>> =
        graph.params().into_iter().map(|(name, param)| (name, param.shape)).collect();
    let tasks = vec![Task { name: format!("task {t}"), classes: (0..10).map(|c| format!("{t} {c}")).collect() }];
    let preprocess = Preprocess::new([1, 1], vec![0.5; WIDTH], vec![0.25; WIDTH]);
    let model = Model { graph, weights: BTreeMap::new(), tasks, preprocess, joint: None };
    let [mut base, mut own] = [0, t as u64].map(ChaCha8Rng::seed_from_u64);
    let uniform = |rng: &mut ChaCha8Rng| f64::from(rng.next_u32()) / f64::from(u32::MAX) - 0.5;
    weights::write_streamed(path, &model, &shapes, precision, &Provenance::default(), |writer| {
        for shape in shapes.values() {
            let mut numbers = vec![0.0_f32; shape.iter().product()];
            for x in &mut numbers {
                let moved = if t == 0 { 0.0 } else { 0.1 * uniform(&mut own).powi(3) };
                *x = (0.04 * (uniform(&mut base) + moved)) as f32;
            }
            writer.write(&numbers)?;
        }
        Ok::<_, zipit_artifact::Error>(())
    })
    .unwrap();
}

/// Runs a command to its end: seconds, and the most memory it held, in GiB.
fn timed(mut command: Command) -> (f64, f64) {
    let started = Instant::now();
    let mut child = command.spawn().expect("it starts");
    let mut peak = 0.0;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        let told = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let held = told.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse().ok());
        peak = held.unwrap_or(peak);
        std::thread::sleep(Duration::from_millis(10));
    };
    assert!(status.success(), "{command:?} fails");
    (started.elapsed().as_secs_f64(), peak / f64::from(1 << 20))
}

fn ours(place: &Workplace, rule: &str) -> (f64, f64) {
    let networks = (0..=N_TUNED).map(name).collect::<Vec<_>>().join(" ");
    let how = if rule == "ties" { "ties --trim-scope tensor --density 0.2" } else { "task-arithmetic --scale 0.3" };
    let args = format!("{networks} --rule {how} --dtype input --quiet --force -o ours.safetensors");
    let mut command = place.command("combine", &args);
    command.stdout(std::process::Stdio::null());
    timed(command)
}

fn theirs(place: &Workplace, rule: &str) -> (f64, f64) {
    let at = |t: usize| place.path(&name(t)).display().to_string();
    let weight = if rule == "ties" { 1.0 } else { 0.3 };
    let models: Vec<String> =
        (1..=N_TUNED).map(|t| format!("- {{model: {}, parameters: {{weight: {weight}}}}}\n", at(t))).collect();
    let method = rule.replace('-', "_");
    let how = if rule == "ties" { "parameters: {density: 0.2, normalize: true}\n" } else { "" };
    let config = format!("merge_method: {method}\nbase_model: {}\n{how}models:\n{}", at(0), models.concat());
    std::fs::write(place.path("config.yml"), config).unwrap();
    let mut command = Command::new(repository().join(".venv-mergekit/bin/mergekit-pytorch"));
    command.arg(place.path("config.yml")).arg(place.path("theirs")).env_remove("LD_LIBRARY_PATH");
    command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    let timed = timed(command);
    std::fs::remove_dir_all(place.path("theirs")).unwrap();
    timed
}

/// Only reads the five files and writes one, as durably as ours.
fn bytes(place: &Workplace) -> f64 {
    let started = Instant::now();
    let mut buffer = vec![0; 1 << 22];
    for t in 0..=N_TUNED {
        let mut from = File::open(place.path(&name(t))).unwrap();
        let mut to = (t == 0).then(|| File::create(place.path("copy")).unwrap());
        loop {
            let n = from.read(&mut buffer).unwrap();
            if n == 0 {
                break;
            }
            if let Some(to) = &mut to {
                to.write_all(&buffer[..n]).unwrap();
            }
        }
        if let Some(to) = to {
            to.sync_all().unwrap();
        }
    }
    started.elapsed().as_secs_f64()
}
