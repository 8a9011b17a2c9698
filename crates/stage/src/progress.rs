//! Progress: a bar on a terminal, else one plain line every 30 s; nothing with `--quiet`.

use indicatif::{HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;
use zipit::watch::Watch;

/// How often a line is written where no bar can be drawn.
const EVERY: Duration = Duration::from_secs(30);

/// Progress of one piece of work; ends when dropped.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
    signal: Arc<AtomicUsize>,
    /// The ticker ends when its sender is dropped.
    ticker: Option<(Sender<()>, JoinHandle<()>)>,
}

impl Progress {
    pub(crate) fn start(what: &str, unit: &'static str, total: u64, quiet: bool, signal: Arc<AtomicUsize>) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let bar = if quiet || !terminal {
            ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::hidden())
        } else {
            let bar = ProgressBar::new(total);
            let template = format!("{what} {{wide_bar}} {{pos}}/{{len}} {unit} {{per_sec}} ETA {{eta}} {{msg}}");
            if let Ok(style) = ProgressStyle::with_template(&template) {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(250));
            bar
        };
        let ticker = (!quiet && !terminal).then(|| {
            let (sender, over) = channel();
            let (what, bar) = (what.to_owned(), bar.clone());
            (sender, std::thread::spawn(move || tick(&what, unit, &bar, &over)))
        });
        Self { bar, signal, ticker }
    }

    /// Shows `text` behind the numbers (a loss, an accuracy).
    pub fn note(&self, text: String) {
        self.bar.set_message(text);
    }

    /// Work that an earlier run already did: counts as done, not as speed.
    pub fn skip(&self, n: u64) {
        self.bar.set_position(n);
        self.bar.reset_eta();
    }
}

fn tick(what: &str, unit: &str, bar: &ProgressBar, over: &Receiver<()>) {
    while over.recv_timeout(EVERY) == Err(RecvTimeoutError::Timeout) {
        tracing::info!("{}", line(what, unit, bar));
    }
}

/// The time that is left, where it can be told: after a long silence it is estimated in ages.
fn eta(left: Duration) -> String {
    const MOST: Duration = Duration::from_secs(30 * 24 * 60 * 60);
    if left > MOST { "unknown".to_owned() } else { HumanDuration(left).to_string() }
}

/// `collect 1200/5000 images, 140.2 images/s, ETA 27 seconds`
fn line(what: &str, unit: &str, bar: &ProgressBar) -> String {
    let note = bar.message();
    format!(
        "{what} {}/{} {unit}, {:.1} {unit}/s, ETA {}{}{note}",
        bar.position(),
        bar.length().unwrap_or(0),
        bar.per_sec(),
        eta(bar.eta()),
        if note.is_empty() { "" } else { ", " },
    )
}

impl Watch for Progress {
    fn advance(&self, n: u64) {
        self.bar.inc(n);
    }

    fn interrupted(&self) -> bool {
        self.signal.load(Ordering::Relaxed) != 0
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some((sender, thread)) = self.ticker.take() {
            drop(sender);
            // A ticker that panicked has nothing to say any more.
            let _ = thread.join();
        }
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_done_total_rate_and_note() {
        let progress = Progress::start("collect", "images", 50, true, Arc::default());
        progress.advance(20);
        progress.note("loss 0.5".to_owned());
        let line = line("collect", "images", &progress.bar);
        assert!(line.starts_with("collect 20/50 images, "), "{line}");
        assert!(line.contains("ETA") && line.ends_with("loss 0.5"), "{line}");
    }

    #[test]
    fn what_takes_ages_is_not_known() {
        assert_eq!(eta(Duration::from_secs(90)), HumanDuration(Duration::from_secs(90)).to_string());
        assert_eq!(eta(Duration::from_secs(u64::MAX)), "unknown");
    }

    #[test]
    fn short_work_does_not_wait_for_the_next_line() {
        let started = std::time::Instant::now();
        for _ in 0..500 {
            drop(Progress::start("match", "points", 1, false, Arc::default()));
        }
        assert!(started.elapsed() < EVERY, "{:?}", started.elapsed());
    }

    #[test]
    fn a_signal_is_an_interruption() {
        let signal = Arc::new(AtomicUsize::new(0));
        let progress = Progress::start("match", "points", 1, true, Arc::clone(&signal));
        assert!(!progress.interrupted());
        signal.store(15, Ordering::Relaxed);
        assert!(progress.interrupted());
    }
}
