//! A network that was exported with its graph: the file says everything, the command line may rename.

use crate::Args;
use crate::checkpoint::leave_out;
use crate::classes::classes;
use crate::source::is_counter;
use anyhow::ensure;
use zipit::{Model, Task};
use zipit_artifact::exported::Exported;
use zipit_artifact::model::Foreign;

/// The network that `exported` describes and whose tensors `file` holds.
pub fn model(args: &Args, exported: Exported, file: Foreign) -> anyhow::Result<Model> {
    let Exported { graph, mut tasks, preprocess, .. } = exported;
    rename(&mut tasks, &args.task, &classes(args)?)?;
    let params = graph.params();
    let others = file.dropped.iter().map(|(name, what)| (name.as_str(), what.clone())).collect();
    leave_out(&others, |name| params.contains_key(name))?;
    let weights = file.weights.into_iter().filter(|(name, _)| params.contains_key(name) || !is_counter(name)).collect();
    let model = Model { graph, weights, tasks, preprocess, joint: None };
    model.validate()?;
    if let Err(reason) = model.graph.spaces() {
        tracing::warn!("this network can be run, but not merged: {reason}");
    }
    Ok(model)
}

/// Stands for no classes at all.
const NONE: &str = "-";

/// New names for all tasks, or for all classes of all tasks in the order of the outputs.
fn rename(tasks: &mut [Task], names: &[String], classes: &[String]) -> anyhow::Result<()> {
    if !names.is_empty() {
        ensure!(
            names.len() == tasks.len(),
            "the network has {} task(s) but --task names {}: give it once per task, in order",
            tasks.len(),
            names.len()
        );
        tasks.iter_mut().zip(names).for_each(|(task, name)| task.name.clone_from(name));
    }
    if classes == [NONE] {
        for task in tasks {
            task.classes.clear();
        }
    } else if !classes.is_empty() {
        let n_logits: usize = tasks.iter().map(|task| task.classes.len()).sum();
        ensure!(
            classes.len() == n_logits,
            "the network has {n_logits} classes but --classes names {}: give one name for each, in order",
            classes.len()
        );
        let mut rest = classes.iter();
        for task in tasks {
            let n = task.classes.len();
            task.classes = rest.by_ref().take(n).cloned().collect();
        }
    }
    Ok(())
}
