//! The files. The only crate that names hdf5, safetensors or bincode; its README is the normative format.
//!
//! ```text
//! model.safetensors ──► stats.h5 ──► plan.bin ──► merged.safetensors ──► report.json
//! ```
//!
//! - [`model`], [`stats`], [`plan`], [`report`], [`dataset`], [`checkpoint`]: one kind of file each, read and written;
//! - [`weights`]: a model's numbers piece by piece;
//! - [`masked`]: fine-tunes of one base that share a vector;
//! - [`exported`]: a network that another program exported with its graph, not yet a model of ours;
//! - [`header`]: what every one of them says about itself: kind, format version, provenance;
//! - [`sniff`](sniff()): what a file is, ours or somebody else's, so that a wrong file is refused by its name;
//! - [`scratch`]: room beyond memory, in a file without a name;
//! - [`atomic`]: never half a file under the final name.
//!
//! The same content gives byte-identical files. Everything read is verified against a digest before it is believed,
//! except data sets and reports, which people make and edit themselves.

pub mod atomic;
pub mod checkpoint;
mod container;
pub mod dataset;
pub mod error;
pub mod exported;
mod hdf;
pub mod header;
mod json;
pub mod layout;
pub mod masked;
pub mod model;
pub mod plan;
mod precision;
pub mod report;
pub mod scratch;
mod sniff;
pub mod stats;
mod tensors;
pub mod weights;

pub use checkpoint::Checkpoint;
pub use dataset::DatasetFile;
pub use error::{Error, Result};
pub use header::{InputRef, Kind, Provenance, hash_file};
pub use masked::MaskedReader;
pub use model::ModelFile;
pub use plan::PlanFile;
pub use precision::Precision;
pub use report::ReportFile;
pub use sniff::{provenance_of, sniff};
pub use stats::{StatsHeader, StatsReader};
pub use weights::WeightsReader;
