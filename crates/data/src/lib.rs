//! The images a network is trained, measured and judged on: MNIST-style IDX, CIFAR's and STL-10's files, a tree of class
//! folders, or HDF5. Opened by path, the kind found by looking; decoded and preprocessed in parallel.
//!
//! ```no_run
//! use zipit_data::{Dataset, Split, sample};
//! # fn main() -> zipit_data::Result<()> {
//! # let preprocess = zipit::Preprocess::new([28, 28], vec![0.286], vec![0.353]);
//! let data = Dataset::open("data/fashion-mnist", Split::Train)?;
//! let classes = data.class_indices(&["0-4".into()])?;
//! let images = data.images_of(&classes);
//! let chosen: Vec<usize> = sample(images.len(), 500, 0).into_iter().map(|i| images[i]).collect();
//! let batch = data.load(&chosen[..32], &preprocess)?; // [32, 1, 28, 28]
//! # Ok(())
//! # }
//! ```

mod annotations;
mod cifar;
mod cifar_python;
mod classes;
mod dataset;
mod decode;
mod detect;
mod digest;
mod error;
mod folder;
mod hdf;
mod idx;
mod jpeg;
mod listing;
pub mod numpy;
mod pickle;
mod pictures;
mod preprocess;
mod raster;
mod resample;
mod sample;
mod split;
mod stl10;
mod tiff;

pub use dataset::{Dataset, Kind};
pub use error::{Error, Result};
pub use sample::sample;
pub use split::Split;
