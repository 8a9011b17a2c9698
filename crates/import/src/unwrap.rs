//! Finding a network's tensors inside a checkpoint: nested keys (`state_dict`, `model`, …) and common prefixes
//! (`module.`) are taken off.

use anyhow::{bail, ensure};
use std::collections::{BTreeMap, BTreeSet};

/// Names people give to the weights among other things in a checkpoint, the likeliest first.
const USUAL: [&str; 8] =
    ["", "state_dict.", "model_state_dict.", "model.", "module.", "net.", "network.", "state_dict.module."];

/// The prefix under which most of `expected` is found in `names`; `wanted` (from `--key`) decides if given.
///
/// # Errors
/// When nothing of the network is there at all.
pub fn find_prefix(
    names: &BTreeSet<&str>,
    expected: &BTreeSet<String>,
    wanted: Option<&str>,
) -> anyhow::Result<String> {
    let mut hits: BTreeMap<&str, usize> = BTreeMap::new();
    for name in names {
        // Every way to split `a.b.weight` into a prefix and a state-dict name.
        for at in std::iter::once(0).chain(name.match_indices('.').map(|(dot, _)| dot + 1)) {
            if expected.contains(&name[at..]) {
                *hits.entry(&name[..at]).or_default() += 1;
            }
        }
    }
    if let Some(key) = wanted {
        let prefix = format!("{}.", key.trim_end_matches('.'));
        ensure!(
            hits.contains_key(prefix.as_str()),
            "no tensor of this network is under `{key}`; found some under: {}",
            list(&hits)
        );
        return Ok(prefix);
    }
    let rank = |prefix: &str| USUAL.iter().position(|usual| *usual == prefix).unwrap_or(USUAL.len());
    let best = hits.iter().max_by_key(|(prefix, n)| (**n, std::cmp::Reverse((rank(prefix), prefix.len()))));
    let Some((prefix, n)) = best else {
        ensure!(!names.is_empty(), "there are no floating-point tensors in this file");
        let some: Vec<_> = names.iter().take(5).copied().collect();
        bail!(
            "none of the network's tensors is in this file, whose {} tensors begin with {}: is --arch right?",
            names.len(),
            some.join(", ")
        );
    };
    let equal = |p: &&str| rank(p) == rank(prefix) && p.len() == prefix.len();
    let equals: Vec<&str> = hits.iter().filter(|(_, m)| *m == n).map(|(p, _)| *p).filter(equal).collect();
    if let [one, another, ..] = equals.as_slice() {
        let [one, another] = [one, another].map(|prefix| prefix.trim_end_matches('.'));
        bail!(
            "the file holds the network more than once, and nothing tells which is meant: --key {one} or --key {another}"
        );
    }
    let others: BTreeMap<_, _> = hits.iter().filter(|(p, m)| *p != prefix && *m == n).map(|(p, m)| (*p, *m)).collect();
    if !others.is_empty() {
        tracing::warn!("the file holds the network more than once; took `{prefix}`, not {} (see --key)", list(&others));
    }
    Ok((*prefix).to_owned())
}

/// The prefixes that hold a good part of a network; a block's `conv1` alone is none.
fn list(hits: &BTreeMap<&str, usize>) -> String {
    let most = hits.values().copied().max().unwrap_or(0);
    let named = |prefix: &str| if prefix.is_empty() { "the top level".to_owned() } else { format!("`{prefix}`") };
    let all: Vec<_> = hits.iter().filter(|(_, n)| 2 * **n >= most).map(|(prefix, _)| named(prefix)).collect();
    if all.is_empty() { "nowhere".to_owned() } else { all.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expected() -> BTreeSet<String> {
        ["conv1.weight", "fc.bias", "layer1.0.conv1.weight"].map(str::to_owned).into()
    }

    #[test]
    fn a_bare_state_dict_has_no_prefix() {
        let names = ["conv1.weight", "fc.bias", "layer1.0.conv1.weight"].into();
        assert_eq!(find_prefix(&names, &expected(), None).unwrap(), "");
    }

    #[test]
    fn nested_and_parallel_prefixes_come_off() {
        let names = ["state_dict.module.conv1.weight", "state_dict.module.fc.bias", "optimizer.state.0.conv1.weight"];
        assert_eq!(find_prefix(&names.into(), &expected(), None).unwrap(), "state_dict.module.");
    }

    #[test]
    fn the_usual_name_wins_over_a_copy_and_key_decides() {
        let names = ["ema.conv1.weight", "ema.fc.bias", "model.conv1.weight", "model.fc.bias"].into();
        assert_eq!(find_prefix(&names, &expected(), None).unwrap(), "model.");
        assert_eq!(find_prefix(&names, &expected(), Some("ema")).unwrap(), "ema.");
        let error = find_prefix(&names, &expected(), Some("weights")).unwrap_err().to_string();
        assert!(error.contains("`ema.`") && error.contains("`model.`"), "{error}");
    }

    #[test]
    fn two_networks_of_equal_rank_are_a_question() {
        let names = ["student.conv1.weight", "student.fc.bias", "teacher.conv1.weight", "teacher.fc.bias"].into();
        let error = find_prefix(&names, &expected(), None).unwrap_err().to_string();
        assert!(error.ends_with("--key student or --key teacher"), "{error}");
        assert_eq!(find_prefix(&names, &expected(), Some("student")).unwrap(), "student.");
    }

    #[test]
    fn another_network_is_refused() {
        let error = find_prefix(&["encoder.q"; 1].into(), &expected(), None).unwrap_err().to_string();
        assert!(error.contains("--arch"), "{error}");
    }
}
