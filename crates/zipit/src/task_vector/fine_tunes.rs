//! What fine-tuning changed: τₜ = θₜ − θ₀ (task arithmetic, Ilharco et al. 2023, arXiv 2212.04089).

use crate::{Error, Model, Result, StateDict};
use ndarray::ArrayD;
use std::collections::BTreeSet;

/// Every fine-tune's difference to `base`, of the tensors that `network` learns under their names and that all have in one
/// shape: those of `network` are then sums of the base's and of shares of these.
///
/// ```
/// # use ndarray::array;
/// # use std::collections::BTreeMap;
/// # let dict = |x: f32| BTreeMap::from([("w".to_owned(), array![x, 1.0].into_dyn())]);
/// let vector = zipit::task_vector::difference(&dict(3.0), &dict(1.0), ["w"].into());
/// assert_eq!(vector["w"], array![2.0, 0.0].into_dyn());
/// ```
///
/// # Errors
/// [`Error::Request`] where a tensor of the base that is not its head's is missing somewhere, or has another shape, and where
/// a fine-tune's head is not in the network as it is: then features are not the base's, and sums of tensors mean nothing.
pub fn task_vectors(network: &Model, base: &Model, tuned: &[&Model]) -> Result<Vec<StateDict>> {
    let shape = |of: &Model, name: &str| of.weights.get(name).map(|tensor| tensor.shape().to_vec());
    let of_base_head = own_tensors(base);
    let params = base.graph.params();
    let trunk = params.iter().filter(|(name, param)| param.learned && !of_base_head.contains(*name));
    for name in trunk.map(|(name, _)| name) {
        let wanted = shape(base, name);
        if let Some(i) = tuned.iter().position(|tuned| shape(tuned, name) != wanted) {
            return Err(Error::Request(format!(
                "network {} has no `{name}` of the base's shape {:?}: it is no fine-tune of this base",
                i + 1,
                wanted.unwrap_or_default()
            )));
        }
        if shape(network, name) != wanted {
            return Err(Error::Request(format!(
                "the network has no `{name}` of the base's shape {:?}: {FEATURE_BY_FEATURE}",
                wanted.unwrap_or_default()
            )));
        }
    }
    let params = network.graph.params();
    let learned = params.iter().filter(|(_, param)| param.learned).map(|(name, _)| name.as_str());
    let shared: BTreeSet<&str> = learned
        .filter(|name| {
            let own = shape(network, name);
            shape(base, name) == own && tuned.iter().all(|tuned| shape(tuned, name) == own)
        })
        .collect();
    if shared.is_empty() {
        let problem = "the base, its fine-tunes and the network have no learned tensor in common, by name and shape";
        return Err(Error::Request(problem.into()));
    }
    for (i, tuned) in tuned.iter().enumerate() {
        let own = own_tensors(tuned);
        let lost = own.iter().filter(|name| !shared.contains(name.as_str())).find(|name| {
            let own = &tuned.weights[*name];
            !network.weights.values().any(|found| found.shape() == own.shape() && alike(found, own))
        });
        if let Some(name) = lost {
            let task = tuned.tasks.first().map_or("", |task| task.name.as_str());
            return Err(Error::Request(format!(
                "the head of network {} (`{name}`, task `{task}`) is not in the network as it is: {FEATURE_BY_FEATURE}",
                i + 1
            )));
        }
    }
    Ok(tuned.iter().map(|tuned| difference(&tuned.weights, &base.weights, shared.clone())).collect())
}

/// What is to be done about another one.
const FEATURE_BY_FEATURE: &str = "coefficients need a network whose features are the base's, as `match --method identity \
     --unmerge pinv` and `apply` make it, BatchNorm not folded";

/// Names of the tensors that are a network's heads' own.
fn own_tensors(model: &Model) -> BTreeSet<String> {
    model.graph.tensors_of(model.graph.own_nodes())
}

/// Up to what storing in fewer bits takes away.
fn alike(a: &ArrayD<f32>, b: &ArrayD<f32>) -> bool {
    let largest = b.iter().fold(0.0_f32, |largest, x| largest.max(x.abs()));
    a.iter().zip(b).all(|(a, b)| (a - b).abs() <= STORED * largest)
}

/// bf16 has eight bits.
const STORED: f32 = 1.0 / 128.0;

/// The network's weights, but of everything that is not its head's own (see [`own_nodes`](crate::Graph::own_nodes)) those
/// of `root`.
///
/// # Errors
/// [`Error::Request`] for a root that lacks a tensor, or has it in another shape.
pub fn rooted(network: &Model, root: &Model) -> Result<StateDict> {
    let of_heads = own_tensors(network);
    let mut weights = network.weights.clone();
    let mut missing = Vec::new();
    for (name, tensor) in weights.iter_mut().filter(|(name, _)| !of_heads.contains(*name)) {
        match root.weights.get(name).filter(|of_root| of_root.shape() == tensor.shape()) {
            Some(of_root) => tensor.assign(of_root),
            None => missing.push(name.as_str()),
        }
    }
    match missing.first() {
        None => Ok(weights),
        Some(first) => Err(Error::Request(format!(
            "the root lacks {} of the {} tensors of the network that it is to become, or has them in another shape \
             (`{first}` first): both must be of one architecture",
            missing.len(),
            network.weights.len()
        ))),
    }
}

/// a − b of tensors that both have.
///
/// # Panics
/// When they have not.
#[must_use]
pub fn difference(a: &StateDict, b: &StateDict, names: BTreeSet<&str>) -> StateDict {
    names.into_iter().map(|name| (name.to_owned(), &a[name] - &b[name])).collect()
}
