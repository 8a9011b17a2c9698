//! The parts of a data set.

use crate::Error;
use std::{fmt, str::FromStr};

/// Which part of a data set.
///
/// Training and test part follow the data set's own convention. The validation part, on which α and β may be chosen,
/// is every tenth image of the training part (position % 10 == 9); [`Split::Train`] is the rest, so the two are
/// disjoint and together are the training part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Split {
    /// Nine tenths of the training part.
    Train,
    /// One tenth of the training part.
    Val,
    /// The test part, untouched.
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

    /// Is the image at this position of the data set's own (training or test) part in the split?
    pub(crate) fn holds(self, position: usize) -> bool {
        match self {
            Self::Train => position % 10 != 9,
            Self::Val => position % 10 == 9,
            Self::Test => true,
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
