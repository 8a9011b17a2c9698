//! Image data sets in HDF5, readable and writable from h5py in three lines; see the README.

use crate::atomic::Staged;
use crate::{Error, Kind, Result, hdf, layout};
use hdf5::types::{FixedAscii, FixedUnicode, TypeDescriptor, VarLenAscii, VarLenUnicode};
use ndarray::{Array4, ArrayView1, ArrayView4, Axis, Ix4};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Longest class name in strings of fixed length.
const MAX_NAME: usize = 256;

/// An open data set. Images are read when asked for.
#[derive(Debug)]
pub struct DatasetFile {
    path: PathBuf,
    classes: Vec<String>,
    shape: [usize; 3],
    splits: BTreeMap<&'static str, Split>,
}

#[derive(Debug)]
struct Split {
    labels: Vec<u32>,
    images: hdf5::Dataset,
}

impl DatasetFile {
    /// Opens a data set and checks everything but the pixels.
    ///
    /// # Errors
    /// A file that cannot be read, is no HDF5 data set, or contradicts itself.
    pub fn open(path: &Path) -> Result<Self> {
        match crate::sniff(path)? {
            Kind::Dataset => {}
            found => {
                if found == Kind::Hdf5
                    && let Err(e) = hdf::open(path)
                {
                    return Err(Error::damaged(path, Kind::Dataset, hdf::reason(&e)));
                }
                return Err(Error::Kind { path: path.to_owned(), found, expected: Kind::Dataset });
            }
        }
        Self::read(path).map_err(|reason| Error::contents(path, Kind::Dataset, &reason))
    }

    fn read(path: &Path) -> Result<Self, String> {
        let file = hdf::open(path).map_err(|e| hdf::reason(&e))?;
        let classes = read_classes(&file)?;
        let mut splits = BTreeMap::new();
        let mut shape: Option<[usize; 3]> = None;
        for name in layout::SPLITS.into_iter().filter(|name| file.link_exists(name)) {
            let images = open_images(&file, name)?;
            let found = images.get_shape().map_err(|e| hdf::reason(&e))?;
            let (n, found) = (found[0], [found[1], found[2], found[3]]);
            if *shape.get_or_insert(found) != found {
                return Err(format!("the images of `{name}` are {found:?}, those of another split {shape:?}"));
            }
            let labels = read_labels(&file, name, classes.len())?;
            if labels.len() != n {
                return Err(format!("`{name}` has {n} images but {} labels", labels.len()));
            }
            splits.insert(name, Split { labels, images });
        }
        let shape = shape.ok_or("it has no images")?;
        Ok(Self { path: path.to_owned(), classes, shape, splits })
    }

    /// The splits it has, of `train`, `val` and `test`, in that order.
    #[must_use]
    pub fn splits(&self) -> Vec<&'static str> {
        layout::SPLITS.into_iter().filter(|name| self.splits.contains_key(name)).collect()
    }

    /// `[C, H, W]`, the same for every image.
    #[must_use]
    pub fn shape(&self) -> [usize; 3] {
        self.shape
    }

    /// The class names; a label is an index into them.
    #[must_use]
    pub fn classes(&self) -> &[String] {
        &self.classes
    }

    /// Number of images in a split.
    ///
    /// # Errors
    /// A split that is not there.
    pub fn n(&self, split: &str) -> Result<usize> {
        Ok(self.split(split)?.labels.len())
    }

    /// The labels of a split.
    ///
    /// # Errors
    /// A split that is not there.
    pub fn labels(&self, split: &str) -> Result<&[u32]> {
        Ok(&self.split(split)?.labels)
    }

    /// The images at `indices` of a split, in that order, `[B, C, H, W]`. Neighbours are read together.
    ///
    /// # Errors
    /// A split or index that is not there, or data that cannot be read.
    pub fn images(&self, split: &str, indices: &[usize]) -> Result<Array4<u8>> {
        let data = self.split(split)?;
        let refuse = |reason: String| Error::contents(&self.path, Kind::Dataset, &reason);
        if let Some(beyond) = indices.iter().find(|&&i| i >= data.labels.len()) {
            return Err(refuse(format!("`{split}` has {} images, none is number {beyond}", data.labels.len())));
        }
        let [c, h, w] = self.shape;
        let mut images = Array4::zeros((indices.len(), c, h, w));
        let mut start = 0;
        while start < indices.len() {
            let first = indices[start];
            let run = indices[start..].iter().enumerate().take_while(|&(k, &i)| i == first + k).count();
            let read = data
                .images
                .read_slice::<u8, _, Ix4>((first..first + run, .., .., ..))
                .map_err(|e| refuse(format!("`{split}/{}` cannot be read: {}", layout::IMAGES, hdf::reason(&e))))?;
            images.slice_axis_mut(Axis(0), (start..start + run).into()).assign(&read);
            start += run;
        }
        Ok(images)
    }

    fn split(&self, name: &str) -> Result<&Split> {
        self.splits.get(name).ok_or_else(|| {
            let found = self.splits().join(", ");
            Error::contents(&self.path, Kind::Dataset, &format!("it has no split `{name}`, only {found}"))
        })
    }
}

