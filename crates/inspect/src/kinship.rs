//! Whether models can be merged: architecture, preprocessing, classes, and whether they share an initialisation.

use serde::Serialize;
use std::collections::BTreeMap;
use zipit::apply::check_mergeable;
use zipit::kinship;
use zipit::{Error, Model};
use zipit_artifact::model::ModelFile;
use zipit_stage::{Format, Table};

#[derive(Debug, Serialize)]
struct Kinship<'a> {
    mergeable: bool,
    differences: Vec<String>,
    overlapping_classes: BTreeMap<&'a str, Vec<usize>>,
    pairs: Vec<Pair>,
}

#[derive(Debug, Serialize)]
struct Pair {
    models: [String; 2],
    weight_cosine: Option<f64>,
    shared_initialisation: bool,
}

/// The comparison as text, and whether the models can be merged.
pub fn compare(files: &[ModelFile], format: Format) -> anyhow::Result<(String, bool)> {
    let models: Vec<&Model> = files.iter().map(|f| &f.model).collect();
    let differences = match check_mergeable(&models) {
        Ok(()) => vec![],
        Err(Error::Mismatch(differences)) => differences,
        Err(other) => vec![other.to_string()],
    };
    let pair = |found: kinship::Pair| Pair {
        models: found.models.map(|i| files[i].path.display().to_string()),
        weight_cosine: found.weight_cosine,
        shared_initialisation: found.shared_initialisation,
    };
    let kinship = Kinship {
        mergeable: differences.is_empty(),
        differences,
        overlapping_classes: kinship::classes_in_common(&models),
        pairs: kinship::pairs(&models).into_iter().map(pair).collect(),
    };
    let mut table = Table::new(["question", "answer"]);
    table.row(["can be merged", if kinship.mergeable { "yes" } else { "no" }]);
    for difference in &kinship.differences {
        table.row(["", difference]);
    }
    let overlap: Vec<_> = kinship.overlapping_classes.keys().copied().collect();
    table.row(["classes in common", &if overlap.is_empty() { "none".to_owned() } else { overlap.join(", ") }]);
    for pair in &kinship.pairs {
        let [a, b] = &pair.models;
        let cosine = pair.weight_cosine.map_or_else(|| "no common layers".to_owned(), |c| format!("cosine {c:.3}"));
        let verdict = if pair.shared_initialisation {
            "yes: weight averaging (--method identity) may do well"
        } else {
            "no: match features before merging"
        };
        table.row([format!("{a} and {b} share an initialisation"), format!("{verdict} ({cosine})")]);
    }
    Ok((table.render(format, &kinship)?, kinship.mergeable))
}
