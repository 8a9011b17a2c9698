//! Surgery keeps functions where it must: checked by running the merged networks.

#![allow(clippy::unwrap_used, clippy::float_cmp)] // exact where the function says exactly

mod constants;
mod functions;
pub mod graphs;
pub mod networks;
mod requests;
