//! What is written is read back, bit by bit, and the same content gives the same bytes.
#![allow(missing_docs, clippy::unwrap_used)]

mod fixture;

use fixture::{COVARIANCE, Folder, KINDS};
use std::time::Duration;
use zipit::unmerge::UnmergeRule;
use zipit_artifact::{
    DatasetFile, Kind, StatsReader, checkpoint, hash_file, model, plan, provenance_of, report, sniff,
};

#[test]
fn a_model() {
    let folder = Folder::filled();
    let path = folder.path("model");
    let file = model::read(&path).unwrap();
    assert_eq!((&file.model, &file.provenance), (&fixture::network(3), &fixture::provenance()));
    assert_eq!(file.blake3, hash_file(&path).unwrap());
    let header = model::read_header(&path).unwrap();
    assert_eq!((header.graph, header.tasks), (file.model.graph.clone(), file.model.tasks.clone()));
    assert_eq!(header.shapes["conv.weight"], [3, 1, 3, 3]);
    assert_eq!(header.n_bytes, std::fs::metadata(&path).unwrap().len());
}

#[test]
fn any_safetensors_reader_opens_a_model() {
    let folder = Folder::filled();
    let bytes = std::fs::read(folder.path("model")).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let view = file.tensor("fc.bias").unwrap();
    assert_eq!((view.dtype(), view.shape()), (safetensors::Dtype::F32, &[2][..]));
    let expected = &fixture::network(3).weights["fc.bias"];
    let found: Vec<f32> = view.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
    assert_eq!(found, expected.iter().copied().collect::<Vec<_>>());
    let (header_length, metadata) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    assert_eq!(metadata.metadata().as_ref().unwrap()["format"], "pt");
    assert_eq!(header_length % 8, 0);
}

#[test]
fn stats() {
    let folder = Folder::filled();
    let reader = StatsReader::open(&folder.path("stats")).unwrap();
    assert_eq!(reader.header(), &fixture::stats_header(3));
    assert_eq!(reader.moments("relu").unwrap(), fixture::moments(3)["relu"]);
    assert_eq!(reader.blake3(), hash_file(&folder.path("stats")).unwrap());
    assert!(reader.header().is_complete());
}

#[test]
fn plans_with_and_without_dense_maps() {
    let folder = Folder::empty();
    for rule in [UnmergeRule::Pinv, COVARIANCE] {
        let (path, written) = (folder.path("plan"), fixture::merge_plan(3, rule));
        assert_eq!(written.points[0].unmerge.is_some(), rule == COVARIANCE);
        plan::write(&path, &written, &fixture::graph(3), &fixture::inputs(), &fixture::provenance()).unwrap();
        let file = plan::read(&path).unwrap();
        assert_eq!((file.plan, file.graph, file.provenance), (written, fixture::graph(3), fixture::provenance()));
        assert_eq!(file.blake3, hash_file(&path).unwrap());
        let digests = |inputs: &[zipit_artifact::InputRef]| inputs.iter().map(|i| i.blake3.clone()).collect::<Vec<_>>();
        assert_eq!(digests(&file.models), digests(&fixture::inputs()));
    }
}

#[test]
fn a_report() {
    let folder = Folder::filled();
    let file = report::read::<Vec<std::collections::BTreeMap<String, f64>>>(&folder.path("report")).unwrap();
    assert_eq!((file.content, file.provenance), (fixture::rows(), fixture::provenance()));
}

#[test]
fn a_training_checkpoint() {
    let folder = Folder::filled();
    let found = checkpoint::read(&folder.path("checkpoint")).unwrap();
    // NaN is not equal to itself, so the texts are compared.
    assert_eq!(format!("{found:?}"), format!("{:?}", fixture::resume_state()));
}

#[test]
fn a_data_set() {
    let folder = Folder::filled();
    let data = DatasetFile::open(&folder.path("dataset")).unwrap();
    assert_eq!((data.splits(), data.shape()), (vec!["train", "test"], [3, 2, 5]));
    assert_eq!((data.n("train").unwrap(), data.labels("test").unwrap()), (4, &[2, 0][..]));
    assert_eq!(data.classes(), fixture::classes());
    let order = [2, 3, 0, 0, 1];
    let expected = fixture::images(4).select(ndarray::Axis(0), &order);
    assert_eq!(data.images("train", &order).unwrap(), expected);
    assert!(data.images("train", &[]).unwrap().is_empty());
}

#[test]
fn the_same_content_gives_the_same_bytes_at_any_time() {
    let first = Folder::filled();
    // HDF5 counts in whole seconds.
    std::thread::sleep(Duration::from_millis(1100));
    let second = Folder::filled();
    for kind in KINDS {
        let [a, b] = [&first, &second].map(|folder| std::fs::read(folder.path(kind)).unwrap());
        assert!(a == b, "two {kind} files of the same content differ");
    }
}

#[test]
fn every_file_says_what_it_is_and_who_made_it() {
    let folder = Folder::filled();
    let expected = [Kind::Model, Kind::Stats, Kind::Plan, Kind::Report, Kind::Checkpoint, Kind::Dataset];
    for (name, kind) in KINDS.into_iter().zip(expected) {
        let path = folder.path(name);
        assert_eq!(sniff(&path).unwrap(), kind);
        let provenance = (kind != Kind::Dataset).then(fixture::provenance);
        assert_eq!(provenance_of(&path).unwrap(), provenance, "{name}");
    }
    assert_eq!(provenance_of(&folder.path("nothing")).unwrap(), None);
}
