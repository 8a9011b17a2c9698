//! Stats: the moments at every merge point, in HDF5 behind a user block that holds magic, version and digest.
//!
//! The digest is compared before the HDF5 library sees the file: that library is not made for damaged files.

use crate::atomic::Staged;
use crate::header::STATS_VERSION;
use crate::{Error, InputRef, Kind, Provenance, Result, hdf, json, layout};
use ndarray::ArrayView1;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use zipit::apply::check_trunks;
use zipit::graph::MergePoint;
use zipit::refit::{Gram, gram::patch_size};
use zipit::{Constants, Extent, Graph, Moments, Preprocess, Task};

/// The first bytes of the file.
pub(crate) const MAGIC: &[u8; 8] = b"zipit-st";
/// Bytes before the HDF5 part: magic, version u32, four zeros, file length u64, digest of the rest, zeros.
const BLOCK: usize = 512;

/// What was measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StatsHeader {
    /// The network, as the first model has it.
    pub graph: Graph,
    /// Every other model's network, where heads differ; none where all are as the first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<Graph>,
    /// The models in the order of z = [x¹; …; xᴺ].
    pub models: Vec<InputRef>,
    /// Each model's tasks.
    pub tasks: Vec<Vec<Task>>,
    /// What the models expect of an image.
    pub preprocess: Preprocess,
    /// Merge points, in the order of the forward pass: name and d.
    pub points: Vec<(String, usize)>,
    /// Layers whose inputs were measured: module and F, numbers that it reads at once.
    pub layers: Vec<(String, usize)>,
    /// Whether the models were measured together there; `None` without layers.
    pub gram: Option<GramKind>,
    /// Images that are in these moments.
    pub n_images: u64,
    /// `Some((i, n))`: the i-th of n shards, i from 1; `None`: the whole.
    pub shard: Option<(usize, usize)>,
    /// Images per batch; another size gives other rounding.
    pub batch_size: usize,
    /// Batches that are in these moments.
    pub batches_done: u64,
    /// Batches there are for this file; fewer done means interrupted.
    pub n_batches: u64,
    /// Who measured, and on which data.
    pub provenance: Provenance,
}

/// Which products of what the models' layers read are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GramKind {
    /// Of all models with each other.
    Joint,
    /// Of each model by itself.
    Own,
}

impl GramKind {
    /// Nothing measured yet of a layer that reads F numbers in each of N models.
    #[must_use]
    pub fn zeros(self, n_models: usize, f: usize) -> Gram {
        match self {
            Self::Joint => Gram::Joint(Moments::zeros(n_models * f)),
            Self::Own => Gram::Own(vec![Moments::zeros(f); n_models]),
        }
    }
}

impl StatsHeader {
    /// The models' different networks.
    pub fn graphs(&self) -> impl Iterator<Item = &Graph> {
        std::iter::once(&self.graph).chain(&self.others)
    }

    /// N.
    #[must_use]
    pub fn n_models(&self) -> usize {
        self.models.len()
    }

