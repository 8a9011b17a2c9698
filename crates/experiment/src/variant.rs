//! One way to merge: a row of the table.

use serde::Deserialize;
use std::fmt;
use std::path::PathBuf;

/// The matchings of `match --method`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MethodName {
    /// Greedy, within and across networks.
    Zip,
    /// Ward's linkage, on correlations.
    Ward,
    /// Ward's linkage on what features do to the logits, by which they count in their groups (`collect --importance`).
    Importance,
    /// One feature kept of every group, by the same.
    Select,
    /// Average linkage.
    Average,
    /// k-means.
    Kmeans,
    /// One feature to one, by activations.
    Permute,
    /// One feature to one, by weights.
    Weight,
    /// By both.
    Mudsc,
    /// Linear maps.
    Cca,
    /// The best pairing of two networks' features.
    Optimal,
    /// Weight averaging.
    Identity,
    /// None: fine-tunes of one base, by a rule of `combine`.
    #[serde(skip)]
    Combine,
}

impl MethodName {
    /// Whether it takes statistics that hold importance.
    #[must_use]
    pub fn weighs(self) -> bool {
        matches!(self, Self::Importance | Self::Select)
    }
}

impl fmt::Display for MethodName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Zip => "zip",
            Self::Ward => "ward",
            Self::Importance => "importance",
            Self::Select => "select",
            Self::Average => "average",
            Self::Kmeans => "kmeans",
            Self::Permute => "permute",
            Self::Weight => "weight",
            Self::Mudsc => "mudsc",
            Self::Cca => "cca",
            Self::Optimal => "optimal",
            Self::Identity => "identity",
            Self::Combine => "combine",
        })
    }
}

/// A matching with its parameters, or a rule for fine-tunes of one base.
#[derive(Debug, Clone, PartialEq)]
pub struct Method {
    /// Which.
    pub name: MethodName,
    /// zip: α and β.
    pub alpha_beta: Option<(f64, f64)>,
    /// combine: the rule.
    pub combined: Option<Combined>,
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.combined, self.alpha_beta) {
            (Some(combined), _) => combined.fmt(f),
            (None, Some((alpha, beta))) => write!(f, "{} α={alpha} β={beta}", self.name),
            (None, None) => self.name.fmt(f),
        }
    }
}

/// A rule of `combine`, as its command line has it.
#[derive(Debug, Clone, PartialEq)]
pub struct Combined {
    /// What stands after `--rule`: `ties --density 0.2`.
    pub rule: String,
    /// `--scale`.
    pub scale: Option<f64>,
}

impl Combined {
    /// As the command line has it.
    #[must_use]
    pub fn flags(&self) -> String {
        let scale = self.scale.map(|scale| format!(" --scale {scale}")).unwrap_or_default();
        format!("--rule {}{scale}", self.rule)
    }

    /// What `collect` has to measure of every network for the rule; none for most.
    #[must_use]
    pub fn measured(&self) -> Option<&'static str> {
        match self.rule.split(' ').next() {
            Some("fisher") => Some("--fisher"),
            Some("regmean") => Some("--gram own"),
            Some("mats") => Some("--gram own --gradients"),
            _ => None,
        }
    }

    /// Whether networks stay apart, in a file of masks of which the task says which (`emr`).
    #[must_use]
    pub fn masks(&self) -> bool {
        self.rule.split(' ').next() == Some("emr")
    }

    /// In paths.
    #[must_use]
    pub fn slug(&self) -> String {
        self.flags().trim_start_matches("--rule ").replace(" --", "_").replace(' ', "")
    }
}

impl fmt::Display for Combined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.rule.replace(" --", ", "))?;
        if self.masks() {
            return f.write_str(", task known");
        }
        self.scale.map_or(Ok(()), |scale| write!(f, ", λ = {scale}"))
    }
}

