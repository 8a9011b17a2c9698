//! Rules of `combine` that weigh by what `collect` measured of the fine-tunes.

use crate::bad_input::refused;
use crate::combine::fine_tunes;
use crate::support::{max_difference, tensors};
use ndarray::{Array2, ArrayD, IxDyn};
use serde_json::Value;
use zipit::StateDict;
use zipit::task_vector::{InMemory, Made, Network, Part, Recipe, Rule, Source, Tensor, combine};
use zipit::watch::Unwatched;
use zipit_artifact::stats::StatsReader;
use zipit_tests::{Workplace, repository, write_idx};

/// Two matrices of one shape, and what was measured of them.
struct Given {
    tuned: [StateDict; 2],
    inputs: Vec<Array2<f64>>,
    fisher: Vec<Vec<f64>>,
}

impl Source for Given {
    fn read(&self, of: Network, name: &str, start: usize, into: &mut [f32]) -> zipit::Result<()> {
        InMemory { base: None, tuned: &self.tuned }.read(of, name, start, into)
    }

    fn is_measured(&self, _: &str) -> bool {
        true
    }

    fn fisher(&self, t: usize, _: &str, start: usize, into: &mut [f64]) -> zipit::Result<()> {
        into.copy_from_slice(&self.fisher[t][start..start + into.len()]);
        Ok(())
    }

    fn inputs(&self, t: usize, _: &str) -> zipit::Result<Vec<Array2<f64>>> {
        Ok(vec![self.inputs[t].clone()])
    }
}

#[test]
fn rules_give_what_other_tools_give_of_the_same_measurements() {
    let text = std::fs::read_to_string(repository().join("tests/golden/combine/values.json")).unwrap();
    let golden: Value = serde_json::from_str(&text).unwrap();
    let numbers = |value: &Value| value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect::<Vec<_>>();
    let tuned = [0, 1].map(|t| {
        let sum = numbers(&golden["base"]).into_iter().zip(numbers(&golden["vectors"][t])).map(|(b, v)| (b + v) as f32);
        StateDict::from([("w".to_owned(), ArrayD::from_shape_vec(IxDyn(&[2, 4]), sum.collect()).unwrap())])
    });
    let cases = golden["measured"].as_array().unwrap();
    assert_eq!(cases.len(), 3);
    for case in cases {
        let each = |what: &str| case[what].as_array().into_iter().flatten().map(numbers).collect::<Vec<_>>();
        let inputs = each("inputs").into_iter().map(|gram| Array2::from_shape_vec((4, 4), gram).unwrap()).collect();
        let source = Given { tuned: tuned.clone(), inputs, fisher: each("fisher") };
        let rule = match case["off_diagonal"].as_f64() {
            Some(off_diagonal) => Rule::RegMean { off_diagonal },
            None => Rule::Fisher,
        };
        let tensor = Tensor { name: "w".into(), shape: vec![2, 4] };
        let part = Part { name: "w".into(), tensor, made: Made::ByRule };
        let mut out = Vec::new();
        let mut write = |numbers: &[f32]| {
            out.extend_from_slice(numbers);
            Ok(())
        };
        combine(&Recipe::new(rule, 2), &[part], &source, &Unwatched, &mut write).unwrap();
        for (i, (ours, theirs)) in out.iter().zip(numbers(&case["value"])).enumerate() {
            let far = (f64::from(*ours) - theirs).abs();
            assert!(far <= 1e-6 * theirs.abs().max(1.0), "{rule:?}, entry {i}: {ours} {theirs}");
        }
    }
}

/// A base, three fine-tunes and images of all their classes.
fn workplace() -> Workplace {
    let place = Workplace::new();
    write_idx(&place.path("data"), 72, 12, 9);
    fine_tunes(&place, 3);
    place
}

const NETWORKS: &str = "base.safetensors t0.safetensors t1.safetensors t2.safetensors";

