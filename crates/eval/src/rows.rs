//! What a network is, read off the provenance in its file.

use zipit::report::{RowKind, StageImages, Used};
use zipit_artifact::header::{InputRef, Kind, Provenance};

/// Merged, if `apply`, `refit` or `combine` made it, or what it was made of since it was trained; an ensemble, if `gate` put
/// several networks side by side.
pub fn kind(provenance: &Provenance) -> RowKind {
    let is_model = |input: &&InputRef| input.kind == Kind::Model.code();
    if provenance.last_run_of("gate").is_some_and(|gate| gate.inputs.iter().filter(is_model).count() > 1) {
        return RowKind::Ensemble;
    }
    if is_merged(provenance) { RowKind::Merged } else { RowKind::Single }
}

fn is_merged(provenance: &Provenance) -> bool {
    match provenance.tool.split(' ').nth(1) {
        Some("apply" | "refit" | "combine") => true,
        // A fine-tune of a merged network is a network by itself.
        Some("train") => false,
        _ => provenance.inputs.iter().filter_map(|input| input.provenance.as_deref()).any(is_merged),
    }
}

/// How it was made, in the words of the command line: collected images, matching, heads, recalibration.
pub fn method(provenance: &Provenance) -> String {
    ["collect", "match", "apply", "combine", "refit", "recalibrate", "adapt", "gate"]
        .into_iter()
        .filter_map(|stage| {
            let found = provenance.last_run_of(stage)?;
            let args: Vec<&str> = found.args.iter().map(String::as_str).filter(|a| !is_file(a)).collect();
            Some([stage].into_iter().chain(args).collect::<Vec<_>>().join(" "))
        })
        .collect::<Vec<_>>()
        .join("; ")
}

/// What making networks used, by the stages in the chains that made them. None of these stages takes labels but `collect`, where
/// they are asked for; `adapt` takes gradients by the weights of what it makes, and for an entropy it asks of which task an
/// image is.
pub fn used<'a>(chains: impl Iterator<Item = &'a Provenance>) -> Used {
    let mut used = Used::default();
    for provenance in chains {
        used.source_gradients |= matches_by_importance(provenance);
        let (by_gradients, weighed) = weighed_by(provenance);
        used.source_gradients |= by_gradients;
        used.labels |= weighed.iter().any(|collect| by_gradients && collect.says("--fisher") == Some("labels"));
        let n_weighed: u64 = weighed.iter().filter_map(|collect| n_images(collect)).sum();
        if n_weighed > 0 && used.images.iter().all(|other| other.stage != "collect") {
            used.images.push(StageImages { stage: "collect".to_owned(), n: n_weighed });
        }
        for stage in ["collect", "recalibrate", "refit", "adapt", "gate"] {
            let Some(found) = provenance.last_run_of(stage) else { continue };
            used.gradients |= stage == "adapt";
            let asks = stage == "adapt" && found.says("--objective").is_some_and(|given| given == "entropy");
            used.task_identity |= stage == "gate" || asks;
            if let Some(n) = n_images(found).filter(|_| used.images.iter().all(|other| other.stage != stage)) {
                used.images.push(StageImages { stage: stage.to_owned(), n });
            }
        }
    }
    used
}

fn n_images(run: &Provenance) -> Option<u64> {
    run.environment.get("images").and_then(|n| n.parse().ok())
}

/// The collections that a rule of `combine` weighed by, one for all networks or one for each, and whether it took gradients.
fn weighed_by(provenance: &Provenance) -> (bool, Vec<&Provenance>) {
    let Some(combined) = provenance.last_run_of("combine") else { return (false, vec![]) };
    let stats = combined.inputs.iter().filter(|input| input.kind == Kind::Stats.code());
    let by_gradients = matches!(combined.says("--rule"), Some("fisher" | "mats"));
    (by_gradients, stats.filter_map(|input| input.provenance.as_deref()).collect())
}

/// Whether features were matched by what they do to the logits.
fn matches_by_importance(provenance: &Provenance) -> bool {
    let measured = |found: &Provenance| found.args.iter().any(|arg| arg == "--importance");
    let matched = |found: &Provenance| {
        let one_of = |flag, words: &[&str]| found.says(flag).is_none_or(|given| words.contains(&given));
        one_of("--method", &["ward", "average", "select"]) && one_of("--similarity", &["importance"])
    };
    provenance.last_run_of("collect").is_some_and(measured) && provenance.last_run_of("match").is_some_and(matched)
}

fn is_file(arg: &str) -> bool {
    [".safetensors", ".h5", ".bin"].iter().any(|ending| arg.ends_with(ending))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn made_by(stage: &str, args: &[&str], from: Vec<Provenance>) -> Provenance {
        let inputs = from.into_iter().map(|p| InputRef::new(Path::new("x"), Kind::Model, "", Some(p))).collect();
        let args = args.iter().map(|&a| a.to_owned()).collect();
        Provenance { tool: format!("zipit {stage} 0.1.0"), args, inputs, ..Provenance::default() }
    }

    #[test]
    fn the_chain_tells_what_a_network_is() {
        let single = made_by("train", &["--seed", "1"], vec![]);
        let stats = made_by("collect", &["a.safetensors", "--images", "100"], vec![single.clone()]);
        let plan = made_by("match", &["stats.h5", "--method", "permute"], vec![stats]);
        let merged = made_by("apply", &["plan.bin"], vec![plan, single.clone()]);
        let side_by_side = made_by("gate", &["a.safetensors", "--images", "9"], vec![single.clone(), single.clone()]);
        assert_eq!(kind(&side_by_side), RowKind::Ensemble);
        assert_eq!(kind(&made_by("gate", &[], vec![merged.clone()])), RowKind::Merged);
        assert_eq!(kind(&single), RowKind::Single);
        assert_eq!(kind(&merged), RowKind::Merged);
        let combined = made_by("combine", &["--rule", "ties"], vec![single.clone(), single.clone()]);
        assert_eq!(kind(&made_by("recalibrate", &[], vec![combined.clone()])), RowKind::Merged);
        assert_eq!(method(&combined), "combine --rule ties");
        assert_eq!(kind(&made_by("train", &["--from", "m.safetensors"], vec![combined])), RowKind::Single);
        assert_eq!(method(&single), "");
        assert_eq!(method(&merged), "collect --images 100; match --method permute; apply");
        for (collect, matched, used) in [
            (&["--importance"][..], &[][..], true),
            (&["--importance"], &["--method", "ward", "--similarity", "importance"], true),
            (&["--importance"], &["--similarity", "correlation"], false),
            (&["--importance"], &["--method", "select"], true),
            (&["--importance"], &["--method", "zip"], false),
            (&["--importance"], &["--method=zip"], false),
            (&[], &[], false),
        ] {
            let plan = made_by("match", matched, vec![made_by("collect", collect, vec![])]);
            assert_eq!(matches_by_importance(&made_by("refit", &[], vec![plan])), used, "{collect:?} {matched:?}");
        }
        let stats = made_by("collect", &["--fisher", "labels"], vec![]);
        let stats = InputRef::new(Path::new("x.h5"), Kind::Stats, "", Some(stats));
        for (rule, wanted) in [("fisher", true), ("mats", true), ("regmean", false)] {
            let mut combined = made_by("combine", &["--rule", rule], vec![single.clone()]);
            combined.inputs.extend([stats.clone(), stats.clone()]);
            let (by_gradients, weighed) = weighed_by(&combined);
            assert_eq!((by_gradients, weighed.len()), (wanted, 2), "{rule}");
        }
    }
}
