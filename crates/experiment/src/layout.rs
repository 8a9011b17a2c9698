//! Where every stage of every variant writes. A path says what it holds, so two experiments that ask for the same thing
//! share it.

use crate::sets::{MergeSet, stem};
use crate::spec::{Experiment, Images};
use crate::variant::{Adapted, Extent, Heads, ImagesFrom, Rule, Trust, Variant};
use std::path::{Path, PathBuf};

/// Where merges are cached, from the folder that make runs in.
pub const MERGES: &str = "runs/merges";
/// Where networks with re-estimated statistics are.
pub const SOURCES: &str = "runs/sources";
/// Where an experiment's rules and reports are.
pub const EXPERIMENTS: &str = "runs/experiments";

/// Which part of a data set a report is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Split {
    /// What choices are made on.
    Val,
    /// What the table is about.
    Test,
}

impl Split {
    /// As `--split` takes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Val => "val",
            Self::Test => "test",
        }
    }
}

/// The files of one variant of one merge set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// What is merged: the networks as they were trained, or with re-estimated statistics.
    pub sources: Vec<PathBuf>,
    /// Moments at the merge points.
    pub stats: PathBuf,
    /// Moments of what every layer reads, where the rule takes them.
    pub gram: Option<PathBuf>,
    /// The plan.
    pub plan: PathBuf,
    /// The merged network before its statistics are reset.
    pub merged: PathBuf,
    /// The network before it is adapted, where it is.
    pub given: Option<PathBuf>,
    /// The finished network.
    pub network: PathBuf,
    /// With a gate.
    pub gated: PathBuf,
    data: String,
}

impl Files {
    /// The report of the finished network.
    #[must_use]
    pub fn report(&self, split: Split) -> PathBuf {
        self.network.with_file_name(format!("{}_{}.json", split.name(), self.data))
    }

    /// The report of the network with a gate.
    #[must_use]
    pub fn gate_report(&self, split: Split) -> PathBuf {
        self.network.with_file_name(format!("gate_{}_{}.json", split.name(), self.data))
    }
}

/// The reports of what is merged: the networks by themselves and side by side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceFiles {
    /// Every network, and the ensemble.
    pub report: PathBuf,
    /// The networks with re-estimated statistics.
    pub reset: Vec<PathBuf>,
    /// The ensemble of those.
    pub reset_report: PathBuf,
    /// The ensemble with a gate.
    pub gated: PathBuf,
    /// Its report.
    pub gate_report: PathBuf,
}

impl Experiment {
    /// The images that a variant takes: its own number of everything, else the experiment's.
    #[must_use]
    pub fn images_of(&self, variant: &Variant) -> Images {
        variant.images.map_or(self.images, |n| Images { collect: n, reset: n, refit: n })
    }

    /// The data sets a variant's statistics are taken of.
    #[must_use]
    pub fn data_of(&self, from: &ImagesFrom) -> Vec<PathBuf> {
        match from {
            ImagesFrom::Data(path) => vec![path.clone()],
            ImagesFrom::Tasks | ImagesFrom::Classes(_) => self.data.clone(),
        }
    }

    fn data_key(&self, from: &ImagesFrom) -> String {
        let names: Vec<String> = self.data_of(from).iter().map(|path| stem(path)).collect();
        let classes =
            if let ImagesFrom::Classes(classes) = from { format!("_classes{classes}") } else { String::new() };
        names.join("+") + &classes
    }

    /// The classes of all tasks of a set; `None` where a network does not say them, or has several data sets.
    #[must_use]
    pub fn classes_of(&self, set: &MergeSet) -> Option<Vec<&str>> {
        if self.data.len() > 1 {
            return None;
        }
        let mut all = Vec::new();
        for member in &set.members {
            let classes = self.networks.get(&member.network)?.classes.as_deref()?;
            if !all.contains(&classes) {
                all.push(classes);
            }
        }
        Some(all)
    }

    /// The set's networks with statistics re-estimated on `n` images of all tasks.
    #[must_use]
    pub fn reset_sources(&self, set: &MergeSet, from: &ImagesFrom, n: u64) -> Vec<PathBuf> {
        let own = *from == ImagesFrom::Tasks;
        let classes = self.classes_of(set).filter(|_| own).map_or_else(|| "all".to_owned(), |c| c.join("+"));
        let folder = Path::new(SOURCES).join(format!("{}_{classes}_reset{n}", self.data_key(from)));
        set.files().map(|file| folder.join(file.file_name().unwrap_or_default())).collect()
    }

