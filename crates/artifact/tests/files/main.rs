//! The files from outside: round trips, every way a file can lie, foreign files, writing.
#![allow(missing_docs, clippy::unwrap_used)]

mod atomic;
mod curvature;
mod damage;
mod fixture;
mod foreign;
mod forge;
mod importance;
mod layers;
mod lies;
mod masked;
mod precision;
mod provenance;
mod round_trip;
