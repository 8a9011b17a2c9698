//! The greedy zip, fast: the merges of [`oracle::zip`], bit for bit, in O(n²) typical time.
//!
//! Each row remembers its best partner to the right. A merge changes one row and one column, so most rows keep theirs;
//! a row that loses its best becomes *stale*: what it remembers is now an upper bound, and the row is searched again
//! only if that bound comes to the top. A raised similarity (α < 1 raises negative ones) enters by comparison.

use super::Matching;
use super::limits::{damping, exclusive, within_cap};
#[cfg(doc)]
use super::oracle;
use ndarray::ArrayView2;
use std::cmp::Ordering;

/// Greedy zip, defined by [`oracle::zip`]: same arguments, same merges in the same order.
///
/// `similarity` is symmetric; its diagonal is not read. Beside it one f32 matrix of its size is held.
///
/// ```
/// let r = ndarray::array![[1.0, 0.1, 0.2, 0.9], [0.1, 1.0, 0.6, 0.7], [0.2, 0.6, 1.0, 0.0], [0.9, 0.7, 0.0, 1.0]];
/// let matching = zipit::matching::zip::zip(r.view(), 2, 2, 1.0, 0.0);
/// assert_eq!(matching.merges, [(0, 3), (1, 2)]);
/// assert_eq!(matching.assignment, [0, 1, 1, 0]);
/// ```
///
/// # Panics
/// When `similarity` is not square, not finite or of a size that N does not divide, or d' is not in 1…N·d.
#[must_use]
pub fn zip(similarity: ArrayView2<'_, f32>, n_models: usize, n_groups: usize, alpha: f32, beta: f32) -> Matching {
    zip_of(similarity, &alike(similarity, n_models), n_groups, alpha, beta)
}

/// As [`zip`] of models that have `sizes[i]` features each.
///
/// # Panics
/// As [`zip`] does, and when the sizes do not add up.
#[must_use]
pub fn zip_of(similarity: ArrayView2<'_, f32>, sizes: &[usize], n_groups: usize, alpha: f32, beta: f32) -> Matching {
    let models = models_of(similarity, sizes, n_groups);
    let n = similarity.nrows();
    let cap = within_cap(n - n_groups, sizes.len(), beta);
    let limits = Limits {
        left_within: vec![cap; sizes.len()],
        members: exclusive(alpha).then(|| models.iter().map(|&i| Members::single(i, sizes.len())).collect()),
        ends: sizes
            .iter()
            .scan(0, |end, size| {
                *end += size;
                Some(*end)
            })
            .collect(),
        models,
        lifted: false,
    };
    let mut pairs = Pairs::new(similarity, limits);
    let mut merges = Vec::with_capacity(n - n_groups);
    while n - merges.len() > n_groups {
        match pairs.best() {
            Some((i, j)) => {
                pairs.merge(i, j, damping(alpha));
                merges.push((i as u32, j as u32));
            }
            None => pairs.lift_limits(),
        }
    }
    Matching::from_merges(n, merges, pairs.limits.lifted)
}

/// Sizes of models that have as many features each.
///
/// # Panics
/// As [`zip`] does.
pub(super) fn alike(similarity: ArrayView2<'_, f32>, n_models: usize) -> Vec<usize> {
    let n = similarity.nrows();
    assert!(n_models > 0 && n.is_multiple_of(n_models), "{n} joint features are not those of {n_models} models alike");
    vec![n / n_models; n_models]
}

/// The model of each feature of a valid request.
///
/// # Panics
/// As [`zip_of`] does.
pub(super) fn models_of(similarity: ArrayView2<'_, f32>, sizes: &[usize], n_groups: usize) -> Vec<usize> {
    let n = similarity.nrows();
    assert!(similarity.is_square(), "similarities are {:?}, expected a square", similarity.dim());
    assert_eq!(sizes.iter().sum::<usize>(), n, "models of other numbers of features");
    assert!((1..=n).contains(&n_groups), "{n_groups} groups of {n} features");
    assert!(similarity.iter().all(|x| x.is_finite()), "a similarity is not finite");
    sizes.iter().enumerate().flat_map(|(i, &size)| vec![i; size]).collect()
}

