//! HDF5 as this crate uses it: silent, without times or locks, every size checked before memory is asked for.

use hdf5::plist::file_create::FileCreateBuilder;
use hdf5::{Dataset, File, Group, H5Type};
use std::path::Path;

/// More than deflate's best ratio: what a file may claim beyond this is a bomb.
const MAX_RATIO: u64 = 1100;

/// A new file, byte-identical for the same content.
pub(crate) fn create(path: &Path, user_block: u64) -> hdf5::Result<File> {
    hdf5::silence_errors(true);
    File::with_options()
        .with_fapl(|p| p.file_locking(false).sieve_buf_size(0))
        .with_fcpl(|p: &mut FileCreateBuilder| p.obj_track_times(false).userblock(user_block))
        .create(path)
}

/// An existing file, for reading; NFS and Lustre without lock daemons serve too.
pub(crate) fn open(path: &Path) -> hdf5::Result<File> {
    hdf5::silence_errors(true);
    File::with_options().with_fapl(|p| p.file_locking(false)).open(path)
}

/// A new group without times.
pub(crate) fn group(parent: &Group, name: &str) -> hdf5::Result<Group> {
    parent.create_group_builder().obj_track_times(false).create(name)
}

/// The innermost reason, which is where the cause is.
pub(crate) fn reason(error: &hdf5::Error) -> String {
    match error {
        hdf5::Error::Internal(text) => text.clone(),
        hdf5::Error::HDF5(stack) => match stack.clone().expand() {
            Ok(frames) => {
                let cause = frames.last().map_or("unknown", |frame| frame.desc());
                if cause.contains("No space left on device") {
                    "the disk is full; free some space, or write elsewhere".to_owned()
                } else if let Some((_, message)) = cause.split_once("error message = '") {
                    // Of a failed write HDF5 tells descriptor, address and hour as well.
                    message.split('\'').next().unwrap_or(message).to_owned()
                } else {
                    format!("HDF5 says: {cause}")
                }
            }
            Err(_) => "HDF5 does not say why".to_owned(),
        },
    }
}

/// The dataset `name`, if its data can be in the file: allocated, and not larger than what is stored can unpack to.
pub(crate) fn dataset(parent: &Group, name: &str) -> Result<Dataset, String> {
    if !parent.link_exists(name) {
        return Err(format!("`{name}` is missing"));
    }
    let dataset = parent.dataset(name).map_err(|e| format!("`{name}` cannot be opened: {}", reason(&e)))?;
    let unreadable = |e: hdf5::Error| format!("`{name}` cannot be understood: {}", reason(&e));
    let shape = dataset.get_shape().map_err(unreadable)?;
    let element = dataset.dtype().map_err(unreadable)?.size() as u64;
    let n_bytes = shape
        .iter()
        .try_fold(element, |product, &n| product.checked_mul(n as u64))
        .ok_or_else(|| format!("`{name}` claims the impossible shape {shape:?}"))?;
    if !dataset.create_plist().map_err(unreadable)?.all_filters_avail() {
        return Err(format!(
            "`{name}` is compressed with {:?}, which this build of HDF5 cannot read; write it uncompressed, or build \
             zipit with the machine's own HDF5 (`--no-default-features --features system-hdf5`)",
            dataset.filters()
        ));
    }
    let stored = dataset.storage_size();
    let most = if dataset.filters().is_empty() { stored } else { stored.saturating_mul(MAX_RATIO) };
    if n_bytes > most {
        return Err(format!("`{name}` claims {n_bytes} bytes {shape:?}, but only {stored} are stored"));
    }
    Ok(dataset)
}

/// All of the one-dimensional dataset `name`, which must hold exactly `length` numbers of type T.
pub(crate) fn read<T: H5Type>(parent: &Group, name: &str, length: Option<usize>) -> Result<Vec<T>, String> {
    let dataset = dataset(parent, name)?;
    let unreadable = |e: hdf5::Error| format!("`{name}` cannot be read: {}", reason(&e));
    let found = dataset.dtype().and_then(|t| t.to_descriptor()).map_err(unreadable)?;
    if found != T::type_descriptor() {
        return Err(format!("`{name}` holds {found}, expected {}", T::type_descriptor()));
    }
    let shape = dataset.get_shape().map_err(unreadable)?;
    match (&shape[..], length) {
        ([_], None) => {}
        ([found], Some(expected)) if *found == expected => {}
        (_, Some(expected)) => return Err(format!("`{name}` has shape {shape:?}, expected [{expected}]")),
        (_, None) => return Err(format!("`{name}` has shape {shape:?}, expected one dimension")),
    }
    dataset.read_raw().map_err(unreadable)
}
