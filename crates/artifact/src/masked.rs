//! Masked networks: fine-tunes of one base as one vector for all and a bit per entry for each (`combine --rule emr`).
//! Which network it is has to be said.

use crate::container::{self, Header, Sink, numbers};
use crate::header::MASKED_VERSION;
use crate::model::{FORMAT, PREPROCESS};
use crate::tensors::Tensors;
use crate::weights::WeightsWriter;
use crate::{Error, InputRef, Kind, Precision, Provenance, Result, json};
use ndarray::ArrayD;
use rayon::prelude::*;
use safetensors::tensor::Dtype;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use zipit::graph::{Cost, Param};
use zipit::task_vector::emr::{PER_BYTE, put_on};
use zipit::{Graph, Model, Preprocess, Task};

const NETWORKS: &str = "zipit.networks";
/// The tensor of the rescalers.
const RESCALERS: &str = "rescalers";

/// One of the networks, without its numbers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// The computation.
    pub graph: Graph,
    /// One per output; no two of the file have one name.
    pub tasks: Vec<Task>,
}

/// Everything but the numbers.
#[derive(Debug, Clone, PartialEq)]
pub struct Outline {
    /// The networks.
    pub networks: Vec<Member>,
    /// The input's contract, of all of them.
    pub preprocess: Preprocess,
    /// Shapes of the tensors that are made of the base's and the unified vector's, by name in every network. All other
    /// tensors are each network's own.
    pub shared: BTreeMap<String, Vec<usize>>,
}

/// A tensor of the file. Networks count from 0, tensors are called as in them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// θ₀.
    Base(String),
    /// τᵤ.
    Unified(String),
    /// Mₜ.
    Mask(usize, String),
    /// As it is in one network.
    Own(usize, String),
    /// λ of every network.
    Rescalers,
}

impl Part {
    fn name(&self) -> String {
        match self {
            Self::Base(name) => format!("{name}/base"),
            Self::Unified(name) => format!("{name}/unified"),
            Self::Mask(t, name) => format!("{name}/mask/{t}"),
            Self::Own(t, name) => format!("{name}/own/{t}"),
            Self::Rescalers => RESCALERS.to_owned(),
        }
    }

    fn dtype(&self, precision: Precision) -> Dtype {
        match self {
            Self::Mask(..) => Dtype::U8,
            Self::Rescalers => Dtype::F64,
            Self::Base(_) | Self::Unified(_) | Self::Own(..) => precision.dtype(),
        }
    }
}

impl Outline {
    /// A network without its numbers.
    ///
    /// # Panics
    /// When there is no such network.
    #[must_use]
    pub fn model(&self, t: usize) -> Model {
        let Member { graph, tasks } = self.networks[t].clone();
        Model { graph, weights: BTreeMap::new(), tasks, preprocess: self.preprocess.clone(), joint: None }
    }

    /// The network that has a task of this name.
    ///
    /// # Errors
    /// None has: which tasks there are.
    pub fn network_of(&self, task: &str) -> Result<usize, String> {
        let tasks = || self.networks.iter().map(|of| of.tasks.iter().map(|task| task.name.as_str()));
        let found = tasks().position(|mut names| names.any(|name| name == task));
        found.ok_or_else(|| {
            let names: Vec<&str> = tasks().flatten().collect();
            format!("there is no task `{task}`; its tasks are: {}", names.join(", "))
        })
    }

    /// Multiply-adds of one network, of the most costly one; parameters and buffers are what is stored, of all of them: the
    /// shared tensors twice, what is the networks' own, and the rescalers. Masks hold no numbers.
    ///
    /// # Errors
    /// A graph that makes no sense.
    pub fn cost(&self) -> zipit::Result<Cost> {
        let mut cost = Cost::default();
        let shared: usize = self.shared.values().map(|shape| volume(shape)).sum();
        cost.params = (2 * shared + self.networks.len()) as u64;
        for Member { graph, .. } in &self.networks {
            cost.macs = cost.macs.max(graph.cost()?.macs);
            for (_, param) in graph.params().iter().filter(|(name, _)| !self.shared.contains_key(*name)) {
                *if param.learned { &mut cost.params } else { &mut cost.buffers } += volume(&param.shape) as u64;
            }
        }
        Ok(cost)
    }

