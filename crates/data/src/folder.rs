//! A tree of class folders: `train/<class>/*.jpg`, `test/<class>/…`, `val/<class>/…`, or `<class>/*.jpg`. Images are read when
//! asked for.

use crate::{
    Error, Result, Split, annotations,
    dataset::{Images, Kind, Parts},
    decode::{self, EXTENSIONS_IN_WORDS},
    listing::{Listing, few},
    split::Share,
};
use rayon::prelude::*;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

/// The folders that may be there.
const PARTS: [&str; 3] = ["train", "val", "test"];
/// Deeper nesting than this is a symbolic link that loops.
const MAX_DEPTH: usize = 16;

/// Does the folder look like one of these?
pub(crate) fn is_in(listing: &Listing) -> bool {
    PARTS.iter().any(|name| listing.has_folder(name))
}

/// Is it one part, `<class>/*.jpg`, that nobody has divided? Not if that is one folder with more in it than images: then
/// its folders are the classes, or the parts.
pub(crate) fn is_undivided(listing: &Listing) -> Result<bool> {
    let mut with_images = 0;
    for name in &listing.folders {
        let class = Listing::read(&listing.join(name))?;
        if is_in(&class) || (listing.folders.len() == 1 && !class.folders.is_empty()) {
            return Ok(false);
        }
        with_images += usize::from(holds_images(&class, 0)?);
    }
    Ok(with_images > 0)
}

