//! What `collect` measured of the fine-tunes, for the rules that weigh by it.

use anyhow::{bail, ensure};
use ndarray::Array2;
use std::collections::BTreeMap;
use std::path::PathBuf;
use zipit::graph::Op;
use zipit::refit::Gram;
use zipit::refit::gram::{by_columns, by_rows};
use zipit::task_vector::{Network, Rule, Solved, Source};
use zipit::{Error, Fisher, Moments, Result};
use zipit_artifact::header::InputRef;
use zipit_artifact::stats::GramKind;
use zipit_artifact::{StatsReader, WeightsReader};

/// Networks, and what was measured of each fine-tune.
pub struct Measured<'a> {
    networks: &'a dyn Source,
    files: Vec<StatsReader>,
    /// Of every fine-tune, its file and its place in it.
    places: Vec<(usize, usize)>,
    /// Of every fine-tune where the rule takes it.
    fisher: Vec<Fisher>,
    /// Module and op of the layer with this weight.
    layers: BTreeMap<String, (String, Op)>,
    rule: Rule,
}

impl Measured<'_> {
    /// Opens files of whole collections.
    pub fn open(paths: &[PathBuf]) -> anyhow::Result<Vec<StatsReader>> {
        let mut files = Vec::new();
        for path in paths {
            let file = StatsReader::open(path)?;
            let (header, path) = (file.header(), path.display());
            ensure!(header.is_complete(), "{path} is of an interrupted `collect`: the same command goes on");
            if let Some((i, n)) = header.shard {
                bail!("{path} is shard {i} of {n}: add them up by `collect --reduce`");
            }
            files.push(file);
        }
        Ok(files)
    }
}

impl<'a> Measured<'a> {
    /// What `files` say of the fine-tunes, one at least, as the `rule` takes it. Where `normalize`, the
    /// Fisher information of each is divided by its norm.
    pub fn of(
        networks: &'a dyn Source,
        files: Vec<StatsReader>,
        (rule, normalize): (Rule, bool),
        tuned: &[WeightsReader],
    ) -> anyhow::Result<Self> {
        if !rule.takes_measured() {
            return Ok(Self { networks, files, places: vec![], fisher: vec![], layers: BTreeMap::new(), rule });
        }
        let place = |network: &WeightsReader| -> anyhow::Result<(usize, usize)> {
            let digest = network.input_ref().blake3;
            for (at, file) in files.iter().enumerate() {
                if let Some(i) = file.header().models.iter().position(|model| model.blake3 == digest) {
                    return Ok((at, i));
                }
            }
            let others = files.iter().flat_map(|file| &file.header().models);
            let others: Vec<&str> = others.map(|model| model.name.as_str()).collect();
            bail!(
                "{} was not measured: --stats is of {}; give one file of `collect` for all networks, or one for each",
                network.header().path.display(),
                if others.is_empty() { "none".to_owned() } else { format!("other networks ({})", others.join(", ")) }
            );
        };
        let places = tuned.iter().map(place).collect::<anyhow::Result<Vec<_>>>()?;
        for &(at, _) in &places {
            let (header, path) = (files[at].header(), files[at].path().display());
            let (there, flags) = match rule {
                Rule::Fisher => (header.fisher, "--fisher"),
                Rule::RegMean { .. } => (header.gram == Some(GramKind::Own), "--gram own"),
                _ => (header.gram == Some(GramKind::Own) && header.gradients, "--gram own --gradients"),
            };
            ensure!(there, "{path} lacks what this rule weighs by: collect with {flags}");
        }
        let mut fisher = Vec::new();
        if matches!(rule, Rule::Fisher) {
            let of_files = files.iter().map(StatsReader::fisher).collect::<Result<Vec<_>, _>>()?;
            fisher.extend(places.iter().map(|&(at, i)| mean(&of_files[at][i], normalize)));
        }
        let layer = |node: &zipit::graph::Node| {
            let is_layer = matches!(node.op, Op::Conv2d { .. } | Op::Linear { .. });
            let module = node.module.clone().filter(|_| is_layer)?;
            Some((node.tensor("weight"), (module, node.op.clone())))
        };
        let layers = tuned[0].header().graph.nodes.iter().filter_map(layer).collect();
        Ok(Self { networks, files, places, fisher, layers, rule })
    }

