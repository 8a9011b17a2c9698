//! The experiment file: every field, and what it may hold.
//!
//! ```toml
//! title = "Fashion-MNIST, 5 + 5 classes"
//! data = ["data/fashion-mnist"]
//!
//! [networks.low]
//! classes = "0-4"
//! seeds = [1, 3]
//!
//! [networks.high]
//! classes = "5-9"
//! seeds = [2, 4]
//!
//! [[cases]]
//! name = "5 + 5"
//! merge = ["low", "high"]
//!
//! [[rows]]
//! method = ["permute", "ward"]
//! rule = ["covariance", "refit"]
//! ```

use crate::variant::{Adapted, Combined, Extent, Heads, ImagesFrom, MethodName, Rule, Trust};
use crate::{Error, Result};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A whole experiment.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Experiment {
    /// The file's name without `.toml`; not written in the file.
    #[serde(skip)]
    pub name: String,
    /// The heading of its report.
    pub title: String,
    /// What is asked, and what a reader must know to judge the answer.
    #[serde(default)]
    pub about: String,
    /// The data sets whose images the statistics are taken of and the networks are measured on.
    pub data: Vec<PathBuf>,
    /// Numbers of unlabelled images.
    #[serde(default)]
    pub images: Images,
    /// How networks are adapted, where a row asks for it.
    #[serde(default)]
    pub adapt: Adapt,
    /// How networks are trained that are not there yet; what a network says itself wins.
    #[serde(default)]
    pub train: Train,
    /// The networks by name, one entry per task.
    pub networks: BTreeMap<String, Network>,
    /// What is merged. The mean and the standard deviation are taken over the merge sets of a case.
    pub cases: Vec<Case>,
    /// How it is merged: each entry is a grid.
    pub rows: Vec<Grid>,
    /// What to draw accuracy against, beside FLOPs: the numbers that the cases give as `x`.
    #[serde(default)]
    pub axis: Option<String>,
    /// Whether the table is about joint accuracy too (`false` where the tasks share their classes).
    #[serde(default = "yes")]
    pub joint: bool,
    /// Figures that others published, to stand beside ours.
    #[serde(default)]
    pub published: Vec<Published>,
}

/// How many unlabelled images each stage takes. None of them needs labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Images {
    /// To match features; refit matches and fits on `refit` images.
    pub collect: u64,
    /// To re-estimate BatchNorm, before and after merging.
    pub reset: u64,
    /// To match and fit by refit, and to fit the gate.
    pub refit: u64,
}

impl Default for Images {
    fn default() -> Self {
        Self { collect: 5000, reset: 2000, refit: 2000 }
    }
}

/// The flags of `adapt`; what is left out is `adapt`'s default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Adapt {
    /// Every second image is mirrored.
    pub flip: bool,
    /// Images are shifted by up to so many pixels.
    pub shift: usize,
    /// In how many ways each is mirrored and shifted.
    pub views: Option<u64>,
    /// Highest learning rate.
    pub lr: Option<f64>,
    /// Convolutions and linear layers compute in bf16.
    pub bf16: bool,
}

impl Adapt {
    /// As the command line has it.
    #[must_use]
    pub fn flags(&self) -> String {
        let mut text = String::new();
        if self.flip {
            text += " --flip";
        }
        if self.shift > 0 {
            text += &format!(" --shift {}", self.shift);
        }
        if let Some(views) = self.views {
            text += &format!(" --views {views}");
        }
        if let Some(lr) = self.lr {
            text += &format!(" --lr {lr}");
        }
        if self.bf16 {
            text += " --bf16";
        }
        text
    }
}

