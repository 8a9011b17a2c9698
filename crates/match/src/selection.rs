//! Which merge points there are, and what is told of the choice.

use zipit::graph::{Graph, MergePoint};
use zipit::merge_set::{Chosen, MidStream, Selection};

/// The points that are merged, in the order of the forward pass.
///
/// # Errors
/// See [`Selection::resolve`].
pub fn points(selection: &Selection, graph: &Graph, n_models: usize) -> zipit::Result<Vec<MergePoint>> {
    let Chosen { points, apart } = selection.resolve(graph, n_models)?;
    if !apart.is_empty() {
        let names: Vec<&str> = apart.iter().map(|point| point.name.as_str()).collect();
        tracing::info!(
            "{} merge points stay each model's own: beside nodes that are carried, merging them would cost more FLOPs than \
             it saves, and no budget changes that (--merge-only merges them all the same): {}",
            names.len(),
            names.join(", ")
        );
    }
    for MidStream { bound, layers: [first, last], ends_at } in selection.mid_stream(graph)? {
        tracing::warn!(
            "`{bound}` is in the middle of a residual stream, which is merged from end to end or not at all: from layer \
             {first} to `{ends_at}` ({last}/{} layers)",
            graph.n_layers()
        );
    }
    Ok(points)
}
