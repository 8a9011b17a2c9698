//! From the arguments to a network, whichever way it came.

use crate::source::Source;
use crate::{Args, checkpoint, exported};
use anyhow::{Context, ensure};
use std::collections::BTreeMap;
use std::path::PathBuf;
use zipit::Model;
use zipit::graph::Arch;
use zipit_artifact::Precision;
use zipit_artifact::exported::Exported;
use zipit_stage::Usage;

/// What was imported, from which files, made by what.
pub struct Imported {
    pub model: Model,
    /// How its numbers were stored.
    pub precision: Precision,
    pub sources: Vec<PathBuf>,
    pub environment: BTreeMap<String, String>,
}

/// Reads what the arguments name: a checkpoint of an architecture that zipit knows, or an exported network.
pub fn read(args: &Args) -> anyhow::Result<Imported> {
    let source = Source::open(&args.checkpoint)?;
    let precision = source.precision();
    let own = vec![args.checkpoint.clone()];
    if let Some(arch) = args.arch {
        let model = checkpoint::model(args, arch, &source)
            .with_context(|| format!("{} as {arch}", args.checkpoint.display()))?;
        return Ok(Imported { model, precision, sources: own, environment: BTreeMap::new() });
    }
    let unknown = Usage(format!(
        "{} does not say which network its tensors belong to: name one that zipit knows with --arch ({}), or export a \
         network of your own with its graph (scripts/zipit_torch.py export) and import that",
        args.checkpoint.display(),
        Arch::ALL.map(Arch::name).join(", ")
    ));
    let Source::Safetensors(file) = source else { return Err(unknown.into()) };
    ensure!(
        !file.is_model(),
        "{} is a zipit model already: use it as it is (--arch takes its weights alone)",
        args.checkpoint.display()
    );
    let Some(exported) = Exported::of(&args.checkpoint, &file)? else { return Err(unknown.into()) };
    let mut environment = exported.environment.clone();
    // Where the checkpoint stands for it, the exported file's own content would not be told.
    environment.insert("exported".to_owned(), file.digest.clone());
    let model = exported::model(args, exported, file).with_context(|| format!("{}", args.checkpoint.display()))?;
    let sources = if args.source.is_empty() { own } else { args.source.clone() };
    Ok(Imported { model, precision, sources, environment })
}