    /// Whether every batch was measured.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.batches_done == self.n_batches
    }

    /// Everything about the header that can be wrong by itself.
    fn validate(&self) -> Result<(), String> {
        let shapes = self.graph.shapes().map_err(|e| e.to_string())?;
        let spaces = self.graph.spaces().map_err(|e| e.to_string())?;
        let dims: BTreeMap<String, usize> =
            self.graph.merge_points(&spaces).into_iter().map(|point| (point.name, point.dim)).collect();
        if self.models.is_empty() || self.tasks.len() != self.models.len() {
            return Err(format!("{} models with {} lists of tasks", self.models.len(), self.tasks.len()));
        }
        if !self.others.is_empty() && self.others.len() + 1 != self.models.len() {
            return Err(format!("{} models with the graphs of {}", self.models.len(), self.others.len() + 1));
        }
        check_trunks(&self.graphs().collect::<Vec<_>>()).map_err(|e| e.to_string())?;
        if self.points.is_empty() {
            return Err("no merge points".to_owned());
        }
        for (i, (name, d)) in self.points.iter().enumerate() {
            match dims.get(name) {
                None => return Err(format!("`{name}` is no merge point of its graph")),
                Some(dim) if dim != d => {
                    return Err(format!("`{name}` has {d} features, its graph says {dim}"));
                }
                Some(_) if self.points[..i].iter().any(|(other, _)| other == name) => {
                    return Err(format!("`{name}` is there twice"));
                }
                Some(_) => {}
            }
        }
        if self.gram.is_some() == self.layers.is_empty() {
            return Err("layers are measured, or they are not".to_owned());
        }
        for (i, (name, f)) in self.layers.iter().enumerate() {
            let node = self.graphs().flat_map(|graph| &graph.nodes).find(|node| node.module.as_ref() == Some(name));
            match node.and_then(|node| patch_size(&node.op)) {
                None => return Err(format!("`{name}` is no layer of its graph")),
                Some(size) if size != *f => {
                    return Err(format!("`{name}` reads {f} numbers, its graph says {size}"));
                }
                Some(_) if self.layers[..i].iter().any(|(other, _)| other == name) => {
                    return Err(format!("layer `{name}` is there twice"));
                }
                Some(_) => {}
            }
        }
        let input = &shapes[self.graph.input.name.as_str()];
        let expected = [self.preprocess.channels(), self.preprocess.size[0], self.preprocess.size[1]];
        if **input != expected {
            return Err(format!("the graph's input is {input:?} but the preprocessing gives {expected:?}"));
        }
        if let Some((i, n)) = self.shard
            && !(1..=n).contains(&i)
        {
            return Err(format!("shard {i}/{n}; shards count from 1"));
        }
        if self.n_images == 0 || self.batch_size == 0 || self.batches_done == 0 {
            return Err(format!(
                "{} images in {} batches of {}: nothing was measured",
                self.n_images, self.batches_done, self.batch_size
            ));
        }
        if self.batches_done > self.n_batches {
            return Err(format!("{} of {} batches are done", self.batches_done, self.n_batches));
        }
        Ok(())
    }

    /// The value at which a point is measured: its own name, unless no value holds its space alone.
    fn measured_value(&self, name: &str) -> Result<String, String> {
        if self.graph.node(name).is_some() {
            return Ok(name.to_owned());
        }
        let spaces = self.graph.spaces().map_err(|e| e.to_string())?;
        let space = spaces.spaces.into_iter().find(|space| space.name == name);
        space.map(|space| space.measured.value).ok_or_else(|| format!("`{name}` is no merge point of its graph"))
    }

    /// Checks one point's moments against the header: N·d features, every position of every image, finite.
    fn check(&self, name: &str, moments: &Moments) -> Result<(), String> {
        let d = self.dim(name)?;
        let n_joint = self.n_models() * d;
        if moments.n_joint() != n_joint {
            return Err(format!("`{name}`: {} features, expected {n_joint}", moments.n_joint()));
        }
        moments.validate(name).map_err(|e| e.to_string())?;
        let shapes = self.graph.shapes().map_err(|e| e.to_string())?;
        let value = self.measured_value(name)?;
        let positions: usize = shapes.get(value.as_str()).map_or(1, |shape| shape[1..].iter().product());
        let expected = self.n_images.checked_mul(positions as u64);
        if Some(moments.count) != expected {
            return Err(format!(
                "`{name}`: {} samples, but {} images of {positions} positions were measured",
                moments.count, self.n_images
            ));
        }
        Ok(())
    }

    /// Checks one layer's second moments: what the header says, finite, of whole images.
    fn check_gram(&self, name: &str, gram: &Gram) -> Result<(), String> {
        let (f, kind) = self.layer(name)?;
        let each: Vec<&Moments> = match (gram, kind) {
            (Gram::Joint(moments), GramKind::Joint) => vec![moments],
            (Gram::Own(each), GramKind::Own) => each.iter().collect(),
            _ => return Err(format!("`{name}`: moments of another kind than the header says")),
        };
        let sizes: Vec<usize> = each.iter().map(|moments| moments.n_joint()).collect();
        let expected = match kind {
            GramKind::Joint => vec![self.n_models() * f],
            GramKind::Own => vec![f; self.n_models()],
        };
        if sizes != expected {
            return Err(format!("`{name}`: {sizes:?} numbers, expected {expected:?}"));
        }
        for moments in each {
            moments.validate(name).map_err(|e| e.to_string())?;
            if !moments.count.is_multiple_of(self.n_images) {
                return Err(format!("`{name}`: {} samples are no whole images of {}", moments.count, self.n_images));
            }
        }
        Ok(())
    }

    /// Checks the ranges of one value: a finite one of every feature of every model.
    fn check_extent(&self, value: &str, extent: &Extent) -> Result<(), String> {
        let expected = self.width(value)?;
        if extent.low.len() != expected {
            return Err(format!("`{value}`: ranges of {} features, expected {expected}", extent.low.len()));
        }
        extent.validate(value).map_err(|e| e.to_string())
    }

    /// N·C of a value.
    fn width(&self, value: &str) -> Result<usize, String> {
        let shapes = self.graph.shapes().map_err(|e| e.to_string())?;
        let shape = shapes.get(value).ok_or_else(|| format!("its graph has no value `{value}`"))?;
        shape[0].checked_mul(self.n_models()).ok_or_else(|| "too many features".to_owned())
    }

    fn layer(&self, name: &str) -> Result<(usize, GramKind), String> {
        let found = self.layers.iter().find(|(layer, _)| layer == name);
        match (found, self.gram) {
            (Some((_, f)), Some(kind)) => Ok((*f, kind)),
            _ => Err(format!("what `{name}` reads was not measured")),
        }
    }

    fn dim(&self, name: &str) -> Result<usize, String> {
        self.points
            .iter()
            .find(|(point, _)| point == name)
            .map(|(_, d)| *d)
            .ok_or_else(|| format!("it has no merge point `{name}`"))
    }
}

