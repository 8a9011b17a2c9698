//! Which entries of a vector are large: places in the stable order of magnitudes, found without sorting or keeping them.

use crate::Result;

/// A place in the ascending order of magnitudes, where equal ones stand as in the tensor: before it are all smaller ones and
/// the first `draws` of those that are equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cut {
    /// The magnitude's bits, which order as magnitudes do.
    magnitude: u32,
    draws: u64,
    /// How many are equal.
    n_equal: u64,
}

/// Bits below which [`Counts`] puts magnitudes into one bin.
const LOW: u32 = 15;

fn magnitude(x: f32) -> u32 {
    x.to_bits() & 0x7fff_ffff
}

impl Cut {
    /// Before everything.
    pub const FIRST: Self = Self { magnitude: 0, draws: 0, n_equal: 0 };
    /// Behind everything.
    pub const LAST: Self = Self { magnitude: u32::MAX, draws: 0, n_equal: 0 };

    /// Whether equal entries are on both sides, so that it matters which of them is met first.
    pub fn divides(&self) -> bool {
        self.draws > 0 && self.draws < self.n_equal
    }

    /// The same, with all equal ones behind it.
    pub fn before_draws(self) -> Self {
        Self { draws: 0, ..self }
    }

    /// How many of `numbers` are equal to it.
    pub fn n_equal_in(&self, numbers: &[f32]) -> u64 {
        numbers.iter().filter(|&&x| magnitude(x) == self.magnitude).count() as u64
    }

    /// Whether an entry is before it; `met` counts the equal ones.
    pub fn is_behind(&self, x: f32, met: &mut u64) -> bool {
        let own = magnitude(x);
        if own != self.magnitude {
            return own < self.magnitude;
        }
        *met += 1;
        *met <= self.draws
    }
}

/// How many magnitudes fall into each bin, by their upper or by their lower bits.
#[derive(Debug, Clone, Default)]
pub(super) struct Counts(Vec<u64>);

impl Counts {
    /// By the upper bits.
    pub fn add_upper(&mut self, numbers: &[f32]) {
        self.0.resize(1 << (31 - LOW), 0);
        for &x in numbers {
            self.0[(magnitude(x) >> LOW) as usize] += 1;
        }
    }

    /// Of those in bin `upper`, by the lower bits.
    pub fn add_lower(&mut self, numbers: &[f32], upper: u32) {
        self.0.resize(1 << LOW, 0);
        for &x in numbers {
            let x = magnitude(x);
            if x >> LOW == upper {
                self.0[(x & ((1 << LOW) - 1)) as usize] += 1;
            }
        }
    }

    pub fn merged(mut self, other: &Self) -> Self {
        self.0.resize(self.0.len().max(other.0.len()), 0);
        for (own, other) in self.0.iter_mut().zip(&other.0) {
            *own += other;
        }
        self
    }

    /// The bin that holds the entry of this rank, and how many are in the bins before.
    fn bin(&self, rank: u64) -> Option<(u32, u64)> {
        let mut before = 0;
        for (bin, &n) in self.0.iter().enumerate() {
            if before + n > rank {
                return Some((bin as u32, before));
            }
            before += n;
        }
        None
    }
}

/// What is done with every piece's numbers.
pub(super) type Add<'a> = dyn Fn(&mut Counts, &[f32]) + Sync + 'a;

/// Where the entries from `rank` on begin, of what `count` counts: called with what is to be done with every piece's numbers,
/// it returns what came of all.
///
/// # Errors
/// Those of `count`.
pub(super) fn cut(rank: u64, count: &dyn Fn(&Add<'_>) -> Result<Counts>, upper: &Counts) -> Result<Cut> {
    if rank == 0 {
        return Ok(Cut::FIRST);
    }
    let Some((bin, before)) = upper.bin(rank) else { return Ok(Cut::LAST) };
    let lower = count(&move |counts: &mut Counts, numbers: &[f32]| counts.add_lower(numbers, bin))?;
    let Some((low, smaller)) = lower.bin(rank - before) else { return Ok(Cut::LAST) };
    let n_equal = lower.0[low as usize];
    Ok(Cut { magnitude: bin << LOW | low, draws: rank - before - smaller, n_equal })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn cut_of(numbers: &[f32], rank: u64) -> Cut {
        let count = |add: &Add<'_>| {
            let mut counts = Counts::default();
            add(&mut counts, numbers);
            Ok(counts)
        };
        let mut upper = Counts::default();
        upper.add_upper(numbers);
        cut(rank, &count, &upper).unwrap()
    }

    #[test]
    fn a_cut_is_where_a_stable_sort_puts_it() {
        let numbers: Vec<f32> = (0..997_i32).map(|i| ((i * 7919) % 61 - 30) as f32 * 0.37).collect();
        let mut order: Vec<usize> = (0..numbers.len()).collect();
        order.sort_by(|&a, &b| numbers[a].abs().total_cmp(&numbers[b].abs()));
        for rank in [0, 1, 15, 16, 17, 400, 996, 997] {
            let cut = cut_of(&numbers, rank as u64);
            let mut met = 0;
            let behind: Vec<bool> = numbers.iter().map(|&x| cut.is_behind(x, &mut met)).collect();
            let mut expected = vec![false; numbers.len()];
            order[..rank].iter().for_each(|&i| expected[i] = true);
            assert_eq!(behind, expected, "rank {rank}");
        }
    }

    #[test]
    fn tiny_numbers_and_signed_zeros_have_their_places() {
        let numbers = [1e-41_f32, -0.0, 0.0, -2e-41, f32::MAX];
        let mut met = 0;
        let cut = cut_of(&numbers, 3);
        assert_eq!(numbers.map(|x| cut.is_behind(x, &mut met)), [true, true, true, false, false]);
        assert!(cut_of(&numbers, 1).divides() && !cut_of(&numbers, 2).divides());
    }
}
