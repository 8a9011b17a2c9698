//! A part of a data set whose images lie in one folder, with a file that says their classes, as Tiny ImageNet's `val`:
//! `val/images/val_0.JPEG` and, in `val/val_annotations.txt`, `val_0.JPEG⇥n03444034⇥…` in any order.

use crate::{Error, Result, error, listing::Listing};
use std::{collections::BTreeMap, path::PathBuf};

/// The folder of the images.
const IMAGES: &str = "images";

/// The file of classes of a part that is made like this.
pub(crate) fn find(part: &Listing) -> Option<PathBuf> {
    let name = part.path.file_name()?.to_string_lossy();
    let file = format!("{name}_annotations.txt");
    (part.has(&file) && is_flat(part)).then(|| part.join(&file))
}

/// One folder of images and no class: with nothing that says their classes, what Tiny ImageNet's `test` is.
pub(crate) fn is_flat(part: &Listing) -> bool {
    part.folders == [IMAGES]
}

/// The class of every image, by its file name; later columns (boxes) are left alone.
pub(crate) fn read(path: &std::path::Path) -> Result<BTreeMap<String, String>> {
    let text = String::from_utf8(error::read(path)?).map_err(|_| Error::content(path, "is not UTF-8 text"))?;
    let mut classes = BTreeMap::new();
    for (i, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let mut words = line.split('\t').map(str::trim);
        let (Some(image), Some(class)) = (words.next(), words.next().filter(|class| !class.is_empty())) else {
            let reason = format!("line {} is no image and its class, with a tabulator between them: `{line}`", i + 1);
            return Err(Error::content(path, reason));
        };
        if classes.insert(image.to_owned(), class.to_owned()).is_some_and(|before| before != class) {
            return Err(Error::content(path, format!("line {} gives `{image}` another class than before", i + 1)));
        }
    }
    Ok(classes)
}
