//! Make rules: one per file, so that make runs what is missing, side by side, and nothing twice.

use crate::layout::{Files, Split};
use crate::sets::{Member, MergeSet};
use crate::spec::{Experiment, Images, Train};
use crate::variant::{Adapted, Extent, Heads, ImagesFrom, MethodName, Rule as How, Trust, Variant};
use crate::{Result, choose};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::slice;

/// Which rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Everything up to the validation reports that something is chosen on.
    Select,
    /// Everything, with the choices made.
    All,
}

/// A file of an experiment, and how it is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    /// The file.
    pub path: PathBuf,
    /// The binary that makes it.
    pub stage: &'static str,
    /// Its command line, to be run where make runs.
    pub command: String,
}

struct Rule {
    stage: &'static str,
    needs: Vec<PathBuf>,
    data: Vec<PathBuf>,
    command: String,
}

/// The rules of a run, by the file they make.
struct Rules<'a> {
    experiment: &'a Experiment,
    made: BTreeMap<PathBuf, Rule>,
    /// In the order of the stages, as make should see them.
    order: Vec<PathBuf>,
    goals: BTreeSet<PathBuf>,
    /// Networks that nobody here can train.
    given: BTreeSet<PathBuf>,
}

/// The make fragment of an experiment. Its default goal is `experiment-files`; `BIN` is where the binaries are.
///
/// # Errors
/// [`Part::All`] reads the validation reports that choices are made on.
pub fn fragment(experiment: &Experiment, part: Part) -> Result<String> {
    Ok(Rules::of(experiment, part)?.text())
}

/// Every file of an experiment, in the order in which they can be made.
///
/// # Errors
/// As [`fragment`] of [`Part::All`].
pub fn files(experiment: &Experiment) -> Result<Vec<Made>> {
    Ok(Rules::of(experiment, Part::All)?.made())
}

/// The files that one variant of one merge set takes, up to its report.
#[must_use]
pub fn files_of(experiment: &Experiment, set: &MergeSet, variant: &Variant) -> Vec<Made> {
    let mut rules = Rules::new(experiment);
    rules.measured(set, variant, Split::Test);
    rules.made()
}

impl<'a> Rules<'a> {
    fn new(experiment: &'a Experiment) -> Self {
        Self { experiment, made: BTreeMap::new(), order: vec![], goals: BTreeSet::new(), given: BTreeSet::new() }
    }

    fn of(experiment: &'a Experiment, part: Part) -> Result<Self> {
        let mut rules = Self::new(experiment);
        for case in &experiment.cases {
            let sets = experiment.sets(case);
            for (_, grid) in experiment.choices(&case.name) {
                for set in choose::sets_for(grid, &sets) {
                    for variant in grid.variants() {
                        rules.measured(set, &variant, Split::Val);
                    }
                }
            }
            if part == Part::Select {
                continue;
            }
            let variants: Vec<Variant> = experiment.table(case)?.into_iter().map(|row| row.variant).collect();
            for set in &sets {
                rules.sources(set, &variants);
                for variant in &variants {
                    rules.measured(set, variant, Split::Test);
                }
            }
        }
        Ok(rules)
    }

    fn made(&self) -> Vec<Made> {
        let made = |path: &PathBuf| {
            let rule = &self.made[path];
            Made { path: path.clone(), stage: rule.stage, command: format!("{} -o {}", rule.command, path.display()) }
        };
        self.order.iter().map(made).collect()
    }

    fn add(&mut self, target: &Path, rule: impl FnOnce() -> Rule) {
        if !self.made.contains_key(target) {
            self.made.insert(target.to_owned(), rule());
            self.order.push(target.to_owned());
        }
    }

