//! A tree of class folders: `train/<class>/*.jpg`, `test/<class>/…`, `val/<class>/…`. Images are read when asked for.

use crate::{
    Error, Result, Split,
    dataset::{Images, Kind, Parts},
    listing::{Listing, few},
};
use rayon::prelude::*;
use std::path::{Path, PathBuf};

/// The folders that may be there.
const PARTS: [&str; 3] = ["train", "val", "test"];
/// Deeper nesting than this is a symbolic link that loops.
const MAX_DEPTH: usize = 16;

/// Does the folder look like one of these?
pub(crate) fn is_in(listing: &Listing) -> bool {
    PARTS.iter().any(|name| listing.has_folder(name))
}

/// Lists one split.
pub(crate) fn open(listing: &Listing, split: Split) -> Result<Parts> {
    let Some((part, share)) = split.part(|name| listing.has_folder(name)) else {
        let wanted = if split == Split::Test { "a folder test/ (or val/)" } else { "a folder train/" };
        let reason = format!("the {split} split needs {wanted} of class folders; there is {}", listing.summary());
        return Err(Error::content(&listing.path, reason));
    };
    let train = (part != "train" && listing.has_folder("train")).then(|| listing.join("train"));
    let part = Listing::read(&listing.join(part))?;
    if part.folders.is_empty() {
        return Err(Error::content(
            &part.path,
            format!("must hold one folder of images per class; it holds {}", part.summary()),
        ));
    }
    let classes = part.folders.clone();
    if let Some(train) = train {
        same_classes(&Listing::read(&train)?, &part)?;
    }

    let found: Vec<Result<Found>> = classes.par_iter().map(|class| images_in(&part.join(class))).collect();
    let (mut paths, mut labels) = (Vec::new(), Vec::new());
    let mut hasher = blake3::Hasher::new();
    let mut others: Vec<PathBuf> = part.files.iter().map(|name| part.join(name)).collect();
    let mut hidden: Vec<PathBuf> = part.hidden().collect();
    for (label, found) in found.into_iter().enumerate() {
        let found = found?;
        for (path, n_bytes) in found.images {
            let relative = path.strip_prefix(&listing.path).unwrap_or(&path);
            let parts: Vec<&[u8]> = relative.iter().map(std::ffi::OsStr::as_encoded_bytes).collect();
            hasher.update(&parts.join(&b'/')).update(format!("\t{n_bytes}\n").as_bytes());
            paths.push(path);
            labels.push(label as u32);
        }
        others.extend(found.others);
        hidden.extend(found.hidden);
    }
    let warnings = others.first().map(|first| {
        let n = others.len();
        let files = if n == 1 { "file that is" } else { "files that are" };
        format!("{n} {files} not .jpg, .jpeg or .png ignored, the first of them {}", first.display())
    });
    Ok(Parts {
        kind: Kind::Folder,
        share,
        classes,
        labels,
        images: Images::Files(paths),
        digest: hasher.finalize().to_hex().to_string(),
        hidden,
        warnings: warnings.into_iter().collect(),
    })
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
}

fn images_in(class: &Path) -> Result<Found> {
    let mut found = Found::default();
    collect(class, 0, &mut found)?;
    if found.images.is_empty() {
        return Err(Error::content(class, "holds no .jpg, .jpeg or .png: remove the class folder or fill it"));
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
        let extension = path.extension().map(|e| e.to_string_lossy().to_ascii_lowercase());
        if matches!(extension.as_deref(), Some("jpg" | "jpeg" | "png")) {
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
