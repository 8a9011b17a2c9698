//! The networks: the [`Graph`](zipit::Graph) interpreted with LibTorch. The only crate that names tch.
//!
//! - [`forward`] runs a graph and shows its values on the way;
//! - [`accumulate`] sums the moments of the joint features of several networks;
//! - [`batch_norm`] estimates BatchNorm statistics anew;
//! - [`refit`] solves the layers of a merged network again;
//! - [`evaluate`] gives every image's logits;
//! - [`train`] gives one task's network its weights;
//! - [`adapt`] improves a merged network by gradients, without labels.
//!
//! Arrays go in and arrays come out; no other crate sees a tensor's layout, and none sees its device but by
//! [`Device`]'s name.

pub mod accumulate;
pub mod adapt;
mod augment;
pub mod batch_norm;
mod calls;
pub mod convert;
mod course;
pub mod curvature;
pub mod device;
pub mod error;
pub mod evaluate;
pub mod forward;
pub mod images;
pub mod initialise;
mod memory;
mod ops;
pub mod optim;
mod parallel;
mod probes;
pub mod refit;
mod schedule;
pub mod train;

pub use device::Device;
pub use error::{Error, ImageError, Result};
pub use forward::Network;
pub use parallel::{batch_size, n_workers};
pub use probes::Probes;
