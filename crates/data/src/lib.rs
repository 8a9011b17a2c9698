//! The images a network is trained, measured and judged on: MNIST-style IDX, CIFAR's binary batches, a tree of class
//! folders, or HDF5. Opened by path, the kind found by looking; decoded and preprocessed in parallel.
//!
//! ```no_run
//! use zipit_data::{Dataset, Split, sample};
//! # fn main() -> zipit_data::Result<()> {
//! # let preprocess = zipit::Preprocess { size: [28, 28], resize: None, mean: vec![0.286], std: vec![0.353] };
//! let data = Dataset::open("data/fashion-mnist", Split::Train)?;
//! let classes = data.class_indices(&["0-4".into()])?;
//! let images = data.images_of(&classes);
//! let chosen: Vec<usize> = sample(images.len(), 500, 0).into_iter().map(|i| images[i]).collect();
//! let batch = data.load(&chosen[..32], &preprocess)?; // [32, 1, 28, 28]
//! # Ok(())
//! # }
//! ```

mod cifar;
mod classes;
mod dataset;
mod decode;
mod detect;
mod digest;
mod error;
mod folder;
mod hdf;
mod idx;
mod listing;
pub mod numpy;
mod preprocess;
mod raster;
mod sample;
mod split;

pub use dataset::{Dataset, Kind};
pub use error::{Error, Result};
pub use sample::sample;
pub use split::Split;
