//! `--search`: settings ranked without labels, by the energy of the features that the unmerge does not bring back.

use crate::solve::{Problem, Solved};
use anyhow::{Context, ensure};
use serde::Serialize;
use std::path::Path;
use zipit::matching::Method;
use zipit::plan::PlanSettings;
use zipit::unmerge::UnmergeRule;
use zipit_artifact::stats::StatsReader;
use zipit_stage::{Stage, Table};

const ALPHAS: [f32; 6] = [0.01, 0.1, 0.3, 0.5, 0.7, 1.0];
const BETAS: [f32; 4] = [0.0, 0.15, 0.5, 1.0];
const RHOS: [f64; 5] = [0.0, 0.25, 0.5, 0.75, 1.0];
const RIDGES: [f64; 4] = [1e-4, 1e-3, 1e-2, 1e-1];

/// A setting and its score.
#[derive(Debug, Serialize)]
pub struct Ranked {
    pub settings: PlanSettings,
    /// Mean over merge points of E‖z − U M z‖² / E‖z‖².
    pub lost: f64,
}

/// The settings around `given`: the method's own parameters, and the ridge where there is one.
pub fn candidates(given: &PlanSettings) -> Vec<PlanSettings> {
    let methods: Vec<Method> = match given.method {
        Method::Zip { .. } => ALPHAS.iter().flat_map(|&alpha| BETAS.map(|beta| Method::Zip { alpha, beta })).collect(),
        Method::Mudsc { solver, seed, .. } => RHOS.iter().map(|&rho| Method::Mudsc { rho, solver, seed }).collect(),
        other => vec![other],
    };
    let rules: Vec<UnmergeRule> = match given.unmerge {
        UnmergeRule::Pinv => vec![UnmergeRule::Pinv],
        UnmergeRule::Covariance { .. } => RIDGES.iter().map(|&ridge| UnmergeRule::Covariance { ridge }).collect(),
    };
    methods.iter().flat_map(|&method| rules.iter().map(move |&unmerge| PlanSettings { method, unmerge })).collect()
}

/// Solves every candidate and scores it on `holdout` (else on the statistics it was made from); the best one's maps.
/// Ties go to the earlier candidate.
///
/// # Errors
/// What solving refuses; held-out statistics of other models or points.
pub fn search(
    problem: &Problem<'_>,
    given: &PlanSettings,
    n_groups: &[usize],
    holdout: Option<&StatsReader>,
    stage: &Stage,
) -> anyhow::Result<(PlanSettings, Vec<Solved>, Vec<Ranked>)> {
    let candidates = candidates(given);
    let progress = stage.progress("search", "points", (candidates.len() * problem.points.len()) as u64);
    let mut best: Option<(f64, PlanSettings, Vec<Solved>)> = None;
    let mut ranking = Vec::with_capacity(candidates.len());
    for settings in candidates {
        let solved = problem.solve(&settings, n_groups, &progress)?;
        let mut lost = 0.0;
        for solved in &solved {
            lost += match holdout {
                None => solved.plan.summary.reconstruction_error,
                Some(holdout) => {
                    let moments = holdout.moments(&solved.plan.name)?;
                    let second_moment = moments.second_moment();
                    let energy = second_moment.diag().sum();
                    if energy > 0.0 { solved.plan.lost_energy(&second_moment).sum() / energy } else { 0.0 }
                }
            };
        }
        lost /= problem.points.len() as f64;
        if best.as_ref().is_none_or(|(least, ..)| lost < *least) {
            best = Some((lost, settings.clone(), solved));
        }
        ranking.push(Ranked { settings, lost });
    }
    ranking.sort_by(|a, b| a.lost.total_cmp(&b.lost));
    let (_, settings, solved) = best.context("there is nothing to search among")?;
    Ok((settings, solved, ranking))
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
        "{} is the same file as {}: collect other images with another --seed or --split",
        path.display(),
        stats.path().display()
    );
    Ok(holdout)
}

/// The ranking, best first.
pub fn table(ranking: &[Ranked]) -> Table {
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
