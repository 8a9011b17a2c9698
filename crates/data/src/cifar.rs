//! CIFAR's binary batches (<https://www.cs.toronto.edu/~kriz/cifar.html>): records of one (CIFAR-10) or two (CIFAR-100:
//! coarse, fine) label bytes and a 3×32×32 image, plane by plane.

use crate::{
    Error, Result, Split,
    classes::read_names,
    dataset::{Images, Kind, Parts},
    digest::Digest,
    error,
    listing::Listing,
    raster::Layout,
};

const SHAPE: [usize; 3] = [3, 32, 32];
const IMAGE_BYTES: usize = 3 * 32 * 32;

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Variant {
    /// Five training batches and one of test images.
    Cifar10,
    /// One file each; the fine label is the class.
    Cifar100,
}

impl Variant {
    /// The folder the official archive unpacks to.
    pub fn folder(self) -> &'static str {
        match self {
            Self::Cifar10 => "cifar-10-batches-bin",
            Self::Cifar100 => "cifar-100-binary",
        }
    }

    fn names(self) -> &'static str {
        match self {
            Self::Cifar10 => "batches.meta.txt",
            Self::Cifar100 => "fine_label_names.txt",
        }
    }

    fn batches(self, test: bool) -> &'static [&'static str] {
        match (self, test) {
            (Self::Cifar10, false) => {
                &["data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin", "data_batch_5.bin"]
            }
            (Self::Cifar10, true) => &["test_batch.bin"],
            (Self::Cifar100, false) => &["train.bin"],
            (Self::Cifar100, true) => &["test.bin"],
        }
    }

    /// Bytes before each image; the last of them is the class.
    fn label_bytes(self) -> usize {
        match self {
            Self::Cifar10 => 1,
            Self::Cifar100 => 2,
        }
    }

    /// Does the folder hold any of its batches?
    pub fn is_in(self, listing: &Listing) -> bool {
        [false, true].iter().any(|&test| self.batches(test).iter().any(|name| listing.has(name)))
    }
}

/// Reads one split.
pub(crate) fn open(listing: &Listing, variant: Variant, split: Split) -> Result<Parts> {
    let batches = variant.batches(split == Split::Test);
    let missing: Vec<&str> =
        batches.iter().chain(&[variant.names()]).copied().filter(|name| !listing.has(name)).collect();
    if !missing.is_empty() {
        return Err(Error::content(
            &listing.path,
            format!("the {split} split needs {}, which is missing; unpack the whole archive", missing.join(", ")),
        ));
    }
    let mut digest = Digest::default();
    let classes = read_names(&listing.join(variant.names()), &mut digest)?;
    let record = variant.label_bytes() + IMAGE_BYTES;
    let (mut labels, mut pixels) = (Vec::new(), Vec::new());
    for name in batches {
        let path = listing.join(name);
        let contents = error::read(&path)?;
        digest.file(name, &contents);
        if contents.is_empty() || contents.len() % record != 0 {
            return Err(Error::content(
                &path,
                format!(
                    "has {} bytes, not a whole number of {record}-byte records ({} label and {IMAGE_BYTES} image bytes): \
                     truncated, or not a binary batch",
                    contents.len(),
                    variant.label_bytes()
                ),
            ));
        }
        for (i, bytes) in contents.chunks_exact(record).enumerate() {
            let (label, image) = bytes.split_at(variant.label_bytes());
            let label = u32::from(label[variant.label_bytes() - 1]);
            if label as usize >= classes.len() {
                return Err(Error::content(
                    &path,
                    format!(
                        "record {i} (counted from 0) has label {label}, but {} names {} classes (0 to {})",
                        variant.names(),
                        classes.len(),
                        classes.len() - 1
                    ),
                ));
            }
            labels.push(label);
            pixels.extend_from_slice(image);
        }
    }
    let kind = match variant {
        Variant::Cifar10 => Kind::Cifar10,
        Variant::Cifar100 => Kind::Cifar100,
    };
    let images = Images::Memory { shape: SHAPE, layout: Layout::Planar, pixels };
    Ok(Parts {
        kind,
        share: split.share(),
        classes,
        labels,
        images,
        digest: digest.finish(),
        hidden: Vec::new(),
        warnings: Vec::new(),
    })
}
