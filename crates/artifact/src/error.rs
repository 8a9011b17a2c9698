//! What can be wrong with a file: which one, what was found, what was expected, what to do.

use crate::Kind;
use std::io;
use std::path::{Path, PathBuf};

/// The crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything this crate refuses. Each message names the file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file system does not give it.
    #[error("cannot read {}: {}", .path.display(), reason(.source))]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file system does not take it. What stood under this name before is still there.
    #[error("cannot write {}: {reason}", .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why, and where possible what to do.
        reason: String,
    },
    /// A file of another kind.
    #[error("{} is {found}, expected {expected}: {}", .path.display(), .found.advice(*.expected))]
    Kind {
        /// The file.
        path: PathBuf,
        /// What it is.
        found: Kind,
        /// What it should be.
        expected: Kind,
    },
    /// A file from another zipit.
    #[error("{} is {kind} of format version {found}, this zipit reads version {reads}: {}", .path.display(),
        if found > reads { "use a newer zipit, or make the file again with this one" } else { "make the file again" })]
    Version {
        /// The file.
        path: PathBuf,
        /// What it is.
        kind: Kind,
        /// Its version.
        found: u32,
        /// The version this crate reads.
        reads: u32,
    },
    /// The bytes are not what was written.
    #[error("{} is {kind}, and damaged: {reason}. Make it again, or copy it again from where it is whole",
        .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What it seems to be.
        kind: Kind,
        /// How one can tell.
        reason: String,
    },
    /// The bytes are whole, but what they say makes no sense.
    #[error("{} is {kind} that cannot be used: {reason}", .path.display())]
    Contents {
        /// The file.
        path: PathBuf,
        /// What it is.
        kind: Kind,
        /// What is wrong, and where possible what to do.
        reason: String,
    },
    /// Content that would make an unusable file. Nothing was written.
    #[error("{} is not written: {reason}", .path.display())]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// What is wrong with the content.
        reason: String,
    },
}

impl Error {
    pub(crate) fn read(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Read { path: path.to_owned(), source }
    }

    pub(crate) fn damaged(path: &Path, kind: Kind, reason: impl Into<String>) -> Self {
        Self::Damaged { path: path.to_owned(), kind, reason: reason.into() }
    }

    pub(crate) fn contents(path: &Path, kind: Kind, reason: &(impl ToString + ?Sized)) -> Self {
        Self::Contents { path: path.to_owned(), kind, reason: reason.to_string() }
    }

    pub(crate) fn unwritten(path: &Path, error: &io::Error) -> Self {
        Self::Write { path: path.to_owned(), reason: reason(error) }
    }

    pub(crate) fn unwritable(path: &Path, reason: &(impl ToString + ?Sized)) -> Self {
        Self::Unwritable { path: path.to_owned(), reason: reason.to_string() }
    }
}

/// An I/O error in words a user can act on.
pub(crate) fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "no such file or directory".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        io::ErrorKind::StorageFull => "the disk is full; free some space, or write elsewhere".to_owned(),
        io::ErrorKind::QuotaExceeded => "the disk quota is used up; free some space, or write elsewhere".to_owned(),
        io::ErrorKind::ReadOnlyFilesystem => "the file system is read-only; write elsewhere".to_owned(),
        io::ErrorKind::IsADirectory => "it is a folder".to_owned(),
        _ => error.to_string(),
    }
}