    fn network(&mut self, member: &Member) {
        let experiment = self.experiment;
        let network = &experiment.networks[&member.network];
        let train = experiment.train_of(network);
        let from = train.from.as_ref().map(|name| experiment.base_called(name));
        if let Some(base) = &from {
            self.network(base);
        }
        if train.arch.is_none() && from.is_none() {
            self.given.insert(member.file.clone());
            return;
        }
        let data = train.data.clone().unwrap_or_else(|| experiment.data[0].clone());
        let classes = network.classes.as_ref().map(|c| format!(" --classes {c}")).unwrap_or_default();
        let base = from.as_ref().map(|base| format!(" --from {}", base.file.display())).unwrap_or_default();
        let command = format!("train{base}{} --data {}{classes} --seed {}", flags(&train), data.display(), member.seed);
        let needs = from.into_iter().map(|base| base.file).collect();
        self.add(&member.file, || Rule { stage: "train", needs, data: vec![data], command });
    }

    /// The networks with statistics of all tasks' images.
    fn reset(&mut self, set: &MergeSet, from: &ImagesFrom, n: u64) -> Vec<PathBuf> {
        let experiment = self.experiment;
        let targets = experiment.reset_sources(set, from, n);
        for (target, file) in targets.iter().zip(set.files()) {
            let classes = experiment.classes_of(set).filter(|_| *from == ImagesFrom::Tasks);
            let classes = classes.map_or_else(|| "--all-classes".to_owned(), |c| format!("--classes {}", c.join(",")));
            let classes = if let ImagesFrom::Classes(only) = from { format!("--classes {only}") } else { classes };
            let data = experiment.data_of(from);
            let command = format!("recalibrate {} {classes}{} --images {n}", file.display(), data_flags(&data));
            self.add(target, || Rule { stage: "recalibrate", needs: vec![file.to_owned()], data, command });
        }
        targets
    }

    fn sources(&mut self, set: &MergeSet, variants: &[Variant]) {
        let experiment = self.experiment;
        set.members.iter().for_each(|member| self.network(member));
        let files: Vec<PathBuf> = set.files().map(Path::to_owned).collect();
        let reports = experiment.source_files(set);
        let (n, of_all) = (files.len(), format!("--ensemble {}", listed(&files)));
        self.evaluated(&reports.report, &files, &format!("{} {of_all}", listed(&files)), Split::Test, None);
        if variants.iter().any(Variant::resets_sources) {
            let reset = self.reset(set, &ImagesFrom::Tasks, experiment.images.reset);
            let (of_all, label) = (format!("--ensemble {}", listed(&reset)), format!("ensemble of {n}, BN reset"));
            self.evaluated(&reports.reset_report, &reset, &of_all, Split::Test, Some(&label));
        }
        if variants.iter().any(|v| v.gate) {
            let label = format!("ensemble of {n}, gate");
            self.gated(&files, experiment.images.refit, &reports.gated, &reports.gate_report, Split::Test, &label);
        }
    }

    /// Everything up to the report of a variant.
    fn measured(&mut self, set: &MergeSet, variant: &Variant, split: Split) {
        let experiment = self.experiment;
        set.members.iter().for_each(|member| self.network(member));
        let files = experiment.files(set, variant);
        let images = experiment.images_of(variant);
        self.merged(set, variant, &files, images);
        self.adapted(variant, &files);
        let network = slice::from_ref(&files.network);
        self.evaluated(&files.report(split), network, &listed(network), split, Some(&variant.to_string()));
        if variant.gate {
            let label = format!("{variant}, gate");
            self.gated(network, images.refit, &files.gated, &files.gate_report(split), split, &label);
        }
    }

    /// A report that the experiment is made for. `of` names the networks as `eval` takes them.
    fn evaluated(&mut self, report: &Path, needs: &[PathBuf], of: &str, split: Split, label: Option<&str>) {
        let data = self.experiment.data.clone();
        let label = label.map(|label| format!(" --label \"{label}\"")).unwrap_or_default();
        let command = format!("eval {of}{} --split {}{label}", data_flags(&data), split.name());
        self.goals.insert(report.to_owned());
        self.add(report, || Rule { stage: "eval", needs: needs.to_vec(), data, command });
    }

