//! Memory and time of the stages, from their trials.

use crate::trial::{self, Which};
use serde::Serialize;
use zipit_stage::Stage;

/// What a stage will take.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Estimate {
    pub stage: Which,
    /// 0 where it reads none.
    pub images: usize,
    pub seconds: f64,
    /// Of all processors together.
    pub cpu_seconds: f64,
    /// Resident at the peak; 0 where the system does not tell.
    pub peak_bytes: u64,
}

/// Of all stages, one after the other: they must not slow each other down.
pub fn all(has_batch_norms: bool, stage: &Stage) -> anyhow::Result<Vec<Estimate>> {
    let progress = stage.progress("try", "stages", Which::ALL.len() as u64);
    let mut estimates = Vec::new();
    for which in Which::ALL.into_iter().filter(|&which| has_batch_norms || which != Which::Recalibrate) {
        progress.note(which.name().to_owned());
        let taken = trial::of(which)?;
        let time = taken.time();
        estimates.push(Estimate {
            stage: which,
            images: taken.n_images,
            seconds: time.wall,
            cpu_seconds: time.cpu,
            peak_bytes: taken.peak() as u64,
        });
        zipit::watch::Watch::advance(&progress, 1);
    }
    Ok(estimates)
}

/// `0.4 s`, `12 s`, `3.5 min`, `2.1 h`.
pub fn time_in_words(seconds: f64) -> String {
    match seconds {
        s if s < 9.95 => format!("{s:.1} s"),
        s if s < 99.5 => format!("{s:.0} s"),
        s if s < 99.5 * 60.0 => format!("{:.1} min", s / 60.0),
        s => format!("{:.1} h", s / 3600.0),
    }
}

/// In GiB.
pub fn memory_in_words(bytes: u64) -> String {
    match bytes {
        0 => "unknown".to_owned(),
        bytes => format!("{:.2} GiB", bytes as f64 / f64::from(1 << 30)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_two_digits_or_three() {
        let times = [0.04, 9.949, 9.96, 99.4, 99.6, 5969.0, 5971.0].map(time_in_words);
        assert_eq!(times, ["0.0 s", "9.9 s", "10 s", "99 s", "1.7 min", "99.5 min", "1.7 h"]);
        assert_eq!([0, 3 << 28].map(memory_in_words), ["unknown", "0.75 GiB"]);
    }
}
