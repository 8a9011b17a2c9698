//! What a fine-tune begins with: another network, with a head for the task's own classes.

use anyhow::{Context, ensure};
use std::path::{Path, PathBuf};
use zipit::graph::Op;
use zipit::task_vector::rooted;
use zipit::{Graph, Model, Preprocess, StateDict};
use zipit_artifact::header::InputRef;
use zipit_artifact::model;
use zipit_torch::initialise::initialise;

/// The network that is fine-tuned.
pub struct Base {
    path: PathBuf,
    model: Model,
    input: InputRef,
}

impl Base {
    /// Reads it.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let file = model::read(path)?;
        Ok(Self { path: path.to_owned(), input: file.input_ref(), model: file.model })
    }

    /// As an input of a provenance.
    pub fn input_ref(&self) -> InputRef {
        self.input.clone()
    }

    /// What it expects of an image: fine-tunes of one base can be merged only if they expect the same.
    pub fn preprocess(&self) -> Preprocess {
        self.model.preprocess.clone()
    }

    /// Its graph, with a head of so many logits.
    pub fn graph(&self, n_classes: usize) -> anyhow::Result<Graph> {
        let mut graph = self.model.graph.clone();
        let path = self.path.display();
        ensure!(graph.outputs.len() == 1, "{path} has {} outputs: a base has one", graph.outputs.len());
        let with_params = |&i: &usize| !graph.nodes[i].op.params().is_empty();
        let heads: Vec<usize> = graph.own_nodes().into_iter().filter(with_params).collect();
        let linear = match heads[..] {
            [head] => match &mut graph.nodes[head].op {
                Op::Linear { out_features, .. } => Some(out_features),
                _ => None,
            },
            _ => None,
        };
        let refused = || format!("{path} does not end with one linear layer, so no head can take its place");
        *linear.with_context(refused)? = n_classes;
        ensure!(graph.output_shapes().is_ok_and(|shapes| shapes == [[n_classes]]), refused());
        Ok(graph)
    }

    /// Its weights, the head's drawn anew.
    pub fn weights(&self, graph: &Graph, seed: u64) -> anyhow::Result<StateDict> {
        let (graph, weights) = (graph.clone(), initialise(graph, seed)?);
        Ok(rooted(&Model { graph, weights, ..self.model.clone() }, &self.model)?)
    }
}