fn read_classes(file: &hdf5::File) -> Result<Vec<String>, String> {
    let dataset = hdf::dataset(file, layout::CLASSES)?;
    let unreadable = |e: hdf5::Error| format!("`{}` cannot be read: {}", layout::CLASSES, hdf::reason(&e));
    if dataset.ndim() != 1 {
        return Err(format!("`{}` has shape {:?}, expected one name per class", layout::CLASSES, dataset.shape()));
    }
    let bytes: Vec<Vec<u8>> = match dataset.dtype().and_then(|t| t.to_descriptor()).map_err(unreadable)? {
        TypeDescriptor::VarLenUnicode => {
            let names = dataset.read_raw::<VarLenUnicode>().map_err(unreadable)?;
            names.iter().map(|name| name.as_bytes().to_vec()).collect()
        }
        TypeDescriptor::VarLenAscii => {
            let names = dataset.read_raw::<VarLenAscii>().map_err(unreadable)?;
            names.iter().map(|name| name.as_bytes().to_vec()).collect()
        }
        TypeDescriptor::FixedAscii(_) => {
            let names = dataset.read_raw::<FixedAscii<MAX_NAME>>().map_err(unreadable)?;
            names.iter().map(|name| name.as_bytes().to_vec()).collect()
        }
        TypeDescriptor::FixedUnicode(_) => {
            let names = dataset.read_raw::<FixedUnicode<MAX_NAME>>().map_err(unreadable)?;
            names.iter().map(|name| name.as_bytes().to_vec()).collect()
        }
        other => return Err(format!("`{}` holds {other}, expected strings", layout::CLASSES)),
    };
    let classes: Vec<String> = bytes
        .into_iter()
        .map(|name| String::from_utf8(name).map_err(|_| "a class name is not UTF-8".to_owned()))
        .collect::<Result<_, _>>()?;
    check_classes(&classes)?;
    Ok(classes)
}

fn check_classes(classes: &[String]) -> Result<(), String> {
    if classes.is_empty() {
        return Err("there are no classes".to_owned());
    }
    for (i, name) in classes.iter().enumerate() {
        if name.is_empty() || name.contains('\0') {
            return Err(format!("class {i} has no usable name"));
        }
        if classes[..i].contains(name) {
            return Err(format!("class `{name}` is there twice"));
        }
    }
    Ok(())
}

fn open_images(file: &hdf5::File, split: &str) -> Result<hdf5::Dataset, String> {
    let name = format!("{split}/{}", layout::IMAGES);
    let dataset = hdf::dataset(file, &name)?;
    let found = dataset.dtype().and_then(|t| t.to_descriptor()).map_err(|e| hdf::reason(&e))?;
    if found != <u8 as hdf5::H5Type>::type_descriptor() {
        return Err(format!("`{name}` holds {found}, expected uint8 pixels 0 to 255"));
    }
    match dataset.shape()[..] {
        [n, c, h, w] if n * c * h * w == 0 => Err(format!("`{name}` is empty: {:?}", dataset.shape())),
        [_, h, _, 1 | 3] if h > 4 => {
            Err(format!("`{name}` is {:?}, which looks like [N, H, W, C]; expected [N, C, H, W]", dataset.shape()))
        }
        [..] if dataset.ndim() == 4 => Ok(dataset),
        _ => Err(format!("`{name}` is {:?}, expected [N, C, H, W]", dataset.shape())),
    }
}

