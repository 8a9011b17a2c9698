//! Sums over a convolution's patches, as refit takes them: by products of the images at every offset, against products of
//! the patches, per layer shape, on one thread and taking turns. Rates are of the patches' count of multiply-adds, F²/2 + F·O
//! per position, beside the machine's own rate in a product of large square matrices.
#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::time::Instant;
use tch::{Kind, Tensor};
use zipit::graph::{Node, Op, Window};
use zipit::refit::Design;
use zipit_torch::device;
use zipit_torch::refit::sums_of_batch;

/// Channels, outputs, groups, kernel, stride, size, images.
const LAYERS: [[usize; 7]; 11] = [
    [16, 16, 1, 3, 1, 32, 32],
    [32, 32, 1, 3, 1, 16, 32],
    [64, 64, 1, 3, 1, 8, 32],
    [64, 64, 1, 3, 1, 56, 8],
    [128, 128, 1, 3, 1, 28, 8],
    [256, 256, 1, 3, 1, 14, 16],
    [512, 512, 1, 3, 1, 7, 16],
    [128, 128, 1, 3, 2, 56, 8],
    [64, 64, 64, 3, 1, 56, 8],
    [128, 128, 32, 3, 1, 56, 8],
    [3, 64, 1, 7, 2, 224, 8],
];
const N_RUNS: usize = 5;

fn main() {
    // `cargo test --benches` and nextest call with flags; there is nothing to test here.
    if std::env::args().any(|arg| arg == "--test" || arg == "--list") {
        return;
    }
    device::set_intra_op_threads(1);
    let random = |size: &[i64]| Tensor::randn(size, (Kind::Float, tch::Device::Cpu));
    let square = random(&[1024, 1024]);
    let seconds = (0..N_RUNS).map(|_| timed(|| drop(square.matmul(&square)))).fold(f64::INFINITY, f64::min);
    let peak = 1024_f64.powi(3) / seconds / 1e9;
    println!("LibTorch {}, one thread: {:.0} GFLOP/s in f32", device::libtorch_version(), 2.0 * peak);
    println!(
        "{:<34} {:>14} {:>14} {:>7}  GFLOP/s of the patches, share of the machine's",
        "layer", "patches", "offsets", "ratio"
    );
    for [channels, outputs, groups, kernel, stride, size, images] in LAYERS {
        let window = Window::square(kernel, stride, kernel / 2);
        let op = Op::Conv2d { in_channels: channels, out_channels: outputs, window, groups, bias: true };
        let node = Node { name: "conv".into(), op, inputs: vec!["x".into()], module: None, params: [].into() };
        let out = window.output([size, size]).unwrap()[0];
        let shape = |channels: usize, size: usize| [images, channels, size, size].map(|n| n as i64);
        let (x, y) = (random(&shape(channels, size)), random(&shape(outputs, out)));
        let run = |by_offsets: bool| timed(|| drop(sums_of_batch(&node, &x, &y, by_offsets).unwrap()));
        let mut best = [f64::INFINITY; 2];
        for _ in 0..=N_RUNS {
            best = [best[0].min(run(false)), best[1].min(run(true))];
        }
        let Design { n_groups, n_inputs, n_outputs } = Design::of(&node.op).unwrap();
        let (g, f, o) = (n_groups as f64, n_inputs as f64, n_outputs as f64);
        let count = (images * out * out) as f64 * g * f * (f / 2.0 + o);
        let told = |seconds: f64| {
            let rate = count / seconds / 1e9;
            format!("{:.0} ({:.0} %)", 2.0 * rate, 100.0 * rate / peak)
        };
        println!(
            "{:<34} {:>11.1} ms {:>11.1} ms {:>7.2}  {} → {}",
            format!("{channels}→{outputs} {kernel}×{kernel}/{stride} ÷{groups} {size}² ×{images}"),
            1e3 * best[0],
            1e3 * best[1],
            best[1] / best[0],
            told(best[0]),
            told(best[1])
        );
    }
}

fn timed(run: impl FnOnce()) -> f64 {
    let start = Instant::now();
    run();
    start.elapsed().as_secs_f64()
}
