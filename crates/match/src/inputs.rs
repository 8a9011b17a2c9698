//! The files that a matching reads beside its statistics.

use crate::Args;
use anyhow::ensure;
use zipit_artifact::header::{InputRef, hash_file};
use zipit_artifact::stats::StatsReader;
use zipit_stage::merging::read_models;

/// Everything that decides the plan beside the flags.
///
/// # Errors
/// A file that cannot be read.
pub fn all(args: &Args, stats: &StatsReader, holdout: Option<&StatsReader>) -> anyhow::Result<Vec<InputRef>> {
    let mut inputs = vec![stats.input_ref()];
    inputs.extend(holdout.map(StatsReader::input_ref));
    if let Some(path) = &args.widths.points {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        inputs.push(InputRef { name, kind: "points".to_owned(), blake3: hash_file(path)?, provenance: None });
    }
    Ok(inputs)
}

/// The models of `--models`, which must be those that the stats were collected from.
///
/// # Errors
/// Models that cannot be read, or others.
pub fn models(args: &Args, stats: &StatsReader) -> anyhow::Result<Vec<zipit::Model>> {
    let wanted = &stats.header().models;
    let files = read_models(&args.method.models)?;
    ensure!(
        files.is_empty() || files.iter().map(|f| &f.blake3).eq(wanted.iter().map(|m| &m.blake3)),
        "--models must give the models that {} was collected from, in that order: {}",
        args.stats.display(),
        wanted.iter().map(|m| m.name.as_str()).collect::<Vec<_>>().join(", ")
    );
    Ok(files.into_iter().map(|f| f.model).collect())
}
