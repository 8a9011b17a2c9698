//! Where learning begins, and what may change.

use crate::Args;
use crate::flags::{CoefficientArgs, LearnName, ObjectiveName, PerName, TrustName};
use anyhow::{Context, bail, ensure};
use std::collections::BTreeSet;
use zipit::fold::fold_batch_norm;
use zipit::graph::Op;
use zipit::task_vector::{rooted, task_vectors, trim_and_elect};
use zipit::{Model, StateDict};
use zipit_artifact::header::InputRef;
use zipit_artifact::model::ModelFile;
use zipit_stage::Usage;
use zipit_stage::merging::read_models;
use zipit_torch::adapt::{AdaptSettings, Believed, Coefficients, Learn, Objective};
use zipit_torch::initialise::initialise;
use zipit_torch::train::Autocast;

/// Of preprocessing.
const ALIKE: &str = "networks that share features must agree on size, mean and standard deviation";
/// Where coefficients begin, if nobody says where (`AdaMerging`).
const INITIAL: f64 = 0.3;

/// What is read.
pub struct Start {
    /// The network as it is given, BatchNorm folded where that is possible.
    pub network: Model,
    /// The file that it is from.
    pub file: ModelFile,
    pub sources: Vec<ModelFile>,
    pub learn: Learn,
    pub inputs: Vec<InputRef>,
}

/// Flags that make no sense together.
pub fn check(args: &Args) -> anyhow::Result<()> {
    let usage = |text: &str| Err(Usage(text.to_owned()).into());
    let positive = |what: &str, value: Option<f64>| -> anyhow::Result<()> {
        let fine = value.is_none_or(|value| value > 0.0 && value.is_finite());
        ensure!(fine, "{what} is {}: it must be positive", value.unwrap_or_default());
        Ok(())
    };
    positive("--epochs", args.epochs)?;
    positive("--minutes", args.minutes)?;
    positive("--lr", Some(args.lr))?;
    positive("--temperature", Some(args.temperature))?;
    ensure!(args.max_memory >= 0.0, "--max-memory is {}: it cannot be negative", args.max_memory);
    let share = args.coefficients.ties.is_none_or(|share| share > 0.0 && share <= 1.0);
    ensure!(share, "--ties is {}: a share lies above 0 and is at most 1", args.coefficients.ties.unwrap_or_default());
    let coefficients = args.learn == LearnName::Coefficients;
    if coefficients && args.coefficients.base.is_none() {
        return usage("--learn coefficients needs --base: what the networks are fine-tunes of");
    }
    if args.augmentation.views.is_some() && !args.augmentation.changes() {
        return usage("--views says how often images are mirrored or shifted: it goes with --flip or --shift");
    }
    let CoefficientArgs { base, per, ties, initial, clamp } = &args.coefficients;
    let given = base.is_some() || ties.is_some() || initial.is_some() || *clamp || *per != PerName::Task;
    if !coefficients && given {
        return usage("--base, --per, --ties, --initial and --clamp belong to --learn coefficients");
    }
    ensure!(initial.is_none_or(f64::is_finite), "--initial is {}: it must be a number", initial.unwrap_or_default());
    if args.root.is_some() && args.to.len() > 1 {
        return usage("--root is adapted to one network at a time: give a single one after --to");
    }
    if args.root.is_some() && coefficients {
        return usage("--root learns weights: task vectors are what comes of it");
    }
    if args.from_scratch && coefficients {
        return usage("--from-scratch has no base: leave --learn coefficients out");
    }
    Ok(())
}