fn holds_images(listing: &Listing, depth: usize) -> Result<bool> {
    if listing.files.iter().any(|name| decode::is_named(Path::new(name))) {
        return Ok(true);
    }
    for name in listing.folders.iter().filter(|_| depth < MAX_DEPTH) {
        if holds_images(&Listing::read(&listing.join(name))?, depth + 1)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Lists one split.
pub(crate) fn open(listing: &Listing, split: Split) -> Result<Parts> {
    let train = listing.has_folder("train").then(|| Listing::read(&listing.join("train"))).transpose()?;
    let no_labels = without_labels(listing, train.as_ref())?;
    let Some((part, share)) = split.part(|name| listing.has_folder(name) && !(no_labels && name == "test")) else {
        let wanted = if split == Split::Test { "a folder test/ (or val/)" } else { "a folder train/" };
        let reason = format!("the {split} split needs {wanted} of class folders; there is {}", listing.summary());
        return Err(Error::content(&listing.path, reason));
    };
    let train = train.filter(|_| part != "train");
    let part = Listing::read(&listing.join(part))?;
    let mut parts = if let Some(file) = annotations::find(&part) {
        annotated(listing, &part, &file, train.as_ref(), share)?
    } else {
        if part.folders.is_empty() {
            return Err(Error::content(
                &part.path,
                format!("must hold one folder of images per class; it holds {}", part.summary()),
            ));
        }
        if let Some(train) = train {
            same_classes(&train, &part)?;
        }
        class_folders(listing, &part, share)?
    };
    if no_labels {
        parts.warnings.push(format!("{} has no labels: it is ignored", listing.join("test").display()));
    }
    Ok(parts)
}

/// Lists one split of class folders that are not divided into parts.
pub(crate) fn open_undivided(listing: &Listing, split: Split) -> Result<Parts> {
    let mut parts = class_folders(listing, listing, split.share_of_all())?;
    // The listing's own hidden files are counted where it was read.
    parts.hidden.retain(|path| path.parent() != Some(&listing.path));
    parts.warnings.push(format!(
        "{} has no train/ and test/: of every ten images the ninth is taken for `test`, the tenth for `val`, the others for \
         `train`",
        listing.path.display()
    ));
    Ok(parts)
}

/// Tiny ImageNet's `test`: one folder of images of which nobody says the classes.
fn without_labels(listing: &Listing, train: Option<&Listing>) -> Result<bool> {
    let Some(train) = train.filter(|_| listing.has_folder("test")) else { return Ok(false) };
    let test = Listing::read(&listing.join("test"))?;
    Ok(annotations::is_flat(&test) && annotations::find(&test).is_none() && test.folders != train.folders)
}

fn class_folders(root: &Listing, part: &Listing, share: Share) -> Result<Parts> {
    let found: Vec<Result<Found>> = part.folders.par_iter().map(|class| images_in(&part.join(class))).collect();
    let mut all = Found { others: part.files.iter().map(|name| part.join(name)).collect(), ..Found::default() };
    all.hidden.extend(part.hidden());
    let mut labels = Vec::new();
    for (label, found) in found.into_iter().enumerate() {
        let found = found?;
        labels.resize(labels.len() + found.images.len(), label as u32);
        all.images.extend(found.images);
        all.others.extend(found.others);
        all.hidden.extend(found.hidden);
    }
    Ok(all.into_parts(root, share, part.folders.clone(), labels))
}

/// A part whose classes are in a file; they are the training part's, if there is one.
fn annotated(root: &Listing, part: &Listing, file: &Path, train: Option<&Listing>, share: Share) -> Result<Parts> {
    let class_of = annotations::read(file)?;
    let classes: Vec<String> = match train {
        Some(train) => train.folders.clone(),
        None => class_of.values().cloned().collect::<BTreeSet<_>>().into_iter().collect(),
    };
    let number: BTreeMap<&str, u32> = classes.iter().map(String::as_str).zip(0..).collect();
    let mut found = images_in(&part.join(&part.folders[0]))?;
    found.hidden.extend(part.hidden());
    found.others.extend(part.files.iter().map(|name| part.join(name)).filter(|path| path != file));
    let label = |(path, _): &(PathBuf, u64)| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let class = class_of.get(name.as_ref()).ok_or_else(|| {
            Error::content(file, format!("says no class for {}: unpack the whole archive", path.display()))
        })?;
        number.get(class.as_str()).copied().ok_or_else(|| {
            let reason = format!("gives {name} the class `{class}`, which train has no folder for");
            Error::content(file, reason)
        })
    };
    let labels: Vec<u32> = found.images.iter().map(label).collect::<Result<_>>()?;
    if labels.len() < class_of.len() {
        let (n, images) = (class_of.len(), labels.len());
        return Err(Error::content(
            file,
            format!("names {n} images of which {images} are there: unpack the whole archive"),
        ));
    }
    // What says the classes is data, too.
    let size = std::fs::metadata(file).map_err(|source| Error::Io { path: file.to_owned(), source })?.len();
    found.annotations = Some((file.to_owned(), size));
    Ok(found.into_parts(root, share, classes, labels))
}

/// Labels mean the same in both parts only if the class folders do.
fn same_classes(train: &Listing, test: &Listing) -> Result<()> {
    let lacking = |one: &Listing, other: &Listing| -> Vec<String> {
        one.folders.iter().filter(|class| !other.has_folder(class)).cloned().collect()
    };
    for (one, other) in [(train, test), (test, train)] {
        let lacking = lacking(one, other);
        if !lacking.is_empty() {
            return Err(Error::content(
                &other.path,
                format!("lacks class folders that {} has: {}", one.path.display(), few(&lacking)),
            ));
        }
    }
    Ok(())
}

#[derive(Debug, Default)]
struct Found {
    /// Sorted by path, with sizes in bytes.
    images: Vec<(PathBuf, u64)>,
    others: Vec<PathBuf>,
    hidden: Vec<PathBuf>,
    annotations: Option<(PathBuf, u64)>,
}

impl Found {
    fn into_parts(self, root: &Listing, share: Share, classes: Vec<String>, labels: Vec<u32>) -> Parts {
        let mut hasher = blake3::Hasher::new();
        for (path, n_bytes) in self.annotations.iter().chain(&self.images) {
            let relative = path.strip_prefix(&root.path).unwrap_or(path);
            let parts: Vec<&[u8]> = relative.iter().map(std::ffi::OsStr::as_encoded_bytes).collect();
            hasher.update(&parts.join(&b'/')).update(format!("\t{n_bytes}\n").as_bytes());
        }
        let warnings = self.others.first().map(|first| {
            let n = self.others.len();
            let files = if n == 1 { "file that is" } else { "files that are" };
            format!("{n} {files} not {EXTENSIONS_IN_WORDS} ignored, the first of them {}", first.display())
        });
        Parts {
            kind: Kind::Folder,
            share,
            classes,
            labels,
            images: Images::Files(self.images.into_iter().map(|(path, _)| path).collect()),
            digest: hasher.finalize().to_hex().to_string(),
            hidden: self.hidden,
            warnings: warnings.into_iter().collect(),
        }
    }
}

fn images_in(class: &Path) -> Result<Found> {
    let mut found = Found::default();
    collect(class, 0, &mut found)?;
    if found.images.is_empty() {
        return Err(Error::content(
            class,
            format!("holds no {EXTENSIONS_IN_WORDS}: remove the class folder or fill it"),
        ));
    }
    found.images.sort();
    Ok(found)
}

fn collect(folder: &Path, depth: usize, found: &mut Found) -> Result<()> {
    if depth > MAX_DEPTH {
        return Err(Error::content(folder, "is nested too deep: does a symbolic link point back up?"));
    }
    let listing = Listing::read(folder)?;
    for name in &listing.files {
        let path = listing.join(name);
        if decode::is_named(&path) {
            let size = std::fs::metadata(&path).map_err(|source| Error::Io { path: path.clone(), source })?.len();
            found.images.push((path, size));
        } else {
            found.others.push(path);
        }
    }
    found.hidden.extend(listing.hidden());
    for name in &listing.folders {
        collect(&listing.join(name), depth + 1, found)?;
    }
    Ok(())
}
