//! What is run: a network, or masked networks of which the task says which.

use std::borrow::Cow;
use std::path::Path;
use zipit::graph::Cost;
use zipit::joint::Joint;
use zipit::{Model, Result};
use zipit_artifact::header::{InputRef, Kind, Provenance};
use zipit_artifact::model::{self, ModelFile};
use zipit_artifact::{MaskedReader, sniff};

/// A file.
#[derive(Debug)]
pub enum Given {
    /// A network, merged or single.
    Network(ModelFile),
    /// Several (`combine --rule emr`).
    Masked(MaskedReader),
}

impl Given {
    /// Reads and checks it.
    ///
    /// # Errors
    /// A file that cannot be read, is damaged or something else.
    pub fn read(path: &Path) -> zipit_artifact::Result<Self> {
        Ok(match sniff(path)? {
            Kind::Masked => Self::Masked(MaskedReader::open(path)?),
            _ => Self::Network(model::read(path)?),
        })
    }

    /// Where it was read from.
    #[must_use]
    pub fn path(&self) -> &Path {
        match self {
            Self::Network(file) => &file.path,
            Self::Masked(file) => file.path(),
        }
    }

    /// This file as an input of what is made from it.
    #[must_use]
    pub fn input_ref(&self) -> InputRef {
        match self {
            Self::Network(file) => file.input_ref(),
            Self::Masked(file) => file.input_ref(),
        }
    }

    /// Who made it and from what.
    #[must_use]
    pub fn provenance(&self) -> &Provenance {
        match self {
            Self::Network(file) => &file.provenance,
            Self::Masked(file) => file.provenance(),
        }
    }

    /// How many masks there are, where the task must be known.
    #[must_use]
    pub fn masks(&self) -> Option<usize> {
        match self {
            Self::Network(_) => None,
            Self::Masked(file) => Some(file.outline().networks.len()),
        }
    }

    /// How many networks there are.
    #[must_use]
    pub fn n_networks(&self) -> usize {
        self.masks().unwrap_or(1)
    }

    /// Network `t`, perhaps without its weights.
    ///
    /// # Panics
    /// When there is no such network.
    #[must_use]
    pub fn outline(&self, t: usize) -> Cow<'_, Model> {
        match self {
            Self::Network(file) => Cow::Borrowed(&file.model),
            Self::Masked(file) => Cow::Owned(file.outline().model(t)),
        }
    }

    /// Network `t`, whole.
    ///
    /// # Errors
    /// A file that cannot be read any more, numbers that become infinite.
    ///
    /// # Panics
    /// When there is no such network.
    pub fn network(&self, t: usize) -> zipit_artifact::Result<Cow<'_, Model>> {
        Ok(match self {
            Self::Network(file) => Cow::Borrowed(&file.model),
            Self::Masked(file) => Cow::Owned(file.model(t)?),
        })
    }

    /// Multiply-adds of one network; parameters and buffers that are stored.
    ///
    /// # Errors
    /// A graph that makes no sense.
    pub fn cost(&self) -> Result<Cost> {
        match self {
            Self::Network(file) => file.model.graph.cost(),
            Self::Masked(file) => file.outline().cost(),
        }
    }

    /// How heads are compared with each other, where that was fitted.
    #[must_use]
    pub fn joint(&self) -> Option<&Joint> {
        match self {
            Self::Network(file) => file.model.joint.as_ref(),
            Self::Masked(_) => None,
        }
    }
}
