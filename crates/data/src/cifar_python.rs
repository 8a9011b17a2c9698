//! CIFAR's batches for Python, which is what torchvision downloads: pickled dictionaries of an array of bytes `[N, 3072]` and
//! a list of labels. They are read without running anything.

use crate::{
    Error, Result, Split,
    dataset::{Images, Kind, Parts},
    digest::Digest,
    error,
    listing::Listing,
    pickle::{self, Value},
    raster::Layout,
};
use std::path::Path;

const SHAPE: [usize; 3] = [3, 32, 32];

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Variant {
    /// Five training batches and one of test images.
    Cifar10,
    /// One file each; the fine label is the class.
    Cifar100,
}

impl Variant {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Cifar10, Self::Cifar100];

    /// The folder the official archive unpacks to.
    pub fn folder(self) -> &'static str {
        match self {
            Self::Cifar10 => "cifar-10-batches-py",
            Self::Cifar100 => "cifar-100-python",
        }
    }

    /// The file of names, and the key in it.
    fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Cifar10 => ("batches.meta", "label_names"),
            Self::Cifar100 => ("meta", "fine_label_names"),
        }
    }

    fn batches(self, test: bool) -> &'static [&'static str] {
        match (self, test) {
            (Self::Cifar10, false) => &["data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5"],
            (Self::Cifar10, true) => &["test_batch"],
            (Self::Cifar100, false) => &["train"],
            (Self::Cifar100, true) => &["test"],
        }
    }

    /// How it is called.
    pub fn kind(self) -> Kind {
        match self {
            Self::Cifar10 => Kind::Cifar10,
            Self::Cifar100 => Kind::Cifar100,
        }
    }

    /// Does the folder hold its names and any of its batches?
    pub fn is_in(self, listing: &Listing) -> bool {
        let any = [false, true].iter().any(|&test| self.batches(test).iter().any(|name| listing.has(name)));
        // `train` and `test` alone may be anything.
        any && (self == Self::Cifar10 || listing.has(self.names().0))
    }
}

/// Reads one split.
pub(crate) fn open(listing: &Listing, variant: Variant, split: Split) -> Result<Parts> {
    let (names, key) = variant.names();
    let batches = variant.batches(split == Split::Test);
    let missing: Vec<&str> = batches.iter().chain(&[names]).copied().filter(|name| !listing.has(name)).collect();
    if !missing.is_empty() {
        return Err(Error::content(
            &listing.path,
            format!("the {split} split needs {}, which is missing; unpack the whole archive", missing.join(", ")),
        ));
    }
    let mut digest = Digest::default();
    let meta = unpickle(&listing.join(names), &mut digest)?;
    let classes = class_names(&meta, key).map_err(|reason| Error::content(&listing.join(names), reason))?;
    let (mut labels, mut pixels) = (Vec::new(), Vec::new());
    for name in batches {
        let path = listing.join(name);
        let batch = unpickle(&path, &mut digest)?;
        let (images, of_batch) = images_and_labels(&batch).map_err(|reason| Error::content(&path, reason))?;
        if let Some(i) = of_batch.iter().position(|&label| label as usize >= classes.len()) {
            let n = classes.len();
            let reason = format!("image {i} (counted from 0) has label {}, but {names} names {n} classes", of_batch[i]);
            return Err(Error::content(&path, reason));
        }
        labels.extend(of_batch);
        pixels.extend_from_slice(images);
    }
    Ok(Parts {
        kind: variant.kind(),
        share: split.share(),
        classes,
        labels,
        images: Images::Memory { shape: SHAPE, layout: Layout::Planar, pixels },
        digest: digest.finish(),
        hidden: Vec::new(),
        warnings: Vec::new(),
    })
}

fn unpickle(path: &Path, digest: &mut Digest) -> Result<Value> {
    let contents = error::read(path)?;
    digest.file(&path.file_name().unwrap_or_default().to_string_lossy(), &contents);
    pickle::read(&contents)
        .map_err(|reason| Error::content(path, format!("is not one of CIFAR's pickled batches: {reason}")))
}

fn class_names(meta: &Value, key: &str) -> Result<Vec<String>, String> {
    let Some(Value::List(names)) = meta.get(key) else { return Err(format!("has no list `{key}`")) };
    let name = |name: &Value| match name {
        Value::Bytes(name) => String::from_utf8(name.clone()).ok(),
        _ => None,
    };
    let names: Option<Vec<String>> = names.iter().map(name).collect();
    names.filter(|names| !names.is_empty()).ok_or_else(|| format!("`{key}` is no list of names"))
}

fn images_and_labels(batch: &Value) -> Result<(&[u8], Vec<u32>), String> {
    let Some(Value::Array(shape, images)) = batch.get("data") else {
        return Err("has no array of bytes `data`".to_owned());
    };
    let Some(Value::List(labels)) = batch.get("fine_labels").or_else(|| batch.get("labels")) else {
        return Err("has no list `labels` or `fine_labels`".to_owned());
    };
    let n_values = SHAPE.iter().product::<usize>();
    if *shape != [labels.len(), n_values] {
        return Err(format!("has images {shape:?} and {} labels; expected [N, {n_values}] and N", labels.len()));
    }
    let number = |label: &Value| if let Value::Int(label) = label { u32::try_from(*label).ok() } else { None };
    let labels: Option<Vec<u32>> = labels.iter().map(number).collect();
    Ok((images, labels.ok_or("has labels that are no class numbers")?))
}
