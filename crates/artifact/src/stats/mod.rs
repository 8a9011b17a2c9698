//! Stats: the moments at every merge point, in HDF5 behind a user block that holds magic, version and digest.
//!
//! The digest is compared before the HDF5 library sees the file: that library is not made for damaged files.

mod header;

pub use header::{GramKind, Predicted, StatsHeader};

use crate::atomic::Staged;
use crate::header::STATS_VERSION;
use crate::{Error, InputRef, Kind, Result, hdf, json, layout};
use ndarray::ArrayView1;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use zipit::graph::{MergePoint, Place};
use zipit::importance::{Importance, PlaceSums};
use zipit::refit::Gram;
use zipit::{Collected, Constants, Extent, Fisher, Moments};

/// The first bytes of the file.
pub(crate) const MAGIC: &[u8; 8] = b"zipit-st";
/// Bytes before the HDF5 part: magic, version u32, four zeros, file length u64, digest of the rest, zeros.
const BLOCK: usize = 512;
/// The last version that knew no importance: it is read, too.
const WITHOUT_IMPORTANCE: u32 = 3;
/// The first version whose digest is of the version, too: one number is then never taken for another.
const WITH_VERSION: u32 = 5;

/// Writes stats. The same content gives the same bytes.
///
/// # Errors
/// A header that contradicts itself, sums that do not fit it, or a file that cannot be written.
pub fn write(path: &Path, header: &StatsHeader, sums: &Collected) -> Result<()> {
    let unwritable = |reason: String| Error::unwritable(path, &reason);
    let mut header = header.clone();
    header.provenance = header.provenance.compact();
    for model in &mut header.models {
        model.provenance = model.provenance.as_ref().map(|p| Box::new(p.compact()));
    }
    header.validate().map_err(unwritable)?;
    check(&header, sums).map_err(unwritable)?;
    let text = json::encode("header", &header).map_err(unwritable)?;

    let staged = Staged::new(path)?;
    write_hdf5(staged.path(), &text, sums)
        .map_err(|e| Error::Write { path: path.to_owned(), reason: hdf::reason(&e) })?;
    seal(staged.file()).map_err(|e| Error::Write { path: path.to_owned(), reason: crate::error::reason(&e) })?;
    staged.commit()
}

/// All that the header says is there, and fits it.
fn check(header: &StatsHeader, sums: &Collected) -> Result<(), String> {
    let Collected { moments, grams, extents, importance, gradients, fisher } = sums;
    for (name, _) in &header.points {
        let point = moments.get(name).ok_or_else(|| format!("the moments of `{name}` are missing"))?;
        header.check(name, point)?;
    }
    if moments.len() != header.points.len() {
        return Err(format!("{} moments for {} merge points", moments.len(), header.points.len()));
    }
    for (name, _) in &header.layers {
        let gram = grams.get(name).ok_or_else(|| format!("the moments of layer `{name}` are missing"))?;
        header.check_gram(name, gram)?;
    }
    if grams.len() != header.layers.len() {
        return Err(format!("{} layers' moments for {}", grams.len(), header.layers.len()));
    }
    let spaces = header.graph.spaces().map_err(|e| e.to_string())?;
    let values = header.graph.read_values(&spaces);
    for value in &values {
        let extent = extents.get(value).ok_or_else(|| format!("the ranges of `{value}` are missing"))?;
        header.check_extent(value, extent)?;
    }
    if extents.len() != values.len() {
        return Err(format!("{} values' ranges for {}", extents.len(), values.len()));
    }
    let n_important = if header.probes.is_some() { header.points.len() } else { 0 };
    for (name, _) in header.points.iter().take(n_important) {
        let found = importance.get(name).ok_or_else(|| format!("the importance of `{name}` is missing"))?;
        header.check_importance(name, found)?;
    }
    if importance.len() != n_important {
        return Err(format!("{} points' importance for {n_important}", importance.len()));
    }
    let layers = if header.gradients { header.gradient_layers() } else { vec![] };
    for (name, _) in &layers {
        let found = gradients.get(name).ok_or_else(|| format!("the gradients at `{name}` are missing"))?;
        header.check_gradients(name, found)?;
    }
    if gradients.len() != layers.len() {
        return Err(format!("{} layers' gradients for {}", gradients.len(), layers.len()));
    }
    header.check_fisher(fisher)
}

