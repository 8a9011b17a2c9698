//! What every file says about itself: what it is, in which format version, who made it and from what.

use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;

/// Format version of a model. New ops and optional metadata come without a new version: a reader refuses an op it does
/// not know by its name. So do outputs that are no vectors of logits: readers before them refuse them by their shape.
///
/// - 1: first.
/// - 2: preprocessing may name an interpolation, a crop mode, a fill, and two sides to resize to. What a file of version 1
///   says means the same, except that for a `size` of unequal sides without `resize` the longer side of a resized image is
///   rounded to the nearest and not down.
pub const MODEL_VERSION: u32 = 2;
/// Format version of stats.
///
/// - 1: first.
/// - 2: what layers read (`collect --gram`).
/// - 3: every model's graph, where heads differ; the ranges of the values that something reads, which tell constant
///   features; products of centred numbers.
/// - 4: importance (`collect --importance`). A file of version 3 has none.
/// - 5: Fisher information and gradients at layers (`collect --fisher`, `--gradients`); files of one model. Files before have none.
pub const STATS_VERSION: u32 = 5;
/// Format version of a plan.
///
/// - 1: first.
/// - 2: dense merge maps beside dense unmerge maps.
/// - 3: the condition number of each unmerge; seeds draw from `ChaCha8`.
/// - 4: what averaging leaves of the spread that a norm divides by.
/// - 5: features without weight in M; the number of constant ones. A file of version 4 has none.
/// - 6: what every feature counts in its group; in files before, all count the same.
pub const PLAN_VERSION: u32 = 6;
/// Format version of a report. Fields that may be missing come without a new version.
///
/// - 1: first.
/// - 2: joint accuracy by every rule; what making a network used.
/// - 3: the images of each class.
pub const REPORT_VERSION: u32 = 3;
/// Format version of masked networks.
///
/// - 1: first.
pub const MASKED_VERSION: u32 = 1;
/// Format version of a training checkpoint.
///
/// - 1: first.
pub const CHECKPOINT_VERSION: u32 = 1;

/// How many files back a chain of provenance goes; a file beyond it keeps its digest and loses what made it.
const MAX_CHAIN: usize = 24;

/// What a file is: one of ours, or a foreign one that a user might offer by mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Kind {
    /// Ours: a network.
    Model,
    /// Ours: networks that share a vector, of which each has a mask.
    Masked,
    /// Ours: moments at the merge points.
    Stats,
    /// Ours: merge and unmerge maps.
    Plan,
    /// Ours: what `eval` found.
    Report,
    /// An HDF5 image data set in our layout.
    Dataset,
    /// Ours: interrupted training.
    Checkpoint,
    /// Tensors without our graph.
    Safetensors,
    /// `torch.save` since PyTorch 1.6.
    PytorchZip,
    /// `torch.jit.save`.
    TorchScript,
    /// `torch.save` before PyTorch 1.6, or another pickle.
    Pickle,
    /// ONNX protobuf.
    Onnx,
    /// llama.cpp's format.
    Gguf,
    /// Keras weights or model in HDF5.
    KerasHdf5,
    /// Another HDF5 file.
    Hdf5,
    /// MNIST's array format.
    Idx,
    /// gzip.
    Gzip,
    /// Another zip archive.
    Zip,
    /// `numpy.save`.
    Numpy,
    /// A JPEG or PNG image.
    Image,
    /// Other JSON.
    Json,
    /// A web page, usually a failed download.
    Html,
    /// What git leaves where `git lfs pull` did not run.
    GitLfsPointer,
    /// Nothing.
    Empty,
    /// A folder.
    Directory,
    /// None of these.
    Unknown,
}

impl Kind {
    /// Whether zipit makes such files.
    #[must_use]
    pub fn is_ours(self) -> bool {
        matches!(
            self,
            Self::Model | Self::Masked | Self::Stats | Self::Plan | Self::Report | Self::Dataset | Self::Checkpoint
        )
    }

