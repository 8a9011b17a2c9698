//! An experiment's results: gathered from the reports of its stages, written as tables, figures and one page.

pub mod error;
pub mod figures;
pub mod gather;
#[cfg(test)]
mod invented;
pub mod markdown;
mod numbers;
pub mod overview;
pub mod page;
pub mod results;
mod standing;
mod tables;
