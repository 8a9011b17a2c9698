//! Properties of matchings and of the maps made from them, on random features.

mod features;
mod matching;
mod unmerge;
mod zip;
