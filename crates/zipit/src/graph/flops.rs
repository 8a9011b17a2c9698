//! Cost.
/// Placeholder replaced at once.
#[derive(Debug)]
pub struct Cost;
