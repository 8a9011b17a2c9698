//! A file without a name for numbers that memory has no room for; it is gone with the process, however that ends.

use crate::{Error, Result};
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// Numbers that are converted at a time.
const CHUNK: usize = 1 << 18;

/// Slots of f32 in one file.
#[derive(Debug)]
pub struct ScratchFile {
    file: File,
    places: Mutex<Places>,
}

#[derive(Debug, Default)]
struct Places {
    /// Where a slot's bytes begin, and how many there is room for.
    slots: BTreeMap<usize, (u64, u64)>,
    end: u64,
}

impl ScratchFile {
    /// An empty one in `folder`.
    ///
    /// # Errors
    /// When no file can be made there.
    pub fn new(folder: &Path) -> Result<Self> {
        let file = tempfile::tempfile_in(folder).map_err(|e| Error::unwritable(folder, &e.to_string()))?;
        Ok(Self { file, places: Mutex::default() })
    }

    /// Bytes it takes.
    #[must_use]
    pub fn n_bytes(&self) -> u64 {
        self.places.lock().unwrap_or_else(PoisonError::into_inner).end
    }

    /// Where the slot begins, with room for so many bytes.
    fn place(&self, slot: usize, n: u64) -> u64 {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        match places.slots.get(&slot) {
            Some(&(from, room)) if room >= n => from,
            _ => {
                let from = places.end;
                places.end += n;
                places.slots.insert(slot, (from, n));
                from
            }
        }
    }
}

impl zipit::scratch::Scratch for ScratchFile {
    fn write(&self, slot: usize, values: &[f32]) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let mut at = self.place(slot, size_of_val(values) as u64);
        for chunk in values.chunks(CHUNK) {
            let bytes: Vec<u8> = chunk.iter().flat_map(|x| x.to_ne_bytes()).collect();
            self.file.write_all_at(&bytes, at)?;
            at += bytes.len() as u64;
        }
        Ok(())
    }

    fn read(&self, slot: usize, values: &mut [f32]) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let kept = self.places.lock().unwrap_or_else(PoisonError::into_inner).slots.get(&slot).copied();
        let (mut at, room) = kept.ok_or_else(|| io::Error::other(format!("slot {slot} was never written")))?;
        if room < size_of_val(values) as u64 {
            return Err(io::Error::other(format!("slot {slot} holds fewer numbers")).into());
        }
        let mut bytes = vec![0; CHUNK.min(values.len()) * size_of::<f32>()];
        for chunk in values.chunks_mut(CHUNK) {
            let bytes = &mut bytes[..size_of_val(chunk)];
            self.file.read_exact_at(bytes, at)?;
            at += bytes.len() as u64;
            let (words, _) = bytes.as_chunks::<4>();
            chunk.iter_mut().zip(words).for_each(|(x, word)| *x = f32::from_ne_bytes(*word));
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use zipit::scratch::Scratch;

    #[test]
    fn what_is_put_aside_comes_back_and_slots_are_used_again() {
        let scratch = ScratchFile::new(&std::env::temp_dir()).unwrap();
        let numbers = |n: usize, seed: f32| (0..n).map(|i| i as f32 * seed).collect::<Vec<_>>();
        let (long, short) = (numbers(CHUNK + 3, 0.5), numbers(5, -1.0));
        scratch.write(7, &long).unwrap();
        scratch.write(0, &short).unwrap();
        let mut back = vec![0.0; long.len()];
        scratch.read(7, &mut back).unwrap();
        assert_eq!(back, long);
        let before = scratch.n_bytes();
        scratch.write(7, &short).unwrap();
        assert_eq!(scratch.n_bytes(), before);
        let mut back = vec![0.0; 5];
        scratch.read(7, &mut back).unwrap();
        assert_eq!(back, short);
        assert!(scratch.read(1, &mut back).unwrap_err().to_string().contains("never written"));
        assert!(scratch.read(0, &mut [0.0; 6]).unwrap_err().to_string().contains("fewer"));
    }
}
