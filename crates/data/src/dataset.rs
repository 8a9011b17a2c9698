//! One split of a data set, whatever it is stored as.

use crate::{
    Error, Result, Split, classes, decode, detect,
    preprocess::Pipeline,
    raster::{Layout, Raster},
    split::Share,
};
use ndarray::{Array4, Axis};
use rayon::prelude::*;
use std::{
    borrow::Cow,
    fmt,
    path::{Path, PathBuf},
};
use zipit::Preprocess;
use zipit_artifact::dataset::DatasetFile;

/// How a data set is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// MNIST-style IDX files.
    Idx,
    /// CIFAR-10's batches, binary or pickled.
    Cifar10,
    /// CIFAR-100's files, binary or pickled, with the fine labels.
    Cifar100,
    /// STL-10's binaries.
    Stl10,
    /// A tree of class folders with one file per image.
    Folder,
    /// One HDF5 file.
    Hdf5,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Self::Idx => "IDX",
            Self::Cifar10 => "CIFAR-10",
            Self::Cifar100 => "CIFAR-100",
            Self::Stl10 => "STL-10",
            Self::Folder => "class folders",
            Self::Hdf5 => "HDF5",
        })
    }
}

/// What a reader found: a whole part of the data set, of which the split may be a share.
pub(crate) struct Parts {
    pub kind: Kind,
    /// How much of what was read is the split.
    pub share: Share,
    pub classes: Vec<String>,
    pub labels: Vec<u32>,
    pub images: Images,
    pub digest: String,
    /// Hidden files and folders that were passed over.
    pub hidden: Vec<PathBuf>,
    pub warnings: Vec<String>,
}

/// The pixels, or where they are.
pub(crate) enum Images {
    /// All images, u8, one after the other.
    Memory { shape: [usize; 3], layout: Layout, pixels: Vec<u8> },
    /// One file per image.
    Files(Vec<PathBuf>),
    /// Rows of one group of an HDF5 file.
    Hdf5 { file: DatasetFile, part: &'static str, rows: Vec<usize> },
}

impl Images {
    /// Keeps the images at these positions (ascending).
    fn keep(&mut self, positions: &[usize]) {
        match self {
            Self::Memory { shape, pixels, .. } => {
                let n = shape.iter().product::<usize>();
                for (to, &from) in positions.iter().enumerate() {
                    pixels.copy_within(from * n..(from + 1) * n, to * n);
                }
                pixels.truncate(positions.len() * n);
                pixels.shrink_to_fit();
            }
            Self::Hdf5 { rows, .. } => *rows = positions.iter().map(|&i| rows[i]).collect(),
            Self::Files(paths) => *paths = positions.iter().map(|&i| std::mem::take(&mut paths[i])).collect(),
        }
    }
}

/// One split of a data set: labels in memory, images in memory (IDX, CIFAR) or read when asked for.
///
/// Images are numbered from 0 within the split, in the order of the files (class folders: sorted by path).
pub struct Dataset {
    path: PathBuf,
    name: String,
    split: Split,
    kind: Kind,
    classes: Vec<String>,
    labels: Vec<u32>,
    images: Images,
    digest: String,
    warnings: Vec<String>,
}

impl Dataset {
    /// Opens a folder or an HDF5 file, finding out what it holds.
    ///
    /// # Errors
    /// If there is nothing at `path` that is a data set (the message lists what was looked for and what is there), if
    /// the split is missing, or if a file is not what it has to be.
    pub fn open(path: impl AsRef<Path>, split: Split) -> Result<Self> {
        let path = path.as_ref();
        let mut parts = detect::open(path, split)?;
        if let Some(first) = parts.hidden.iter().min() {
            let n = parts.hidden.len();
            let what = if n == 1 { "hidden file or folder" } else { "hidden files and folders" };
            parts.warnings.push(format!("{n} {what} ignored: {}{}", first.display(), if n > 1 { ", …" } else { "" }));
        }
        let positions: Vec<usize> = (0..parts.labels.len()).filter(|&i| parts.share.holds(i)).collect();
        if positions.is_empty() {
            return Err(Error::content(
                path,
                format!("the {split} split is empty: the part it is taken from has only {} images", parts.labels.len()),
            ));
        }
        if positions.len() < parts.labels.len() {
            parts.images.keep(&positions);
        }
        let labels = positions.iter().map(|&i| parts.labels[i]).collect();
        let Parts { kind, classes, images, digest, warnings, .. } = parts;
        Ok(Self { path: path.to_owned(), name: name_of(path), split, kind, classes, labels, images, digest, warnings })
    }

