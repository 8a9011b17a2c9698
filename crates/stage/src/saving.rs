//! When unfinished work is saved.

use crate::args::EXECUTION;
use clap::Args;
use std::time::{Duration, Instant};

/// The flag of stages that save what is done.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = EXECUTION)]
pub struct SaveArgs {
    /// Save what is done every so many seconds, but never more than a tenth of the time
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    pub save_every: u64,
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
