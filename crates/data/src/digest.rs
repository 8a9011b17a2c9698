//! What identifies the images a result was computed from.

/// BLAKE3 of the files a data set was read from.
///
/// One file: its BLAKE3, as `b3sum` prints it. Several: the BLAKE3 of the lines `<BLAKE3>  <name>\n` sorted by name,
/// that is, of what `b3sum` prints for them.
#[derive(Default)]
pub(crate) struct Digest {
    lines: Vec<(String, String)>,
}

impl Digest {
    /// Adds a file that was read whole.
    pub fn file(&mut self, name: &str, contents: &[u8]) {
        let hash = blake3::Hasher::new().update_rayon(contents).finalize();
        self.lines.push((name.to_owned(), hash.to_hex().to_string()));
    }

    pub fn finish(mut self) -> String {
        self.lines.sort();
        if let [(_, only)] = self.lines.as_slice() {
            return only.clone();
        }
        let mut hasher = blake3::Hasher::new();
        for (name, hash) in &self.lines {
            hasher.update(format!("{hash}  {name}\n").as_bytes());
        }
        hasher.finalize().to_hex().to_string()
    }
}