    /// Every tensor of the file with its shape, by its name there.
    fn parts(&self) -> BTreeMap<String, (Part, Vec<usize>)> {
        let mut parts = vec![(Part::Rescalers, vec![self.networks.len()])];
        for (name, shape) in &self.shared {
            parts.push((Part::Base(name.clone()), shape.clone()));
            parts.push((Part::Unified(name.clone()), shape.clone()));
            let mask = |t| (Part::Mask(t, name.clone()), vec![volume(shape).div_ceil(PER_BYTE)]);
            parts.extend((0..self.networks.len()).map(mask));
        }
        for (t, network) in self.networks.iter().enumerate() {
            let own = network.graph.params().into_iter().filter(|(name, _)| !self.shared.contains_key(name));
            parts.extend(own.map(|(name, param)| (Part::Own(t, name), param.shape)));
        }
        parts.into_iter().map(|(part, shape)| (part.name(), (part, shape))).collect()
    }

    /// What can be wrong with it.
    fn validate(&self) -> zipit::Result<()> {
        let wrong = |text: String| Err(zipit::Error::Graph(text));
        if self.networks.is_empty() {
            return wrong("there is no network".to_owned());
        }
        let mut names: Vec<&str> = Vec::new();
        for (t, network) in self.networks.iter().enumerate() {
            self.model(t).validate_outline()?;
            let params = network.graph.params();
            let has = |(name, shape): (&String, &Vec<usize>)| params.get(name).is_some_and(|own| own.shape == *shape);
            if let Some((name, shape)) = self.shared.iter().find(|&shared| !has(shared)) {
                return wrong(format!("network {t} has no `{name}` {shape:?}, which all share"));
            }
            for task in &network.tasks {
                if names.contains(&task.name.as_str()) {
                    return wrong(format!("two networks have a task `{}`", task.name));
                }
                names.push(&task.name);
            }
        }
        Ok(())
    }
}

/// A file that is being written.
pub struct MaskedWriter<'a, 'f>(WeightsWriter<'a, 'f>);

impl MaskedWriter<'_, '_> {
    /// The next numbers of the base's, of the unified vector's, or of a network's own tensor.
    ///
    /// # Errors
    /// Numbers that are not finite, or not in the file's precision; a full disk.
    pub fn numbers(&mut self, numbers: &[f32]) -> Result<()> {
        self.0.write(numbers)
    }

    /// The next bytes of a mask, eight entries each, the first in the lowest bit.
    ///
    /// # Errors
    /// A full disk.
    pub fn bits(&mut self, bits: &[u8]) -> Result<()> {
        self.0.bytes(bits)
    }

    /// All rescalers.
    ///
    /// # Errors
    /// A full disk.
    pub fn rescalers(&mut self, rescalers: &[f64]) -> Result<()> {
        self.0.bytes(&rescalers.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>())
    }
}

/// Writes masked networks whose numbers come from `fill`, part by part, in the order of their names in the file: those of one
/// tensor one after the other. The same content and provenance give the same bytes.
///
/// # Errors
/// An outline that makes no sense, a file that cannot be written, and the errors of `fill`.
///
/// # Panics
/// When `fill` gives fewer numbers than a part holds.
pub fn write_streamed<E: From<Error>>(
    path: &Path,
    outline: &Outline,
    precision: Precision,
    provenance: &Provenance,
    mut fill: impl FnMut(&Part, &mut MaskedWriter<'_, '_>) -> Result<(), E>,
) -> Result<(), E> {
    let unwritable = |reason: String| Error::unwritable(path, &reason);
    outline.validate().map_err(|e| unwritable(e.to_string()))?;
    let metadata = BTreeMap::from([
        (FORMAT, "pt".to_owned()),
        (NETWORKS, json::encode("list of networks", &outline.networks).map_err(unwritable)?),
        (PREPROCESS, json::encode("preprocessing", &outline.preprocess).map_err(unwritable)?),
    ]);
    let parts = outline.parts();
    let tensors = parts.iter().map(|(name, (part, shape))| (name.as_str(), (part.dtype(precision), shape.as_slice())));
    container::write_streamed(
        path,
        (Kind::Masked, MASKED_VERSION),
        metadata,
        &tensors.collect(),
        provenance,
        |sink: &mut Sink<'_>| {
            let mut writer = MaskedWriter(WeightsWriter::new(path, precision, sink));
            parts.values().try_for_each(|(part, _)| fill(part, &mut writer))
        },
    )
}