/// Reads the networks.
pub fn start(args: &Args) -> anyhow::Result<Start> {
    let sources = read_models(&args.to)?;
    let path = args.root.as_ref().or(args.network.as_ref()).context("which network?")?;
    let [file] = <[ModelFile; 1]>::try_from(read_models(std::slice::from_ref(path))?)
        .map_err(|_| anyhow::anyhow!("one network was asked for"))?;
    let mut inputs = vec![file.input_ref()];
    inputs.extend(sources.iter().map(ModelFile::input_ref));
    let mut network = file.model.clone();
    if args.root.is_some() {
        if file.model.preprocess != sources[0].model.preprocess {
            bail!("{} and {} expect their images in different ways: {ALIKE}", path.display(), args.to[0].display());
        }
        network = sources[0].model.clone();
        network.weights = rooted(&network, &file.model).with_context(|| format!("{}", path.display()))?;
    }
    network.joint = None;
    let learn = match args.learn {
        LearnName::Weights => Learn::Weights,
        LearnName::Norms => Learn::Norms,
        LearnName::Heads => Learn::Heads,
        LearnName::Coefficients => {
            let base = read_models(args.coefficients.base.as_slice())?.pop().context("--base")?;
            inputs.push(base.input_ref());
            Learn::Coefficients(coefficients(args, &network, &base.model, &sources)?)
        }
    };
    if !matches!(learn, Learn::Coefficients(_)) && args.root.is_none() {
        (network.graph, network.weights) = fold_batch_norm(&network.graph, &network.weights, &BTreeSet::new())?;
    }
    if args.from_scratch {
        from_scratch(&mut network, args.images.seed)?;
    }
    Ok(Start { network, file, sources, learn, inputs })
}

/// Draws what is learned anew; constants stay.
fn from_scratch(network: &mut Model, seed: u64) -> anyhow::Result<()> {
    let call =
        network.graph.nodes.iter().find(|node| matches!(node.op, Op::Call { .. }) && !node.op.params().is_empty());
    if let Some(call) = call {
        bail!("--from-scratch does not know how `{}` begins: it is a function that is run and not followed", call.name);
    }
    let graph = &network.graph;
    let stored = (0..graph.nodes.len()).filter(|&i| matches!(graph.nodes[i].op, Op::Stored { .. }));
    let constants = graph.tensors_of(stored);
    let drawn = initialise(&network.graph, seed)?;
    network.weights.extend(drawn.into_iter().filter(|(name, _)| !constants.contains(name)));
    Ok(())
}

fn coefficients(args: &Args, network: &Model, base: &Model, sources: &[ModelFile]) -> anyhow::Result<Coefficients> {
    let tuned: Vec<&Model> = sources.iter().map(|file| &file.model).collect();
    let mut vectors = task_vectors(network, base, &tuned)?;
    if let Some(keep) = args.coefficients.ties {
        trim_and_elect(&mut vectors, keep);
    }
    let base = base.weights.iter().filter(|(name, _)| vectors[0].contains_key(*name));
    let base: StateDict = base.map(|(name, tensor)| (name.clone(), tensor.clone())).collect();
    tracing::info!("{} tensors are sums of {} task vectors", base.len(), vectors.len());
    Ok(Coefficients {
        base,
        vectors,
        per_tensor: args.coefficients.per == PerName::Tensor,
        initial: args.coefficients.initial.unwrap_or(INITIAL),
        clamp: args.coefficients.clamp,
    })
}

/// Everything else that decides the result.
pub fn settings(args: &Args, learn: Learn) -> AdaptSettings {
    AdaptSettings {
        objective: match args.objective {
            ObjectiveName::Distill => Objective::Distill,
            ObjectiveName::CrossEntropy => Objective::CrossEntropy { temperature: args.temperature },
            ObjectiveName::Entropy => Objective::Entropy,
        },
        learn,
        whitened: !args.plain,
        believed: match args.trust {
            TrustName::All => Believed::All,
            TrustName::Surest => Believed::Surest,
        },
        batch_size: args.images.batch_size.map_or(AdaptSettings::default().batch_size, |n| n as usize),
        lr: args.lr,
        flip: args.augmentation.flip,
        shift: args.augmentation.shift,
        views: args.augmentation.views.unwrap_or(AdaptSettings::default().views),
        autocast: if args.bf16 { Autocast::Bf16 } else { Autocast::Off },
        seed: args.images.seed,
    }
}
