//! From arguments to exit code.

use crate::args::{HasCommon, origins, with_environment};
use crate::{Progress, Table};
use anyhow::Context;
use clap::{ArgMatches, Command, Parser};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::SignalsInfo;
use signal_hook::iterator::exfiltrator::WithOrigin;
use signal_hook::low_level::siginfo::{Cause, Origin};
use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tracing_subscriber::EnvFilter;

/// A command line that asks for something that makes no sense: exit code 2.
#[derive(Debug)]
pub struct Usage(pub String);

impl std::fmt::Display for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} (see --help)", self.0)
    }
}

impl std::error::Error for Usage {}

/// A running stage: its name, its arguments as given, and whether someone asked it to stop.
#[derive(Debug)]
pub struct Stage {
    pub(crate) command: Command,
    pub(crate) matches: ArgMatches,
    pub(crate) quiet: bool,
    pub(crate) force: bool,
    n_threads: usize,
    started: Instant,
    signal: Arc<AtomicUsize>,
}

impl Stage {
    /// The binary's name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.command.get_name()
    }

    /// Whether `--force` was given.
    #[must_use]
    pub fn forced(&self) -> bool {
        self.force
    }

    /// Worker threads.
    #[must_use]
    pub fn n_threads(&self) -> usize {
        self.n_threads
    }

    /// Seconds since the stage started.
    #[must_use]
    pub fn seconds(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }

    /// Whether SIGINT or SIGTERM arrived.
    #[must_use]
    pub fn interrupted(&self) -> bool {
        self.signal.load(Ordering::Relaxed) != 0
    }

    /// Starts telling about `total` units of work called `unit`.
    #[must_use]
    pub fn progress(&self, what: &str, unit: &'static str, total: u64) -> Progress {
        Progress::start(what, unit, total, self.quiet, Arc::clone(&self.signal))
    }

    /// Writes a result to stdout. A reader that went away (`| head`) is not an error.
    ///
    /// # Errors
    /// When stdout cannot be written for another reason, a full disk for example.
    pub fn print(&self, text: &str) -> anyhow::Result<()> {
        let mut out = std::io::stdout().lock();
        match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
            Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => Err(e).context("cannot write the result to stdout"),
            _ => Ok(()),
        }
    }
}

/// Parses the arguments, runs a stage and ends the process. LibTorch and others would take back what they registered, a
/// fifth of a second for each process: by now nothing is left that could be lost.
pub fn run<A: Parser + HasCommon>(body: impl FnOnce(&A, &Stage) -> anyhow::Result<()>) -> ! {
    let code = code_of(body);
    // Only who asked could be told that stdout is gone, and has gone.
    let _ = std::io::stdout().flush();
    signal_hook::low_level::exit(code)
}

/// Parses the arguments and runs a stage: what the process exits with.
fn code_of<A: Parser + HasCommon>(body: impl FnOnce(&A, &Stage) -> anyhow::Result<()>) -> i32 {
    let started = Instant::now();
    let mut command = with_environment(A::command());
    let parsed = command.try_get_matches_from_mut(std::env::args_os()).and_then(|matches| {
        let args = A::from_arg_matches(&matches).map_err(|e| e.format(&mut command))?;
        Ok((args, matches))
    });
    let (args, matches) = match parsed {
        Ok(parsed) => parsed,
        Err(e) => {
            // Nothing is left to be done when even the usage cannot be printed.
            let _ = e.print();
            return e.exit_code();
        }
    };
    let common = args.common().clone();
    start_log(common.verbose);
    let signal = match listen() {
        Ok(signal) => signal,
        Err(e) => return failed(&e),
    };
    let n_threads = n_threads(common.threads);
    if let Err(e) = rayon::ThreadPoolBuilder::new().num_threads(n_threads).build_global() {
        return failed(&anyhow::Error::new(e).context(format!("cannot start {n_threads} threads")));
    }
    let stage = Stage { command, matches, quiet: common.quiet, force: common.force, n_threads, started, signal };
    let outcome = if common.print_config {
        let mut table = Table::new(["setting", "value", "origin"]);
        for row in origins(&stage.command, &stage.matches) {
            table.row(row);
        }
        stage.print(&table.to_text())
    } else {
        stage.check_outputs().and_then(|()| body(&args, &stage))
    };
    let signal = stage.signal.load(Ordering::Relaxed);
    match outcome {
        Ok(()) => 0,
        Err(e) if signal != 0 => {
            tracing::warn!("{}", told(&e));
            i32::try_from(128 + signal).unwrap_or(1)
        }
        Err(e) => failed(&e),
    }
}

