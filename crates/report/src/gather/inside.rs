//! A look into one merged network: its groups, how its features correlate, the commands that made it, its provenance.

use super::{advice, name};
use crate::results::{HeatMap, Made, PointGroups, RowResult, Shown};
use crate::standing::{ONE_NETWORK, best_of};
use anyhow::Context;
use ndarray::Array2;
use std::collections::BTreeMap;
use zipit::plan::{Plan, PointPlan};
use zipit_artifact::header::{InputRef, Provenance};
use zipit_artifact::stats::StatsReader;
use zipit_artifact::{header::hash_file, model, plan};
use zipit_experiment::choose;
use zipit_experiment::sets::MergeSet;
use zipit_experiment::spec::Case;
use zipit_experiment::{Experiment, rules};

/// No wider heat map can be read.
const MAX_FEATURES: usize = 256;

/// The best network of the first merge set at one network's FLOPs of those whose features were matched, and its deepest merge
/// point that can be drawn.
pub fn look(
    experiment: &Experiment,
    case: &Case,
    sets: &[MergeSet],
    table: &[choose::Row],
    rows: &[RowResult],
) -> anyhow::Result<(Option<Shown>, Option<HeatMap>)> {
    let variant = |row: &RowResult| table.iter().find(|of| of.name == row.model);
    let is_matched = |of: &choose::Row| of.variant.method.combined.is_none();
    let best = best_of(rows, ONE_NETWORK, |row| variant(row).is_some_and(is_matched));
    let (Some((row, of)), Some(set)) = (best.and_then(|row| Some((row, variant(row)?))), sets.first()) else {
        return Ok((None, None));
    };
    let files = experiment.files(set, &of.variant);
    let found = plan::read(&files.plan).with_context(|| advice(experiment))?.plan;
    let header = model::read_header(&files.network).with_context(|| advice(experiment))?;
    let shown = Shown {
        model: row.model.clone(),
        networks: set.files().map(name).collect(),
        points: found.points.iter().map(|point| groups(point, found.n_models)).collect(),
        commands: rules::files_of(experiment, set, &of.variant)
            .into_iter()
            .filter(|made| made.stage != "train")
            .map(|made| made.command)
            .collect(),
        chain: made("network.safetensors", &hash_file(&files.network)?, Some(&header.provenance)),
    };
    Ok((Some(shown), heat_map(&case.name, &found, &StatsReader::open(&files.stats)?)?))
}

fn groups(point: &PointPlan, n_models: usize) -> PointGroups {
    let d = point.assignment.len() / n_models;
    let mut members: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
    for (feature, &group) in point.assignment.iter().enumerate() {
        members.entry(group).or_default().push(feature / d);
    }
    let mut found = PointGroups {
        name: point.name.clone(),
        n_features: point.assignment.len(),
        single: 0,
        within: 0,
        across: 0,
        sizes: BTreeMap::new(),
    };
    for networks in members.values() {
        *found.sizes.entry(networks.len()).or_default() += 1;
        if networks.len() == 1 {
            found.single += 1;
        } else if networks.iter().all(|network| *network == networks[0]) {
            found.within += 1;
        } else {
            found.across += 1;
        }
    }
    found
}

/// The largest groups first; within a group, as the features stand.
fn heat_map(case: &str, plan: &Plan, stats: &StatsReader) -> anyhow::Result<Option<HeatMap>> {
    let drawn = |point: &&PointPlan| point.merge.is_none() && point.assignment.len() <= MAX_FEATURES;
    let Some(point) = plan.points.iter().rev().find(drawn) else { return Ok(None) };
    let correlation = stats.moments(&point.name)?.correlation();
    let size = |group: u32| point.assignment.iter().filter(|g| **g == group).count();
    let d = point.assignment.len() / plan.n_models;
    let mut order: Vec<usize> = (0..point.assignment.len()).collect();
    order.sort_by_key(|&feature| {
        let group = point.assignment[feature];
        (std::cmp::Reverse(size(group)), group, feature)
    });
    Ok(Some(HeatMap {
        case: case.to_owned(),
        point: point.name.clone(),
        group: order.iter().map(|&feature| point.assignment[feature]).collect(),
        network: order.iter().map(|&feature| (feature / d) as u32).collect(),
        correlation: Array2::from_shape_fn((order.len(), order.len()), |(i, j)| {
            f64::from(correlation[[order[i], order[j]]])
        }),
    }))
}

fn made(file: &str, blake3: &str, provenance: Option<&Provenance>) -> Made {
    let of = |input: &InputRef| made(&input.name, &input.blake3, input.provenance.as_deref());
    Made {
        file: file.to_owned(),
        blake3: blake3.to_owned(),
        tool: provenance.map(|p| p.tool.clone()).unwrap_or_default(),
        args: provenance.map(|p| p.args.clone()).unwrap_or_default(),
        from: provenance.map(|p| p.inputs.iter().map(of).collect()).unwrap_or_default(),
    }
}
