//! What is known without running anything.

use serde::Serialize;
use zipit::apply::{Heads, apply, check_mergeable, check_trunks};
use zipit::graph::{Cost, Graph};
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
        if let Err(error) = Prospects::of(&model.graph, models.len()) {
            answers.differences.push(format!("model {}: {error}", i + 1));
            answers.advice = Some("what a merge does to every op, and what it cannot: docs/ops.md");
        }
    }
    if answers.mergeable() {
        (answers.differences, answers.advice) = differences(&models);
    }
    if answers.mergeable() {
        let prospects = Prospects::of(graph, models.len())?;
        if prospects.n_spaces == 0 {
            let why = if prospects.apart.is_empty() {
                "every one is the input's or an output's, or every model's own"
            } else {
                "beside the nodes that are carried, merging costs more than it saves (`match --merge-only` would merge all the same)"
            };
            answers.differences.push(format!("no feature space that could be merged: {why}"));
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

/// What the other models have otherwise than the first, in the order in which an image meets it, and what to do about the
/// first difference.
fn differences(models: &[&Model]) -> (Vec<String>, Option<&'static str>) {
    let first = models[0];
    let mut found = Vec::new();
    let mut advice = None;
    for (i, model) in models.iter().enumerate().skip(1) {
        let fields = model.preprocess.differences(&first.preprocess);
        if !fields.is_empty() {
            advice.get_or_insert(
                "if both were trained on the same kind of image, import or export one again with the other's \
                 preprocessing; if not, train one on the other's kind",
            );
        }
        found.extend(fields.into_iter().map(|(field, own, theirs)| {
            format!("model {}: `{field}` of the preprocessing is {own}, model 1's is {theirs}", i + 1)
        }));
        match check_trunks(&[&first.graph, &model.graph]) {
            Ok(()) => {}
            Err(Error::Mismatch(differences)) => {
                // Other preprocessing alone would not help.
                advice = Some(about(&first.graph, &model.graph));
                // Said of the second of two.
                let renumbered = |what: String| match what.strip_prefix("model 2: ") {
                    Some(what) => format!("model {}: {what}", i + 1),
                    None => what,
                };
                found.extend(differences.into_iter().map(renumbered));
            }
            Err(other) => found.push(other.to_string()),
        }
    }
    // Whatever else keeps them apart.
    if found.is_empty()
        && let Err(other) = check_mergeable(models)
    {
        found.push(other.to_string());
    }
    (found, advice)
}

/// What to do where graphs differ.
fn about(first: &Graph, other: &Graph) -> &'static str {
    if first.input != other.input {
        return "both must see images of one size and number of channels: export one again for the other's, or train one \
                so";
    }
    let differing = first.nodes.iter().find(|node| other.node(&node.name) != Some(node));
    match differing.and_then(|node| Some((node, other.node(&node.name)?))) {
        Some((node, own)) if node.op.kind() == own.op.kind() && node.inputs == own.inputs => {
            "the same layer in another size: take networks of one width and one kind of layer"
        }
        _ => "another architecture: networks are merged layer by layer, so take two of one architecture and depth",
    }
}
