//! HDF5 data sets, whose format is `zipit_artifact`'s.

use crate::{
    Error, Result, Split,
    dataset::{Images, Kind, Parts},
};
use std::path::Path;
use zipit_artifact::dataset::DatasetFile;

/// Does the name say HDF5?
pub(crate) fn is_named(name: &str) -> bool {
    let extension = Path::new(name).extension().map(|e| e.to_string_lossy().to_ascii_lowercase());
    matches!(extension.as_deref(), Some("h5" | "hdf5"))
}

/// Opens one split. Its images stay in the file until asked for.
pub(crate) fn open(path: &Path, split: Split) -> Result<Parts> {
    let file = DatasetFile::open(path)?;
    let parts = file.splits();
    let Some((part, share)) = split.part(|name| parts.contains(&name)) else {
        let wanted = if split == Split::Test { "`test` (or `val`)" } else { "`train`" };
        let reason = format!("the {split} split needs a group {wanted}; the file has {}", parts.join(", "));
        return Err(Error::content(path, reason));
    };
    let labels = file.labels(part)?.to_vec();
    Ok(Parts {
        kind: Kind::Hdf5,
        share,
        classes: file.classes().to_vec(),
        images: Images::Hdf5 { part, rows: (0..labels.len()).collect(), file },
        labels,
        digest: zipit_artifact::hash_file(path)?,
        hidden: Vec::new(),
        warnings: Vec::new(),
    })
}
