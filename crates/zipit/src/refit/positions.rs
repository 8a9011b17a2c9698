//! Which of a layer's positions its sums are taken over.

use super::design::Design;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::fmt;
use std::str::FromStr;

/// At most every so many-th position along an axis is summed up; along one axis alone, its square.
const LARGEST_STEP: usize = 4;
/// Samples for each unknown unless told otherwise.
const ENOUGH: u32 = 64;
/// Samples of a layer in any case: where outputs are sums of few numbers, as in a depthwise convolution, more cost nothing.
const FEWEST: u32 = 32_768;

/// Which of a layer's positions its sums are taken over.
///
/// Early layers have far more samples than unknowns: 256 images of 224×224 give a convolution that makes 56×56 positions
/// 802,816 samples for 64 to 576 unknowns an output, and samples side by side say much the same.
///
/// ```
/// use zipit::refit::{Design, Positions};
/// let design = |n_inputs| Design { n_groups: 1, n_inputs, n_outputs: 256 };
/// let step = |positions: Positions, n_inputs| positions.lattice(256, &[56, 56], design(n_inputs)).map(|l| l.step());
/// let enough = Positions::Enough { per_unknown: 32, in_all: 100_000 };
/// assert_eq!([9, 64, 4608, 30_000].map(|n| step(enough, n)), [Some(2), Some(2), Some(2), None]);
/// assert_eq!(step(Positions::All, 64), None);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Positions {
    /// All.
    All,
    /// So many of every image's, evenly spread, that there are enough samples; at least one of sixteen.
    Enough {
        /// For each number that an output is a sum of.
        per_unknown: u32,
        /// However few these are.
        in_all: u32,
    },
}

impl Default for Positions {
    fn default() -> Self {
        Self::Enough { per_unknown: ENOUGH, in_all: FEWEST }
    }
}

impl fmt::Display for Positions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Enough { per_unknown, .. } => per_unknown.fmt(f),
        }
    }
}

impl FromStr for Positions {
    type Err = String;

    fn from_str(given: &str) -> Result<Self, String> {
        match (given, given.parse()) {
            ("all", _) => Ok(Self::All),
            (_, Ok(per_unknown)) if per_unknown > 0 => Ok(Self::Enough { per_unknown, in_all: FEWEST }),
            _ => Err("a whole number from 1, or all".into()),
        }
    }
}

impl Positions {
    /// The sparsest lattice that leaves enough of the positions `sizes` of so many images; `None` for all of them.
    #[must_use]
    pub fn lattice(self, n_images: usize, sizes: &[usize], design: Design) -> Option<Lattice> {
        let Self::Enough { per_unknown, in_all } = self else { return None };
        let wanted = f64::from(in_all).max(f64::from(per_unknown) * design.n_inputs as f64);
        let largest = match sizes.len() {
            0 => 1,
            1 => LARGEST_STEP * LARGEST_STEP,
            _ => LARGEST_STEP,
        };
        let of = |step: usize| Lattice { step, sizes: sizes.to_vec() };
        let fits = |lattice: &Lattice| lattice.sizes.iter().all(|&size| size >= lattice.step);
        let leaves = |lattice: &Lattice| lattice.lengths().iter().fold(n_images as f64, |n, &length| n * length as f64);
        (2..=largest).rev().map(of).find(|lattice| fits(lattice) && leaves(lattice) >= wanted)
    }
}

/// Every so many-th position of an image, along every axis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lattice {
    step: usize,
    sizes: Vec<usize>,
}

impl Lattice {
    /// Every how many-th.
    #[must_use]
    pub fn step(&self) -> usize {
        self.step
    }

    /// All positions, along each axis.
    #[must_use]
    pub fn sizes(&self) -> &[usize] {
        &self.sizes
    }

    /// How many are chosen along each axis.
    #[must_use]
    pub fn lengths(&self) -> Vec<usize> {
        self.sizes.iter().map(|size| size / self.step).collect()
    }

    /// The first that are chosen of an image, along each axis: drawn for every image, so that all positions have their
    /// turn, and whether an image is held out says nothing of it.
    #[must_use]
    pub fn first(&self, image: usize) -> Vec<usize> {
        let mut rng = ChaCha8Rng::seed_from_u64(image as u64);
        let places = self.sizes.iter().zip(self.lengths());
        places.map(|(&size, length)| rng.random_range(0..=size - 1 - self.step * (length - 1))).collect()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    const DESIGN: Design = Design { n_groups: 1, n_inputs: 10, n_outputs: 1 };

    fn of([per_unknown, in_all]: [u32; 2]) -> Positions {
        Positions::Enough { per_unknown, in_all }
    }

    #[test]
    fn as_few_are_chosen_as_are_enough() {
        let step = |enough, n_images, sizes: &[usize]| {
            of([enough, 0]).lattice(n_images, sizes, DESIGN).map_or(1, |lattice| lattice.step())
        };
        // 10 images of 8×8: 640, 160, 40 (two of 8 in steps of three), 40.
        assert_eq!([5, 4, 16, 17, 1000].map(|n| step(n, 10, &[8, 8])), [2, 4, 2, 1, 1]);
        assert_eq!(step(1, 1000, &[3, 9]), 3, "no axis is left without a position");
        assert_eq!(step(1, 1_000_000, &[197]), 16);
        assert_eq!(step(1, 1_000_000, &[1, 1]), 1);
        assert_eq!(step(1, 1_000_000, &[]), 1);
        let at_least = |in_all| of([4, in_all]).lattice(10, &[8, 8], DESIGN).map_or(1, |lattice| lattice.step());
        assert_eq!([40, 41, 160, 161].map(at_least), [4, 2, 2, 1]);
    }

    #[test]
    fn what_is_said_is_what_is_read() {
        for positions in [Positions::All, Positions::default(), "7".parse().unwrap()] {
            assert_eq!(positions.to_string().parse(), Ok(positions));
        }
        for wrong in ["0", "-1", "some", "", "1.5"] {
            assert!(wrong.parse::<Positions>().is_err(), "{wrong}");
        }
    }

    /// Over many images, positions are chosen about equally often where the steps fit, and none is left out.
    #[test]
    fn every_position_has_its_turn() {
        for sizes in [[8, 12], [7, 14]] {
            let lattice = of([1, 0]).lattice(10_000, &sizes, DESIGN).unwrap();
            let mut seen: BTreeMap<[usize; 2], usize> = BTreeMap::new();
            for image in 0..4000 {
                let [first, lengths] = [lattice.first(image), lattice.lengths()];
                for row in 0..lengths[0] {
                    for column in 0..lengths[1] {
                        *seen.entry([first[0] + 4 * row, first[1] + 4 * column]).or_default() += 1;
                    }
                }
            }
            assert_eq!(seen.len(), sizes[0] * sizes[1], "{sizes:?}");
            let even = sizes == [8, 12];
            assert!(!even || seen.values().all(|n| (150..350).contains(n)), "{seen:?}");
        }
    }
}
