//! IDX, the format of MNIST and its relatives (<http://yann.lecun.com/exdb/mnist>): two zero bytes, a type byte (8:
//! u8), the number of dimensions, each dimension as a big-endian u32, then the values. Gzipped or not.

use crate::{
    Error, Result, Split,
    classes::read_names,
    dataset::{Images, Kind, Parts},
    digest::Digest,
    error,
    listing::Listing,
    raster::Layout,
};
use flate2::read::MultiGzDecoder;
use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Read},
    path::Path,
};

/// Class names, one a line in label order; without it classes are called by their numbers.
const CLASS_NAMES: &str = "classes.txt";

/// File names of one IDX data set: `[training part, test part]`.
#[derive(Debug, Default)]
pub(crate) struct Files {
    images: [Option<String>; 2],
    labels: [Option<String>; 2],
}

/// `train-images-idx3-ubyte.gz`, `emnist-letters-test-labels.idx1-ubyte` …: prefix, test part?, labels?.
fn parse_name(name: &str) -> Option<(String, bool, bool)> {
    let name = name.strip_suffix(".gz").unwrap_or(name).replace('.', "-");
    let stem = name.strip_suffix("-ubyte")?;
    let (stem, n_dims) = stem.rsplit_once("-idx")?;
    let (stem, labels) = match (stem.strip_suffix("-images"), stem.strip_suffix("-labels"), n_dims) {
        (Some(stem), _, "3" | "4") => (stem, false),
        (_, Some(stem), "1") => (stem, true),
        _ => return None,
    };
    let part = |word| stem.strip_suffix(word).filter(|prefix| prefix.is_empty() || prefix.ends_with('-'));
    match (part("train"), part("t10k").or_else(|| part("test"))) {
        (Some(prefix), _) => Some((prefix.to_owned(), false, labels)),
        (None, Some(prefix)) => Some((prefix.to_owned(), true, labels)),
        (None, None) => None,
    }
}

/// Does the name say IDX?
pub(crate) fn is_named(name: &str) -> bool {
    parse_name(name).is_some()
}

/// The IDX files of a folder, if it holds any. An unpacked file is preferred to its gzipped twin.
pub(crate) fn find(listing: &Listing) -> Result<Option<Files>> {
    let mut sets: BTreeMap<String, Files> = BTreeMap::new();
    for name in &listing.files {
        if let Some((prefix, test, labels)) = parse_name(name) {
            let set = sets.entry(prefix).or_default();
            let slot = &mut (if labels { &mut set.labels } else { &mut set.images })[usize::from(test)];
            // Names are sorted, so the unpacked file comes before its twin.
            slot.get_or_insert_with(|| name.clone());
        }
    }
    if sets.len() > 1 {
        let prefixes: BTreeSet<&str> = sets.keys().map(|p| p.trim_end_matches('-')).collect();
        let prefixes: Vec<&str> = prefixes.into_iter().map(|p| if p.is_empty() { "(no prefix)" } else { p }).collect();
        return Err(Error::content(
            &listing.path,
            format!("holds several IDX data sets ({}): give the wanted one a folder of its own", prefixes.join(", ")),
        ));
    }
    Ok(sets.into_values().next())
}

/// Reads one split.
pub(crate) fn open(listing: &Listing, files: &Files, split: Split) -> Result<Parts> {
    let part = usize::from(split == Split::Test);
    let mut digest = Digest::default();
    let wanted = |slot: &Option<String>, what: &str| {
        slot.clone().ok_or_else(|| {
            let stem = if part == 1 { "t10k" } else { "train" };
            let n_dims = if what == "images" { 3 } else { 1 };
            Error::content(
                &listing.path,
                format!(
                    "the {split} split needs {stem}-{what}-idx{n_dims}-ubyte (or .gz), which is missing; the folder \
                     holds {}",
                    listing.summary()
                ),
            )
        })
    };
    let (images_name, labels_name) = (wanted(&files.images[part], "images")?, wanted(&files.labels[part], "labels")?);

    let images_path = listing.join(&images_name);
    let images = read(&images_path, &mut digest)?;
    let (shape, layout) = image_shape(&images.shape).map_err(|reason| Error::content(&images_path, reason))?;
    let labels_path = listing.join(&labels_name);
    let labels = read_labels(&labels_path, &mut digest)?;
    if labels.len() != images.shape[0] {
        return Err(Error::content(
            &images_path,
            format!("holds {} images but {labels_name} holds {} labels", images.shape[0], labels.len()),
        ));
    }

    let classes = if listing.has(CLASS_NAMES) {
        let path = listing.join(CLASS_NAMES);
        let classes = read_names(&path, &mut digest)?;
        check_labels(&labels, classes.len(), &labels_path, CLASS_NAMES)?;
        classes
    } else {
        // Both parts are asked, so that every split agrees on the number of classes.
        let mut n_classes = labels.iter().max().map_or(0, |&m| usize::from(m) + 1);
        if let Some(other) = &files.labels[1 - part] {
            let other = read_labels(&listing.join(other), &mut digest)?;
            n_classes = n_classes.max(other.iter().max().map_or(0, |&m| usize::from(m) + 1));
        }
        (0..n_classes).map(|c| c.to_string()).collect()
    };
    Ok(Parts {
        kind: Kind::Idx,
        share: split.share(),
        classes,
        labels: labels.into_iter().map(u32::from).collect(),
        images: Images::Memory { shape, layout, pixels: images.values },
        digest: digest.finish(),
        hidden: Vec::new(),
        warnings: Vec::new(),
    })
}

