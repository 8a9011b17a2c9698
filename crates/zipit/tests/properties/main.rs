//! Properties of matchings and of the maps made from them, on random features.

mod features;
mod matching;
mod networks;
mod unmerge;
mod weights;
mod zip;
