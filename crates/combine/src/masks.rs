//! `--rule emr`: fine-tunes that stay apart, but for one vector of all.

use crate::Args;
use crate::flags::RescalersName;
use crate::networks::Networks;
use std::collections::BTreeMap;
use zipit::graph::Param;
use zipit::task_vector::emr::{Rescaling, mask, rescalers, unified};
use zipit::task_vector::{Joined, Made, Network, Source, Tensor};
use zipit::watch::Watch;
use zipit_artifact::header::Provenance;
use zipit_artifact::masked::{self, MaskedWriter, Part};
use zipit_stage::Stage;

/// Numbers that are copied at a time.
const COPIED: usize = 1 << 18;

pub fn write(
    args: &Args,
    stage: &Stage,
    networks: &Networks,
    joined: &Joined,
    provenance: &Provenance,
) -> anyhow::Result<()> {
    let outline = networks.apart(joined);
    let n = outline.networks.len();
    let by_rule = joined.parts.iter().filter(|part| part.made == Made::ByRule).map(|part| &part.tensor);
    let shared: BTreeMap<&str, &Tensor> = by_rule.map(|tensor| (tensor.name.as_str(), tensor)).collect();
    let n_shared: usize = shared.values().map(|tensor| tensor.n_numbers()).sum();
    let (one, cost) = (networks.cost()?, outline.cost()?);
    let summary = format!(
        "{n} network{} by emr → the same by masks, the task known: {:.2}× the FLOPs and {:.2}× the parameters of one, and {n} × \
         {n_shared} bits",
        if n == 1 { "" } else { "s" },
        cost.macs as f64 / one.macs as f64,
        cost.params as f64 / one.params as f64,
    );
    if args.common.dry_run {
        return stage.print(&format!("{summary}; would write {}\n", args.out.display()));
    }
    let rescaling = match args.rule.rescalers {
        RescalersName::Entries => Rescaling::Entries,
        RescalersName::Tensors => Rescaling::Tensors,
    };
    let params: Vec<BTreeMap<String, Param>> = outline.networks.iter().map(|of| of.graph.params()).collect();
    let own = params.iter().flatten().filter(|(name, _)| !shared.contains_key(name.as_str()));
    let n_own: usize = own.map(|(_, param)| param.shape.iter().product::<usize>()).sum();
    // All shared ones for the rescalers, then whatever is written.
    let progress = stage.progress("combine", "numbers", ((3 + n) * n_shared + n_own) as u64);
    let tensors: Vec<&Tensor> = shared.values().copied().collect();
    let factors = rescalers(rescaling, &tensors, n, networks, &progress)?;
    let mut last: Option<(&Tensor, Vec<f32>)> = None;
    let mut fill = |part: &Part, writer: &mut MaskedWriter<'_, '_>| -> anyhow::Result<()> {
        if progress.interrupted() {
            return Err(zipit::Error::Interrupted.into());
        }
        let (name, t) = match part {
            Part::Rescalers => return Ok(writer.rescalers(&factors)?),
            Part::Base(name) => return copy((Network::Base, shared[name.as_str()]), networks, &progress, writer),
            Part::Own(t, name) => {
                let shape = params[*t][name].shape.clone();
                let tensor = Tensor { name: name.clone(), shape };
                return copy((Network::Tuned(*t), &tensor), networks, &progress, writer);
            }
            Part::Unified(name) => (name, None),
            Part::Mask(t, name) => (name, Some(*t)),
        };
        let tensor = shared[name.as_str()];
        // All masks of a tensor follow each other, and the vector them.
        let vector = match last.take().filter(|(of, _)| *of == tensor) {
            Some((_, vector)) => vector,
            None => unified(tensor, n, networks)?,
        };
        match t {
            Some(t) => writer.bits(&mask(tensor, t, &vector, networks)?)?,
            None => writer.numbers(&vector)?,
        }
        progress.advance(tensor.n_numbers() as u64);
        last = Some((tensor, vector));
        Ok(())
    };
    let precision = args.precision.given(networks.precision());
    masked::write_streamed(&args.out, &outline, precision, provenance, &mut fill)?;
    drop(progress);
    stage.record(&args.out);
    stage.print(&format!("{}: {summary}\n", args.out.display()))
}

/// A tensor as it is in one network.
fn copy(
    (of, tensor): (Network, &Tensor),
    networks: &Networks,
    watch: &dyn Watch,
    writer: &mut MaskedWriter<'_, '_>,
) -> anyhow::Result<()> {
    let n = tensor.n_numbers();
    let mut numbers = vec![0.0; COPIED.min(n)];
    for start in (0..n).step_by(COPIED) {
        let numbers = &mut numbers[..COPIED.min(n - start)];
        networks.read(of, &tensor.name, start, numbers)?;
        writer.numbers(numbers)?;
        watch.advance(numbers.len() as u64);
    }
    Ok(())
}