fn check_labels(labels: &[u8], n_classes: usize, path: &Path, names: &str) -> Result<()> {
    match labels.iter().position(|&l| usize::from(l) >= n_classes) {
        None => Ok(()),
        Some(i) => Err(Error::content(
            path,
            format!(
                "label {i} (counted from 0) is class {}, but {names} names {n_classes} classes (0 to {})",
                labels[i],
                n_classes - 1
            ),
        )),
    }
}

/// `[C, H, W]` and where the channels are, from `[N, H, W]`, `[N, C, H, W]` or `[N, H, W, C]` with C = 1 or 3; planes go first
/// where both would do.
fn image_shape(shape: &[usize]) -> Result<([usize; 3], Layout), String> {
    match *shape {
        [_, h, w] => Ok(([1, h, w], Layout::Planar)),
        [_, c @ (1 | 3), h, w] => Ok(([c, h, w], Layout::Planar)),
        [_, h, w, c @ (1 | 3)] => Ok(([c, h, w], Layout::Interleaved)),
        _ => {
            Err(format!("has shape {shape:?}; images are [N, H, W], [N, C, H, W] or [N, H, W, C] with 1 or 3 channels"))
        }
    }
}

#[derive(Debug)]
struct Idx {
    shape: Vec<usize>,
    values: Vec<u8>,
}

fn read_labels(path: &Path, digest: &mut Digest) -> Result<Vec<u8>> {
    let labels = read(path, digest)?;
    match labels.shape.len() {
        1 => Ok(labels.values),
        _ => Err(Error::content(path, format!("has shape {:?}; labels are [N]", labels.shape))),
    }
}

fn read(path: &Path, digest: &mut Digest) -> Result<Idx> {
    let contents = error::read(path)?;
    digest.file(&path.file_name().unwrap_or_default().to_string_lossy(), &contents);
    let parsed = if contents.starts_with(&[0x1f, 0x8b]) {
        parse(MultiGzDecoder::new(contents.as_slice()))
    } else {
        parse(contents.as_slice())
    };
    parsed.map_err(|reason| Error::content(path, reason))
}

fn parse(mut stream: impl Read) -> Result<Idx, String> {
    let mut magic = [0; 4];
    fill(&mut stream, &mut magic)?;
    let [0, 0, kind, n_dims] = magic else {
        return Err(format!("is not an IDX file: it begins with bytes {magic:02x?}, an IDX file with 00 00"));
    };
    if kind != 8 {
        return Err(format!("holds IDX values of type 0x{kind:02x}; only unsigned bytes (0x08) are images or labels"));
    }
    if n_dims == 0 {
        return Err("is an IDX file with no dimensions".to_owned());
    }
    let mut shape = Vec::with_capacity(usize::from(n_dims));
    for _ in 0..n_dims {
        let mut size = [0; 4];
        fill(&mut stream, &mut size)?;
        shape.push(u32::from_be_bytes(size) as usize);
    }
    if shape.contains(&0) {
        return Err(format!("announces shape {shape:?}: there is nothing in it"));
    }
    let n_values = shape
        .iter()
        .try_fold(1_usize, |n, &size| n.checked_mul(size))
        .filter(|&n| n < isize::MAX as usize)
        .ok_or_else(|| format!("announces the impossible shape {shape:?}"))?;
    // Grows with what is really there, not with what the header announces.
    let mut values = Vec::new();
    stream.take(n_values as u64 + 1).read_to_end(&mut values).map_err(|e| unreadable(&e))?;
    let announced = format!("its header announces shape {shape:?}, that is {n_values} bytes");
    match values.len() {
        n if n < n_values => Err(format!("is truncated: {announced}, but {n} follow")),
        n if n > n_values => Err(format!("is longer than it should be: {announced}, but more follow")),
        _ => Ok(Idx { shape, values }),
    }
}

fn fill(stream: &mut impl Read, bytes: &mut [u8]) -> Result<(), String> {
    stream.read_exact(bytes).map_err(|e| match e.kind() {
        io::ErrorKind::UnexpectedEof => "is truncated: it ends within its IDX header".to_owned(),
        _ => unreadable(&e),
    })
}

/// Reading from memory fails only in the gzip decoder.
fn unreadable(e: &io::Error) -> String {
    format!("is not readable gzip: {e}; fetch it again")
}
