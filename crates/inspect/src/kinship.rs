//! Whether models can be merged: architecture, preprocessing, classes, and whether they share an initialisation.

use serde::Serialize;
use std::collections::BTreeMap;
use zipit::apply::check_mergeable;
use zipit::{Error, Model};
use zipit_artifact::model::ModelFile;
use zipit_stage::{Format, Table};

/// Above this cosine two networks' weights cannot be independent: at the sizes of real layers independent ones stay
/// within a few hundredths of zero.
const RELATED: f64 = 0.2;

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
    let mut owners: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (i, model) in models.iter().enumerate() {
        for class in model.tasks.iter().flat_map(|t| &t.classes) {
            let of = owners.entry(class).or_default();
            if of.last() != Some(&i) {
                of.push(i);
            }
        }
    }
    owners.retain(|_, of| of.len() > 1);
    let mut pairs = Vec::new();
    for (i, a) in files.iter().enumerate() {
        for b in &files[i + 1..] {
            let weight_cosine = weight_cosine(&a.model, &b.model);
            pairs.push(Pair {
                models: [a, b].map(|f| f.path.display().to_string()),
                weight_cosine,
                shared_initialisation: weight_cosine.is_some_and(|c| c > RELATED),
            });
        }
    }
    let kinship = Kinship { mergeable: differences.is_empty(), differences, overlapping_classes: owners, pairs };
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

/// Cosine between all Conv and Linear weights of two models, over the tensors that both have in the same shape.
fn weight_cosine(a: &Model, b: &Model) -> Option<f64> {
    let (mut ab, mut aa, mut bb) = (0.0, 0.0, 0.0);
    for (name, x) in a.weights.iter().filter(|(_, t)| t.ndim() > 1) {
        let Some(y) = b.weights.get(name).filter(|y| y.shape() == x.shape()) else { continue };
        for (&x, &y) in x.iter().zip(y) {
            let (x, y) = (f64::from(x), f64::from(y));
            ab += x * y;
            aa += x * x;
            bb += y * y;
        }
    }
    (aa > 0.0 && bb > 0.0).then(|| ab / (aa * bb).sqrt())
}