/// The flags of `train`; what is left out is `train`'s default.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Train {
    /// `resnet20`, `vgg11_bn`, …
    pub arch: Option<String>,
    /// The network that it is a fine-tune of, by its name here, in place of `arch` and `width`. Of networks that are there, too:
    /// rules of `combine` need it.
    pub from: Option<String>,
    /// Multiplies the usual number of channels.
    pub width: Option<f64>,
    /// The data set [default: the experiment's first].
    pub data: Option<PathBuf>,
    /// Passes over the images.
    pub epochs: Option<usize>,
    /// Images per step.
    pub batch_size: Option<usize>,
    /// Highest learning rate of the cycle.
    pub lr: Option<f64>,
    /// Weight decay.
    pub weight_decay: Option<f64>,
    /// Share of the target spread over all classes.
    pub label_smoothing: Option<f64>,
    /// `false`: images are not mirrored.
    pub flip: Option<bool>,
    /// Images are shifted by up to so many pixels.
    pub shift: Option<usize>,
    /// Height and width of the network's input.
    pub size: Option<usize>,
    /// Mean of the channels, where networks of several data sets must agree on it.
    pub mean: Option<Vec<f64>>,
    /// Their standard deviation.
    pub std: Option<Vec<f64>>,
    /// `true`: convolutions and linear layers compute in bf16.
    pub bf16: Option<bool>,
    /// A head that all tasks share: a vector per class (`train --embeddings`).
    pub embeddings: Option<PathBuf>,
}

/// Networks of one task, one per seed.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Network {
    /// The task's classes, as `train --classes` takes them [default: all of the data set].
    pub classes: Option<String>,
    /// A network per seed.
    pub seeds: Vec<u64>,
    /// Where the networks are, with `{seed}` for the seed. One that is not there is trained
    /// [default: `runs/networks/EXPERIMENT_NETWORK_seed{seed}.safetensors`].
    pub file: Option<String>,
    /// Settings of its own.
    #[serde(default)]
    pub train: Train,
}

/// What is merged with what.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Case {
    /// What it is called.
    pub name: String,
    /// The networks that are merged, by name.
    pub merge: Vec<String>,
    /// Which seeds meet.
    #[serde(default)]
    pub seeds: Seeds,
    /// Merge every subset of so many of the networks [default: all of them together].
    pub subsets: Option<usize>,
    /// The case's place on the experiment's `axis`.
    pub x: Option<f64>,
}

/// Which seeds of the tasks are merged with each other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Seeds {
    /// The first ones, the second ones, and so on.
    #[default]
    Paired,
    /// Every one of each task with every one of the others.
    Every,
}

/// Rows of the table: every combination of the lists' entries.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Grid {
    /// How features are matched.
    #[serde(default)]
    pub method: Vec<MethodName>,
    /// Matched as this choice was, in place of `method`.
    pub like: Option<String>,
    /// In place of `method` and `rule`, of fine-tunes of one base: what stands after `combine --rule`, with flags.
    #[serde(default)]
    pub combine: Vec<String>,
    /// combine: λ [default: the rule's].
    #[serde(default)]
    pub scale: Vec<f64>,
    /// zip: α.
    #[serde(default)]
    pub alpha: Vec<f64>,
    /// zip: β.
    #[serde(default)]
    pub beta: Vec<f64>,
    /// `full`, `to POINT`, `from POINT`, `budget B`: see `match --stop-at`, `--start-at`, `--budget`.
    #[serde(default = "full")]
    pub extent: Vec<Extent>,
    /// How features come back, or how layers are solved again.
    #[serde(default)]
    pub rule: Vec<Rule>,
    /// Which images the statistics are of.
    #[serde(default = "own")]
    pub images_from: Vec<ImagesFrom>,
    /// Numbers of images to collect, reset and refit on [default: the experiment's].
    #[serde(default)]
    pub images: Vec<u64>,
    /// `merge`: heads of the same classes become one (the tasks then have one output).
    #[serde(default)]
    pub heads: Heads,
    /// Of refit and layerwise: whether `all` networks are believed on an image or the `surest` (`refit --trust`) [default:
    /// surest with one head, else all].
    #[serde(default)]
    pub trust: Vec<Trust>,
    /// Improved by gradients on unlabelled images: `no`, or `2000 images 10 epochs`, from the merged weights or `from scratch`
    /// (`adapt`, with the experiment's `[adapt]`) [default: no].
    #[serde(default = "as_merged")]
    pub adapt: Vec<Adapted>,
    /// `false`: BatchNorm statistics are left as merging makes them, and so are the networks'.
    #[serde(default = "yes")]
    pub reset: bool,
    /// Also with a task gate and calibrated heads (they need to know which task's data an image is from).
    #[serde(default)]
    pub gate: bool,
    /// Only the combination that is best on the validation split comes into the table, under this name.
    pub choose: Option<String>,
    /// Number of merge sets of a case that the choice is made on [default: all].
    pub choose_on: Option<usize>,
    /// Only in these cases [default: all].
    pub cases: Option<Vec<String>>,
}

