//! Never half a file under the final name: a sibling temporary file, fsync, rename, fsync of the folder.

use crate::error::{Error, Result, reason};
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// A file that is being written under another name. Dropped before [`commit`](Self::commit), it leaves nothing; a
/// killed process leaves `.NAME.XXXXXX.tmp`, which nobody reads.
pub(crate) struct Staged {
    target: PathBuf,
    temp: NamedTempFile,
}

impl Staged {
    pub(crate) fn new(path: &Path) -> Result<Self> {
        let refuse = |reason: String| Error::Write { path: path.to_owned(), reason };
        // A link is written through, so that it stays a link.
        let target = if path.is_symlink() {
            fs::canonicalize(path).map_err(|e| refuse(format!("it is a link to nowhere ({})", reason(&e))))?
        } else {
            path.to_owned()
        };
        match fs::metadata(&target) {
            Ok(found) if found.is_dir() => return Err(refuse("it is a folder; give a file name".to_owned())),
            Ok(found) if !found.is_file() => {
                return Err(refuse("it is not an ordinary file, so it cannot be replaced whole".to_owned()));
            }
            Ok(found) if found.permissions().readonly() => {
                return Err(refuse("it is write-protected; allow writing, or write elsewhere".to_owned()));
            }
            _ => {}
        }
        let Some(name) = target.file_name() else {
            return Err(refuse("it is not a file name".to_owned()));
        };
        let folder = folder(&target);
        let mut prefix = std::ffi::OsString::from(".");
        // Room for the random part within the usual 255 bytes.
        prefix.push(if name.len() > 200 { "zipit".as_ref() } else { name });
        prefix.push(".");
        let mut builder = tempfile::Builder::new();
        builder.prefix(&prefix).suffix(".tmp");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            // The umask takes its part, as for any file; tempfile's own default is 0600.
            builder.permissions(fs::Permissions::from_mode(0o666));
        }
        let temp = builder.tempfile_in(folder).map_err(|e| {
            refuse(match e.kind() {
                io::ErrorKind::NotFound => format!("there is no folder {}; make it first", folder.display()),
                io::ErrorKind::NotADirectory => format!("{} is not a folder", folder.display()),
                io::ErrorKind::PermissionDenied => {
                    format!("no permission to write into the folder {}", folder.display())
                }
                _ => reason(source(&e)),
            })
        })?;
        Ok(Self { target, temp })
    }

    pub(crate) fn path(&self) -> &Path {
        self.temp.path()
    }

    pub(crate) fn file(&self) -> &File {
        self.temp.as_file()
    }

    /// Makes the file durable and gives it its name.
    pub(crate) fn commit(self) -> Result<()> {
        let Self { target, temp } = self;
        let refuse = |e: &io::Error| Error::Write { path: target.clone(), reason: reason(e) };
        temp.as_file().sync_all().map_err(|e| refuse(&e))?;
        temp.persist(&target).map_err(|e| refuse(&e.error))?;
        // The rename is durable once the folder is. Where a folder cannot be opened or synced, there is no more to do.
        #[cfg(unix)]
        if let Ok(folder) = File::open(folder(&target)) {
            let _ = folder.sync_all();
        }
        Ok(())
    }
}

/// tempfile wraps the system's error to add the path, which ours already says.
fn source(error: &io::Error) -> &io::Error {
    std::iter::successors(error.get_ref().map(|e| e as &(dyn std::error::Error + 'static)), |e| e.source())
        .find_map(|e| e.downcast_ref::<io::Error>())
        .unwrap_or(error)
}

fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Writes the file `path` with what `fill` writes: wholly, or not at all.
///
/// # Errors
/// A folder that is missing or may not be written, a full disk, a `path` that is no ordinary file; or what `fill`
/// returns. A file that was there before stays as it was.
pub fn write(path: &Path, fill: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<()> {
    let staged = Staged::new(path)?;
    let mut buffer = BufWriter::with_capacity(1 << 20, staged.file());
    let filled = fill(&mut buffer).and_then(|()| buffer.flush());
    // On an error the rest of the buffer is not wanted any more.
    drop(buffer.into_parts());
    filled.map_err(|e| Error::Write { path: path.to_owned(), reason: reason(&e) })?;
    staged.commit()
}