fn read_labels(file: &hdf5::File, split: &str, n_classes: usize) -> Result<Vec<u32>, String> {
    let name = format!("{split}/{}", layout::LABELS);
    let dataset = hdf::dataset(file, &name)?;
    let unreadable = |e: hdf5::Error| format!("`{name}` cannot be read: {}", hdf::reason(&e));
    let found = dataset.dtype().and_then(|t| t.to_descriptor()).map_err(unreadable)?;
    if !matches!(found, TypeDescriptor::Integer(_) | TypeDescriptor::Unsigned(_)) {
        return Err(format!("`{name}` holds {found}, expected integers"));
    }
    if dataset.ndim() != 1 {
        return Err(format!("`{name}` has shape {:?}, expected one label per image", dataset.shape()));
    }
    let labels = dataset.read_raw::<i64>().map_err(unreadable)?;
    labels
        .iter()
        .enumerate()
        .map(|(i, &label)| match u32::try_from(label) {
            Ok(class) if (class as usize) < n_classes => Ok(class),
            _ => Err(format!("`{name}`: image {i} has label {label}, there are {n_classes} classes")),
        })
        .collect()
}

/// One split to write: its name (`train`, `val` or `test`), images `[N, C, H, W]` and labels.
pub type SplitData<'a> = (&'a str, ArrayView4<'a, u8>, &'a [u32]);

/// Writes a data set. The same content gives the same bytes.
///
/// # Errors
/// Splits that contradict each other or the classes, or a file that cannot be written.
pub fn write(path: &Path, classes: &[String], splits: &[SplitData<'_>]) -> Result<()> {
    check(classes, splits).map_err(|reason| Error::unwritable(path, &reason))?;
    let staged = Staged::new(path)?;
    write_hdf5(staged.path(), classes, splits)
        .map_err(|e| Error::Write { path: path.to_owned(), reason: hdf::reason(&e) })?;
    staged.commit()
}

fn check(classes: &[String], splits: &[SplitData<'_>]) -> Result<(), String> {
    check_classes(classes)?;
    if let Some(name) = classes.iter().find(|name| name.len() > MAX_NAME) {
        return Err(format!("class name `{name}` is longer than {MAX_NAME} bytes"));
    }
    let Some((_, first, _)) = splits.first() else {
        return Err("there is no split".to_owned());
    };
    for (i, (name, images, labels)) in splits.iter().enumerate() {
        if !layout::SPLITS.contains(name) || splits[..i].iter().any(|(other, ..)| other == name) {
            return Err(format!("split `{name}`: each of {} once at most", layout::SPLITS.join(", ")));
        }
        if images.shape()[1..] != first.shape()[1..] || images.is_empty() {
            return Err(format!("split `{name}` has images {:?}, the first one {:?}", images.shape(), first.shape()));
        }
        if labels.len() != images.len_of(Axis(0)) {
            return Err(format!("split `{name}` has {} images but {} labels", images.len_of(Axis(0)), labels.len()));
        }
        if let Some(label) = labels.iter().find(|&&label| label as usize >= classes.len()) {
            return Err(format!("split `{name}` has label {label}, there are {} classes", classes.len()));
        }
    }
    Ok(())
}

fn write_hdf5(path: &Path, classes: &[String], splits: &[SplitData<'_>]) -> hdf5::Result<()> {
    let file = hdf::create(path, 0)?;
    // Strings of fixed length: the library can hang on a damaged heap of strings of variable length.
    let names: Vec<FixedUnicode<MAX_NAME>> = classes
        .iter()
        .map(|name| FixedUnicode::from_str(name).map_err(|e| hdf5::Error::Internal(e.to_string())))
        .collect::<Result<_, _>>()?;
    file.new_dataset_builder().with_data(ArrayView1::from(&names)).create(layout::CLASSES)?;
    for (name, images, labels) in splits {
        let group = hdf::group(&file, name)?;
        let images = images.as_standard_layout();
        group.new_dataset_builder().with_data(images.view()).create(layout::IMAGES)?;
        group.new_dataset_builder().with_data(ArrayView1::from(*labels)).create(layout::LABELS)?;
    }
    file.flush()?;
    file.close()
}
