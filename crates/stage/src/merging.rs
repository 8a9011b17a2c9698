//! What the stages that merge read: a plan and the models it is about.

use anyhow::bail;
use clap::{Args, ValueEnum};
use std::path::PathBuf;
use zipit::apply::Heads;
use zipit::joint::without_gate;
use zipit_artifact::model::{self, ModelFile};
use zipit_artifact::plan::{self as plan_file, PlanFile};

/// A plan, its models and what becomes of their heads.
#[derive(Debug, Args)]
pub struct MergeArgs {
    /// What to merge, from `match`
    pub plan: PathBuf,
    /// The models that were matched, in any order
    #[arg(required = true)]
    pub models: Vec<PathBuf>,
    /// Heads that all predict the same classes can be merged into one
    #[arg(long, value_enum, default_value_t = HeadsName::Separate)]
    heads: HeadsName,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum HeadsName {
    /// One output per task
    Separate,
    /// One output for all
    Merge,
}

/// Reads networks that are to be merged: a gate is about one network's features, so it is left behind.
///
/// # Errors
/// Files that cannot be read.
pub fn read_models(paths: &[PathBuf]) -> anyhow::Result<Vec<ModelFile>> {
    let read = |path: &PathBuf| -> anyhow::Result<ModelFile> {
        let mut file = model::read(path)?;
        if file.model.joint.is_some() {
            file.model = without_gate(&file.model);
        }
        Ok(file)
    };
    paths.iter().map(read).collect()
}

impl MergeArgs {
    /// The plan, and the models in its order.
    ///
    /// # Errors
    /// Files that cannot be read, models that the plan is not about, models that are missing.
    pub fn read(&self) -> anyhow::Result<(PlanFile, Vec<ModelFile>)> {
        let plan = plan_file::read(&self.plan)?;
        let files = read_models(&self.models)?;
        let files = self.in_plan_order(&plan, files)?;
        Ok((plan, files))
    }

    /// What becomes of the heads.
    #[must_use]
    pub fn heads(&self) -> Heads {
        match self.heads {
            HeadsName::Separate => Heads::Separate,
            HeadsName::Merge => Heads::Merge,
        }
    }

    /// The plan knows which models it is about, by content: they need not be given in its order.
    fn in_plan_order(&self, plan: &PlanFile, mut files: Vec<ModelFile>) -> anyhow::Result<Vec<ModelFile>> {
        let mut ordered = Vec::with_capacity(files.len());
        for wanted in &plan.models {
            let Some(at) = files.iter().position(|file| file.blake3 == wanted.blake3) else {
                let given: Vec<_> = self.models.iter().map(|p| p.display().to_string()).collect();
                bail!(
                    "{} was made for a model called {} with digest {}…, which none of the given files has ({}): give the \
                     files that were collected, or collect and match again",
                    self.plan.display(),
                    wanted.name,
                    wanted.blake3.get(..12).unwrap_or(&wanted.blake3),
                    given.join(", ")
                );
            };
            ordered.push(files.remove(at));
        }
        if let Some(extra) = files.first() {
            bail!(
                "{} is not one of the {} models that {} is about",
                extra.path.display(),
                ordered.len(),
                self.plan.display()
            );
        }
        Ok(ordered)
    }
}
