//! Which kind of data set a path is.

use crate::{Error, Result, Split, cifar, cifar_python, dataset::Parts, folder, hdf, idx, listing::Listing, stl10};
use std::path::Path;

const LOOKED_FOR: &str = "\
looked for
  MNIST-style IDX: train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-… (each also .gz), or these in raw/
  CIFAR-10: data_batch_1.bin … data_batch_5.bin, test_batch.bin, or these without .bin (pickled), or
    cifar-10-batches-bin/, cifar-10-batches-py/
  CIFAR-100: train.bin, test.bin, or train, test, meta (pickled), or cifar-100-binary/, cifar-100-python/
  STL-10: train_X.bin, train_y.bin, test_X.bin, test_y.bin, class_names.txt, or stl10_binary/
  class folders: train/<class>/*.jpg (.png, .bmp, .tif, .webp, .ppm …), test/<class>/… or val/<class>/…; <class>/*.jpg; or,
    as Tiny ImageNet has them, val/images/*.JPEG with val/val_annotations.txt
  HDF5: one file ending in .h5 or .hdf5";

enum Source {
    Idx(idx::Files),
    Cifar(cifar::Variant),
    CifarPython(cifar_python::Variant),
    Stl10,
    Folder,
    Undivided,
    Hdf5(String),
}

/// Reads one split of whatever is at `path`.
pub(crate) fn open(path: &Path, split: Split) -> Result<Parts> {
    let found = std::fs::metadata(path).map_err(|source| Error::Io { path: path.to_owned(), source })?;
    if found.is_file() {
        // The folder is told from any of the files of IDX and CIFAR; of the others only HDF5 is a data set by itself.
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let folder = Path::new(path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")));
        if idx::is_named(&name) || name.ends_with(".bin") {
            let reason = format!("is one file of a data set: give its folder, {}", folder.display());
            return Err(Error::content(path, reason));
        }
        return hdf::open(path, split);
    }
    let outer = Listing::read(path)?;
    // Where torchvision and the official archives put things, one level down.
    let binary = [cifar::Variant::Cifar10, cifar::Variant::Cifar100].map(cifar::Variant::folder);
    let pickled = cifar_python::Variant::ALL.map(cifar_python::Variant::folder);
    let inner = ["raw", stl10::FOLDER].into_iter().chain(binary).chain(pickled);
    let inner: Vec<_> = inner.filter(|name| outer.has_folder(name)).map(|name| outer.join(name)).collect();
    let mut listings = vec![outer];
    for path in inner {
        listings.push(Listing::read(&path)?);
    }
    let mut found = Vec::new();
    for listing in &listings {
        found.extend(sources(listing)?.into_iter().map(|source| (listing, source)));
    }
    if found.is_empty() && folder::is_undivided(&listings[0])? {
        found.push((&listings[0], Source::Undivided));
    }
    match found.as_slice() {
        [] => {
            Err(Error::content(path, format!("holds no data set: {LOOKED_FOR}\nand found {}", listings[0].summary())))
        }
        [(listing, source)] => {
            let mut parts = match source {
                Source::Idx(files) => idx::open(listing, files, split),
                Source::Cifar(variant) => cifar::open(listing, *variant, split),
                Source::CifarPython(variant) => cifar_python::open(listing, *variant, split),
                Source::Stl10 => stl10::open(listing, split),
                Source::Folder => folder::open(listing, split),
                Source::Undivided => folder::open_undivided(listing, split),
                Source::Hdf5(name) => hdf::open(&listing.join(name), split),
            }?;
            parts.hidden.extend(listings.iter().flat_map(Listing::hidden));
            Ok(parts)
        }
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
            Self::CifarPython(cifar_python::Variant::Cifar10) => "CIFAR-10 (pickled)",
            Self::CifarPython(cifar_python::Variant::Cifar100) => "CIFAR-100 (pickled)",
            Self::Stl10 => "STL-10",
            Self::Folder | Self::Undivided => "class folders",
            Self::Hdf5(_) => "HDF5",
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
    let pickled = cifar_python::Variant::ALL.into_iter().filter(|variant| variant.is_in(listing));
    sources.extend(pickled.map(Source::CifarPython));
    if stl10::is_in(listing) {
        sources.push(Source::Stl10);
    }
    if folder::is_in(listing) {
        sources.push(Source::Folder);
    }
    sources.extend(listing.files.iter().filter(|name| hdf::is_named(name)).cloned().map(Source::Hdf5));
    Ok(sources)
}
