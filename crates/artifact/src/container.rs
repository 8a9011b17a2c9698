//! The safetensors container of models and training checkpoints: a header written by ourselves, sorted, so that the
//! same content gives the same bytes, and a digest over metadata and tensors.

use crate::{Error, Kind, Precision, Provenance, Result, atomic, json};
use half::{bf16, f16};
use ndarray::{Array, ArrayBase, ArrayD, Data, Dimension};
use rayon::prelude::*;
use safetensors::tensor::{Dtype, Metadata, SafeTensors, TensorInfo};
use serde::Serialize;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::path::Path;
use zipit::StateDict;

/// Metadata: [`Kind::code`].
pub(crate) const KIND: &str = "zipit.kind";
/// Metadata: the format version.
pub(crate) const VERSION: &str = "zipit.version";
/// Metadata: who made it and from what.
const PROVENANCE: &str = "zipit.provenance";
/// Metadata: BLAKE3 of the content, see [`Digest`].
const DIGEST: &str = "zipit.digest";

/// What the safetensors crate reads at most.
const MAX_HEADER: u64 = 100_000_000;

/// A tensor to be written.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Values<'a> {
    /// Rounded to the nearest number of the type.
    Floats(&'a ArrayD<f32>, Precision),
    F64(&'a ArrayD<f64>),
    I64(&'a ArrayD<i64>),
}

impl Values<'_> {
    fn dtype(self) -> Dtype {
        match self {
            Self::Floats(_, precision) => precision.dtype(),
            Self::F64(_) => Dtype::F64,
            Self::I64(_) => Dtype::I64,
        }
    }

    fn shape(&self) -> &[usize] {
        match self {
            Self::Floats(a, _) => a.shape(),
            Self::F64(a) => a.shape(),
            Self::I64(a) => a.shape(),
        }
    }

    fn write(self, to: &mut dyn Write) -> io::Result<()> {
        match self {
            Self::Floats(a, Precision::F16) => write_all(to, a, |x| f16::from_f32(x).to_le_bytes()),
            Self::Floats(a, Precision::Bf16) => write_all(to, a, |x| bf16::from_f32(x).to_le_bytes()),
            Self::Floats(a, Precision::F32) => write_all(to, a, f32::to_le_bytes),
            Self::Floats(a, Precision::F64) => write_all(to, a, |x| f64::from(x).to_le_bytes()),
            Self::F64(a) => write_all(to, a, f64::to_le_bytes),
            Self::I64(a) => write_all(to, a, i64::to_le_bytes),
        }
    }
}

/// Numbers that are written at a time.
const CHUNK: usize = 1 << 18;

/// Little-endian numbers in row-major order.
pub(crate) fn write_all<T: Copy, S: Data<Elem = T>, D: Dimension, const K: usize>(
    to: &mut dyn Write,
    array: &ArrayBase<S, D>,
    bytes: impl Fn(T) -> [u8; K],
) -> io::Result<()> {
    let numbers = array.as_slice().map_or_else(|| Cow::Owned(array.iter().copied().collect()), Cow::Borrowed);
    let mut buffer = vec![0; CHUNK.min(numbers.len()) * K];
    for part in numbers.chunks(CHUNK) {
        let written = &mut buffer[..part.len() * K];
        for (place, &number) in written.as_chunks_mut::<K>().0.iter_mut().zip(part) {
            *place = bytes(number);
        }
        to.write_all(written)?;
    }
    Ok(())
}

/// The digest of a file's content, independent of how the header is spelled: BLAKE3 over every metadata entry but the
/// digest itself in key order, then every tensor in name order. Strings are preceded by their length, shapes by their
/// rank; every such number is a little-endian u64.
struct Digest(blake3::Hasher);

impl Digest {
    fn of_metadata<'m>(metadata: impl Iterator<Item = (&'m str, &'m str)>) -> Self {
        let mut digest = Self(blake3::Hasher::new());
        for (key, value) in metadata.filter(|(key, _)| *key != DIGEST) {
            digest.text(key);
            digest.text(value);
        }
        digest
    }

    fn number(&mut self, x: usize) {
        self.0.update(&(x as u64).to_le_bytes());
    }

    fn text(&mut self, text: &str) {
        self.number(text.len());
        self.0.update(text.as_bytes());
    }

    fn tensor(&mut self, name: &str, dtype: Dtype, shape: &[usize]) {
        self.text(name);
        self.text(&dtype.to_string());
        self.number(shape.len());
        for &n in shape {
            self.number(n);
        }
    }

    fn hex(&self) -> String {
        self.0.finalize().to_hex().to_string()
    }
}

