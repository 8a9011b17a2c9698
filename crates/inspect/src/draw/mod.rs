//! Drawings of networks: boxes for nodes, coloured by feature space, with what was or will be merged.

mod dot;
mod picture;
mod svg;

pub use dot::dot;
pub use svg::svg;

use anyhow::bail;
use picture::{Marks, Picture};
use std::collections::BTreeMap;
use std::path::Path;
use zipit_artifact::header::Kind;
use zipit_artifact::stats::StatsReader;
use zipit_artifact::{model, plan};

/// The picture of the network that a model, stats or a plan is about.
pub fn picture(path: &Path) -> anyhow::Result<Picture> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Ok(match zipit_artifact::sniff(path)? {
        Kind::Model => {
            let header = model::read_header(path)?;
            let mut roles: BTreeMap<&str, String> = BTreeMap::new();
            let shapes = header.graph.output_shapes()?;
            for ((task, output), shape) in header.tasks.iter().zip(&header.graph.outputs).zip(shapes) {
                let role = match (task.classes.len(), &shape[..]) {
                    (0, shape) => format!("task {}: {shape:?}", task.name),
                    (n, [_]) => format!("task {}: {n} classes", task.name),
                    (n, shape) => format!("task {}: {n} classes, {shape:?}", task.name),
                };
                roles.entry(output).and_modify(|r| *r += &format!("; {role}")).or_insert(role);
            }
            if let Some(gate) = header.graph.outputs.get(header.tasks.len()) {
                roles.insert(gate, "gate: one logit per task".to_owned());
            }
            Picture::new(&format!("{name}, a model"), &header.graph, &roles, None)?
        }
        Kind::Stats => {
            let reader = StatsReader::open(path)?;
            let header = reader.header();
            let n = header.n_models();
            let notes = header.points.iter().map(|(name, d)| (name.clone(), format!("measured: {n} × {d} features")));
            let marks = Marks { notes: notes.collect(), thick: "measured".into(), dashed: "not measured".into() };
            let title = format!("{name}, stats of {n} models on {} images", header.n_images);
            Picture::new(&title, &header.graph, &BTreeMap::new(), Some(&marks))?
        }
        Kind::Plan => {
            let file = plan::read(path)?;
            let points = file.plan.points.iter();
            let notes = points.map(|p| (p.name.clone(), format!("merged: {} → {}", p.assignment.len(), p.n_groups)));
            let marks = Marks { notes: notes.collect(), thick: "merged".into(), dashed: "one per model".into() };
            let title = format!("{name}, a plan for {} models", file.models.len());
            Picture::new(&title, &file.graph, &BTreeMap::new(), Some(&marks))?
        }
        kind => bail!("{} is {kind}: models, stats and plans have a network to draw", path.display()),
    })
}
