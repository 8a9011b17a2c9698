//! The model zoo: every network that `scripts/zoo.py list` names through the binaries, one row of `runs/zoo` each.
//!
//! `make zoo` runs it. What has a row already is left alone, so it can be stopped and started again; a row that ended in an
//! error is tried again with `--failed`. Names may be given instead of the list.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;
use zipit::prospects::Prospects;
use zipit_tests::{Workplace, binary, repository, write_cifar};

const N_IMAGES: usize = 12;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let again = arguments.iter().any(|a| a == "--failed");
    let names: Vec<&String> = arguments.iter().filter(|a| !a.starts_with("--")).collect();
    let folder = repository().join("runs/zoo");
    std::fs::create_dir_all(&folder).expect("a folder for the rows");
    let listed = match python(&["list"]) {
        Ok(listed) => listed,
        Err(why) => return eprintln!("the zoo needs the full PyTorch (`make setup-python`): {why}"),
    };
    let wanted: Vec<(&str, bool)> = listed
        .lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(name, how)| (name, how == "whole"))
        .filter(|(name, _)| names.is_empty() || names.iter().any(|n| n == name))
        .collect();
    for (i, (name, whole)) in wanted.iter().enumerate() {
        let path = folder.join(format!("{}.json", name.replace(':', "_")));
        if names.is_empty() && done(&path, again) {
            continue;
        }
        let start = Instant::now();
        let row = row(name, *whole);
        let said = row["error"].as_str().map_or("", |why| why.lines().next().unwrap_or_default());
        eprintln!("[{}/{}] {name} {:.0} s {said}", i + 1, wanted.len(), start.elapsed().as_secs_f64());
        let unfinished = path.with_extension("unfinished");
        std::fs::write(&unfinished, format!("{row:#}\n")).expect("a row can be written");
        std::fs::rename(&unfinished, &path).expect("a row can be kept");
    }
}

/// Whether a row is there, and need not be tried again.
fn done(path: &Path, again: bool) -> bool {
    let Some(row) = std::fs::read(path).ok().and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok()) else {
        return false;
    };
    !(again && row.get("error").is_some())
}

/// What was found, up to the first thing that fails.
fn row(name: &str, whole: bool) -> Value {
    let mut row = json!({ "name": name });
    if let Err(why) = fill(&mut row, name, whole) {
        row["error"] = why.into();
    }
    row
}

fn fill(row: &mut Value, name: &str, whole: bool) -> Result<(), String> {
    let place = Workplace::new();
    write_cifar(&place.path("data"), N_IMAGES);
    let folder = place.path("");
    let folder = folder.to_str().ok_or("a folder whose name is no text")?;
    let how: &[&str] = if whole { &["--two"] } else { &[] };
    add(row, &python(&[&["export", name, folder], how].concat())?)?;
    let graph = zipit_artifact::model::read(&place.path("one.safetensors")).map_err(|e| format!("{e:#}"))?.model.graph;
    let prospects = Prospects::of(&graph).map_err(|e| e.to_string())?;
    row["spaces"] = prospects.n_spaces.into();
    row["features"] = prospects.n_features.into();
    let tied = |why: &str| !matches!(why, "input" | "output");
    row["kept"] = prospects.fixed.iter().filter(|space| tied(&space.why)).count().into();
    let same = place.merge_with_copy("one", N_IMAGES)?;
    row["permuted"] = same.difference.into();
    row["flops"] = same.flops.into();
    if whole {
        place.merge_two(N_IMAGES)?;
        let merged = place.path("zipped.safetensors");
        add(row, &python(&["check", merged.to_str().ok_or("a folder whose name is no text")?])?)?;
    }
    Ok(())
}

/// Enters the last line of what Python printed, an object.
fn add(row: &mut Value, printed: &str) -> Result<(), String> {
    let found: Value = serde_json::from_str(printed.lines().last().unwrap_or_default()).map_err(|e| e.to_string())?;
    for (key, value) in found.as_object().into_iter().flatten() {
        row[key.as_str()] = value.clone();
    }
    Ok(())
}

/// `scripts/zoo.py ARGS…`: what it printed, or what it complained about.
fn python(args: &[&str]) -> Result<String, String> {
    let interpreter: PathBuf = repository().join(".venv-python/bin/python");
    let ran = Command::new(interpreter)
        .arg(repository().join("scripts/zoo.py"))
        .args(args)
        .arg("--bin")
        .arg(binary("import").parent().ok_or("binaries lie in a folder")?)
        .output()
        .map_err(|e| e.to_string())?;
    if ran.status.success() {
        return Ok(String::from_utf8_lossy(&ran.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&ran.stderr);
    Err(said.trim().lines().last().unwrap_or("no word").to_owned())
}
