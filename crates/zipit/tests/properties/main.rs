//! Properties of matchings and of the maps made from them, on random features.

mod combine;
mod constants;
mod emr;
mod features;
mod importance;
mod kmeans;
mod linkage;
mod matching;
mod measured;
mod networks;
mod optimal;
mod refit;
mod unmerge;
mod weights;
mod zip;
