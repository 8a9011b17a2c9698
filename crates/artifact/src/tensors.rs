//! Tensors that stay in their file, whose bytes were checked.

use crate::container::{Header, numbers};
use crate::header::hash_file;
use crate::{Error, Kind, Result};
use half::{bf16, f16};
use safetensors::tensor::{Dtype, TensorInfo};
use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Bytes that are read at a time to be checked.
const CHECKED: usize = 1 << 20;
/// Bytes that are read at a time to be turned into numbers.
const TURNED: usize = 1 << 14;

/// The tensors of a container. They are read where they are asked for and not mapped: a file that is cut or lost under a
/// running program is an error then, and not its end.
#[derive(Debug)]
pub(crate) struct Tensors {
    path: PathBuf,
    kind: Kind,
    /// BLAKE3 of the file.
    pub(crate) blake3: String,
    file: File,
    start: u64,
    infos: BTreeMap<String, TensorInfo>,
}

impl Tensors {
    /// Compares the digest, and looks for numbers that are not finite. `kind` is only for the message.
    pub(crate) fn open(path: &Path, kind: Kind) -> Result<Self> {
        let raw = Header::read(path, kind)?;
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
        if !bad.is_empty() {
            return Err(Error::contents(path, kind, &format!("not finite (NaN or infinity): {}", bad.join(", "))));
        }
        let blake3 = if hashed == raw.n_bytes { whole.finalize().to_hex().to_string() } else { hash_file(path)? };
        Ok(Self { path: path.to_owned(), kind, blake3, file, start: raw.start, infos: raw.tensors })
    }

    /// The tensor's type, where its elements from `start` on begin in the file, and that there are `n` of them.
    fn find(&self, name: &str, start: usize, n: usize) -> Result<(Dtype, u64)> {
        let unusable = |reason: String| Error::contents(&self.path, self.kind, &reason);
        let info = self.infos.get(name).ok_or_else(|| unusable(format!("there is no tensor `{name}`")))?;
        let size = info.dtype.bitsize() / 8;
        let (from, to) = info.data_offsets;
        if from + (start + n) * size > to {
            return Err(unusable(format!("`{name}` holds {} numbers only", (to - from) / size)));
        }
        Ok((info.dtype, self.start + (from + start * size) as u64))
    }

    /// Fills `into` with floating-point numbers of the tensor `name`, in row-major order from number `start` on.
    pub(crate) fn floats(&self, name: &str, start: usize, into: &mut [f32]) -> Result<()> {
        let (dtype, mut at) = self.find(name, start, into.len())?;
        let size = dtype.bitsize() / 8;
        let mut buffer = [0; TURNED];
        for part in into.chunks_mut(TURNED / size) {
            let bytes = &mut buffer[..part.len() * size];
            self.file.read_exact_at(bytes, at).map_err(Error::read(&self.path))?;
            at += bytes.len() as u64;
            turn(bytes, dtype, part);
        }
        Ok(())
    }

    /// Fills `into` with bytes of the tensor `name`, from its element `start` on.
    pub(crate) fn bytes(&self, name: &str, start: usize, into: &mut [u8]) -> Result<()> {
        let (_, at) = self.find(name, start, 0)?;
        self.file.read_exact_at(into, at).map_err(Error::read(&self.path))
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
