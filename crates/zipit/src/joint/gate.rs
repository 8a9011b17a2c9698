//! The task gate: a linear map from a network's features to its tasks.

use super::calibrate::minimise;
use super::{Calibration, Joint, calibrate, log_sum_exp};
use crate::graph::{Graph, Node, Op};
use crate::images::{HELD_OUT, held_out, n_different};
use crate::refit::{Design, Ridge, Solution, Sums, solve};
use crate::{Error, Model, Result, Task};
use argmin::core::CostFunction;
use ndarray::{Array2, ArrayD, Axis, IxDyn};
use std::collections::BTreeMap;

/// What a gate is fitted to: for every image, what [`of`](Features::of) shows of the network.
#[derive(Debug, Clone, PartialEq)]
pub struct Features {
    /// The network's classifications, and one more output than those: the features, `[n, F]`.
    pub model: Model,
    /// The value of that output.
    value: String,
    /// The outputs and tasks of the whole network.
    whole: (Vec<String>, Vec<Task>),
}

impl Features {
    /// The network without any gate, with the features that its classifying heads read, pooled and side by side, as last
    /// output.
    ///
    /// # Errors
    /// A head that is no layer with a weight on one value.
    pub fn of(model: &Model) -> Result<Self> {
        let mut model = without_gate(model);
        let whole = (model.graph.outputs.clone(), model.tasks.clone());
        let classifies = model.classifies();
        let mut kept = classifies.iter();
        model.graph.outputs.retain(|_| kept.next() == Some(&true));
        let mut kept = classifies.iter();
        model.tasks.retain(|_| kept.next() == Some(&true));
        let name = free_name(&model.graph);
        let mut read = Vec::new();
        for output in &model.graph.outputs {
            let value = source(&model.graph, output)?;
            if !read.contains(&value) {
                read.push(value);
            }
        }
        let shapes: BTreeMap<String, usize> =
            model.graph.shapes()?.into_iter().map(|(value, shape)| (value.to_owned(), shape.len())).collect();
        let mut parts = Vec::new();
        for (i, value) in read.into_iter().enumerate() {
            if shapes[&value] == 1 {
                parts.push(value);
                continue;
            }
            let pooled = format!("{name}.pool{i}");
            let flat = format!("{name}.flatten{i}");
            let pool = Op::AdaptiveAvgPool2d { output: [1, 1] };
            model.graph.nodes.push(Node::new(&pooled, pool, vec![value]));
            model.graph.nodes.push(Node::new(&flat, Op::Flatten, vec![pooled]));
            parts.push(flat);
        }
        let value = if parts.len() == 1 {
            parts.remove(0)
        } else {
            let value = format!("{name}.features");
            model.graph.nodes.push(Node::new(&value, Op::Concat, parts));
            value
        };
        model.graph.outputs.push(value.clone());
        Ok(Self { model, value, whole })
    }
}

/// The network without its gate and its calibration.
#[must_use]
pub fn without_gate(model: &Model) -> Model {
    let mut model = model.clone();
    if model.joint.take().is_some_and(|joint| joint.gate) {
        model.graph.outputs.truncate(model.tasks.len());
        model.drop_unused();
    }
    model
}

