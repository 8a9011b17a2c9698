//! Networks that another program exported: a safetensors file with a graph in our words in its metadata, which becomes a
//! model by `import`. `scripts/zipit_torch.py export` writes such files.

use crate::model::{Foreign, GRAPH, PREPROCESS, TASKS};
use crate::{Error, Kind, Result, json};
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::path::Path;
use zipit::{Graph, Preprocess, Task};

const ENVIRONMENT: &str = "zipit.environment";

/// What an exported file says beside its tensors. Nothing of it has been checked but the spelling.
#[derive(Debug, Clone, PartialEq)]
pub struct Exported {
    /// The computation.
    pub graph: Graph,
    /// One per graph output.
    pub tasks: Vec<Task>,
    /// The input's contract.
    pub preprocess: Preprocess,
    /// What made it: versions of libraries, the command.
    pub environment: BTreeMap<String, String>,
}

impl Exported {
    /// What the file `path`, read as `foreign`, says of a network; `None` where it has no graph.
    ///
    /// # Errors
    /// Metadata that cannot be understood, or lack something.
    pub fn of(path: &Path, foreign: &Foreign) -> Result<Option<Self>> {
        if !foreign.metadata.contains_key(GRAPH) {
            return Ok(None);
        }
        let environment = if foreign.metadata.contains_key(ENVIRONMENT) {
            entry(path, foreign, ENVIRONMENT, "environment")?
        } else {
            BTreeMap::new()
        };
        Ok(Some(Self {
            graph: entry(path, foreign, GRAPH, "graph")?,
            tasks: entry(path, foreign, TASKS, "list of tasks")?,
            preprocess: entry(path, foreign, PREPROCESS, "preprocessing")?,
            environment,
        }))
    }
}

fn entry<T: DeserializeOwned>(path: &Path, foreign: &Foreign, key: &str, what: &str) -> Result<T> {
    let text = foreign.metadata.get(key).ok_or_else(|| format!("`{key}` is missing in its metadata"));
    text.and_then(|text| json::decode(what, text)).map_err(|e| Error::contents(path, Kind::Safetensors, &e))
}