    /// Number of images.
    #[must_use]
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Never: an empty split is refused by [`Dataset::open`].
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Class of each image.
    #[must_use]
    pub fn labels(&self) -> &[u32] {
        &self.labels
    }

    /// All class names, in label order.
    #[must_use]
    pub fn classes(&self) -> &[String] {
        &self.classes
    }

    /// How it is stored.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Which split this is.
    #[must_use]
    pub fn split(&self) -> Split {
        self.split
    }

    /// The folder's name, or the file's without its extension.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// BLAKE3 (hex) of the files it was read from, as one would get it from `b3sum`: one file's own; of several, that of
    /// the sorted lines `<BLAKE3>  <name>`. Class folders: of the lines `<relative path>⇥<size in bytes>` in the order of
    /// the images (after that of a file that says their classes), so an image replaced by one of equal size goes unnoticed. [`Split::Train`] and [`Split::Val`] share files and so the
    /// digest.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Things a user should know that are no errors, such as files that were ignored.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Class numbers from names, numbers (`7`), ranges (`0-4`) or comma-separated lists of these (`5,7`), in the order
    /// asked for; all classes if nothing is asked for. A number means a position unless a class has exactly that name.
    ///
    /// # Errors
    /// On a class there is not (the message lists those there are), and on one asked for twice.
    pub fn class_indices(&self, spec: &[String]) -> Result<Vec<u32>> {
        classes::indices(&self.classes, spec)
    }

    /// The images of these classes, ascending.
    #[must_use]
    pub fn images_of(&self, classes: &[u32]) -> Vec<usize> {
        let wanted: Vec<bool> = (0..self.classes.len() as u32).map(|class| classes.contains(&class)).collect();
        (0..self.len()).filter(|&i| wanted[self.labels[i] as usize]).collect()
    }

    /// The file that holds one image and no other, relative to the data set's folder: only class folders have such.
    ///
    /// # Panics
    /// If `index` is not below [`Dataset::len`].
    #[must_use]
    pub fn file(&self, index: usize) -> Option<&Path> {
        match &self.images {
            Images::Files(paths) => Some(paths[index].strip_prefix(&self.path).unwrap_or(&paths[index])),
            Images::Memory { .. } | Images::Hdf5 { .. } => None,
        }
    }

    /// `[C, H, W]` of one image as it is stored. Class folders may hold images of several sizes, the others do not.
    ///
    /// # Errors
    /// When the image is a file that cannot be decoded.
    ///
    /// # Panics
    /// If `index` is not below [`Dataset::len`].
    pub fn image_shape(&self, index: usize) -> Result<[usize; 3]> {
        match &self.images {
            Images::Memory { shape, .. } => Ok(*shape),
            Images::Files(paths) => Ok(decode::read(&paths[index])?.shape),
            Images::Hdf5 { file, .. } => Ok(file.shape()),
        }
    }

