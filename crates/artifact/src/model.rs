//! Models: one `.safetensors` file that any safetensors reader opens, with graph, tasks, preprocessing and provenance
//! in its metadata.

use crate::container::{self, Container, Header, Values};
use crate::header::MODEL_VERSION;
use crate::{Error, InputRef, Kind, Precision, Provenance, Result, json};
use safetensors::tensor::Dtype;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use zipit::joint::Joint;
use zipit::{Graph, Model, Preprocess, StateDict, Task};

pub(crate) const FORMAT: &str = "format";
pub(crate) const GRAPH: &str = "zipit.graph";
pub(crate) const TASKS: &str = "zipit.tasks";
pub(crate) const PREPROCESS: &str = "zipit.preprocess";
const JOINT: &str = "zipit.joint";

/// A BatchNorm's counter: PyTorch writes it, nothing here needs it.
const COUNTER: &str = "num_batches_tracked";

/// A model and where it came from.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelFile {
    /// The file it was read from.
    pub path: PathBuf,
    /// BLAKE3 of the file.
    pub blake3: String,
    /// The network.
    pub model: Model,
    /// How most of its numbers are stored.
    pub precision: Precision,
    /// Who made it and from what.
    pub provenance: Provenance,
}

impl ModelFile {
    /// This file as an input of what is made from it.
    #[must_use]
    pub fn input_ref(&self) -> InputRef {
        InputRef::new(&self.path, Kind::Model, &self.blake3, Some(self.provenance.clone()))
    }
}

/// A model without its weights.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelHeader {
    /// The file.
    pub path: PathBuf,
    /// The computation.
    pub graph: Graph,
    /// One per graph output.
    pub tasks: Vec<Task>,
    /// The input's contract.
    pub preprocess: Preprocess,
    /// How its heads are compared with each other.
    pub joint: Option<Joint>,
    /// Who made it and from what.
    pub provenance: Provenance,
    /// Shape of every tensor, by name.
    pub shapes: BTreeMap<String, Vec<usize>>,
    /// How most of its numbers are stored.
    pub precision: Precision,
    /// Size of the file in bytes.
    pub n_bytes: u64,
}

/// Reads a model and checks all of it: the digest, the graph, every tensor, finite numbers.
///
/// # Errors
/// A file that cannot be read, is another kind or version, is damaged, or holds no usable model.
pub fn read(path: &Path) -> Result<ModelFile> {
    let bytes = container::read_bytes(path, Kind::Model)?;
    let container = Container::parse(path, Kind::Model, &bytes)?;
    container.header.expect(path, Kind::Model, MODEL_VERSION)?;
    container.verify(path)?;
    let header = header(path, &container.header)?;
    let weights = container
        .all_f32(header.shapes.keys().map(String::as_str))
        .map_err(|e| Error::contents(path, Kind::Model, &e))?;
    let ModelHeader { graph, tasks, preprocess, joint, provenance, precision, .. } = header;
    let model = Model { graph, weights, tasks, preprocess, joint };
    model.validate().map_err(|e| Error::contents(path, Kind::Model, &e))?;
    let mut hasher = blake3::Hasher::new();
    hasher.update_rayon(&bytes);
    let blake3 = hasher.finalize().to_hex().to_string();
    Ok(ModelFile { path: path.to_owned(), blake3, model, precision, provenance })
}

/// Reads everything but the weights: fast whatever the model's size. The weights are not verified.
///
/// # Errors
/// As [`read`], as far as it can be told without the weights.
pub fn read_header(path: &Path) -> Result<ModelHeader> {
    let found = crate::sniff(path)?;
    if !matches!(found, Kind::Model | Kind::Safetensors) {
        return Err(Error::Kind { path: path.to_owned(), found, expected: Kind::Model });
    }
    header(path, &Header::read(path, Kind::Model)?)
}

