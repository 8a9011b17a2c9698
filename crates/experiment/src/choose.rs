//! What is chosen on validation images, read off their reports.

use crate::layout::Split;
use crate::sets::MergeSet;
use crate::spec::{Case, Experiment, Grid};
use crate::variant::Variant;
use crate::{Error, Result};
use zipit::report::{Report, RowKind};
use zipit_artifact::report;

/// A variant and how good it is on validation images.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// Which.
    pub variant: Variant,
    /// Mean of the merge sets' task averages, in 0…1.
    pub task_avg: f64,
}

/// A choice that was made.
#[derive(Debug, Clone, PartialEq)]
pub struct Choice {
    /// What it is called in the table.
    pub name: String,
    /// All that was tried, in the order of the grid.
    pub candidates: Vec<Candidate>,
    /// On so many merge sets.
    pub n_sets: usize,
}

impl Choice {
    /// The best; the first of equals.
    ///
    /// # Panics
    /// Never: a grid has at least one variant.
    #[must_use]
    pub fn best(&self) -> &Variant {
        let mut best = &self.candidates[0];
        for candidate in &self.candidates[1..] {
            if candidate.task_avg > best.task_avg {
                best = candidate;
            }
        }
        &best.variant
    }
}

/// The merge sets that a choice is made on.
pub(crate) fn sets_for<'a>(grid: &Grid, sets: &'a [MergeSet]) -> &'a [MergeSet] {
    &sets[..grid.choose_on.map_or(sets.len(), |n| n.min(sets.len()))]
}

/// A row of the table.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// What it is called.
    pub name: String,
    /// How it is made.
    pub variant: Variant,
}

impl Experiment {
    /// The rows of a case in the order written, choices made.
    ///
    /// # Errors
    /// As [`Self::choose`].
    pub fn table(&self, case: &Case) -> Result<Vec<Row>> {
        let choices = self.choose(case)?;
        let best = |name: &str| choices.iter().find(|choice| choice.name == name).map(Choice::best);
        let mut rows: Vec<Row> = Vec::new();
        for grid in self.rows.iter().filter(|grid| grid.is_of(&case.name)) {
            let found: Vec<Row> = if let Some(name) = &grid.choose {
                best(name)
                    .map(|best| Row { name: format!("{name}: {best}"), variant: best.clone() })
                    .into_iter()
                    .collect()
            } else {
                let variants = match &grid.like {
                    Some(like) => {
                        grid.with_methods(&best(like).map(|best| best.method.clone()).into_iter().collect::<Vec<_>>())
                    }
                    None => grid.variants(),
                };
                variants.into_iter().map(|variant| Row { name: variant.to_string(), variant }).collect()
            };
            rows.extend(found);
        }
        Ok(rows)
    }

    /// The grids of a case that something is chosen of, with the choices' names.
    pub(crate) fn choices<'a>(&'a self, case: &'a str) -> impl Iterator<Item = (&'a str, &'a Grid)> + 'a {
        self.rows.iter().filter(move |grid| grid.is_of(case)).filter_map(|grid| Some((grid.choose.as_deref()?, grid)))
    }

    /// Every choice of a case.
    ///
    /// # Errors
    /// A validation report that is missing or cannot be read.
    pub fn choose(&self, case: &Case) -> Result<Vec<Choice>> {
        let sets = self.sets(case);
        self.choices(&case.name)
            .map(|(name, grid)| {
                let sets = sets_for(grid, &sets);
                let candidates = grid
                    .variants()
                    .into_iter()
                    .map(|variant| {
                        let mut sum = 0.0;
                        for set in sets {
                            sum += self.validated(name, set, &variant)?;
                        }
                        Ok(Candidate { variant, task_avg: sum / sets.len() as f64 })
                    })
                    .collect::<Result<_>>()?;
                Ok(Choice { name: name.to_owned(), candidates, n_sets: sets.len() })
            })
            .collect()
    }

    fn validated(&self, choice: &str, set: &MergeSet, variant: &Variant) -> Result<f64> {
        let path = self.files(set, variant).report(Split::Val);
        if !path.exists() {
            return Err(Error::NotMeasured { choice: choice.to_owned(), path });
        }
        let report = report::read::<Report>(&path)?;
        let merged = report.content.rows.iter().find(|row| row.kind == RowKind::Merged);
        merged.map(|row| row.scores.task_avg).ok_or_else(|| Error::invalid(&path, "it is about no merged network"))
    }
}
