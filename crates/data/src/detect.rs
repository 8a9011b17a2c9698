//! Which kind of data set a path is.

use crate::{Error, Result, Split, cifar, dataset::Parts, folder, idx, listing::Listing};
use std::path::Path;

const LOOKED_FOR: &str = "\
looked for
  MNIST-style IDX: train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-… (each also .gz), or these in raw/
  CIFAR-10: data_batch_1.bin … data_batch_5.bin, test_batch.bin, or cifar-10-batches-bin/
  CIFAR-100: train.bin, test.bin, or cifar-100-binary/
  class folders: train/<class>/*.jpg (.jpeg, .png), test/<class>/… or val/<class>/…";

enum Source {
    Idx(idx::Files),
    Cifar(cifar::Variant),
    Folder,
}

/// Reads one split of whatever is at `path`.
pub(crate) fn open(path: &Path, split: Split) -> Result<Parts> {
    let is_file = std::fs::metadata(path).map_err(|source| Error::Io { path: path.to_owned(), source })?.is_file();
    if is_file {
        return Err(Error::content(path, "is a file that is no data set by itself; give the folder it is in"));
    }
    let outer = Listing::read(path)?;
    // Where torchvision and the official archives put things, one level down.
    let inner = ["raw", cifar::Variant::Cifar10.folder(), cifar::Variant::Cifar100.folder()];
    let inner: Vec<_> = inner.iter().filter(|name| outer.has_folder(name)).map(|name| outer.join(name)).collect();
    let mut listings = vec![outer];
    for path in inner {
        listings.push(Listing::read(&path)?);
    }
    let mut found = Vec::new();
    for listing in &listings {
        found.extend(sources(listing)?.into_iter().map(|source| (listing, source)));
    }
    match found.as_slice() {
        [] => {
            Err(Error::content(path, format!("holds no data set: {LOOKED_FOR}\nand found {}", listings[0].summary())))
        }
        [(listing, source)] => match source {
            Source::Idx(files) => idx::open(listing, files, split),
            Source::Cifar(variant) => cifar::open(listing, *variant, split),
            Source::Folder => folder::open(listing, split),
        },
        several => {
            let kinds: Vec<&str> = several.iter().map(|(_, source)| source.name()).collect();
            Err(Error::content(
                path,
                format!("holds more than one data set ({}): give the folder of the wanted one", kinds.join(", ")),
            ))
        }
    }
}

impl Source {
    fn name(&self) -> &'static str {
        match self {
            Self::Idx(_) => "IDX",
            Self::Cifar(cifar::Variant::Cifar10) => "CIFAR-10",
            Self::Cifar(cifar::Variant::Cifar100) => "CIFAR-100",
            Self::Folder => "class folders",
        }
    }
}

fn sources(listing: &Listing) -> Result<Vec<Source>> {
    let mut sources = Vec::new();
    sources.extend(idx::find(listing)?.map(Source::Idx));
    for variant in [cifar::Variant::Cifar10, cifar::Variant::Cifar100] {
        if variant.is_in(listing) {
            sources.push(Source::Cifar(variant));
        }
    }
    if folder::is_in(listing) {
        sources.push(Source::Folder);
    }
    Ok(sources)
}
