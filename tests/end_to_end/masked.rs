//! `combine --rule emr`: fine-tunes that share one vector, of which each has a mask.

use crate::bad_input::{cut, flip_a_bit, refused};
use crate::combine::{fine_tunes, one_matrix};
use crate::predict::npz;
use crate::support::{max_difference, tensors, write};
use ndarray::ArrayD;
use serde_json::Value;
use std::fs;
use zipit::Model;
use zipit::graph::Op;
use zipit_artifact::{MaskedReader, hash_file, model};
use zipit_tests::{Workplace, repository, write_idx};

const NETWORKS: &str = "base.safetensors t0.safetensors t1.safetensors t2.safetensors --rule emr";

/// Three fine-tunes of one base, of classes 0–2, 3–5, 6–8, as masked networks, and each of them written by itself as `n0`, ….
fn three() -> (Workplace, MaskedReader) {
    let place = Workplace::new();
    write_idx(&place.path("data"), 90, 12, 9);
    fine_tunes(&place, 3);
    place.ok("combine", &format!("{NETWORKS} -o emr.safetensors"));
    let file = MaskedReader::open(&place.path("emr.safetensors")).unwrap();
    (0..3).for_each(|t| write(&place, &format!("n{t}"), &file.model(t).unwrap()));
    (place, file)
}

fn rows(place: &Workplace, report: &str) -> Vec<Value> {
    let report: Value = serde_json::from_slice(&place.bytes(report)).unwrap();
    report["report"]["rows"].as_array().unwrap().clone()
}

#[test]
fn it_is_what_another_tool_makes() {
    let text = fs::read_to_string(repository().join("tests/golden/combine/values.json")).unwrap();
    let golden: Value = serde_json::from_str(&text).unwrap();
    let numbers =
        |value: &Value| -> Vec<f32> { value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect() };
    let emr = &golden["emr"];
    let place = Workplace::new();
    // The second tensor is the body's bias.
    let network = |vector: Option<usize>, name: &str| -> Model {
        let mut body = numbers(&golden["base"]);
        let mut bias = vec![0.0; 2];
        if let Some(t) = vector {
            body.iter_mut().zip(numbers(&golden["vectors"][t])).for_each(|(x, v)| *x += v);
            bias = numbers(&emr["second"][t]);
        }
        let mut model = one_matrix(&body, name, 2);
        let node = model.graph.nodes.iter_mut().find(|node| node.name == "body").unwrap();
        node.op = Op::Linear { in_features: 4, out_features: 2, bias: true };
        model.weights.insert("body.bias".into(), ArrayD::from_shape_vec(vec![2], bias).unwrap());
        model
    };
    for (name, vector) in [("base", None), ("a", Some(0)), ("c", Some(1))] {
        write(&place, name, &network(vector, name));
    }
    let networks = "base.safetensors a.safetensors c.safetensors --rule emr";
    place.ok("combine", &format!("{networks} --rescalers tensors -o theirs.safetensors"));
    place.ok("combine", &format!("{networks} -o paper.safetensors"));
    let [theirs, paper] = ["theirs", "paper"].map(|name| tensors(&place, &format!("{name}.safetensors")));
    let near = |found: f32, wanted: f32| assert!((found - wanted).abs() < 1e-5, "{found} {wanted}");
    let names = ["body.weight", "body.bias"];
    for (name, unified) in names.iter().zip(emr["unified"].as_array().unwrap()) {
        let found: Vec<f32> = theirs[&format!("{name}/unified")].iter().copied().collect();
        assert_eq!(found, numbers(unified));
    }
    theirs["rescalers"].iter().zip(numbers(&emr["rescalers"])).for_each(|(&found, wanted)| near(found, wanted));
    // Σ|τ| / Σ|M τᵤ| over all entries, by hand.
    paper["rescalers"].iter().zip([16.0 / 15.0, 16.75 / 15.5]).for_each(|(&found, wanted)| near(found, wanted));
    let file = MaskedReader::open(&place.path("theirs.safetensors")).unwrap();
    for t in 0..2 {
        let model = file.model(t).unwrap();
        for (k, name) in names.iter().enumerate() {
            let [unified, mask] = [&emr["unified"][k], &emr["masks"][t][k]].map(numbers);
            for (i, &found) in model.weights[*name].iter().enumerate() {
                let base = if k == 0 { numbers(&golden["base"])[i] } else { 0.0 };
                near(found, base + numbers(&emr["rescalers"])[t] * mask[i] * unified[i]);
            }
        }
    }
}

