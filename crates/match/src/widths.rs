//! How many features each merge point keeps: d, `--keep`, or a file with a line per point.

use crate::solve::{Measured, Problem, unless_interrupted};
use anyhow::{Context, ensure};
use clap::Args;
use rayon::prelude::*;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use zipit::Importance;
use zipit::budget::{Choice, MacModel, allocate, widths};
use zipit::graph::MergePoint;
use zipit::matching::{Method, losses};
use zipit::plan::PlanSettings;
use zipit::watch::Watch;
use zipit_stage::Stage;

/// How many features are kept.
#[derive(Debug, Args)]
pub struct WidthArgs {
    /// Share of the features left unmerged: d' = d·(1 + R); above -1, at most N − 1 [default: 0, one network's width]
    #[arg(long, value_name = "R", allow_negative_numbers = true)]
    pub keep: Option<f64>,
    /// FLOPs relative to one model, above 0, at most N: the widths are chosen from the statistics, most energy kept per
    /// FLOP, and so is the end of the trunk, unless it is given
    #[arg(long, value_name = "B", conflicts_with = "keep")]
    pub budget: Option<f64>,
    /// A TOML file: keep, alpha, beta for all points, and per point under [points."NAME"], also groups = d'
    #[arg(long, value_name = "TOML")]
    pub points: Option<PathBuf>,
}

impl WidthArgs {
    /// d' of every point, or of the first ones, where a budget may end the trunk (`ends_anywhere`).
    ///
    /// # Errors
    /// Shares or budgets out of range; what solving refuses.
    pub fn n_groups(
        &self,
        problem: &Problem<'_>,
        settings: &PlanSettings,
        ends_anywhere: bool,
        stage: &Stage,
    ) -> anyhow::Result<Vec<usize>> {
        if let Some(budget) = self.budget {
            return within_budget(problem, settings, budget, ends_anywhere, stage);
        }
        let all = problem.points.iter().zip(&problem.overrides);
        all.map(|(p, &own)| n_groups(p, problem.n_models, own, self.keep)).collect()
    }
}

/// The widths that fit into `budget` times one network's multiply-adds, by what the settings' own matching does to the
/// logits, where that is known, or else by what its unmerge does not bring back.
///
/// # Errors
/// A budget that cannot be met; what solving refuses.
fn within_budget(
    problem: &Problem<'_>,
    settings: &PlanSettings,
    budget: f64,
    ends_anywhere: bool,
    stage: &Stage,
) -> anyhow::Result<Vec<usize>> {
    let n = problem.n_models;
    ensure!(
        budget > 0.0 && budget <= n as f64,
        "the budget is {budget}; it must lie above 0 and at most {n}, the FLOPs of the networks side by side"
    );
    let header = problem.stats.header();
    let spaces = header.graph.spaces()?;
    let model = MacModel::new(&header.graph, &spaces, &header.others, n)?;
    let progress = stage.progress("budget", "points", problem.points.len() as u64);
    let mut choices: Vec<Vec<Choice>> = Vec::with_capacity(problem.points.len());
    let blocks = problem.families(settings.method)?;
    for (p, point) in problem.points.iter().enumerate() {
        unless_interrupted(&progress)?;
        let measured = problem.measured(settings.method, p)?;
        // Blocks keep their number and width.
        let widths = if point.blocks.is_some() { vec![point.dim] } else { widths(point.dim, n) };
        choices.push(if settings.method.weighs() {
            let at_all_positions = |found: Importance| found.at_all_positions(header.n_images);
            let measured = Measured { importance: measured.importance.map(at_all_positions), ..measured };
            let losses = losses(&settings.method, &measured, n, &progress);
            unless_interrupted(&progress)?;
            let losses = losses.with_context(|| format!("`{}`", point.name))?;
            widths.into_iter().map(|n_groups| Choice { n_groups, loss: losses[n_groups - 1] }).collect()
        } else {
            let at = |n_groups: usize| -> anyhow::Result<Choice> {
                let solved = problem.at(settings, p, n_groups, &measured, blocks[p].as_ref(), &progress)?;
                let loss = model.energy_loss(point.space, solved.plan.summary.reconstruction_error);
                Ok(Choice { n_groups, loss })
            };
            widths.into_par_iter().map(at).collect::<anyhow::Result<_>>()?
        });
        progress.advance(1);
    }
    let found = allocate(&model, &spaces, problem.points, &choices, budget, ends_anywhere)?;
    tracing::info!("the widths take {:.3} times the FLOPs of one network", found.macs as f64 / model.one() as f64);
    Ok(found.choices.iter().map(|choice| choice.n_groups).collect())
}

/// What a points file says, for all points and for some by name.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PointsFile {
    keep: Option<f64>,
    alpha: Option<f32>,
    beta: Option<f32>,
    #[serde(default)]
    points: BTreeMap<String, Override>,
}

