//! From moments to maps, merge point by merge point.

use crate::widths::Override;
use anyhow::{Context, ensure};
use rayon::prelude::*;
use std::collections::BTreeMap;
use zipit::graph::MergePoint;
use zipit::matching::blocks::{Member, match_blocks};
use zipit::matching::{Matching, Method, cca, match_watched, mudsc, weight};
use zipit::plan::{PlanSettings, PointNature, PointPlan};
use zipit::unmerge::UnmergeRule;
use zipit::watch::Watch;
use zipit::{Constants, Importance, Model, Moments, Observed};
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

/// What a method says of a merge point's features.
pub enum Aligned {
    /// Which ones are one.
    Groups(Matching),
    /// Linear maps.
    Mixed(cca::DenseMaps),
}

/// What was measured at a merge point.
pub struct Measured {
    pub moments: Moments,
    pub constants: Constants,
    /// Where the method asks for it.
    pub importance: Option<Importance>,
}

impl<'a> From<&'a Measured> for Observed<'a> {
    fn from(Measured { moments, constants, importance }: &'a Measured) -> Self {
        Self { importance: importance.as_ref(), ..(moments, constants).into() }
    }
}

/// # Errors
/// The user's interruption.
pub fn unless_interrupted(progress: &Progress) -> anyhow::Result<()> {
    ensure!(!progress.interrupted(), "interrupted, nothing was written");
    Ok(())
}

/// A merge point's maps, and the groups they come from where there are groups.
pub struct Solved {
    pub plan: PointPlan,
    pub matching: Option<Matching>,
}