#[test]
fn threads_do_not_matter_and_a_dry_run_writes_nothing() {
    let (place, file) = three();
    let said = place.ok("combine", &format!("{NETWORKS} --dry-run -o dry.safetensors"));
    assert!(said.contains("3 networks by emr → the same by masks, the task known: 1.00× the FLOPs"), "{said}");
    assert!(said.contains("would write dry.safetensors") && !place.path("dry.safetensors").exists(), "{said}");
    for threads in [1, 3] {
        place.ok("combine", &format!("{NETWORKS} --threads {threads} -o again.safetensors --force"));
        assert!(place.bytes("again.safetensors") == place.bytes("emr.safetensors"), "{threads} threads");
    }
    let said = place.run("combine", &format!("{NETWORKS} -o emr.safetensors")).code(0).stderr();
    assert!(said.contains("is up to date"), "{said}");
    assert_eq!(file.input_ref().blake3, hash_file(&place.path("emr.safetensors")).unwrap());
    // Only the rule's tensors are made of the vector; statistics and heads are each one's own.
    assert!(file.outline().shared.contains_key("conv1.weight") && file.outline().shared.contains_key("bn1.bias"));
    for t in 0..3 {
        let [found, tuned] = ["n", "t"].map(|name| tensors(&place, &format!("{name}{t}.safetensors")));
        for name in ["bn1.running_mean", "bn1.running_var", "linear.weight", "linear.bias"] {
            assert_eq!(found[name], tuned[name], "{name}");
        }
        assert_ne!(found["conv1.weight"], tuned["conv1.weight"]);
    }
    for dtype in ["bf16", "f16"] {
        place.ok("combine", &format!("{NETWORKS} --dtype {dtype} -o {dtype}.safetensors"));
        let few = MaskedReader::open(&place.path(&format!("{dtype}.safetensors"))).unwrap();
        let [few, all] = [few.model(1).unwrap(), file.model(1).unwrap()];
        for (name, tensor) in &all.weights {
            let bound = tensor.iter().fold(0.0_f32, |most, x| most.max(x.abs())) / 64.0;
            assert!(max_difference(tensor, &few.weights[name]) <= bound, "{dtype} {name}");
        }
        assert!(place.bytes(&format!("{dtype}.safetensors")).len() < place.bytes("emr.safetensors").len());
    }
}

#[test]
fn a_network_alone_comes_back() {
    let place = Workplace::new();
    fine_tunes(&place, 1);
    place.ok("combine", "base.safetensors t0.safetensors --rule emr -o one.safetensors");
    let file = MaskedReader::open(&place.path("one.safetensors")).unwrap();
    assert_eq!(file.rescalers(), [1.0]);
    let (found, tuned) = (file.model(0).unwrap(), model::read(&place.path("t0.safetensors")).unwrap().model);
    assert_eq!((&found.graph, &found.tasks), (&tuned.graph, &tuned.tasks));
    for (name, tensor) in &tuned.weights {
        assert!(max_difference(tensor, &found.weights[name]) < 1e-6, "{name}");
    }
}