/// Writes stats. The same content gives the same bytes.
///
/// # Errors
/// A header that contradicts itself, moments that do not fit it, or a file that cannot be written.
pub fn write(
    path: &Path,
    header: &StatsHeader,
    moments: &BTreeMap<String, Moments>,
    grams: &BTreeMap<String, Gram>,
    extents: &BTreeMap<String, Extent>,
) -> Result<()> {
    let unwritable = |reason: String| Error::unwritable(path, &reason);
    let mut header = header.clone();
    header.provenance = header.provenance.compact();
    for model in &mut header.models {
        model.provenance = model.provenance.as_ref().map(|p| Box::new(p.compact()));
    }
    header.validate().map_err(unwritable)?;
    for (name, _) in &header.points {
        let point = moments.get(name).ok_or_else(|| unwritable(format!("the moments of `{name}` are missing")))?;
        header.check(name, point).map_err(unwritable)?;
    }
    if moments.len() != header.points.len() {
        return Err(unwritable(format!("{} moments for {} merge points", moments.len(), header.points.len())));
    }
    for (name, _) in &header.layers {
        let gram = grams.get(name).ok_or_else(|| unwritable(format!("the moments of layer `{name}` are missing")))?;
        header.check_gram(name, gram).map_err(unwritable)?;
    }
    if grams.len() != header.layers.len() {
        return Err(unwritable(format!("{} layers' moments for {}", grams.len(), header.layers.len())));
    }
    let spaces = header.graph.spaces().map_err(|e| unwritable(e.to_string()))?;
    let values = header.graph.read_values(&spaces);
    for value in &values {
        let extent = extents.get(value).ok_or_else(|| unwritable(format!("the ranges of `{value}` are missing")))?;
        header.check_extent(value, extent).map_err(unwritable)?;
    }
    if extents.len() != values.len() {
        return Err(unwritable(format!("{} values' ranges for {}", extents.len(), values.len())));
    }
    let text = json::encode("header", &header).map_err(unwritable)?;

    let staged = Staged::new(path)?;
    write_hdf5(staged.path(), &text, moments, grams, extents)
        .map_err(|e| Error::Write { path: path.to_owned(), reason: hdf::reason(&e) })?;
    seal(staged.file()).map_err(|e| Error::Write { path: path.to_owned(), reason: crate::error::reason(&e) })?;
    staged.commit()
}

fn write_hdf5(
    path: &Path,
    header: &str,
    moments: &BTreeMap<String, Moments>,
    grams: &BTreeMap<String, Gram>,
    extents: &BTreeMap<String, Extent>,
) -> hdf5::Result<()> {
    let file = hdf::create(path, BLOCK as u64)?;
    file.new_dataset_builder().with_data(ArrayView1::from(header.as_bytes())).create(layout::HEADER)?;
    hdf::group(&file, layout::POINTS)?;
    for (name, point) in moments {
        write_moments(&file, &layout::point(name), point)?;
    }
    if !grams.is_empty() {
        hdf::group(&file, layout::LAYERS)?;
    }
    for (name, gram) in grams {
        match gram {
            Gram::Joint(moments) => write_moments(&file, &layout::layer(name), moments)?,
            Gram::Own(each) => {
                hdf::group(&file, &layout::layer(name))?;
                for (i, moments) in each.iter().enumerate() {
                    write_moments(&file, &layout::own(name, i), moments)?;
                }
            }
        }
    }
    if !extents.is_empty() {
        hdf::group(&file, layout::VALUES)?;
    }
    for (value, Extent { low, high }) in extents {
        let group = hdf::group(&file, &layout::value(value))?;
        group.new_dataset_builder().with_data(ArrayView1::from(low)).create(layout::LOW)?;
        group.new_dataset_builder().with_data(ArrayView1::from(high)).create(layout::HIGH)?;
    }
    file.flush()?;
    file.close()
}