#[test]
fn networks_are_measured_together_or_each_by_itself() {
    let place = workplace();
    let how = "--data data --images 36 --batch-size 12 --gram own --gradients --fisher";
    place.ok("collect", &format!("t0.safetensors t1.safetensors t2.safetensors {how} --threads 1 -o all.h5"));
    place.ok("collect", &format!("t0.safetensors t1.safetensors t2.safetensors {how} --threads 2 -o again.h5"));
    for i in 0..3 {
        // Of its own classes, unless it is told otherwise.
        place.ok("collect", &format!("t{i}.safetensors {how} --classes 0-8 -o own{i}.h5"));
    }
    let [all, again] = ["all.h5", "again.h5"].map(|name| StatsReader::open(&place.path(name)).unwrap());
    assert_eq!(all.collected().unwrap(), again.collected().unwrap(), "threads matter");
    assert_eq!(all.fisher().unwrap().len(), 3);
    for rule in ["fisher", "fisher --normalize --weights 1,2,3", "regmean", "mats --iterations 30"] {
        let args = format!("{NETWORKS} --rule {rule}");
        let said = place.ok("combine", &format!("{args} --stats all.h5 --threads 1 --force -o one.safetensors"));
        assert!(said.contains("3 networks by") && said.contains("recalibrate one.safetensors"), "{said}");
        place.ok("combine", &format!("{args} --stats all.h5 --threads 2 --force -o two.safetensors"));
        assert_eq!(tensors(&place, "one.safetensors"), tensors(&place, "two.safetensors"), "{rule}: threads matter");
        let average = {
            place.ok("combine", &format!("{NETWORKS} --rule average --force -o average.safetensors"));
            tensors(&place, "average.safetensors")
        };
        let one = tensors(&place, "one.safetensors");
        // All stems read the same images.
        let deep = "layer3.0.conv1.weight";
        assert!(max_difference(&one[deep], &average[deep]) > 1e-5, "{rule} is no average");
        if rule.starts_with("fisher") {
            assert!(max_difference(&one["bn1.weight"], &average["bn1.weight"]) > 1e-5);
        } else {
            assert!(max_difference(&one["bn1.weight"], &average["bn1.weight"]) < 1e-6);
        }
        place.ok("recalibrate", "one.safetensors --data data --force -o ready.safetensors");
        let report = place.ok("eval", "ready.safetensors --data data --format json");
        let report: Value = serde_json::from_str(&report).unwrap();
        let used = &report["rows"][0]["used"];
        assert_eq!(used["labels"], false);
        assert_eq!(used["source_gradients"].as_bool().unwrap_or(false), !rule.starts_with("regmean"), "{rule}: {used}");
    }
    // One file for each: the heads' own layers, and the ranges, are others; what is read is the same.
    let each = "--stats own1.h5 own0.h5 own2.h5";
    for rule in ["fisher", "regmean"] {
        place.ok("combine", &format!("{NETWORKS} --rule {rule} --stats all.h5 --force -o one.safetensors"));
        place.ok("combine", &format!("{NETWORKS} --rule {rule} {each} --force -o each.safetensors"));
        for (name, tensor) in &tensors(&place, "one.safetensors") {
            assert!(max_difference(tensor, &tensors(&place, "each.safetensors")[name]) < 1e-4, "{rule} `{name}`");
        }
    }
    // Gradients are told as such, and labels.
    place.ok("collect", "t0.safetensors t1.safetensors t2.safetensors --data data --images 18 --fisher labels -o l.h5");
    place.ok("combine", &format!("{NETWORKS} --rule fisher --stats l.h5 --force -o labels.safetensors"));
    let report = place.ok("eval", "labels.safetensors --data data --format json");
    let report: Value = serde_json::from_str(&report).unwrap();
    assert_eq!(report["rows"][0]["used"]["labels"], true);
}

