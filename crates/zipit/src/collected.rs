//! What a collection adds up, and shards of it do.

use crate::refit::Gram;
use crate::{Extent, Fisher, Importance, Moments};
use std::collections::BTreeMap;

/// Sums over images.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Collected {
    /// Of the joint features, by merge point.
    pub moments: BTreeMap<String, Moments>,
    /// Second moments of what a layer reads, by module; an entry says whether the networks are measured together.
    pub grams: BTreeMap<String, Gram>,
    /// Ranges, by value.
    pub extents: BTreeMap<String, Extent>,
    /// What a change does to the logits, by merge point.
    pub importance: BTreeMap<String, Importance>,
    /// Second moments of the gradients at what a layer makes, of each network by itself, by module: `MaTS`' second factor,
    /// `Σ_y p(y|x) g gᵀ` with g = ∂ log p(y|x) / ∂y; their mean is zero.
    pub gradients: BTreeMap<String, Gram>,
    /// Every network's Fisher information, or of none.
    pub fisher: Vec<Fisher>,
}