impl Problem<'_> {
    /// Leaves out all points but the first ones.
    pub fn end_after(&mut self, n_points: usize) {
        self.points = &self.points[..n_points];
    }

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
        let together = self.together(settings.method, n_groups)?;
        let jobs: Vec<usize> = (0..self.points.len()).collect();
        let mut solved = Vec::with_capacity(jobs.len());
        for chunk in jobs.chunks(rayon::current_num_threads()) {
            unless_interrupted(progress)?;
            let measured = self.read(settings.method, chunk.iter().copied())?;
            let one = |(&p, measured): (&usize, Measured)| {
                let found = self.at(settings, p, n_groups[p], &measured, together[p].as_ref(), progress);
                progress.advance(1);
                found.with_context(|| format!("`{}`", self.points[p].name))
            };
            let found = chunk.par_iter().zip(measured).map(one).collect::<anyhow::Result<Vec<_>>>();
            unless_interrupted(progress)?;
            solved.extend(found?);
        }
        Ok(solved)
    }

    fn read(&self, method: Method, points: impl Iterator<Item = usize>) -> anyhow::Result<Vec<Measured>> {
        points.map(|p| self.measured(method, p)).collect()
    }

    /// What was measured at the p-th point, as the method takes it: plain averaging weighs constants like anything else.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn measured(&self, method: Method, p: usize) -> anyhow::Result<Measured> {
        let name = &self.points[p].name;
        let moments = self.stats.moments(name)?;
        let constants = self.stats.constants(name, &moments)?;
        let constants = if method == Method::Identity { constants.weighed() } else { constants };
        let importance = if method.weighs() { self.stats.importance(name)? } else { None };
        let importance = importance.map(|found| found.steadied(self.stats.header().n_images));
        Ok(Measured { moments, constants, importance })
    }

    /// One point's maps.
    ///
    /// # Errors
    /// What the method or the moments refuse.
    pub fn at(
        &self,
        settings: &PlanSettings,
        p: usize,
        n_groups: usize,
        measured: &Measured,
        together: Option<&Matching>,
        watch: &dyn Watch,
    ) -> anyhow::Result<Solved> {
        let features = self.align(settings.method, p, n_groups, measured, together, watch)?;
        let plan = self.maps(&features, p, measured, &settings.unmerge)?;
        let matching = match features {
            Aligned::Groups(matching) => Some(matching),
            Aligned::Mixed(_) => None,
        };
        Ok(Solved { plan, matching })
    }

    /// What the method says of one point, unless it has said so for all points `together`.
    ///
    /// # Errors
    /// What the method refuses.
    pub fn align(
        &self,
        method: Method,
        p: usize,
        n_groups: usize,
        measured: &Measured,
        together: Option<&Matching>,
        watch: &dyn Watch,
    ) -> anyhow::Result<Aligned> {
        if let Method::Cca { gamma } = method {
            let d = self.points[p].dim;
            ensure!(n_groups == d, "cca always keeps d = {d} features");
            return Ok(Aligned::Mixed(cca::cca(measured, self.n_models, gamma)?));
        }
        Ok(Aligned::Groups(match together {
            Some(matching) => matching.clone(),
            None => match_watched(&self.overrides[p].method(method), measured, self.n_models, n_groups, watch)?,
        }))
    }

    /// The maps that follow.
    ///
    /// # Errors
    /// What the unmerge rule refuses.
    pub fn maps(
        &self,
        features: &Aligned,
        p: usize,
        measured: &Measured,
        rule: &UnmergeRule,
    ) -> anyhow::Result<PointPlan> {
        let (name, n) = (&self.points[p].name, self.n_models);
        Ok(match features {
            Aligned::Groups(matching) => {
                let own = matching.weights.as_ref().map(|own| own.iter().map(|&x| f64::from(x)).collect());
                let weights = own.or_else(|| measured.importance.as_ref().map(Importance::weights));
                let nature = PointNature::from(&self.points[p]);
                PointPlan::weighted(name, matching, weights.as_deref(), measured, n, rule, nature)?
            }
            Aligned::Mixed(maps) => PointPlan::from_maps(name, &maps.merge, &maps.unmerge, measured, n, rule)?,
        })
    }

    /// The matchings of points that are not matched one by one: all of them, where the method looks at all together, and
    /// those whose features stand in blocks.
    ///
    /// # Errors
    /// What the method refuses.
    pub fn together(&self, method: Method, n_groups: &[usize]) -> anyhow::Result<Vec<Option<Matching>>> {
        let all = self.all_together(method, n_groups)?;
        match all {
            Some(all) => Ok(all.into_iter().map(Some).collect()),
            None => self.families(method),
        }
    }

    /// The matchings of the points whose features stand in blocks, which are matched family by family.
    ///
    /// # Errors
    /// What the method refuses.
    pub fn families(&self, method: Method) -> anyhow::Result<Vec<Option<Matching>>> {
        let mut families: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (p, point) in self.points.iter().enumerate() {
            if let Some(blocks) = point.blocks {
                families.entry(blocks.family).or_default().push(p);
            }
        }
        let mut matchings = vec![None; self.points.len()];
        for points in families.into_values() {
            let name = &self.points[points[0]].name;
            let measured = self.read(method, points.iter().copied())?;
            let members: Vec<Member<'_>> = points
                .iter()
                .zip(&measured)
                .filter_map(|(&p, of)| Some(Member { observed: of.into(), blocks: self.points[p].blocks? }))
                .collect();
            let method = self.overrides[points[0]].method(method);
            let found = match_blocks(&method, &members, self.n_models).with_context(|| format!("`{name}`"))?;
            points.into_iter().zip(found).for_each(|(p, matching)| matchings[p] = Some(matching));
        }
        Ok(matchings)
    }

    fn all_together(&self, method: Method, n_groups: &[usize]) -> anyhow::Result<Option<Vec<Matching>>> {
        let models: Vec<&Model> = self.models.iter().collect();
        Ok(match method {
            Method::Weight { seed } => {
                let own = self.points.iter().zip(n_groups).all(|(p, &n)| p.dim == n);
                ensure!(own, "weight matching always keeps d features");
                Some(weight::weight_matching(&models, self.points, seed)?)
            }
            Method::Mudsc { rho, solver, seed } => {
                let measured = self.read(method, 0..self.points.len())?;
                let measured: Vec<&Measured> = measured.iter().collect();
                Some(mudsc::mudsc(&models, self.points, &measured, rho, solver, n_groups, seed)?)
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
