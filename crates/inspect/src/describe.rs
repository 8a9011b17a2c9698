//! What one file is, for people and as JSON.

use crate::spaces;
use anyhow::bail;
use serde_json::{Value, json};
use std::path::Path;
use zipit::graph::Graph;
use zipit::report::Report;
use zipit_artifact::header::{Kind, Provenance};
use zipit_artifact::stats::{GramKind, StatsReader};
use zipit_artifact::{DatasetFile, MaskedReader, model, plan, report};
use zipit_stage::{Format, Table};

/// Headline facts, a table where there is one, and who made the file.
struct Description {
    facts: Vec<(&'static str, String)>,
    table: Option<Table>,
    provenance: Option<Provenance>,
    json: Value,
}

/// Describes a file of any of our kinds.
pub fn file(path: &Path, format: Format) -> anyhow::Result<String> {
    let kind = zipit_artifact::sniff(path)?;
    let description = match kind {
        Kind::Model => network(path)?,
        Kind::Masked => masked(path)?,
        Kind::Stats => stats(path)?,
        Kind::Plan => matching(path)?,
        Kind::Report => evaluation(path)?,
        Kind::Dataset => images(path)?,
        _ => bail!(
            "{} is {kind}, which inspect cannot describe; a PyTorch checkpoint goes through import first",
            path.display()
        ),
    };
    let mut facts = Table::new(["file", &path.display().to_string()]);
    facts.row(["kind", &kind.to_string()]);
    description.facts.iter().for_each(|(name, value)| facts.row([*name, value]));
    if format == Format::Json {
        return facts.render(format, &description.json);
    }
    let mut text = facts.render(format, &())?;
    if let Some(table) = &description.table {
        text += &format!("\n{}", table.render(format, &())?);
    }
    if let Some(provenance) = &description.provenance {
        text += "\nmade by\n";
        chain(provenance, 1, &mut text);
    }
    Ok(text)
}

/// The provenance as an indented tree, every file with its digest.
fn chain(provenance: &Provenance, depth: usize, text: &mut String) {
    let indent = "  ".repeat(depth);
    let environment: Vec<_> = provenance.environment.iter().map(|(k, v)| format!("{k} {v}")).collect();
    let with = if environment.is_empty() { String::new() } else { format!("  ({})", environment.join(", ")) };
    *text += &format!("{indent}{} {}{with}\n", provenance.tool, provenance.args.join(" "));
    for input in &provenance.inputs {
        let digest = input.blake3.get(..12).unwrap_or(&input.blake3);
        *text += &format!("{indent}  from {} {} {digest}…\n", input.kind, input.name);
        if let Some(inner) = &input.provenance {
            chain(inner, depth + 2, text);
        }
    }
}

fn graph_facts(graph: &Graph) -> anyhow::Result<Vec<(&'static str, String)>> {
    let cost = graph.cost()?;
    Ok(vec![
        ("architecture", graph.arch.clone()),
        ("input", format!("{:?}", graph.input.shape)),
        ("graph", format!("{} nodes, {} weight layers on the longest path", graph.nodes.len(), graph.n_layers())),
        ("FLOPs", format!("{:.1} M multiply-adds", cost.macs as f64 / 1e6)),
        ("parameters", format!("{} and {} measured numbers", cost.params, cost.buffers)),
        ("fixed spaces", spaces::fixed(graph)?),
    ])
}

/// The free feature spaces in the order of the forward pass.
fn spaces_table(graph: &Graph) -> anyhow::Result<Table> {
    let mut table = Table::new([&["merge point"][..], &spaces::HEADERS].concat());
    for (name, cells) in spaces::free(graph)? {
        table.row([&[name][..], &cells].concat());
    }
    Ok(table)
}

fn classes(names: &[String]) -> String {
    if names.is_empty() { "no classes".to_owned() } else { names.join(", ") }
}

fn network(path: &Path) -> anyhow::Result<Description> {
    let file = model::read(path)?;
    let mut facts = graph_facts(&file.model.graph)?;
    let shapes = file.model.graph.output_shapes()?;
    for ((task, output), shape) in file.model.tasks.iter().zip(&file.model.graph.outputs).zip(shapes) {
        let shape = if shape.len() == 1 && !task.classes.is_empty() { String::new() } else { format!(", {shape:?}") };
        facts.push(("task", format!("{} at `{output}`{shape}: {}", task.name, classes(&task.classes))));
    }
    if let Some(joint) = &file.model.joint {
        let heads = joint.heads.iter().map(|h| format!("T {:.3}, b {:.3}", h.temperature, h.bias));
        facts.push(("calibration", heads.collect::<Vec<_>>().join("; ")));
    }
    if let Some(gate) = file.model.graph.outputs.get(file.model.tasks.len()) {
        facts.push(("gate", format!("at `{gate}`: one logit per task")));
    }
    facts.push(("stored as", file.precision.to_string()));
    let p = &file.model.preprocess;
    facts.push(("preprocessing", p.to_string()));
    Ok(Description {
        facts,
        table: Some(spaces_table(&file.model.graph)?),
        json: json!({
            "dtype": file.precision.to_string(),
            "graph": file.model.graph,
            "spaces": spaces::json(&file.model.graph)?,
            "tasks": file.model.tasks,
            "preprocess": p,
            "joint": file.model.joint,
            "provenance": file.provenance,
        }),
        provenance: Some(file.provenance),
    })
}

/// Networks that share a vector.
fn masked(path: &Path) -> anyhow::Result<Description> {
    let file = MaskedReader::open(path)?;
    let outline = file.outline();
    let mut facts = graph_facts(&outline.networks[0].graph)?;
    let n_shared: usize = outline.shared.values().map(|shape| shape.iter().product::<usize>()).sum();
    let n = outline.networks.len();
    facts.push(("networks", format!("{n}, each like this one: the task must be known, and says which mask is put on")));
    facts.push((
        "shared",
        format!("{n_shared} numbers of {} tensors, of the base and of one vector", outline.shared.len()),
    ));
    let cost = outline.cost()?;
    facts.push((
        "stored",
        format!("{} parameters and {} measured numbers; {n} × {n_shared} bits of masks", cost.params, cost.buffers),
    ));
    facts.push(("stored as", file.precision().to_string()));
    facts.push(("preprocessing", outline.preprocess.to_string()));
    let mut table = Table::new(["task", "classes", "rescaler", "of the vector"]);
    let mut networks = Vec::new();
    for (t, (network, rescaler)) in outline.networks.iter().zip(file.rescalers()).enumerate() {
        let left = file.n_left(t)? as f64 / n_shared.max(1) as f64;
        for task in &network.tasks {
            let left = format!("{:.1} %", 100.0 * left);
            table.row([task.name.clone(), classes(&task.classes), format!("{rescaler:.4}"), left]);
        }
        networks.push(json!({
            "graph": network.graph,
            "tasks": network.tasks,
            "rescaler": rescaler,
            "left": left,
        }));
    }
    Ok(Description {
        facts,
        table: Some(table),
        json: json!({
            "dtype": file.precision().to_string(),
            "networks": networks,
            "shared": outline.shared,
            "preprocess": outline.preprocess,
            "provenance": file.provenance(),
        }),
        provenance: Some(file.provenance().clone()),
    })
}

fn stats(path: &Path) -> anyhow::Result<Description> {
    let reader = StatsReader::open(path)?;
    let header = reader.header();
    let mut facts = graph_facts(&header.graph)?;
    facts.extend(
        header.models.iter().map(|m| ("model", format!("{} {}…", m.name, m.blake3.get(..12).unwrap_or_default()))),
    );
    facts.push(("images", header.n_images.to_string()));
    if let Some(gram) = header.gram {
        let how = match gram {
            GramKind::Joint => "of all models together",
            GramKind::Own => "of each model by itself",
        };
        facts.push(("layers", format!("what {} layers read, {how}", header.layers.len())));
    }
    if let Some((i, n)) = header.shard {
        facts.push(("shard", format!("{i}/{n}")));
    }
    if !header.is_complete() {
        facts.push(("unfinished", format!("{} of {} batches", header.batches_done, header.n_batches)));
    }
    facts.extend(
        header.tasks.iter().flatten().map(|task| ("task", format!("{}: {}", task.name, classes(&task.classes)))),
    );
    let known = spaces::by_name(&header.graph)?;
    let mut table = Table::new([&["merge point"][..], &spaces::HEADERS, &["joint features", "samples"]].concat());
    for (name, d) in &header.points {
        let measured = [(header.n_models() * d).to_string(), reader.moments(name)?.count.to_string()];
        let cells = known.get(name).cloned().unwrap_or_default();
        table.row([&[name.clone()][..], &cells, &measured].concat());
    }
    let mut json = json!(header);
    json["spaces"] = spaces::json(&header.graph)?;
    Ok(Description { facts, table: Some(table), json, provenance: Some(header.provenance.clone()) })
}

fn matching(path: &Path) -> anyhow::Result<Description> {
    let file = plan::read(path)?;
    let mut facts = graph_facts(&file.graph)?;
    facts.push(("settings", serde_json::to_string(&file.plan.settings)?));
    facts.extend(
        file.models.iter().map(|m| ("model", format!("{} {}…", m.name, m.blake3.get(..12).unwrap_or_default()))),
    );
    let known = spaces::by_name(&file.graph)?;
    let merges = ["joint features", "constant", "groups", "across", "within", "lost"];
    let mut table = Table::new([&["merge point"][..], &spaces::HEADERS, &merges].concat());
    for point in &file.plan.points {
        let s = &point.summary;
        let merges = [
            point.assignment.len().to_string(),
            (s.dead + s.constant).to_string(),
            point.n_groups.to_string(),
            s.across.to_string(),
            s.within.iter().map(ToString::to_string).collect::<Vec<_>>().join("+"),
            format!("{:.1} %", 100.0 * s.reconstruction_error),
        ];
        let cells = known.get(&point.name).cloned().unwrap_or_default();
        table.row([&[point.name.clone()][..], &cells, &merges].concat());
    }
    let points: Vec<_> = file
        .plan
        .points
        .iter()
        .map(|p| json!({ "name": p.name, "assignment": p.assignment, "resting": p.resting, "summary": p.summary }))
        .collect();
    let json = json!({
        "settings": file.plan.settings,
        "graph": file.graph,
        "spaces": spaces::json(&file.graph)?,
        "models": file.models,
        "points": points,
        "provenance": file.provenance,
    });
    Ok(Description { facts, table: Some(table), json, provenance: Some(file.provenance) })
}

fn evaluation(path: &Path) -> anyhow::Result<Description> {
    let file = report::read::<Report>(path)?;
    let mut table = Table::new(["network", "task avg", "FLOPs", "parameters", "method"]);
    for row in &file.content.rows {
        table.row([
            row.model.clone(),
            format!("{:.2}", 100.0 * row.scores.task_avg),
            row.cost.macs.to_string(),
            row.cost.params.to_string(),
            row.method.clone(),
        ]);
    }
    let facts = file
        .content
        .data
        .iter()
        .map(|d| ("data", format!("{} images of {} ({})", d.n_images, d.name, d.split)))
        .collect();
    Ok(Description { facts, table: Some(table), json: json!(file.content), provenance: Some(file.provenance) })
}

fn images(path: &Path) -> anyhow::Result<Description> {
    let file = DatasetFile::open(path)?;
    let splits = file.splits();
    let facts = vec![
        ("images", format!("[C, H, W] = {:?}; splits: {}", file.shape(), splits.join(", "))),
        ("classes", file.classes().join(", ")),
    ];
    let json = json!({ "shape": file.shape(), "classes": file.classes() });
    Ok(Description { facts, table: None, json, provenance: None })
}
