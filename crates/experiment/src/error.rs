//! What can be wrong with an experiment file.

use std::path::{Path, PathBuf};

/// An experiment that cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is no experiment.
    #[error("{} is no experiment: {reason}", path.display())]
    Invalid {
        /// Which file.
        path: PathBuf,
        /// What is wrong, and what was expected.
        reason: String,
    },
    /// A choice was asked for before the reports it is made on exist.
    #[error("`{choice}` cannot be chosen yet: {} is missing; run the rules of `--part select` first", path.display())]
    NotMeasured {
        /// Which choice.
        choice: String,
        /// The report.
        path: PathBuf,
    },
    /// A report cannot be read.
    #[error(transparent)]
    Artifact(#[from] zipit_artifact::Error),
}

impl Error {
    pub(crate) fn invalid(path: &Path, reason: impl Into<String>) -> Self {
        Self::Invalid { path: path.to_owned(), reason: reason.into() }
    }
}

/// Of this crate.
pub type Result<T> = std::result::Result<T, Error>;
