//! Whether a graph is one: names, order, shapes; and whether weights fit it.

use super::{Graph, Node, Op};
use crate::{Error, Result, StateDict};
use std::collections::BTreeMap;

/// Largest number an op may name, and largest value. Far beyond any network, and small enough that no size computed
/// from a file overflows.
const MAX_NUMBER: usize = 1 << 28;
const MAX_VALUE: usize = 1 << 40;

impl Graph {
    /// Shape of every value without the batch, by value name. Checks names, topological order and shapes on the way.
    ///
    /// # Errors
    /// The first node that does not fit, by name and reason.
    pub fn shapes(&self) -> Result<BTreeMap<&str, Vec<usize>>> {
        let mut shapes: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        if self.input.shape.is_empty() || self.input.shape.contains(&0) {
            return Err(Error::Graph(format!("the input's shape {:?} is empty", self.input.shape)));
        }
        if !is_sane(&self.input.shape) {
            return Err(Error::Graph(format!("the input's shape {:?} is too large", self.input.shape)));
        }
        let mut modules: BTreeMap<&str, &str> = BTreeMap::new();
        shapes.insert(&self.input.name, self.input.shape.clone());
        for node in &self.nodes {
            if shapes.contains_key(node.name.as_str()) {
                return Err(node.op.error(&node.name, "another value already has this name"));
            }
            if node.op.params().is_empty() != node.module.is_none() {
                return Err(node.op.error(
                    &node.name,
                    if node.module.is_none() {
                        "has parameters but no module name to find them under"
                    } else {
                        "names a module but has no parameters"
                    },
                ));
            }
            if let Some(module) = &node.module
                && let Some(other) = modules.insert(module, &node.name)
            {
                return Err(node.op.error(
                    &node.name,
                    format!("shares the weights of `{module}` with `{other}`; every layer needs its own"),
                ));
            }
            check_numbers(node)?;
            let inputs = node
                .inputs
                .iter()
                .map(|name| {
                    shapes.get(name.as_str()).map(Vec::as_slice).ok_or_else(|| {
                        node.op.error(&node.name, format!("reads `{name}`, which no earlier node makes"))
                    })
                })
                .collect::<Result<Vec<_>>>()?;
            let shape = node.op.output_shape(&inputs).map_err(|reason| node.op.error(&node.name, reason))?;
            if shape.contains(&0) {
                return Err(node.op.error(&node.name, format!("makes an empty value {shape:?}")));
            }
            if !is_sane(&shape) {
                return Err(node.op.error(&node.name, format!("makes a value {shape:?}, which is too large")));
            }
            shapes.insert(&node.name, shape);
        }
        if self.outputs.is_empty() {
            return Err(Error::Graph("no outputs".into()));
        }
        for output in &self.outputs {
            match shapes.get(output.as_str()).map(Vec::as_slice) {
                None => return Err(Error::Graph(format!("output `{output}` is made by no node"))),
                Some([_]) => {}
                Some(shape) => {
                    return Err(Error::Graph(format!(
                        "output `{output}` is {shape:?}; logits are one vector per image"
                    )));
                }
            }
        }
        Ok(shapes)
    }

    /// Checks that `weights` are exactly this graph's parameters and buffers.
    ///
    /// # Errors
    /// [`Error::Weights`] with every missing, unexpected and wrongly shaped tensor.
    pub fn check_weights(&self, weights: &StateDict) -> Result<()> {
        self.check_tensor_shapes(&weights.iter().map(|(name, t)| (name.as_str(), t.shape().to_vec())).collect())
    }

    /// [`check_weights`](Self::check_weights) on shapes alone.
    ///
    /// # Errors
    /// [`Error::Weights`] with every missing, unexpected and wrongly shaped tensor.
    pub fn check_tensor_shapes(&self, found: &BTreeMap<&str, Vec<usize>>) -> Result<()> {
        let expected = self.params();
        let mut problems = Vec::new();
        for (name, param) in &expected {
            match found.get(name.as_str()) {
                None => problems.push(format!("missing: {name} {:?}", param.shape)),
                Some(shape) if *shape != param.shape => {
                    problems.push(format!("wrong shape: {name} is {shape:?}, the network needs {:?}", param.shape));
                }
                Some(_) => {}
            }
        }
        problems.extend(
            found
                .iter()
                .filter(|(name, _)| !expected.contains_key(**name))
                .map(|(name, shape)| format!("unexpected: {name} {shape:?}")),
        );
        if problems.is_empty() { Ok(()) } else { Err(Error::Weights(problems)) }
    }
}

fn is_sane(shape: &[usize]) -> bool {
    shape.iter().try_fold(1_usize, |product, &n| product.checked_mul(n)).is_some_and(|volume| volume <= MAX_VALUE)
}

/// The numbers an op names, before anything is computed from them.
fn check_numbers(node: &Node) -> Result<()> {
    let refuse = |reason: String| Err(node.op.error(&node.name, reason));
    let (window, mut numbers) = match &node.op {
        Op::Conv2d { in_channels, out_channels, window, groups, .. } => {
            (Some(window), vec![*in_channels, *out_channels, *groups])
        }
        Op::Linear { in_features, out_features, .. } => (None, vec![*in_features, *out_features]),
        Op::BatchNorm2d { eps, .. } if !(eps.is_finite() && *eps >= 0.0) => {
            return refuse(format!("eps {eps} must be a number of at least 0"));
        }
        Op::BatchNorm2d { num_features, .. } => (None, vec![*num_features]),
        Op::MaxPool2d { window } | Op::AvgPool2d { window } => {
            if (0..2).any(|axis| window.padding[axis] > window.kernel[axis] / 2) {
                return refuse(format!(
                    "padding {:?} is more than half of the kernel {:?}",
                    window.padding, window.kernel
                ));
            }
            (Some(window), vec![])
        }
        Op::AdaptiveAvgPool2d { output } => (None, output.to_vec()),
        Op::Relu | Op::Flatten | Op::Add | Op::Concat => (None, vec![]),
    };
    if let Some(w) = window {
        if [w.kernel, w.stride, w.dilation].concat().contains(&0) {
            return refuse("a kernel, stride or dilation of 0".into());
        }
        numbers.extend([w.kernel, w.stride, w.padding, w.dilation].concat());
    }
    match numbers.iter().find(|&&n| n > MAX_NUMBER) {
        Some(n) => refuse(format!("the number {n} is too large")),
        None => Ok(()),
    }
}