#[test]
fn each_network_is_measured_on_its_own_task() {
    let (place, file) = three();
    let sources = "t0.safetensors t1.safetensors t2.safetensors";
    let said = place.ok("eval", &format!("emr.safetensors {sources} --data data -o emr.json --logits logits.st"));
    assert!(said.contains("task known") && said.contains("3 masks") && said.contains("masks are bits"), "{said}");
    place.ok("eval", "n0.safetensors n1.safetensors n2.safetensors --data data -o alone.json");
    let (found, alone) = (rows(&place, "emr.json"), rows(&place, "alone.json"));
    let [single, row] = [&found[0], &found[3]];
    assert_eq!(
        (&row["model"], &row["kind"], &row["method"]),
        (&"emr".into(), &"merged".into(), &"combine --rule emr".into())
    );
    assert_eq!((&row["masks"], &row["scores"]["joint"]), (&3.into(), &Value::Null));
    assert!(single.get("masks").is_none(), "{single}");
    let tasks = row["scores"]["tasks"].as_array().unwrap();
    let accuracy = |task: &Value| task["score"]["accuracy"].as_f64().unwrap();
    for (task, alone) in tasks.iter().zip(&alone) {
        assert_eq!(*task, alone["scores"]["tasks"][0]);
    }
    let mean = tasks.iter().map(accuracy).sum::<f64>() / 3.0;
    assert!((row["scores"]["task_avg"].as_f64().unwrap() - mean).abs() < 1e-12);
    // FLOPs are one network's, numbers what is stored.
    let cost = file.outline().cost().unwrap();
    assert_eq!((&row["cost"]["macs"], &row["relative_macs"]), (&single["cost"]["macs"], &1.0.into()));
    assert_eq!((&row["cost"]["params"], &row["cost"]["buffers"]), (&cost.params.into(), &cost.buffers.into()));
    assert!(cost.params < 3 * single["cost"]["params"].as_u64().unwrap());
    let n_bytes = place.bytes("emr.safetensors").len();
    assert_eq!(row["file_bytes"], n_bytes);
    // A report can be taken into another, as ever, and `inspect` knows both.
    let said = place.ok("eval", "emr.json alone.json");
    assert!(said.contains("3 masks"), "{said}");
    assert!(place.ok("inspect", "emr.json").contains("combine --rule emr"));
    let said = place.ok("inspect", "emr.safetensors");
    for words in
        ["masked networks", "3, each like this one", "rescaler", "task 2", "made by", "from model base.safetensors"]
    {
        assert!(said.contains(words), "{words}: {said}");
    }
    let json: Value = serde_json::from_str(&place.ok("inspect", "emr.safetensors --format json")).unwrap();
    let rescalers: Vec<f64> =
        json["networks"].as_array().unwrap().iter().map(|n| n["rescaler"].as_f64().unwrap()).collect();
    assert_eq!(rescalers, file.rescalers());
    assert!(json["networks"].as_array().unwrap().iter().all(|n| (0.2..0.9).contains(&n["left"].as_f64().unwrap())));
}

#[test]
fn each_task_is_predicted_by_its_own_network() {
    let (place, _) = three();
    let said = place.ok("predict", "emr.safetensors --data data -o all.npz");
    assert!(said.contains("task 0 [90, 3]") && said.contains("task 2 [90, 3]"), "{said}");
    let all = npz(&place, "all.npz");
    assert_eq!(all.len(), 3);
    for t in 0..3 {
        place.ok("predict", &format!("n{t}.safetensors --data data -o n{t}.npz"));
        assert_eq!(npz(&place, &format!("n{t}.npz"))[&format!("task {t}")], all[&format!("task {t}")]);
    }
    let mut one = place.command("predict", "emr.safetensors --data data -o one.npz");
    assert!(one.args(["--task", "task 1"]).status().unwrap().success());
    let one = npz(&place, "one.npz");
    assert_eq!(one.keys().collect::<Vec<_>>(), ["task 1"]);
    assert_eq!(one["task 1"], all["task 1"]);
    let lines = place.ok("predict", "emr.safetensors --data data");
    let columns = "image,class,task 0,task 0 probability,task 1,task 1 probability,task 2,task 2 probability";
    assert_eq!(lines.lines().next(), Some(columns));
    assert_eq!(lines.lines().count(), 91);
    let alone = place.ok("predict", "n1.safetensors --data data");
    for (line, alone) in lines.lines().zip(alone.lines()).skip(1) {
        let columns =
            |line: &str, from: usize| line.split(',').skip(from).take(2).map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(columns(line, 4), columns(alone, 2));
    }
}