/// Fits a gate and the heads' calibration, and gives the network with both: `logits` are those of the tasks' heads,
/// `[n, classes]` each, then the features `[n, F]`; `tasks` says for every image to which task's data it belongs, and
/// `contents` are equal for equal images.
///
/// The gate is the ridge regression of the images' tasks (one-hot) on the features, in closed form; λ, the factor that
/// makes its outputs logits, and the heads' temperatures and biases are chosen on a held-out quarter of the images.
///
/// # Errors
/// [`Error::Request`] for a single head, or a task without images; what has no solution.
///
/// # Panics
/// When the arrays are not the network's.
pub fn gate(
    features: &Features,
    logits: &[Array2<f32>],
    tasks: &[usize],
    contents: &[u64],
) -> Result<(Model, Solution)> {
    let (x, logits) = logits.split_last().expect("the features");
    let n_tasks = logits.len();
    if n_tasks < 2 {
        return Err(Error::Request("a network with one head needs no joint prediction".into()));
    }
    let held = held_out(contents, None, HELD_OUT);
    for (task, named) in features.model.tasks.iter().enumerate() {
        for part in [false, true] {
            if !tasks.iter().zip(&held).any(|(t, held)| *t == task && *held == part) {
                return Err(Error::Request(format!(
                    "too few images of task `{}` among the {} to tell it from the others ({} of them differ): use more",
                    named.name,
                    tasks.len(),
                    n_different(contents)
                )));
            }
        }
    }
    let mut model = features.model.clone();
    let name = free_name(&model.graph);
    let mut node = Node {
        name: name.clone(),
        op: Op::Linear { in_features: x.ncols(), out_features: n_tasks, bias: true },
        inputs: vec![features.value.clone()],
        module: Some(name.clone()),
        params: std::collections::BTreeMap::new(),
    };
    model.weights.insert(format!("{name}.weight"), ArrayD::zeros(IxDyn(&[n_tasks, x.ncols()])));
    model.weights.insert(format!("{name}.bias"), ArrayD::zeros(IxDyn(&[n_tasks])));
    let design = Design::of(&node.op).expect("a linear layer");
    let sums = |part: bool| {
        let rows: Vec<usize> = (0..tasks.len()).filter(|&i| held[i] == part).collect();
        let x = x.select(Axis(0), &rows).mapv(f64::from);
        let y = Array2::from_shape_fn((rows.len(), n_tasks), |(i, t)| f64::from(u8::from(tasks[rows[i]] == t)));
        let mut sums = Sums::zeros(design);
        sums.add_samples(&x, &y);
        sums
    };
    let both = [false, true].map(sums);
    let solution = solve(std::slice::from_mut(&mut node), &mut model.weights, both, Ridge::HeldOut)?;

    let rows: Vec<usize> = (0..tasks.len()).filter(|&i| held[i]).collect();
    let of_held: Vec<usize> = rows.iter().map(|&i| tasks[i]).collect();
    let weight = &model.weights[&format!("{name}.weight")];
    let bias = &model.weights[&format!("{name}.bias")];
    let outputs = Array2::from_shape_fn((rows.len(), n_tasks), |(i, t)| {
        let product: f32 = x.row(rows[i]).iter().zip(weight.index_axis(Axis(0), t)).map(|(x, w)| x * w).sum();
        f64::from(product + bias[[t]])
    });
    let scale = minimise(Sharpness { outputs, tasks: &of_held }, vec![1.0])?[0].clamp(-5.0, 8.0).exp() as f32;
    for param in ["weight", "bias"] {
        if let Some(tensor) = model.weights.get_mut(&format!("{name}.{param}")) {
            tensor.mapv_inplace(|x| x * scale);
        }
    }
    let held_logits: Vec<Array2<f32>> = logits.iter().map(|z| z.select(Axis(0), &rows)).collect();
    let heads: Vec<Calibration> = calibrate(&held_logits, &of_held)?;
    model.graph.nodes.push(node);
    (model.graph.outputs, model.tasks) = features.whole.clone();
    model.graph.outputs.push(name);
    model.joint = Some(Joint { heads, gate: true });
    model.validate()?;
    Ok((model, solution))
}

/// −mean log softmax(a·s)_task over log a.
struct Sharpness<'a> {
    outputs: Array2<f64>,
    tasks: &'a [usize],
}

impl CostFunction for Sharpness<'_> {
    type Param = Vec<f64>;
    type Output = f64;

    fn cost(&self, log_a: &Vec<f64>) -> Result<f64, argmin::core::Error> {
        let a = log_a[0].clamp(-5.0, 8.0).exp();
        let unlikeliness = self
            .outputs
            .rows()
            .into_iter()
            .zip(self.tasks)
            .map(|(s, &task)| log_sum_exp(s.iter().map(|s| a * s)) - a * s[task]);
        Ok(unlikeliness.sum::<f64>() / self.tasks.len() as f64)
    }
}

/// What the layer behind an output reads, before it was flattened.
fn source(graph: &Graph, output: &str) -> Result<String> {
    let mut value = output;
    loop {
        let node = graph.node(value).ok_or_else(|| Error::Graph(format!("output `{output}` is made by no layer")))?;
        let [read] = &node.inputs[..] else {
            return Err(node.op.error(&node.name, "a gate needs a head that ends in a layer on one value"));
        };
        let flattened = graph.node(read).filter(|n| matches!(n.op, Op::Flatten)).map(|n| n.inputs[0].clone());
        if node.op.mixes() {
            return Ok(flattened.unwrap_or_else(|| read.clone()));
        }
        value = read;
    }
}