#[test]
fn shards_of_gradients_add_up() {
    let place = workplace();
    let collect = "t0.safetensors t1.safetensors --data data --batch-size 8 --gram own --gradients --fisher";
    place.ok("collect", &format!("{collect} -o whole.h5"));
    for i in 1..=2 {
        place.ok("collect", &format!("{collect} --shard {i}/2 -o shard{i}.h5"));
    }
    place.ok("collect", "--reduce shard2.h5 shard1.h5 -o sum.h5");
    let [whole, sum] = ["whole.h5", "sum.h5"].map(|name| StatsReader::open(&place.path(name)).unwrap());
    for (a, b) in whole.fisher().unwrap().iter().zip(&sum.fisher().unwrap()) {
        assert_eq!(a.count, b.count);
        for (name, sums) in &a.sums {
            for (x, y) in sums.iter().zip(&b.sums[name]) {
                assert!((x - y).abs() <= 1e-12 * x.abs(), "`{name}`: {x} {y}");
            }
        }
    }
    let layers = whole.header().gradient_layers();
    assert!(layers.len() > 20);
    for (layer, _) in layers {
        let [a, b] = [&whole, &sum].map(|stats| stats.gradients(&layer).unwrap());
        let (zipit::refit::Gram::Own(a), zipit::refit::Gram::Own(b)) = (a, b) else { panic!("own moments") };
        for (x, y) in a.iter().flat_map(|m| &m.outer).zip(b.iter().flat_map(|m| &m.outer)) {
            assert!((x - y).abs() <= 1e-12 * a[0].outer[0].abs().max(x.abs()), "{layer}");
        }
    }
}

#[test]
fn what_was_not_measured_is_refused() {
    let place = workplace();
    place.ok("collect", "t0.safetensors t1.safetensors --data data --images 9 --gram own -o grams.h5");
    place.ok("collect", "t2.safetensors --data data --images 9 --fisher -o fisher2.h5");
    place.ok("collect", "t0.safetensors t1.safetensors --data data --images 9 -o plain.h5");
    place.ok("collect", "t0.safetensors t1.safetensors --data data --batch-size 4 --gram own --shard 1/2 -o shard.h5");
    let two = |rule: &str| format!("base.safetensors t0.safetensors t1.safetensors --rule {rule} -o out.safetensors");
    let cases: Vec<(String, &str, Vec<&str>)> = vec![
        (two("fisher --stats grams.h5"), "combine", vec!["grams.h5", "collect with --fisher"]),
        (two("mats --stats grams.h5"), "combine", vec!["grams.h5", "--gram own --gradients"]),
        (two("regmean --stats plain.h5"), "combine", vec!["plain.h5", "--gram own"]),
        (two("regmean --stats fisher2.h5"), "combine", vec!["t0.safetensors was not measured", "t2.safetensors"]),
        (two("regmean --stats shard.h5"), "combine", vec!["shard.h5 is shard 1 of 2", "--reduce"]),
        (two("regmean --stats t0.safetensors"), "combine", vec!["t0.safetensors"]),
        (two("regmean --stats none.h5"), "combine", vec!["none.h5"]),
        (two("regmean --stats grams.h5 --off-diagonal 2"), "combine", vec!["multiplied by 2"]),
        (two("regmean --stats grams.h5 --weights 1,-1"), "combine", vec!["weight is -1"]),
        (two("mats --stats grams.h5 --tolerance 1"), "combine", vec!["tolerance is 1"]),
        ("fisher2.h5 -o plan.bin".into(), "match", vec!["fisher2.h5", "one network"]),
        ("t0.safetensors --data data -o no.h5".into(), "collect", vec!["nothing to be matched with"]),
    ];
    let cases: Vec<(&str, &str, &[&str])> =
        cases.iter().map(|(args, stage, words)| (*stage, args.as_str(), words.as_slice())).collect();
    refused(&place, 1, &cases);
    let usage = [
        ("combine", two("fisher")),
        ("combine", two("average --stats grams.h5")),
        ("combine", two("fisher --stats grams.h5 --off-diagonal 0.5")),
        ("collect", "t0.safetensors t1.safetensors --data data --gradients -o no.h5".to_owned()),
        ("collect", "t0.safetensors t1.safetensors --data data --gram joint --gradients -o no.h5".to_owned()),
        ("collect", "t0.safetensors t1.safetensors --data data --exact -o no.h5".to_owned()),
        ("collect", "t0.safetensors t1.safetensors --data data --fisher none -o no.h5".to_owned()),
    ];
    let usage: Vec<(&str, &str, &[&str])> =
        usage.iter().map(|(stage, args)| (*stage, args.as_str(), [].as_slice())).collect();
    refused(&place, 2, &usage);
}