/// What is written goes into the digest, and is hashed by all threads.
impl Write for Digest {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update_rayon(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[derive(Serialize)]
struct Entry<'a> {
    dtype: Dtype,
    shape: &'a [usize],
    data_offsets: [usize; 2],
}

#[derive(Serialize)]
#[serde(untagged)]
enum Section<'a> {
    Metadata(&'a BTreeMap<&'a str, String>),
    Tensor(Entry<'a>),
}

/// Writes `tensors` under `metadata`; kind, version, provenance and digest are added.
pub(crate) fn write(
    path: &Path,
    kind: (Kind, u32),
    metadata: BTreeMap<&str, String>,
    tensors: &BTreeMap<&str, Values<'_>>,
    provenance: &Provenance,
) -> Result<()> {
    let types = tensors.iter().map(|(name, values)| (*name, (values.dtype(), values.shape()))).collect();
    write_streamed(path, kind, metadata, &types, provenance, |sink| {
        tensors.values().try_for_each(|values| values.write(sink)).map_err(|e| Error::unwritten(path, &e))
    })
}

/// The same of tensors whose bytes come one after the other, in the order of names, from `fill`. Neither they nor the whole of
/// them are ever in memory.
pub(crate) fn write_streamed<E: From<Error>>(
    path: &Path,
    (kind, version): (Kind, u32),
    mut metadata: BTreeMap<&str, String>,
    tensors: &BTreeMap<&str, (Dtype, &[usize])>,
    provenance: &Provenance,
    fill: impl FnOnce(&mut Sink<'_>) -> Result<(), E>,
) -> Result<(), E> {
    const METADATA: &str = "__metadata__";
    if tensors.contains_key(METADATA) {
        return Err(Error::unwritable(path, &format!("a tensor cannot be called `{METADATA}`")).into());
    }
    metadata.insert(KIND, kind.code().to_owned());
    metadata.insert(VERSION, version.to_string());
    let provenance = json::encode("provenance", &provenance.compact()).map_err(|e| Error::unwritable(path, &e))?;
    metadata.insert(PROVENANCE, provenance);
    let digest = Digest::of_metadata(metadata.iter().map(|(key, value)| (*key, value.as_str())));
    // The digest is known in the end, and as long as any other.
    metadata.insert(DIGEST, digest.hex());
    let header = |metadata: &BTreeMap<&str, String>| -> Result<Vec<u8>> {
        let mut end = 0;
        let mut sections = BTreeMap::from([(METADATA, Section::Metadata(metadata))]);
        for (name, &(dtype, shape)) in tensors {
            let start = end;
            end += n_bytes(dtype, shape);
            sections.insert(name, Section::Tensor(Entry { dtype, shape, data_offsets: [start, end] }));
        }
        let mut header = serde_json::to_vec(&sections).map_err(|e| Error::unwritable(path, &e))?;
        // Spaces up to the next multiple of 8, so that the data are aligned.
        header.resize(header.len().next_multiple_of(8), b' ');
        if header.len() as u64 > MAX_HEADER {
            return Err(Error::unwritable(path, &format!("its header would take {} bytes", header.len())));
        }
        Ok([&(header.len() as u64).to_le_bytes(), header.as_slice()].concat())
    };
    let staged = atomic::Staged::new(path)?;
    let write = |bytes: &[u8]| staged.file().write_all(bytes).map_err(|e| Error::unwritten(path, &e));
    write(&header(&metadata)?)?;
    let order = tensors.iter().map(|(name, &(dtype, shape))| (*name, dtype, shape)).collect();
    let mut sink = Sink { file: staged.file(), digest, order, at: 0, left: 0 };
    fill(&mut sink)?;
    sink.skip_empty();
    assert!(sink.left == 0 && sink.at == tensors.len(), "every tensor is filled");
    metadata.insert(DIGEST, sink.digest.hex());
    staged.file().rewind().map_err(|e| Error::unwritten(path, &e))?;
    write(&header(&metadata)?)?;
    Ok(staged.commit()?)
}

fn n_bytes(dtype: Dtype, shape: &[usize]) -> usize {
    shape.iter().product::<usize>() * dtype.bitsize() / 8
}

/// Where tensors' bytes go, one after the other: into the file, and into the digest.
pub(crate) struct Sink<'a> {
    file: &'a File,
    digest: Digest,
    order: Vec<(&'a str, Dtype, &'a [usize])>,
    /// The tensor that is next.
    at: usize,
    /// What the last one still lacks.
    left: usize,
}

impl<'a> Sink<'a> {
    /// The tensor that the next byte belongs to.
    pub(crate) fn tensor(&self) -> Option<&'a str> {
        let at = if self.left > 0 { self.at - 1 } else { self.at };
        self.order.get(at).map(|&(name, ..)| name)
    }

