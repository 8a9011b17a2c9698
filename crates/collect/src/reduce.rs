//! Adding up the stats of shards.

use anyhow::{Context, ensure};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use zipit::{Collected, Moments};
use zipit_artifact::stats::{self, StatsHeader, StatsReader};
use zipit_stage::Stage;

pub fn reduce(paths: &[PathBuf], out: &Path, dry_run: bool, stage: &Stage) -> anyhow::Result<()> {
    let mut shards = paths.iter().map(|path| StatsReader::open(path)).collect::<Result<Vec<_>, _>>()?;
    // The sum in shard order: the order on the command line does not change a bit.
    shards.sort_by_key(|r| (r.header().shard, r.blake3().to_owned()));
    for shard in &shards[1..] {
        check_same_job(&shards[0], shard)?;
    }
    check_complete(&shards)?;
    let first = shards[0].header();
    let n_images = shards.iter().map(|r| r.header().n_images).sum();
    let provenance = stage.provenance(shards.iter().map(StatsReader::input_ref).collect(), [].into());
    let told = format!("{} shards, {} merge points, {n_images} images", shards.len(), first.points.len());
    if dry_run {
        return stage.print(&format!("would add up {told}; would write {}\n", out.display()));
    }
    if stage.up_to_date(out, &provenance)? {
        return Ok(());
    }
    let mut total: BTreeMap<String, Moments> = BTreeMap::new();
    for (name, d) in &first.points {
        ensure!(!stage.interrupted(), "interrupted, nothing was written");
        let mut sum = Moments::zeros(first.models.len() * d);
        for shard in &shards {
            sum.merge(&shard.moments(name)?).with_context(|| format!("{}: `{name}`", shard.path().display()))?;
        }
        total.insert(name.clone(), sum);
    }
    let mut grams = BTreeMap::new();
    for (name, _) in &first.layers {
        ensure!(!stage.interrupted(), "interrupted, nothing was written");
        let mut sum = shards[0].gram(name)?;
        for shard in &shards[1..] {
            sum.merge(&shard.gram(name)?).with_context(|| format!("{}: `{name}`", shard.path().display()))?;
        }
        grams.insert(name.clone(), sum);
    }
    let mut extents = BTreeMap::new();
    for value in shards[0].read_values() {
        let mut all = shards[0].extent(value)?;
        for shard in &shards[1..] {
            all.merge(&shard.extent(value)?).with_context(|| format!("{}: `{value}`", shard.path().display()))?;
        }
        extents.insert(value.clone(), all);
    }
    let batches_done = shards.iter().map(|r| r.header().batches_done).sum();
    let n_batches = shards.iter().map(|r| r.header().n_batches).sum();
    let header = StatsHeader { n_images, batches_done, n_batches, shard: None, provenance, ..first.clone() };
    let mut importance = BTreeMap::new();
    for (name, _) in &first.points {
        ensure!(!stage.interrupted(), "interrupted, nothing was written");
        let Some(mut sum) = shards[0].importance(name)? else { continue };
        for shard in &shards[1..] {
            let own = shard.importance(name)?.context("a shard without importance")?;
            sum.merge(&own).with_context(|| format!("{}: `{name}`", shard.path().display()))?;
        }
        importance.insert(name.clone(), sum);
    }
    let mut gradients = BTreeMap::new();
    for (name, _) in first.gradients.then(|| first.gradient_layers()).into_iter().flatten() {
        ensure!(!stage.interrupted(), "interrupted, nothing was written");
        let mut sum = shards[0].gradients(&name)?;
        for shard in &shards[1..] {
            sum.merge(&shard.gradients(&name)?).with_context(|| format!("{}: `{name}`", shard.path().display()))?;
        }
        gradients.insert(name, sum);
    }
    let mut fisher = shards[0].fisher()?;
    for shard in &shards[1..] {
        for (sum, own) in fisher.iter_mut().zip(shard.fisher()?) {
            sum.merge(&own).with_context(|| format!("{}", shard.path().display()))?;
        }
    }
    stats::write(out, &header, &Collected { moments: total, grams, extents, importance, gradients, fisher })?;
    stage.record(out);
    stage.print(&format!("{}: {told}\n", out.display()))
}

/// All shards must measure the same models at the same points.
fn check_same_job(a: &StatsReader, b: &StatsReader) -> anyhow::Result<()> {
    let (x, y) = (a.header(), b.header());
    let digests = |h: &StatsHeader| h.models.iter().map(|m| m.blake3.clone()).collect::<Vec<_>>();
    for (same, what) in [
        (digests(x) == digests(y), "other models, or in another order"),
        (x.graph == y.graph && x.others == y.others, "another architecture"),
        (x.points == y.points, "other merge points"),
        (x.layers == y.layers && x.gram == y.gram, "other layers (--gram)"),
        (x.probes == y.probes, "importance by other probes (--importance, --probe-seed)"),
        (
            (x.predicted, x.fisher, x.gradients) == (y.predicted, y.fisher, y.gradients),
            "other gradients (--fisher, --gradients)",
        ),
        (x.preprocess == y.preprocess, "another preprocessing (see `inspect`)"),
        (x.shard.map(|s| s.1) == y.shard.map(|s| s.1), "a split into another number of shards"),
        (x.shard.is_none() || x.batch_size == y.batch_size, "other batches (--batch-size)"),
        (x.shard.is_none() || job(x) == job(y), "other images (--data, --images, --split, --seed)"),
    ] {
        ensure!(same, "{} cannot be added to {}: it measures {what}", b.path().display(), a.path().display());
    }
    Ok(())
}

/// What all shards of one collection share: the arguments but --shard, and the inputs.
fn job(header: &StatsHeader) -> (Vec<&str>, Vec<&str>) {
    let mut args: Vec<&str> = header.provenance.args.iter().map(String::as_str).collect();
    if let Some(at) = args.iter().position(|a| *a == "--shard") {
        args.drain(at..(at + 2).min(args.len()));
    }
    (args, header.provenance.inputs.iter().map(|i| i.blake3.as_str()).collect())
}

fn check_complete(shards: &[StatsReader]) -> anyhow::Result<()> {
    for pair in shards.windows(2) {
        ensure!(
            pair[0].header().shard.is_none() || pair[0].header().shard != pair[1].header().shard,
            "{} and {} are the same shard",
            pair[0].path().display(),
            pair[1].path().display()
        );
        ensure!(
            pair[0].blake3() != pair[1].blake3(),
            "{} and {} are the same file",
            pair[0].path().display(),
            pair[1].path().display()
        );
    }
    if let Some((_, n)) = shards[0].header().shard {
        let there: Vec<usize> = shards.iter().filter_map(|s| s.header().shard).map(|s| s.0).collect();
        let missing: Vec<String> = (1..=n).filter(|i| !there.contains(i)).map(|i| format!("{i}/{n}")).collect();
        ensure!(missing.is_empty(), "shards are missing: {}", missing.join(", "));
    }
    Ok(())
}