/// A figure of somebody else's.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Published {
    /// Where it stands.
    pub source: String,
    /// Data, architecture, width: what differs from ours.
    pub setting: String,
    /// The row's name there.
    pub model: String,
    /// Joint accuracy in %, as printed.
    pub joint: Option<f64>,
    /// Task average in %, as printed.
    pub task_avg: Option<f64>,
    /// Multiply-adds in units of one network.
    pub flops: Option<f64>,
}

fn yes() -> bool {
    true
}

fn as_merged() -> Vec<Adapted> {
    vec![Adapted::No]
}

fn full() -> Vec<Extent> {
    vec![Extent::Full]
}

fn own() -> Vec<ImagesFrom> {
    vec![ImagesFrom::Tasks]
}

impl Experiment {
    /// Reads and checks an experiment file.
    ///
    /// # Errors
    /// A file that cannot be read, is no such TOML, or asks for something that does not exist.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        Self::parse(&text, &name).map_err(|reason| Error::invalid(path, reason))
    }

    /// The same from text; `name` is what the experiment is called.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub fn parse(text: &str, name: &str) -> std::result::Result<Self, String> {
        let mut experiment: Self = toml::from_str(text).map_err(|e| e.to_string().trim_end().to_owned())?;
        name.clone_into(&mut experiment.name);
        experiment.check()?;
        Ok(experiment)
    }

    fn check(&self) -> std::result::Result<(), String> {
        let some = |empty: bool, what: &str| if empty { Err(format!("it has no {what}")) } else { Ok(()) };
        some(self.data.is_empty(), "data: name a data set at least")?;
        some(self.cases.is_empty(), "[[cases]]: say what is merged")?;
        some(self.rows.is_empty(), "[[rows]]: say how it is merged")?;
        for (name, network) in &self.networks {
            some(network.seeds.is_empty(), &format!("seeds for network `{name}`"))?;
            if let Some(from) = &network.train.from {
                let base = self
                    .networks
                    .get(from)
                    .ok_or_else(|| format!("network `{name}` is from `{from}`, which is none"))?;
                if base.train.from.is_some() || base.seeds.len() != 1 {
                    return Err(format!(
                        "network `{name}` is from `{from}`: a base is trained from nothing, with one seed"
                    ));
                }
            }
            if network.seeds.len() > 1 && network.file.as_ref().is_some_and(|file| !file.contains("{seed}")) {
                return Err(format!("network `{name}` has several seeds: its `file` must hold {{seed}}"));
            }
        }
        let mut names = Vec::new();
        for case in &self.cases {
            self.check_case(case)?;
            if names.contains(&&case.name) {
                return Err(format!("two cases are called `{}`", case.name));
            }
            names.push(&case.name);
        }
        for grid in &self.rows {
            grid.check()?;
            if let Some(unknown) = grid.cases.iter().flatten().find(|case| !names.contains(case)) {
                return Err(format!("[[rows]] names case `{unknown}`; there are {names:?}"));
            }
            for case in self.cases.iter().filter(|case| !grid.combine.is_empty() && grid.is_of(&case.name)) {
                if self.base_of(case.merge.iter()).is_none() {
                    return Err(format!(
                        "case `{}` is combined, but its networks are not all from one base",
                        case.name
                    ));
                }
            }
            if let Some(like) = &grid.like {
                let chosen = |case: &str| self.choices(case).any(|(name, _)| name == like);
                if let Some(case) = names.iter().find(|case| grid.is_of(case) && !chosen(case)) {
                    return Err(format!("[[rows]] is like `{like}`, but no [[rows]] chooses that in case `{case}`"));
                }
            }
        }
        self.check_for_make()
    }

    /// The base that all these networks are from.
    pub(crate) fn base_of<'a>(&self, mut names: impl Iterator<Item = &'a String>) -> Option<&str> {
        let from = |name: &String| self.networks.get(name)?.train.from.as_deref();
        let first = from(names.next()?)?;
        names.all(|name| from(name) == Some(first)).then_some(first)
    }

    fn check_case(&self, case: &Case) -> std::result::Result<(), String> {
        let name = &case.name;
        let mut seeds = Vec::new();
        for network in &case.merge {
            let known: Vec<&String> = self.networks.keys().collect();
            let Some(found) = self.networks.get(network) else {
                return Err(format!("case `{name}` merges network `{network}`; there are {known:?}"));
            };
            seeds.push(found.seeds.len());
        }
        if case.merge.len() < 2 {
            return Err(format!("case `{name}` merges {} network; merging takes two", case.merge.len()));
        }
        if case.seeds == Seeds::Paired && seeds.iter().any(|n| *n != seeds[0]) {
            return Err(format!(
                "case `{name}` pairs seeds, but its networks have {seeds:?} of them: use seeds = \"every\""
            ));
        }
        match case.subsets {
            Some(n) if !(2..=case.merge.len()).contains(&n) => {
                Err(format!("case `{name}`: subsets = {n}, must be 2 to {}", case.merge.len()))
            }
            _ => Ok(()),
        }
    }

    /// make takes no such characters in the names of files.
    fn check_for_make(&self) -> std::result::Result<(), String> {
        let paths = self.data.iter().map(|p| p.display().to_string());
        let files = self.networks.values().filter_map(|n| n.file.clone());
        let names = self.networks.keys().cloned().chain([self.name.clone()]);
        for text in paths.chain(files).chain(names) {
            if let Some(bad) = text.chars().find(|c| " \t:#%$=\\'\"".contains(*c)) {
                return Err(format!("`{text}` holds {bad:?}, which make does not take in a file's name"));
            }
        }
        Ok(())
    }
}

