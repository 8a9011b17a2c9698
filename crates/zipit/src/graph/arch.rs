//! Architectures as builders.
/// Placeholder replaced at once.
#[derive(Debug)]
pub struct ArchSpec;