    /// One word: in file headers, in [`InputRef::kind`] and in `--format json`.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Model => "model",
            Self::Masked => "masked",
            Self::Stats => "stats",
            Self::Plan => "plan",
            Self::Report => "report",
            Self::Dataset => "dataset",
            Self::Checkpoint => "checkpoint",
            Self::Safetensors => "safetensors",
            Self::PytorchZip => "pytorch",
            Self::TorchScript => "torchscript",
            Self::Pickle => "pickle",
            Self::Onnx => "onnx",
            Self::Gguf => "gguf",
            Self::KerasHdf5 => "keras",
            Self::Hdf5 => "hdf5",
            Self::Idx => "idx",
            Self::Gzip => "gzip",
            Self::Zip => "zip",
            Self::Numpy => "numpy",
            Self::Image => "image",
            Self::Json => "json",
            Self::Html => "html",
            Self::GitLfsPointer => "git-lfs-pointer",
            Self::Empty => "empty",
            Self::Directory => "directory",
            Self::Unknown => "unknown",
        }
    }

    /// What to do about a file of this kind where one of kind `expected` is needed.
    pub(crate) fn advice(self, expected: Kind) -> String {
        let make = match expected {
            Kind::Model => "give a model made by `import`, `train`, `apply` or `recalibrate`",
            Kind::Masked => "give the file that `combine --rule emr` made",
            Kind::Stats => "give the stats that `collect` made",
            Kind::Plan => "give the plan that `match` made",
            Kind::Report => "give the report that `eval` made",
            Kind::Dataset => "give an HDF5 file with train/images, train/labels and classes",
            Kind::Checkpoint => "give the checkpoint that `train` left, or start without one",
            _ => "give a file of that kind",
        };
        match self {
            Self::Masked => {
                "which of its networks is meant must be said for every image, which `eval`, `predict` and `inspect` do; for \
                 one network of all tasks use another rule of `combine`"
                    .to_owned()
            }
            Self::Safetensors | Self::PytorchZip | Self::Pickle if expected == Kind::Model => {
                "turn it into a zipit model with `import`".to_owned()
            }
            Self::TorchScript if expected == Kind::Model => {
                "save the network's state_dict() with torch.save and turn that into a zipit model with `import`"
                    .to_owned()
            }
            Self::Onnx | Self::Gguf | Self::KerasHdf5 if expected == Kind::Model => {
                "zipit imports PyTorch state dicts (.pt, .pth) and .safetensors; export the network to one of them"
                    .to_owned()
            }
            Self::Gzip => format!("unpack it first if it holds such a file, otherwise {make}"),
            Self::GitLfsPointer => "run `git lfs pull` to get the file it stands for".to_owned(),
            Self::Html => "a download probably failed; download it again".to_owned(),
            Self::Empty => format!("whatever wrote it was interrupted; {make}"),
            _ => make.to_owned(),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Model => "a zipit model",
            Self::Masked => "a zipit file of masked networks (combine --rule emr)",
            Self::Stats => "zipit stats",
            Self::Plan => "a zipit plan",
            Self::Report => "a zipit report",
            Self::Dataset => "an HDF5 image data set",
            Self::Checkpoint => "a zipit training checkpoint",
            Self::Safetensors => "a safetensors file that zipit did not write",
            Self::PytorchZip => "a PyTorch checkpoint (zip)",
            Self::TorchScript => "a TorchScript archive",
            Self::Pickle => "a Python pickle (an old PyTorch checkpoint?)",
            Self::Onnx => "an ONNX network",
            Self::Gguf => "a GGUF file",
            Self::KerasHdf5 => "a Keras HDF5 file",
            Self::Hdf5 => "an HDF5 file of another layout",
            Self::Idx => "an IDX array (MNIST's format)",
            Self::Gzip => "a gzip file",
            Self::Zip => "a zip archive",
            Self::Numpy => "a NumPy array",
            Self::Image => "an image",
            Self::Json => "a JSON file of another kind",
            Self::Html => "a web page",
            Self::GitLfsPointer => "a Git LFS pointer",
            Self::Empty => "an empty file",
            Self::Directory => "a folder",
            Self::Unknown => "a file of unknown kind",
        })
    }
}

/// Who made a file and from what. It holds no time and no host: the same inputs give the same bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provenance {
    /// Program and version: `zipit collect 0.1.0`.
    pub tool: String,
    /// Its arguments, without the program's name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// What else the result depends on: versions of libraries, device.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub environment: BTreeMap<String, String>,
    /// The files it was made from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<InputRef>,
    /// Digest of everything that decides the content; an output with the same key is up to date.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub key: String,
}

impl Provenance {
    /// The last run of a stage in the chain.
    #[must_use]
    pub fn last_run_of(&self, stage: &str) -> Option<&Self> {
        if self.tool.split(' ').nth(1) == Some(stage) {
            return Some(self);
        }
        self.inputs.iter().filter_map(|input| input.provenance.as_deref()).find_map(|made| made.last_run_of(stage))
    }

    /// What was given for a flag, as two arguments or as one.
    #[must_use]
    pub fn says(&self, flag: &str) -> Option<&str> {
        let apart =
            self.args.iter().position(|arg| arg == flag).and_then(|at| self.args.get(at + 1)).map(String::as_str);
        apart.or_else(|| self.args.iter().find_map(|arg| arg.strip_prefix(flag)?.strip_prefix('=')))
    }
}

/// A file something was made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputRef {
    /// File name without folders.
    pub name: String,
    /// [`Kind::code`], or the data set's kind.
    pub kind: String,
    /// BLAKE3 of its bytes, in hex.
    pub blake3: String,
    /// What made that file. Within one chain a file that occurs twice keeps it the first time only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provenance: Option<Box<Provenance>>,
}

impl InputRef {
    /// A reference to the file `path` with digest `blake3`, made as `provenance` says.
    #[must_use]
    pub fn new(path: &Path, kind: Kind, blake3: &str, provenance: Option<Provenance>) -> Self {
        Self {
            name: path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned(),
            kind: kind.code().to_owned(),
            blake3: blake3.to_owned(),
            provenance: provenance.map(Box::new),
        }
    }
}

impl Provenance {
    /// The chain with every file explained once, where it is met first, and at most 24 files deep. Without this the
    /// chain would double whenever a merged model is merged again.
    #[must_use]
    pub fn compact(&self) -> Self {
        let mut chain = self.clone();
        chain.prune(&mut BTreeSet::new(), MAX_CHAIN);
        chain
    }

    fn prune(&mut self, seen: &mut BTreeSet<String>, depth: usize) {
        for input in &mut self.inputs {
            if depth == 0 || !seen.insert(input.blake3.clone()) {
                input.provenance = None;
            } else if let Some(inner) = &mut input.provenance {
                inner.prune(seen, depth - 1);
            }
        }
    }
}

/// BLAKE3 of a file's bytes, in hex: what `b3sum` prints.
///
/// # Errors
/// A file that cannot be read.
pub fn hash_file(path: &Path) -> Result<String> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_mmap_rayon(path).map_err(Error::read(path))?;
    Ok(hasher.finalize().to_hex().to_string())
}
