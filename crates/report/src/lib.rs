//! An experiment's results: gathered from the reports of its stages, written as tables, figures and one page.

pub mod gather;
pub mod results;