    /// Begins what has no bytes.
    fn skip_empty(&mut self) {
        while self.left == 0 {
            let Some(&(name, dtype, shape)) = self.order.get(self.at) else { return };
            self.digest.tensor(name, dtype, shape);
            self.left = n_bytes(dtype, shape);
            self.at += 1;
        }
    }
}

impl Write for Sink<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.skip_empty();
        let own = &bytes[..bytes.len().min(self.left)];
        self.file.write_all(own)?;
        self.digest.write_all(own)?;
        self.left -= own.len();
        Ok(own.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Whether the first bytes may be those of a safetensors file, whole or cut: a header starts after eight bytes of
/// length, which are not text.
pub(crate) fn looks_like(head: &[u8]) -> bool {
    head.get(8) == Some(&b'{') && !head[..8].iter().all(|b| b.is_ascii_graphic() || b.is_ascii_whitespace())
}

/// The header alone: metadata and the tensors' types and shapes, checked against each other and the file's length.
pub(crate) struct Header {
    pub(crate) metadata: BTreeMap<String, String>,
    pub(crate) tensors: BTreeMap<String, TensorInfo>,
    pub(crate) n_bytes: u64,
    /// Where the tensors begin.
    pub(crate) start: u64,
}

impl Header {
    fn new(metadata: &Metadata, n_bytes: u64) -> Self {
        Self {
            start: n_bytes - metadata.data_len() as u64,
            metadata: metadata.metadata().clone().unwrap_or_default().into_iter().collect(),
            tensors: metadata.tensors().into_iter().map(|(name, info)| (name, info.clone())).collect(),
            n_bytes,
        }
    }

    /// The type of most floating-point numbers.
    pub(crate) fn precision(&self) -> Precision {
        let counts =
            self.tensors.values().filter_map(|info| Some((Precision::of(info.dtype)?, info.shape.iter().product())));
        Precision::mostly(counts)
    }

    /// Whether zipit wrote it, or somebody who kept our metadata.
    pub(crate) fn kind(&self) -> Kind {
        match self.metadata.get(KIND).map(String::as_str) {
            Some("model") => Kind::Model,
            Some("masked") => Kind::Masked,
            Some("checkpoint") => Kind::Checkpoint,
            _ => Kind::Safetensors,
        }
    }

    /// Reads the header of `path` and not the tensors. `kind` is only for the message.
    pub(crate) fn read(path: &Path, kind: Kind) -> Result<Self> {
        let damaged = |reason: String| Error::damaged(path, kind, reason);
        let mut file = File::open(path).map_err(Error::read(path))?;
        let n_bytes = file.metadata().map_err(Error::read(path))?.len();
        let mut length = [0; 8];
        if n_bytes < 8 {
            return Err(damaged(format!("it has {n_bytes} bytes")));
        }
        file.read_exact(&mut length).map_err(Error::read(path))?;
        let length = u64::from_le_bytes(length);
        check_length(length, n_bytes).map_err(damaged)?;
        let mut header = vec![0; length as usize];
        file.read_exact(&mut header).map_err(Error::read(path))?;
        let metadata: Metadata =
            serde_json::from_slice(&header).map_err(|e| damaged(format!("its header cannot be understood: {e}")))?;
        let tensors = metadata
            .offset_keys()
            .into_iter()
            .filter_map(|name| metadata.info(&name).map(|info| (name.clone(), info.clone())))
            .collect();
        let metadata = Metadata::new(metadata.metadata().clone(), tensors).map_err(|e| damaged(e.to_string()))?;
        let expected = 8 + length + metadata.data_len() as u64;
        if expected != n_bytes {
            return Err(damaged(format!("its header asks for {expected} bytes, it has {n_bytes}")));
        }
        Ok(Self::new(&metadata, n_bytes))
    }

    /// Refuses another kind or version.
    pub(crate) fn expect(&self, path: &Path, kind: Kind, reads: u32) -> Result<()> {
        let found = self.kind();
        if found != kind {
            return Err(Error::Kind { path: path.to_owned(), found, expected: kind });
        }
        match self.metadata.get(VERSION).and_then(|v| v.parse().ok()) {
            Some(found) if (1..=reads).contains(&found) => Ok(()),
            Some(found) => Err(Error::Version { path: path.to_owned(), kind, found, reads }),
            None => Err(Error::damaged(path, kind, format!("its `{VERSION}` is no number"))),
        }
    }

    /// Who made it and from what.
    pub(crate) fn provenance(&self, path: &Path) -> Result<Provenance> {
        json::decode("provenance", self.text(path, PROVENANCE)?).map_err(|e| Error::contents(path, self.kind(), &e))
    }

    /// The digest of what `bytes` adds of every tensor, see [`Digest`].
    pub(crate) fn digest(
        &self,
        mut bytes: impl FnMut(&str, &TensorInfo, &mut blake3::Hasher) -> Result<()>,
    ) -> Result<String> {
        let mut digest = Digest::of_metadata(self.metadata.iter().map(|(key, value)| (key.as_str(), value.as_str())));
        for (name, info) in &self.tensors {
            digest.tensor(name, info.dtype, &info.shape);
            bytes(name, info, &mut digest.0)?;
        }
        Ok(digest.hex())
    }

    /// Compares a digest with the one that was written with the content.
    pub(crate) fn verify(&self, path: &Path, digest: &str) -> Result<()> {
        if digest == self.text(path, DIGEST)? {
            return Ok(());
        }
        let problem = format!(
            "its content is not what zipit wrote (`{DIGEST}` differs; if another program changed it on purpose, save it \
             without the zipit metadata and use `import`)"
        );
        Err(Error::damaged(path, self.kind(), problem))
    }

    /// A metadata entry that must be there.
    pub(crate) fn text(&self, path: &Path, key: &str) -> Result<&str> {
        self.metadata
            .get(key)
            .map(String::as_str)
            .ok_or_else(|| Error::contents(path, self.kind(), &format!("`{key}` is missing in its metadata")))
    }
}

fn check_length(length: u64, n_bytes: u64) -> Result<(), String> {
    if length > MAX_HEADER {
        return Err(format!("its header claims {length} bytes, more than the {MAX_HEADER} allowed"));
    }
    if length > n_bytes.saturating_sub(8) {
        return Err(format!("its header claims {length} bytes, but the file has {n_bytes}: it is cut"));
    }
    Ok(())
}

/// Who made the file `path`, after comparing its digest.
pub(crate) fn read_provenance(path: &Path, kind: Kind, reads: u32) -> Result<Provenance> {
    let bytes = read_bytes(path, kind)?;
    let container = Container::parse(path, kind, &bytes)?;
    container.header.expect(path, kind, reads)?;
    container.verify(path)?;
    container.header.provenance(path)
}

/// A whole file in memory.
pub(crate) struct Container<'a> {
    pub(crate) header: Header,
    tensors: SafeTensors<'a>,
}