    /// The networks as one with a gate, fitted on `n` images, and its report.
    fn gated(&mut self, networks: &[PathBuf], n: u64, gated: &Path, report: &Path, split: Split, label: &str) {
        let data = self.experiment.data.clone();
        let command = format!("gate {}{} --images {n}", listed(networks), data_flags(&data));
        self.add(gated, || Rule { stage: "gate", needs: networks.to_vec(), data, command });
        self.evaluated(report, &[gated.to_owned()], &gated.display().to_string(), split, Some(label));
    }

    /// From the networks to one network.
    fn merged(&mut self, set: &MergeSet, variant: &Variant, files: &Files, images: Images) {
        let data = self.experiment.data_of(&variant.from);
        let refits = variant.rule.refits();
        let network = files.given.as_ref().unwrap_or(&files.network);
        if let (Some(combined), Some(base)) = (&variant.method.combined, self.experiment.base(set)) {
            self.network(&base);
            let stats = combined.measured().map(|how| self.measured_alone(set, how, variant, images));
            let stats = stats.unwrap_or_default();
            self.combined((&combined.flags(), &stats), &base.file, variant, files, images);
            return;
        }
        if variant.reset && !refits {
            self.reset(set, &variant.from, images.reset);
        }
        let on = on_images(&data, &variant.from);
        let sources = listed(&files.sources);
        let n = if refits { images.refit } else { images.collect };
        let collect = |how: &str| Rule {
            stage: "collect",
            needs: files.sources.clone(),
            data: data.clone(),
            command: format!("collect {sources}{on} --images {n}{how}"),
        };
        let important = variant.method.name.weighs();
        self.add(&files.stats, || collect(if important { " --importance" } else { "" }));
        if let Some(gram) = &files.gram {
            self.add(gram, || collect(if variant.rule == How::GramOwn { " --gram own" } else { " --gram joint" }));
        }
        let command = format!("match {}{}", files.stats.display(), match_flags(variant, &sources));
        self.add(&files.plan, || Rule { stage: "match", needs: vec![files.stats.clone()], data: vec![], command });
        let needs = || [vec![files.plan.clone()], files.sources.clone()].concat();
        let heads = if variant.heads == Heads::Merge { " --heads merge" } else { "" };
        let inputs = format!("{} {sources}{heads}", files.plan.display());
        if refits {
            let how = match (&files.gram, variant.rule) {
                (Some(gram), _) => format!(" --mode gram --stats {}", gram.display()),
                (None, rule) => {
                    let flags = match rule {
                        How::Layerwise => " --mode layerwise",
                        How::Repair => " --repair",
                        How::RefitOneByOne => " --one-by-one --rounds 0",
                        How::RefitRounds => " --rounds 2",
                        _ => " --rounds 0",
                    };
                    // The committed results are of all positions.
                    let positions = if rule == How::Repair { "" } else { " --positions all" };
                    format!("{on} --images {n}{flags}{positions}")
                }
            };
            let needs = [needs(), files.gram.clone().into_iter().collect()].concat();
            let one_head = variant.heads == Heads::Merge && variant.rule.asks();
            let believed = one_head || variant.trust != Trust::All;
            let trust = if believed { format!(" --trust {}", variant.trust.name()) } else { String::new() };
            let command = format!("refit {inputs}{how}{trust}");
            self.add(network, || Rule { stage: "refit", needs, data, command });
            return;
        }
        let command = format!("apply {inputs}");
        let made = if variant.reset { &files.merged } else { network };
        self.add(made, || Rule { stage: "apply", needs: needs(), data: vec![], command });
        if variant.reset {
            self.measured_again(network, files, variant, images);
        }
    }

    /// Statistics of images for a network that has others'.
    fn measured_again(&mut self, network: &Path, files: &Files, variant: &Variant, images: Images) {
        let data = self.experiment.data_of(&variant.from);
        let command = format!(
            "recalibrate {}{} --images {}",
            files.merged.display(),
            on_images(&data, &variant.from),
            images.reset
        );
        let needs = vec![files.merged.clone()];
        self.add(network, || Rule { stage: "recalibrate", needs, data, command });
    }

