//! Experiments as data.
//!
//! A TOML file ([`spec`]) says which networks are merged on which data, in which ways, and what is chosen on validation
//! images. From it follow, without running anything, the merge sets ([`sets`]), the rows of the table ([`variant`]),
//! the file every stage writes ([`layout`]) and the make rules that run the stages ([`rules`]). Whatever two
//! experiments have in common has the same path, so it is made once. What was chosen ([`choose`]) is read off the
//! validation reports.

pub mod choose;
mod error;
mod grid;
pub mod layout;
pub mod rules;
pub mod sets;
pub mod spec;
pub mod variant;

pub use error::{Error, Result};
pub use spec::Experiment;
