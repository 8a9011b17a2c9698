//! A stage's own code on a few images, in a process of its own, so that its time and its peak of memory are the stage's.

pub mod collect;
pub mod images;
pub mod infer;
mod matching;
pub mod refit;

use crate::Args;
use anyhow::{Context, ensure};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use std::iter::Sum;
use std::ops::{Add, Mul, Sub};
use std::process::{Command, Stdio};
use std::time::Instant;
use zipit_artifact::model::ModelFile;
use zipit_stage::Stage;
use zipit_stage::manifest::peak_memory;

/// Which stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Which {
    Collect,
    Match,
    Refit,
    Recalibrate,
    Eval,
}

impl Which {
    pub const ALL: [Self; 5] = [Self::Collect, Self::Match, Self::Refit, Self::Recalibrate, Self::Eval];

    pub fn name(self) -> &'static str {
        match self {
            Self::Collect => "collect",
            Self::Match => "match",
            Self::Refit => "refit",
            Self::Recalibrate => "recalibrate",
            Self::Eval => "eval",
        }
    }
}

/// Seconds by the clock, and of all processors.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Time {
    pub wall: f64,
    pub cpu: f64,
}

/// What a stage takes of so many images: fixed parts and parts per image.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Taken {
    /// The images the stage will use.
    pub n_images: usize,
    pub fixed: Time,
    pub per_image: Time,
    /// Bytes; 0 where the system does not tell.
    pub memory: f64,
    pub memory_per_image: f64,
    /// Seconds from the start of the process until its trial was over.
    pub until: f64,
}

impl Taken {
    pub fn time(&self) -> Time {
        self.fixed + self.per_image * self.n_images as f64
    }

    /// Bytes at the peak.
    pub fn peak(&self) -> f64 {
        self.memory + self.memory_per_image * self.n_images as f64
    }
}

impl Time {
    /// By the clock if nothing else ran on the machine: not longer than the processors worked.
    pub fn alone(self) -> f64 {
        if self.cpu > 0.0 { self.wall.min(self.cpu) } else { self.wall }
    }

    /// What was measured may be less than the noise.
    pub fn at_least_zero(self) -> Self {
        Self { wall: self.wall.max(0.0), cpu: self.cpu.max(0.0) }
    }

    /// Since the process started.
    pub fn now(stage: &Stage) -> Self {
        Self { wall: stage.seconds(), cpu: cpu_seconds().unwrap_or_else(|| stage.seconds()) }
    }
}

impl Add for Time {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self { wall: self.wall + other.wall, cpu: self.cpu + other.cpu }
    }
}

impl Sub for Time {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self { wall: self.wall - other.wall, cpu: self.cpu - other.cpu }
    }
}

impl Mul<f64> for Time {
    type Output = Self;
    fn mul(self, factor: f64) -> Self {
        Self { wall: self.wall * factor, cpu: self.cpu * factor }
    }
}

impl Sum for Time {
    fn sum<I: Iterator<Item = Self>>(times: I) -> Self {
        times.fold(Self::default(), Add::add)
    }
}

/// In the process of its own: what the stage took, as JSON.
pub fn run(which: Which, args: &Args, stage: &Stage) -> anyhow::Result<String> {
    let files = zipit_stage::merging::read_models(&args.models)?;
    let taken = match which {
        Which::Collect => collect::try_out(&files, args, stage)?,
        Which::Match => matching::try_out(&files, stage)?,
        Which::Refit => refit::try_out(&files, args, stage)?,
        Which::Recalibrate => infer::recalibrate(&files, args, stage)?,
        Which::Eval => infer::eval(&files, args, stage)?,
    };
    Ok(serde_json::to_string(&Taken { until: stage.seconds(), ..taken })?)
}

/// glibc's heap as `refit/heap.c` has it.
const HEAP: [(&str, usize); 3] =
    [("MALLOC_MMAP_THRESHOLD_", 7 << 20), ("MALLOC_TRIM_THRESHOLD_", 32 << 20), ("MALLOC_ARENA_MAX", 1)];

/// Runs the trial of a stage with this process's arguments.
pub fn of(which: Which) -> anyhow::Result<Taken> {
    let started = Instant::now();
    let itself = std::env::current_exe().context("cannot find this program to start it again")?;
    let mut trial = Command::new(itself);
    if which == Which::Refit && std::env::var_os(HEAP[0].0).is_none() {
        trial.envs(HEAP.map(|(name, value)| (name, value.to_string())));
    }
    let output = trial
        .args(std::env::args_os().skip(1))
        .args(["--trial", which.name()])
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start the trial of {}", which.name()))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let reason = said.lines().find_map(|line| line.strip_prefix("error: ")).unwrap_or(said.trim());
    ensure!(output.status.success(), "the trial of {} failed ({}): {reason}", which.name(), output.status);
    let mut taken: Taken = serde_json::from_slice(&output.stdout)
        .with_context(|| format!("the trial of {} said nothing of use: {reason}", which.name()))?;
    // Loading the program, with LibTorch, and leaving it.
    if which == Which::Match {
        return Ok(taken);
    }
    taken.fixed.wall += (started.elapsed().as_secs_f64() - taken.until).max(0.0);
    Ok(taken)
}

/// Seconds that are enough to be measured, and so many that they are not spent twice.
const ENOUGH: f64 = 1.0;
const LONG: f64 = 5.0;

/// The time that `work` takes of a unit: it is run on `step` units first, then on as many as take
/// about [`ENOUGH`] seconds, up to `most`.
pub fn pace(
    step: usize,
    most: usize,
    stage: &Stage,
    mut work: impl FnMut(usize) -> anyhow::Result<()>,
) -> anyhow::Result<Time> {
    let mut timed = |n: usize| -> anyhow::Result<Time> {
        let before = Time::now(stage);
        work(n)?;
        Ok(Time::now(stage) - before)
    };
    let first = step.min(most);
    let took = timed(first)?;
    let more = (ENOUGH / took.alone().max(1e-3)).floor() as usize * step;
    let more = more.min(most / step * step);
    // The first time prepares kernels, which counts little only where it is long.
    if took.alone() > LONG {
        return Ok(took * (1.0 / first as f64));
    }
    let more = more.max(first);
    Ok(timed(more)? * (1.0 / more as f64))
}

/// The models of the files.
pub fn models(files: &[ModelFile]) -> Vec<&zipit::Model> {
    files.iter().map(|file| &file.model).collect()
}

/// Peak resident memory of this process so far, in bytes; 0 where the system does not tell.
pub fn peak() -> f64 {
    peak_memory().unwrap_or(0) as f64
}

/// Of this process, in the hundredths of a second that Linux counts for programs.
fn cpu_seconds() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    let ticks: Vec<f64> = fields.split_whitespace().skip(11).take(2).filter_map(|field| field.parse().ok()).collect();
    (ticks.len() == 2).then(|| ticks.iter().sum::<f64>() / 100.0)
}
