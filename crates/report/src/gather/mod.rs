//! From an experiment's files to its results.

mod inside;
mod rows;

use crate::results::{CandidateResult, CaseResults, ChoiceResult, HeatMap, PublishedRow, Results, StageTime};
use anyhow::Context;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use zipit::report::{DataUsed, Report};
use zipit_artifact::report;
use zipit_experiment::choose::Choice;
use zipit_experiment::{Experiment, rules};
use zipit_stage::manifest::{self, MANIFEST};

/// Reads the reports of an experiment that was run.
///
/// # Errors
/// A report that is missing or damaged, or reports about different images.
pub fn results(experiment: &Experiment) -> anyhow::Result<(Results, Vec<HeatMap>)> {
    let mut data: Option<Vec<DataUsed>> = None;
    let (mut cases, mut heat_maps) = (Vec::new(), Vec::new());
    for case in &experiment.cases {
        let sets = experiment.sets(case);
        let table = experiment.table(case).with_context(|| advice(experiment))?;
        let found = rows::rows(experiment, case, &sets, &table)?;
        // Merge sets of one experiment may be about other classes of the same data: the most images are told.
        let n = |data: &[DataUsed]| data.iter().map(|d| d.n_images).sum::<u64>();
        if data.as_ref().is_none_or(|most| n(&found.data) > n(most)) {
            data = Some(found.data);
        }
        let (shown, heat) = inside::look(experiment, case, &sets, &table, &found.rows)?;
        heat_maps.extend(heat);
        cases.push(CaseResults {
            name: case.name.clone(),
            x: case.x,
            sets: sets.iter().map(|set| set.files().map(name).collect()).collect(),
            rows: found.rows,
            choices: experiment.choose(case)?.iter().map(choice).collect(),
            shown,
        });
    }
    let published = experiment.published.iter().map(|p| PublishedRow {
        source: p.source.clone(),
        setting: p.setting.clone(),
        model: p.model.clone(),
        joint: p.joint.map(|x| x / 100.0),
        task_avg: p.task_avg.map(|x| x / 100.0),
        relative_macs: p.flops,
    });
    let results = Results {
        name: experiment.name.clone(),
        title: experiment.title.clone(),
        about: experiment.about.trim().to_owned(),
        commit: commit(),
        machine: machine(),
        data: data.unwrap_or_default(),
        axis: experiment.axis.clone(),
        joint: experiment.joint,
        cases,
        published: published.collect(),
        time: time(experiment)?,
        notes: notes(experiment),
    };
    Ok((results, heat_maps))
}

fn advice(experiment: &Experiment) -> String {
    format!("the results of {0} are not there: `make experiment NAME={0}` makes them", experiment.name)
}

fn read(experiment: &Experiment, path: &Path) -> anyhow::Result<Report> {
    Ok(report::read::<Report>(path).with_context(|| advice(experiment))?.content)
}

fn name(file: &Path) -> String {
    file.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

fn choice(choice: &Choice) -> ChoiceResult {
    ChoiceResult {
        name: choice.name.clone(),
        n_sets: choice.n_sets,
        best: choice.best().to_string(),
        candidates: choice
            .candidates
            .iter()
            .map(|candidate| CandidateResult {
                model: candidate.variant.to_string(),
                alpha: candidate.variant.method.alpha_beta.map(|(alpha, _)| alpha),
                beta: candidate.variant.method.alpha_beta.map(|(_, beta)| beta),
                task_avg: candidate.task_avg,
            })
            .collect(),
    }
}

fn notes(experiment: &Experiment) -> Vec<String> {
    let images = experiment.images;
    let mut notes = vec![
        format!(
            "Unless a row says otherwise: {} images to match, {} to re-estimate BatchNorm before and after merging (pinv, \
             covariance); {} to match and to fit (refit and its kin, gate). All are training images without labels.",
            images.collect, images.reset, images.refit
        ),
        "± is the sample standard deviation over merge sets; merge sets that share a network are not independent."
            .to_owned(),
    ];
    if experiment.rows.iter().any(|grid| grid.choose.is_some()) {
        notes.push(
            "What was chosen was chosen by task average on the validation split, every tenth training image, which \
             training left out; the table is about the test split."
                .to_owned(),
        );
    }
    notes
}

/// Seconds by stage, from the manifests beside the files.
fn time(experiment: &Experiment) -> anyhow::Result<Vec<StageTime>> {
    let mut manifests: BTreeMap<PathBuf, BTreeMap<String, manifest::Entry>> = BTreeMap::new();
    let order = ["train", "recalibrate", "collect", "match", "apply", "combine", "refit", "adapt", "gate", "eval"];
    let mut times = order.map(|stage| StageTime { stage: stage.to_owned(), n_files: 0, seconds: 0.0 });
    for made in rules::files(experiment)? {
        let folder = made.path.parent().unwrap_or(Path::new(".")).to_owned();
        let entries = manifests
            .entry(folder)
            .or_insert_with_key(|folder| manifest::read(&folder.join(MANIFEST)).unwrap_or_default());
        let entry = entries.get(&*made.path.file_name().unwrap_or_default().to_string_lossy());
        if let (Some(entry), Some(time)) = (entry, times.iter_mut().find(|time| time.stage == made.stage)) {
            time.n_files += 1;
            time.seconds += entry.seconds;
        }
    }
    Ok(times.into_iter().filter(|time| time.n_files > 0).collect())
}

fn commit() -> Option<String> {
    let git = |args: &[&str]| {
        let output = Command::new("git").args(args).output().ok().filter(|output| output.status.success())?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let commit = git(&["rev-parse", "--short=12", "HEAD"])?;
    let changed = git(&["status", "--porcelain", "--untracked-files=no"]).is_none_or(|text| !text.is_empty());
    Some(if changed { commit + "+" } else { commit })
}

fn machine() -> String {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").ok().and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("model name"))?;
        Some(line.trim_start_matches([' ', '\t', ':']).to_owned())
    });
    let n = std::thread::available_parallelism().map_or(1, usize::from);
    let (os, arch) = (std::env::consts::OS, std::env::consts::ARCH);
    format!("{}, {n} processors, {os} {arch}", cpu.as_deref().unwrap_or("unknown processor"))
}
