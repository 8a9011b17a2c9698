//! A checkpoint of weights alone: the command line says what network they belong to.

use crate::Args;
use crate::classes::classes;
use crate::preprocess::ForChannels;
use crate::source::Source;
use crate::unwrap;
use anyhow::{bail, ensure};
use std::collections::{BTreeMap, BTreeSet};
use zipit::graph::{Arch, ArchSpec, Param};
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
    refuse_float8(&source.others(), &expected)?;
    let prefix = unwrap::find_prefix(&shapes.keys().copied().collect(), &expected, args.key.as_deref())?;
    if !prefix.is_empty() {
        tracing::info!("took the tensors under `{}`", prefix.trim_end_matches('.'));
    }
    let (inside, outside): (Vec<_>, Vec<_>) = shapes.into_iter().partition(|(name, _)| name.starts_with(&prefix));
    leave_out(&source.others(), |name| name.strip_prefix(&prefix).is_some_and(|name| expected.contains(name)))?;
    let mut tensors: BTreeMap<&str, Vec<usize>> =
        inside.into_iter().map(|(name, shape)| (&name[prefix.len()..], shape)).collect();
    let spec = ArchSpec::infer(arch, preprocess.size, &tensors)?;
    let graph = spec.build()?;
    let known = graph.params();
    let beside = others_beside(&tensors, &known);
    let mut left: Vec<String> = outside.iter().map(|(name, _)| (*name).to_owned()).collect();
    if known.keys().all(|name| tensors.contains_key(name.as_str())) {
        left.extend(beside.iter().map(|name| format!("{prefix}{name}")));
        tensors.retain(|name, _| !beside.contains(*name));
    }
    if !left.is_empty() {
        let n = left.len();
        tracing::info!(
            "left {n} other tensor{} in the checkpoint alone ({})",
            if n > 1 { "s" } else { "" },
            some(&left)
        );
    }
    if let Err(error) = graph.check_tensor_shapes(&tensors) {
        let missing: Vec<&String> = known.keys().filter(|name| !tensors.contains_key(name.as_str())).collect();
        let shortcuts = known.keys().filter(|name| name.contains(".shortcut."));
        return if missing.is_empty() || !missing.iter().copied().eq(shortcuts) {
            Err(error.into())
        } else {
            Err(anyhow::Error::from(error).context(OPTION_A))
        };
    }
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

/// What to say of a network that has all but the shortcuts' tensors.
const OPTION_A: &str = "only the shortcuts' weights are missing: this network's shortcuts have none (every second position, padded with \
     channels of zeros), as most ResNets for CIFAR have; here they are convolutions. In your module, write them as Conv2d(i, \
     o, 1, stride=2, bias=False) with a fixed kernel, 1 where channel and padded channel are the same and 0 elsewhere, which \
     computes the same; load the checkpoint with strict=False, and export that (scripts/zipit_torch.py export)";

/// The tensors that the network can do without: not its own, and no weights of a part of it, with which it would be
/// another network.
fn others_beside(tensors: &BTreeMap<&str, Vec<usize>>, known: &BTreeMap<String, Param>) -> BTreeSet<String> {
    let part = |name: &str| name.split('.').next().unwrap_or_default().to_owned();
    let leaf = |name: &str| name.rsplit('.').next().unwrap_or_default().to_owned();
    let parts: BTreeSet<String> = known.keys().map(|name| part(name)).collect();
    let leaves: BTreeSet<String> = known.keys().map(|name| leaf(name)).chain(["bias".to_owned()]).collect();
    let is_weight = |name: &str| parts.contains(&part(name)) && leaves.contains(&leaf(name));
    let others = tensors.keys().filter(|name| !known.contains_key(**name) && !is_weight(name));
    others.map(|name| (*name).to_owned()).collect()
}

/// Some of many names.
fn some(names: &[String]) -> String {
    const LISTED: usize = 5;
    let more = if names.len() > LISTED { ", …" } else { "" };
    format!("{}{more}", names[..names.len().min(LISTED)].join(", "))
}

/// Float8 numbers mean nothing without their scale.
fn refuse_float8(others: &BTreeMap<&str, String>, expected: &BTreeSet<String>) -> anyhow::Result<()> {
    let is_expected = |name: &str| {
        let mut ends = std::iter::once(0).chain(name.match_indices('.').map(|(dot, _)| dot + 1));
        ends.any(|at| expected.contains(&name[at..]))
    };
    match others.iter().find(|(name, what)| what.starts_with("F8") && is_expected(name)) {
        Some((name, what)) => bail!(
            "`{name}` is {what}, float8, whose scale is not in it: save the weights in float16, bfloat16 or float32"
        ),
        None => Ok(()),
    }
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