/// Which part of the networks is merged, and how wide it is.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(try_from = "String")]
pub enum Extent {
    /// Everything, as wide as one network.
    Full,
    /// Up to a point: a trunk, then heads.
    To(String),
    /// From a point on: stems, then a trunk.
    From(String),
    /// Widths chosen for a number of FLOPs, in units of one network's.
    Budget(f64),
}

impl TryFrom<String> for Extent {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let wrong = || format!("extent `{text}`: write full, \"to POINT\", \"from POINT\" or \"budget 0.75\"");
        match text.split_once(' ') {
            None if text == "full" => Ok(Self::Full),
            Some(("to", point)) => Ok(Self::To(point.trim().to_owned())),
            Some(("from", point)) => Ok(Self::From(point.trim().to_owned())),
            Some(("budget", budget)) => {
                let budget = budget.trim().parse().map_err(|_| wrong())?;
                if budget > 0.0 { Ok(Self::Budget(budget)) } else { Err(wrong()) }
            }
            _ => Err(wrong()),
        }
    }
}

impl fmt::Display for Extent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str("full"),
            Self::To(point) => write!(f, "to {point}"),
            Self::From(point) => write!(f, "from {point}"),
            Self::Budget(budget) => write!(f, "budget {budget}"),
        }
    }
}

/// How features come back after a merge, or how the layers are solved again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// The group's value to every member (the authors').
    Pinv,
    /// Least squares from all merged features.
    Covariance,
    /// Every layer solved again on the merged network's own activations.
    Refit,
    /// The same, but layers that write one sum are solved one after the other.
    RefitOneByOne,
    /// `Refit`, with two rounds more for what activations let through.
    RefitRounds,
    /// A scale and a shift per feature.
    Repair,
    /// Every layer solved on the networks' activations.
    Layerwise,
    /// The same from moments, without images.
    Gram,
    /// From each network's own moments (`RegMean`).
    GramOwn,
}

impl Rule {
    /// Whether layers are solved image by image, so that not every network has to be believed on all of them.
    #[must_use]
    pub fn asks(self) -> bool {
        matches!(self, Self::Refit | Self::RefitOneByOne | Self::RefitRounds | Self::Layerwise)
    }

    /// Whether layers are solved again, so that nothing has to be reset.
    #[must_use]
    pub fn refits(self) -> bool {
        !matches!(self, Self::Pinv | Self::Covariance)
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pinv => "pinv",
            Self::Covariance => "covariance",
            Self::Refit => "refit",
            Self::RefitOneByOne => "refit-one-by-one",
            Self::RefitRounds => "refit-rounds",
            Self::Repair => "repair",
            Self::Layerwise => "layerwise",
            Self::Gram => "gram",
            Self::GramOwn => "gram-own",
        })
    }
}

/// What the name of a row says of a network that was adapted from random weights.
pub const FROM_SCRATCH: &str = " from random weights";

/// How a merged network is improved by gradients: `no`, or `2000 images 10 epochs`, `… from scratch`.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(try_from = "String")]
pub enum Adapted {
    /// Not at all.
    No,
    /// By `adapt`.
    Yes {
        /// How many unlabelled images.
        images: u64,
        /// Passes over them.
        epochs: f64,
        /// Whether its weights are thrown away before.
        from_scratch: bool,
    },
}

impl TryFrom<String> for Adapted {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let wrong = || format!("adapt `{text}`: write no, \"2000 images 10 epochs\" or \"… from scratch\"");
        let words: Vec<&str> = text.split_whitespace().collect();
        let (images, epochs, from_scratch) = match words[..] {
            ["no"] => return Ok(Self::No),
            [images, "images", epochs, "epochs"] => (images, epochs, false),
            [images, "images", epochs, "epochs", "from", "scratch"] => (images, epochs, true),
            _ => return Err(wrong()),
        };
        match (images.parse(), epochs.parse::<f64>()) {
            (Ok(images), Ok(epochs)) if images > 0 && epochs > 0.0 && epochs.is_finite() => {
                Ok(Self::Yes { images, epochs, from_scratch })
            }
            _ => Err(wrong()),
        }
    }
}

