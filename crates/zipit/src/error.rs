//! What can be wrong with a network, a measurement or a request, in words a user can act on.

/// The crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything this crate refuses. File names are added by the caller who knows them.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The graph contradicts itself, or an op cannot be analysed.
    #[error("node `{node}` ({op}): {reason}")]
    Node {
        /// The node's name.
        node: String,
        /// The node's op, as the field calls it.
        op: &'static str,
        /// What is wrong, and where possible what to do.
        reason: String,
    },
    /// The graph as a whole is not usable.
    #[error("graph: {0}")]
    Graph(String),
    /// Weights do not fit the graph. Every mismatch is listed, one a line.
    #[error("{} {} the network:\n  {}", .0.len(), if .0.len() == 1 { "tensor does not fit" } else { "tensors do not fit" }, .0.join("\n  "))]
    Weights(Vec<String>),
    /// Models that cannot be merged with each other. Every difference is listed, one a line.
    #[error("the models cannot be merged:\n  {}", .0.join("\n  "))]
    Mismatch(Vec<String>),
    /// A request that makes no sense for this network or these measurements.
    #[error("{0}")]
    Request(String),
    /// A number that is not finite, or a measurement without samples.
    #[error("{0}")]
    Numbers(String),
    /// What tensors are read from failed, in its own words.
    #[error("{0}")]
    Source(String),
    /// The caller asked to stop.
    #[error("interrupted")]
    Interrupted,
}
