//! A checkpoint of weights alone: the command line says what network they belong to.

use crate::Args;
use crate::classes::classes;
use crate::preprocess::ForChannels;
use crate::source::Source;
use crate::unwrap;
use anyhow::ensure;
use std::collections::{BTreeMap, BTreeSet};
use zipit::graph::{Arch, ArchSpec};
use zipit::{Model, Task};
use zipit_stage::Usage;

/// The network of architecture `arch` whose tensors `source` holds.
pub fn model(args: &Args, arch: Arch, source: &Source) -> anyhow::Result<Model> {
    if args.classes.is_empty() && args.classes_file.is_none() {
        return Err(Usage("which classes? give --classes or --classes-file".to_owned()).into());
    }
    let preprocess = args.preprocess.resolve(arch)?;
    let shapes = source.shapes();
    // Names do not depend on width, channels or classes.
    let names = ArchSpec::new(arch, 1.0, 3, preprocess.size, 10).build()?;
    let expected: BTreeSet<String> = names.params().into_keys().collect();
    let prefix = unwrap::find_prefix(&shapes.keys().copied().collect(), &expected, args.key.as_deref())?;
    if !prefix.is_empty() {
        tracing::info!("took the tensors under `{}`", prefix.trim_end_matches('.'));
    }
    let (inside, outside): (Vec<_>, Vec<_>) = shapes.into_iter().partition(|(name, _)| name.starts_with(&prefix));
    if !outside.is_empty() {
        tracing::info!("left {} other tensors in the checkpoint alone ({} …)", outside.len(), outside[0].0);
    }
    leave_out(&source.others(), |name| name.strip_prefix(&prefix).is_some_and(|name| expected.contains(name)))?;
    let tensors: BTreeMap<&str, Vec<usize>> =
        inside.into_iter().map(|(name, shape)| (&name[prefix.len()..], shape)).collect();
    let spec = ArchSpec::infer(arch, preprocess.size, &tensors)?;
    let graph = spec.build()?;
    graph.check_tensor_shapes(&tensors)?;
    let preprocess = preprocess.for_channels(graph.input.shape[0])?;
    let classes = classes(args)?;
    let n_logits = spec.n_classes;
    ensure!(
        classes.len() == n_logits,
        "the network has {n_logits} logits but --classes names {}: give one name per logit, in order",
        classes.len()
    );
    let weights = tensors
        .keys()
        .map(|name| Ok(((*name).to_owned(), source.read(&format!("{prefix}{name}"))?)))
        .collect::<anyhow::Result<_>>()?;
    let stem = args.checkpoint.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let name = match &args.task[..] {
        [] => stem,
        [name] => name.clone(),
        several => {
            return Err(Usage(format!("{arch} has one task, but --task names {}", several.len())).into());
        }
    };
    let model = Model { graph, weights, tasks: vec![Task { name, classes }], preprocess, joint: None };
    model.validate()?;
    Ok(model)
}

/// Says which tensors are left out because they hold no floating-point numbers; none may be the network's.
pub fn leave_out(others: &BTreeMap<&str, String>, is_of_network: impl Fn(&str) -> bool) -> anyhow::Result<()> {
    let wrong: Vec<String> =
        others.iter().filter(|(n, _)| is_of_network(n)).map(|(n, what)| format!("`{n}` ({what})")).collect();
    ensure!(
        wrong.is_empty(),
        "the network's {} hold no floating-point numbers: save them as float32, float16, bfloat16 or float64",
        wrong.join(", ")
    );
    if let Some(name) = others.keys().next() {
        tracing::info!("left {} tensors that only count or index out ({name} …)", others.len());
    }
    Ok(())
}
