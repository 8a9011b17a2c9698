//! What matching costs: seconds and memory of the full zip (d' = d, N = 2) over the number of joint features n, and of
//! every other method at two sizes.
//!
//! Features are random directions of a low-rank source plus noise of their own, rectified; the second model sees the
//! same source through other directions that share half with the first one's. Times are wall-clock, best of several runs.
//! Memory is the process's highest use during the last run beyond its use just before, in units of one f32 matrix
//! `[n, n]`; the similarity itself is input. Sizes to measure may be given as arguments.
#![allow(clippy::print_stdout, clippy::unwrap_used)]

use ndarray::{Array2, Axis};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::hint::black_box;
use std::time::Instant;
use zipit::Moments;
use zipit::matching::linkage::{Linkage, linkage};
use zipit::matching::{kmeans, optimal, oracle, permute, zip};

const N_MODELS: usize = 2;
const SIZES: [usize; 5] = [512, 1_024, 2_048, 4_096, 8_192];
/// Sizes at which the other methods run.
const OTHERS: [usize; 2] = [1_024, 4_096];
/// (α, β): no limits, and the paper's choice.
const LIMITS: [(f32, f32); 2] = [(1.0, 1.0), (0.3, 0.15)];
/// Up to here the oracle runs too.
const ORACLE_UP_TO: usize = 2_048;
const N_SAMPLES: usize = 3_000;
const RANK: usize = 64;
const SEED: u64 = 2305;
/// glibc: memory from this many bytes on is fetched from the system and given back when freed, so that what a run holds
/// shows in the process's use. It is read when the process starts.
const MMAP_THRESHOLD: &str = "MALLOC_MMAP_THRESHOLD_";

fn main() {
    // `cargo test --benches` and nextest call with flags; there is nothing to test here.
    if std::env::args().any(|arg| arg == "--test" || arg == "--list") {
        return;
    }
    if std::env::var_os(MMAP_THRESHOLD).is_none() {
        return measure_in_new_process();
    }
    let asked: Vec<usize> = std::env::args().skip(1).filter_map(|arg| arg.parse().ok()).collect();
    let sizes = if asked.is_empty() { SIZES.to_vec() } else { asked };
    let bandwidth = memory_bandwidth();
    println!(
        "N = {N_MODELS}, d' = d, {} threads, memory copied at {:.1} GB/s",
        rayon::current_num_threads(),
        bandwidth / 1e9
    );
    println!(
        "\n{:>6} {:>5} {:>5} {:>9} {:>9} {:>8} {:>9} {:>9} {:>8} {:>13}",
        "n", "alpha", "beta", "zip s", "memory", "lifted", "oracle s", "ratio", "GB", "of bandwidth"
    );
    let mut seconds: Vec<Vec<f64>> = vec![Vec::new(); LIMITS.len()];
    for &n in &sizes {
        let r = correlation(n);
        for ((alpha, beta), seconds) in LIMITS.into_iter().zip(&mut seconds) {
            let fast = timed(n, runs(n), || zip::zip(r.view(), N_MODELS, n / N_MODELS, alpha, beta));
            seconds.push(fast.seconds);
            let oracle =
                (n <= ORACLE_UP_TO).then(|| timed(n, 1, || oracle::zip(r.view(), N_MODELS, n / N_MODELS, alpha, beta)));
            if let Some(oracle) = &oracle {
                assert_eq!(oracle.result, fast.result, "the fast zip is not the oracle's");
            }
            let bytes = bytes_moved(n);
            println!(
                "{n:>6} {alpha:>5} {beta:>5} {:>9.4} {:>9.2} {:>8} {:>9} {:>9} {:>8.2} {:>12.0}%",
                fast.seconds,
                fast.matrices,
                fast.result.caps_lifted,
                oracle.as_ref().map_or_else(|| "-".into(), |o| format!("{:.2}", o.seconds)),
                oracle.as_ref().map_or_else(|| "-".into(), |o| format!("{:.0}", o.seconds / fast.seconds)),
                bytes / 1e9,
                100.0 * bytes / fast.seconds / bandwidth
            );
        }
    }
    if sizes.len() > 1 {
        for ((alpha, beta), seconds) in LIMITS.into_iter().zip(&seconds) {
            println!("alpha {alpha}, beta {beta}: seconds grow as n^{:.2}", exponent(&sizes, seconds));
        }
    }
    println!("\n{:>6} {:<10} {:>9} {:>9}", "n", "method", "s", "memory");
    for &n in sizes.iter().filter(|n| OTHERS.contains(n)) {
        others(n);
    }
}

fn measure_in_new_process() {
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    let status = command.args(std::env::args_os().skip(1)).env(MMAP_THRESHOLD, "262144").status().unwrap();
    std::process::exit(status.code().unwrap_or(1));
}

