//! How many steps a machine makes in so much time.

use super::Adapter;
use crate::course::{Learns, Shown};
use crate::forward::Statistics;
use crate::images::Images;
use crate::{Error, Result};
use std::time::{Duration, Instant};

/// Steps that are timed at most, of each kind, and the share of the time that they may take before it is enough.
const TIMED: usize = 3;
const SHORT: u32 = 20;

impl Adapter<'_> {
    /// How many steps fit into so much time, with what comes after them: by that of some, which are undone.
    ///
    /// # Errors
    /// As a step's.
    pub fn steps_within(&mut self, time: Duration) -> Result<u64> {
        let shown = Shown { first: 0, indices: (0..self.course.batch_size).collect() };
        let (data, was, begun) = (self.fitted(), self.state()?, Instant::now());
        self.course.n_steps = self.course.n_steps.max(1);
        // With asking the sources, and with their answers kept.
        let mut fastest = [f64::MAX; 2];
        let kinds = if self.course.views > 0 { 2 } else { 1 };
        for _ in 0..TIMED {
            self.heard.clear();
            for fastest in &mut fastest[..kinds] {
                let start = Instant::now();
                let images = data.images(&shown.indices).map_err(|source| Error::Images { batch: 0, source })?;
                match self.learn(&images, &shown) {
                    // Steps that are too large are for rounds to find.
                    Ok(_) | Err(Error::NotFinite(_)) => *fastest = fastest.min(start.elapsed().as_secs_f64()),
                    Err(other) => return Err(other),
                }
            }
            if begun.elapsed() > time / SHORT {
                break;
            }
        }
        self.heard.clear();
        self.go_back_to(&was)?;
        let [asking, told] = [fastest[0], fastest[kinds - 1].min(fastest[0])];
        let mut left = time.saturating_sub(begun.elapsed()).as_secs_f64();
        if matches!(self.lesson.statistics, Statistics::Own) {
            // One pass forward over all images, which is a third of a step's.
            left -= told / 3.0 * (self.fitted.len() + self.held_out.len()) as f64 / self.course.batch_size as f64;
        }
        let asked = if self.course.views == 0 { u64::MAX } else { self.course.views * self.steps_per_epoch() };
        let n = (left / asking).floor() as u64;
        if n <= asked {
            return Ok(n);
        }
        Ok(asked.saturating_add(((left - asking * asked as f64) / told).floor() as u64))
    }
}
