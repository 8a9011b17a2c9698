//! What is written is read back, bit by bit, and the same content gives the same bytes.

use crate::fixture::{self, COVARIANCE, Folder, KINDS};
use ndarray::{ArrayD, Axis};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use std::time::Duration;
use zipit::matching::Method;
use zipit::unmerge::UnmergeRule;
use zipit_artifact::checkpoint::{Checkpoint, Tensor};
use zipit_artifact::{DatasetFile, Kind, Provenance, StatsReader, checkpoint, dataset, hash_file, model, plan};
use zipit_artifact::{provenance_of, report, sniff, stats};

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
fn moments() {
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
    let mut mixing = fixture::merge_plan(3, COVARIANCE);
    mixing.points[0].merge = Some(mixing.points[0].merge_matrix());
    let mut weighing = fixture::merge_plan(3, UnmergeRule::Pinv);
    weighing.points[0].weights = Some(vec![0.25, 1.0, 0.5, 0.75, 3.0, 0.5]);
    let plans = [fixture::merge_plan(3, UnmergeRule::Pinv), fixture::merge_plan(3, COVARIANCE), mixing, weighing];
    assert!(plans[0].points[0].unmerge.is_none() && plans[1].points[0].unmerge.is_some());
    for written in plans {
        let path = folder.path("plan");
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
    let expected = [Kind::Model, Kind::Masked, Kind::Stats, Kind::Plan, Kind::Report, Kind::Checkpoint, Kind::Dataset];
    for (name, kind) in KINDS.into_iter().zip(expected) {
        let path = folder.path(name);
        assert_eq!(sniff(&path).unwrap(), kind);
        let provenance = (kind != Kind::Dataset).then(fixture::provenance);
        assert_eq!(provenance_of(&path).unwrap(), provenance, "{name}");
    }
    assert_eq!(provenance_of(&folder.path("nothing")).unwrap(), None);
}

fn shape() -> impl Strategy<Value = Vec<usize>> {
    vec(0_usize..4, 0..4)
}

fn tensor() -> impl Strategy<Value = Tensor> {
    let filled = |shape: Vec<usize>, bits: u64| ArrayD::from_shape_fn(shape, |_| bits);
    (shape(), any::<u64>(), 0..3).prop_map(move |(shape, bits, kind)| match kind {
        0 => Tensor::F32(filled(shape, bits).mapv(|b| f32::from_bits(b as u32))),
        1 => Tensor::F64(filled(shape, bits).mapv(f64::from_bits)),
        _ => Tensor::I64(filled(shape, bits).mapv(|b| b as i64)),
    })
}

/// NaNs compared by their bits.
fn bits(tensor: &Tensor) -> (Vec<usize>, Vec<u64>) {
    match tensor {
        Tensor::F32(a) => (a.shape().to_vec(), a.iter().map(|x| u64::from(x.to_bits())).collect()),
        Tensor::F64(a) => (a.shape().to_vec(), a.iter().map(|x| x.to_bits()).collect()),
        Tensor::I64(a) => (a.shape().to_vec(), a.iter().map(|x| *x as u64).collect()),
    }
}

/// A canonical assignment of n features: groups numbered by their lowest feature.
fn assignment(n: usize) -> impl Strategy<Value = Vec<u32>> {
    vec(any::<prop::sample::Index>(), n).prop_map(|choices| {
        let mut n_groups = 0;
        choices
            .iter()
            .map(|choice| {
                let group = choice.index(n_groups + 1);
                n_groups = n_groups.max(group + 1);
                group as u32
            })
            .collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_tensors_under_any_names(tensors in btree_map("\\PC{0,12}", tensor(), 0..6), tool in "\\PC{0,20}") {
        let folder = Folder::empty();
        let provenance = Provenance { tool, ..Provenance::default() };
        let written = Checkpoint { tensors, state: "null".into(), provenance };
        checkpoint::write(&folder.path("c"), &written).unwrap();
        let found = checkpoint::read(&folder.path("c")).unwrap();
        prop_assert_eq!(&found.provenance, &written.provenance);
        prop_assert!(found.tensors.keys().eq(written.tensors.keys()));
        for (name, tensor) in &written.tensors {
            prop_assert_eq!(bits(&found.tensors[name]), bits(tensor));
        }
    }

    #[test]
    fn any_plan(assignment in assignment(6), ridge in 0.0..1e9_f64, alpha in 0.0..1.0_f32, error in 0.0..1.0_f64) {
        let folder = Folder::empty();
        let mut written = fixture::merge_plan(3, UnmergeRule::Pinv);
        written.settings.method = Method::Zip { alpha, beta: 1.0 };
        written.settings.unmerge = UnmergeRule::Covariance { ridge };
        let point = &mut written.points[0];
        point.n_groups = assignment.iter().max().map_or(0, |&g| g as usize + 1);
        point.summary.across = 6 - point.n_groups;
        point.summary.within = vec![0, 0];
        point.summary.reconstruction_error = error;
        point.assignment = assignment;
        point.unmerge = Some(point.unmerge_matrix());
        plan::write(&folder.path("p"), &written, &fixture::graph(3), &fixture::inputs(), &fixture::provenance()).unwrap();
        prop_assert_eq!(plan::read(&folder.path("p")).unwrap().plan, written);
    }

    #[test]
    fn any_moments(channels in 1_usize..6, scale in 0.0..1e200_f64) {
        let folder = Folder::empty();
        let mut written = fixture::moments(channels);
        for point in written.values_mut() {
            point.sum.iter_mut().chain(&mut point.outer).for_each(|x| *x *= scale);
        }
        stats::write(&folder.path("s"), &fixture::stats_header(channels), &fixture::sums(channels, &written, &[].into())).unwrap();
        let reader = StatsReader::open(&folder.path("s")).unwrap();
        prop_assert_eq!(&reader.moments("relu").unwrap(), &written["relu"]);
    }

    #[test]
    fn any_report(numbers in vec(any::<f64>().prop_filter("JSON has none", |x| x.is_finite()), 0..9), text in "\\PC*") {
        let folder = Folder::empty();
        let written = (numbers, text);
        report::write(&folder.path("r"), &written, &fixture::provenance()).unwrap();
        prop_assert_eq!(report::read::<(Vec<f64>, String)>(&folder.path("r")).unwrap().content, written);
    }

    #[test]
    fn any_choice_of_images(order in vec(0_usize..7, 0..20)) {
        let folder = Folder::empty();
        let labels = [0, 1, 2, 0, 1, 2, 0];
        dataset::write(&folder.path("d"), &fixture::classes(), &[("val", fixture::images(7).view(), &labels)]).unwrap();
        let data = DatasetFile::open(&folder.path("d")).unwrap();
        prop_assert_eq!(data.images("val", &order).unwrap(), fixture::images(7).select(Axis(0), &order));
    }
}

#[test]
fn names_that_hdf5_would_take_for_paths() {
    let folder = Folder::empty();
    for name in ["a/b", "..", ".", "100%", "%2F", "layer1.0.relu_1", "\u{e9}\u{1f980}"] {
        let mut header = fixture::stats_header(2);
        header.graph.nodes[2].name = name.into();
        header.graph.nodes[3].inputs = vec![name.into()];
        header.points[0].0 = name.into();
        let moments = [(name.to_owned(), fixture::moments(2)["relu"].clone())].into();
        stats::write(&folder.path("s"), &header, &fixture::sums(2, &moments, &[].into())).unwrap();
        assert_eq!(StatsReader::open(&folder.path("s")).unwrap().moments(name).unwrap(), moments[name]);
    }
}

#[test]
fn arrays_in_any_memory_order_give_the_same_file() {
    let folder = Folder::empty();
    let mut model = fixture::network(3);
    model::write(&folder.path("rows"), &model, &fixture::provenance()).unwrap();
    let weight = model.weights.get_mut("fc.weight").unwrap();
    let columns = weight.t().as_standard_layout().into_owned().reversed_axes();
    assert!(!columns.is_standard_layout() && columns == *weight);
    *weight = columns;
    model::write(&folder.path("columns"), &model, &fixture::provenance()).unwrap();
    assert_eq!(hash_file(&folder.path("rows")).unwrap(), hash_file(&folder.path("columns")).unwrap());

    let images = fixture::images(4);
    let turned =
        images.clone().permuted_axes([0, 3, 2, 1]).as_standard_layout().into_owned().permuted_axes([0, 3, 2, 1]);
    for (name, images) in [("c", &images), ("w", &turned)] {
        dataset::write(&folder.path(name), &fixture::classes(), &[("test", images.view(), &[0, 0, 1, 1])]).unwrap();
    }
    assert_eq!(hash_file(&folder.path("c")).unwrap(), hash_file(&folder.path("w")).unwrap());
}

/// Loaders decode on many threads.
#[test]
fn readers_may_be_shared_between_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<DatasetFile>();
    shared::<StatsReader>();
}
