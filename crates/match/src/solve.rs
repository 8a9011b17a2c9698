//! From moments to maps, merge point by merge point.

use crate::widths::Override;
use anyhow::{Context, ensure};
use rayon::prelude::*;
use zipit::graph::MergePoint;
use zipit::matching::{Matching, Method, cca, match_features, mudsc, weight};
use zipit::plan::{PlanSettings, PointPlan};
use zipit::watch::Watch;
use zipit::{Model, Moments};
use zipit_artifact::stats::StatsReader;
use zipit_stage::Progress;

/// What is to be matched.
pub struct Problem<'a> {
    pub stats: &'a StatsReader,
    pub points: &'a [MergePoint],
    pub n_models: usize,
    /// For the methods that compare weights.
    pub models: Vec<Model>,
    /// Of each point.
    pub overrides: Vec<Override>,
}

/// A merge point's maps, and the groups they come from where there are groups.
pub struct Solved {
    pub plan: PointPlan,
    pub matching: Option<Matching>,
}

impl Problem<'_> {
    /// Solves every point with d' of `n_groups`. Reads as many points at a time as there are threads (the file format
    /// allows one reader), largest ones being few.
    ///
    /// # Errors
    /// What the method or the moments refuse, or an interruption.
    pub fn solve(
        &self,
        settings: &PlanSettings,
        n_groups: &[usize],
        progress: &Progress,
    ) -> anyhow::Result<Vec<Solved>> {
        let matchings = self.by_weights(settings, n_groups)?;
        let jobs: Vec<usize> = (0..self.points.len()).collect();
        let mut solved = Vec::with_capacity(jobs.len());
        for chunk in jobs.chunks(rayon::current_num_threads()) {
            ensure!(!progress.interrupted(), "interrupted, nothing was written");
            let moments = self.read(chunk)?;
            let one = |(&p, moments): (&usize, Moments)| {
                let found = self.at(settings, p, n_groups[p], &moments, matchings.as_ref().map(|m| &m[p]));
                progress.advance(1);
                found.with_context(|| format!("`{}`", self.points[p].name))
            };
            solved.extend(chunk.par_iter().zip(moments).map(one).collect::<anyhow::Result<Vec<_>>>()?);
        }
        Ok(solved)
    }

    /// Moments of some points.
    pub fn read(&self, points: &[usize]) -> anyhow::Result<Vec<Moments>> {
        points.iter().map(|&p| Ok(self.stats.moments(&self.points[p].name)?)).collect()
    }

    /// One point's maps.
    pub fn at(
        &self,
        settings: &PlanSettings,
        p: usize,
        n_groups: usize,
        moments: &Moments,
        given: Option<&Matching>,
    ) -> anyhow::Result<Solved> {
        let (point, n) = (&self.points[p], self.n_models);
        if let Method::Cca { gamma } = settings.method {
            ensure!(n_groups == point.dim, "cca always keeps d = {} features", point.dim);
            let maps = cca::cca(moments, n, gamma)?;
            let plan = PointPlan::from_maps(&point.name, &maps.merge, &maps.unmerge, moments, n, &settings.unmerge)?;
            return Ok(Solved { plan, matching: None });
        }
        let matching = match given {
            Some(matching) => matching.clone(),
            None => match_features(&self.overrides[p].method(settings.method), moments, n, n_groups)?,
        };
        let plan = PointPlan::new(&point.name, &matching, moments, n, &settings.unmerge)?;
        Ok(Solved { plan, matching: Some(matching) })
    }

    /// The matchings of methods that look at all points together.
    fn by_weights(&self, settings: &PlanSettings, n_groups: &[usize]) -> anyhow::Result<Option<Vec<Matching>>> {
        let models: Vec<&Model> = self.models.iter().collect();
        Ok(match settings.method {
            Method::Weight { seed } => {
                let own = self.points.iter().zip(n_groups).all(|(p, &n)| p.dim == n);
                ensure!(own, "weight matching always keeps d features");
                Some(weight::weight_matching(&models, self.points, seed)?)
            }
            Method::Mudsc { rho, solver, seed } => {
                let all: Vec<usize> = (0..self.points.len()).collect();
                let moments = self.read(&all)?;
                let moments: Vec<&Moments> = moments.iter().collect();
                Some(mudsc::mudsc(&models, self.points, &moments, rho, solver, n_groups, seed)?)
            }
            _ => None,
        })
    }
}

impl Override {
    /// The method with this point's own α and β.
    pub fn method(self, method: Method) -> Method {
        match method {
            Method::Zip { alpha, beta } => {
                Method::Zip { alpha: self.alpha.unwrap_or(alpha), beta: self.beta.unwrap_or(beta) }
            }
            other => other,
        }
    }
}