fn others(n: usize) {
    let (r, d) = (correlation(n), n / N_MODELS);
    let gram = r.mapv(f64::from);
    let row = |name: &str, t: &Timed<_>| println!("{n:>6} {name:<10} {:>9.3} {:>9.2}", t.seconds, t.matrices);
    row("permute", &timed(n, 1, || permute::permute(r.view(), N_MODELS)));
    row("ward", &timed(n, 1, || linkage(gram.view(), d, Linkage::Ward)));
    row("average", &timed(n, 1, || linkage(gram.view(), d, Linkage::Average)));
    row("kmeans", &timed(n, 1, || kmeans::kmeans(r.view(), d, SEED)));
    if n <= optimal::MAX_FEATURES {
        row("optimal", &timed(n, 1, || optimal::optimal(r.view())));
    }
}

/// R of n features, in equal parts of N models.
fn correlation(n: usize) -> Array2<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(SEED);
    // Near enough a normal variable for this: the sum of four uniform ones, at variance one.
    let mut normal = |rows, columns| {
        Array2::from_shape_simple_fn((rows, columns), || {
            (0..4).map(|_| rng.random_range(-1.0_f32..1.0)).sum::<f32>() * 0.75_f32.sqrt()
        })
    };
    let source = normal(N_SAMPLES, RANK);
    let shared = normal(RANK, n / N_MODELS);
    let own = normal(RANK, n);
    let d = n / N_MODELS;
    // Half of each direction is common to the models, in another order: feature j of one is 7·j + 3 of the other.
    let directions = Array2::from_shape_fn((RANK, n), |(k, j)| {
        let common = shared[[k, if j < d { j } else { (7 * j + 3) % d }]];
        (common + own[[k, j]]) / (2.0 * RANK as f32).sqrt()
    });
    let mut z = source.dot(&directions);
    z.zip_mut_with(&normal(N_SAMPLES, n), |x, noise| *x = (*x + 0.5 * noise).max(0.0));
    let mut moments = Moments::zeros(n);
    moments.add_batch(N_SAMPLES as u64, &z.sum_axis(Axis(0)).to_vec(), z.t().dot(&z).view());
    drop(z);
    moments.correlation()
}

/// What the zip reads and writes at least: the copy of the similarities and the first search of every row; then per
/// merge two rows read and one written, and one more search of a row. Not counted: the column written per merge, a
/// cache line for every number, and the look at every row's best.
fn bytes_moved(n: usize) -> f64 {
    let row = 4.0 * n as f64;
    let merges = (n - n / N_MODELS) as f64;
    3.0 * n as f64 * row + merges * 4.0 * row
}

/// Bytes per second that a copy of a large buffer reads and writes, best of several.
fn memory_bandwidth() -> f64 {
    let from = vec![1_u8; 1 << 28];
    let mut to = vec![0_u8; 1 << 28];
    let least = (0..5)
        .map(|_| {
            let start = Instant::now();
            black_box(&mut to).copy_from_slice(black_box(&from));
            start.elapsed().as_secs_f64()
        })
        .fold(f64::INFINITY, f64::min);
    2.0 * from.len() as f64 / least
}

fn runs(n: usize) -> usize {
    if n <= 2_048 { 5 } else { 3 }
}

struct Timed<T> {
    result: T,
    seconds: f64,
    /// Memory used beyond what was held before, in f32 matrices `[n, n]`.
    matrices: f64,
}

fn timed<T>(n: usize, runs: usize, work: impl Fn() -> T) -> Timed<T> {
    let once = || {
        // Linux: forget the highest memory use so far.
        let _ = std::fs::write("/proc/self/clear_refs", "5");
        let held = status_bytes("VmRSS:");
        let start = Instant::now();
        let result = work();
        let seconds = start.elapsed().as_secs_f64();
        Timed { result, seconds, matrices: (status_bytes("VmHWM:") - held) / (4.0 * (n * n) as f64) }
    };
    let best = (1..runs).map(|_| once().seconds).fold(f64::INFINITY, f64::min);
    let last = once();
    Timed { seconds: best.min(last.seconds), ..last }
}

/// A line of this process's memory use, in bytes.
fn status_bytes(line: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let found = status.lines().find_map(|l| l.strip_prefix(line)?.trim().strip_suffix(" kB")?.parse().ok());
    found.map_or(f64::NAN, |kib: f64| 1024.0 * kib)
}

/// The slope of log seconds over log n by least squares.
fn exponent(sizes: &[usize], seconds: &[f64]) -> f64 {
    let x: Vec<f64> = sizes.iter().map(|&n| (n as f64).ln()).collect();
    let y: Vec<f64> = seconds.iter().map(|s| s.ln()).collect();
    let mean = |v: &[f64]| v.iter().sum::<f64>() / v.len() as f64;
    let (mean_x, mean_y) = (mean(&x), mean(&y));
    let covariance: f64 = x.iter().zip(&y).map(|(x, y)| (x - mean_x) * (y - mean_y)).sum();
    covariance / x.iter().map(|x| (x - mean_x).powi(2)).sum::<f64>()
}