    /// Every network by itself, on images of its own task unless others are asked for: together as many as others collect.
    fn measured_alone(&mut self, set: &MergeSet, how: &str, variant: &Variant, images: Images) -> Vec<PathBuf> {
        let experiment = self.experiment;
        let n = (images.collect / set.members.len() as u64).max(1);
        let mut all = Vec::new();
        for member in &set.members {
            let own = experiment.train_of(&experiment.networks[&member.network]).data;
            let own = own.unwrap_or_else(|| experiment.data[0].clone());
            let data = if variant.from == ImagesFrom::Tasks { vec![own] } else { experiment.data_of(&variant.from) };
            let (file, on) = (&member.file, on_images(&data, &variant.from));
            let stats = experiment.own_stats(file, how, &variant.from, n);
            let command = format!("collect {}{on} --images {n} {how}", file.display());
            self.add(&stats, || Rule { stage: "collect", needs: vec![file.clone()], data, command });
            all.push(stats);
        }
        all
    }

    /// From fine-tunes of one base to one network.
    fn combined(
        &mut self,
        (flags, stats): (&str, &[PathBuf]),
        base: &Path,
        variant: &Variant,
        files: &Files,
        images: Images,
    ) {
        let network = files.given.as_ref().unwrap_or(&files.network);
        let heads = if variant.heads == Heads::Merge { " --heads merge" } else { "" };
        let weighed = if stats.is_empty() { String::new() } else { format!(" --stats {}", listed(stats)) };
        let command = format!("combine {} {} {flags}{heads}{weighed}", base.display(), listed(&files.sources));
        let needs = [vec![base.to_owned()], files.sources.clone(), stats.to_vec()].concat();
        let made = if variant.reset { &files.merged } else { network };
        self.add(made, || Rule { stage: "combine", needs, data: vec![], command });
        if variant.reset {
            self.measured_again(network, files, variant, images);
        }
    }

    /// From one network to a better one.
    fn adapted(&mut self, variant: &Variant, files: &Files) {
        let (Some(given), Adapted::Yes { images, epochs, from_scratch }) = (&files.given, variant.adapted) else {
            return;
        };
        let data = self.experiment.data_of(&variant.from);
        let on = on_images(&data, &variant.from);
        let scratch = if from_scratch { " --from-scratch" } else { "" };
        let one_head = variant.heads == Heads::Merge;
        let trust = if one_head { format!(" --trust {}", variant.trust.name()) } else { String::new() };
        let command = format!(
            "adapt {} --to {}{on} --images {images} --epochs {epochs}{scratch}{trust}{}",
            given.display(),
            listed(&files.sources),
            self.experiment.adapt.flags()
        );
        let needs = [vec![given.clone()], files.sources.clone()].concat();
        self.add(&files.network, || Rule { stage: "adapt", needs, data, command });
    }

    fn text(&self) -> String {
        let experiment = self.experiment;
        let n = self.order.len();
        let mut text = format!("# Made by `experiment` of {}.toml: {n} files, each by one stage.\n", experiment.name);
        let goals: Vec<PathBuf> = self.goals.iter().cloned().collect();
        text += &format!("experiment-files:{}\n\n", before_each(" \\\n  ", &goals));
        for file in &self.given {
            text += &format!(
                "{}:\n\t@echo \"$@ is not there, and {}.toml does not say how to train it: put the network there\" >&2; exit 1\n\n",
                file.display(),
                experiment.name
            );
        }
        for (i, target) in self.order.iter().enumerate() {
            let rule = &self.made[target];
            let join = |paths: &[PathBuf]| before_each(" ", paths);
            let data = if rule.data.is_empty() { String::new() } else { format!(" |{}", join(&rule.data)) };
            text += &format!("{}:{}{data}\n", target.display(), join(&rule.needs));
            text += &format!("\t@echo \"[{}/{n}] {}: $@\"\n", i + 1, rule.stage);
            text += "\t@mkdir -p $(@D)\n";
            text += &format!("\t$(SHOW)$(BIN)/{} --quiet -o $@ > /dev/null\n", rule.command);
            // A stage leaves alone what is up to date; make looks at the clock.
            text += "\t@touch $@\n\n";
        }
        text
    }
}

