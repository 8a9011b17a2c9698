//! A network one can run: graph, weights, what its outputs mean and what its input expects.

use crate::joint::{GATE, Joint};
use crate::{Error, Graph, Preprocess, Result, StateDict, state_dict::non_finite};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::BTreeSet;

/// What one output of a network predicts, or shows: classes of the image, of each of its positions, or features.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Task {
    /// The task's name, unique within a model.
    pub name: String,
    /// Class names in the order of the output's features, as the data set spells them; none, if its features are no classes.
    pub classes: Vec<String>,
}

/// A network: trunk and heads, or a single task's.
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    /// The computation.
    pub graph: Graph,
    /// Parameters and buffers.
    pub weights: StateDict,
    /// One per graph output, in the same order; a gate's output, the last one, is no task.
    pub tasks: Vec<Task>,
    /// The input's contract.
    pub preprocess: Preprocess,
    /// How its heads are compared with each other, where that was fitted.
    pub joint: Option<Joint>,
}

impl Model {
    /// Everything about the model that can be wrong without running it: graph, tensors, finite numbers, tasks,
    /// preprocessing.
    ///
    /// # Errors
    /// The first kind of defect found, with every instance of it.
    pub fn validate(&self) -> Result<()> {
        let shapes = self.graph.output_shapes()?;
        self.graph.check_weights(&self.weights)?;
        let bad = non_finite(&self.weights);
        if !bad.is_empty() {
            return Err(Error::Numbers(format!("not finite (NaN or infinity): {}", bad.join(", "))));
        }
        self.check_meaning(&shapes)
    }

    /// [`validate`](Self::validate) without the weights: graph, tasks, preprocessing.
    ///
    /// # Errors
    /// As there.
    pub fn validate_outline(&self) -> Result<()> {
        self.check_meaning(&self.graph.output_shapes()?)
    }

    /// What outputs of these `shapes` and the input mean.
    fn check_meaning(&self, shapes: &[Vec<usize>]) -> Result<()> {
        let gate = self.joint.as_ref().is_some_and(|joint| joint.gate);
        if self.tasks.len() + usize::from(gate) != self.graph.outputs.len() {
            return Err(Error::Graph(format!(
                "{} outputs but {} tasks{}: every output is a task's",
                self.graph.outputs.len(),
                self.tasks.len(),
                if gate { " and a gate" } else { "" }
            )));
        }
        if let Some(joint) = &self.joint {
            joint.validate(self.classifies().into_iter().filter(|&classifies| classifies).count())?;
        }
        if let Some(shape) = shapes.get(self.tasks.len()) {
            let n = self.classifies().into_iter().filter(|&classifies| classifies).count();
            if *shape != [n] {
                return Err(Error::Graph(format!("the gate has {shape:?} logits for {n} classifications")));
            }
        }
        for (i, (output, task)) in self.graph.outputs.iter().zip(&self.tasks).enumerate() {
            let n_features = shapes[i].first().copied().unwrap_or(0);
            if !task.classes.is_empty() && n_features != task.classes.len() {
                let what =
                    if shapes[i].len() == 1 { "logits".to_owned() } else { format!("features: it is {:?}", shapes[i]) };
                return Err(Error::Graph(format!(
                    "task `{}` names {} classes but output `{output}` has {n_features} {what}",
                    task.name,
                    task.classes.len()
                )));
            }
            if self.tasks[..i].iter().any(|other| other.name == task.name) {
                return Err(Error::Graph(format!("two tasks are called `{}`", task.name)));
            }
            if task.name.trim().is_empty() {
                return Err(Error::Graph("a task has no name: outputs are called after their tasks".to_owned()));
            }
            if task.name == GATE {
                return Err(Error::Graph(format!(
                    "a task is called `{GATE}`, as the output of a gate is: give it another name"
                )));
            }
            if let Some(c) = task.classes.iter().position(|class| class.trim().is_empty()) {
                return Err(Error::Graph(format!("task `{}`: class {c} has no name", task.name)));
            }
            if let Some(c) = (1..task.classes.len()).find(|&c| task.classes[..c].contains(&task.classes[c])) {
                return Err(Error::Graph(format!("task `{}` lists class `{}` twice", task.name, task.classes[c])));
            }
        }
        let p = &self.preprocess;
        let input = &self.graph.input.shape;
        if *input != [p.channels(), p.size[0], p.size[1]] {
            return Err(Error::Graph(format!(
                "the graph's input is {input:?} but the preprocessing gives {:?}",
                [p.channels(), p.size[0], p.size[1]]
            )));
        }
        p.validate()
    }

    /// For each task, whether it is a classification: one vector of logits per image, with class names. Of a graph that is
    /// none, no task is.
    #[must_use]
    pub fn classifies(&self) -> Vec<bool> {
        let shapes = self.graph.output_shapes().unwrap_or_default();
        let is_vector = |at: usize| shapes.get(at).is_some_and(|shape| shape.len() == 1);
        self.tasks.iter().enumerate().map(|(at, task)| is_vector(at) && !task.classes.is_empty()).collect()
    }

