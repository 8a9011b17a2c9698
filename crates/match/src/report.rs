//! `--report`: everything a matching did, as JSON.

use crate::solve::{Problem, Solved};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;
use zipit::Moments;
use zipit::history::{Merge, replay};
use zipit::plan::{PlanSettings, PointSummary};
use zipit_artifact::atomic;

/// One merge point of the report.
#[derive(Debug, Serialize)]
pub struct Point {
    name: String,
    n_features: usize,
    n_groups: usize,
    /// How many groups there are of each size.
    group_sizes: BTreeMap<usize, usize>,
    #[serde(flatten)]
    summary: PointSummary,
    /// E‖xⁱ − Uᵢ M z‖² / E‖xⁱ‖² of each model.
    lost_per_model: Vec<f64>,
    /// In the order in which they were made; empty where a method has no groups.
    merges: Vec<Merge>,
}

impl Point {
    pub fn new(solved: &Solved, moments: &Moments, n_models: usize) -> Self {
        let plan = &solved.plan;
        let mut sizes: BTreeMap<u32, usize> = BTreeMap::new();
        for &group in &plan.assignment {
            *sizes.entry(group).or_default() += 1;
        }
        let mut group_sizes: BTreeMap<usize, usize> = BTreeMap::new();
        for size in sizes.into_values() {
            *group_sizes.entry(size).or_default() += 1;
        }
        let second_moment = moments.second_moment();
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
            merges: solved.matching.as_ref().map(|m| replay(m, moments)).unwrap_or_default(),
        }
    }
}

/// Writes the report, whole or not at all.
///
/// # Errors
/// Moments that cannot be read, or a file that cannot be written.
pub fn write(path: &Path, problem: &Problem<'_>, settings: &PlanSettings, solved: &[Solved]) -> anyhow::Result<()> {
    let mut points = Vec::with_capacity(solved.len());
    for (p, solved) in solved.iter().enumerate() {
        let moments = problem.read(&[p])?.remove(0);
        points.push(Point::new(solved, &moments, problem.n_models));
    }
    let report = serde_json::json!({ "settings": settings, "points": points });
    let text = serde_json::to_string_pretty(&report)? + "\n";
    Ok(atomic::write(path, |file| file.write_all(text.as_bytes()))?)
}