/// Settings of one point that win over the command line's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Override {
    /// Share of the features left unmerged: d' = d·(1 + keep).
    pub keep: Option<f64>,
    /// d' itself.
    pub groups: Option<usize>,
    /// zip's α.
    pub alpha: Option<f32>,
    /// zip's β.
    pub beta: Option<f32>,
}

/// Reads a points file and checks that it speaks of merge points.
///
/// # Errors
/// A file that cannot be read or understood, parameters that the method does not have, or names that are no merge points of these.
pub fn read(path: &Path, points: &[MergePoint], method: Method) -> anyhow::Result<PointsFile> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let file: PointsFile = toml::from_str(&text).with_context(|| format!("{} is no points file", path.display()))?;
    let zips = file.alpha.is_some()
        || file.beta.is_some()
        || file.points.values().any(|own| own.alpha.is_some() || own.beta.is_some());
    ensure!(
        !zips || matches!(method, Method::Zip { .. }),
        "{} gives alpha or beta, which belong to --method zip; this is {}",
        path.display(),
        method.name()
    );
    let unknown: Vec<&str> =
        file.points.keys().filter(|name| points.iter().all(|p| p.name != **name)).map(String::as_str).collect();
    ensure!(
        unknown.is_empty(),
        "{} names {}, which will not be merged; the merge points are {}",
        path.display(),
        unknown.join(", "),
        points.iter().map(|p| p.name.as_str()).collect::<Vec<_>>().join(", ")
    );
    Ok(file)
}

impl PointsFile {
    /// What holds at one point.
    pub fn at(&self, name: &str) -> Override {
        let own = self.points.get(name).copied().unwrap_or_default();
        // A point's own `groups` silences the file's `keep`.
        let sized = own.keep.is_some() || own.groups.is_some();
        Override {
            keep: own.keep.or(self.keep.filter(|_| !sized)),
            groups: own.groups,
            alpha: own.alpha.or(self.alpha),
            beta: own.beta.or(self.beta),
        }
    }
}

/// d' of a point of d features in each of N models.
///
/// # Errors
/// A share or a number out of range.
fn n_groups(point: &MergePoint, n_models: usize, own: Override, keep: Option<f64>) -> anyhow::Result<usize> {
    let joint = n_models * point.dim;
    if let Some(blocks) = point.blocks {
        ensure!(
            own.groups.is_none_or(|n| n == point.dim),
            "`{}` has its features in {} blocks, which keep their number: it always makes {} groups",
            point.name,
            blocks.count,
            point.dim
        );
        return Ok(point.dim);
    }
    if let Some(n) = own.groups {
        ensure!((1..=joint).contains(&n), "`{}`: groups = {n}; it may have 1 to {joint}", point.name);
        return Ok(n);
    }
    let Some(keep) = own.keep.or(keep) else { return Ok(point.dim) };
    let most = (n_models - 1) as f64;
    ensure!(
        keep > -1.0 && keep <= most,
        "keep is {keep}; it must lie above -1 (nothing left) and at most {most} (nothing merged), 0 being one network's \
         width"
    );
    Ok(((point.dim as f64 * (1.0 + keep)).round() as usize).clamp(1, joint))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use zipit::graph::Measured;

    fn point() -> MergePoint {
        let measured = Measured { value: "relu".into(), features: None };
        MergePoint {
            name: "relu".into(),
            measured,
            blocks: None,
            normalised: false,
            centred: false,
            compared: false,
            reads: vec![],
            space: 0,
            dim: 8,
            layers: 1,
        }
    }

    #[test]
    fn a_points_own_line_wins() {
        let file: PointsFile = toml::from_str("keep = 0.5\nalpha = 1\n[points.relu]\ngroups = 3\nbeta = 0").unwrap();
        let own = file.at("relu");
        assert_eq!(own, Override { keep: None, groups: Some(3), alpha: Some(1.0), beta: Some(0.0) });
        assert_eq!(n_groups(&point(), 2, own, Some(1.0)).unwrap(), 3);
        assert_eq!(n_groups(&point(), 2, file.at("other"), Some(1.0)).unwrap(), 12);
        assert!(toml::from_str::<PointsFile>("kepp = 0.5").is_err());
    }

    #[test]
    fn keep_is_a_share_of_d() {
        let n = |keep| n_groups(&point(), 2, Override::default(), keep);
        assert_eq!(
            [n(None), n(Some(0.0)), n(Some(0.25)), n(Some(1.0)), n(Some(-0.5))].map(Result::unwrap),
            [8, 8, 10, 16, 4]
        );
        for wrong in [-1.0, 1.5, f64::NAN] {
            assert!(n(Some(wrong)).unwrap_err().to_string().contains("keep is"));
        }
    }
}
