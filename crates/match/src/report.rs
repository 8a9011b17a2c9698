//! `--report`: everything a matching did, as a file.

use crate::search::Ranked;
use crate::solve::{Measured, Problem, Solved};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use zipit::history::{Merge, replay};
use zipit::plan::{PlanSettings, PointSummary};

/// What was decided, why, and what it did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MatchReport {
    settings: PlanSettings,
    /// What `--search` found, best first; empty without it.
    pub ranking: Vec<Ranked>,
    points: Vec<Point>,
}

/// One merge point of the report.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Point {
    name: String,
    n_features: usize,
    n_groups: usize,
    /// How many groups there are of each size.
    group_sizes: BTreeMap<usize, usize>,
    summary: PointSummary,
    /// E‖xⁱ − Uᵢ M z‖² / E‖xⁱ‖² of each model.
    lost_per_model: Vec<f64>,
    /// In the order in which they were made; empty where a method has no groups.
    merges: Vec<Merge>,
}

impl Point {
    fn new(solved: &Solved, measured: &Measured, n_models: usize) -> Self {
        let plan = &solved.plan;
        let mut sizes: BTreeMap<u32, usize> = BTreeMap::new();
        for &group in &plan.assignment {
            *sizes.entry(group).or_default() += 1;
        }
        let mut group_sizes: BTreeMap<usize, usize> = BTreeMap::new();
        for size in sizes.into_values() {
            *group_sizes.entry(size).or_default() += 1;
        }
        let second_moment = measured.moments.second_moment();
        let lost = plan.lost_energy(&second_moment);
        let d = plan.assignment.len() / n_models;
        let lost_per_model = (0..n_models)
            .map(|i| {
                let range = i * d..(i + 1) * d;
                let energy: f64 = range.clone().map(|k| second_moment[[k, k]]).sum();
                if energy > 0.0 { range.map(|k| lost[k]).sum::<f64>() / energy } else { 0.0 }
            })
            .collect();
        Self {
            name: plan.name.clone(),
            n_features: plan.assignment.len(),
            n_groups: plan.n_groups,
            group_sizes,
            summary: plan.summary.clone(),
            lost_per_model,
            merges: solved.matching.as_ref().map(|m| replay(m, measured)).unwrap_or_default(),
        }
    }
}

impl MatchReport {
    /// What `solved` did, told from the same moments.
    ///
    /// # Errors
    /// Moments that cannot be read.
    pub fn new(
        problem: &Problem<'_>,
        settings: &PlanSettings,
        solved: &[Solved],
        ranking: Vec<Ranked>,
    ) -> anyhow::Result<Self> {
        let point = |(p, solved): (usize, &Solved)| -> anyhow::Result<Point> {
            Ok(Point::new(solved, &problem.measured(settings.method, p)?, problem.n_models))
        };
        let points = solved.iter().enumerate().map(point).collect::<Result<_, _>>()?;
        Ok(Self { settings: settings.clone(), ranking, points })
    }
}
