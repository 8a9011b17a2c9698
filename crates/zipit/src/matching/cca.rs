//! Features aligned by canonical correlation analysis: dense maps instead of groups.
//!
//! CCA-Merge (Horoi et al. 2024, arXiv 2407.05385). With C₁₁, Cᵢᵢ the covariances of the first model's features and of
//! model i's, each with γ times its mean variance added to the diagonal, and C₁ᵢ their cross-covariance `[d, d]`,
//!
//! `C₁₁^{-½} C₁ᵢ Cᵢᵢ^{-½} = P S Qᵀ`
//!
//! gives canonical directions `C₁₁^{-½} P` and `Cᵢᵢ^{-½} Q` whose coordinates correlate by S. Reading model i's features
//! in its own directions and writing them in the first model's is
//!
//! `Tᵢ = (Pᵀ C₁₁^{-½})⁻¹ (Qᵀ Cᵢᵢ^{-½}) = C₁₁^{½} P Qᵀ Cᵢᵢ^{-½}`, `x¹ ≈ Tᵢ xⁱ`, `Tᵢ⁻¹ = Cᵢᵢ^{½} Q Pᵀ C₁₁^{-½}`,
//!
//! so that Tᵢ xⁱ has (up to γ) the covariance of x¹. The authors' γ is a number added to the diagonal as it is; here it
//! counts in units of the mean variance, so that a network's scale does not matter.

use crate::products::product;
use crate::symmetric::Spectrum;
use crate::{Constants, Error, Observed, Result};
use faer::{
    MatMut, MatRef, Par, Spec,
    diag::DiagMut,
    dyn_stack::{MemBuffer, MemStack},
    linalg::svd::{ComputeSvdVectors, svd, svd_scratch},
};
use ndarray::{Array2, ArrayView2, Axis};
use rayon::prelude::*;

/// The smallest γ that is used. Dead features, or fewer samples than features, leave the covariances singular; with less
/// than this the inverse square roots would be rounding error.
pub const MINIMAL_GAMMA: f64 = 1e-6;

/// How strongly feature j is drawn to feature j, relative to a correlation of 1: it decides only among directions in
/// which the two models share nothing, where P Qᵀ would be any rotation.
const PULL_TO_IDENTITY: f64 = 1e-9;

/// M and U as dense matrices.
#[derive(Debug, Clone, PartialEq)]
pub struct DenseMaps {
    /// M `[d', N·d]`.
    pub merge: Array2<f64>,
    /// U `[N·d, d']`, M·U = I.
    pub unmerge: Array2<f64>,
}

/// `M = [I, T₂, …, T_N] / N` `[d, N·d]` and `U = [I; T₂⁻¹; …; T_N⁻¹]` `[N·d, d]` for the joint features of `n_models` = N
/// models, from what was `observed` of them; γ ≥ 0, below [`MINIMAL_GAMMA`] it counts as that.
///
/// - T maps features, not deviations from their means: a layer keeps its bias, as in the paper.
/// - [Constants](crate::constants) that every model has are left out: the j-th largest of each share a row of M, in which
///   one has weight 1 and the others 0. What one model has more of them than another correlates with nothing.
/// - A model in which every feature is constant, and not in all, is taken as it stands: T = I.
///
/// ```
/// // x² = (3b, a) for x¹ = (a, b), uncorrelated and of variance 1: T₂ = [[0, 1], [1/3, 0]].
/// let (sum, outer) = (vec![0.0; 4], vec![1.0, 0.0, 0.0, 1.0, 1.0, 3.0, 0.0, 9.0, 0.0, 1.0]);
/// let maps = zipit::matching::cca::cca(&zipit::Moments { count: 1, sum, outer }, 2, 0.0).unwrap();
/// let expected = ndarray::array![[0.5, 0.0, 0.0, 0.5], [0.0, 0.5, 0.5 / 3.0, 0.0]];
/// assert!((&maps.merge - &expected).iter().all(|x| x.abs() < 1e-4));
/// ```
///
/// # Errors
/// [`Error::Request`] for a γ that is negative or not finite, or fewer than two models; [`Error::Numbers`] for moments
/// that are not valid or of a number of features that N does not divide, or a decomposition that does not converge.
pub fn cca<'a>(observed: impl Into<Observed<'a>>, n_models: usize, gamma: f64) -> Result<DenseMaps> {
    let Observed { moments, constants, .. } = &observed.into();
    moments.validate("moments")?;
    if !(gamma.is_finite() && gamma >= 0.0) {
        return Err(Error::Request(format!("gamma is {gamma}; it must be a number of at least 0")));
    }
    if n_models < 2 {
        return Err(Error::Request(format!("matching needs the features of at least 2 models, not of {n_models}")));
    }
    let n_joint = moments.n_joint();
    if n_joint == 0 || !n_joint.is_multiple_of(n_models) {
        return Err(Error::Numbers(format!("{n_joint} joint features cannot be those of {n_models} models alike")));
    }
    let d = n_joint / n_models;
    let [mixed, still] = parted(constants, n_models);
    let covariance = constants.live_covariance(moments);
    let block = |i: usize, j: usize| covariance.select(Axis(0), &mixed[i]).select(Axis(1), &mixed[j]);
    let gamma = gamma.max(MINIMAL_GAMMA);
    let n_mixed = mixed[0].len();
    let roots =
        (0..n_models).into_par_iter().map(|i| Roots::new(block(i, i).view(), gamma)).collect::<Result<Vec<_>>>()?;
    let maps = (1..n_models).into_par_iter().map(|i| match (&roots[0], &roots[i]) {
        (Some(first), Some(own)) => transformation(first, own, block(0, i).view()),
        _ => Ok((Array2::eye(n_mixed), Array2::eye(n_mixed))),
    });
    let mut merge = Array2::zeros((d, n_joint));
    let mut unmerge = Array2::zeros((n_joint, d));
    let first = std::iter::once((Array2::eye(n_mixed), Array2::eye(n_mixed)));
    for (own, (to, back)) in mixed.iter().zip(first.chain(maps.collect::<Result<Vec<_>>>()?)) {
        for (a, &row) in mixed[0].iter().enumerate() {
            for (b, &k) in own.iter().enumerate() {
                merge[[row, k]] = to[[a, b]] / n_models as f64;
                unmerge[[k, row]] = back[[b, a]];
            }
        }
    }
    // The rows of the first model's features; what is mixed counts as varying.
    let mut assignment = vec![0; n_joint];
    for all in [&mixed, &still] {
        for own in all {
            own.iter().zip(&all[0]).for_each(|(&k, &row)| assignment[k] = row as u32);
        }
    }
    let resting = constants.resting(&assignment, d, None);
    for &k in still.iter().flatten() {
        if let Ok(at) = resting.features.binary_search(&k) {
            resting.rows[at].iter().for_each(|&(row, factor)| unmerge[[k, row]] = factor);
        } else {
            let row = assignment[k] as usize;
            merge[[row, k]] = 1.0;
            unmerge[[k, row]] = 1.0;
        }
    }
    if merge.iter().chain(&unmerge).any(|x| !x.is_finite()) {
        return Err(Error::Numbers(format!("the canonical directions at gamma {gamma} are not finite: raise gamma")));
    }
    Ok(DenseMaps { merge, unmerge })
}

