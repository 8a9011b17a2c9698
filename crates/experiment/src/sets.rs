//! Merge sets: which files are merged with each other.

use crate::spec::{Case, Experiment, Network, Seeds, Train};
use std::path::{Path, PathBuf};

/// A network of a merge set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The network's name in the experiment.
    pub network: String,
    /// Its seed.
    pub seed: u64,
    /// Its file.
    pub file: PathBuf,
}

/// Networks that are merged with each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MergeSet {
    /// In the order of the case.
    pub members: Vec<Member>,
}

impl MergeSet {
    /// What the set is called in paths: its files' names.
    #[must_use]
    pub fn key(&self) -> String {
        self.members.iter().map(|m| stem(&m.file)).collect::<Vec<_>>().join("+")
    }

    /// Its files.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.members.iter().map(|m| m.file.as_path())
    }
}

/// A file's name without its ending.
pub(crate) fn stem(file: &Path) -> String {
    file.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

impl Experiment {
    /// The file of a network's seed.
    #[must_use]
    pub fn file(&self, name: &str, network: &Network, seed: u64) -> PathBuf {
        let own = || format!("runs/networks/{}_{name}_seed{{seed}}.safetensors", self.name);
        PathBuf::from(network.file.clone().unwrap_or_else(own).replace("{seed}", &seed.to_string()))
    }

    /// How a network is trained: its own settings, else the experiment's.
    #[must_use]
    pub fn train_of(&self, network: &Network) -> Train {
        let (own, all) = (network.train.clone(), self.train.clone());
        Train {
            arch: own.arch.or(all.arch).filter(|_| own.from.is_none()),
            width: own.width.or(all.width).filter(|_| own.from.is_none()),
            from: own.from,
            data: own.data.or(all.data),
            epochs: own.epochs.or(all.epochs),
            batch_size: own.batch_size.or(all.batch_size),
            lr: own.lr.or(all.lr),
            weight_decay: own.weight_decay.or(all.weight_decay),
            label_smoothing: own.label_smoothing.or(all.label_smoothing),
            flip: own.flip.or(all.flip),
            shift: own.shift.or(all.shift),
            size: own.size.or(all.size),
            mean: own.mean.or(all.mean),
            std: own.std.or(all.std),
            bf16: own.bf16.or(all.bf16),
            embeddings: own.embeddings.or(all.embeddings),
        }
    }

    /// What a set's networks are fine-tunes of, where that is one network.
    #[must_use]
    pub fn base(&self, set: &MergeSet) -> Option<Member> {
        Some(self.base_called(self.base_of(set.members.iter().map(|member| &member.network))?))
    }

    /// A base, which has one seed.
    ///
    /// # Panics
    /// When there is no such network; an experiment that was read has it.
    #[must_use]
    pub fn base_called(&self, name: &str) -> Member {
        let (network, seed) = (&self.networks[name], self.networks[name].seeds[0]);
        Member { network: name.to_owned(), seed, file: self.file(name, network, seed) }
    }

    /// The merge sets of a case, the paired ones first, so that a choice on some of them sees every seed once.
    #[must_use]
    pub fn sets(&self, case: &Case) -> Vec<MergeSet> {
        subsets(&case.merge, case.subsets.unwrap_or(case.merge.len()))
            .into_iter()
            .flat_map(|names| self.sets_of(&names, case.seeds))
            .collect()
    }

    fn sets_of(&self, names: &[&String], seeds: Seeds) -> Vec<MergeSet> {
        let networks: Vec<(&String, &Network)> =
            names.iter().filter_map(|name| self.networks.get_key_value(*name)).collect();
        let most = networks.iter().map(|(_, n)| n.seeds.len()).min().unwrap_or(0);
        let mut picks: Vec<Vec<usize>> = (0..most).map(|i| vec![i; networks.len()]).collect();
        if seeds == Seeds::Every {
            let mut every: Vec<Vec<usize>> = vec![vec![]];
            for (_, network) in &networks {
                every = every
                    .into_iter()
                    .flat_map(|pick| (0..network.seeds.len()).map(move |i| [&pick[..], &[i]].concat()))
                    .collect();
            }
            every.retain(|pick| !picks.contains(pick));
            picks.extend(every);
        }
        let member = |(i, (name, network)): (usize, &(&String, &Network))| {
            let seed = network.seeds[i];
            Member { network: (*name).clone(), seed, file: self.file(name, network, seed) }
        };
        picks
            .into_iter()
            .map(|pick| MergeSet { members: pick.into_iter().zip(&networks).map(member).collect() })
            .collect()
    }
}

/// Every subset of `n`, in order.
fn subsets(names: &[String], n: usize) -> Vec<Vec<&String>> {
    if n == 0 {
        return vec![vec![]];
    }
    let Some((first, rest)) = names.split_first() else { return vec![] };
    let with = subsets(rest, n - 1).into_iter().map(|mut s| {
        s.insert(0, first);
        s
    });
    with.chain(subsets(rest, n)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sets(networks: &[(&str, &str)], case: &str) -> Vec<String> {
        let networks: Vec<String> = networks
            .iter()
            .map(|(n, seeds)| format!("networks.{n} = {{ seeds = [{seeds}], file = \"{n}{{seed}}\" }}"))
            .collect();
        let names: Vec<&str> = networks.iter().map(|line| &line[9..10]).collect();
        let text = format!(
            "title = \"t\"\ndata = [\"d\"]\n{}\n[[cases]]\nname = \"c\"\nmerge = {names:?}\n{case}\n\
             [[rows]]\nmethod = [\"ward\"]\nrule = [\"refit\"]",
            networks.join("\n")
        );
        let experiment = Experiment::parse(&text, "x").unwrap();
        experiment.sets(&experiment.cases[0]).iter().map(MergeSet::key).collect()
    }

    #[test]
    fn seeds_meet_in_pairs_or_every_with_every() {
        let two = [("a", "1, 3"), ("b", "2, 4")];
        assert_eq!(sets(&two, ""), ["a1+b2", "a3+b4"]);
        // The pairs come first: a choice on two sets sees every network.
        assert_eq!(sets(&two, "seeds = \"every\""), ["a1+b2", "a3+b4", "a1+b4", "a3+b2"]);
        assert_eq!(sets(&[("a", "1"), ("b", "2, 4")], "seeds = \"every\""), ["a1+b2", "a1+b4"]);
    }

    #[test]
    fn subsets_are_in_order() {
        let three = [("a", "1"), ("b", "2"), ("c", "3")];
        assert_eq!(sets(&three, "subsets = 2"), ["a1+b2", "a1+c3", "b2+c3"]);
        assert_eq!(sets(&three, ""), ["a1+b2+c3"]);
    }
}
