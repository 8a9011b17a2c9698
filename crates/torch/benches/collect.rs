//! What measuring costs: moments of 5,000 Fashion-MNIST images through two ResNet-20s, against a bare LibTorch forward
//! of the same two unfolded networks in the same run, each at its best batch size and thread layout.
//!
//! The networks have random weights: speed does not depend on them. Time is wall-clock, best of several runs, with the
//! two sides taking turns; CPU time stands beside it, because other work on the machine moves it less. Peak memory is
//! of this process, from the start of the side's last run.
#![allow(clippy::print_stdout, clippy::unwrap_used)]

use flate2::read::GzDecoder;
use ndarray::{Array4, Axis};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::Read;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;
use zipit::graph::{ArchSpec, MergePoint, arch::Arch};
use zipit::images::ImageBatches;
use zipit::watch::Unwatched;
use zipit::{Collected, Graph, Importance, Model, Preprocess, Task};
use zipit_torch::images::InMemory;
use zipit_torch::{Device, Network, Probes, accumulate, device, initialise};

const N_IMAGES: usize = 5_000;
const N_MODELS: u64 = 2;
/// Images of the first look at every layout.
const N_SCREENED: usize = 1_000;
const BATCH_SIZES: [usize; 5] = [8, 16, 32, 64, 128];
/// Layouts per side that then run on all images.
const N_FINALISTS: usize = 3;
/// Runs of each of them, in turns.
const N_RUNS: usize = 7;
/// Ticks of a process's CPU time per second, as Linux reports it to programs.
const TICKS: f64 = 100.0;

fn main() {
    // `cargo test --benches` and nextest call with flags; there is nothing to test here.
    if std::env::args().any(|arg| arg == "--test" || arg == "--list") {
        return;
    }
    device::set_intra_op_threads(1);
    let images = fashion_mnist();
    let models = models();
    let points = models[0].graph.merge_points(&models[0].graph.spaces().unwrap());
    let n_cores = std::thread::available_parallelism().map_or(1, usize::from);
    println!(
        "{N_IMAGES} images 1×28×28, {N_MODELS} × ResNet-20 (width 1), {} merge points, {n_cores} cores, LibTorch {}",
        points.len(),
        device::libtorch_version()
    );

    let few = images.slice_axis(Axis(0), ndarray::Slice::from(..N_SCREENED)).to_owned();
    let forward = fastest("forward", &layouts(n_cores, true), |layout| forward(&models, &few, layout));
    let collect = fastest("collect", &layouts(n_cores, false), |layout| measure(&models, &points, &few, layout));
    let important =
        fastest("importance", &layouts(n_cores, false), |layout| measure_importance(&models, &points, &few, layout));
    let mut taken = [const { Vec::new() }; 3].map(|runs: Vec<Taken>| vec![runs; N_FINALISTS]);
    for _ in 0..N_RUNS {
        for i in 0..N_FINALISTS {
            taken[0][i].push(timed(|| self::forward(&models, &images, forward[i])));
            taken[1][i].push(timed(|| measure(&models, &points, &images, collect[i])));
            taken[2][i].push(timed(|| measure_importance(&models, &points, &images, important[i])));
        }
    }
    println!("\n{:<10} {:<40} {:>8} {:>8} {:>9} {:>9}", "", "layout", "wall s", "CPU s", "images/s", "peak MiB");
    let sides =
        [("forward", forward, &taken[0]), ("collect", collect, &taken[1]), ("importance", important, &taken[2])];
    let [forward_best, collect_best, important_best] = sides.map(|(name, layouts, runs)| {
        let best: Vec<Taken> = runs.iter().map(|runs| Taken::best(runs)).collect();
        let i = (0..N_FINALISTS).min_by(|&a, &b| best[a].wall.total_cmp(&best[b].wall)).unwrap();
        let (t, layout) = (best[i], layouts[i].to_string());
        let rate = N_IMAGES as f64 / t.wall;
        println!("{name:<10} {layout:<40} {:>8.3} {:>8.2} {rate:>9.0} {:>9.0}", t.wall, t.cpu, t.peak_mib);
        t
    });
    // A round's two sides run next to each other, so that what else the machine does meets both alike.
    let fastest_of = |side: &[Vec<Taken>], round: usize, of: fn(&Taken) -> f64| {
        side.iter().map(|runs| of(&runs[round])).fold(f64::INFINITY, f64::min)
    };
    let median = |side: usize, of: fn(&Taken) -> f64| {
        let ratio = |round| fastest_of(&taken[side], round, of) / fastest_of(&taken[0], round, of);
        let mut ratios: Vec<f64> = (0..N_RUNS).map(ratio).collect();
        ratios.sort_by(f64::total_cmp);
        ratios[N_RUNS / 2]
    };
    for (side, name, wanted, best) in [(1, "collect", 1.15, collect_best), (2, "importance", 3.2, important_best)] {
        println!(
            "\n{name} / forward (wanted: at most {wanted}): median of {N_RUNS} rounds {:.3} in wall-clock, {:.3} in CPU \
             time; least times {:.3} and {:.3}",
            median(side, |t| t.wall),
            median(side, |t| t.cpu),
            best.wall / forward_best.wall,
            best.cpu / forward_best.cpu
        );
    }
}