/// Masked networks whose numbers stay in their file.
#[derive(Debug)]
pub struct MaskedReader {
    path: PathBuf,
    outline: Outline,
    rescalers: Vec<f64>,
    provenance: Provenance,
    precision: Precision,
    tensors: Tensors,
}

impl MaskedReader {
    /// Opens a file and checks all of it: the digest, the graphs, every tensor, finite numbers, whole masks.
    ///
    /// # Errors
    /// A file that cannot be read, is another kind or version, is damaged, or holds no usable networks.
    pub fn open(path: &Path) -> Result<Self> {
        let found = crate::sniff(path)?;
        if !matches!(found, Kind::Masked | Kind::Safetensors) {
            return Err(Error::Kind { path: path.to_owned(), found, expected: Kind::Masked });
        }
        let raw = Header::read(path, Kind::Masked)?;
        raw.expect(path, Kind::Masked, MASKED_VERSION)?;
        let unusable = |reason: String| Error::contents(path, Kind::Masked, &reason);
        let networks: Vec<Member> = json::decode("list of networks", raw.text(path, NETWORKS)?).map_err(unusable)?;
        let preprocess = json::decode("preprocessing", raw.text(path, PREPROCESS)?).map_err(unusable)?;
        for Member { graph, .. } in &networks {
            graph.shapes().map_err(|e| unusable(e.to_string()))?;
        }
        let params: BTreeMap<String, Param> = networks.iter().flat_map(|of| of.graph.params()).collect();
        let is_shared = |name: &str| raw.tensors.contains_key(&Part::Unified(name.to_owned()).name());
        let shared = params.into_iter().filter(|(name, _)| is_shared(name)).map(|(name, of)| (name, of.shape));
        let outline = Outline { networks, preprocess, shared: shared.collect() };
        outline.validate().map_err(|e| unusable(e.to_string()))?;
        check_tensors(&outline, &raw).map_err(unusable)?;
        let (provenance, precision) = (raw.provenance(path)?, raw.precision());
        let tensors = Tensors::open(path, Kind::Masked)?;
        let mut rescalers = vec![0; size_of::<f64>() * outline.networks.len()];
        tensors.bytes(RESCALERS, 0, &mut rescalers)?;
        let rescalers: Vec<f64> = numbers(&rescalers).map(f64::from_le_bytes).collect();
        if let Some(x) = rescalers.iter().find(|x| **x <= 0.0) {
            return Err(unusable(format!("a rescaler is {x}: it is a quotient of sums of magnitudes")));
        }
        let file = Self { path: path.to_owned(), outline, rescalers, provenance, precision, tensors };
        file.check_ends()?;
        Ok(file)
    }

    /// The last byte of a mask has no bits but those of entries.
    fn check_ends(&self) -> Result<()> {
        for (name, shape) in &self.outline.shared {
            let n = volume(shape);
            let masks = (0..self.outline.networks.len()).map(|t| Part::Mask(t, name.clone()).name());
            for mask in masks.filter(|_| !n.is_multiple_of(PER_BYTE)) {
                let mut last = [0];
                self.tensors.bytes(&mask, n / PER_BYTE, &mut last)?;
                if last[0] >> (n % PER_BYTE) > 0 {
                    let reason = format!("`{mask}` has bits beyond its {n} entries");
                    return Err(Error::contents(&self.path, Kind::Masked, &reason));
                }
            }
        }
        Ok(())
    }

