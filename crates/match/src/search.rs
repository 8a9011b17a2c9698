//! `--search`: settings ranked without labels, by the energy of the features that the unmerge does not bring back.

use crate::Args;
use crate::solve::{Problem, unless_interrupted};
use anyhow::{Context, ensure};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::path::Path;
use zipit::matching::{Matching, Method};
use zipit::plan::PlanSettings;
use zipit::unmerge::UnmergeRule;
use zipit::watch::Watch;
use zipit_artifact::stats::StatsReader;
use zipit_stage::provenance::may_share_images;
use zipit_stage::{Stage, Table};

const ALPHAS: [f32; 6] = [0.01, 0.1, 0.3, 0.5, 0.7, 1.0];
const BETAS: [f32; 4] = [0.0, 0.15, 0.5, 1.0];
const RHOS: [f64; 5] = [0.0, 0.25, 0.5, 0.75, 1.0];
const RIDGES: [f64; 4] = [1e-4, 1e-3, 1e-2, 1e-1];

/// A setting and its score.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ranked {
    pub settings: PlanSettings,
    /// Mean over merge points of E‖z − U M z‖² / E‖z‖².
    pub lost: f64,
}

/// The methods around the given one.
fn methods(given: Method) -> Vec<Method> {
    match given {
        Method::Zip { .. } => ALPHAS.iter().flat_map(|&alpha| BETAS.map(|beta| Method::Zip { alpha, beta })).collect(),
        Method::Mudsc { solver, seed, .. } => RHOS.iter().map(|&rho| Method::Mudsc { rho, solver, seed }).collect(),
        other => vec![other],
    }
}

/// The ridges, where there is one.
fn rules(given: UnmergeRule) -> Vec<UnmergeRule> {
    match given {
        UnmergeRule::Pinv => vec![UnmergeRule::Pinv],
        UnmergeRule::Covariance { .. } => RIDGES.iter().map(|&ridge| UnmergeRule::Covariance { ridge }).collect(),
    }
}

/// The best settings around the given ones, and the ranking, which is printed.
///
/// # Errors
/// As [`rank`].
pub fn best(
    args: &Args,
    problem: &Problem<'_>,
    settings: &PlanSettings,
    n_groups: &[usize],
    holdout: Option<&StatsReader>,
    stage: &Stage,
) -> anyhow::Result<(PlanSettings, Vec<Ranked>)> {
    if holdout.is_none() {
        tracing::warn!("ranked on the images that the maps were fitted to; --holdout ranks on others");
    }
    let ranking = rank(problem, settings, n_groups, holdout, stage)?;
    stage.print(&table(&ranking).render(args.format, &ranking)?)?;
    let best = ranking.first().context("there is nothing to search among")?;
    Ok((best.settings.clone(), ranking))
}

/// Scores every candidate on `holdout` (else on the statistics that its maps are fitted to); best first, ties in the
/// order of the candidates. A merge point's moments are read once, and matched once for all unmerge rules.
///
/// # Errors
/// What solving refuses; held-out statistics without a merge point; an interruption.
fn rank(
    problem: &Problem<'_>,
    given: &PlanSettings,
    n_groups: &[usize],
    holdout: Option<&StatsReader>,
    stage: &Stage,
) -> anyhow::Result<Vec<Ranked>> {
    let methods = methods(given.method);
    let rules = rules(given.unmerge);
    let together =
        methods.iter().map(|method| problem.together(*method, n_groups)).collect::<anyhow::Result<Vec<_>>>()?;
    let progress = stage.progress("search", "points", problem.points.len() as u64);
    let mut lost = vec![0.0; methods.len() * rules.len()];
    for p in 0..problem.points.len() {
        let measured = problem.measured(given.method, p)?;
        let unseen = match holdout {
            Some(holdout) => Some(holdout.moments(&problem.points[p].name)?.second_moment()),
            None => None,
        };
        let score = |(method, together): (&Method, &Vec<Option<Matching>>)| -> anyhow::Result<Vec<f64>> {
            unless_interrupted(&progress)?;
            let features = problem.align(*method, p, n_groups[p], &measured, together[p].as_ref(), &progress)?;
            let lost = |rule: &UnmergeRule| -> anyhow::Result<f64> {
                let plan = problem.maps(&features, p, &measured, rule)?;
                Ok(unseen.as_ref().map_or(plan.summary.reconstruction_error, |g| plan.lost_share(g)))
            };
            rules.iter().map(lost).collect()
        };
        let found = methods.par_iter().zip(&together).map(score).collect::<anyhow::Result<Vec<_>>>();
        unless_interrupted(&progress)?;
        let found = found.with_context(|| format!("`{}`", problem.points[p].name))?;
        lost.iter_mut().zip(found.concat()).for_each(|(sum, lost)| *sum += lost);
        progress.advance(1);
    }
    let settings =
        methods.iter().flat_map(|&method| rules.iter().map(move |&unmerge| PlanSettings { method, unmerge }));
    let n_points = problem.points.len().max(1) as f64;
    let mut ranking: Vec<Ranked> =
        settings.zip(lost).map(|(settings, sum)| Ranked { settings, lost: sum / n_points }).collect();
    ranking.sort_by(|a, b| a.lost.total_cmp(&b.lost));
    Ok(ranking)
}

/// Opens held-out statistics and checks that they are of the same models.
///
/// # Errors
/// A file that cannot be used, of other models, or the same images once more.
pub fn open_holdout(path: &Path, stats: &StatsReader) -> anyhow::Result<StatsReader> {
    let holdout = StatsReader::open(path)?;
    let digests =
        |reader: &StatsReader| -> Vec<String> { reader.header().models.iter().map(|m| m.blake3.clone()).collect() };
    ensure!(
        digests(&holdout) == digests(stats),
        "{} was measured on other models than {}",
        path.display(),
        stats.path().display()
    );
    ensure!(
        holdout.blake3() != stats.blake3(),
        "{} is the same file as {}: collect other images with another --split",
        path.display(),
        stats.path().display()
    );
    if may_share_images(&holdout.header().provenance, &stats.header().provenance) {
        tracing::warn!(
            "{} was measured on the same split of the same data as {}: images of both judge too kindly; collect one of \
             them with another --split",
            path.display(),
            stats.path().display()
        );
    }
    Ok(holdout)
}

/// The ranking, best first.
fn table(ranking: &[Ranked]) -> Table {
    let mut table = Table::new(["rank", "setting", "lost"]);
    for (at, ranked) in ranking.iter().enumerate() {
        table.row([(at + 1).to_string(), describe(&ranked.settings), format!("{:.3} %", 100.0 * ranked.lost)]);
    }
    table
}

fn describe(settings: &PlanSettings) -> String {
    let method = match settings.method {
        Method::Zip { alpha, beta } => format!("zip alpha {alpha} beta {beta}"),
        Method::Mudsc { rho, .. } => format!("mudsc rho {rho}"),
        other => other.name().to_owned(),
    };
    match settings.unmerge {
        UnmergeRule::Pinv => format!("{method} pinv"),
        UnmergeRule::Covariance { ridge } => format!("{method} covariance ridge {ridge}"),
    }
}