    /// For each of the `sources`, which of this network's outputs each of its outputs is about: the one whose task has its
    /// task's name, where equal names are told apart as a merge tells them, or the only one that has its classes.
    ///
    /// # Errors
    /// [`Error::Request`] for a task that no output is about, and for one whose classes differ.
    pub fn outputs_of(&self, sources: &[&Self]) -> Result<Vec<Vec<usize>>> {
        let mut names: Vec<String> = Vec::new();
        let mut of_task = |task: &Task| -> Result<usize> {
            let mut name = task.name.clone();
            let mut n = 2;
            while names.contains(&name) {
                name = format!("{}-{n}", task.name);
                n += 1;
            }
            names.push(name.clone());
            let named = self.tasks.iter().position(|own| own.name == name);
            let alike = || -> Vec<usize> {
                let alike = self.tasks.iter().enumerate().filter(|(_, own)| own.classes == task.classes);
                alike.map(|(at, _)| at).collect()
            };
            let at = named.or_else(|| if let [only] = alike()[..] { Some(only) } else { None }).ok_or_else(|| {
                let own: Vec<&str> = self.tasks.iter().map(|own| own.name.as_str()).collect();
                Error::Request(format!("the network has no output for task `{name}`; it has: {}", own.join(", ")))
            })?;
            if self.tasks[at].classes != task.classes {
                let problem = format!("task `{name}` has other classes, or another order of them, in the network");
                return Err(Error::Request(problem));
            }
            Ok(at)
        };
        sources.iter().map(|source| source.tasks.iter().map(&mut of_task).collect()).collect()
    }

    /// The network with its classifications, and its gate, as only outputs; and in words what the others are.
    #[must_use]
    pub fn classifier(&self) -> (Cow<'_, Self>, Vec<String>) {
        let classifies = self.classifies();
        if classifies.iter().all(|&classifies| classifies) {
            return (Cow::Borrowed(self), vec![]);
        }
        let shapes = self.graph.output_shapes().unwrap_or_default();
        let mut left_out = Vec::new();
        let mut model = Self { tasks: vec![], graph: Graph { outputs: vec![], ..self.graph.clone() }, ..self.clone() };
        for (at, (output, shape)) in self.graph.outputs.iter().zip(&shapes).enumerate() {
            if classifies.get(at) == Some(&false) {
                let names = if shape.len() == 1 { " without class names" } else { "" };
                left_out.push(format!("output `{}` is {shape:?}{names}", self.tasks[at].name));
                continue;
            }
            model.graph.outputs.push(output.clone());
            model.tasks.extend(self.tasks.get(at).cloned());
        }
        model.drop_unused();
        (Cow::Owned(model), left_out)
    }

    /// Leaves out the nodes that no output needs, and their weights.
    pub fn drop_unused(&mut self) {
        let mut needed: BTreeSet<String> = self.graph.outputs.iter().cloned().collect();
        for node in self.graph.nodes.iter().rev() {
            if needed.contains(&node.name) {
                needed.extend(node.inputs.iter().cloned());
            }
        }
        self.graph.nodes.retain(|node| needed.contains(&node.name));
        let params = self.graph.params();
        self.weights.retain(|name, _| params.contains_key(name));
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::apply::tests::{graphs::dense, networks::model};

    #[test]
    fn classes_name_the_features_of_any_output() {
        let mut model = model(&dense()[0], 1);
        assert_eq!(model.graph.output_shapes().unwrap(), [vec![3, 4, 4], vec![6, 4, 4], vec![4]]);
        assert!(model.validate().is_ok());
        assert_eq!(model.classifies(), [false, false, true]);
        model.tasks[0].classes.pop();
        let error = model.validate().unwrap_err().to_string();
        assert!(error.contains("names 2 classes") && error.contains("has 3 features: it is [3, 4, 4]"), "{error}");
        model.tasks[0].classes.clear();
        model.tasks[2].classes.clear();
        assert!(model.validate().is_ok());
        assert_eq!(model.classifies(), [false; 3]);
    }

    #[test]
    fn outputs_are_found_by_their_tasks() {
        let one = |name: &str, classes: &[&str]| {
            let task = Task { name: name.into(), classes: classes.iter().map(|&class| class.into()).collect() };
            Model { tasks: vec![task], ..model(&dense()[0], 1) }
        };
        let merged = Model {
            tasks: [one("a", &["x"]), one("b", &["y"]), one("a-2", &["z"])].map(|m| m.tasks[0].clone()).to_vec(),
            ..one("", &[])
        };
        let sources = [one("b", &["y"]), one("a", &["x"]), one("a", &["z"])];
        assert_eq!(merged.outputs_of(&sources.iter().collect::<Vec<_>>()).unwrap(), [[1], [0], [2]]);
        // Several networks of one task, whose heads became one.
        let shared = one("both", &["x"]);
        assert_eq!(shared.outputs_of(&[&one("a", &["x"]), &one("b", &["x"])]).unwrap(), [[0], [0]]);
        let error = shared.outputs_of(&[&one("a", &["y"])]).unwrap_err().to_string();
        assert!(error.contains("no output for task `a`; it has: both"), "{error}");
        let error = shared.outputs_of(&[&one("both", &["y"])]).unwrap_err().to_string();
        assert!(error.contains("other classes"), "{error}");
    }

    #[test]
    fn the_classifier_is_what_its_logits_need() {
        let whole = model(&dense()[0], 1);
        let (part, left_out) = whole.classifier();
        assert_eq!(part.graph.outputs, ["logits"]);
        assert!(part.validate().is_ok() && !part.weights.contains_key("net.classes.weight"));
        let told = ["output `task map` is [3, 4, 4]", "output `task stream` is [6, 4, 4]"];
        assert_eq!(left_out, told);
        let (same, left_out) = part.classifier();
        assert!(matches!(same, Cow::Borrowed(_)) && left_out.is_empty());
    }
}
