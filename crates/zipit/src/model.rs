//! A network one can run: graph, weights, what its outputs mean and what its input expects.

use crate::joint::{GATE, Joint};
use crate::{Error, Graph, Preprocess, Result, StateDict, state_dict::non_finite};
use serde::{Deserialize, Serialize};

/// What one output of a network predicts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Task {
    /// The task's name, unique within a model.
    pub name: String,
    /// Class names in logit order, as the data set spells them.
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
        let shapes = self.graph.shapes()?;
        self.graph.check_weights(&self.weights)?;
        let bad = non_finite(&self.weights);
        if !bad.is_empty() {
            return Err(Error::Numbers(format!("not finite (NaN or infinity): {}", bad.join(", "))));
        }
        let gate = self.joint.as_ref().is_some_and(|joint| joint.gate);
        if self.tasks.len() + usize::from(gate) != self.graph.outputs.len() {
            return Err(Error::Graph(format!(
                "{} outputs but {} tasks{}: every output needs its class names",
                self.graph.outputs.len(),
                self.tasks.len(),
                if gate { " and a gate" } else { "" }
            )));
        }
        if let Some(joint) = &self.joint {
            joint.validate(self.tasks.len())?;
        }
        if let Some(output) = self.graph.outputs.get(self.tasks.len()) {
            let n_logits: usize = shapes[output.as_str()].iter().product();
            if n_logits != self.tasks.len() {
                return Err(Error::Graph(format!("the gate has {n_logits} logits for {} tasks", self.tasks.len())));
            }
        }
        for (i, (output, task)) in self.graph.outputs.iter().zip(&self.tasks).enumerate() {
            let n_logits: usize = shapes[output.as_str()].iter().product();
            if n_logits != task.classes.len() {
                return Err(Error::Graph(format!(
                    "task `{}` names {} classes but output `{output}` has {n_logits} logits",
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
}