    /// The images at `indices` as a network sees them: `[B, C, H, W]`, `(x / 255 - mean) / std`.
    ///
    /// An image of another size is resized and cropped as `preprocess` says, with the pixels of torchvision's and timm's
    /// transforms on a PIL image. One that already has the size is not touched. Gray images become three equal channels where three are expected.
    ///
    /// # Errors
    /// On a file that cannot be read or decoded (named), RGB images for a network of one channel, or a preprocessing that
    /// makes no sense.
    ///
    /// # Panics
    /// If an index is not below [`Dataset::len`].
    pub fn load(&self, indices: &[usize], preprocess: &Preprocess) -> Result<Array4<f32>> {
        let pipeline = Pipeline::new(preprocess)?;
        // HDF5 has one lock per process, so its images are read before the parallel part.
        let fetched = match &self.images {
            Images::Hdf5 { file, part, rows } => Some(Fetched::read(file, part, rows, indices)?),
            Images::Memory { .. } | Images::Files(_) => None,
        };
        let one = |(place, out): (usize, &mut [f32])| -> Result<()> {
            let index = indices[place];
            let (image, path) = match &self.images {
                Images::Memory { shape, layout, pixels } => {
                    let n = shape.iter().product::<usize>();
                    let pixels = Cow::Borrowed(&pixels[index * n..(index + 1) * n]);
                    (Raster::new(*shape, *layout, pixels), &self.path)
                }
                Images::Files(paths) => (decode::read(&paths[index])?, &paths[index]),
                Images::Hdf5 { .. } => (fetched.as_ref().expect("read above").image(place), &self.path),
            };
            pipeline.apply(image, out).map_err(|reason| match self.images {
                Images::Files(_) => Error::content(path, reason),
                Images::Memory { .. } | Images::Hdf5 { .. } => Error::content(path, format!("image {index} {reason}")),
            })
        };
        let mut values = vec![0.0; indices.len() * pipeline.n_values()];
        let outs = values.par_chunks_exact_mut(pipeline.n_values()).enumerate();
        // All results first, so that the error returned is the first in the order of `indices` for any number of threads.
        let results: Vec<Result<()>> = outs.map(one).collect();
        results.into_iter().collect::<Result<()>>()?;
        let [h, w] = preprocess.size;
        Ok(Array4::from_shape_vec((indices.len(), preprocess.channels(), h, w), values).expect("sized above"))
    }
}

fn name_of(path: &Path) -> String {
    // `.` and `..` have no name of their own.
    let named = if path.file_name().is_some() { path.to_owned() } else { path.canonicalize().unwrap_or_default() };
    let name = if path.is_dir() { named.file_name() } else { named.file_stem() };
    name.unwrap_or_default().to_string_lossy().into_owned()
}

/// Images read from HDF5.
struct Fetched {
    images: Array4<u8>,
    /// Which of them each asked-for place got.
    ranks: Vec<usize>,
}

impl Fetched {
    /// Reads in ascending order, so that neighbours and compressed chunks are read once.
    fn read(file: &DatasetFile, part: &str, rows: &[usize], indices: &[usize]) -> Result<Self> {
        let mut sorted: Vec<usize> = indices.iter().map(|&index| rows[index]).collect();
        sorted.sort_unstable();
        sorted.dedup();
        let rank = |&index: &usize| sorted.partition_point(|&row| row < rows[index]);
        let ranks = indices.iter().map(rank).collect();
        Ok(Self { images: file.images(part, &sorted)?, ranks })
    }

    fn image(&self, place: usize) -> Raster<'_> {
        let (_, c, h, w) = self.images.dim();
        let image = self.images.index_axis(Axis(0), self.ranks[place]);
        let pixels = image.to_slice().map_or_else(|| Cow::Owned(image.iter().copied().collect()), Cow::Borrowed);
        Raster::new([c, h, w], Layout::Planar, pixels)
    }
}

impl fmt::Debug for Dataset {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.debug_struct("Dataset")
            .field("path", &self.path)
            .field("split", &self.split)
            .field("kind", &self.kind)
            .field("n_images", &self.len())
            .field("n_classes", &self.classes.len())
            .finish_non_exhaustive()
    }
}
