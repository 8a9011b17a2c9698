//! Fisher merging (Matena & Raffel 2022, arXiv 2111.09832): `θ = Σₜ wₜ Fₜ θₜ / Σₜ wₜ Fₜ`, number by number: every fine-tune counts
//! as much as its predictions depend on the number.

/// One piece of a tensor, of fine-tunes' numbers and their Fisher information. Where nobody's predictions depend on a number,
/// it is the weighted average.
pub(super) fn merged(tuned: &[Vec<f32>], fisher: &[Vec<f64>], weights: &[f64], shares: &[f64]) -> Vec<f32> {
    let number = |i: usize| {
        let all = || tuned.iter().zip(fisher).zip(weights).map(move |((of, f), w)| (f64::from(of[i]), w * f[i]));
        let sum: f64 = all().map(|(_, f)| f).sum();
        if sum > 0.0 {
            return (all().map(|(x, f)| x * f).sum::<f64>() / sum) as f32;
        }
        tuned.iter().zip(shares).map(|(of, share)| share * f64::from(of[i])).sum::<f64>() as f32
    };
    (0..tuned.first().map_or(0, Vec::len)).map(number).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_go_to_whom_they_matter_to() {
        let tuned = [vec![1.0, 1.0, 1.0], vec![3.0, 3.0, 3.0]];
        let fisher = [vec![1.0, 0.0, 0.0], vec![3.0, 2.0, 0.0]];
        assert_eq!(merged(&tuned, &fisher, &[1.0, 1.0], &[0.5, 0.5]), [2.5, 3.0, 2.0]);
        assert_eq!(merged(&tuned, &fisher, &[3.0, 1.0], &[0.75, 0.25]), [2.0, 3.0, 1.5]);
    }
}