/// `gate`, or the first of `gate_2`, … that no node, module or value begins with.
fn free_name(graph: &Graph) -> String {
    let taken = |name: &str| {
        let begins = |other: &str| other == name || other.starts_with(&format!("{name}."));
        graph
            .nodes
            .iter()
            .any(|n| (n.op.is_weight_layer() && begins(&n.name)) || n.module.as_deref().is_some_and(begins))
    };
    let mut n = 1;
    loop {
        let name = if n == 1 { "gate".to_owned() } else { format!("gate_{n}") };
        if !taken(&name) {
            return name;
        }
        n += 1;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::Preprocess;
    use crate::graph::Input;

    /// Two heads: a Linear layer on the pooled image, and one on the image's every number.
    fn network() -> Model {
        let node = |name: &str, op: Op, input: &str| Node {
            name: name.into(),
            module: (!op.params().is_empty()).then(|| name.to_owned()),
            op,
            inputs: vec![input.into()],
            params: std::collections::BTreeMap::new(),
        };
        let linear = |n: usize| Op::Linear { in_features: n, out_features: 2, bias: true };
        let graph = Graph {
            arch: "two heads".into(),
            input: Input { name: "x".into(), shape: vec![3, 2, 2] },
            nodes: vec![
                node("relu", Op::Relu, "x"),
                node("pool", Op::AdaptiveAvgPool2d { output: [1, 1] }, "relu"),
                node("flatten", Op::Flatten, "pool"),
                node("flat", Op::Flatten, "relu"),
                node("gate", linear(3), "flatten"),
                node("head", linear(12), "flat"),
            ],
            outputs: vec!["gate".into(), "head".into()],
        };
        let weights = graph.params().iter().map(|(name, p)| (name.clone(), ArrayD::ones(IxDyn(&p.shape)))).collect();
        let task = |name: &str| Task { name: name.into(), classes: vec![format!("{name} 1"), format!("{name} 2")] };
        let preprocess = Preprocess::new([2, 2], vec![0.5; 3], vec![0.5; 3]);
        Model { graph, weights, tasks: vec![task("a"), task("b")], preprocess, joint: None }
    }

    fn contents(n: u64) -> Vec<u64> {
        (0..n).collect()
    }

    #[test]
    fn features_are_what_the_heads_read_pooled() {
        let features = Features::of(&network()).unwrap();
        let shapes = features.model.graph.shapes().unwrap();
        // Three pooled numbers of the first head's value, three of the second's.
        assert_eq!(shapes[features.value.as_str()], [6]);
        assert_eq!(features.model.graph.outputs.len(), 3);
    }

    #[test]
    fn a_gate_is_fitted_and_taken_away_again() {
        let model = network();
        let features = Features::of(&model).unwrap();
        let tasks: Vec<usize> = (0..64).map(|i| i / 3 % 2).collect();
        // Feature 4 says it, under noise; the others are noise.
        let noise = |i: usize, k: usize| ((i * 37 + k * 101 + i * i * k) % 97) as f32 / 97.0;
        let x = Array2::from_shape_fn((64, 6), |(i, k)| noise(i, k) + if k == 4 { tasks[i] as f32 } else { 0.0 });
        let logits = Array2::from_shape_fn((64, 2), |(i, c)| noise(i, 7 + c));
        let (gated, solution) =
            gate(&features, &[logits.clone(), logits.clone(), x.clone()], &tasks, &contents(64)).unwrap();
        assert!(solution.held_out.unwrap() < 0.5, "{solution:?}");
        // A module of the network has the name already.
        assert_eq!(gated.graph.outputs, ["gate", "head", "gate_2"]);
        let (w, b) = (&gated.weights["gate_2.weight"], &gated.weights["gate_2.bias"]);
        let output = |i: usize, t: usize| (0..6).map(|k| w[[t, k]] * x[[i, k]]).sum::<f32>() + b[[t]];
        let right = (0..64).filter(|&i| (output(i, 1) > output(i, 0)) == (tasks[i] == 1)).count();
        assert!(right >= 60, "{right} of 64");
        assert_eq!(without_gate(&gated), model);
        assert_eq!(without_gate(&model), model);
    }

    #[test]
    fn without_images_of_every_task_there_is_no_gate() {
        let features = Features::of(&network()).unwrap();
        let [x, logits] = [6, 2].map(|n| Array2::<f32>::zeros((8, n)));
        let refused = |tasks: &[usize]| {
            gate(&features, &[logits.clone(), logits.clone(), x.clone()], tasks, &contents(8)).unwrap_err()
        };
        assert!(refused(&[0; 8]).to_string().contains("task `b`"));
        assert!(
            gate(&features, &[logits.clone(), x.clone()], &[0; 8], &contents(8))
                .unwrap_err()
                .to_string()
                .contains("one head")
        );
    }
}