/// The joint features of each model that are mixed, and the constants that are not: as many of either in every model.
fn parted(constants: &Constants, n_models: usize) -> [Vec<Vec<usize>>; 2] {
    let d = constants.n_joint() / n_models;
    let own = |i: usize| i * d..(i + 1) * d;
    let n_still = (0..n_models).map(|i| own(i).filter(|&k| constants.rests(k)).count()).min().unwrap_or(0);
    let still: Vec<Vec<usize>> = (0..n_models)
        .map(|i| {
            let mut still: Vec<usize> = own(i).filter(|&k| constants.rests(k)).collect();
            still.sort_by(|&a, &b| constants.size(b).total_cmp(&constants.size(a)));
            still.truncate(n_still);
            still
        })
        .collect();
    let mixed = still.iter().enumerate().map(|(i, still)| own(i).filter(|k| !still.contains(k)).collect()).collect();
    [mixed, still]
}

/// C^{½} and C^{-½} of a covariance with γ times its mean diagonal added.
struct Roots {
    root: Array2<f64>,
    inverse: Array2<f64>,
}

impl Roots {
    /// `None` where every feature is dead.
    fn new(covariance: ArrayView2<'_, f64>, gamma: f64) -> Result<Option<Self>> {
        let load = gamma * covariance.diag().mean().unwrap_or(0.0);
        if load <= 0.0 {
            return Ok(None);
        }
        let spectrum = Spectrum::of(covariance).ok_or_else(no_convergence)?;
        let power = |exponent: f64| spectrum.power(load, exponent);
        Ok(Some(Self { root: power(0.5), inverse: power(-0.5) }))
    }
}

/// T = C₁₁^{½} P Qᵀ Cᵢᵢ^{-½} and its inverse.
fn transformation(first: &Roots, own: &Roots, cross: ArrayView2<'_, f64>) -> Result<(Array2<f64>, Array2<f64>)> {
    // The roots are symmetric, so they serve as their own transposes.
    let mut whitened = product(product(first.inverse.view(), cross.t()).view(), own.inverse.view());
    whitened.diag_mut().iter_mut().for_each(|x| *x += PULL_TO_IDENTITY);
    let (p, q) = singular_vectors(&whitened)?;
    let rotation = product(p.view(), q.view());
    let to = product(product(first.root.view(), rotation.t()).view(), own.inverse.view());
    let back = product(product(own.root.view(), rotation.view()).view(), first.inverse.view());
    Ok((to, back))
}

fn no_convergence() -> Error {
    Error::Numbers("a decomposition of the covariances does not converge: raise gamma or measure more images".into())
}

/// P and Q of P S Qᵀ, for a square matrix.
fn singular_vectors(matrix: &Array2<f64>) -> Result<(Array2<f64>, Array2<f64>)> {
    let n = matrix.nrows();
    let (mut p, mut q) = (Array2::zeros((n, n)), Array2::zeros((n, n)));
    let full = ComputeSvdVectors::Full;
    svd(
        MatRef::from_row_major_slice(matrix.as_slice().expect("standard layout"), n, n),
        DiagMut::from_slice_mut(&mut vec![0.0; n]),
        Some(MatMut::from_row_major_slice_mut(p.as_slice_mut().expect("standard layout"), n, n)),
        Some(MatMut::from_row_major_slice_mut(q.as_slice_mut().expect("standard layout"), n, n)),
        Par::Seq,
        MemStack::new(&mut MemBuffer::new(svd_scratch::<f64>(n, n, full, full, Par::Seq, Spec::default()))),
        Spec::default(),
    )
    .map_err(|_| no_convergence())?;
    Ok((p, q))
}