fn write_moments(file: &hdf5::File, at: &str, moments: &Moments) -> hdf5::Result<()> {
    let group = hdf::group(file, at)?;
    group.new_dataset_builder().with_data(&[moments.count]).create(layout::COUNT)?;
    group.new_dataset_builder().with_data(ArrayView1::from(&moments.sum)).create(layout::SUM)?;
    group.new_dataset_builder().with_data(ArrayView1::from(&moments.outer)).create(layout::OUTER)?;
    Ok(())
}

/// Fills the user block of a finished HDF5 file.
fn seal(mut file: &File) -> io::Result<()> {
    let length = file.seek(SeekFrom::End(0))?;
    file.seek(SeekFrom::Start(BLOCK as u64))?;
    let (_, digest) = digests(&[], file)?;
    let mut block = Vec::with_capacity(BLOCK);
    block.extend_from_slice(MAGIC);
    block.extend_from_slice(&STATS_VERSION.to_le_bytes());
    block.extend_from_slice(&[0; 4]);
    block.extend_from_slice(&length.to_le_bytes());
    block.extend_from_slice(digest.as_bytes());
    block.resize(BLOCK, 0);
    file.seek(SeekFrom::Start(0))?;
    file.write_all(&block)
}

/// BLAKE3 of `head` and the rest of `file` together, and of the rest alone.
fn digests(head: &[u8], mut file: &File) -> io::Result<(blake3::Hash, blake3::Hash)> {
    let (mut whole, mut rest) = (blake3::Hasher::new(), blake3::Hasher::new());
    whole.update(head);
    let length = file.metadata()?.len() as usize;
    let mut buffer = vec![0; length.clamp(1, 1 << 22)];
    loop {
        let n = match file.read(&mut buffer) {
            Ok(0) => return Ok((whole.finalize(), rest.finalize())),
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        };
        whole.update_rayon(&buffer[..n]);
        rest.update_rayon(&buffer[..n]);
    }
}

/// Verifies the user block and the digest in it. Returns BLAKE3 of the whole file.
fn verify(path: &Path) -> Result<String> {
    let damaged = |reason: String| Error::damaged(path, Kind::Stats, reason);
    let mut file = File::open(path).map_err(Error::read(path))?;
    let found_length = file.metadata().map_err(Error::read(path))?.len();
    let mut block = Vec::with_capacity(BLOCK);
    let read = (&mut file).take(BLOCK as u64).read_to_end(&mut block);
    if read.is_err() || !block.starts_with(MAGIC) {
        return Err(Error::Kind { path: path.to_owned(), found: crate::sniff(path)?, expected: Kind::Stats });
    }
    if block.len() < BLOCK {
        return Err(damaged(format!("it ends after {} bytes", block.len())));
    }
    let field = |at: usize| u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]]);
    if field(8) != STATS_VERSION {
        return Err(Error::Version { path: path.to_owned(), kind: Kind::Stats, found: field(8), reads: STATS_VERSION });
    }
    let length = u64::from(field(16)) | u64::from(field(20)) << 32;
    if length != found_length {
        return Err(damaged(format!("it has {found_length} bytes, {length} were written")));
    }
    let (whole, rest) = digests(&block, &file).map_err(Error::read(path))?;
    if block[24..56] != *rest.as_bytes() || block[12..16].iter().chain(&block[56..]).any(|&b| b != 0) {
        return Err(damaged("its digest does not match its content".to_owned()));
    }
    Ok(whole.to_hex().to_string())
}

/// An open stats file.
#[derive(Debug)]
pub struct StatsReader {
    path: PathBuf,
    blake3: String,
    header: StatsHeader,
    points: Vec<MergePoint>,
    values: Vec<String>,
    file: hdf5::File,
}