/// What becomes of the heads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Heads {
    /// One output per task.
    #[default]
    Separate,
    /// One output for all: of networks that predict the same classes.
    Merge,
}

/// Which network is believed on which image while layers are solved again: `refit --trust`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Trust {
    /// All alike.
    All,
    /// The surest one.
    Surest,
}

impl Trust {
    /// As `refit --trust` takes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Surest => "surest",
        }
    }
}

/// Which images the statistics are taken of.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(from = "String")]
pub enum ImagesFrom {
    /// The classes of all tasks: `tasks`.
    Tasks,
    /// Some classes of the experiment's data: `classes 0-4`.
    Classes(String),
    /// Another data set, whole: its path.
    Data(PathBuf),
}

impl From<String> for ImagesFrom {
    fn from(text: String) -> Self {
        match text.strip_prefix("classes ") {
            Some(classes) => Self::Classes(classes.trim().to_owned()),
            None if text == "tasks" => Self::Tasks,
            None => Self::Data(PathBuf::from(text)),
        }
    }
}

impl fmt::Display for ImagesFrom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tasks => f.write_str("the tasks' images"),
            Self::Classes(classes) => write!(f, "images of classes {classes} only"),
            Self::Data(path) => write!(f, "images of {}", path.file_name().unwrap_or_default().to_string_lossy()),
        }
    }
}

/// One way to merge.
#[derive(Debug, Clone, PartialEq)]
pub struct Variant {
    /// How features are matched.
    pub method: Method,
    /// What is merged.
    pub extent: Extent,
    /// How features come back.
    pub rule: Rule,
    /// Which images.
    pub from: ImagesFrom,
    /// How many, in place of the experiment's numbers.
    pub images: Option<u64>,
    /// What becomes of the heads.
    pub heads: Heads,
    /// Which network is believed on which image.
    pub trust: Trust,
    /// How it is improved afterwards.
    pub adapted: Adapted,
    /// Whether BatchNorm is reset.
    pub reset: bool,
    /// Also with a gate.
    pub gate: bool,
}

impl Variant {
    /// Whether it merges the networks whose statistics were re-estimated on the experiment's own images.
    #[must_use]
    pub fn resets_sources(&self) -> bool {
        self.method.combined.is_none()
            && self.reset
            && !self.rule.refits()
            && self.from == ImagesFrom::Tasks
            && self.images.is_none()
    }

    /// What sets it apart from others of the same matching, extent and rule: `, one head, 300 images`.
    #[must_use]
    pub fn apart(&self) -> String {
        let mut text = String::new();
        if self.heads == Heads::Merge {
            text += ", one head";
        }
        text += match self.trust {
            Trust::All => "",
            Trust::Surest => ", surest network",
        };
        let masks = self.method.combined.as_ref().is_some_and(Combined::masks);
        if !self.reset && !self.rule.refits() && !masks {
            text += ", no reset";
        }
        if let Some(n) = self.images {
            text += &format!(", {n} images");
        }
        if self.from != ImagesFrom::Tasks {
            text += &format!(", {}", self.from);
        }
        if let Adapted::Yes { images, epochs, from_scratch } = self.adapted {
            let start = if from_scratch { FROM_SCRATCH } else { "" };
            let passes = if epochs <= 1.0 { "epoch" } else { "epochs" };
            text += &format!(", adapted{start}, {images} images, {epochs} {passes}");
        }
        text
    }
}

impl Variant {
    /// The curve that it is a point of: what it is whatever its extent.
    #[must_use]
    pub fn series(&self) -> String {
        match self.method.combined {
            Some(_) => format!("{}{}", self.method, self.apart()),
            None => format!("{} {}{}", self.method, self.rule, self.apart()),
        }
    }
}

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.method.combined {
            Some(_) => write!(f, "{}{}", self.method, self.apart()),
            None => write!(f, "{} {} {}{}", self.method, self.extent, self.rule, self.apart()),
        }
    }
}