/// The images that something is measured on.
fn on_images(data: &[PathBuf], from: &ImagesFrom) -> String {
    let classes = if let ImagesFrom::Classes(only) = from { format!(" --classes {only}") } else { String::new() };
    data_flags(data) + &classes
}

fn data_flags(data: &[PathBuf]) -> String {
    before_each(" --data ", data)
}

fn listed(paths: &[PathBuf]) -> String {
    before_each(" ", paths).trim_start().to_owned()
}

fn before_each(word: &str, paths: &[PathBuf]) -> String {
    paths.iter().fold(String::new(), |text, path| text + word + &path.display().to_string())
}

fn flags(train: &Train) -> String {
    let mut text = String::new();
    let mut flag = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            text += &format!(" --{name} {value}");
        }
    };
    let list = |numbers: &Vec<f64>| numbers.iter().map(f64::to_string).collect::<Vec<_>>().join(",");
    flag("arch", train.arch.clone());
    flag("width", train.width.map(|x| x.to_string()));
    flag("epochs", train.epochs.map(|x| x.to_string()));
    flag("batch-size", train.batch_size.map(|x| x.to_string()));
    flag("lr", train.lr.map(|x| x.to_string()));
    flag("weight-decay", train.weight_decay.map(|x| x.to_string()));
    flag("label-smoothing", train.label_smoothing.map(|x| x.to_string()));
    flag("shift", train.shift.map(|x| x.to_string()));
    flag("size", train.size.map(|x| x.to_string()));
    flag("mean", train.mean.as_ref().map(list));
    flag("std", train.std.as_ref().map(list));
    flag("embeddings", train.embeddings.as_ref().map(|path| path.display().to_string()));
    if train.bf16 == Some(true) {
        text += " --bf16";
    }
    if train.flip == Some(false) {
        text += " --no-flip";
    }
    text
}

