//! The pipeline as a user runs it: every test goes through the binaries.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod adapt;
mod architectures;
mod bad_input;
mod check;
mod checkpoints;
mod combine;
mod dense;
mod drawings;
mod embeddings;
mod experiments;
mod exported;
mod fine_tunes;
mod gate;
mod golden;
mod heads;
mod images;
mod interruption;
mod libtorch_free;
mod masked;
mod matchings;
mod measured;
mod multiheaded;
mod permuted_copy;
mod precision;
mod predict;
mod readme;
mod refit;
mod refit_refused;
mod reproducible;
mod shards;
mod support;