/// Which pairs of groups may merge. A group goes by its lowest feature.
struct Limits {
    /// The model of each feature.
    models: Vec<usize>,
    /// Where each model's features end: they are ranges.
    ends: Vec<usize>,
    /// Merges each model may still make within itself.
    left_within: Vec<usize>,
    /// What each group holds, where groups are exclusive.
    members: Option<Vec<Members>>,
    lifted: bool,
}

/// What exclusiveness asks of a group: whether it is single, and the set of its models.
struct Members {
    single: bool,
    models: Vec<u64>,
}

impl Members {
    fn single(model: usize, n_models: usize) -> Self {
        let mut models = vec![0; n_models.div_ceil(64)];
        models[model / 64] = 1 << (model % 64);
        Self { single: true, models }
    }

    fn exclude(&self, other: &Self) -> bool {
        !(self.single && other.single) && self.models.iter().zip(&other.models).any(|(a, b)| a & b != 0)
    }
}

impl Limits {
    fn allow(&self, i: usize, j: usize) -> bool {
        self.lifted
            || !(self.models[i] == self.models[j] && self.left_within[self.models[i]] == 0)
                && self.members.as_ref().is_none_or(|m| !m[i].exclude(&m[j]))
    }

    /// The first feature that row `i` may be paired with, as far as caps go.
    fn first_partner(&self, i: usize) -> usize {
        let model = self.models[i];
        if self.left_within[model] == 0 && !self.lifted { self.ends[model] } else { i + 1 }
    }

    /// Notes the merge of `j` into `i`; whether it spent a model's cap.
    fn note_merge(&mut self, i: usize, j: usize) -> bool {
        if let Some(members) = &mut self.members {
            let joining = std::mem::take(&mut members[j].models);
            members[i].single = false;
            members[i].models.iter_mut().zip(joining).for_each(|(a, b)| *a |= b);
        }
        let left = &mut self.left_within[self.models[i]];
        let within = self.models[i] == self.models[j] && *left > 0;
        *left -= usize::from(within);
        within && *left == 0
    }
}

/// What a row remembers of its pairs with higher features.
#[derive(Clone, Copy)]
struct Best {
    /// The highest similarity of an allowed pair, −∞ without any; an upper bound of it when `stale`.
    similarity: f32,
    /// The lowest partner that reached it when it was found.
    partner: usize,
    stale: bool,
}

const NO_PAIR: Best = Best { similarity: f32::NEG_INFINITY, partner: usize::MAX, stale: false };

/// All pairs of groups, by their lowest features.
struct Pairs {
    n: usize,
    /// `[n, n]`, row-major and symmetric in rows and columns of living groups; the others are left as they were.
    similarity: Vec<f32>,
    /// The lowest features of the groups, ascending.
    alive: Vec<usize>,
    best: Vec<Best>,
    limits: Limits,
}

impl Pairs {
    fn new(similarity: ArrayView2<'_, f32>, limits: Limits) -> Self {
        let n = similarity.nrows();
        let similarity = similarity.iter().copied().collect();
        let mut pairs = Self { n, similarity, alive: (0..n).collect(), best: vec![NO_PAIR; n], limits };
        pairs.search_all();
        pairs
    }

    /// The highest allowed pair; lowest row, then lowest column among equals. `None` where nothing may merge.
    fn best(&mut self) -> Option<(usize, usize)> {
        loop {
            let mut top = NO_PAIR;
            let mut row = usize::MAX;
            for &k in &self.alive {
                if self.best[k].similarity > top.similarity {
                    (row, top) = (k, self.best[k]);
                }
            }
            if row == usize::MAX {
                return None;
            }
            if !top.stale {
                return Some((row, top.partner));
            }
            self.search(row);
        }
    }

