//! The rows of a case: reports of all its merge sets, averaged.

use super::{name, read};
use crate::results::{ClassAccuracy, RowResult, Stat};
use anyhow::Context;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use zipit::report::{DataUsed, Row, RowKind, Score};
use zipit_experiment::Experiment;
use zipit_experiment::choose;
use zipit_experiment::layout::Split;
use zipit_experiment::sets::MergeSet;
use zipit_experiment::spec::Case;
use zipit_experiment::variant::Variant;

/// A case's rows and the images they are about.
pub struct Found {
    pub rows: Vec<RowResult>,
    pub data: Vec<DataUsed>,
}

/// What one row is called and in which curve it is.
struct Named {
    model: String,
    series: String,
    extent: String,
}

/// One network's cost: multiply-adds and parameters.
type Unit = (f64, f64);

pub fn rows(experiment: &Experiment, case: &Case, sets: &[MergeSet], table: &[choose::Row]) -> anyhow::Result<Found> {
    let mut data = Vec::new();
    let mut units: Vec<Unit> = Vec::new();
    let (mut singles, mut ensembles): (BTreeMap<&str, BTreeMap<PathBuf, Row>>, Vec<Row>) = <_>::default();
    for set in sets {
        let report = read(experiment, &experiment.source_files(set).report)?;
        let find = |stem: &str| report.rows.iter().find(|row| row.kind == RowKind::Single && row.model == stem);
        for member in &set.members {
            let row =
                find(&name(&member.file)).with_context(|| format!("{} is in no report", member.file.display()))?;
            singles.entry(&member.network).or_default().insert(member.file.clone(), row.clone());
        }
        let first = report.rows.iter().find(|row| row.kind == RowKind::Single).context("a report without networks")?;
        units.push((first.cost.macs as f64, first.cost.params as f64));
        ensembles.extend(report.rows.iter().find(|row| row.kind == RowKind::Ensemble).cloned());
        data = report.data;
    }
    let mut rows = Vec::new();
    for network in &case.merge {
        let Some(found) = singles.get(network.as_str()) else { continue };
        let found: Vec<Row> = found.values().cloned().collect();
        let named = Named { model: format!("{network}, alone"), series: String::new(), extent: String::new() };
        rows.extend(average(named, &found, &vec![units[0]; found.len()]));
    }
    let plain = |model: &str| Named { model: model.to_owned(), series: String::new(), extent: String::new() };
    rows.extend(average(plain("ensemble"), &ensembles, &units));
    let variants: Vec<&Variant> = table.iter().map(|row| &row.variant).collect();
    if variants.iter().any(|v| v.resets_sources()) {
        let found = of_sets(experiment, sets, |set| experiment.source_files(set).reset_report)?;
        rows.extend(average(plain("ensemble, BN reset"), &found, &units));
    }
    if variants.iter().any(|v| v.gate) {
        let found = of_sets(experiment, sets, |set| experiment.source_files(set).gate_report)?;
        rows.extend(average(plain("ensemble, gate"), &found, &units));
    }
    for row in table {
        let variant = &row.variant;
        let named = |gate: &str| Named {
            model: format!("{}{gate}", row.name),
            series: format!("{}{gate}", variant.series()),
            extent: variant.extent.to_string(),
        };
        let found = of_sets(experiment, sets, |set| experiment.files(set, variant).report(Split::Test))?;
        rows.extend(average(named(""), &found, &units));
        if variant.gate {
            let found = of_sets(experiment, sets, |set| experiment.files(set, variant).gate_report(Split::Test))?;
            rows.extend(average(named(", gate"), &found, &units));
        }
    }
    Ok(Found { rows, data })
}

/// The only row of each merge set's report.
fn of_sets(
    experiment: &Experiment,
    sets: &[MergeSet],
    path: impl Fn(&MergeSet) -> PathBuf,
) -> anyhow::Result<Vec<Row>> {
    sets.iter()
        .map(|set| {
            let path = path(set);
            let mut report = read(experiment, &path)?;
            report.rows.pop().with_context(|| format!("{} has no row", path.display()))
        })
        .collect()
}

/// One row of several; none of none.
fn average(named: Named, rows: &[Row], units: &[Unit]) -> Option<RowResult> {
    let first = rows.first()?;
    let n = rows.len() as f64;
    let stat = |value: &dyn Fn(&Row) -> Option<f64>| Stat::new(rows.iter().filter_map(value).collect());
    let joint = |score: &dyn Fn(&Row) -> Option<Score>| stat(&|row| score(row).map(|s| s.accuracy));
    let mut tasks: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    let mut classes: Vec<(String, String, Vec<f64>)> = Vec::new();
    for task in rows.iter().flat_map(|row| &row.scores.tasks) {
        tasks.entry(task.task.clone()).or_default().push(task.score.accuracy);
        for class in &task.classes {
            let accuracy = class.n_correct as f64 / class.n as f64;
            match classes.iter_mut().find(|(t, c, _)| *t == task.task && *c == class.class) {
                Some((_, _, all)) => all.push(accuracy),
                None => classes.push((task.task.clone(), class.class.clone(), vec![accuracy])),
            }
        }
    }
    let mean = |value: &dyn Fn(&Row) -> f64| rows.iter().map(value).sum::<f64>() / n;
    let relative = |value: &dyn Fn(&Row) -> f64, unit: &dyn Fn(&Unit) -> f64| {
        rows.iter().zip(units).map(|(row, u)| value(row) / unit(u)).sum::<f64>() / n
    };
    let (macs, params) = (|row: &Row| row.cost.macs as f64, |row: &Row| row.cost.params as f64);
    let images: BTreeSet<(String, u64)> = first.used.images.iter().map(|i| (i.stage.clone(), i.n)).collect();
    Some(RowResult {
        model: named.model,
        kind: first.kind,
        series: named.series,
        extent: named.extent,
        task_avg: stat(&|row| Some(row.scores.task_avg))?,
        tasks: tasks.into_iter().filter_map(|(task, values)| Some((task, Stat::new(values)?))).collect(),
        joint: joint(&|row| row.scores.joint.map(|j| j.softmax)),
        calibrated: joint(&|row| row.scores.joint.and_then(|j| j.calibrated)),
        gate: joint(&|row| row.scores.joint.and_then(|j| j.gate)),
        macs: mean(&macs),
        relative_macs: relative(&macs, &|unit| unit.0),
        params: mean(&params),
        relative_params: relative(&params, &|unit| unit.1),
        images: images.into_iter().collect(),
        labels: first.used.labels,
        task_identity: first.used.task_identity,
        gradients: first.used.gradients,
        source_gradients: first.used.source_gradients,
        masks: first.masks,
        classes: classes
            .into_iter()
            .map(|(task, class, all)| ClassAccuracy {
                task,
                class,
                accuracy: all.iter().sum::<f64>() / all.len() as f64,
            })
            .collect(),
    })
}
