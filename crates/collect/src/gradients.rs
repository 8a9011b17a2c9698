//! Gradients of the networks' own log-probabilities: Fisher information by parameter, second moments at layers.

use crate::Args;
use anyhow::ensure;
use std::ops::Range;
use zipit::watch::Watch;
use zipit::{Collected, Fisher, Model};
use zipit_artifact::stats::{GramKind, Predicted, StatsHeader};
use zipit_stage::images::Batches;
use zipit_torch::curvature::{self, Differentiable};

/// Which gradients are asked for.
pub fn predicted(args: &Args) -> Option<Predicted> {
    match args.fisher {
        Some(Predictions::Labels) => Some(Predicted::Labels),
        Some(Predictions::Own) => Some(Predicted::Expected),
        None => args.gradients.then_some(Predicted::Expected),
    }
}

/// `--fisher`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Predictions {
    /// All classes of the network, by its own probabilities
    Own,
    /// The label's (the empirical Fisher information; uses labels)
    Labels,
}

/// Whether so many networks can be measured: of one there is nothing to match.
pub fn check_number(args: &Args) -> anyhow::Result<()> {
    let alone = args.gram.is_some_and(|gram| gram.kind() == GramKind::Own) || args.fisher.is_some();
    ensure!(
        args.models.len() > 1 || alone,
        "one network has nothing to be matched with: give two or more, or measure it for `combine` (--gram own, --fisher)"
    );
    Ok(())
}

/// Gives the totals room for what `header` says is measured.
pub fn make_room(header: &StatsHeader, totals: &mut Collected) {
    let n = header.n_models();
    if header.fisher {
        let tensors = header.fisher_tensors();
        let none = || Fisher::zeros(tensors.iter().map(|(name, size)| (name.as_str(), *size)));
        totals.fisher = (0..n).map(|_| none()).collect();
    }
    if header.gradients {
        let layers = header.gradient_layers().into_iter();
        totals.gradients = layers.map(|(name, o)| (name, GramKind::Own.zeros(n, o))).collect();
    }
}

/// The networks as gradients are taken of them; none where none are.
pub fn networks(header: &StatsHeader, models: &[&Model], args: &Args) -> anyhow::Result<Vec<Differentiable>> {
    if header.predicted.is_none() {
        return Ok(vec![]);
    }
    let names = |of: Vec<(String, usize)>| of.into_iter().map(|(name, _)| name).collect::<Vec<_>>();
    let learned = if header.fisher { names(header.fisher_tensors()) } else { vec![] };
    let layers = if header.gradients { names(header.gradient_layers()) } else { vec![] };
    let network = |model: &&Model| {
        let network = Differentiable::new(model, &learned, &layers, args.device)?;
        Ok(if args.exact { network.exact() } else { network })
    };
    models.iter().map(network).collect()
}

/// Adds what is asked for of the batches in `range` and says how many of them were done.
pub fn measure(
    networks: &[Differentiable],
    header: &StatsHeader,
    totals: &mut Collected,
    batches: &Batches<'_>,
    range: Range<usize>,
    watch: &dyn Watch,
) -> anyhow::Result<usize> {
    let labels = |batch: usize| batches.class_names(batch).map(str::to_owned).collect();
    let labels: Option<&curvature::Labels<'_>> =
        if header.predicted == Some(Predicted::Labels) { Some(&labels) } else { None };
    let sums = (totals.fisher.as_mut_slice(), &mut totals.gradients);
    Ok(curvature::measure(networks, sums, labels, batches, range, watch)?)
}

/// Hears of work, and stops none.
pub struct ToTheEnd<'a>(pub &'a dyn Watch);

impl Watch for ToTheEnd<'_> {
    fn advance(&self, n: u64) {
        self.0.advance(n);
    }

    fn interrupted(&self) -> bool {
        false
    }
}

/// Asks whether to stop, and tells nothing: of images that are seen twice.
pub struct Silent<'a>(pub &'a dyn Watch);

impl Watch for Silent<'_> {
    fn advance(&self, _: u64) {}

    fn interrupted(&self) -> bool {
        self.0.interrupted()
    }
}