/// How the work is spread.
#[derive(Clone, Copy)]
struct Layout {
    batch_size: usize,
    /// Batches at the same time.
    workers: usize,
    /// LibTorch threads within one operation.
    intra_op: usize,
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { batch_size, workers, intra_op } = self;
        write!(f, "batch {batch_size}, {workers} worker(s) × {intra_op} thread(s)")
    }
}

/// One batch at a time on all cores (only for the bare forward), or one batch per core.
fn layouts(n_cores: usize, intra_op: bool) -> Vec<Layout> {
    let mut layouts: Vec<Layout> =
        BATCH_SIZES.iter().map(|&batch_size| Layout { batch_size, workers: n_cores, intra_op: 1 }).collect();
    if intra_op && n_cores > 1 {
        layouts.extend(BATCH_SIZES.iter().map(|&batch_size| Layout { batch_size, workers: 1, intra_op: n_cores }));
    }
    layouts
}

#[derive(Clone, Copy)]
struct Taken {
    wall: f64,
    cpu: f64,
    peak_mib: f64,
}

impl Taken {
    /// The least of each.
    fn best(runs: &[Self]) -> Self {
        let least = |of: fn(&Self) -> f64| runs.iter().map(of).fold(f64::INFINITY, f64::min);
        Self { wall: least(|t| t.wall), cpu: least(|t| t.cpu), peak_mib: runs.last().unwrap().peak_mib }
    }
}

fn timed(work: impl FnOnce()) -> Taken {
    // Linux: forget the highest memory use so far.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
    let (start, cpu) = (Instant::now(), cpu_seconds());
    work();
    Taken { wall: start.elapsed().as_secs_f64(), cpu: cpu_seconds() - cpu, peak_mib: peak_mib() }
}

fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    [11, 12].iter().filter_map(|&i| fields.get(i)?.parse::<f64>().ok()).sum::<f64>() / TICKS
}

fn peak_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse().ok());
    peak.map_or(f64::NAN, |kib: f64| kib / 1024.0)
}

/// The layouts with the least wall-clock time of two rounds, the fastest first.
fn fastest(name: &str, layouts: &[Layout], run: impl Fn(Layout)) -> Vec<Layout> {
    let mut least = vec![f64::INFINITY; layouts.len()];
    for _ in 0..2 {
        for (i, &layout) in layouts.iter().enumerate() {
            least[i] = least[i].min(timed(|| run(layout)).wall);
        }
    }
    for (layout, wall) in layouts.iter().zip(&least) {
        println!("  {name}: {layout}: {:.0} images/s", N_SCREENED as f64 / wall);
    }
    let mut order: Vec<usize> = (0..layouts.len()).collect();
    order.sort_by(|&a, &b| least[a].total_cmp(&least[b]));
    order.into_iter().take(N_FINALISTS).map(|i| layouts[i]).collect()
}

