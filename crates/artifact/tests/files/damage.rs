//! Files cut, flipped and scrambled: always an error, never a panic, never a wrong answer.

use crate::fixture::{Folder, KINDS, read};
use proptest::prelude::*;
use std::fs::OpenOptions;
use std::io::{Seek, SeekFrom, Write};
use std::sync::OnceLock;
use zipit_artifact::{Error, provenance_of, sniff};

/// The kinds with a digest over everything.
const SEALED: [&str; 5] = ["model", "masked", "stats", "plan", "checkpoint"];

#[test]
fn a_file_cut_anywhere_is_refused() {
    let folder = Folder::filled();
    for kind in KINDS {
        let bytes = std::fs::read(folder.path(kind)).unwrap();
        // The last byte of a report is its line end.
        let whole = if kind == "report" { bytes.len() - 1 } else { bytes.len() };
        let path = folder.write("cut", &bytes);
        for n in (0..whole).rev() {
            OpenOptions::new().write(true).open(&path).unwrap().set_len(n as u64).unwrap();
            let error = read(kind, &path).expect_err("it is cut");
            let named = matches!(error, Error::Kind { .. } | Error::Damaged { .. });
            assert!(named && error.to_string().contains("/cut is "), "{kind} of {n} bytes: {error}");
        }
    }
}

#[test]
fn every_flipped_bit_of_a_sealed_file_is_noticed() {
    let folder = Folder::filled();
    for kind in SEALED {
        let path = folder.path(kind);
        let bytes = std::fs::read(&path).unwrap();
        // In place: a file system may flush whenever a file is written anew.
        let mut file = OpenOptions::new().write(true).open(&path).unwrap();
        let mut put = |at: usize, byte: u8| {
            file.seek(SeekFrom::Start(at as u64)).and_then(|_| file.write_all(&[byte])).unwrap();
        };
        for (at, &byte) in bytes.iter().enumerate() {
            put(at, byte ^ 1 << (at % 8));
            assert!(read(kind, &path).is_err(), "{kind}: byte {at} flipped and still read");
            put(at, byte);
        }
        read(kind, &path).unwrap();
    }
}

#[test]
fn appended_bytes_are_noticed() {
    let folder = Folder::filled();
    for kind in SEALED {
        let mut bytes = std::fs::read(folder.path(kind)).unwrap();
        bytes.push(0);
        assert!(read(kind, &folder.write("longer", &bytes)).is_err(), "{kind}");
    }
}

#[test]
fn a_missing_file_is_named() {
    let folder = Folder::empty();
    for kind in KINDS {
        let error = read(kind, &folder.path("nothing.bin")).unwrap_err();
        assert!(matches!(error, Error::Read { .. }));
        assert!(error.to_string().ends_with("nothing.bin: no such file or directory"), "{error}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever happens to the bytes, reading ends with a value or an error.
    #[test]
    fn scrambled_files_never_panic(
        kind in 0..KINDS.len(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        kept in any::<prop::sample::Index>(),
        cut in any::<bool>(),
        tail in prop::collection::vec(any::<u8>(), 0..20),
    ) {
        static WHOLE: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
        let whole = WHOLE.get_or_init(|| {
            let folder = Folder::filled();
            KINDS.map(|kind| std::fs::read(folder.path(kind)).unwrap()).to_vec()
        });
        let folder = Folder::empty();
        let mut bytes = whole[kind].clone();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if cut {
            bytes.truncate(kept.index(bytes.len()));
        }
        bytes.extend(tail);
        let path = folder.write("scrambled", &bytes);
        let _ = sniff(&path).unwrap();
        let _ = provenance_of(&path);
        for kind in KINDS {
            let _ = read(kind, &path);
        }
    }

    #[test]
    fn noise_is_nothing_of_ours(magic in 0..6_usize, noise in prop::collection::vec(any::<u8>(), 0..300)) {
        let folder = Folder::empty();
        let magics: [&[u8]; 6] =
            [b"zipit-st", b"zipit-pl", b"\x40\0\0\0\0\0\0\0{", b"{", b"\x89HDF\r\n\x1a\n", b""];
        let magic = magics[magic];
        let path = folder.write("noise", &[magic, &noise].concat());
        let _ = sniff(&path).unwrap();
        for kind in KINDS {
            prop_assert!(read(kind, &path).is_err());
        }
    }
}
