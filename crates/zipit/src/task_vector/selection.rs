//! Which entries of task vectors are left.

use super::cut::Cut;
use super::source::PIECE;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Which entries of a tensor's task vector count, and by what they are multiplied.
#[derive(Debug, Clone)]
pub(super) enum Selection {
    /// All as they are.
    All,
    /// Those between two places in the order of magnitudes.
    Magnitudes(Band),
    /// Those that chance leaves.
    Drawn(Drawn),
}

/// Entries from `low` on and before `high`.
#[derive(Debug, Clone)]
pub(super) struct Band {
    pub low: Cut,
    pub high: Cut,
    /// How many entries are equal to each before every piece, where that matters.
    pub met: Vec<[u64; 2]>,
}

/// Each entry with probability `density`, by a generator of its own place.
#[derive(Debug, Clone)]
pub(super) struct Drawn {
    pub density: f64,
    pub seed: u64,
    /// The tensor and the network.
    pub stream: u64,
    pub factor: f64,
}

impl Selection {
    /// Zeros what is not left of the numbers from `start` on.
    pub fn apply(&self, start: usize, numbers: &mut [f32]) {
        match self {
            Self::All => {}
            Self::Magnitudes(band) => band.apply(start, numbers),
            Self::Drawn(drawn) => drawn.apply(start, numbers),
        }
    }
}

impl Band {
    fn apply(&self, start: usize, numbers: &mut [f32]) {
        let [mut low, mut high] = self.met.get(start / PIECE).copied().unwrap_or_default();
        for x in numbers {
            let left = !self.low.is_behind(*x, &mut low) & self.high.is_behind(*x, &mut high);
            *x = if left { *x } else { 0.0 };
        }
    }
}

impl Drawn {
    pub fn apply(&self, start: usize, numbers: &mut [f32]) {
        let mut chance = ChaCha8Rng::seed_from_u64(self.seed);
        chance.set_stream(self.stream);
        chance.set_word_pos(start as u128);
        // 2³² of them are all.
        let left = (self.density * 4_294_967_296.0).round() as u64;
        for x in numbers {
            let kept = u64::from(chance.next_u32()) < left;
            *x = if kept { (f64::from(*x) * self.factor) as f32 } else { 0.0 };
        }
    }
}
