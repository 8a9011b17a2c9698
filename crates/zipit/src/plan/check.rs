//! Everything about a point's maps that can be wrong by itself.

use super::PointPlan;
use crate::unmerge::UnmergeRule;
use ndarray::Array2;

impl PointPlan {
    pub(super) fn validate(&self, n_models: usize, rule: &UnmergeRule) -> Result<(), String> {
        let n = self.assignment.len();
        if n == 0 || !n.is_multiple_of(n_models) {
            return Err(format!("{n} features are not those of {n_models} models alike"));
        }
        let mut sizes: Vec<usize> = Vec::new();
        for (k, &group) in self.assignment.iter().enumerate() {
            let group = group as usize;
            if group >= self.n_groups {
                return Err(format!("feature {k} is in group {group} of {}", self.n_groups));
            }
            if group > sizes.len() {
                return Err(format!("feature {k} opens group {group} before group {} has a member", sizes.len()));
            }
            if group == sizes.len() {
                sizes.push(0);
            }
            sizes[group] += 1;
        }
        if sizes.len() != self.n_groups {
            return Err(format!("{} groups but only {} have members", self.n_groups, sizes.len()));
        }
        if !self.resting.is_sorted_by(|a, b| a < b) {
            return Err("the features without weight are not in ascending order".to_owned());
        }
        for &k in &self.resting {
            let group = self.assignment.get(k as usize);
            sizes[*group.ok_or_else(|| format!("feature {k} of {n} has no weight"))? as usize] -= 1;
        }
        if let Some(group) = sizes.iter().position(|&size| size == 0) {
            return Err(format!("no member of group {group} has weight"));
        }
        if let Some(weights) = &self.weights {
            if self.merge.is_some() {
                return Err("a dense merge says itself what its features count".to_owned());
            }
            self.validate_weights(weights)?;
        }
        match (&self.merge, &self.unmerge, rule) {
            (None, None, _) => {}
            (None, Some(_), UnmergeRule::Pinv) if self.resting.is_empty() => {
                return Err("a dense unmerge under the rule `pinv`".to_owned());
            }
            (None, Some(u), UnmergeRule::Pinv | UnmergeRule::Covariance { .. }) => self.validate_unmerge(u)?,
            (Some(_), None, _) => return Err("a dense merge without a dense unmerge".to_owned()),
            (Some(_), Some(_), _) if !self.resting.is_empty() => {
                return Err("a dense merge says itself which features have no weight".to_owned());
            }
            (Some(m), Some(u), _) => self.validate_maps(m, u)?,
        }
        self.summary.validate(n_models, n, n - self.n_groups - self.resting.len())
    }

    /// Shapes, finite numbers, and M·U = I to the rounding of the f32 entries.
    fn validate_maps(&self, m: &Array2<f32>, u: &Array2<f32>) -> Result<(), String> {
        let (n, d) = (self.assignment.len(), self.n_groups);
        if m.dim() != (d, n) || u.dim() != (n, d) {
            return Err(format!(
                "the maps are {:?} and {:?}, expected {:?} and {:?}",
                m.dim(),
                u.dim(),
                (d, n),
                (n, d)
            ));
        }
        if m.iter().chain(u).any(|x| !x.is_finite()) {
            return Err("the maps hold NaN or infinity".to_owned());
        }
        let (m, u) = (m.mapv(f64::from), u.mapv(f64::from));
        let rounding = 1e-6 * m.mapv(f64::abs).dot(&u.mapv(f64::abs));
        let off = m.dot(&u) - Array2::<f64>::eye(d);
        if off.iter().zip(&rounding).any(|(x, rounding)| x.abs() > 1e-6 + rounding) {
            return Err("the unmerge does not undo the merge (M·U is not the unit matrix)".to_owned());
        }
        Ok(())
    }

    /// One for each feature, of which some count in every group.
    fn validate_weights(&self, weights: &[f32]) -> Result<(), String> {
        if weights.len() != self.assignment.len() {
            return Err(format!("{} features have {} weights", self.assignment.len(), weights.len()));
        }
        if let Some(k) = weights.iter().position(|x| !(x.is_finite() && *x >= 0.0)) {
            return Err(format!("feature {k} counts {}", weights[k]));
        }
        if let Some(&k) = self.resting.iter().find(|&&k| weights[k as usize] != 0.0) {
            return Err(format!("feature {k}, without weight, counts {}", weights[k as usize]));
        }
        let mut sums = vec![0.0_f64; self.n_groups];
        self.assignment.iter().zip(weights).for_each(|(&g, &x)| sums[g as usize] += f64::from(x));
        match sums.iter().position(|&sum| sum <= 0.0) {
            Some(group) => Err(format!("no member of group {group} counts")),
            None => Ok(()),
        }
    }

    /// Shape, finite numbers, and M·U = I to the rounding of U's f32 entries.
    fn validate_unmerge(&self, u: &Array2<f32>) -> Result<(), String> {
        let expected = (self.assignment.len(), self.n_groups);
        if u.dim() != expected {
            return Err(format!("the unmerge is {:?}, expected {expected:?}", u.dim()));
        }
        if u.iter().any(|x| !x.is_finite()) {
            return Err("the unmerge holds NaN or infinity".to_owned());
        }
        let mut off: Array2<f64> = -Array2::eye(self.n_groups);
        for ((&group, share), row) in self.assignment.iter().zip(self.shares()).zip(u.rows()) {
            off.row_mut(group as usize).zip_mut_with(&row, |sum, &x| *sum += share * f64::from(x));
        }
        let largest = u.iter().fold(1.0_f32, |largest, x| largest.max(x.abs()));
        if off.iter().any(|x| x.abs() > 1e-5 * f64::from(largest)) {
            return Err("the unmerge does not undo the merge (M·U is not the unit matrix)".to_owned());
        }
        Ok(())
    }
}