/// The bytes of a file that starts like safetensors; anything else is refused as what it is.
pub(crate) fn read_bytes(path: &Path, expected: Kind) -> Result<Vec<u8>> {
    let mut head = Vec::with_capacity(9);
    File::open(path).and_then(|f| f.take(9).read_to_end(&mut head)).map_err(|e| {
        if e.kind() == io::ErrorKind::IsADirectory {
            Error::Kind { path: path.to_owned(), found: Kind::Directory, expected }
        } else {
            Error::read(path)(e)
        }
    })?;
    if !looks_like(&head) {
        return Err(Error::Kind { path: path.to_owned(), found: crate::sniff(path)?, expected });
    }
    fs::read(path).map_err(Error::read(path))
}

impl<'a> Container<'a> {
    /// Takes `bytes` of `path` apart. `kind` is only for the message.
    pub(crate) fn parse(path: &Path, kind: Kind, bytes: &'a [u8]) -> Result<Self> {
        let damaged = |reason: String| Error::damaged(path, kind, reason);
        if let Some(Ok(length)) = bytes.get(..8).map(<[u8; 8]>::try_from) {
            check_length(u64::from_le_bytes(length), bytes.len() as u64).map_err(damaged)?;
        }
        let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(|e| damaged(e.to_string()))?;
        let tensors = SafeTensors::deserialize(bytes).map_err(|e| damaged(e.to_string()))?;
        Ok(Self { header: Header::new(&metadata, bytes.len() as u64), tensors })
    }

