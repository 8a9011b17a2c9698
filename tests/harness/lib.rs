//! What the end-to-end tests share: a folder to work in, the binaries, and networks to work on.

mod images;
mod networks;
mod survey;
mod workplace;

pub use images::{write_cifar, write_class_folders, write_idx};
pub use networks::{permuted, random_model};
pub use survey::WithCopy;
pub use workplace::{Ran, Workplace, binary, repository};
