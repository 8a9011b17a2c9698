//! What a file is, told from its bytes and never from its name.

use crate::container::{self, Header, read_provenance};
use crate::header::{CHECKPOINT_VERSION, MASKED_VERSION, MODEL_VERSION};
use crate::{Error, Kind, Provenance, Result, StatsReader, hdf, layout, plan, report, stats};
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

/// How much of the beginning is looked at, and of a zip archive's end, where its directory is.
const WINDOW: u64 = 1 << 20;
/// JSON beyond this is not looked into.
const MAX_JSON: u64 = 1 << 28;

/// Says what the file `path` is. A file of ours may still be damaged inside.
///
/// # Errors
/// A file that cannot be read.
pub fn sniff(path: &Path) -> Result<Kind> {
    let metadata = fs::metadata(path).map_err(Error::read(path))?;
    if metadata.is_dir() {
        return Ok(Kind::Directory);
    }
    let mut file = File::open(path).map_err(Error::read(path))?;
    let mut head = Vec::new();
    (&mut file).take(WINDOW).read_to_end(&mut head).map_err(Error::read(path))?;
    if head.is_empty() {
        return Ok(Kind::Empty);
    }
    if head.starts_with(stats::MAGIC) {
        return Ok(Kind::Stats);
    }
    if head.starts_with(plan::MAGIC) {
        return Ok(Kind::Plan);
    }
    if let Some(kind) = by_magic(&head) {
        return Ok(kind);
    }
    if is_hdf5(&head) {
        return Ok(hdf5_kind(path));
    }
    if head.starts_with(b"PK\x03\x04") {
        let mut tail = Vec::new();
        let start = metadata.len().saturating_sub(WINDOW);
        file.seek(SeekFrom::Start(start)).map_err(Error::read(path))?;
        file.take(WINDOW).read_to_end(&mut tail).map_err(Error::read(path))?;
        return Ok(zip_kind(&head, &tail));
    }
    if container::looks_like(&head) {
        return Ok(Header::read(path, Kind::Safetensors).map_or(Kind::Safetensors, |header| header.kind()));
    }
    if is_idx(&head, metadata.len()) {
        return Ok(Kind::Idx);
    }
    if head.trim_ascii_start().starts_with(b"{") && metadata.len() <= MAX_JSON {
        let bytes = fs::read(path).map_err(Error::read(path))?;
        return Ok(if report::is_report(&bytes) { Kind::Report } else { Kind::Json });
    }
    if is_onnx(&head) {
        return Ok(Kind::Onnx);
    }
    Ok(Kind::Unknown)
}

fn by_magic(head: &[u8]) -> Option<Kind> {
    let text = head.trim_ascii_start();
    let text_starts = |with: &[u8]| text.get(..with.len()).is_some_and(|t| t.eq_ignore_ascii_case(with));
    Some(match head {
        [0x1f, 0x8b, ..] => Kind::Gzip,
        [0x89, b'P', b'N', b'G', ..] | [0xff, 0xd8, 0xff, ..] => Kind::Image,
        // A safetensors header may well be 0x0480 bytes long.
        [0x80, 2..=5, ..] if !container::looks_like(head) => Kind::Pickle,
        _ if head.starts_with(b"GGUF") => Kind::Gguf,
        _ if head.starts_with(b"\x93NUMPY") => Kind::Numpy,
        _ if head.starts_with(b"version https://git-lfs") => Kind::GitLfsPointer,
        _ if text_starts(b"<!doctype html") || text_starts(b"<html") => Kind::Html,
        _ => return None,
    })
}

/// HDF5's signature stands at 0, or after a user block of 512, 1024, 2048, … bytes.
fn is_hdf5(head: &[u8]) -> bool {
    let signed = |at: usize| head.get(at..).is_some_and(|rest| rest.starts_with(b"\x89HDF\r\n\x1a\n"));
    signed(0) || std::iter::successors(Some(512), |at| Some(at * 2)).take_while(|&at| at < head.len()).any(signed)
}

fn hdf5_kind(path: &Path) -> Kind {
    let Ok(file) = hdf::open(path) else {
        return Kind::Hdf5;
    };
    let has = |name: &str| file.link_exists(name);
    if layout::SPLITS.iter().any(|split| has(split) && has(&format!("{split}/{}", layout::IMAGES))) {
        return Kind::Dataset;
    }
    let attributes = file.attr_names().unwrap_or_default();
    if has("model_weights") || has("layers") || attributes.iter().any(|a| a == "keras_version" || a == "layer_names") {
        return Kind::KerasHdf5;
    }
    Kind::Hdf5
}

/// A zip archive is told by its entries' names, which stand in front of each entry and again at the end.
fn zip_kind(head: &[u8], tail: &[u8]) -> Kind {
    let names = |name: &[u8]| [head, tail].iter().any(|part| part.windows(name.len()).any(|w| w == name));
    if names(b"/constants.pkl") || names(b"/code/") {
        Kind::TorchScript
    } else if names(b"/data.pkl") {
        Kind::PytorchZip
    } else if names(b"model.weights.h5") {
        Kind::KerasHdf5
    } else if names(b".npy") {
        Kind::Numpy
    } else {
        Kind::Zip
    }
}

/// IDX: two zeros, a type, a rank, then the sizes, big-endian, which give the length.
fn is_idx(head: &[u8], length: u64) -> bool {
    let &[0, 0, dtype, rank, ..] = head else {
        return false;
    };
    let element = match dtype {
        0x08 | 0x09 => 1_u64,
        0x0b => 2,
        0x0c | 0x0d => 4,
        0x0e => 8,
        _ => return false,
    };
    let Some(sizes) = head.get(4..4 + 4 * usize::from(rank)) else {
        return false;
    };
    let n_bytes = container::numbers(sizes)
        .map(u32::from_be_bytes)
        .try_fold(element, |product, size| product.checked_mul(u64::from(size)));
    // A truncated IDX file is still one.
    rank > 0 && n_bytes.is_some_and(|n| n > 0 && length <= n.saturating_add(4 + 4 * u64::from(rank)))
}

/// ONNX is a protobuf: field 1 is a small IR version, then comes the producer's name or another early field.
fn is_onnx(head: &[u8]) -> bool {
    matches!(head, [0x08, 3..=30, 0x12 | 0x1a | 0x22 | 0x2a | 0x32 | 0x3a | 0x42, ..])
}

/// Who made the file `path`; `None` where there is no file, or none of ours that says so. Digests are compared
/// on the way, so what has one is whole.
///
/// # Errors
/// A file of ours that cannot be read or is damaged.
pub fn provenance_of(path: &Path) -> Result<Option<Provenance>> {
    if !path.exists() {
        return Ok(None);
    }
    Ok(match sniff(path)? {
        kind @ Kind::Model => Some(read_provenance(path, kind, MODEL_VERSION)?),
        kind @ Kind::Masked => Some(read_provenance(path, kind, MASKED_VERSION)?),
        Kind::Stats => Some(StatsReader::open(path)?.header().provenance.clone()),
        Kind::Plan => Some(plan::read(path)?.provenance),
        Kind::Report => Some(report::read_provenance(path)?),
        kind @ Kind::Checkpoint => Some(read_provenance(path, kind, CHECKPOINT_VERSION)?),
        _ => None,
    })
}
