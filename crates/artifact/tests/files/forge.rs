//! Files made by hand as the README says, so that they can lie with a straight face. The digests are computed here
//! from the README's words, not by the crate.

use crate::fixture::{self, COVARIANCE, Folder};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;
use zipit::Moments;
use zipit::refit::Gram;
use zipit_artifact::stats::GramKind;

/// A tensor of a safetensors file.
#[derive(Clone)]
pub struct Tensor {
    pub dtype: &'static str,
    pub shape: Vec<usize>,
    pub bytes: Vec<u8>,
}

/// The parts of a safetensors file.
pub struct Safetensors {
    pub metadata: BTreeMap<String, String>,
    pub tensors: BTreeMap<String, Tensor>,
}

impl Safetensors {
    /// What a whole file is made of.
    pub fn of(bytes: &[u8]) -> Self {
        let n = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let header: BTreeMap<String, Value> = serde_json::from_slice(&bytes[8..8 + n]).unwrap();
        let data = &bytes[8 + n..];
        let mut file = Self { metadata: BTreeMap::new(), tensors: BTreeMap::new() };
        for (name, entry) in header {
            if name == "__metadata__" {
                file.metadata = serde_json::from_value(entry).unwrap();
                continue;
            }
            let [start, end]: [usize; 2] = serde_json::from_value(entry["data_offsets"].clone()).unwrap();
            let shape = serde_json::from_value(entry["shape"].clone()).unwrap();
            let dtypes = ["F16", "BF16", "F32", "F64", "I64", "U8"];
            let dtype = dtypes.into_iter().find(|&dtype| entry["dtype"] == dtype).unwrap();
            file.tensors.insert(name, Tensor { dtype, shape, bytes: data[start..end].to_vec() });
        }
        file
    }

    /// The digest by the README.
    pub fn digest(&self) -> String {
        fn text(hasher: &mut blake3::Hasher, text: &str) {
            hasher.update(&(text.len() as u64).to_le_bytes()).update(text.as_bytes());
        }
        let mut hasher = blake3::Hasher::new();
        for (key, value) in self.metadata.iter().filter(|(key, _)| *key != "zipit.digest") {
            text(&mut hasher, key);
            text(&mut hasher, value);
        }
        for (name, tensor) in &self.tensors {
            text(&mut hasher, name);
            text(&mut hasher, tensor.dtype);
            hasher.update(&(tensor.shape.len() as u64).to_le_bytes());
            for &n in &tensor.shape {
                hasher.update(&(n as u64).to_le_bytes());
            }
            hasher.update(&tensor.bytes);
        }
        hasher.finalize().to_hex().to_string()
    }

    /// The file, with its true digest.
    pub fn sealed(mut self) -> Vec<u8> {
        let digest = self.digest();
        self.metadata.insert("zipit.digest".into(), digest);
        self.bytes()
    }

    /// The file as it stands.
    pub fn bytes(&self) -> Vec<u8> {
        let mut header = serde_json::Map::new();
        let mut data: Vec<u8> = Vec::new();
        for (name, tensor) in &self.tensors {
            let start = data.len();
            data.extend(&tensor.bytes);
            header.insert(
                name.clone(),
                json!({ "dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [start, data.len()] }),
            );
        }
        if !self.metadata.is_empty() {
            header.insert("__metadata__".into(), json!(self.metadata));
        }
        with_header(&Value::Object(header).to_string(), &data)
    }
}

/// A safetensors file from its header's text.
pub fn with_header(header: &str, data: &[u8]) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend(data);
    bytes
}

/// A whole file of ours, changed.
pub fn safetensors(kind: &str, change: impl FnOnce(&mut Safetensors)) -> Vec<u8> {
    let mut file = Safetensors::of(&std::fs::read(Folder::filled().path(kind)).unwrap());
    change(&mut file);
    file.sealed()
}

/// The sections of a plan.
pub struct Plan {
    pub version: u32,
    pub codec: [u8; 4],
    pub header: Value,
    pub assignments: Vec<u8>,
    pub dense: Vec<u8>,
    pub lengths: Option<[u64; 3]>,
}

/// A plan, changed, with its true digest.
pub fn plan(change: impl FnOnce(&mut Plan)) -> Vec<u8> {
    let folder = Folder::empty();
    let plan = fixture::merge_plan(3, COVARIANCE);
    zipit_artifact::plan::write(
        &folder.path("p"),
        &plan,
        &fixture::graph(3),
        &fixture::inputs(),
        &fixture::provenance(),
    )
    .unwrap();
    let bytes = std::fs::read(folder.path("p")).unwrap();
    let length = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) as usize;
    let (header, rest) = bytes[40..bytes.len() - 32].split_at(length(16));
    let (assignments, dense) = rest.split_at(length(24));
    let mut parts = Plan {
        version: 6,
        codec: [1, 0, 0, 0],
        header: serde_json::from_slice(header).unwrap(),
        assignments: assignments.to_vec(),
        dense: dense.to_vec(),
        lengths: None,
    };
    change(&mut parts);
    let header = parts.header.to_string().into_bytes();
    let lengths = parts.lengths.unwrap_or([&header, &parts.assignments, &parts.dense].map(|s| s.len() as u64));
    let mut bytes = b"zipit-pl".to_vec();
    bytes.extend(parts.version.to_le_bytes());
    bytes.extend(parts.codec);
    bytes.extend(lengths.iter().flat_map(|n| n.to_le_bytes()));
    bytes.extend(header);
    bytes.extend(parts.assignments);
    bytes.extend(parts.dense);
    bytes.extend(blake3::hash(&bytes).as_bytes());
    bytes
}

