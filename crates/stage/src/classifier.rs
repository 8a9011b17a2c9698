//! What of a network tells classes of images apart.

use anyhow::bail;
use std::borrow::Cow;
use std::fmt::Display;
use zipit::Model;

/// The network called `name` with its classifications as only outputs; a warning says which others are left out.
///
/// # Errors
/// None is left: the outputs in words, and what to do `instead`.
pub fn classifier<'a>(name: impl Display, model: &'a Model, instead: &str) -> anyhow::Result<Cow<'a, Model>> {
    let (classifier, left_out) = model.classifier();
    let told = left_out.join(", ");
    if classifier.tasks.is_empty() {
        bail!("{name} classifies no images: {told}: {instead}");
    }
    if !left_out.is_empty() {
        tracing::warn!("{name}: left out is what classifies no images: {told}");
    }
    Ok(classifier)
}
