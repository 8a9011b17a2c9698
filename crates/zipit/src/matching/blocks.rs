//! Features in blocks (the groups of a convolution, the heads of an attention): first whole blocks are matched, then the
//! features inside matched blocks, one to one. No group crosses a block.
//!
//! The similarity of two blocks is the best that a one-to-one assignment of their features reaches, as a mean over
//! features and over all spaces whose blocks belong together: a convolution's groups by what they read *and* what they
//! make, a head by its queries, keys and values. Queries and keys are compared with each other, so one assignment, by
//! the sum of both similarities, serves them both.

use super::living::{Living, cluster};
use super::{Matching, Method, among, identity, linkage, pairing, permute, zip};
use crate::graph::Blocks;
use crate::{Error, Observed, Result};
use linkage::Linkage;
use ndarray::{Array2, ArrayView2, Axis, Slice};
use std::collections::BTreeMap;

/// One of the spaces of a family.
#[derive(Debug, Clone)]
pub struct Member<'a> {
    /// What was measured of its features.
    pub observed: Observed<'a>,
    /// Its blocks; the number and the family are the same for all.
    pub blocks: Blocks,
}

/// Matches the features of all spaces of a family; one matching for each, d' = d.
///
/// `zip`, `ward`, `average`, `permute` and `identity` (and `select`, as `ward`) say which blocks become one, with the
/// similarity of blocks in the place of the correlation; a block that is merged with none keeps its own features.
///
/// ```
/// use zipit::{Moments, graph::Blocks, matching::{Method, blocks::{Member, match_blocks}}};
/// // Two models of two blocks of one feature; the second has them the other way round.
/// let z = [[1.0, 0.0, 0.0, 1.0], [0.0, 1.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0]];
/// let mut moments = Moments::zeros(4);
/// for z in z {
///     moments.add_batch(1, &z, ndarray::Array2::from_shape_fn((4, 4), |(i, j)| z[i] * z[j]).view());
/// }
/// let member = Member { observed: (&moments).into(), blocks: Blocks { count: 2, family: 0, twin: 0 } };
/// let matched = match_blocks(&Method::Permute, &[member], 2).unwrap();
/// assert_eq!(matched[0].assignment, [0, 1, 1, 0]);
/// ```
///
/// # Errors
/// [`Error::Request`] for methods that do not know blocks; [`Error::Numbers`] for moments that do not fit.
pub fn match_blocks(method: &Method, family: &[Member<'_>], n_models: usize) -> Result<Vec<Matching>> {
    method.validate()?;
    let Some(first) = family.first() else { return Ok(vec![]) };
    let count = first.blocks.count;
    for member in family {
        member.observed.moments.validate("moments")?;
        let n = member.observed.moments.n_joint();
        if n_models < 2 || count == 0 || !n.is_multiple_of(n_models * count) {
            return Err(Error::Numbers(format!("{n} features are not {count} blocks of {n_models} models alike")));
        }
    }
    let widths: Vec<usize> = family.iter().map(|m| m.observed.moments.n_joint() / (n_models * count)).collect();
    if matches!(method, Method::Identity) {
        return Ok(widths.iter().map(|w| identity::identity(w * count, n_models)).collect());
    }
    let mut twins: BTreeMap<usize, Array2<f32>> = BTreeMap::new();
    for member in family {
        let own = pairing(&member.observed, n_models);
        twins.entry(member.blocks.twin).and_modify(|sum| *sum += &own).or_insert(own);
    }
    let twin_width =
        |twin: usize| family.iter().zip(&widths).find(|(m, _)| m.blocks.twin == twin).map_or(1, |(_, &width)| width);
    let mut similarity = Array2::<f64>::zeros((n_models * count, n_models * count));
    for (&twin, r) in &twins {
        let share = family.iter().filter(|m| m.blocks.twin == twin).count() as f64;
        similarity += &(block_similarity(r, twin_width(twin)) / (share * twins.len() as f64));
    }
    let similarity = similarity.mapv(|x| x.clamp(-1.0, 1.0));
    // A block that is dead in all its spaces takes the place of none.
    let dead = |b: usize| {
        family.iter().zip(&widths).all(|(member, width)| {
            let constants = &member.observed.constants;
            (b * width..(b + 1) * width).all(|k| constants.rests(k) && constants.is_dead(k))
        })
    };
    let dead: Vec<bool> = (0..n_models * count).map(dead).collect();
    let clustered = |clustering: &dyn Fn(&Living<'_>) -> Result<Matching>| {
        cluster(&dead, |_| vec![], n_models, count, true, clustering)
    };
    let linked = |linkage| clustered(&|of| Ok(linkage::linkage(among(&similarity, of).view(), of.n_groups, linkage)));
    let outer = match *method {
        Method::Zip { alpha, beta } => clustered(&|of| {
            let similarity = among(&similarity, of).mapv(|x| x as f32);
            Ok(zip::zip_of(similarity.view(), of.sizes, of.n_groups, alpha, beta))
        })?,
        // Whole blocks are not chosen among: the logits' gradients are known of single features.
        Method::Ward { .. } | Method::Select => linked(Linkage::Ward)?,
        Method::Average { .. } => linked(Linkage::Average)?,
        Method::Permute => permute::permute_onto(similarity.mapv(|x| x as f32).view(), n_models, |b| dead[b]),
        Method::Identity
        | Method::Kmeans { .. }
        | Method::Optimal
        | Method::Weight { .. }
        | Method::Mudsc { .. }
        | Method::Cca { .. }
        | Method::Random { .. }
        | Method::First => {
            return Err(Error::Request(format!(
                "method `{}` does not know blocks of features (grouped convolutions, attention heads); use `zip`, \
                 `ward`, `average`, `permute` or `identity`",
                method.name()
            )));
        }
    };
    let inner: BTreeMap<usize, Matching> =
        twins.iter().map(|(&twin, r)| (twin, inside(&outer, r, twin_width(twin)))).collect();
    Ok(family.iter().map(|member| inner[&member.blocks.twin].clone()).collect())
}

/// Mean similarity of the best partners of each two blocks, `[n_blocks, n_blocks]`, 1 on the diagonal.
fn block_similarity(r: &Array2<f32>, width: usize) -> Array2<f64> {
    let n = r.nrows() / width;
    let mut similarity = Array2::eye(n);
    similarity *= f64::from(r.diag().iter().copied().fold(0.0, f32::max));
    for a in 0..n {
        for b in a + 1..n {
            let between = block(r, width, b, a);
            let found = if width == 1 {
                f64::from(between[[0, 0]])
            } else {
                let onto = partners(between);
                onto.iter().enumerate().map(|(j, &k)| f64::from(between[[j, k as usize]])).sum::<f64>() / width as f64
            };
            similarity[[a, b]] = found;
            similarity[[b, a]] = found;
        }
    }
    similarity
}

fn block(r: &Array2<f32>, width: usize, row: usize, column: usize) -> ArrayView2<'_, f32> {
    let of = |b: usize| Slice::from(b * width..(b + 1) * width);
    let mut view = r.view();
    view.slice_axis_inplace(Axis(0), of(row));
    view.slice_axis_inplace(Axis(1), of(column));
    view
}

/// For each row a column of its own.
fn partners(between: ArrayView2<'_, f32>) -> Vec<u32> {
    let largest = between.iter().fold(1.0_f32, |largest, x| largest.max(x.abs()));
    permute::assign(between.nrows(), |j, k| f64::from(between[[j, k]] / largest))
}

/// The features of every block onto those of the lowest block it is merged with.
fn inside(outer: &Matching, r: &Array2<f32>, width: usize) -> Matching {
    let mut lowest: Vec<Option<usize>> = vec![None; outer.n_groups];
    let mut assignment = Vec::with_capacity(r.nrows());
    for (b, &group) in outer.assignment.iter().enumerate() {
        let first = group as usize * width;
        match lowest[group as usize] {
            None => {
                lowest[group as usize] = Some(b);
                assignment.extend((first..first + width).map(|g| g as u32));
            }
            Some(reference) => {
                let onto = partners(block(r, width, b, reference));
                assignment.extend(onto.into_iter().map(|k| first as u32 + k));
            }
        }
    }
    Matching { caps_lifted: outer.caps_lifted, ..Matching::from_assignment(&assignment) }
}