#[test]
fn no_other_stage_takes_it_for_a_network() {
    let (place, _) = three();
    cut(&place, "emr.safetensors", "cut.safetensors");
    flip_a_bit(&place, "emr.safetensors", "flipped.safetensors");
    let is = "emr.safetensors is a zipit file of masked networks";
    let words: &[&str] = &[is, "`eval`, `predict` and `inspect`"];
    let data = "--data data";
    let taken = [
        ("collect", format!("emr.safetensors t0.safetensors {data} -o out.h5")),
        ("recalibrate", format!("emr.safetensors {data} -o out.safetensors")),
        ("adapt", format!("emr.safetensors --to t0.safetensors {data} --images 20 -o out.safetensors")),
        ("gate", format!("emr.safetensors {data} -o out.safetensors")),
        ("train", format!("--from emr.safetensors {data} --epochs 1 -o out.safetensors")),
        ("combine", "base.safetensors emr.safetensors --rule average -o out.safetensors".to_owned()),
        ("combine", "emr.safetensors t0.safetensors --rule emr -o out.safetensors".to_owned()),
    ];
    let cases: Vec<(&str, &str, &[&str])> = taken.iter().map(|(stage, args)| (*stage, args.as_str(), words)).collect();
    refused(&place, 1, &cases);
    let ensemble = format!("--ensemble emr.safetensors t0.safetensors {data}");
    let cases: [(&str, &str, &[&str]); 10] = [
        ("import", "emr.safetensors -o out.safetensors", &[is, "import reads"]),
        ("inspect", "emr.safetensors t0.safetensors", &[is, "only if all are models"]),
        ("inspect", "--svg out.svg emr.safetensors", &[is]),
        ("eval", &ensemble, &["emr.safetensors holds masked networks", "an ensemble is of networks by themselves"]),
        ("eval", "cut.safetensors --data data", &["cut.safetensors", "cut"]),
        ("eval", "flipped.safetensors --data data", &["flipped.safetensors", "damaged"]),
        ("predict", "flipped.safetensors --data data -o out.npz", &["flipped.safetensors", "damaged"]),
        ("inspect", "flipped.safetensors", &["flipped.safetensors", "damaged"]),
        (
            "predict",
            "emr.safetensors --task cats --data data -o out.npz",
            &["emr.safetensors: there is no task `cats`; its tasks are: task 0, task 1, task 2"],
        ),
        ("predict", "t0.safetensors --task cats --data data", &["t0.safetensors is one network", "leave --task out"]),
    ];
    refused(&place, 1, &cases);
    let asked = |flags: &str| format!("{NETWORKS} {flags} -o out.safetensors");
    let usage = [
        (asked("--heads merge"), "keeps every network apart, with its own head"),
        (asked("--weights 1,1,1"), "--weights means nothing to --rule emr"),
        (asked("--scale 0.3"), "--scale means nothing to --rule emr"),
        (asked("--density 0.3"), "--density means nothing to --rule emr"),
        (asked("--no-base"), "adds to a base"),
        (asked("--rescalers mean"), "rescalers"),
        (asked("").replace("emr", "ties --rescalers tensors"), "--rescalers means nothing to --rule ties"),
        ("base.safetensors --rule emr -o out.safetensors".to_owned(), "its fine-tunes follow it"),
    ];
    for (args, words) in &usage {
        refused(&place, 2, &[("combine", args, &[words])]);
    }
}
