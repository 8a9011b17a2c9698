//! What a folder holds.

use crate::{Error, Result};
use std::path::{Path, PathBuf};

/// Names in a folder, sorted; symbolic links followed.
#[derive(Debug)]
pub(crate) struct Listing {
    pub path: PathBuf,
    pub files: Vec<String>,
    pub folders: Vec<String>,
    /// Files and folders that [`is_hidden`] takes for nobody's data.
    pub hidden: Vec<String>,
}

/// What file managers do not show (`.ipynb_checkpoints`, macOS's `._cat.png` beside `cat.png`) and what systems leave
/// behind in any folder: never a class, a data set or an image, whatever is in it.
fn is_hidden(name: &str) -> bool {
    const LEFT: [&str; 9] = [
        "__macosx",
        "thumbs.db",
        "ehthumbs.db",
        "desktop.ini",
        "lost+found",
        "@eadir",
        "#recycle",
        "$recycle.bin",
        "system volume information",
    ];
    name.starts_with('.') || LEFT.contains(&name.to_lowercase().as_str())
}

impl Listing {
    pub fn read(path: &Path) -> Result<Self> {
        let io = |source| Error::Io { path: path.to_owned(), source };
        let (mut files, mut folders, mut hidden) = (Vec::new(), Vec::new(), Vec::new());
        for entry in std::fs::read_dir(path).map_err(io)? {
            let entry = entry.map_err(io)?;
            let name = entry.file_name().into_string().map_err(|name| {
                Error::content(
                    path,
                    format!("holds a name that is not UTF-8 (`{}`): rename or remove it", name.display()),
                )
            })?;
            if is_hidden(&name) {
                hidden.push(name);
                continue;
            }
            let kind = entry.file_type().map_err(io)?;
            // A dangling link is listed as a file: reading it says what is wrong.
            let is_folder = kind.is_dir() || (kind.is_symlink() && entry.path().is_dir());
            if is_folder { folders.push(name) } else { files.push(name) }
        }
        files.sort();
        folders.sort();
        hidden.sort();
        Ok(Self { path: path.to_owned(), files, folders, hidden })
    }

    pub fn has(&self, file: &str) -> bool {
        self.files.iter().any(|f| f == file)
    }

    pub fn has_folder(&self, folder: &str) -> bool {
        self.folders.iter().any(|f| f == folder)
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Where the hidden ones are.
    pub fn hidden(&self) -> impl Iterator<Item = PathBuf> {
        self.hidden.iter().map(|name| self.join(name))
    }

    /// The first few names, for an error message.
    pub fn summary(&self) -> String {
        let names: Vec<String> =
            self.folders.iter().map(|f| format!("{f}/")).chain(self.files.iter().cloned()).collect();
        if names.is_empty() { "nothing".to_owned() } else { few(&names) }
    }
}

/// At most twenty of the names, and how many there are.
pub(crate) fn few(names: &[String]) -> String {
    const SHOWN: usize = 20;
    match names.len() {
        n if n <= SHOWN => names.join(", "),
        n => format!("{}, … ({n} in all)", names[..SHOWN].join(", ")),
    }
}
