//! When unfinished work is saved.

use crate::Stage;
use crate::args::EXECUTION;
use anyhow::{bail, ensure};
use clap::Args;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use zipit::StateDict;
use zipit_artifact::checkpoint::{self, Checkpoint, Tensor};
use zipit_artifact::header::Provenance;

/// The flag of stages that save what is done.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = EXECUTION)]
pub struct SaveArgs {
    /// Save what is done every so many seconds, but never more than a tenth of the time
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    pub save_every: u64,
}

/// What an interrupted run leaves beside its output, under this ending.
#[must_use]
pub fn beside(out: &Path, ending: &str) -> PathBuf {
    let mut name = out.file_name().unwrap_or_default().to_owned();
    name.push(ending);
    out.with_file_name(name)
}

/// The state that an interrupted run of the same command left, and its tensors; `what` it is a state of, with its article.
///
/// # Errors
/// A file that cannot be read, is of another command, or holds tensors of another kind.
pub fn left_behind(
    path: &Path,
    what: &str,
    provenance: &Provenance,
    stage: &Stage,
) -> anyhow::Result<Option<(String, StateDict)>> {
    if !path.exists() || stage.forced() {
        return Ok(None);
    }
    let found = checkpoint::read(path)?;
    ensure!(
        found.provenance.key == provenance.key,
        "{} is the state of {what} with other settings or inputs; remove it or give --force to begin anew",
        path.display()
    );
    let floats = found.tensors.into_iter().map(|(name, tensor)| match tensor {
        Tensor::F32(tensor) => Ok((name, tensor)),
        Tensor::F64(_) | Tensor::I64(_) => bail!(no_state_of(path, what)),
    });
    Ok(Some((found.state, floats.collect::<anyhow::Result<_>>()?)))
}

/// Leaves it.
///
/// # Errors
/// When it cannot be written.
pub fn leave_behind(path: &Path, state: String, tensors: StateDict, provenance: &Provenance) -> anyhow::Result<()> {
    let tensors = tensors.into_iter().map(|(name, tensor)| (name, Tensor::F32(tensor))).collect();
    Ok(checkpoint::write(path, &Checkpoint { tensors, state, provenance: provenance.clone() })?)
}

/// What is said of a file that is something else.
#[must_use]
pub fn no_state_of(path: &Path, what: &str) -> String {
    format!("{} is not the state of {what}; remove it", path.display())
}

/// Says when it is time to save again.
#[derive(Debug)]
pub struct Saver {
    every: Duration,
    since: Instant,
    /// How long it is from one to the next.
    pause: Duration,
}

impl SaveArgs {
    /// The clock starts.
    #[must_use]
    pub fn start(&self) -> Saver {
        let every = Duration::from_secs(self.save_every);
        Saver { every, since: Instant::now(), pause: every }
    }
}

impl Saver {
    /// Time until what is done should be saved; zero when it is time.
    #[must_use]
    pub fn left(&self) -> Duration {
        self.pause.saturating_sub(self.since.elapsed())
    }

    /// Saves by `write`.
    pub fn save<T>(&mut self, write: impl FnOnce() -> T) -> T {
        let started = Instant::now();
        let written = write();
        self.since = Instant::now();
        self.pause = self.every.max(9 * (self.since - started));
        written
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_takes_long_is_saved_less_often() {
        let mut saver = SaveArgs { save_every: 1 }.start();
        assert!(saver.left() > Duration::from_millis(500));
        saver.save(|| std::thread::sleep(Duration::from_millis(200)));
        assert!(saver.left() > Duration::from_millis(1200), "{saver:?}");
    }
}
