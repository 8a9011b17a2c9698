//! The parts of a data set.

use crate::Error;
use std::{fmt, str::FromStr};

/// Which part of a data set.
///
/// Training and test part follow the data set's own convention: IDX `train-…` and `t10k-…`, CIFAR's batches, folders or
/// HDF5 groups `train` and `test`. The validation part, on which α and β may be chosen, is every tenth image of the
/// training part (position % 10 == 9) and [`Split::Train`] is the rest, so the two are disjoint and together are the
/// training part.
///
/// A folder or group `val` is the test part if there is no `test`; beside one, it is the validation part and the training
/// part stays whole.
///
/// Class folders that are not divided at all are one part: of every ten images the ninth (position % 10 == 8) is the test
/// part, the tenth the validation part, the others the training part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Split {
    /// What to learn from and measure on.
    Train,
    /// What to choose settings on.
    Val,
    /// What to report.
    Test,
}

impl Split {
    /// The name used on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Val => "val",
            Self::Test => "test",
        }
    }

    /// Where to find the split in a data set of named parts, and how much of that part it is. `None`: nowhere.
    pub(crate) fn part(self, has: impl Fn(&str) -> bool) -> Option<(&'static str, Share)> {
        let own_val = has("test") && has("val");
        let (part, share) = match self {
            Self::Test if has("test") => ("test", Share::All),
            Self::Test => ("val", Share::All),
            Self::Val if own_val => ("val", Share::All),
            Self::Val => ("train", Share::Tenth),
            Self::Train if own_val => ("train", Share::All),
            Self::Train => ("train", Share::NineTenths),
        };
        has(part).then_some((part, share))
    }

    /// The split's share of the training part of a data set without a validation part.
    pub(crate) fn share(self) -> Share {
        match self {
            Self::Train => Share::NineTenths,
            Self::Val => Share::Tenth,
            Self::Test => Share::All,
        }
    }

    /// The split's share of a data set that is one part.
    pub(crate) fn share_of_all(self) -> Share {
        match self {
            Self::Train => Share::EightTenths,
            Self::Val => Share::Tenth,
            Self::Test => Share::OtherTenth,
        }
    }
}

/// How much of a part of the data set a split is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Share {
    All,
    /// Every tenth image.
    Tenth,
    /// The others.
    NineTenths,
    /// Every tenth image, none of them of `Tenth`.
    OtherTenth,
    /// Those of neither.
    EightTenths,
}

impl Share {
    /// Is the image at this position of the part in it?
    pub fn holds(self, position: usize) -> bool {
        match self {
            Self::All => true,
            Self::Tenth => position % 10 == 9,
            Self::NineTenths => position % 10 != 9,
            Self::OtherTenth => position % 10 == 8,
            Self::EightTenths => position % 10 < 8,
        }
    }
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Split {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text {
            "train" => Ok(Self::Train),
            "val" => Ok(Self::Val),
            "test" => Ok(Self::Test),
            _ => Err(Error::Request(format!("unknown split `{text}`: choose train, val or test"))),
        }
    }
}
