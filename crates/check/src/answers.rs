//! What is known without running anything.

use serde::Serialize;
use zipit::apply::{Heads, apply, check_mergeable};
use zipit::graph::Cost;
use zipit::kinship::{Pair, classes_in_common, pairs};
use zipit::prospects::{Dead, Prospects, Stop, dead, stops};
use zipit::{Error, Model, Task};
use zipit_artifact::model::ModelFile;

/// Rows of the table of partial merges, the full one among them.
const STOPS: usize = 8;

/// Everything that the page says but for memory and time.
#[derive(Debug, Serialize)]
pub struct Answers<'a> {
    pub models: Vec<String>,
    pub arch: &'a str,
    /// What keeps them from being merged, the first in the order of the forward pass first; empty where they can be.
    pub differences: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<&'static str>,
    pub pairs: Vec<Pair>,
    pub tasks: Vec<&'a [Task]>,
    pub classes_in_common: Vec<&'a str>,
    /// Why the heads cannot become one; `None` where they can.
    pub one_head: Option<String>,
    /// Weights that do nothing, of each model.
    pub dead: Vec<Dead>,
    /// What one model costs.
    pub one: Cost,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prospects: Option<Prospects>,
    pub stops: Vec<Stop>,
}

impl Answers<'_> {
    pub fn mergeable(&self) -> bool {
        self.differences.is_empty()
    }
}

pub fn of(files: &[ModelFile]) -> anyhow::Result<Answers<'_>> {
    let models: Vec<&Model> = files.iter().map(|file| &file.model).collect();
    let graph = &models[0].graph;
    let mut answers = Answers {
        models: files.iter().map(|file| file.path.display().to_string()).collect(),
        arch: &graph.arch,
        differences: vec![],
        advice: None,
        pairs: pairs(&models),
        tasks: files.iter().map(|file| &file.model.tasks[..]).collect(),
        classes_in_common: classes_in_common(&models).into_keys().collect(),
        one_head: None,
        dead: models.iter().map(|model| dead(model)).collect(),
        one: graph.cost()?,
        prospects: None,
        stops: vec![],
    };
    // Every graph must be one that can be analysed, and only then do they have to be alike.
    for (i, model) in models.iter().enumerate() {
        if let Err(error) = Prospects::of(&model.graph) {
            answers.differences.push(format!("model {}: {error}", i + 1));
            answers.advice = Some("what a merge does to every op, and what it cannot: docs/ops.md");
        }
    }
    if answers.mergeable() {
        answers.differences = match check_mergeable(&models) {
            Ok(()) => vec![],
            Err(Error::Mismatch(differences)) => differences,
            Err(other) => vec![other.to_string()],
        };
    }
    if answers.mergeable() {
        let prospects = Prospects::of(graph)?;
        if prospects.n_spaces == 0 {
            answers
                .differences
                .push("no feature space that could be merged: every one is the input's or an output's".to_owned());
        }
        answers.prospects = Some(prospects);
    }
    if answers.mergeable() {
        let none = zipit::prospects::identity(&[], models.len());
        answers.one_head = apply(&models, &none, Heads::Merge).err().map(|error| error.to_string());
        answers.stops = stops(&models, STOPS)?;
    }
    Ok(answers)
}
