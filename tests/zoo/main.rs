//! The model zoo: every network that `scripts/zoo.py list` names through the binaries, one row of `runs/zoo` each.
//!
//! `make zoo` runs it: first every network is exported and analysed, then merged with a permuted copy of itself, then (the
//! smallest of every family) with another one. Each step adds to the row, so it can be stopped and started again. A row
//! that ended in an error is tried again with `--failed`; names may be given instead of the whole list.
#![allow(clippy::print_stderr)]

mod python;

use python::Python;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::Instant;
use zipit::prospects::Prospects;
use zipit_tests::{Workplace, repository, write_cifar};

const N_IMAGES: usize = 12;
/// A merge with a permuted copy that is off by more of the largest logit is tried on the settled network.
const EXACT: f64 = 1e-3;
/// The steps, by the key that each leaves in a row.
const STEPS: [&str; 3] = ["spaces", "permuted", "onnx"];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let again = arguments.iter().any(|a| a == "--failed");
    let names: Vec<&String> = arguments.iter().filter(|a| !a.starts_with("--")).collect();
    if let Err(why) = survey(&names, again) {
        eprintln!("the zoo needs the full PyTorch (`make setup-python`): {why}");
        std::process::exit(1);
    }
}

fn survey(names: &[&String], again: bool) -> Result<(), String> {
    let folder = repository().join("runs/zoo");
    std::fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let listed = python::listed()?;
    let wanted: Vec<(&str, bool)> = listed
        .lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(name, how)| (name, how == "whole"))
        .filter(|(name, _)| names.is_empty() || names.iter().any(|n| n == name))
        .collect();
    let mut python = Python::start()?;
    for (step, key) in STEPS.iter().enumerate() {
        for (i, &(name, whole)) in wanted.iter().enumerate() {
            let path = folder.join(format!("{}.json", name.replace(':', "_")));
            let old = read(&path);
            let failed = old.get("error").is_some();
            if (step == 2 && !whole) || old.get(*key).is_some() || (failed && !again && names.is_empty()) {
                continue;
            }
            let start = Instant::now();
            let mut row = if failed { json!({}) } else { old };
            row["name"] = name.into();
            if let Err(why) = fill(&mut row, &mut python, name, step) {
                row["error"] = why.into();
            }
            let said = row["error"].as_str().map_or("", |why| why.lines().next().unwrap_or_default());
            eprintln!("[{key} {}/{}] {name} {:.0} s {said}", i + 1, wanted.len(), start.elapsed().as_secs_f64());
            write(&path, &row).map_err(|e| format!("{}: {e}", path.display()))?;
        }
    }
    Ok(())
}

fn read(path: &PathBuf) -> Value {
    std::fs::read(path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_else(|| json!({}))
}

fn write(path: &Path, row: &Value) -> std::io::Result<()> {
    let unfinished = path.with_extension("unfinished");
    std::fs::write(&unfinished, format!("{row:#}\n"))?;
    std::fs::rename(&unfinished, path)
}

/// Takes a step; again on the settled network where random weights as they come say nothing.
fn fill(row: &mut Value, python: &mut Python, name: &str, step: usize) -> Result<(), String> {
    let settled = row["settled"] == true;
    let first = take(row, python, name, step, settled);
    let shaky = first.is_err() || row.get("spread").is_some() || row["permuted"].as_f64().is_some_and(|d| d > EXACT);
    if settled || !shaky {
        return first;
    }
    let mut again = json!({ "name": name });
    let second = take(&mut again, python, name, step, true);
    if second.is_err() {
        return first;
    }
    *row = again;
    second
}

/// Takes a step, and those before it that left nothing.
fn take(row: &mut Value, python: &mut Python, name: &str, step: usize, settled: bool) -> Result<(), String> {
    let place = Workplace::new();
    write_cifar(&place.path("data"), N_IMAGES);
    let request = json!({ "export": name, "folder": text(place.path(""))?, "two": step == 2, "settled": settled });
    add(row, &python.ask(&request)?);
    let graph = zipit_artifact::model::read(&place.path("one.safetensors")).map_err(|e| format!("{e:#}"))?.model.graph;
    let prospects = Prospects::of(&graph, 2).map_err(|e| e.to_string())?;
    row["spaces"] = prospects.n_spaces.into();
    row["apart"] = prospects.apart.len().into();
    row["features"] = prospects.n_features.into();
    let own = |why: &str| !matches!(why, "input" | "output");
    row["kept"] = prospects.fixed.iter().filter(|space| own(&space.why)).count().into();
    if step >= 1 && row.get("permuted").is_none() {
        let same = place.merge_with_copy("one", N_IMAGES)?;
        row["permuted"] = same.difference.into();
        row["flops"] = same.flops.into();
        if f64::from(same.difference) > EXACT {
            add(row, &python.ask(&json!({ "spread": text(place.path("a.safetensors"))? }))?);
        }
    }
    if step == 2 {
        place.merge_two(N_IMAGES)?;
        add(row, &python.ask(&json!({ "check": text(place.path("zipped.safetensors"))? }))?);
    }
    Ok(())
}

fn text(path: PathBuf) -> Result<String, String> {
    path.into_os_string().into_string().map_err(|_| "a folder whose name is no text".to_owned())
}

/// Enters what an answer holds.
fn add(row: &mut Value, found: &Value) {
    for (key, value) in found.as_object().into_iter().flatten() {
        row[key.as_str()] = value.clone();
    }
}
