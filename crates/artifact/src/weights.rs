//! A model's numbers piece by piece, read and written: of files that are larger than memory.

use crate::container::{self, Sink};
use crate::header::MODEL_VERSION;
use crate::model::{self, ModelHeader};
use crate::tensors::Tensors;
use crate::{Error, InputRef, Kind, Precision, Provenance, Result};
use half::{bf16, f16};
use rayon::prelude::*;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use zipit::Model;

/// Numbers that are turned into bytes at a time.
const TURNED: usize = 1 << 20;

/// A model whose numbers stay in its file, and are read where they are asked for.
#[derive(Debug)]
pub struct WeightsReader {
    header: ModelHeader,
    tensors: Tensors,
}

impl WeightsReader {
    /// Opens a model and checks all of it, as [`model::read`] does.
    ///
    /// # Errors
    /// A file that cannot be read, is another kind or version, is damaged, or holds no usable model.
    pub fn open(path: &Path) -> Result<Self> {
        let header = model::read_header(path)?;
        let tensors = Tensors::open(path, Kind::Model)?;
        outline(&header).validate_outline().map_err(|e| Error::contents(path, Kind::Model, &e))?;
        Ok(Self { header, tensors })
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
        InputRef::new(&self.header.path, Kind::Model, &self.tensors.blake3, Some(self.header.provenance.clone()))
    }

    /// Fills `into` with numbers of the tensor `name`, in row-major order from number `start` on.
    ///
    /// # Errors
    /// A tensor that is not there or is shorter, a file that cannot be read any more.
    pub fn read(&self, name: &str, start: usize, into: &mut [f32]) -> Result<()> {
        self.tensors.floats(name, start, into)
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

/// A model that is being written, numbers in the order of tensors' names.
pub struct WeightsWriter<'a, 'f> {
    path: &'a Path,
    precision: Precision,
    sink: &'a mut Sink<'f>,
    buffer: Vec<u8>,
}

impl<'a, 'f> WeightsWriter<'a, 'f> {
    pub(crate) fn new(path: &'a Path, precision: Precision, sink: &'a mut Sink<'f>) -> Self {
        Self { path, precision, sink, buffer: Vec::new() }
    }

    /// The next bytes, whatever they are.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Result<()> {
        self.sink.write_all(bytes).map_err(|e| Error::unwritten(self.path, &e))
    }

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
        for part in numbers.chunks(TURNED) {
            match self.precision {
                Precision::F16 => self.turned(part, |x| f16::from_f32(x).to_le_bytes()),
                Precision::Bf16 => self.turned(part, |x| bf16::from_f32(x).to_le_bytes()),
                Precision::F32 => self.turned(part, f32::to_le_bytes),
                Precision::F64 => self.turned(part, |x| f64::from(x).to_le_bytes()),
            }
            .map_err(|e| Error::unwritten(self.path, &e))?;
        }
        Ok(())
    }

    fn turned<const K: usize>(&mut self, numbers: &[f32], bytes: impl Fn(f32) -> [u8; K]) -> io::Result<()> {
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
        fill(&mut WeightsWriter::new(path, precision, sink))
    })
}