#[expect(clippy::print_stderr, reason = "the one place where a failure is told")]
fn failed(error: &anyhow::Error) -> i32 {
    eprintln!("error: {}", told(error));
    if error.is::<Usage>() { 2 } else { 1 }
}

/// The error and its causes; a cause that is already in the words before it is not told twice.
fn told(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.to_lowercase().contains(essence(&cause).as_str()) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

/// A message without the number of the operating system's error, in small letters.
fn essence(message: &str) -> String {
    message.split(" (os error").next().unwrap_or_default().to_lowercase()
}

fn start_log(verbose: u8) {
    let default = match verbose {
        0 => "info",
        1 => "debug",
        _ => "trace",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(colour)
        .with_target(false)
        .without_time()
        .init();
}

/// The first signal asks the work to save and stop. A later one ends the process at once if a person means it: Slurm
/// sends TERM twice within milliseconds, and so do make and wrappers that pass it on.
fn listen() -> anyhow::Result<Arc<AtomicUsize>> {
    let cannot = "cannot listen for signals";
    let which = Arc::new(AtomicUsize::new(0));
    let mut signals = SignalsInfo::<WithOrigin>::new([SIGINT, SIGTERM]).context(cannot)?;
    let told = Arc::clone(&which);
    let listen = move || {
        let mut first: Option<Instant> = None;
        for Origin { signal, cause, .. } in signals.forever() {
            let Some(first) = first else {
                first = Some(Instant::now());
                told.store(usize::try_from(signal).unwrap_or(1), Ordering::Relaxed);
                tracing::info!(
                    "stopping, what is done is saved first (Ctrl-C again, or a signal after 5 s, ends at once)"
                );
                continue;
            };
            if is_meant(first.elapsed(), signal == SIGINT && matches!(cause, Cause::Kernel)) {
                signal_hook::low_level::exit(128 + signal);
            }
        }
    };
    std::thread::Builder::new().name("signals".to_owned()).spawn(listen).context(cannot)?;
    Ok(which)
}

/// Signals that come sooner after the first are the same one, sent by several.
const SAME: Duration = Duration::from_secs(5);

/// Whether a signal so long after the first is to end the process without saving; a key pressed at the terminal comes
/// from the kernel, once each time.
fn is_meant(after: Duration, is_key: bool) -> bool {
    is_key || after >= SAME
}

fn n_threads(asked: Option<u16>) -> usize {
    asked
        .map(usize::from)
        .or_else(|| std::env::var("SLURM_CPUS_PER_TASK").ok()?.parse().ok().filter(|&n: &usize| n > 0))
        .or_else(|| std::thread::available_parallelism().ok().map(usize::from))
        .unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_told_once() {
        let error =
            anyhow::anyhow!("No such file (os error 2)").context("cannot read x: no such file").context("model 2");
        assert_eq!(told(&error), "model 2: cannot read x: no such file");
    }

    #[test]
    fn a_second_signal_counts_after_a_while_or_from_a_key() {
        for millis in [0, 5, 20, 100, 4999] {
            assert!(!is_meant(Duration::from_millis(millis), false), "{millis} ms");
        }
        assert!(is_meant(SAME, false) && is_meant(Duration::ZERO, true));
    }
}
