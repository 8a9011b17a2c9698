//! Progress and interruption, without knowing a terminal.

/// Someone who watches long work: told of progress, asked whether to stop.
pub trait Watch: Sync {
    /// `n` more units of work are done.
    fn advance(&self, n: u64);
    /// Whether the work should stop at the next safe point.
    fn interrupted(&self) -> bool;
}

/// Nobody watches.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unwatched;

impl Watch for Unwatched {
    fn advance(&self, _: u64) {}
    fn interrupted(&self) -> bool {
        false
    }
}