    /// Of `n` entries.
    fn mask(&self, t: usize, name: &str, n: usize) -> Result<Vec<u8>> {
        let mut mask = vec![0; n.div_ceil(PER_BYTE)];
        self.tensors.bytes(&Part::Mask(t, name.to_owned()).name(), 0, &mut mask)?;
        Ok(mask)
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Everything but the numbers.
    #[must_use]
    pub fn outline(&self) -> &Outline {
        &self.outline
    }

    /// λ of every network.
    #[must_use]
    pub fn rescalers(&self) -> &[f64] {
        &self.rescalers
    }

    /// How its floating-point numbers are stored.
    #[must_use]
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Who made it and from what.
    #[must_use]
    pub fn provenance(&self) -> &Provenance {
        &self.provenance
    }

    /// This file as an input of what is made from it.
    #[must_use]
    pub fn input_ref(&self) -> InputRef {
        InputRef::new(&self.path, Kind::Masked, &self.tensors.blake3, Some(self.provenance.clone()))
    }

    /// How many entries of the unified vector a network's masks leave.
    ///
    /// # Errors
    /// A file that cannot be read any more.
    pub fn n_left(&self, t: usize) -> Result<u64> {
        let of_tensor = |(name, shape): (&String, &Vec<usize>)| {
            let mask = self.mask(t, name, volume(shape))?;
            Ok(mask.iter().map(|byte| u64::from(byte.count_ones())).sum::<u64>())
        };
        self.outline.shared.iter().map(of_tensor).sum()
    }

    /// Network `t`, a network like any other: θ₀ + λₜ · Mₜ ⊙ τᵤ, and what is its own.
    ///
    /// # Errors
    /// A file that cannot be read any more; numbers that become infinite.
    ///
    /// # Panics
    /// When there is no such network.
    pub fn model(&self, t: usize) -> Result<Model> {
        let mut model = self.outline.model(t);
        let params: Vec<(String, Param)> = model.graph.params().into_iter().collect();
        let read = |(name, param): &(String, Param)| -> Result<(String, ArrayD<f32>)> {
            let n = volume(&param.shape);
            let floats = |part: Part| -> Result<Vec<f32>> {
                let mut numbers = vec![0.0; n];
                self.tensors.floats(&part.name(), 0, &mut numbers)?;
                Ok(numbers)
            };
            let numbers = if self.outline.shared.contains_key(name) {
                let (mut base, unified) = (floats(Part::Base(name.clone()))?, floats(Part::Unified(name.clone()))?);
                put_on(&mut base, &unified, &self.mask(t, name, n)?, self.rescalers[t]);
                base
            } else {
                floats(Part::Own(t, name.clone()))?
            };
            let tensor = ArrayD::from_shape_vec(param.shape.as_slice(), numbers);
            Ok((name.clone(), tensor.map_err(|e| Error::contents(&self.path, Kind::Masked, &e))?))
        };
        let weights: Vec<Result<(String, ArrayD<f32>)>> = params.par_iter().map(read).collect();
        model.weights = weights.into_iter().collect::<Result<_>>()?;
        model.validate().map_err(|e| Error::contents(&self.path, Kind::Masked, &format!("network {t}: {e}")))?;
        Ok(model)
    }
}

/// Numbers of a tensor, of which a file may say anything.
fn volume(shape: &[usize]) -> usize {
    shape.iter().fold(1, |product, &n| product.saturating_mul(n))
}

/// Refuses other tensors than those of the outline.
fn check_tensors(outline: &Outline, raw: &Header) -> Result<(), String> {
    let parts = outline.parts();
    let mut problems = Vec::new();
    for (name, (part, shape)) in &parts {
        let Some(info) = raw.tensors.get(name) else {
            problems.push(format!("missing: {name} {shape:?}"));
            continue;
        };
        if info.shape != *shape {
            problems.push(format!("wrong shape: {name} is {:?}, the networks need {shape:?}", info.shape));
        }
        let wanted = part.dtype(Precision::of(info.dtype).unwrap_or_default());
        if info.dtype != wanted {
            problems.push(format!("`{name}` holds {}, expected {wanted}", info.dtype));
        }
    }
    let unexpected = raw.tensors.iter().filter(|(name, _)| !parts.contains_key(*name));
    problems.extend(unexpected.map(|(name, info)| format!("unexpected: {name} {:?}", info.shape)));
    if problems.is_empty() { Ok(()) } else { Err(problems.join("; ")) }
}