    /// Finds row `i`'s best again.
    fn search(&mut self, i: usize) {
        let row = &self.similarity[i * self.n..(i + 1) * self.n];
        let first = self.limits.first_partner(i);
        let partners = self.alive[self.alive.partition_point(|&k| k < first)..].iter().copied();
        let highest = |best: Best, k: usize| {
            if row[k] > best.similarity { Best { similarity: row[k], partner: k, stale: false } } else { best }
        };
        self.best[i] = if self.limits.members.is_some() {
            partners.filter(|&k| self.limits.allow(i, k)).fold(NO_PAIR, highest)
        } else {
            partners.fold(NO_PAIR, highest)
        };
    }

    fn search_all(&mut self) {
        for at in 0..self.alive.len() {
            self.search(self.alive[at]);
        }
    }

    fn lift_limits(&mut self) {
        self.limits.lifted = true;
        self.search_all();
    }

    /// Merges group `j` into group `i` < `j`.
    fn merge(&mut self, i: usize, j: usize, damping: f32) {
        if let Ok(at) = self.alive.binary_search(&j) {
            self.alive.remove(at);
        }
        let n = self.n;
        let (head, tail) = self.similarity.split_at_mut(j * n);
        let row = &mut head[i * n..(i + 1) * n];
        for (new, &other) in row.iter_mut().zip(&tail[..n]) {
            *new = if other < *new { other } else { *new } * damping;
        }
        for &k in self.alive.iter().filter(|&&k| k != i) {
            self.similarity[k * n + i] = self.similarity[i * n + k];
        }
        if self.limits.note_merge(i, j) {
            self.forget_within(self.limits.models[i]);
        }
        for at in 0..self.alive.len() {
            let k = self.alive[at];
            if k >= j {
                break;
            }
            if k < i {
                self.see_merge(k, i, j);
            } else if self.best[k].partner == j {
                self.best[k].stale = true;
            }
        }
        self.search(i);
    }

    /// Brings row `k`'s best up to date after `j` merged into `i`, k < i < j: its similarity to `i` is new and that to
    /// `j` is gone.
    fn see_merge(&mut self, k: usize, i: usize, j: usize) {
        let new = self.similarity[k * self.n + i];
        let allowed = self.limits.allow(k, i);
        let best = &mut self.best[k];
        let wins = match new.partial_cmp(&best.similarity) {
            Some(Ordering::Greater) => true,
            // Also where it is stale: below the partner nothing reached the bound.
            Some(Ordering::Equal) => i <= best.partner,
            Some(Ordering::Less) | None => false,
        };
        if allowed && wins {
            *best = Best { similarity: new, partner: i, stale: false };
        } else if best.partner == i || best.partner == j {
            best.stale = true;
        }
    }

    /// Rows whose best lies within `model`, which may merge within itself no more, lose it.
    fn forget_within(&mut self, model: usize) {
        let range = model.checked_sub(1).map_or(0, |before| self.limits.ends[before])..self.limits.ends[model];
        for best in &mut self.best[range.clone()] {
            best.stale |= range.contains(&best.partner);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::oracle;
    use super::*;
    use ndarray::Array2;

    #[test]
    fn a_raised_similarity_overtakes() {
        // All negative: merging 0–1 at −0.1 raises what was −0.9 to −0.09 at α = 0.1.
        let mut r = Array2::from_elem((4, 4), -0.9);
        for (i, j, x) in [(0, 1, -0.1), (2, 3, -0.2)] {
            r[[i, j]] = x;
            r[[j, i]] = x;
        }
        let fast = zip(r.view(), 2, 1, 0.1, 1.0);
        assert_eq!(fast.merges, [(0, 1), (0, 2), (0, 3)]);
        assert_eq!(fast, oracle::zip(r.view(), 2, 1, 0.1, 1.0));
    }

    #[test]
    #[should_panic(expected = "not finite")]
    fn nan_is_refused() {
        let _ = zip(Array2::from_elem((2, 2), f32::NAN).view(), 2, 1, 1.0, 1.0);
    }
}
