//! What can be wrong with images on disk or with a request about them.

use std::path::{Path, PathBuf};

/// The crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything this crate refuses. Every file is named.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system could not read a file or folder.
    #[error("cannot read {}: {source}", .path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A file or folder is not what it has to be.
    #[error("{}: {reason}", .path.display())]
    Content {
        /// The file or folder.
        path: PathBuf,
        /// What was found, what was expected and, where possible, what to do.
        reason: String,
    },
    /// An HDF5 data set that cannot be used.
    #[error(transparent)]
    Artifact(#[from] zipit_artifact::Error),
    /// A request that makes no sense for this data set.
    #[error("{0}")]
    Request(String),
}

impl Error {
    pub(crate) fn content(path: &Path, reason: impl Into<String>) -> Self {
        Self::Content { path: path.to_owned(), reason: reason.into() }
    }
}

/// The whole file in memory.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|source| Error::Io { path: path.to_owned(), source })
}
