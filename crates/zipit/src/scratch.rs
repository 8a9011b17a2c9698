//! Room beyond memory, without knowing a disk.

use std::error::Error;

/// Somewhere to put numbers that memory has no room for.
pub trait Scratch: Sync {
    /// Keeps `values` under `slot`, in place of what was there.
    ///
    /// # Errors
    /// When they cannot be written.
    fn write(&self, slot: usize, values: &[f32]) -> Result<(), Box<dyn Error + Send + Sync>>;

    /// Reads back what was kept under `slot`: as many numbers as were written.
    ///
    /// # Errors
    /// When they cannot be read.
    fn read(&self, slot: usize, values: &mut [f32]) -> Result<(), Box<dyn Error + Send + Sync>>;
}
