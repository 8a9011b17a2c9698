//! A head that all tasks share: a fixed vector per class, so that networks of different tasks speak of all classes.

use anyhow::{Context, bail, ensure};
use ndarray::{Array2, ArrayD};
use std::collections::BTreeMap;
use std::path::Path;
use zipit::graph::{Node, Op};
use zipit::{Graph, Model};
use zipit_artifact::header::{InputRef, hash_file};
use zipit_data::Dataset;

/// What the fixed layer is called.
const LAYER: &str = "classes";

/// A vector for every class of a data set.
pub struct Embeddings {
    /// `[classes, E]`, in the data set's order.
    vectors: Array2<f32>,
    input: InputRef,
}

impl Embeddings {
    /// Reads a JSON object of class → vector.
    pub fn read(path: &Path, dataset: &Dataset) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let found: BTreeMap<String, Vec<f32>> = serde_json::from_str(&text).with_context(|| {
            format!("{} holds no embeddings: expected a JSON object of class names and vectors", path.display())
        })?;
        let mut numbers = Vec::new();
        let mut length = None;
        for class in dataset.classes() {
            let Some(vector) = found.get(class) else {
                bail!("{} has no vector for class `{class}` of {}", path.display(), dataset.name());
            };
            let expected = *length.get_or_insert(vector.len());
            ensure!(
                vector.len() == expected && expected > 0 && vector.iter().all(|x| x.is_finite()),
                "{}: the vector of `{class}` has {} numbers, expected {expected} finite ones",
                path.display(),
                vector.len()
            );
            numbers.extend_from_slice(vector);
        }
        let vectors = Array2::from_shape_vec((dataset.classes().len(), length.unwrap_or(0)), numbers)?;
        let input = InputRef {
            name: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            kind: "embeddings".to_owned(),
            blake3: hash_file(path)?,
            provenance: None,
        };
        Ok(Self { vectors, input })
    }

    /// As an input of a provenance.
    pub fn input_ref(&self) -> InputRef {
        self.input.clone()
    }

    /// The trained network with the vectors of all classes: it was trained on some of them, and predicts among all.
    pub fn speak_of_all(&self, model: &mut Model, dataset: &Dataset) -> anyhow::Result<()> {
        let n_classes = dataset.classes().len();
        for node in &mut model.graph.nodes {
            if let (LAYER, Op::Linear { out_features, .. }) = (node.name.as_str(), &mut node.op) {
                *out_features = n_classes;
            }
        }
        let (name, vectors) = self.of(&(0..n_classes as u32).collect::<Vec<_>>());
        model.weights.insert(name, vectors);
        model.tasks[0].classes = dataset.classes().to_vec();
        Ok(model.validate()?)
    }

    /// E.
    pub fn length(&self) -> usize {
        self.vectors.ncols()
    }

    /// The fixed layer's weight, `[classes, E]`, of some classes.
    pub fn of(&self, classes: &[u32]) -> (String, ArrayD<f32>) {
        let rows: Vec<usize> = classes.iter().map(|&c| c as usize).collect();
        (format!("{LAYER}.weight"), self.vectors.select(ndarray::Axis(0), &rows).into_dyn())
    }

    /// `graph`, whose E outputs the fixed layer compares with the vectors of `n_classes` classes.
    pub fn on_top(&self, graph: &Graph, n_classes: usize) -> anyhow::Result<Graph> {
        let mut graph = graph.clone();
        let op = Op::Linear { in_features: self.length(), out_features: n_classes, bias: false };
        let node = Node { module: Some(LAYER.to_owned()), ..Node::new(LAYER, op, graph.outputs.clone()) };
        graph.nodes.push(node);
        graph.outputs = vec![LAYER.to_owned()];
        graph.shapes()?;
        Ok(graph)
    }
}