impl Grid {
    fn check(&self) -> std::result::Result<(), String> {
        let zip = self.method.contains(&MethodName::Zip);
        for (empty, what) in [
            (self.method.is_empty() && self.like.is_none() && self.combine.is_empty(), "method"),
            (self.rule.is_empty() && self.combine.is_empty(), "rule"),
            (self.extent.is_empty(), "extent"),
            (self.images_from.is_empty(), "images-from"),
            (self.adapt.is_empty(), "adapt"),
            (zip && self.alpha.is_empty(), "alpha, which zip needs"),
            (zip && self.beta.is_empty(), "beta, which zip needs"),
        ] {
            if empty {
                return Err(format!("[[rows]] has an empty list of {what}"));
            }
        }
        if !(zip || self.alpha.is_empty() && self.beta.is_empty()) {
            return Err("[[rows]] gives alpha or beta, which belong to method \"zip\"".to_owned());
        }
        if self.like.is_some() && (self.choose.is_some() || !self.method.is_empty()) {
            return Err(
                "[[rows]] with `like` takes its method from a choice: leave out `method` and `choose`".to_owned()
            );
        }
        let matched = self.like.is_some() || !(self.method.is_empty() && self.rule.is_empty());
        if !self.combine.is_empty() && (matched || self.extent != full()) {
            return Err(
                "[[rows]] with `combine` merges all as it stands: leave out method, like, rule and extent".to_owned()
            );
        }
        if self.combine.is_empty() && !self.scale.is_empty() {
            return Err("[[rows]] gives scale, which belongs to `combine`".to_owned());
        }
        let odd = |c: char| !(c.is_ascii_alphanumeric() || " -.,".contains(c));
        if let Some(rule) = self.combine.iter().find(|rule| rule.is_empty() || rule.contains(odd)) {
            return Err(format!("combine `{rule}`: write a rule and its flags, \"ties --density 0.2\""));
        }
        let masks = |rule: &String| Combined { rule: rule.clone(), scale: None }.masks();
        let plain = self.scale.is_empty() && self.heads == Heads::Separate && self.adapt == as_merged();
        if self.combine.iter().any(masks) && (self.gate || !plain) {
            return Err(
                "combine `emr` keeps networks apart, which are measured as they are: give it a [[rows]] without scale, \
                 heads, adapt and gate"
                    .to_owned(),
            );
        }
        if self.gate && self.choose.is_some() {
            return Err("[[rows]] cannot both choose and gate: give the gated row a [[rows]] of its own".to_owned());
        }
        if self.choose_on == Some(0) || (self.choose_on.is_some() && self.choose.is_none()) {
            return Err("choose-on is the number of merge sets (1 or more) that `choose` is decided on".to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
        title = "t"
        data = ["images"]
        networks.a = { seeds = [1, 3] }
        networks.b = { seeds = [2, 4] }
        [[cases]]
        name = "two"
        merge = ["a", "b"]
        [[rows]]
        method = ["ward"]
        rule = ["refit"]
    "#;

    #[test]
    fn every_experiment_of_the_repository_can_be_read() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../experiments");
        let mut n = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            Experiment::read(&entry.unwrap().path()).unwrap();
            n += 1;
        }
        assert!(n >= 12, "{n} experiments");
    }

    #[test]
    fn adapting_is_told_what_is_given() {
        assert_eq!(Adapt::default().flags(), "");
        let all = Adapt { flip: true, shift: 4, views: Some(0), lr: Some(0.002), bf16: true };
        assert_eq!(all.flags(), " --flip --shift 4 --views 0 --lr 0.002 --bf16");
    }

    #[test]
    fn what_is_wrong_is_said() {
        assert_eq!(Experiment::parse(GOOD, "x").unwrap().name, "x");
        for (from, to, said) in [
            ("title", "titel", "unknown field `titel`"),
            ("title = \"t\"", "", "missing field `title`"),
            ("[\"images\"]", "[]", "it has no data"),
            ("[\"images\"]", "[\"my images\"]", "`my images` holds ' ', which make does not take"),
            ("[2, 4]", "[]", "it has no seeds for network `b`"),
            ("[2, 4]", "[2]", "pairs seeds, but its networks have [2, 1] of them"),
            ("{ seeds = [2, 4] }", "{ seeds = [2, 4], file = \"b\" }", "its `file` must hold {seed}"),
            ("[\"a\", \"b\"]", "[\"a\", \"c\"]", "merges network `c`; there are [\"a\", \"b\"]"),
            ("[\"a\", \"b\"]", "[\"a\"]", "merges 1 network"),
            ("[\"a\", \"b\"]", "[\"a\", \"b\"]\nsubsets = 3", "subsets = 3, must be 2 to 2"),
            ("[\"ward\"]", "[\"word\"]", "unknown variant `word`"),
            ("[\"ward\"]", "[]", "an empty list of method"),
            ("[\"ward\"]", "[\"zip\"]", "an empty list of alpha"),
            ("[\"ward\"]", "[\"ward\"]\nalpha = [1]", "which belong to method \"zip\""),
            ("[\"refit\"]", "[\"refit\"]\nextent = [\"half\"]", "extent `half`: write full"),
            ("[\"refit\"]", "[\"refit\"]\nextent = [\"budget -1\"]", "extent `budget -1`"),
            ("[\"refit\"]", "[\"refit\"]\nadapt = [\"10 epochs\"]", "adapt `10 epochs`: write no"),
            ("[\"refit\"]", "[\"refit\"]\nchoose = \"best\"\ngate = true", "cannot both choose and gate"),
            (
                "method = [\"ward\"]\n        rule = [\"refit\"]",
                "combine = [\"emr\"]\nscale = [1]",
                "keeps networks apart",
            ),
            ("[\"refit\"]", "[\"refit\"]\nchoose-on = 2", "choose-on is the number of merge sets"),
            ("[\"refit\"]", "[\"refit\"]\ncases = [\"three\"]", "names case `three`"),
            ("method = [\"ward\"]", "like = \"best\"", "is like `best`, but no [[rows]] chooses that in case"),
            ("method = [\"ward\"]", "combine = [\"ties\"]", "leave out method, like, rule and extent"),
            ("method = [\"ward\"]\n        rule = [\"refit\"]", "combine = [\"ties\"]", "are not all from one base"),
            (
                "method = [\"ward\"]\n        rule = [\"refit\"]",
                "combine = [\"ties; ls\"]",
                "combine `ties; ls`: write a rule",
            ),
            ("[\"refit\"]", "[\"refit\"]\nscale = [1]", "gives scale, which belongs to `combine`"),
            ("{ seeds = [2, 4] }", "{ seeds = [2, 4], train.from = \"c\" }", "is from `c`, which is none"),
            (
                "{ seeds = [2, 4] }",
                "{ seeds = [2, 4], train.from = \"a\" }",
                "a base is trained from nothing, with one seed",
            ),
        ] {
            let text = GOOD.replacen(from, to, 1);
            let error = Experiment::parse(&text, "x").unwrap_err();
            assert!(error.contains(said), "{to}: {error}");
        }
    }
}
