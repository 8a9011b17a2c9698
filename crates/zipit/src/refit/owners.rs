//! Whose an image is.

use crate::joint::Rule;
use crate::{Error, Result};
use ndarray::{Array2, ArrayView1};

/// How much a model's features count on an image that is another model's, beside those of the model whose it is.
pub const FOREIGN: f32 = 0.01;

/// For every image the model that is believed on it.
///
/// On an image of a task it was not trained for, what a model computes is of no use to anybody. Where the merged network
/// averages features of several models, its target on an image x is
///
/// `ỹ_g = Σᵢ tᵢ(x)·(Mᵢyⁱ)_g / Σᵢ tᵢ(x)·(Mᵢ1)_g`, tᵢ(x) = 1 for the model whose x is, 0.01 for the others,
///
/// in place of M·\[y¹; …; yᴺ\], in which all count the same. What only one model's features make is fitted to that
/// model's images.
///
/// ```
/// use ndarray::array;
/// use zipit::refit::Owners;
/// // Two images: the first model is sure of the first one, the second model of the second.
/// let owners = Owners::surest(&[vec![array![[9.0, 0.0], [1.0, 0.0]]], vec![array![[0.0, 1.0], [0.0, 9.0]]]]).unwrap();
/// assert_eq!(owners.of(), [0, 1]);
/// assert_eq!((owners.trust(0, 0), owners.trust(1, 0)), (1.0, 0.01));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owners {
    of: Vec<usize>,
    n_images: Vec<usize>,
}

impl Owners {
    /// Image i is model `of[i]`'s.
    ///
    /// # Errors
    /// [`Error::Request`] for a model that is none of `n_models`.
    pub fn new(of: Vec<usize>, n_models: usize) -> Result<Self> {
        let mut n_images = vec![0; n_models];
        for &model in &of {
            let n = n_images.get_mut(model).ok_or_else(|| {
                Error::Request(format!("an image is said to be model {model}'s of {n_models} models, counted from 0"))
            })?;
            *n += 1;
        }
        Ok(Self { of, n_images })
    }

    /// Every image is the model's that gives the largest probability to any class, by the `logits` of each model's
    /// outputs, `[n, classes]`; the first of equals. The softmax rule of [joint prediction](crate::joint).
    ///
    /// # Errors
    /// [`Error::Request`] for outputs with different numbers of images.
    pub fn surest(logits: &[Vec<Array2<f32>>]) -> Result<Self> {
        let heads = || logits.iter().enumerate().flat_map(|(i, outputs)| outputs.iter().map(move |z| (i, z)));
        let n = heads().next().map_or(0, |(_, z)| z.nrows());
        if let Some((i, z)) = heads().find(|(_, z)| z.nrows() != n) {
            return Err(Error::Request(format!("model {i} has logits of {} images, expected {n}", z.nrows())));
        }
        let models: Vec<usize> = heads().map(|(i, _)| i).collect();
        let rows = |image: usize| -> Vec<ArrayView1<'_, f32>> { heads().map(|(_, z)| z.row(image)).collect() };
        Self::new((0..n).map(|image| models[Rule::Softmax.choose(rows(image)).0]).collect(), logits.len())
    }

    /// Of each image.
    #[must_use]
    pub fn of(&self) -> &[usize] {
        &self.of
    }

    /// Number of images of each model.
    #[must_use]
    pub fn n_images(&self) -> &[usize] {
        &self.n_images
    }

    /// How much `model` counts on `image`.
    ///
    /// # Panics
    /// When there is no such image.
    #[must_use]
    pub fn trust(&self, model: usize, image: usize) -> f32 {
        if self.of[image] == model { 1.0 } else { FOREIGN }
    }

    /// Whether what only `model`'s features make is fitted to `image`: to its own, or to all where it has none.
    ///
    /// # Panics
    /// When there is no such image or model.
    #[must_use]
    pub fn fits(&self, model: usize, image: usize) -> bool {
        self.of[image] == model || self.n_images[model] == 0
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use ndarray::array;

    #[test]
    fn the_surest_head_of_a_model_speaks_for_it() {
        let first = vec![array![[3.0, 0.0], [0.0, 0.0]], array![[0.0, 0.0], [0.0, 5.0]]];
        let second = vec![array![[2.0, 0.0], [4.0, 0.0]]];
        let owners = Owners::surest(&[first, second]).unwrap();
        assert_eq!((owners.of(), owners.n_images()), (&[0, 0][..], &[2, 0][..]));
        // Nobody's images fit what is the second model's alone: all do.
        assert!(owners.fits(0, 1) && owners.fits(1, 1));
        assert!(!Owners::new(vec![0, 1], 2).unwrap().fits(1, 0));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let error = Owners::new(vec![0, 2], 2).unwrap_err().to_string();
        assert!(error.contains("model 2's of 2 models"), "{error}");
        let error = Owners::surest(&[vec![array![[0.0]]], vec![array![[0.0], [0.0]]]]).unwrap_err().to_string();
        assert!(error.contains("model 1 has logits of 2 images, expected 1"), "{error}");
        assert!(Owners::surest(&[vec![], vec![]]).unwrap().of().is_empty());
    }
}
