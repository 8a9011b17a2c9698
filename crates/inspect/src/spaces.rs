//! The feature spaces of a network: sizes and members.

use serde_json::{Value, json};
use std::collections::BTreeMap;
use zipit::Graph;
use zipit::graph::Fixed;

/// Headers of what [`free`] gives of each space.
pub const HEADERS: [&str; 3] = ["features", "layers", "members"];
/// As many members are named one by one.
const NAMED: usize = 4;

/// The free spaces in the order of the forward pass: name; size, depth and members.
pub fn free(graph: &Graph) -> anyhow::Result<Vec<(String, [String; 3])>> {
    let spaces = graph.spaces()?;
    let n_layers = graph.n_layers();
    Ok(graph
        .merge_points(&spaces)
        .into_iter()
        .map(|point| {
            let features = match point.blocks {
                Some(blocks) => format!("{} in {} blocks", point.dim, blocks.count),
                None => point.dim.to_string(),
            };
            let layers = format!("{}/{n_layers}", point.layers);
            (point.name, [features, layers, members(&spaces.spaces[point.space].values)])
        })
        .collect())
}

/// Those whose features have a meaning outside the network, with their sizes.
pub fn fixed(graph: &Graph) -> anyhow::Result<String> {
    let spaces = graph.spaces()?.spaces;
    let all: Vec<String> =
        spaces.iter().filter_map(|s| Some(format!("{} {} ({})", word(s.fixed?), s.name, s.dim))).collect();
    Ok(all.join(", "))
}

/// Every space with all its members.
pub fn json(graph: &Graph) -> anyhow::Result<Value> {
    let spaces = graph.spaces()?.spaces;
    let all = spaces
        .iter()
        .map(|s| json!({ "name": s.name, "dim": s.dim, "fixed": s.fixed.map(word), "members": s.values }))
        .collect();
    Ok(Value::Array(all))
}

/// The cells of [`free`] by the space's name.
pub fn by_name(graph: &Graph) -> anyhow::Result<BTreeMap<String, [String; 3]>> {
    Ok(free(graph)?.into_iter().collect())
}

fn word(fixed: Fixed) -> &'static str {
    match fixed {
        Fixed::Input => "input",
        Fixed::Output => "output",
        Fixed::Bound => "bound",
        Fixed::Tied => "tied",
        Fixed::Blocks => "blocks",
    }
}

fn members(values: &[String]) -> String {
    match values {
        [first, .., last] if values.len() > NAMED => format!("{first} … {last} ({} values)", values.len()),
        _ => values.join(", "),
    }
}
