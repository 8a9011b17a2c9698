//! Groups for all features by a clustering of those that vary: constants take no place of theirs.

use super::Matching;
use crate::{Constants, Result};

/// What a clustering is asked for.
pub(super) struct Living<'a> {
    /// The joint features that vary, ascending, or what else is clustered.
    pub features: &'a [usize],
    /// How many of them each model has, model after model.
    pub sizes: &'a [usize],
    /// Into how many groups.
    pub n_groups: usize,
}

/// Groups the features of `n_models` models into `n_groups` = d'. Of those that `rests` says are left out of averages,
/// the `carriers` get a group each, as far as their share of the groups goes: as many in d' as left-out features are in
/// N·d, rounded up. The others are clustered into what remains, or unless they are `spread` over all of it into no more than
/// their share, and where more groups remain, more left-out features have one of their own. The rest of those joins the first group that holds none but
/// left-out ones, or feature 0's.
///
/// # Errors
/// What the clustering says.
pub(super) fn cluster(
    rests: &[bool],
    carriers: impl FnOnce(usize) -> Vec<usize>,
    n_models: usize,
    n_groups: usize,
    spread: bool,
    clustering: impl FnOnce(&Living<'_>) -> Result<Matching>,
) -> Result<Matching> {
    let n = rests.len();
    let living: Vec<usize> = (0..n).filter(|&k| !rests[k]).collect();
    let n_resting = n - living.len();
    let mut single = carriers(most_carriers(n_resting, n, n_groups));
    let left = n_groups - single.len();
    let share = if spread { left } else { left.min((living.len() * n_groups).div_ceil(n)) };
    let mut merges = Vec::new();
    let mut caps_lifted = false;
    let mut weights = None;
    if living.len() > share {
        let d = n / n_models;
        let sizes: Vec<usize> = (0..n_models).map(|i| living.iter().filter(|&&k| k / d == i).count()).collect();
        let found = clustering(&Living { features: &living, sizes: &sizes, n_groups: share })?;
        let joint = |k: u32| living[k as usize] as u32;
        merges.extend(found.merges.iter().map(|&(i, j)| (joint(i), joint(j))));
        caps_lifted = found.caps_lifted;
        weights = found.weights.map(|own| {
            let mut weights = vec![0.0; n];
            living.iter().zip(own).for_each(|(&k, weight)| weights[k] = weight);
            weights
        });
    }
    let more = (0..n).filter(|k| rests[*k] && !single.contains(k)).take(left - share.min(living.len()));
    let more: Vec<usize> = more.collect();
    single.extend(more);
    let mut home = match single.first() {
        Some(&first) => first as u32,
        None => living[0] as u32,
    };
    for k in (0..n).filter(|k| rests[*k] && !single.contains(k)) {
        let k = k as u32;
        merges.push((home.min(k), home.max(k)));
        home = home.min(k);
    }
    Ok(Matching { weights, ..Matching::from_merges(n, merges, caps_lifted) })
}

/// The carriers' share of the groups.
fn most_carriers(n_resting: usize, n: usize, n_groups: usize) -> usize {
    (n_resting * n_groups).div_ceil(n).min(n_groups - usize::from(n_resting < n))
}

/// Those that vary, and into how many groups they are clustered where there are 1, 2, …, N·d groups in all.
pub(super) fn clustered(constants: &Constants) -> (Vec<usize>, Vec<usize>) {
    let n = constants.n_joint();
    let living: Vec<usize> = (0..n).filter(|&k| !constants.rests(k)).collect();
    let n_resting = n - living.len();
    let left = |n_groups: usize| n_groups - constants.carriers(most_carriers(n_resting, n, n_groups)).len();
    let n_clusters = (1..=n).map(|n_groups| left(n_groups).min(living.len())).collect();
    (living, n_clusters)
}

/// As [`cluster`] of the features themselves.
pub(super) fn cluster_features(
    constants: &Constants,
    n_models: usize,
    n_groups: usize,
    spread: bool,
    clustering: impl FnOnce(&Living<'_>) -> Result<Matching>,
) -> Result<Matching> {
    let rests: Vec<bool> = (0..constants.n_joint()).map(|k| constants.rests(k)).collect();
    cluster(&rests, |most| constants.carriers(most), n_models, n_groups, spread, clustering)
}
