//! Networks combined: what every tensor needs found out first, then made piece by piece, in the order of names.

use super::average;
use super::breadcrumbs::crumbs;
use super::dare::drawn;
use super::elect::{Disjoint, elected, sum};
use super::gram::gram;
use super::mats::{self, Solved, Term};
use super::rule::{Kernels, Recipe, Rule};
use super::selection::Selection;
use super::source::{InMemory, Network, PIECE, Piece, Source, Tensor, whole_vector};
use super::ties::{Scope, trimmed, trimmed_over_all};
use super::{fisher, iso, model_stock, regmean, slerp, tsv};
use crate::watch::{Unwatched, Watch};
use crate::{Error, Result, StateDict};
use ndarray::{Array2, ArrayD, Axis, Slice};
use rayon::prelude::*;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

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
    /// By Fisher information, number by number.
    Fisher,
    /// As a whole, as a matrix.
    Matrix,
}

/// Numbers that are made before they are written.
const BATCH: usize = 1 << 22;
/// Pieces that one thread makes one after the other.
const PIECES: usize = 16;

/// Makes every part and hands its numbers to `write`, in the order of `parts` and row by row, some at a time. `watch` is told
/// of numbers. Returns how tensors were solved, where the rule solves equations.
///
/// # Errors
/// A recipe that makes no sense, tensors that cannot be read, numbers that `write` refuses, an interruption.
pub fn combine(
    recipe: &Recipe,
    parts: &[Part],
    source: &dyn Source,
    watch: &dyn Watch,
    write: &mut (dyn FnMut(&[f32]) -> Result<()> + Send),
) -> Result<Vec<Solved>> {
    recipe.check()?;
    let kitchen = Kitchen { recipe, source, n_tuned: recipe.weights.len(), solved: Mutex::default() };
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
    made.iter().try_for_each(|made| write(made))?;
    let mut solved = kitchen.solved.into_inner().unwrap_or_else(PoisonError::into_inner);
    solved.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(solved)
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
    solved: Mutex<Vec<Solved>>,
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
            Rule::Fisher if source.is_measured(&tensor.name) => Treatment::Fisher,
            Rule::RegMean { .. } | Rule::Mats { .. } if source.is_measured(&tensor.name) => Treatment::Matrix,
            Rule::Fisher | Rule::RegMean { .. } | Rule::Mats { .. } => {
                Treatment::Mix(tuned(&average::shares(&self.recipe.weights)))
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
                Treatment::Fisher => made.extend(self.by_fisher(&piece)?),
                Treatment::Matrix if self.recipe.rule.takes_measured() => return self.layer(tensor),
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

    fn by_fisher(&self, piece: &Piece<'_>) -> Result<Vec<f32>> {
        let all = 0..self.n_tuned;
        let tuned = all.clone().map(|t| piece.of(Network::Tuned(t))).collect::<Result<Vec<_>>>()?;
        let fisher = |t: usize| {
            let mut numbers = vec![0.0; piece.len];
            self.source.fisher(t, &piece.tensor.name, piece.start, &mut numbers)?;
            Ok(numbers)
        };
        let weights = &self.recipe.weights;
        let fisher = all.map(fisher).collect::<Result<Vec<_>>>()?;
        Ok(fisher::merged(&tuned, &fisher, weights, &average::shares(weights)))
    }

    /// A layer's weight, group by group.
    fn layer(&self, tensor: &Tensor) -> Result<Vec<f32>> {
        let (source, name, n) = (self.source, &tensor.name, self.n_tuned);
        let Recipe { rule, weights, scale } = self.recipe;
        let whole = Piece { source, tensor, start: 0, len: tensor.n_numbers() };
        let matrix = |numbers: Vec<f32>| -> Array2<f64> {
            let numbers = numbers.into_iter().map(f64::from).collect();
            let shape = (tensor.shape[0], tensor.n_numbers() / tensor.shape[0]);
            Array2::from_shape_vec(shape, numbers).expect("as many numbers as it holds")
        };
        let tuned = (0..n).map(|t| Ok(matrix(whole.of(Network::Tuned(t))?))).collect::<Result<Vec<_>>>()?;
        let inputs = (0..n).map(|t| source.inputs(t, name)).collect::<Result<Vec<_>>>()?;
        let gradients = match rule {
            Rule::Mats { .. } => (0..n).map(|t| source.gradients(t, name)).collect::<Result<Vec<_>>>()?,
            _ => vec![],
        };
        let rows = |of: &Array2<f64>, group: usize| {
            let n_rows = of.nrows() / inputs[0].len();
            of.slice_axis(Axis(0), Slice::from(group * n_rows..(group + 1) * n_rows)).to_owned()
        };
        let shares = average::shares(weights);
        let (mut made, mut solved) = (Vec::with_capacity(whole.len), Solved::new(name));
        for g in 0..inputs[0].len() {
            let own: Vec<Array2<f64>> = tuned.iter().map(|of| rows(of, g)).collect();
            let merged = match *rule {
                Rule::Mats { stop } => {
                    let base = rows(&matrix(whole.of(Network::Base)?), g);
                    let sum =
                        own.iter().zip(weights).fold(base.clone(), |sum, (of, &w)| sum + (of - &base) * (scale * w));
                    let term = |(t, w): (usize, Array2<f64>)| Term {
                        w,
                        a: &gradients[t][g] * weights[t],
                        b: inputs[t][g].clone(),
                    };
                    let terms: Vec<Term> = own.into_iter().enumerate().map(term).collect();
                    let (w, n_iterations, residual) = mats::solve(&sum, &terms, stop);
                    solved.worst(n_iterations, residual);
                    w
                }
                Rule::RegMean { off_diagonal } => {
                    let inputs: Vec<&Array2<f64>> = inputs.iter().map(|groups| &groups[g]).collect();
                    regmean::merged(&own, &inputs, (weights, &shares), off_diagonal)?
                }
                _ => return Err(Error::Request("this rule weighs by nothing that was measured".to_owned())),
            };
            made.extend(merged.into_iter().map(|x| x as f32));
        }
        if matches!(rule, Rule::Mats { .. }) {
            self.solved.lock().unwrap_or_else(PoisonError::into_inner).push(solved);
        }
        Ok(made)
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
