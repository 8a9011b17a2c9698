//! A model's numbers piece by piece, read and written: of files that are larger than memory.

use crate::container::{self, Header, Sink, numbers};
use crate::header::{MODEL_VERSION, hash_file};
use crate::model::{self, ModelHeader};
use crate::{Error, InputRef, Kind, Precision, Provenance, Result};
use half::{bf16, f16};
use rayon::prelude::*;
use safetensors::tensor::{Dtype, TensorInfo};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use zipit::Model;

/// Bytes that are read at a time to be checked.
const CHECKED: usize = 1 << 20;
/// Bytes that are read, or written, at a time to be turned into numbers.
const TURNED: usize = 1 << 14;

/// A model whose numbers stay in its file. They are read where they are asked for and not mapped: a file that is cut or lost
/// under a running program is an error then, and not its end.
#[derive(Debug)]
pub struct WeightsReader {
    header: ModelHeader,
    blake3: String,
    file: File,
    start: u64,
    tensors: BTreeMap<String, TensorInfo>,
}

impl WeightsReader {
    /// Opens a model and checks all of it, as [`model::read`] does.
    ///
    /// # Errors
    /// A file that cannot be read, is another kind or version, is damaged, or holds no usable model.
    pub fn open(path: &Path) -> Result<Self> {
        let header = model::read_header(path)?;
        let raw = Header::read(path, Kind::Model)?;
        let file = File::open(path).map_err(Error::read(path))?;
        // The file's own hash, too, where its tensors stand in the order of their names, as in every file of ours.
        let mut whole = blake3::Hasher::new();
        let mut hashed = 0;
        let mut bad = Vec::new();
        let mut buffer = vec![0; CHECKED];
        for at in (0..raw.start).step_by(CHECKED) {
            let bytes = &mut buffer[..CHECKED.min((raw.start - at) as usize)];
            file.read_exact_at(bytes, at).map_err(Error::read(path))?;
            whole.update(bytes);
            hashed += bytes.len() as u64;
        }
        let digest = raw.digest(|name, info, digest| {
            let mut finite = true;
            let (from, to) = info.data_offsets;
            for at in (from..to).step_by(CHECKED) {
                let bytes = &mut buffer[..CHECKED.min(to - at)];
                let place = raw.start + at as u64;
                file.read_exact_at(bytes, place).map_err(Error::read(path))?;
                let bytes = &*bytes;
                let next = hashed == place;
                let of_file = || {
                    if next {
                        whole.update(bytes);
                    }
                    all_finite(bytes, info.dtype)
                };
                // The last file has no other beside it.
                finite &= rayon::join(|| digest.update(bytes), of_file).1;
                hashed += if next { bytes.len() as u64 } else { 0 };
            }
            if !finite {
                bad.push(name.to_owned());
            }
            Ok(())
        })?;
        raw.verify(path, &digest)?;
        let unusable = |reason: String| Error::contents(path, Kind::Model, &reason);
        if !bad.is_empty() {
            return Err(unusable(format!("not finite (NaN or infinity): {}", bad.join(", "))));
        }
        let found = outline(&header).validate_outline();
        found.map_err(|e| unusable(e.to_string()))?;
        let blake3 = if hashed == raw.n_bytes { whole.finalize().to_hex().to_string() } else { hash_file(path)? };
        Ok(Self { blake3, header, file, start: raw.start, tensors: raw.tensors })
    }

    /// Opens several, side by side.
    ///
    /// # Errors
    /// As [`open`](Self::open), of the first that fails.
    pub fn open_all(paths: &[PathBuf]) -> Result<Vec<Self>> {
        let opened: Vec<Result<Self>> = paths.par_iter().with_max_len(1).map(|path| Self::open(path)).collect();
        opened.into_iter().collect()
    }

    /// Everything but the numbers.
    #[must_use]
    pub fn header(&self) -> &ModelHeader {
        &self.header
    }

    /// This file as an input of what is made from it.
    #[must_use]
    pub fn input_ref(&self) -> InputRef {
        InputRef::new(&self.header.path, Kind::Model, &self.blake3, Some(self.header.provenance.clone()))
    }

    /// Fills `into` with numbers of the tensor `name`, in row-major order from number `start` on.
    ///
    /// # Errors
    /// A tensor that is not there or is shorter, a file that cannot be read any more.
    pub fn read(&self, name: &str, start: usize, into: &mut [f32]) -> Result<()> {
        let path = &self.header.path;
        let unusable = |reason: String| Error::contents(path, Kind::Model, &reason);
        let info = self.tensors.get(name).ok_or_else(|| unusable(format!("there is no tensor `{name}`")))?;
        let size = info.dtype.bitsize() / 8;
        let (from, to) = info.data_offsets;
        if from + (start + into.len()) * size > to {
            return Err(unusable(format!("`{name}` holds {} numbers only", (to - from) / size)));
        }
        let mut buffer = [0; TURNED];
        let mut at = self.start + (from + start * size) as u64;
        for part in into.chunks_mut(TURNED / size) {
            let bytes = &mut buffer[..part.len() * size];
            self.file.read_exact_at(bytes, at).map_err(Error::read(path))?;
            at += bytes.len() as u64;
            turn(bytes, info.dtype, part);
        }
        Ok(())
    }
}