impl StatsReader {
    /// Opens stats and verifies the digest of all of it.
    ///
    /// # Errors
    /// A file that cannot be read, is another kind or version, is damaged, or has an unusable header.
    pub fn open(path: &Path) -> Result<Self> {
        let blake3 = verify(path)?;
        let unusable = |reason: String| Error::contents(path, Kind::Stats, &reason);
        let file = hdf::open(path).map_err(|e| unusable(hdf::reason(&e)))?;
        let text = hdf::read::<u8>(&file, layout::HEADER, None).map_err(unusable)?;
        let text = String::from_utf8(text).map_err(|_| unusable("its header is no text".to_owned()))?;
        let header: StatsHeader = json::decode("header", &text).map_err(unusable)?;
        header.validate().map_err(unusable)?;
        let spaces = header.graph.spaces().map_err(|e| unusable(e.to_string()))?;
        let (points, values) = (header.graph.merge_points(&spaces), header.graph.read_values(&spaces));
        Ok(Self { path: path.to_owned(), blake3, header, points, values, file })
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What was measured.
    #[must_use]
    pub fn header(&self) -> &StatsHeader {
        &self.header
    }

    /// BLAKE3 of the file.
    #[must_use]
    pub fn blake3(&self) -> &str {
        &self.blake3
    }

    /// This file as an input of what is made from it.
    #[must_use]
    pub fn input_ref(&self) -> InputRef {
        InputRef::new(&self.path, Kind::Stats, &self.blake3, Some(self.header.provenance.clone()))
    }

    /// Reads the moments of one merge point.
    ///
    /// # Errors
    /// A point that is not there, or whose numbers do not fit the header.
    pub fn moments(&self, name: &str) -> Result<Moments> {
        self.read_point(name).map_err(|reason| Error::contents(&self.path, Kind::Stats, &reason))
    }

    /// The values whose ranges were measured.
    #[must_use]
    pub fn read_values(&self) -> &[String] {
        &self.values
    }

    /// Reads the ranges of one value.
    ///
    /// # Errors
    /// A value that is not there, or whose numbers do not fit the header.
    pub fn extent(&self, value: &str) -> Result<Extent> {
        self.read_extent(value).map_err(|reason| Error::contents(&self.path, Kind::Stats, &reason))
    }

    /// Which features of a merge point are constant wherever they are read, beside its `moments`.
    ///
    /// # Errors
    /// A point that is not there, or ranges that are not or that do not fit the header.
    pub fn constants(&self, name: &str, moments: &Moments) -> Result<Constants> {
        let missing = || Error::contents(&self.path, Kind::Stats, &format!("it has no merge point `{name}`"));
        let point = self.points.iter().find(|point| point.name == name).ok_or_else(missing)?;
        let n = self.header.n_models();
        let reads = point.reads.iter().map(|read| Ok(self.extent(&read.value)?.of(read, n)));
        let reads = reads.collect::<Result<Vec<_>>>()?;
        Ok(Constants::new(moments, &reads, n, point.normalised || point.compared))
    }

    /// Reads the second moments of what a layer reads, by its module.
    ///
    /// # Errors
    /// A layer that was not measured, or whose numbers do not fit the header.
    pub fn gram(&self, name: &str) -> Result<Gram> {
        self.read_gram(name).map_err(|reason| Error::contents(&self.path, Kind::Stats, &reason))
    }

    fn read_point(&self, name: &str) -> Result<Moments, String> {
        let moments = self.read_moments(&layout::point(name), self.header.n_models(), self.header.dim(name)?)?;
        self.header.check(name, &moments)?;
        Ok(moments)
    }

    fn read_extent(&self, value: &str) -> Result<Extent, String> {
        let n = self.header.width(value)?;
        let read = |what: &str| hdf::read(&self.file, &format!("{}/{what}", layout::value(value)), Some(n));
        let extent = Extent { low: read(layout::LOW)?, high: read(layout::HIGH)? };
        self.header.check_extent(value, &extent)?;
        Ok(extent)
    }

    fn read_gram(&self, name: &str) -> Result<Gram, String> {
        let (f, kind) = self.header.layer(name)?;
        let n = self.header.n_models();
        let gram = match kind {
            GramKind::Joint => Gram::Joint(self.read_moments(&layout::layer(name), n, f)?),
            GramKind::Own => {
                let own = (0..n).map(|i| self.read_moments(&layout::own(name, i), 1, f));
                Gram::Own(own.collect::<Result<_, _>>()?)
            }
        };
        self.header.check_gram(name, &gram)?;
        Ok(gram)
    }

    fn read_moments(&self, at: &str, n_models: usize, dim: usize) -> Result<Moments, String> {
        let n_joint = n_models.checked_mul(dim).ok_or("too many features")?;
        let n_outer = n_joint.checked_add(1).and_then(|n| n.checked_mul(n_joint)).ok_or("too many features")? / 2;
        let at = |what: &str| format!("{at}/{what}");
        Ok(Moments {
            count: hdf::read(&self.file, &at(layout::COUNT), Some(1))?[0],
            sum: hdf::read(&self.file, &at(layout::SUM), Some(n_joint))?,
            outer: hdf::read(&self.file, &at(layout::OUTER), Some(n_outer))?,
        })
    }
}
