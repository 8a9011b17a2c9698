//! Networks combined: what every tensor needs found out first, then made piece by piece, in the order of names.

use super::average;
use super::breadcrumbs::crumbs;
use super::dare::drawn;
use super::elect::{Disjoint, elected, sum};
use super::gram::gram;
use super::rule::{Kernels, Recipe, Rule};
use super::selection::Selection;
use super::source::{InMemory, Network, PIECE, Piece, Source, Tensor, whole_vector};
use super::ties::{Scope, trimmed, trimmed_over_all};
use super::{iso, model_stock, slerp, tsv};
use crate::watch::{Unwatched, Watch};
use crate::{Error, Result, StateDict};
use ndarray::{Array2, ArrayD};
use rayon::prelude::*;
use std::collections::BTreeMap;

/// How a tensor of the result is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Made {
    /// By the rule, from the base's and from every fine-tune's.
    ByRule,
    /// As the fine-tunes' mean: statistics, constants, and heads that the base lacks.
    AsMean,
    /// As it is in one of them.
    Of(usize),
}

/// A tensor of the result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Its name in the result.
    pub name: String,
    /// What it is made of, by its name in the networks.
    pub tensor: Tensor,
    /// How.
    pub made: Made,
}

/// How one tensor is made.
enum Treatment {
    /// Σ cᵢ θᵢ, the base first where it counts.
    Mix(Vec<(Network, f64)>),
    /// θ₀ + λ · what is left of the vectors, added up or elected.
    Sparse(Vec<Selection>, Option<Disjoint>),
    /// Taken apart as a matrix.
    Matrix,
}

/// Numbers that are made before they are written.
const BATCH: usize = 1 << 22;
/// Pieces that one thread makes one after the other.
const PIECES: usize = 16;

/// Makes every part and hands its numbers to `write`, in the order of `parts` and row by row, some at a time. `watch` is told
/// of numbers.
///
/// # Errors
/// A recipe that makes no sense, tensors that cannot be read, numbers that `write` refuses, an interruption.
pub fn combine(
    recipe: &Recipe,
    parts: &[Part],
    source: &dyn Source,
    watch: &dyn Watch,
    write: &mut (dyn FnMut(&[f32]) -> Result<()> + Send),
) -> Result<()> {
    recipe.check()?;
    let kitchen = Kitchen { recipe, source, n_tuned: recipe.weights.len() };
    let treatments = kitchen.treatments(parts, watch)?;
    let jobs = parts.iter().zip(&treatments).flat_map(|(part, treatment)| jobs(&part.tensor, treatment));
    // One batch is made while the one before is written.
    let mut made: Vec<Vec<f32>> = Vec::new();
    for batch in batches(jobs) {
        let (next, written) =
            rayon::join(|| kitchen.make(&batch, watch), || made.iter().try_for_each(|made| write(made)));
        written?;
        made = next?;
    }
    made.iter().try_for_each(|made| write(made))
}

/// Neighbours that together are about as many numbers as are made before they are written.
fn batches<'a>(jobs: impl Iterator<Item = Job<'a>>) -> Vec<Vec<Job<'a>>> {
    let mut batches = vec![vec![]];
    let mut n = 0;
    for job in jobs {
        if n > 0 && n + job.len > BATCH {
            batches.push(vec![]);
            n = 0;
        }
        n += job.len;
        batches.last_mut().expect("one at least").push(job);
    }
    batches
}

/// As [`combine`], of networks in memory: every tensor that all have, with one shape.
///
/// ```
/// # use ndarray::array;
/// # use std::collections::BTreeMap;
/// use zipit::task_vector::{Recipe, Rule, combined};
/// # let dict = |x: f32| BTreeMap::from([("w".to_owned(), array![x].into_dyn())]);
/// let (base, tuned) = (dict(1.0), [dict(3.0), dict(2.0)]);
/// let sum = combined(&Recipe::new(Rule::TaskArithmetic, 2), Some(&base), &tuned).unwrap();
/// assert_eq!(sum["w"], array![4.0].into_dyn());
/// ```
///
/// # Errors
/// As [`combine`].
///
/// # Panics
/// Never: as many numbers are made as tensors hold.
pub fn combined(recipe: &Recipe, base: Option<&StateDict>, tuned: &[StateDict]) -> Result<StateDict> {
    let first = tuned.first().ok_or_else(|| Error::Request("no networks to combine".to_owned()))?;
    let all = |name: &str, shape: &[usize]| {
        base.iter().copied().chain(tuned).all(|of| of.get(name).is_some_and(|tensor| tensor.shape() == shape))
    };
    let parts: Vec<Part> = (first.iter())
        .filter(|(name, tensor)| all(name, tensor.shape()))
        .map(|(name, tensor)| Part {
            name: name.clone(),
            tensor: Tensor { name: name.clone(), shape: tensor.shape().to_vec() },
            made: Made::ByRule,
        })
        .collect();
    let mut numbers = Vec::new();
    let mut keep = |made: &[f32]| -> Result<()> {
        numbers.extend_from_slice(made);
        Ok(())
    };
    combine(recipe, &parts, &InMemory { base, tuned }, &Unwatched, &mut keep)?;
    let mut rest = numbers.as_slice();
    let mut weights = BTreeMap::new();
    for part in parts {
        let (own, others) = rest.split_at(part.tensor.n_numbers());
        let tensor = ArrayD::from_shape_vec(part.tensor.shape, own.to_vec()).expect("as many numbers as it holds");
        weights.insert(part.name, tensor);
        rest = others;
    }
    Ok(weights)
}

