//! What the stage binaries share, so that each of them is only: arguments → read → call → write.
//!
//! - [`run`] parses, sets up logging, threads and signals, and turns the outcome into an exit code:
//!   0 done, 1 failed, 2 usage, 130 SIGINT, 143 SIGTERM;
//! - [`args`] are the flags every binary has;
//! - [`progress`] is a bar on a terminal and one plain line every 30 s elsewhere;
//! - [`provenance`] says who made a file, from what, and whether it is still up to date;
//! - `images` (a feature) chooses the images of the stages that read some;
//! - [`precision`] is how the weights of models are stored;
//! - [`Given`] is what `eval` and `predict` run;
//! - [`merging`] reads a plan and the models it is about;
//! - [`saving`] says when unfinished work is saved;
//! - [`manifest`] keeps what a run cost, beside its outputs;
//! - [`table`] prints results for people and for programs.

pub mod args;
mod classifier;
mod exit;
mod given;
#[cfg(feature = "images")]
pub mod images;
pub mod manifest;
pub mod merging;
pub mod precision;
pub mod progress;
pub mod provenance;
pub mod saving;
pub mod table;

pub use args::{Common, HasCommon};
pub use classifier::classifier;
pub use exit::{Stage, Usage, run};
pub use given::Given;
pub use precision::PrecisionArg;
pub use progress::Progress;
pub use saving::SaveArgs;
pub use table::{Format, Table};
