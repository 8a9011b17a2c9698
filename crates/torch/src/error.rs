//! What can go wrong while a network runs, in words a user can act on.

use tch::TchError;

/// An error from whoever hands us images; any error type, `anyhow`'s too, becomes one with `?` or `.into()`.
pub type ImageError = Box<dyn std::error::Error + Send + Sync>;

/// The crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything this crate refuses or fails at.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// LibTorch refused to run a node.
    #[error("node `{node}` ({op}): {reason}")]
    Node {
        /// The node's name.
        node: String,
        /// The node's op, as the field calls it.
        op: &'static str,
        /// LibTorch's first line.
        reason: String,
    },
    /// LibTorch failed outside a node.
    #[error("LibTorch: {0}")]
    LibTorch(String),
    /// A device that is not there, or not a device.
    #[error("{0}")]
    Device(String),
    /// Images could not be had.
    #[error("batch {batch}: {source}")]
    Images {
        /// Index of the batch.
        batch: usize,
        /// Why.
        source: ImageError,
    },
    /// Activations could not be put aside, or not be read back.
    #[error("cannot put activations aside: {source}")]
    Scratch {
        /// Why.
        source: ImageError,
    },
    /// A number that is not finite came out of a network.
    #[error("{0}")]
    NotFinite(String),
    /// A request that makes no sense for this network or these images.
    #[error("{0}")]
    Request(String),
    /// What this crate promised itself and did not keep, whatever the network and the images are.
    #[error("a fault of this program, please report it: {0}")]
    Fault(String),
    /// The graph or its weights are not usable.
    #[error(transparent)]
    Zipit(#[from] zipit::Error),
}

impl From<TchError> for Error {
    fn from(error: TchError) -> Self {
        Self::LibTorch(first_line(&error))
    }
}

/// LibTorch's message without the C++ stack below it.
pub(crate) fn first_line(error: &TchError) -> String {
    let text = match error {
        TchError::Torch(text) => text.clone(),
        other => other.to_string(),
    };
    text.lines().next().unwrap_or_default().trim().to_owned()
}
