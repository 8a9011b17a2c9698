//! The networks: opened, compared, read tensor by tensor.

use anyhow::{Context, bail};
use std::collections::BTreeMap;
use std::path::PathBuf;
use zipit::apply::{Heads, differences};
use zipit::task_vector::{Joined, Kin, Made, Network, Outline, Part, Source, join, told_apart};
use zipit::{Error, Model, Preprocess, Result, Task};
use zipit_artifact::header::InputRef;
use zipit_artifact::model::ModelHeader;
use zipit_artifact::{Precision, WeightsReader, masked};

/// Files whose tensors are read as they are asked for.
pub struct Networks {
    base: Option<WeightsReader>,
    tuned: Vec<WeightsReader>,
}

impl Source for Networks {
    fn read(&self, of: Network, name: &str, start: usize, into: &mut [f32]) -> Result<()> {
        let file = match of {
            Network::Base => self.base.as_ref(),
            Network::Tuned(t) => self.tuned.get(t),
        };
        let file = file.ok_or_else(|| Error::Source(format!("there is no such network: {of:?}")))?;
        file.read(name, start, into).map_err(|e| Error::Source(e.to_string()))
    }
}

impl Networks {
    /// Opens them, the base first if there is one, and checks that they are of one kind.
    pub fn open(paths: &[PathBuf], with_base: bool) -> anyhow::Result<Self> {
        let mut files = WeightsReader::open_all(paths)?;
        if let Some(gated) = files.iter().find(|file| file.header().joint.is_some()) {
            let path = gated.header().path.display();
            bail!(
                "{path} has a gate, or calibrated heads, which are about its own features: give the network from before `gate`"
            );
        }
        let parts: Vec<_> = files.iter().map(|file| (&file.header().graph, &file.header().preprocess)).collect();
        let found = if parts.len() > 1 { differences(&parts) } else { vec![] };
        if !found.is_empty() {
            return Err(Error::Mismatch(found)).with_context(|| numbered(paths));
        }
        let base = with_base.then(|| files.remove(0));
        Ok(Self { base, tuned: files })
    }

    fn all(&self) -> impl Iterator<Item = &WeightsReader> {
        self.base.iter().chain(&self.tuned)
    }

    pub fn input_refs(&self) -> Vec<InputRef> {
        self.all().map(WeightsReader::input_ref).collect()
    }

    /// The fine-tunes.
    pub fn tuned(&self) -> &[WeightsReader] {
        &self.tuned
    }

    /// As the first fine-tune is stored.
    pub fn precision(&self) -> Precision {
        self.tuned[0].header().precision
    }

    pub fn preprocess(&self) -> Preprocess {
        self.tuned[0].header().preprocess.clone()
    }

    /// Multiply-adds and parameters of one network.
    pub fn cost(&self) -> anyhow::Result<zipit::graph::Cost> {
        Ok(self.tuned[0].header().graph.cost()?)
    }

    pub fn join(&self, heads: Heads) -> anyhow::Result<Joined> {
        let base = self.base.as_ref().map(|file| outline(file.header()));
        let tuned: Vec<Outline<'_>> = self.tuned.iter().map(|file| outline(file.header())).collect();
        let paths: Vec<PathBuf> = self.all().map(|file| file.header().path.clone()).collect();
        join(base, &tuned, heads).with_context(|| numbered(&paths))
    }

    /// The networks as they are, apart from each other; of what `joined` makes by a rule they keep masks.
    pub fn apart(&self, joined: &Joined) -> masked::Outline {
        let tuned: Vec<Outline<'_>> = self.tuned.iter().map(|file| outline(file.header())).collect();
        let member = |(of, tasks): (&Outline<'_>, Vec<Task>)| masked::Member { graph: of.graph.clone(), tasks };
        let shared = joined.parts.iter().filter(|part| part.made == Made::ByRule);
        masked::Outline {
            networks: tuned.iter().zip(told_apart(&tuned)).map(member).collect(),
            preprocess: self.preprocess(),
            shared: shared.map(|part| (part.tensor.name.clone(), part.tensor.shape.clone())).collect(),
        }
    }

    /// Says which networks are no fine-tunes of the base, as far as one can see.
    pub fn warn_of_strangers(&self, kin: &Kin) {
        let cosine = |cosine: Option<f64>| cosine.map_or_else(|| "none".to_owned(), |c| format!("{c:.2}"));
        tracing::debug!(
            "cosines of weights to the base's: {}; of task vectors to each other: {}",
            kin.to_base.iter().map(|&c| cosine(c)).collect::<Vec<_>>().join(", "),
            cosine(kin.between_vectors)
        );
        let between = kin.between_vectors.map(|between| {
            format!(
                " (task vectors have {between:.2} with each other; those of fine-tunes have little, those of networks that have \
                 nothing to do with the base 0.5)"
            )
        });
        for (t, to_base) in kin.strangers() {
            tracing::warn!(
                "{} seems to be no fine-tune of the base: the cosine of their weights is {to_base:.2}{}; networks of several \
                 initialisations are merged by `collect`, `match` and `refit`",
                self.tuned[t].header().path.display(),
                between.as_deref().unwrap_or_default()
            );
        }
    }
}

fn outline(header: &ModelHeader) -> Outline<'_> {
    Outline { graph: &header.graph, tasks: &header.tasks, shapes: &header.shapes }
}

fn numbered(paths: &[PathBuf]) -> String {
    let each = paths.iter().enumerate().map(|(i, path)| format!("model {} is {}", i + 1, path.display()));
    each.collect::<Vec<_>>().join(", ")
}

/// The result without its numbers, and the shapes of those.
pub fn outline_of(joined: &Joined, preprocess: Preprocess) -> (Model, BTreeMap<String, Vec<usize>>) {
    let shapes = joined.parts.iter().map(|Part { name, tensor, .. }| (name.clone(), tensor.shape.clone())).collect();
    let (graph, tasks) = (joined.graph.clone(), joined.tasks.clone());
    (Model { graph, weights: BTreeMap::new(), tasks, preprocess, joint: None }, shapes)
}