    /// The digest of the content, see [`Digest`].
    pub(crate) fn digest(&self) -> String {
        let bytes = |name: &str, _: &TensorInfo, to: &mut blake3::Hasher| -> Result<()> {
            to.update_rayon(self.bytes(name));
            Ok(())
        };
        self.header.digest(bytes).unwrap_or_default()
    }

    /// Compares the content with the digest that was written with it.
    pub(crate) fn verify(&self, path: &Path) -> Result<()> {
        self.header.verify(path, &self.digest())
    }

    fn bytes(&self, name: &str) -> &'a [u8] {
        self.tensors.tensor(name).map_or(&[], |view| view.data())
    }

    /// The tensor `name` as f32: F32, F64, F16 and BF16 are read, of anything else the type is returned.
    pub(crate) fn f32(&self, name: &str) -> Result<ArrayD<f32>, String> {
        let (dtype, shape) = self.info(name)?;
        let bytes = self.bytes(name);
        let values: Vec<f32> = match dtype {
            Dtype::F32 => numbers(bytes).map(f32::from_le_bytes).collect(),
            Dtype::F64 => numbers(bytes).map(|b| f64::from_le_bytes(b) as f32).collect(),
            Dtype::F16 => numbers(bytes).map(|b| f16::from_le_bytes(b).to_f32()).collect(),
            Dtype::BF16 => numbers(bytes).map(|b| bf16::from_le_bytes(b).to_f32()).collect(),
            other => return Err(format!("`{name}` holds {other}, expected floating-point numbers")),
        };
        shaped(name, shape, values)
    }

    /// The tensors `names` as [`f32`](Self::f32), several at a time.
    pub(crate) fn all_f32<'n>(&self, names: impl Iterator<Item = &'n str>) -> Result<StateDict, String> {
        let names: Vec<&str> = names.collect();
        let read: Vec<Result<_, String>> =
            names.par_iter().map(|&name| Ok((name.to_owned(), self.f32(name)?))).collect();
        read.into_iter().collect()
    }

    pub(crate) fn f64(&self, name: &str) -> Result<ArrayD<f64>, String> {
        shaped(name, self.info(name)?.1, numbers(self.bytes(name)).map(f64::from_le_bytes).collect())
    }

    pub(crate) fn i64(&self, name: &str) -> Result<ArrayD<i64>, String> {
        shaped(name, self.info(name)?.1, numbers(self.bytes(name)).map(i64::from_le_bytes).collect())
    }

    fn info(&self, name: &str) -> Result<(Dtype, &[usize]), String> {
        let info = self.header.tensors.get(name).ok_or_else(|| format!("there is no tensor `{name}`"))?;
        Ok((info.dtype, &info.shape))
    }
}

pub(crate) fn numbers<const K: usize>(bytes: &[u8]) -> impl Iterator<Item = [u8; K]> {
    bytes.as_chunks().0.iter().copied()
}

fn shaped<T>(name: &str, shape: &[usize], values: Vec<T>) -> Result<ArrayD<T>, String> {
    Array::from_shape_vec(shape, values).map_err(|e| format!("`{name}` {shape:?} is no tensor: {e}"))
}