    /// The files, as inputs of what is made.
    pub fn input_refs(files: &[StatsReader]) -> impl Iterator<Item = InputRef> {
        files.iter().map(StatsReader::input_ref)
    }

    fn layer(&self, name: &str) -> Result<&(String, Op)> {
        self.layers.get(name).ok_or_else(|| Error::Source(format!("`{name}` is no weight of a layer")))
    }

    fn own(&self, t: usize, read: impl Fn(&StatsReader) -> zipit_artifact::Result<Gram>) -> Result<Moments> {
        let (at, i) = self.places[t];
        let file = &self.files[at];
        match read(file).map_err(|e| Error::Source(e.to_string()))? {
            Gram::Own(mut each) if i < each.len() => Ok(each.swap_remove(i)),
            _ => Err(Error::Source(format!("{} holds no moments of each network by itself", file.path().display()))),
        }
    }
}

/// Per image, or in units of its norm.
fn mean(fisher: &Fisher, normalize: bool) -> Fisher {
    let all = || fisher.sums.values().flatten();
    let norm = if normalize { all().map(|x| x * x).sum::<f64>().sqrt() } else { fisher.count as f64 };
    let share = |x: &f64| if norm > 0.0 { x / norm } else { 0.0 };
    let sums = fisher.sums.iter().map(|(name, sums)| (name.clone(), sums.iter().map(share).collect())).collect();
    Fisher { count: 1, sums }
}

impl Source for Measured<'_> {
    fn read(&self, of: Network, name: &str, start: usize, into: &mut [f32]) -> Result<()> {
        self.networks.read(of, name, start, into)
    }

    fn is_measured(&self, name: &str) -> bool {
        if let Rule::Fisher = self.rule {
            return self.fisher.iter().all(|fisher| fisher.sums.contains_key(name));
        }
        let Some((module, _)) = self.layers.get(name) else { return false };
        self.places.iter().all(|&(at, _)| {
            let header = self.files[at].header();
            let inputs = header.layers.iter().any(|(layer, _)| layer == module);
            let gradients = || header.gradient_layers().iter().any(|(layer, _)| layer == module);
            inputs && (!matches!(self.rule, Rule::Mats { .. }) || gradients())
        })
    }

    fn fisher(&self, t: usize, name: &str, start: usize, into: &mut [f64]) -> Result<()> {
        let numbers = self.fisher.get(t).and_then(|fisher| fisher.sums.get(name)?.get(start..start + into.len()));
        let numbers =
            numbers.ok_or_else(|| Error::Source(format!("`{name}` has another size where it was measured")))?;
        into.copy_from_slice(numbers);
        Ok(())
    }

    fn inputs(&self, t: usize, name: &str) -> Result<Vec<Array2<f64>>> {
        let (module, op) = self.layer(name)?;
        let own = self.own(t, |file| file.gram(module))?;
        by_columns(op, &own).ok_or_else(|| Error::Source(format!("`{module}` was measured as another layer")))
    }

    fn gradients(&self, t: usize, name: &str) -> Result<Vec<Array2<f64>>> {
        let (module, op) = self.layer(name)?;
        let own = self.own(t, |file| file.gradients(module))?;
        by_rows(op, &own).ok_or_else(|| Error::Source(format!("`{module}` was measured as another layer")))
    }
}

/// How equations were solved, where they were.
pub fn tell(solved: &[Solved]) {
    for Solved { name, n_iterations, residual } in solved {
        tracing::debug!("`{name}`: {residual:.1e} of the residual is left after {n_iterations} iterations");
    }
    if let Some(worst) = solved.iter().max_by(|a, b| a.residual.total_cmp(&b.residual)) {
        let n = solved.iter().map(|of| of.n_iterations).max().unwrap_or(0);
        tracing::info!(
            "{} tensors solved by conjugate gradients in {n} iterations at most; at most {:.1e} of a residual is left (`{}`)",
            solved.len(),
            worst.residual,
            worst.name
        );
    }
}