fn match_flags(variant: &Variant, sources: &str) -> String {
    use MethodName::{Importance, Mudsc, Weight};
    let name = if variant.method.name == Importance { MethodName::Ward } else { variant.method.name };
    let mut text = format!(" --method {name}");
    if let Some((alpha, beta)) = variant.method.alpha_beta {
        text += &format!(" --alpha {alpha} --beta {beta}");
    }
    if matches!(variant.method.name, Weight | Mudsc) {
        text += &format!(" --models {sources}");
    }
    match &variant.extent {
        Extent::Full => {}
        Extent::To(point) => text += &format!(" --stop-at {point}"),
        Extent::From(point) => text += &format!(" --start-at {point}"),
        Extent::Budget(budget) => text += &format!(" --budget {budget}"),
    }
    if variant.rule == How::Pinv {
        text += " --unmerge pinv";
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &str = r#"
        title = "t"
        data = ["d/images"]
        train = { arch = "resnet20", flip = false, mean = [0.5] }
        networks.a = { classes = "0-1", seeds = [1] }
        networks.b = { classes = "2,3", seeds = [2], file = "b.safetensors", train = { width = 0.5, bf16 = true } }
        cases = [{ name = "two", merge = ["a", "b"] }]
    "#;

    fn experiment(rows: &str) -> Experiment {
        Experiment::parse(&format!("{TWO}\n{rows}"), "x").unwrap()
    }

    #[test]
    fn every_file_is_made_by_one_rule_from_files_that_others_make() {
        let rows = r#"
            [[rows]]
            method = ["permute", "weight"]
            extent = ["full", "to 7/20", "from 2/20", "budget 0.5"]
            rule = ["pinv", "covariance", "refit", "refit-one-by-one", "refit-rounds", "gram", "gram-own", "layerwise", "repair"]
            images-from = ["tasks", "classes 0-1", "d/noise"]
            images = [10, 20]
            trust = ["all", "surest"]
            gate = true
        "#;
        let made = files(&experiment(rows)).unwrap();
        let mut known: BTreeSet<&Path> = BTreeSet::new();
        for file in &made {
            assert!(
                !file.path.display().to_string().contains(['=', ' ', ':', '#', '$', '%']),
                "{}",
                file.path.display()
            );
            // Inputs are made before what is made of them.
            for word in file
                .command
                .split(' ')
                .filter(|word| word.starts_with("runs/") && **word != file.path.display().to_string())
            {
                assert!(known.contains(Path::new(word)), "{word} is needed by {} and not made before", file.command);
            }
            assert!(known.insert(&file.path), "{} is made twice", file.path.display());
        }
        // 2 methods × 4 extents × 9 rules, 4 of which with 2 kinds of trust, × 3 kinds of images × 2 numbers, with and without
        // gate; networks, their ensembles.
        let evaluated = made.iter().filter(|file| file.stage == "eval").count();
        assert_eq!(evaluated, 2 * 4 * (9 + 4) * 3 * 2 * 2 + 2);
    }

    #[test]
    fn networks_are_trained_as_they_and_the_experiment_say() {
        let rows = "[[rows]]\nmethod = [\"ward\"]\nrule = [\"refit\"]";
        let made = files(&experiment(rows)).unwrap();
        let trained: Vec<&str> = made.iter().filter(|m| m.stage == "train").map(|m| m.command.as_str()).collect();
        let a = "train --arch resnet20 --mean 0.5 --no-flip --data d/images --classes 0-1 --seed 1 -o runs/networks/x_a_seed1.safetensors";
        let b = "train --arch resnet20 --width 0.5 --mean 0.5 --bf16 --no-flip --data d/images --classes 2,3 --seed 2 -o b.safetensors";
        assert_eq!(trained, [a, b]);
    }

    #[test]
    fn whom_refit_believes_is_said_wherever_it_matters() {
        let commands = |rest: &str| -> Vec<String> {
            let rows = format!("[[rows]]\nmethod = [\"ward\"]\nrule = [\"refit\", \"covariance\"]\n{rest}");
            let made = files(&experiment(&rows)).unwrap();
            made.into_iter().filter(|m| m.stage == "refit").map(|m| m.command).collect()
        };
        let [plain] = &commands("")[..] else { panic!("one refit") };
        assert!(!plain.contains("--trust") && plain.ends_with("/refit2000/network.safetensors"), "{plain}");
        let [merged] = &commands("heads = \"merge\"")[..] else { panic!("one refit") };
        assert!(
            merged.contains(" --trust surest ") && merged.ends_with("/refit2000_one-head_surest/network.safetensors")
        );
        let both = commands("heads = \"merge\"\ntrust = [\"all\", \"surest\"]");
        assert!(both[0].contains(" --trust all ") && both[1].contains(" --trust surest "), "{both:?}");
    }

    #[test]
    fn candidates_are_measured_on_validation_images_only() {
        let rows = r#"
            [[rows]]
            choose = "best"
            method = ["zip"]
            alpha = [0.5, 1]
            beta = [0, 1]
            rule = ["pinv"]
        "#;
        let text = fragment(&experiment(rows), Part::Select).unwrap();
        assert_eq!(text.matches("--split val").count(), 4);
        assert!(!text.contains("--split test"));
        // What is chosen is not known before they are measured.
        let error = fragment(&experiment(rows), Part::All).unwrap_err().to_string();
        assert!(error.contains("`best` cannot be chosen yet") && error.contains("--part select"), "{error}");
    }

    #[test]
    fn fine_tunes_of_one_base_are_combined() {
        let base = r#"networks.base = { classes = "4-9", seeds = [7] }"#;
        let from = |text: &str| text.replace("train = { width", "train = { from = \"base\", width");
        let text = from(TWO).replace("seeds = [1] }", "seeds = [1], train.from = \"base\" }");
        let text = text.replace("networks.a", &format!("{base}\n        networks.a"));
        let rows = r#"
            [[rows]]
            combine = ["ties --density 0.2"]
            scale = [0.5, 1]
            adapt = ["no", "20 images 2 epochs"]

            [[rows]]
            combine = ["average"]
            reset = false

            [[rows]]
            combine = ["fisher --normalize", "mats"]

            [[rows]]
            combine = ["emr --rescalers tensors"]
        "#;
        let experiment = Experiment::parse(&format!("{text}\n{rows}"), "x").unwrap();
        let made = files(&experiment).unwrap();
        let of = |stage: &str| -> Vec<&str> {
            made.iter().filter(|m| m.stage == stage).map(|m| m.command.as_str()).collect()
        };
        let base = "runs/networks/x_base_seed7.safetensors";
        assert_eq!(of("train").len(), 3);
        assert!(of("train")[0].starts_with("train --arch resnet20 ") && of("train")[0].ends_with(base));
        assert!(of("train")[2].starts_with(&format!("train --from {base} --mean 0.5 --bf16 ")), "{:?}", of("train"));
        let sources = format!("{base} runs/networks/x_a_seed1.safetensors b.safetensors");
        let [half, whole, average, fisher, mats, masked] = of("combine")[..] else { panic!("{:?}", of("combine")) };
        assert!(half.starts_with(&format!("combine {sources} --rule ties --density 0.2 --scale 0.5 -o ")), "{half}");
        assert!(whole.ends_with("/ties_density0.2_scale1/merged.safetensors"), "{whole}");
        assert!(average.ends_with("/average/plain/network.safetensors"), "{average}");
        // Networks that stay apart have their own statistics.
        assert!(masked.starts_with(&format!("combine {sources} --rule emr --rescalers tensors -o ")), "{masked}");
        assert!(masked.ends_with("/emr_rescalerstensors/plain/network.safetensors"), "{masked}");
        // Statistics are an image's matter once, and what is adapted begins with them.
        assert_eq!((of("recalibrate").len(), of("adapt").len()), (4, 2));
        // What a rule weighs by is measured of each network by itself, half of the images each.
        let measured = "runs/sources/measured";
        let [a, b, ..] = of("collect")[..] else { panic!("{:?}", of("collect")) };
        assert!(a.starts_with("collect runs/networks/x_a_seed1.safetensors --data d/images --images "), "{a}");
        assert!(a.ends_with("_fisher.h5") && b.starts_with("collect b.safetensors --data d/images "), "{a} {b}");
        assert!(fisher.contains(&format!(" --rule fisher --normalize --stats {measured}/x_a_seed1_own")), "{fisher}");
        assert!(mats.contains("_gram-own-gradients.h5") && of("collect").len() == 4, "{mats}");
        assert!(of("match").is_empty() && of("apply").is_empty());
        let said = of("eval").join("\n");
        assert!(said.contains("\"ties, density 0.2, λ = 0.5\"") && said.contains("\"average, no reset\""), "{said}");
        assert!(said.contains("\"emr, rescalers tensors, task known\""), "{said}");
    }

    #[test]
    fn a_network_that_nobody_can_train_is_asked_for() {
        let text = TWO.replace("arch = \"resnet20\", ", "");
        let rows = "[[rows]]\nmethod = [\"ward\"]\nrule = [\"refit\"]";
        let experiment = Experiment::parse(&format!("{text}\n{rows}"), "x").unwrap();
        let text = fragment(&experiment, Part::All).unwrap();
        assert!(text.contains("b.safetensors:\n\t@echo") && !text.contains("/train "), "{text}");
    }
}