fn write_hdf5(path: &Path, header: &str, sums: &Collected) -> hdf5::Result<()> {
    let file = hdf::create(path, BLOCK as u64)?;
    file.new_dataset_builder().with_data(ArrayView1::from(header.as_bytes())).create(layout::HEADER)?;
    hdf::group(&file, layout::POINTS)?;
    for (name, point) in &sums.moments {
        write_moments(&file, &layout::point(name), point)?;
    }
    if !sums.grams.is_empty() {
        hdf::group(&file, layout::LAYERS)?;
    }
    for (name, gram) in &sums.grams {
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
    if !sums.extents.is_empty() {
        hdf::group(&file, layout::VALUES)?;
    }
    for (value, Extent { low, high }) in &sums.extents {
        let group = hdf::group(&file, &layout::value(value))?;
        group.new_dataset_builder().with_data(ArrayView1::from(low)).create(layout::LOW)?;
        group.new_dataset_builder().with_data(ArrayView1::from(high)).create(layout::HIGH)?;
    }
    for (name, importance) in &sums.importance {
        hdf::group(&file, &layout::importance(name))?;
        for (k, place) in importance.places.iter().enumerate() {
            hdf::group(&file, &layout::place(name, k))?;
            if let Some(joint) = &place.joint {
                write_moments(&file, &layout::joint(name, k), joint)?;
            }
            for (i, gradients) in place.gradients.iter().enumerate() {
                write_moments(&file, &layout::gradients(name, k, i), gradients)?;
            }
        }
    }
    if !sums.gradients.is_empty() {
        hdf::group(&file, layout::GRADIENTS)?;
    }
    for (name, gradients) in &sums.gradients {
        hdf::group(&file, &layout::layer_gradients(name))?;
        // Checked: each model's are measured by themselves.
        let Gram::Own(each) = gradients else { continue };
        for (i, moments) in each.iter().enumerate() {
            write_moments(&file, &layout::own_gradients(name, i), moments)?;
        }
    }
    if !sums.fisher.is_empty() {
        hdf::group(&file, layout::FISHER)?;
    }
    for (i, fisher) in sums.fisher.iter().enumerate() {
        let group = hdf::group(&file, &layout::fisher(i))?;
        for (name, sums) in &fisher.sums {
            let path = layout::fisher_of(i, name);
            let name = path.rsplit('/').next().unwrap_or_default();
            group.new_dataset_builder().with_data(ArrayView1::from(sums)).create(name)?;
        }
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
    let (_, digest) = digests(&[], STATS_VERSION, file)?;
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

/// BLAKE3 of `head` and the rest of `file` together, and of the rest with the version before it, or alone.
fn digests(head: &[u8], version: u32, mut file: &File) -> io::Result<(blake3::Hash, blake3::Hash)> {
    let (mut whole, mut rest) = (blake3::Hasher::new(), blake3::Hasher::new());
    whole.update(head);
    if version >= WITH_VERSION {
        rest.update(&version.to_le_bytes());
    }
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
    if !(WITHOUT_IMPORTANCE..=STATS_VERSION).contains(&field(8)) {
        return Err(Error::Version { path: path.to_owned(), kind: Kind::Stats, found: field(8), reads: STATS_VERSION });
    }
    let length = u64::from(field(16)) | u64::from(field(20)) << 32;
    if length != found_length {
        return Err(damaged(format!("it has {found_length} bytes, {length} were written")));
    }
    let (whole, rest) = digests(&block, field(8), &file).map_err(Error::read(path))?;
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

    /// Reads a merge point's importance, if it was measured.
    ///
    /// # Errors
    /// A point that is not there, or whose numbers do not fit the header.
    pub fn importance(&self, name: &str) -> Result<Option<Importance>> {
        let found = self.header.probes.map(|_| self.read_importance(name)).transpose();
        found.map_err(|reason| Error::contents(&self.path, Kind::Stats, &reason))
    }

    /// Reads the gradients at a layer, by its module.
    ///
    /// # Errors
    /// A layer at which none were measured, or whose numbers do not fit the header.
    pub fn gradients(&self, name: &str) -> Result<Gram> {
        let n = self.header.n_models();
        let read = || -> Result<Gram, String> {
            let layers = if self.header.gradients { self.header.gradient_layers() } else { vec![] };
            let found = layers.into_iter().find(|(layer, _)| layer == name);
            let (_, o) = found.ok_or_else(|| format!("gradients at `{name}` were not measured"))?;
            let own = (0..n).map(|i| self.read_moments(&layout::own_gradients(name, i), 1, o));
            let gradients = Gram::Own(own.collect::<Result<_, _>>()?);
            self.header.check_gradients(name, &gradients)?;
            Ok(gradients)
        };
        read().map_err(|reason| Error::contents(&self.path, Kind::Stats, &reason))
    }

    /// Reads every model's Fisher information; of none where it was not measured.
    ///
    /// # Errors
    /// Numbers that do not fit the header.
    pub fn fisher(&self) -> Result<Vec<Fisher>> {
        let tensors = self.header.fisher_tensors();
        let model = |i: usize| -> Result<Fisher, String> {
            let read = |(name, n): &(String, usize)| {
                Ok((name.clone(), hdf::read::<f64>(&self.file, &layout::fisher_of(i, name), Some(*n))?))
            };
            let sums = tensors.iter().map(read).collect::<Result<_, String>>()?;
            Ok(Fisher { count: self.header.n_images, sums })
        };
        let n = if self.header.fisher { self.header.n_models() } else { 0 };
        let found = (0..n).map(model).collect::<Result<Vec<_>, _>>();
        let found = found.and_then(|found| self.header.check_fisher(&found).map(|()| found));
        found.map_err(|reason| Error::contents(&self.path, Kind::Stats, &reason))
    }

    /// Reads everything.
    ///
    /// # Errors
    /// Numbers that do not fit the header.
    pub fn collected(&self) -> Result<Collected> {
        let mut all = Collected::default();
        for (name, _) in &self.header.points {
            all.moments.insert(name.clone(), self.moments(name)?);
            all.importance.extend(self.importance(name)?.map(|importance| (name.clone(), importance)));
        }
        for (name, _) in &self.header.layers {
            all.grams.insert(name.clone(), self.gram(name)?);
        }
        for value in &self.values {
            all.extents.insert(value.clone(), self.extent(value)?);
        }
        for (name, _) in self.header.gradients.then(|| self.header.gradient_layers()).into_iter().flatten() {
            all.gradients.insert(name.clone(), self.gradients(&name)?);
        }
        all.fisher = self.fisher()?;
        Ok(all)
    }

    fn read_importance(&self, name: &str) -> Result<Importance, String> {
        let (n, d) = (self.header.n_models(), self.header.dim(name)?);
        let place = |(k, place): (usize, Place)| {
            let joint = (!place.measured).then(|| self.read_moments(&layout::joint(name, k), n, d)).transpose()?;
            let gradients = (0..n).map(|i| self.read_moments(&layout::gradients(name, k, i), 1, d));
            Ok(PlaceSums { joint, gradients: gradients.collect::<Result<_, String>>()? })
        };
        let places = self.header.places(name)?.into_iter().enumerate().map(place).collect::<Result<_, String>>()?;
        let found = Importance { places };
        self.header.check_importance(name, &found)?;
        Ok(found)
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
