//! STL-10's binaries (<https://cs.stanford.edu/~acoates/stl10>): 3×96×96 images, plane by plane and each plane column by
//! column; labels from 1; the names of the classes in a text file. `unlabeled_X.bin` is left alone.

use crate::{
    Error, Result, Split,
    classes::read_names,
    dataset::{Images, Kind, Parts},
    digest::Digest,
    error,
    listing::Listing,
    raster::Layout,
};

/// The folder the official archive unpacks to.
pub(crate) const FOLDER: &str = "stl10_binary";
const NAMES: &str = "class_names.txt";
const SIDE: usize = 96;
const IMAGE_BYTES: usize = 3 * SIDE * SIDE;

/// Does the folder hold it?
pub(crate) fn is_in(listing: &Listing) -> bool {
    listing.has("train_X.bin") || listing.has("test_X.bin")
}

/// Reads one split.
pub(crate) fn open(listing: &Listing, split: Split) -> Result<Parts> {
    let part = if split == Split::Test { "test" } else { "train" };
    let (images, labels) = (format!("{part}_X.bin"), format!("{part}_y.bin"));
    let missing: Vec<&str> = [&images, &labels, NAMES].into_iter().filter(|name| !listing.has(name)).collect();
    if !missing.is_empty() {
        return Err(Error::content(
            &listing.path,
            format!("the {split} split needs {}, which is missing; unpack the whole archive", missing.join(", ")),
        ));
    }
    let mut digest = Digest::default();
    let classes = read_names(&listing.join(NAMES), &mut digest)?;
    let mut read = |name: &str| {
        let contents = error::read(&listing.join(name))?;
        digest.file(name, &contents);
        Ok::<_, Error>(contents)
    };
    let (mut pixels, stored) = (read(&images)?, read(&labels)?);
    if pixels.len() != stored.len() * IMAGE_BYTES || pixels.is_empty() {
        return Err(Error::content(
            &listing.join(&images),
            format!(
                "has {} bytes, but {labels} has {} labels and each image {IMAGE_BYTES} bytes: one of them is truncated",
                pixels.len(),
                stored.len()
            ),
        ));
    }
    let n = classes.len();
    if let Some(i) = stored.iter().position(|&label| label == 0 || usize::from(label) > n) {
        return Err(Error::content(
            &listing.join(&labels),
            format!("label {i} (counted from 0) is {}, but {NAMES} names {n} classes (1 to {n})", stored[i]),
        ));
    }
    for plane in pixels.chunks_exact_mut(SIDE * SIDE) {
        for y in 0..SIDE {
            for x in 0..y {
                plane.swap(y * SIDE + x, x * SIDE + y);
            }
        }
    }
    Ok(Parts {
        kind: Kind::Stl10,
        share: split.share(),
        classes,
        labels: stored.into_iter().map(|label| u32::from(label) - 1).collect(),
        images: Images::Memory { shape: [3, SIDE, SIDE], layout: Layout::Planar, pixels },
        digest: digest.finish(),
        hidden: Vec::new(),
        warnings: Vec::new(),
    })
}