/// Stats with another header and other contents, sealed.
pub fn stats(folder: &Folder, header: &str, fill: impl FnOnce(&hdf5::File)) -> PathBuf {
    let path = folder.path("stats");
    let file = hdf5::File::with_options().with_fcpl(|p| p.userblock(512)).create(&path).unwrap();
    file.new_dataset_builder().with_data(header.as_bytes()).create("header").unwrap();
    fill(&file);
    file.close().unwrap();
    seal(&path, 4);
    path
}

/// Writes the user block of stats.
pub fn seal(path: &std::path::Path, version: u32) {
    let mut bytes = std::fs::read(path).unwrap();
    let mut block = b"zipit-st".to_vec();
    block.extend(version.to_le_bytes());
    block.extend([0; 4]);
    block.extend((bytes.len() as u64).to_le_bytes());
    let first = if version < 5 { vec![] } else { version.to_le_bytes().to_vec() };
    block.extend(blake3::hash(&[&first, &bytes[512..]].concat()).as_bytes());
    bytes[..block.len()].copy_from_slice(&block);
    std::fs::write(path, bytes).unwrap();
}

/// The header of the fixture's stats with layers, changed.
pub fn layers_header(kind: GramKind, change: impl FnOnce(&mut Value)) -> String {
    let mut header = serde_json::to_value(fixture::stats_header_with_layers(3, kind)).unwrap();
    change(&mut header);
    header.to_string()
}

/// The header of the fixture's stats, changed.
pub fn stats_header(change: impl FnOnce(&mut Value)) -> String {
    let mut header = serde_json::to_value(fixture::stats_header(3)).unwrap();
    change(&mut header);
    header.to_string()
}

/// The fixture's moments of one point under `group`.
pub fn point(file: &hdf5::File, group: &str) {
    put(file, group, &fixture::moments(3)["relu"]);
}

/// The fixture's moments of what its layers read, under `layers`.
pub fn layers(file: &hdf5::File, kind: GramKind) {
    for (name, gram) in fixture::grams(3, kind) {
        match gram {
            Gram::Joint(moments) => put(file, &format!("layers/{name}"), &moments),
            Gram::Own(each) => {
                each.iter().enumerate().for_each(|(i, moments)| put(file, &format!("layers/{name}/{i}"), moments));
            }
        }
    }
}

/// The fixture's ranges under `values`.
pub fn extents(file: &hdf5::File) {
    for (value, extent) in fixture::extents(3) {
        let group = file.create_group(&format!("values/{value}")).unwrap();
        group.new_dataset_builder().with_data(&extent.low).create("low").unwrap();
        group.new_dataset_builder().with_data(&extent.high).create("high").unwrap();
    }
}

/// The fixture's importance under its points.
pub fn importance(file: &hdf5::File) {
    for (name, importance) in fixture::importance(3) {
        for (k, place) in importance.places.iter().enumerate() {
            for (i, moments) in place.gradients.iter().enumerate() {
                put(file, &format!("points/{name}/importance/{k}/{i}"), moments);
            }
        }
    }
}

fn put(file: &hdf5::File, group: &str, moments: &Moments) {
    let group = file.create_group(group).unwrap();
    group.new_dataset_builder().with_data(&[moments.count]).create("count").unwrap();
    group.new_dataset_builder().with_data(&moments.sum).create("sum").unwrap();
    group.new_dataset_builder().with_data(&moments.outer).create("outer").unwrap();
}
