//! What came out of an experiment: what `results.json` holds, and everything the page and the tables show.
//!
//! Accuracies are shares in 0…1.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use zipit::report::{DataUsed, RowKind};

/// The results of one experiment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Results {
    /// The experiment's name: its file without `.toml`.
    pub name: String,
    /// Its heading.
    pub title: String,
    /// What is asked, in paragraphs.
    pub about: String,
    /// The commit the programs were built of, where git tells; `+` where files were changed.
    pub commit: Option<String>,
    /// Processor, number of processors, operating system.
    pub machine: String,
    /// The images that accuracies were measured on.
    pub data: Vec<DataUsed>,
    /// What the cases' `x` is, where they stand on an axis: `number of networks`, `width`.
    pub axis: Option<String>,
    /// Whether joint accuracy makes sense: the tasks' classes differ.
    pub joint: bool,
    /// One per case of the experiment.
    pub cases: Vec<CaseResults>,
    /// Figures of others.
    pub published: Vec<PublishedRow>,
    /// Where the time went, by stage, in the order of the pipeline.
    pub time: Vec<StageTime>,
    /// What a reader must know, under the table.
    pub notes: Vec<String>,
}

/// One case: networks that were merged in every way, several merge sets of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaseResults {
    /// What it is called.
    pub name: String,
    /// Its place on the axis.
    pub x: Option<f64>,
    /// The networks of each merge set, by their files' names.
    pub sets: Vec<Vec<String>>,
    /// The table.
    pub rows: Vec<RowResult>,
    /// What was chosen on validation images, and of what.
    pub choices: Vec<ChoiceResult>,
    /// A look into one merged network of the first merge set.
    pub shown: Option<Shown>,
}

/// A row: one way to merge, over all merge sets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[allow(clippy::struct_excessive_bools, reason = "each is a column of its own")]
#[serde(deny_unknown_fields)]
pub struct RowResult {
    /// What it is called: `ward full refit`.
    pub model: String,
    /// Networks as trained (all of a set together: one row per task), ensembles, merged networks.
    pub kind: RowKind,
    /// What rows of one curve have in common: matching and rule without the extent (`ward refit`); empty where a row is
    /// in no curve.
    pub series: String,
    /// What is merged: `full`, `to 13/20`, `budget 1.5`; empty for networks that are not merged.
    pub extent: String,
    /// Each task's accuracy, the head of the image's task, by the task's name. A single network has its own only.
    pub tasks: BTreeMap<String, Stat>,
    /// Mean of the tasks.
    pub task_avg: Stat,
    /// All classes together, softmax within each head.
    pub joint: Option<Stat>,
    /// After each head's temperature and bias.
    pub calibrated: Option<Stat>,
    /// With the task gate.
    pub gate: Option<Stat>,
    /// Multiply-adds of one image, mean over the merge sets.
    pub macs: f64,
    /// In units of one of the networks.
    pub relative_macs: f64,
    /// Parameters.
    pub params: f64,
    /// In units of one of the networks.
    pub relative_params: f64,
    /// Unlabelled images by stage: `collect`, `recalibrate`, `refit`, `adapt`, `gate`.
    pub images: BTreeMap<String, u64>,
    /// Whether class labels were used.
    pub labels: bool,
    /// Whether it was told from which task's data each image came.
    pub task_identity: bool,
    /// Whether gradients by its weights were.
    pub gradients: bool,
    /// Whether gradients through the source networks were.
    #[serde(default)]
    pub source_gradients: bool,
    /// Of masked networks, how many masks: which one is meant must be known, so that they are compared with no network that
    /// needs no such knowledge.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub masks: Option<u64>,
    /// Accuracy of every class by its task's head, mean over the merge sets, in the order of the tasks.
    pub classes: Vec<ClassAccuracy>,
}

/// Accuracy on the images of one class.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassAccuracy {
    /// Its task.
    pub task: String,
    /// The class.
    pub class: String,
    /// In 0…1.
    pub accuracy: f64,
}

/// A figure over merge sets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stat {
    /// Mean.
    pub mean: f64,
    /// Sample standard deviation; `None` of one merge set.
    pub std: Option<f64>,
    /// Of each merge set.
    pub values: Vec<f64>,
}

impl Stat {
    /// Mean and sample standard deviation.
    ///
    /// ```
    /// let stat = zipit_report::results::Stat::new(vec![1.0, 3.0]).unwrap();
    /// assert_eq!((stat.mean, stat.std), (2.0, Some(2.0_f64.sqrt())));
    /// assert_eq!(zipit_report::results::Stat::new(vec![]), None);
    /// ```
    #[must_use]
    pub fn new(values: Vec<f64>) -> Option<Self> {
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let squares: f64 = values.iter().map(|x| (x - mean).powi(2)).sum();
        let std = (values.len() > 1).then(|| (squares / (n - 1.0)).sqrt());
        if values.is_empty() { None } else { Some(Self { mean, std, values }) }
    }
}

/// What was tried on validation images.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChoiceResult {
    /// The choice's name.
    pub name: String,
    /// On so many merge sets.
    pub n_sets: usize,
    /// The winner's name.
    pub best: String,
    /// All of them.
    pub candidates: Vec<CandidateResult>,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CandidateResult {
    /// What it is called.
    pub model: String,
    /// zip's α.
    pub alpha: Option<f64>,
    /// zip's β.
    pub beta: Option<f64>,
    /// Mean task average on validation images.
    pub task_avg: f64,
}

/// One merged network, looked into.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shown {
    /// Which row.
    pub model: String,
    /// Its networks.
    pub networks: Vec<String>,
    /// Its merge points, in the network's order.
    pub points: Vec<PointGroups>,
    /// The commands that made it, in order, with paths.
    pub commands: Vec<String>,
    /// What it was made of: the provenance in its file.
    pub chain: Made,
}

/// The groups of one merge point.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PointGroups {
    /// The merge point.
    pub name: String,
    /// Features of all networks, N·d.
    pub n_features: usize,
    /// Groups of one feature.
    pub single: usize,
    /// Groups of several features of one network.
    pub within: usize,
    /// Groups of features of several networks.
    pub across: usize,
    /// How many groups there are of each size.
    pub sizes: BTreeMap<usize, usize>,
}

/// A file and what it was made of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Made {
    /// The file's name.
    pub file: String,
    /// BLAKE3.
    pub blake3: String,
    /// Program and version; empty where it is not known.
    pub tool: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// What it was made of.
    pub from: Vec<Made>,
}

/// Where the time went.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StageTime {
    /// Which binary.
    pub stage: String,
    /// Files it made for this experiment.
    pub n_files: usize,
    /// Seconds, summed over the files; runs side by side count each.
    pub seconds: f64,
}

/// A figure of others.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublishedRow {
    /// Where it stands.
    pub source: String,
    /// What differs from ours.
    pub setting: String,
    /// The row's name there.
    pub model: String,
    /// In 0…1.
    pub joint: Option<f64>,
    /// In 0…1.
    pub task_avg: Option<f64>,
    /// In units of one network.
    pub relative_macs: Option<f64>,
}

/// Correlation of the features at one merge point, in the order of their groups. It is drawn and not kept.
#[derive(Debug, Clone, PartialEq)]
pub struct HeatMap {
    /// The case and the merge point it is of.
    pub case: String,
    /// The merge point.
    pub point: String,
    /// For every place of the map, the group.
    pub group: Vec<u32>,
    /// For every place of the map, the network, from 0.
    pub network: Vec<u32>,
    /// R in −1…1, `[n, n]`, rows and columns in that order.
    pub correlation: ndarray::Array2<f64>,
}