fn outline(header: &ModelHeader) -> Model {
    Model {
        graph: header.graph.clone(),
        weights: BTreeMap::new(),
        tasks: header.tasks.clone(),
        preprocess: header.preprocess.clone(),
        joint: header.joint.clone(),
    }
}

/// Of what [`Header`] and graph let a model's tensor be: floating-point numbers; of others nothing happens.
fn turn(bytes: &[u8], dtype: Dtype, into: &mut [f32]) {
    fn fill<const K: usize>(bytes: &[u8], into: &mut [f32], number: impl Fn([u8; K]) -> f32) {
        into.iter_mut().zip(numbers(bytes)).for_each(|(place, bytes)| *place = number(bytes));
    }
    match dtype {
        Dtype::F32 => fill(bytes, into, f32::from_le_bytes),
        Dtype::F64 => fill(bytes, into, |bytes| f64::from_le_bytes(bytes) as f32),
        Dtype::F16 => fill(bytes, into, |bytes| f16::from_le_bytes(bytes).to_f32()),
        Dtype::BF16 => fill(bytes, into, |bytes| bf16::from_le_bytes(bytes).to_f32()),
        _ => {}
    }
}

/// As f32, in which everything is computed.
fn all_finite(bytes: &[u8], dtype: Dtype) -> bool {
    fn all<const K: usize>(bytes: &[u8], finite: impl Fn([u8; K]) -> bool) -> bool {
        numbers(bytes).fold(true, |all, bytes| all & finite(bytes))
    }
    match dtype {
        Dtype::F32 => all(bytes, |bytes| f32::from_le_bytes(bytes).is_finite()),
        Dtype::F64 => all(bytes, |bytes| (f64::from_le_bytes(bytes) as f32).is_finite()),
        Dtype::F16 => all(bytes, |bytes| f16::from_le_bytes(bytes).is_finite()),
        Dtype::BF16 => all(bytes, |bytes| bf16::from_le_bytes(bytes).is_finite()),
        _ => true,
    }
}

/// A model that is being written, numbers in the order of tensors' names.
pub struct WeightsWriter<'a, 'f> {
    path: &'a Path,
    precision: Precision,
    sink: &'a mut Sink<'f>,
    buffer: Vec<u8>,
}

impl WeightsWriter<'_, '_> {
    /// The next numbers, all of one tensor.
    ///
    /// # Errors
    /// Numbers that are not finite, or not in the file's precision; a full disk.
    pub fn write(&mut self, numbers: &[f32]) -> Result<()> {
        let name = self.sink.tensor().unwrap_or_default();
        if let Some(x) = numbers.iter().find(|x| !x.is_finite()) {
            return Err(Error::unwritable(self.path, &format!("`{name}` would hold {x}")));
        }
        self.precision.check(self.path, name, numbers)?;
        for part in numbers.chunks(CHECKED) {
            match self.precision {
                Precision::F16 => self.bytes(part, |x| f16::from_f32(x).to_le_bytes()),
                Precision::Bf16 => self.bytes(part, |x| bf16::from_f32(x).to_le_bytes()),
                Precision::F32 => self.bytes(part, f32::to_le_bytes),
                Precision::F64 => self.bytes(part, |x| f64::from(x).to_le_bytes()),
            }
            .map_err(|e| Error::unwritten(self.path, &e))?;
        }
        Ok(())
    }

    fn bytes<const K: usize>(&mut self, numbers: &[f32], bytes: impl Fn(f32) -> [u8; K]) -> io::Result<()> {
        self.buffer.resize(numbers.len() * K, 0);
        for (place, &number) in self.buffer.as_chunks_mut::<K>().0.iter_mut().zip(numbers) {
            *place = bytes(number);
        }
        self.sink.write_all(&self.buffer)
    }
}

/// Writes a model whose numbers come from `fill`, in the order of tensors' names: byte for byte what
/// [`write_as`](model::write_as) writes of it. `model` has no weights, `shapes` those of all of them.
///
/// # Errors
/// As [`write_as`](model::write_as), and those of `fill`.
///
/// # Panics
/// When `fill` gives fewer numbers than the tensors hold.
pub fn write_streamed<E: From<Error>>(
    path: &Path,
    model: &Model,
    shapes: &BTreeMap<String, Vec<usize>>,
    precision: Precision,
    provenance: &Provenance,
    fill: impl FnOnce(&mut WeightsWriter<'_, '_>) -> Result<(), E>,
) -> Result<(), E> {
    let unwritable = |reason: String| Error::unwritable(path, &reason);
    model.validate_outline().map_err(|e| unwritable(e.to_string()))?;
    let named = shapes.iter().map(|(name, shape)| (name.as_str(), shape.clone())).collect();
    model.graph.check_tensor_shapes(&named).map_err(|e| unwritable(e.to_string()))?;
    let tensors = shapes.iter().map(|(name, shape)| (name.as_str(), (precision.dtype(), shape.as_slice()))).collect();
    let metadata = model::metadata(model).map_err(unwritable)?;
    container::write_streamed(path, (Kind::Model, MODEL_VERSION), metadata, &tensors, provenance, |sink| {
        fill(&mut WeightsWriter { path, precision, sink, buffer: Vec::new() })
    })
}