fn header(path: &Path, raw: &Header) -> Result<ModelHeader> {
    let unusable = |reason: String| Error::contents(path, Kind::Model, &reason);
    raw.expect(path, Kind::Model, MODEL_VERSION)?;
    let header = ModelHeader {
        path: path.to_owned(),
        graph: json::decode("graph", raw.text(path, GRAPH)?).map_err(unusable)?,
        tasks: json::decode("list of tasks", raw.text(path, TASKS)?).map_err(unusable)?,
        preprocess: json::decode("preprocessing", raw.text(path, PREPROCESS)?).map_err(unusable)?,
        joint: match raw.metadata.get(JOINT) {
            Some(text) => Some(json::decode("joint prediction", text).map_err(unusable)?),
            None => None,
        },
        provenance: raw.provenance(path)?,
        shapes: raw
            .tensors
            .iter()
            .filter(|(name, info)| !(info.dtype == Dtype::I64 && name.ends_with(COUNTER)))
            .map(|(name, info)| (name.clone(), info.shape.clone()))
            .collect(),
        precision: raw.precision(),
        n_bytes: raw.n_bytes,
    };
    header.graph.shapes().map_err(|e| unusable(e.to_string()))?;
    let shapes = header.shapes.iter().map(|(name, shape)| (name.as_str(), shape.clone())).collect();
    header.graph.check_tensor_shapes(&shapes).map_err(|e| unusable(e.to_string()))?;
    Ok(header)
}

/// Writes a model, its numbers in f32. The same model and provenance give the same bytes.
///
/// # Errors
/// A model that does not [`validate`](Model::validate), or a file that cannot be written.
pub fn write(path: &Path, model: &Model, provenance: &Provenance) -> Result<()> {
    write_as(path, model, Precision::F32, provenance)
}

/// Writes a model, its numbers rounded to the nearest ones of `precision`.
///
/// # Errors
/// As [`write()`]; a number that `precision` cannot hold.
pub fn write_as(path: &Path, model: &Model, precision: Precision, provenance: &Provenance) -> Result<()> {
    let unwritable = |reason: String| Error::unwritable(path, &reason);
    model.validate().map_err(|e| unwritable(e.to_string()))?;
    precision.check_all(path, &model.weights)?;
    let metadata = metadata(model).map_err(unwritable)?;
    let tensors =
        model.weights.iter().map(|(name, tensor)| (name.as_str(), Values::Floats(tensor, precision))).collect();
    container::write(path, (Kind::Model, MODEL_VERSION), metadata, &tensors, provenance)
}

/// What a model says of itself, but for its tensors.
pub(crate) fn metadata(model: &Model) -> Result<BTreeMap<&'static str, String>, String> {
    let mut metadata = BTreeMap::from([
        (FORMAT, "pt".to_owned()),
        (GRAPH, json::encode("graph", &model.graph)?),
        (TASKS, json::encode("list of tasks", &model.tasks)?),
        (PREPROCESS, json::encode("preprocessing", &model.preprocess)?),
    ]);
    if let Some(joint) = &model.joint {
        metadata.insert(JOINT, json::encode("joint prediction", joint)?);
    }
    Ok(metadata)
}

/// A state dict from somebody else's safetensors file.
#[derive(Debug, Clone, PartialEq)]
pub struct Foreign {
    /// The floating-point tensors, in f32.
    pub weights: StateDict,
    /// How most of them are stored.
    pub precision: Precision,
    /// What was left out, by name, and its type and shape: `I64 []`.
    pub dropped: BTreeMap<String, String>,
    /// The file's own metadata.
    pub metadata: BTreeMap<String, String>,
    /// BLAKE3 of the content, however its header is spelled: what a model's `zipit.digest` is.
    pub digest: String,
}

impl Foreign {
    /// Whether it is none of somebody else's, but a model of ours.
    #[must_use]
    pub fn is_model(&self) -> bool {
        self.metadata.get(container::KIND).is_some_and(|kind| kind == Kind::Model.code())
    }
}

/// Reads any safetensors file: F16, BF16, F32 and F64 become f32; tensors of other types are left out and listed.
/// Numbers are not judged.
///
/// # Errors
/// A file that cannot be read, is no safetensors file, or is damaged.
pub fn read_foreign_safetensors(path: &Path) -> Result<Foreign> {
    let bytes = container::read_bytes(path, Kind::Safetensors)?;
    let container = Container::parse(path, Kind::Safetensors, &bytes)?;
    let is_float = |dtype| matches!(dtype, Dtype::F16 | Dtype::BF16 | Dtype::F32 | Dtype::F64);
    let (floats, others): (Vec<_>, Vec<_>) =
        container.header.tensors.iter().partition(|(_, info)| is_float(info.dtype));
    Ok(Foreign {
        weights: container
            .all_f32(floats.iter().map(|(name, _)| name.as_str()))
            .map_err(|e| Error::contents(path, Kind::Safetensors, &e))?,
        precision: container.header.precision(),
        dropped: others
            .into_iter()
            .map(|(name, info)| (name.clone(), format!("{} {:?}", info.dtype, info.shape)))
            .collect(),
        metadata: container.header.metadata.clone(),
        digest: container.digest(),
    })
}
