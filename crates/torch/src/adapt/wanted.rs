//! What an adaptation is about: a network, and whose answers each of its outputs is to give.

use super::objective::Aim;
use super::settings::{AdaptSettings, Believed, Objective};
use crate::{Error, Result};
use std::collections::BTreeMap;
use zipit::Model;

/// What an adaptation is about.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// The network; BatchNorm that is not folded is in inference mode, but for sums of task vectors.
    pub network: &'a Model,
    /// What it is to do.
    pub sources: &'a [&'a Model],
    /// For every source, which output of the network each of its outputs says something about.
    pub outputs: &'a [Vec<usize>],
    /// Of which output's task each image is, for [`Objective::Entropy`].
    pub owners: Option<&'a [usize]>,
    /// Which images are to judge, if no copy of them is learned from; `None`: one of so many.
    pub judges: Option<&'a [bool]>,
}

/// What is asked of which output.
pub(super) fn aims(model: &Model, wanted: Wanted<'_>, settings: &AdaptSettings) -> Result<Vec<Aim>> {
    let shapes = model.graph.output_shapes()?;
    if settings.objective == Objective::Entropy {
        let classifies = model.classifies();
        let several = |&output: &usize| classifies.get(output) == Some(&true) && shapes[output][0] > 1;
        let aims: Vec<Aim> =
            (0..shapes.len()).filter(several).map(|output| Aim { output, sources: vec![], weight: 1.0 }).collect();
        if aims.is_empty() {
            return Err(Error::Request("no output tells several classes apart: there is no entropy to lower".into()));
        }
        return Ok(aims);
    }
    let mut found: BTreeMap<usize, Vec<(usize, usize)>> = BTreeMap::new();
    for (source, (model, outputs)) in wanted.sources.iter().zip(wanted.outputs).enumerate() {
        let said = model.graph.output_shapes()?;
        for (at, &output) in outputs.iter().enumerate() {
            let (is, needs) = (said.get(at), shapes.get(output));
            if is.is_none() || is != needs {
                return Err(Error::Request(format!(
                    "output {at} of source {source} is {is:?}, but the network's output {output} is {needs:?}"
                )));
            }
            found.entry(output).or_default().push((source, at));
        }
    }
    if found.is_empty() {
        return Err(Error::Request("no source says anything about an output of the network".into()));
    }
    for (&output, sources) in &found {
        let task = model.tasks.get(output);
        let name = task.map_or("", |task| task.name.as_str());
        if matches!(settings.objective, Objective::CrossEntropy { .. })
            && task.is_none_or(|task| task.classes.is_empty())
        {
            return Err(Error::Request(format!(
                "the output of task `{name}` names no classes, so it has no cross-entropy: take --objective distill"
            )));
        }
        if settings.believed == Believed::Surest && sources.len() > 1 && shapes[output].len() > 1 {
            return Err(Error::Request(format!(
                "several networks speak of task `{name}`, whose output is {:?}: which of them is surest can be told of \
                 vectors of logits alone; take --trust all",
                shapes[output]
            )));
        }
    }
    Ok(found.into_iter().map(|(output, sources)| Aim { output, sources, weight: 1.0 }).collect())
}