/// Numbers that are made at once.
struct Job<'a> {
    tensor: &'a Tensor,
    treatment: &'a Treatment,
    start: usize,
    len: usize,
}

/// A tensor's jobs: some pieces where it is made number by number, else all of it.
fn jobs<'a>(tensor: &'a Tensor, treatment: &'a Treatment) -> Vec<Job<'a>> {
    let n = tensor.n_numbers();
    let most = if matches!(treatment, Treatment::Matrix) { n.max(1) } else { PIECES * PIECE };
    (0..n).step_by(most).map(|start| Job { tensor, treatment, start, len: most.min(n - start) }).collect()
}

/// What all tensors are made with.
struct Kitchen<'a> {
    recipe: &'a Recipe,
    source: &'a dyn Source,
    n_tuned: usize,
}

impl Kitchen<'_> {
    /// What is found out about every tensor first.
    fn treatments(&self, parts: &[Part], watch: &dyn Watch) -> Result<Vec<Treatment>> {
        let over_all = match self.recipe.rule {
            Rule::Ties { density, scope: Scope::All, .. } => {
                let by_rule = parts.iter().filter(|part| part.made == Made::ByRule);
                let tensors: Vec<&Tensor> = by_rule.map(|part| &part.tensor).collect();
                trimmed_over_all(self.source, &tensors, self.n_tuned, density)?
            }
            _ => vec![],
        };
        let treat = |(at, part): (usize, &Part)| {
            if watch.interrupted() {
                return Err(Error::Interrupted);
            }
            match part.made {
                Made::Of(i) => Ok(Treatment::Mix(vec![(Network::Tuned(i), 1.0)])),
                Made::AsMean => Ok(Treatment::Mix(tuned(&average::shares(&vec![1.0; self.n_tuned])))),
                Made::ByRule => self.treatment(at, &part.tensor, &over_all),
            }
        };
        let treatments: Vec<Result<Treatment>> = parts.par_iter().enumerate().with_max_len(1).map(treat).collect();
        treatments.into_iter().collect()
    }

    fn treatment(&self, at: usize, tensor: &Tensor, over_all: &[Selection]) -> Result<Treatment> {
        let (source, n) = (self.source, self.n_tuned);
        let scale = self.recipe.scale;
        Ok(match self.recipe.rule {
            Rule::Average => Treatment::Mix(tuned(&average::shares(&self.recipe.weights))),
            Rule::Slerp { t } => Treatment::Mix(tuned(&slerp::shares(&gram(source, tensor, n, false)?, t))),
            Rule::ModelStock => {
                let ratio = scale * model_stock::ratio(&gram(source, tensor, n, true)?);
                let mut mix = tuned(&vec![ratio / n as f64; n]);
                mix.insert(0, (Network::Base, 1.0 - ratio));
                Treatment::Mix(mix)
            }
            Rule::TaskArithmetic => Treatment::Sparse(vec![Selection::All; n], None),
            Rule::Ties { scope: Scope::All, disjoint, .. } => Treatment::Sparse(over_all.to_vec(), Some(disjoint)),
            Rule::Ties { density, scope: Scope::Tensor, disjoint } => {
                Treatment::Sparse(trimmed(source, tensor, n, density)?, Some(disjoint))
            }
            Rule::Dare { density, rescale, seed, elect } => {
                Treatment::Sparse(drawn(source, (at, tensor), n, (density, rescale, seed))?, elect)
            }
            Rule::Breadcrumbs { density, gamma } => Treatment::Sparse(crumbs(source, tensor, n, density, gamma)?, None),
            Rule::IsoC { kernels } | Rule::IsoCts { kernels, .. } | Rule::TsvM { kernels } => {
                let is_matrix = match kernels {
                    Kernels::Matrix => tensor.shape.len() > 1,
                    Kernels::Mean => tensor.shape.len() == 2,
                };
                if is_matrix { Treatment::Matrix } else { Treatment::Sparse(vec![Selection::All; n], None) }
            }
        })
    }

    fn make(&self, batch: &[Job<'_>], watch: &dyn Watch) -> Result<Vec<Vec<f32>>> {
        let make = |job: &Job<'_>| {
            if watch.interrupted() {
                return Err(Error::Interrupted);
            }
            let made = self.made(job)?;
            watch.advance(job.len as u64);
            Ok(made)
        };
        let made: Vec<Result<Vec<f32>>> = batch.par_iter().with_max_len(1).map(make).collect();
        made.into_iter().collect()
    }

    fn made(&self, job: &Job<'_>) -> Result<Vec<f32>> {
        let (source, tensor) = (self.source, job.tensor);
        let mut made = Vec::with_capacity(job.len);
        for start in (job.start..job.start + job.len).step_by(PIECE) {
            let piece = Piece { source, tensor, start, len: PIECE.min(job.start + job.len - start) };
            match job.treatment {
                Treatment::Mix(mix) => made.extend(mixed(&piece, mix)?),
                Treatment::Sparse(selections, elect) => made.extend(self.sparse(&piece, selections, *elect)?),
                Treatment::Matrix => return self.matrix(tensor),
            }
        }
        Ok(made)
    }

    fn sparse(&self, piece: &Piece<'_>, selections: &[Selection], elect: Option<Disjoint>) -> Result<Vec<f32>> {
        let base = piece.of(Network::Base)?;
        let left = |(t, selection): (usize, &Selection)| {
            let mut vector = piece.vector(t, &base)?;
            selection.apply(piece.start, &mut vector);
            Ok(vector)
        };
        let vectors = selections.iter().enumerate().map(left).collect::<Result<Vec<_>>>()?;
        let Recipe { rule, weights, .. } = self.recipe;
        let merged = match elect {
            Some(disjoint) => elected(&vectors, weights, disjoint),
            None => sum(&vectors, weights),
        };
        // What is no matrix is averaged by the rules that take matrices apart.
        let is_mean = matches!(rule, Rule::IsoC { .. } | Rule::IsoCts { .. } | Rule::TsvM { .. });
        let scale = self.recipe.scale / if is_mean { self.n_tuned as f64 } else { 1.0 };
        Ok(added(base, &merged, scale))
    }

    fn matrix(&self, tensor: &Tensor) -> Result<Vec<f32>> {
        let n = tensor.n_numbers();
        let rows = tensor.shape[0];
        // One network's at a time, so that memory does not grow with their number.
        let vector = |t: usize| -> Result<Array2<f64>> {
            let weight = self.recipe.weights[t];
            let numbers = whole_vector(self.source, tensor, t)?;
            let numbers = numbers.into_iter().map(|x| weight * f64::from(x)).collect();
            Ok(Array2::from_shape_vec((rows, n / rows), numbers).expect("as many numbers as it holds"))
        };
        let merged = match self.recipe.rule {
            Rule::IsoCts { common, .. } => iso::common_and_specific(self.n_tuned, &vector, common)?,
            Rule::TsvM { .. } => tsv::merged(self.n_tuned, &vector)?,
            _ => iso::common(self.n_tuned, &vector)?,
        };
        let whole = Piece { source: self.source, tensor, start: 0, len: n };
        let merged: Vec<f64> = merged.into_iter().collect();
        Ok(added(whole.of(Network::Base)?, &merged, self.recipe.scale))
    }
}

/// What fine-tunes count.
fn tuned(shares: &[f64]) -> Vec<(Network, f64)> {
    shares.iter().enumerate().map(|(t, &share)| (Network::Tuned(t), share)).collect()
}

fn mixed(piece: &Piece<'_>, mix: &[(Network, f64)]) -> Result<Vec<f32>> {
    // One network's as they are, to the bit.
    if let [(network, 1.0)] = *mix {
        return piece.of(network);
    }
    let mut sum = vec![0.0; piece.len];
    for &(network, share) in mix {
        for (sum, x) in sum.iter_mut().zip(piece.of(network)?) {
            *sum += share * f64::from(x);
        }
    }
    Ok(sum.into_iter().map(|x| x as f32).collect())
}

/// θ₀ + λ Δ.
fn added(mut base: Vec<f32>, delta: &[f64], scale: f64) -> Vec<f32> {
    for (x, delta) in base.iter_mut().zip(delta) {
        *x = (f64::from(*x) + scale * delta) as f32;
    }
    base
}
