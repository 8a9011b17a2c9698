//! Other programs' files are called by their name, with what to do about them.

use crate::fixture::{Folder, KINDS, read};
use crate::forge::{Safetensors, Tensor, with_header};
use zipit_artifact::{Error, Kind, model, provenance_of, sniff};

fn foreign() -> Vec<(Kind, Vec<u8>)> {
    let zip = |name: &str| [b"PK\x03\x04\x00\x00", name.as_bytes(), &[0; 40]].concat();
    let late = |name: &str| [b"PK\x03\x04archive/data.pkl".to_vec(), vec![0; 2 << 20], name.into()].concat();
    vec![
        (Kind::Safetensors, with_header("{}", &[])),
        (Kind::Safetensors, with_header(r#"{"__metadata__":{"format":"pt"}}"#, &[])),
        // A header of 0x0480 bytes: its length begins as a pickle does.
        (Kind::Safetensors, with_header(&format!("{{}}{}", " ".repeat(0x480 - 2)), &[])),
        (Kind::PytorchZip, zip("archive/data.pkl")),
        (Kind::TorchScript, zip("net/code/__torch__.py")),
        (Kind::TorchScript, late("net/constants.pkl")),
        (Kind::Zip, zip("word/document.xml")),
        (Kind::Numpy, zip("arr_0.npy")),
        (Kind::KerasHdf5, zip("model.weights.h5")),
        (Kind::Pickle, b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.".to_vec()),
        (Kind::Onnx, b"\x08\x07\x12\x07pytorch".to_vec()),
        (Kind::Gguf, b"GGUF\x03\0\0\0".to_vec()),
        (Kind::Idx, [&[0, 0, 8, 1, 0, 0, 0, 3][..], &[1, 2, 3]].concat()),
        (Kind::Idx, [&[0, 0, 8, 3, 0, 0, 0, 9, 0, 0, 0, 28, 0, 0, 0, 28][..], &[0; 100]].concat()),
        (Kind::Gzip, b"\x1f\x8b\x08\0".to_vec()),
        (Kind::Numpy, b"\x93NUMPY\x01\0".to_vec()),
        (Kind::Image, b"\x89PNG\r\n\x1a\n".to_vec()),
        (Kind::Image, b"\xff\xd8\xff\xe0".to_vec()),
        (Kind::Json, b" {\"a\": 1}".to_vec()),
        (Kind::Json, b"{\"abcde:{".to_vec()),
        (Kind::Html, b"\n<!DOCTYPE HTML><title>404</title>".to_vec()),
        (Kind::GitLfsPointer, b"version https://git-lfs.github.com/spec/v1\noid sha256:0".to_vec()),
        (Kind::Empty, vec![]),
        (Kind::Unknown, b"hello".to_vec()),
        (Kind::Unknown, b"\0\0\x08\x01\0\0\0\x01 much too long".to_vec()),
        (Kind::Hdf5, b"\x89HDF\r\n\x1a\nnot really".to_vec()),
    ]
}

#[test]
fn every_foreign_kind_has_a_name() {
    let folder = Folder::empty();
    for (kind, bytes) in foreign() {
        let path = folder.write("foreign", &bytes);
        assert_eq!(sniff(&path).unwrap(), kind, "{:?}", String::from_utf8_lossy(&bytes[..bytes.len().min(40)]));
        assert_eq!(provenance_of(&path).unwrap(), None);
    }
    assert_eq!(sniff(&folder.path("")).unwrap(), Kind::Directory);
    assert_eq!(provenance_of(&folder.path("")).unwrap(), None);
}

#[test]
fn every_reader_refuses_them_by_that_name() {
    let folder = Folder::empty();
    for (found, bytes) in foreign() {
        let path = folder.write("foreign", &bytes);
        for kind in KINDS {
            match read(kind, &path).expect_err("it is foreign") {
                Error::Kind { found: named, .. } => assert_eq!(named, found, "{kind}"),
                // What starts as JSON, or as HDF5, and then is none.
                Error::Damaged { .. } => assert!(matches!(found, Kind::Json | Kind::Hdf5), "{kind}: {found}"),
                other => panic!("{kind}: {other}"),
            }
        }
    }
    for kind in KINDS {
        let error = read(kind, &folder.path("")).unwrap_err();
        assert!(matches!(error, Error::Kind { found: Kind::Directory, .. }), "{kind}: {error}");
    }
}

#[test]
fn ours_of_another_kind_are_refused_by_name() {
    let folder = Folder::filled();
    for is in KINDS {
        for wanted in KINDS {
            let result = read(wanted, &folder.path(is));
            match result {
                Ok(()) => assert_eq!(is, wanted),
                Err(Error::Kind { found, expected, .. }) => assert_eq!((found.code(), expected.code()), (is, wanted)),
                Err(other) => panic!("{other}"),
            }
        }
    }
}

#[test]
fn messages_say_which_file_what_it_is_what_was_expected_and_what_to_do() {
    let folder = Folder::empty();
    let message = |bytes: &[u8]| {
        let path = folder.write("net.pt", bytes);
        let text = model::read(&path).unwrap_err().to_string();
        text.strip_prefix(path.to_str().unwrap()).unwrap().to_owned()
    };
    assert_eq!(
        message(b"PK\x03\x04archive/data.pkl"),
        " is a PyTorch checkpoint (zip), expected a zipit model: turn it into a zipit model with `import`"
    );
    assert_eq!(
        message(b"PK\x03\x04archive/constants.pkl"),
        " is a TorchScript archive, expected a zipit model: save the network's state_dict() with torch.save and turn \
         that into a zipit model with `import`"
    );
    assert_eq!(
        message(b""),
        " is an empty file, expected a zipit model: whatever wrote it was interrupted; give a model made by `import`, \
         `train`, `apply` or `recalibrate`"
    );
    assert_eq!(
        message(b"version https://git-lfs.github.com/spec/v1"),
        " is a Git LFS pointer, expected a zipit model: run `git lfs pull` to get the file it stands for"
    );
}

#[test]
fn keras_and_other_hdf5() {
    let folder = Folder::empty();
    let path = folder.path("k.h5");
    for (group, kind) in [("model_weights", Kind::KerasHdf5), ("anything", Kind::Hdf5), ("train", Kind::Hdf5)] {
        let file = hdf5::File::create(&path).unwrap();
        file.create_group(group).unwrap();
        file.close().unwrap();
        assert_eq!(sniff(&path).unwrap(), kind, "{group}");
    }
}

#[test]
fn foreign_tensors_become_f32() {
    let half = |x: f32| half::f16::from_f32(x).to_le_bytes().to_vec();
    let brain = |x: f32| half::bf16::from_f32(x).to_le_bytes().to_vec();
    let tensors = [
        ("f16", "F16", half(-0.5)),
        ("bf16", "BF16", brain(3.0)),
        ("f32", "F32", 0.1_f32.to_le_bytes().to_vec()),
        ("f64", "F64", 0.1_f64.to_le_bytes().to_vec()),
        ("bn.num_batches_tracked", "I64", 7_i64.to_le_bytes().to_vec()),
        ("mask", "BOOL", vec![1]),
        ("nan", "F32", f32::NAN.to_le_bytes().to_vec()),
    ];
    let file = Safetensors {
        metadata: [("format".to_owned(), "pt".to_owned())].into(),
        tensors: tensors
            .into_iter()
            .map(|(name, dtype, bytes)| (name.to_owned(), Tensor { dtype, shape: vec![1], bytes }))
            .collect(),
    };
    let folder = Folder::empty();
    let found = model::read_foreign_safetensors(&folder.write("f", &file.bytes())).unwrap();
    let value = |name: &str| found.weights[name][0];
    assert_eq!((value("f16"), value("bf16"), value("f32"), value("f64")), (-0.5, 3.0, 0.1, 0.1));
    assert!(value("nan").is_nan());
    let dropped = [("bn.num_batches_tracked", "I64 [1]"), ("mask", "BOOL [1]")];
    assert_eq!(found.dropped, dropped.map(|(name, what)| (name.to_owned(), what.to_owned())).into());
    assert_eq!(found.metadata["format"], "pt");
}

#[test]
fn our_models_are_state_dicts_too() {
    let folder = Folder::filled();
    let found = model::read_foreign_safetensors(&folder.path("model")).unwrap();
    assert_eq!(found.weights, crate::fixture::network(3).weights);
}
