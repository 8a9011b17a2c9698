//! What every feature is of its group's average.

/// Which of `n` features are among `resting`.
pub(super) fn rests<T: Copy + TryInto<usize>>(resting: &[T], n: usize) -> Vec<bool> {
    let mut rests = vec![false; n];
    for k in resting.iter().filter_map(|&k| k.try_into().ok()) {
        rests[k] = true;
    }
    rests
}

/// What each feature counts in its group, `[Nd]`, 0 where it rests; and all members of each group together, `[d']`.
pub(super) fn counts(
    assignment: &[u32],
    n_groups: usize,
    rests: &[bool],
    weights: Option<&[f32]>,
) -> (Vec<f64>, Vec<f64>) {
    let weight = |k: usize| weights.map_or(f64::from(u8::from(!rests[k])), |weights| f64::from(weights[k]));
    let counts: Vec<f64> = (0..assignment.len()).map(weight).collect();
    let mut totals = vec![0.0; n_groups];
    assignment.iter().zip(&counts).for_each(|(&g, count)| totals[g as usize] += count);
    (counts, totals)
}

/// What each feature is of its group's average, `[Nd]`: 0 where it rests.
pub(super) fn shares(assignment: &[u32], n_groups: usize, rests: &[bool], weights: Option<&[f32]>) -> Vec<f64> {
    let (counts, totals) = counts(assignment, n_groups, rests, weights);
    assignment.iter().zip(counts).map(|(&g, count)| count / totals[g as usize]).collect()
}

/// Weights that add up to 1 in every group, as a plan has them: 0 for those that rest, the same for all members of a group
/// in which nothing counts; `None` where all members of every group count the same.
pub(super) fn normalised(
    own: &[f64],
    assignment: &[u32],
    n_groups: usize,
    resting: &[usize],
) -> Result<Option<Vec<f32>>, String> {
    if own.len() != assignment.len() {
        return Err(format!("{} features have {} weights", assignment.len(), own.len()));
    }
    if let Some(k) = own.iter().position(|x| !(x.is_finite() && *x >= 0.0)) {
        return Err(format!("feature {k} counts {}", own[k]));
    }
    let mut own = own.to_vec();
    for &k in resting {
        own[k] = 0.0;
    }
    let (mut sums, mut sizes) = (vec![0.0; n_groups], vec![0.0; n_groups]);
    let rests = rests(resting, own.len());
    for ((&g, &x), _) in assignment.iter().zip(&own).zip(&rests).filter(|(_, rests)| !**rests) {
        sums[g as usize] += x;
        sizes[g as usize] += 1.0;
    }
    let equal = |k: usize| 1.0 / sizes[assignment[k] as usize];
    let share = |k: usize| {
        let sum = sums[assignment[k] as usize];
        if rests[k] {
            0.0
        } else if sum > 0.0 {
            own[k] / sum
        } else {
            equal(k)
        }
    };
    let found: Vec<f32> = (0..own.len()).map(|k| share(k) as f32).collect();
    let differ = (0..own.len()).any(|k| !rests[k] && found[k].to_bits() != (equal(k) as f32).to_bits());
    Ok(differ.then_some(found))
}