/// The networks as they are, on tensors made before the clock of any operation starts, values dropped at once.
fn forward(models: &[Model], images: &Array4<f32>, layout: Layout) {
    let data = InMemory::new(images.clone(), layout.batch_size);
    let next = AtomicUsize::new(0);
    let next = &next;
    let data = &data;
    std::thread::scope(|scope| {
        for _ in 0..layout.workers {
            let networks: Vec<Network> = models.iter().map(|m| Network::new(m, Device::Cpu).unwrap()).collect();
            scope.spawn(move || {
                device::set_intra_op_threads(layout.intra_op);
                let _no_grad = tch::no_grad_guard();
                loop {
                    let i = next.fetch_add(1, Ordering::Relaxed);
                    if i >= data.n_batches() {
                        return;
                    }
                    let input = networks[0].input(&data.batch(i).unwrap()).unwrap();
                    for network in &networks {
                        network.outputs(input.shallow_clone()).unwrap();
                    }
                }
            });
        }
    });
}

fn measure(models: &[Model], points: &[MergePoint], images: &Array4<f32>, layout: Layout) {
    let data = InMemory::new(images.clone(), layout.batch_size);
    let keep: BTreeSet<String> = points.iter().map(|p| p.name.clone()).collect();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(layout.workers).build().unwrap();
    pool.install(|| {
        let networks: Vec<Network> = models.iter().map(|m| Network::folded(m, &keep, Device::Cpu).unwrap()).collect();
        let networks: Vec<&Network> = networks.iter().collect();
        let mut sums = BTreeMap::new();
        accumulate::moments(&networks, points, &data, 0..data.n_batches(), &mut sums, &Unwatched).unwrap();
    });
}

/// The same with what every feature does to the logits: a backward pass through each network.
fn measure_importance(models: &[Model], points: &[MergePoint], images: &Array4<f32>, layout: Layout) {
    let data = InMemory::new(images.clone(), layout.batch_size);
    let graph = &models[0].graph;
    let mut keep: BTreeSet<String> = points.iter().map(|p| p.name.clone()).collect();
    let (mut traced, mut sums) = (BTreeSet::new(), Collected::default());
    for point in points {
        let places = graph.places(point).unwrap();
        keep.extend(places.iter().flat_map(|place| [place.read.value.clone(), place.made.value.clone()]));
        traced.extend(places.iter().map(|place| place.made.value.clone()));
        sums.importance.insert(point.name.clone(), Importance::zeros(&places, models.len(), point.dim));
    }
    let probes = Probes::new(0, &models.iter().collect::<Vec<_>>());
    let pool = rayon::ThreadPoolBuilder::new().num_threads(layout.workers).build().unwrap();
    pool.install(|| {
        let network = |model| Network::traced(model, &keep, &traced, Device::Cpu).unwrap();
        let networks: Vec<Network> = models.iter().map(network).collect();
        let networks: Vec<&Network> = networks.iter().collect();
        let range = 0..data.n_batches();
        accumulate::measure(&networks, points, &mut sums, Some(&probes), &data, range, &Unwatched).unwrap();
    });
}

fn models() -> Vec<Model> {
    let graph: Graph = ArchSpec::new(Arch::ResNet20, 1.0, 1, [28, 28], 5).build().unwrap();
    let model = |seed| Model {
        weights: initialise::initialise(&graph, seed).unwrap(),
        graph: graph.clone(),
        tasks: vec![Task { name: "task".into(), classes: (0..5).map(|c| c.to_string()).collect() }],
        preprocess: Preprocess::new([28, 28], vec![0.286], vec![0.353]),
        joint: None,
    };
    (0..N_MODELS).map(model).collect()
}

/// The first images of the test part, from the repository's own copy.
fn fashion_mnist() -> Array4<f32> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/fashion-mnist/t10k-images-idx3-ubyte.gz");
    let file = std::fs::File::open(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mut bytes = vec![0; 16 + N_IMAGES * 784];
    GzDecoder::new(file).read_exact(&mut bytes).unwrap();
    let values = bytes[16..].iter().map(|&x| (f32::from(x) / 255.0 - 0.286) / 0.353).collect();
    Array4::from_shape_vec((N_IMAGES, 1, 28, 28), values).unwrap()
}
