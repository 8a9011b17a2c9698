//! Who made a file, from what; and whether making it again would give the same.

use crate::args::{EXECUTION, OUTPUT};
use crate::{Stage, Usage};
use anyhow::{Context, bail};
use clap::parser::ValueSource;
use std::any::TypeId;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use zipit_artifact::header::{InputRef, Provenance};

impl Stage {
    /// The provenance of what this stage makes from `inputs`. `environment` names what else decides the bits
    /// (LibTorch's version). Paths are reduced to file names: the content's digest says which file it was.
    #[must_use]
    pub fn provenance(&self, inputs: Vec<InputRef>, environment: BTreeMap<String, String>) -> Provenance {
        let tool = format!("zipit {} {}", self.name(), env!("CARGO_PKG_VERSION"));
        let args = self.recorded_args();
        let mut key = blake3::Hasher::new();
        let mut add = |text: &str| {
            key.update(&(text.len() as u64).to_le_bytes());
            key.update(text.as_bytes());
        };
        add(&tool);
        for arg in &args {
            add(arg);
        }
        add("environment");
        for (name, value) in &environment {
            add(name);
            add(value);
        }
        add("inputs");
        for input in &inputs {
            add(&input.blake3);
        }
        Provenance { tool, args, environment, inputs, key: key.finalize().to_hex().to_string() }
    }

    /// Whether `output` was made by this version with these arguments from these inputs. Says so if it was.
    ///
    /// # Errors
    /// As [`Stage::may_replace`].
    pub fn up_to_date(&self, output: &Path, provenance: &Provenance) -> anyhow::Result<bool> {
        let same = self.may_replace(output)?.is_some_and(|found| found.key == provenance.key);
        if same {
            tracing::info!("{} is up to date (--force makes it again)", output.display());
        }
        Ok(same)
    }

    /// Allows `output` to be written: nothing is there, or a file that this stage made (whose provenance is returned),
    /// or `--force` was given.
    ///
    /// # Errors
    /// When something else is there, which would be lost.
    pub fn may_replace(&self, output: &Path) -> anyhow::Result<Option<Provenance>> {
        if self.force || !output.is_file() {
            return Ok(None);
        }
        let found = zipit_artifact::provenance_of(output)
            .with_context(|| format!("{} is there already (--force replaces it)", output.display()))?;
        match found {
            Some(found) if found.tool.starts_with(&format!("zipit {} ", self.name())) => Ok(Some(found)),
            Some(found) => bail!(
                "{} is there already, made by `{}`: name another output, or replace it with --force",
                output.display(),
                found.tool
            ),
            None => bail!(
                "{} is there already and no file of zipit: name another output, or replace it with --force",
                output.display()
            ),
        }
    }

    /// # Errors
    /// When an output is one of the inputs, or two outputs are one: something would be lost.
    pub(crate) fn check_outputs(&self) -> anyhow::Result<()> {
        let paths = |is_output: bool| {
            self.command
                .get_arguments()
                .filter(move |arg| {
                    arg.get_value_parser().type_id() == TypeId::of::<PathBuf>()
                        && (arg.get_help_heading() == Some(OUTPUT)) == is_output
                })
                .flat_map(|arg| self.matches.get_raw(arg.get_id().as_str()).into_iter().flatten())
                .map(Path::new)
        };
        for (at, output) in paths(true).enumerate() {
            if paths(true).take(at).any(|other| other == output) {
                return Err(Usage(format!("{} is named as an output twice", output.display())).into());
            }
            let same = |input: &&Path| output.canonicalize().is_ok_and(|o| input.canonicalize().is_ok_and(|i| o == i));
            if let Some(input) = paths(false).find(same) {
                let text = format!("{} is an input: the output needs another name", input.display());
                return Err(Usage(text).into());
            }
        }
        Ok(())
    }

    /// Whether the argument `id` was given, on the command line or by the environment.
    #[must_use]
    pub fn was_given(&self, id: &str) -> bool {
        matches!(self.matches.value_source(id), Some(ValueSource::CommandLine | ValueSource::EnvVariable))
    }

    /// The arguments that decide the result, as given, in the order of the help text.
    fn recorded_args(&self) -> Vec<String> {
        let mut recorded = Vec::new();
        for arg in self.command.get_arguments() {
            let id = arg.get_id().as_str();
            if matches!(arg.get_help_heading(), Some(EXECUTION | OUTPUT)) || matches!(id, "help" | "version") {
                continue;
            }
            if !self.was_given(id) {
                continue;
            }
            let is_path = arg.get_value_parser().type_id() == TypeId::of::<PathBuf>();
            let values = self.matches.get_raw(id).into_iter().flatten().map(|value| {
                let name = Path::new(value).file_name().filter(|_| is_path).unwrap_or(value);
                name.to_string_lossy().into_owned()
            });
            let takes_value = arg.get_action().takes_values();
            recorded.extend(arg.get_long().map(|long| format!("--{long}")));
            recorded.extend(values.filter(|_| takes_value));
        }
        recorded
    }
}

/// Whether two collections may have measured the same images: of a common data set, and of the same split of it.
#[must_use]
pub fn may_share_images(a: &Provenance, b: &Provenance) -> bool {
    // A sum of shards measured what its shards did.
    fn measured(by: &Provenance) -> &Provenance {
        let shard = by.inputs.iter().find(|input| input.kind == "stats").and_then(|input| input.provenance.as_deref());
        shard.map_or(by, measured)
    }
    let [a, b] = [a, b].map(measured);
    let split = |of: &Provenance| {
        let at = of.args.iter().position(|arg| arg == "--split");
        at.and_then(|at| of.args.get(at + 1)).map_or_else(|| "train".to_owned(), Clone::clone)
    };
    let data = |of: &InputRef| of.kind == "data";
    let shared =
        a.inputs.iter().filter(|of| data(of)).any(|x| b.inputs.iter().any(|y| data(y) && x.blake3 == y.blake3));
    shared && split(a) == split(b)
}

/// A reference to a data set as an input.
#[must_use]
pub fn data_input(name: String, digest: &str) -> InputRef {
    InputRef { name, kind: "data".to_owned(), blake3: digest.to_owned(), provenance: None }
}
