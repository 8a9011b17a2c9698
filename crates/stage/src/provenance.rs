//! Who made a file, from what; and whether making it again would give the same.

use crate::Stage;
use crate::args::{EXECUTION, OUTPUT};
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
        args.iter().for_each(|arg| add(arg));
        add("environment");
        for (name, value) in &environment {
            add(name);
            add(value);
        }
        add("inputs");
        inputs.iter().for_each(|input| add(&input.blake3));
        Provenance { tool, args, environment, inputs, key: key.finalize().to_hex().to_string() }
    }

    /// Whether `output` was made by this version with these arguments from these inputs. Says so if it was.
    #[must_use]
    pub fn up_to_date(&self, output: &Path, provenance: &Provenance) -> bool {
        if self.force || !output.exists() {
            return false;
        }
        let same =
            zipit_artifact::provenance_of(output).ok().flatten().is_some_and(|found| found.key == provenance.key);
        if same {
            tracing::info!("{} is up to date (--force makes it again)", output.display());
        }
        same
    }

    /// The arguments that decide the result, as given, in the order of the help text.
    fn recorded_args(&self) -> Vec<String> {
        let mut recorded = Vec::new();
        for arg in self.command.get_arguments() {
            let id = arg.get_id().as_str();
            if matches!(arg.get_help_heading(), Some(EXECUTION | OUTPUT)) || matches!(id, "help" | "version") {
                continue;
            }
            if !matches!(self.matches.value_source(id), Some(ValueSource::CommandLine | ValueSource::EnvVariable)) {
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

/// A reference to a data set as an input.
#[must_use]
pub fn data_input(name: String, digest: &str) -> InputRef {
    InputRef { name, kind: "data".to_owned(), blake3: digest.to_owned(), provenance: None }
}
