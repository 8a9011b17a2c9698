//! Whether a graph is one: names, order, shapes; and whether weights fit it.

use super::{Graph, Nature, Node, Op};
use crate::{Error, Result, StateDict};
use std::collections::{BTreeMap, BTreeSet};

/// Largest value. Far beyond any network, and small enough that no size computed from a file overflows.
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
        let mut tensors: BTreeMap<String, &str> = BTreeMap::new();
        let mut carried: BTreeSet<&str> = BTreeSet::new();
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
            if let Some(unknown) =
                node.params.keys().find(|name| node.op.params().iter().all(|p| p.name != name.as_str()))
            {
                return Err(node.op.error(&node.name, format!("renames `{unknown}`, which it does not have")));
            }
            for param in node.op.params() {
                if let Some(other) = tensors.insert(node.tensor(param.name), &node.name) {
                    return Err(node.op.error(
                        &node.name,
                        format!(
                            "shares the weights `{}` with `{other}`; every layer needs its own",
                            node.tensor(param.name)
                        ),
                    ));
                }
            }
            node.op.check_numbers().map_err(|reason| node.op.error(&node.name, reason))?;
            let inputs = node
                .inputs
                .iter()
                .map(|name| {
                    shapes.get(name.as_str()).map(Vec::as_slice).ok_or_else(|| {
                        node.op.error(&node.name, format!("reads `{name}`, which no earlier node makes"))
                    })
                })
                .collect::<Result<Vec<_>>>()?;
            node.check_carried(&carried)?;
            if node.op.nature() == Nature::Carrying {
                carried.insert(&node.name);
            }
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
            let refuse = |what: String| Err(Error::Graph(format!("output `{output}` {what}")));
            match shapes.get(output.as_str()) {
                None => return refuse("is made by no node".to_owned()),
                Some(_) if *output == self.input.name => return refuse("is the input".to_owned()),
                Some(shape) if carried.contains(output.as_str()) && shape.first() != Some(&1) => {
                    return refuse(format!("is {shape:?} for one image: an output has the batch in front"));
                }
                Some(_) => {}
            }
        }
        Ok(shapes)
    }

    /// Shape of every output, the batch left out: features first, `[C]`, `[C, H, W]`; of what is carried whatever PyTorch
    /// has behind the batch, for one number per image nothing.
    ///
    /// # Errors
    /// As [`shapes`](Self::shapes).
    pub fn output_shapes(&self) -> Result<Vec<Vec<usize>>> {
        let shapes = self.shapes()?;
        let is_carried = |name: &str| self.node(name).is_some_and(|node| node.op.nature() == Nature::Carrying);
        let of = |name: &String| shapes[name.as_str()][usize::from(is_carried(name))..].to_vec();
        Ok(self.outputs.iter().map(of).collect())
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
    /// [`Error::Weights`] with every missing, wrongly shaped and unexpected tensor, in this order.
    pub fn check_tensor_shapes(&self, found: &BTreeMap<&str, Vec<usize>>) -> Result<()> {
        let expected = self.params();
        let (mut problems, mut wrong) = (Vec::new(), Vec::new());
        for (name, param) in &expected {
            match found.get(name.as_str()) {
                None => problems.push(format!("missing: {name} {:?}", param.shape)),
                Some(shape) if *shape != param.shape => {
                    wrong.push(format!("wrong shape: {name} is {shape:?}, the network needs {:?}", param.shape));
                }
                Some(_) => {}
            }
        }
        problems.append(&mut wrong);
        problems.extend(
            found
                .iter()
                .filter(|(name, _)| !expected.contains_key(**name))
                .map(|(name, shape)| format!("unexpected: {name} {shape:?}")),
        );
        if problems.is_empty() { Ok(()) } else { Err(Error::Weights(problems)) }
    }
}

impl Node {
    /// What is carried is read by calls, and by what follows it.
    fn check_carried(&self, carried: &BTreeSet<&str>) -> Result<()> {
        let found = self.inputs.iter().find(|name| carried.contains(name.as_str()));
        match (&self.op, found) {
            (Op::Follow { .. }, None) => Err(self.op.error(&self.name, "follows what is followed already")),
            (Op::Call { .. } | Op::Follow { .. }, _) | (_, None) => Ok(()),
            (_, Some(name)) => {
                Err(self.op.error(&self.name, format!("reads `{name}`, whose features are not followed")))
            }
        }
    }
}

fn is_sane(shape: &[usize]) -> bool {
    shape.iter().try_fold(1_usize, |product, &n| product.checked_mul(n)).is_some_and(|volume| volume <= MAX_VALUE)
}
