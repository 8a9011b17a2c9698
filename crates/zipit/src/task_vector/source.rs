//! Where tensors are read from, piece by piece, without knowing a file.

use crate::{Error, Result, StateDict};
use ndarray::Array2;
use std::collections::BTreeMap;

/// Whose tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// θ₀.
    Base,
    /// θₜ, from 0.
    Tuned(usize),
}

/// The networks' tensors.
pub trait Source: Sync {
    /// Fills `into` with the tensor's numbers in row-major order, from number `start` on.
    ///
    /// # Errors
    /// A tensor that is not there, or cannot be read.
    fn read(&self, of: Network, name: &str, start: usize, into: &mut [f32]) -> Result<()>;

    /// Whether the rule that weighs by it finds what was measured for this tensor in all fine-tunes.
    fn is_measured(&self, _name: &str) -> bool {
        false
    }

    /// Fills `into` with fine-tune t's [`Fisher`](crate::Fisher) information, of the tensor's numbers from `start` on.
    ///
    /// # Errors
    /// A tensor whose gradients were not measured, or cannot be read.
    fn fisher(&self, _t: usize, name: &str, _start: usize, _into: &mut [f64]) -> Result<()> {
        Err(unmeasured("the gradients by", name))
    }

    /// E\[x xᵀ\] of what the layer with this weight reads in fine-tune t: one `[F, F]` per group, in the order of the weight's
    /// columns.
    ///
    /// # Errors
    /// A layer that was not measured, or cannot be read.
    fn inputs(&self, _t: usize, name: &str) -> Result<Vec<Array2<f64>>> {
        Err(unmeasured("the inputs of the layer of", name))
    }

    /// E\[g gᵀ\] of the gradients at what the layer with this weight makes in fine-tune t: one `[O, O]` per group.
    ///
    /// # Errors
    /// A layer that was not measured, or cannot be read.
    fn gradients(&self, _t: usize, name: &str) -> Result<Vec<Array2<f64>>> {
        Err(unmeasured("the gradients at the layer of", name))
    }
}

fn unmeasured(what: &str, name: &str) -> Error {
    Error::Request(format!("{what} `{name}` were not measured"))
}

/// Networks that are in memory.
#[derive(Debug, Clone, Copy)]
pub struct InMemory<'a> {
    /// θ₀, where there is one.
    pub base: Option<&'a StateDict>,
    /// θ₁, …
    pub tuned: &'a [StateDict],
}

impl Source for InMemory<'_> {
    fn read(&self, of: Network, name: &str, start: usize, into: &mut [f32]) -> Result<()> {
        let weights = match of {
            Network::Base => self.base,
            Network::Tuned(i) => self.tuned.get(i),
        };
        let tensor = weights.and_then(|weights: &BTreeMap<_, _>| weights.get(name));
        let numbers = tensor.map(|tensor| tensor.iter().skip(start));
        let numbers = numbers.ok_or_else(|| Error::Request(format!("there is no tensor `{name}` of {of:?}")))?;
        for (place, &x) in into.iter_mut().zip(numbers) {
            *place = x;
        }
        Ok(())
    }
}

/// Numbers that are worked on at a time.
pub(super) const PIECE: usize = 1 << 14;

/// A tensor that all networks have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tensor {
    /// Its name in all of them.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
}

impl Tensor {
    /// How many numbers it holds.
    #[must_use]
    pub fn n_numbers(&self) -> usize {
        self.shape.iter().product()
    }

    /// Where its pieces begin, and how long they are.
    pub(super) fn pieces(&self) -> Vec<(usize, usize)> {
        let n = self.n_numbers();
        (0..n).step_by(PIECE).map(|start| (start, PIECE.min(n - start))).collect()
    }
}

/// The networks' numbers in one piece of a tensor.
pub(super) struct Piece<'a> {
    pub source: &'a dyn Source,
    pub tensor: &'a Tensor,
    pub start: usize,
    pub len: usize,
}

impl Piece<'_> {
    pub fn of(&self, network: Network) -> Result<Vec<f32>> {
        let mut numbers = vec![0.0; self.len];
        self.source.read(network, &self.tensor.name, self.start, &mut numbers)?;
        Ok(numbers)
    }

    /// τₜ = θₜ − θ₀, where the base's numbers are at hand.
    pub fn vector(&self, t: usize, base: &[f32]) -> Result<Vec<f32>> {
        let mut numbers = self.of(Network::Tuned(t))?;
        for (x, base) in numbers.iter_mut().zip(base) {
            *x -= base;
        }
        Ok(numbers)
    }
}

/// τₜ of a whole tensor.
pub(super) fn whole_vector(source: &dyn Source, tensor: &Tensor, t: usize) -> Result<Vec<f32>> {
    let mut all = Vec::with_capacity(tensor.n_numbers());
    for (start, len) in tensor.pieces() {
        let piece = Piece { source, tensor, start, len };
        all.extend(piece.vector(t, &piece.of(Network::Base)?)?);
    }
    Ok(all)
}
