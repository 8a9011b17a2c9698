//! Small networks and images in a workplace.

use ndarray::ArrayD;
use serde_json::json;
use std::collections::BTreeMap;
use zipit::Graph;
use zipit::graph::{Arch, ArchSpec};
use zipit_artifact::header::Provenance;
use zipit_artifact::model;
use zipit_tests::{Workplace, permuted, random_model, write_idx};

/// A ResNet-20 of four channels for 12×12 gray images, and three classes.
pub fn tiny_graph() -> Graph {
    ArchSpec::new(Arch::ResNet20, 0.25, 1, [12, 12], 3).build().unwrap()
}

/// A workplace with `data/` (IDX, classes 0–5) and two different networks a and b of the same graph.
pub fn two_networks(graph: &Graph, n_images: usize) -> Workplace {
    let place = images_for(graph, n_images);
    write(&place, "a", &random_model(graph, 1, "first", &["0", "1", "2"]));
    write(&place, "b", &random_model(graph, 2, "second", &["3", "4", "5"]));
    place
}

/// As [`two_networks`], but b is a with all its free features permuted. BatchNorm's statistics are those of the images,
/// as in a trained network: otherwise deep features are dead or lit by a single image, and no twin can be told.
pub fn network_and_permuted_copy(graph: &Graph, n_images: usize) -> Workplace {
    model_and_permuted_copy(&random_model(graph, 1, "first", &["0", "1", "2"]), n_images)
}

/// As [`network_and_permuted_copy`], of this network.
pub fn model_and_permuted_copy(network: &zipit::Model, n_images: usize) -> Workplace {
    let place = images_for(&network.graph, n_images);
    write(&place, "raw", network);
    place.ok("recalibrate", "raw.safetensors --data data -o a.safetensors");
    let a = model::read(&place.path("a.safetensors")).unwrap().model;
    let mut b = permuted(&a, 7);
    "second".clone_into(&mut b.tasks[0].name);
    b.tasks[0].classes = ["3", "4", "5"].map(str::to_owned).to_vec();
    write(&place, "b", &b);
    place
}

fn images_for(graph: &Graph, n_images: usize) -> Workplace {
    let place = Workplace::new();
    write_idx(&place.path("data"), n_images, graph.input.shape[1], 6);
    place
}

pub fn write(place: &Workplace, name: &str, network: &zipit::Model) {
    model::write(&place.path(&format!("{name}.safetensors")), network, &Provenance::default()).unwrap();
}

/// All tensors of a safetensors file in the workplace.
pub fn tensors(place: &Workplace, name: &str) -> BTreeMap<String, ArrayD<f32>> {
    model::read_foreign_safetensors(&place.path(name)).unwrap().weights
}

/// Largest |x − y|; the shapes must agree.
pub fn max_difference(x: &ArrayD<f32>, y: &ArrayD<f32>) -> f32 {
    assert_eq!(x.shape(), y.shape());
    x.iter().zip(y).map(|(x, y)| (x - y).abs()).fold(0.0, f32::max)
}

/// The weights as any other program would store them: safetensors with no word of ours.
pub fn foreign_safetensors(network: &zipit::Model) -> Vec<u8> {
    safetensors(network, &[])
}

/// A network as another program exports it: with its graph, and no word of who made it but `environment`.
pub fn exported(network: &zipit::Model) -> Vec<(&'static str, String)> {
    vec![
        ("format", "pt".to_owned()),
        ("zipit.graph", serde_json::to_string(&network.graph).unwrap()),
        ("zipit.tasks", serde_json::to_string(&network.tasks).unwrap()),
        ("zipit.preprocess", serde_json::to_string(&network.preprocess).unwrap()),
        ("zipit.environment", json!({ "torch": "2.11.0", "factory": "nets.py:build" }).to_string()),
    ]
}

/// The weights as safetensors with this metadata.
pub fn safetensors(network: &zipit::Model, metadata: &[(&str, String)]) -> Vec<u8> {
    let mut header = serde_json::Map::new();
    if !metadata.is_empty() {
        header.insert("__metadata__".into(), metadata.iter().map(|(k, v)| ((*k).to_owned(), json!(v))).collect());
    }
    let mut data: Vec<u8> = Vec::new();
    for (name, tensor) in &network.weights {
        let start = data.len();
        data.extend(tensor.iter().flat_map(|x| x.to_le_bytes()));
        let entry = json!({ "dtype": "F32", "shape": tensor.shape(), "data_offsets": [start, data.len()] });
        header.insert(name.clone(), entry);
    }
    let header = serde_json::to_vec(&header).unwrap();
    [&(header.len() as u64).to_le_bytes()[..], &header, &data].concat()
}