    /// What is measured of one network by itself, as `flags` of `collect` say, on `n` images.
    #[must_use]
    pub fn own_stats(&self, network: &Path, flags: &str, from: &ImagesFrom, n: u64) -> PathBuf {
        let images = if *from == ImagesFrom::Tasks { "own".to_owned() } else { self.data_key(from) };
        let flags = flags.replace("--", "").replace(' ', "-");
        Path::new(SOURCES).join("measured").join(format!("{}_{images}{n}_{flags}.h5", stem(network)))
    }

    /// The files of `variant` of `set`.
    #[must_use]
    pub fn files(&self, set: &MergeSet, variant: &Variant) -> Files {
        let images = self.images_of(variant);
        let data = self.data_key(&variant.from);
        let refits = variant.rule.refits();
        let resets = variant.reset && !refits;
        let combined = variant.method.combined.as_ref();
        let (collect, sources, state) = if refits || combined.is_some() {
            (images.refit, set.files().map(Path::to_owned).collect(), "raw".to_owned())
        } else if resets {
            (images.collect, self.reset_sources(set, &variant.from, images.reset), format!("reset{}", images.reset))
        } else {
            (images.collect, set.files().map(Path::to_owned).collect(), "raw".to_owned())
        };
        let statistics = Path::new(MERGES).join(set.key()).join(format!("{data}_{collect}_{state}"));
        let extent = match &variant.extent {
            Extent::Full => "full".to_owned(),
            Extent::To(point) => format!("to{}", point.replace('/', "of")),
            Extent::From(point) => format!("from{}", point.replace('/', "of")),
            Extent::Budget(budget) => format!("budget{budget}"),
        };
        let method = match variant.method.alpha_beta {
            Some((alpha, beta)) => format!("{}_a{alpha}_b{beta}", variant.method.name),
            None => variant.method.name.to_string(),
        };
        let unmerge = if variant.rule == Rule::Pinv { "pinv" } else { "covariance" };
        let plan = match (combined, self.base(set)) {
            (Some(combined), Some(base)) => {
                let of = Path::new(MERGES).join(set.key()).join(format!("combined_{}_{data}", stem(&base.file)));
                of.join(combined.slug())
            }
            _ => statistics.join(format!("{method}_{extent}_{unmerge}")),
        };
        let made = match variant.rule {
            Rule::Pinv | Rule::Covariance if resets => format!("reset{}", images.reset),
            Rule::Pinv | Rule::Covariance => "plain".to_owned(),
            rule => format!("{rule}{}", images.refit),
        };
        let one = if variant.heads == Heads::Merge { "_one-head" } else { "" };
        let believed = if variant.trust == Trust::All { String::new() } else { format!("_{}", variant.trust.name()) };
        let closed = plan.join(made + one + &believed);
        let (given, network) = match variant.adapted {
            Adapted::No => (None, closed),
            Adapted::Yes { images, epochs, from_scratch } => {
                let flags = self.adapt.flags().replace(" --", "_").replace(' ', "");
                let start = if from_scratch { "_scratch" } else { "" };
                let adapted = closed.join(format!("adapt{images}_{epochs}epochs{start}{flags}"));
                (Some(closed.join("network.safetensors")), adapted)
            }
        };
        Files {
            sources,
            gram: match variant.rule {
                Rule::Gram => Some(statistics.join("gram.h5")),
                Rule::GramOwn => Some(statistics.join("gram-own.h5")),
                _ => None,
            },
            stats: statistics.join(if variant.method.name.weighs() { "importance.h5" } else { "stats.h5" }),
            merged: plan.join(format!("merged{one}.safetensors")),
            plan: plan.join("plan.bin"),
            given,
            gated: network.join("gated.safetensors"),
            network: network.join("network.safetensors"),
            data: self.data_key(&ImagesFrom::Tasks),
        }
    }

    /// The files about what `set` merges.
    #[must_use]
    pub fn source_files(&self, set: &MergeSet) -> SourceFiles {
        let folder = Path::new(MERGES).join(set.key()).join("sources");
        let data = self.data_key(&ImagesFrom::Tasks);
        let gated = folder.join(format!("gated_{data}_{}.safetensors", self.images.refit));
        SourceFiles {
            report: folder.join(format!("test_{data}.json")),
            reset: self.reset_sources(set, &ImagesFrom::Tasks, self.images.reset),
            reset_report: folder.join(format!("reset{}_test_{data}.json", self.images.reset)),
            gate_report: folder.join(format!("gate{}_test_{data}.json", self.images.refit)),
            gated,
        }
    }

    /// The experiment's folder.
    #[must_use]
    pub fn folder(&self) -> PathBuf {
        Path::new(EXPERIMENTS).join(&self.name)
    }
}
