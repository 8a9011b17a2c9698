//! `combine`: fine-tunes of one base, merged by what fine-tuning changed.

use crate::bad_input::{cut, flip_a_bit, refused};
use crate::support::{max_difference, tensors, tiny_graph, two_networks, write};
use ndarray::ArrayD;
use serde_json::Value;
use zipit::graph::{Graph, Input, Node, Op};
use zipit::{Model, Preprocess, Task};
use zipit_artifact::model;
use zipit_tests::{Workplace, random_model, repository, write_idx};

/// Every rule, as it is asked for.
const RULES: [&str; 13] = [
    "average",
    "average --weights 1,3",
    "slerp --t 0.3",
    "task-arithmetic",
    "ties",
    "ties --trim-scope tensor --disjoint sum",
    "dare --seed 5",
    "dare-ties --rescale l1",
    "breadcrumbs --density 0.5 --gamma 0.1",
    "model-stock",
    "iso-c",
    "iso-cts --common 0.5",
    "tsv-m",
];

/// A body of one matrix that all networks have, and a head of each one's own.
pub fn one_matrix(body: &[f32], task: &str, n_classes: usize) -> Model {
    let linear = |i, o| Op::Linear { in_features: i, out_features: o, bias: false };
    let with_weight =
        |name: &str, op, input: &str| Node { module: Some(name.into()), ..Node::new(name, op, vec![input.into()]) };
    let graph = Graph {
        arch: "one matrix".into(),
        input: Input { name: "x".into(), shape: vec![4, 1, 1] },
        nodes: vec![
            Node::new("flat", Op::Flatten, vec!["x".into()]),
            with_weight("body", linear(4, 2), "flat"),
            Node::new("relu", Op::Relu, vec!["body".into()]),
            with_weight("head", linear(2, n_classes), "relu"),
        ],
        outputs: vec!["head".into()],
    };
    let classes: Vec<String> = (0..n_classes).map(|c| format!("{task} {c}")).collect();
    let tensor = |shape: &[usize], values: Vec<f32>| ArrayD::from_shape_vec(shape, values).unwrap();
    let head = (0..2 * n_classes).map(|i| i as f32 - 1.5).collect();
    let weights = [
        ("body.weight".to_owned(), tensor(&[2, 4], body.to_vec())),
        ("head.weight".to_owned(), tensor(&[n_classes, 2], head)),
    ];
    let preprocess = Preprocess::new([1, 1], vec![0.5; 4], vec![0.25; 4]);
    Model { graph, weights: weights.into(), tasks: vec![Task { name: task.into(), classes }], preprocess, joint: None }
}

/// A base and fine-tunes of it that moved a little.
pub fn fine_tunes(place: &Workplace, n: usize) {
    let base = random_model(&tiny_graph(), 1, "base", &["p", "q", "r"]);
    write(place, "base", &base);
    for i in 0..n {
        let classes = [0, 1, 2].map(|c| format!("{}", 3 * i + c));
        let mut tuned =
            random_model(&tiny_graph(), 7 + i as u64, &format!("task {i}"), &classes.each_ref().map(String::as_str));
        for (name, tensor) in tuned.weights.iter_mut().filter(|(name, _)| !name.starts_with("linear")) {
            *tensor = &base.weights[name] + &(&*tensor * 0.05);
        }
        write(place, &format!("t{i}"), &tuned);
    }
}

#[test]
fn rules_give_what_other_tools_give() {
    let text = std::fs::read_to_string(repository().join("tests/golden/combine/values.json")).unwrap();
    let golden: Value = serde_json::from_str(&text).unwrap();
    let numbers =
        |value: &Value| -> Vec<f32> { value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect() };
    let place = Workplace::new();
    let base = numbers(&golden["base"]);
    write(&place, "base", &one_matrix(&base, "before", 5));
    let add = |vector: &[f32]| base.iter().zip(vector).map(|(b, v)| b + v).collect::<Vec<f32>>();
    let [a, b] = [0, 1].map(|t| add(&numbers(&golden["vectors"][t])));
    let minus: Vec<f32> = a.iter().map(|x| -x).collect();
    for (name, body, n_classes) in [("a", &a, 2), ("b", &b, 3), ("minus", &minus, 2)] {
        write(&place, name, &one_matrix(body, name, n_classes));
    }
    let cases = golden["cases"].as_array().unwrap();
    assert!(cases.len() >= 16, "{} cases", cases.len());
    for case in cases {
        let args = case["args"].as_str().unwrap();
        let other = if args.contains("OPPOSITE") { "minus" } else { "b" };
        let args = args.replace(" OPPOSITE", "");
        place.ok(
            "combine",
            &format!("base.safetensors a.safetensors {other}.safetensors {args} --force -o out.safetensors"),
        );
        let out = tensors(&place, "out.safetensors");
        let draws: Vec<u64> = case["draws"].as_array().unwrap().iter().map(|i| i.as_u64().unwrap()).collect();
        for (i, (&ours, theirs)) in out["body.weight"].iter().zip(numbers(&case["value"])).enumerate() {
            // No sign has more weight there: others choose one, ours keeps the base.
            let wanted = if draws.contains(&(i as u64)) { base[i] } else { theirs };
            assert!(
                (ours - wanted).abs() <= 1e-6 * wanted.abs().max(1.0),
                "{} {args}, entry {i}: {ours} {wanted}",
                case["tool"]
            );
        }
    }
    // Heads stay as they are.
    let out = model::read(&place.path("out.safetensors")).unwrap().model;
    assert_eq!(out.weights["models.0.head.weight"].shape(), [2, 2]);
    assert_eq!(out.weights["models.1.head.weight"], one_matrix(&b, "b", 3).weights["head.weight"]);
    assert_eq!(out.tasks.iter().map(|task| task.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
}

#[test]
fn every_rule_makes_one_network_of_three() {
    let place = Workplace::new();
    write_idx(&place.path("data"), 90, 12, 9);
    fine_tunes(&place, 3);
    for (at, rule) in RULES.iter().enumerate() {
        let networks = if rule.starts_with("slerp") {
            "t0.safetensors t1.safetensors"
        } else {
            "t0.safetensors t1.safetensors t2.safetensors"
        };
        let rule = if rule.starts_with("average --weights") { "average --weights 1,3,2" } else { rule };
        let args = format!("base.safetensors {networks} --rule {rule}");
        let said = place.ok("combine", &format!("{args} --threads 1 -o m{at}.safetensors"));
        assert!(said.contains("→ 1 network with") && said.contains("recalibrate m"), "{said}");
        place.ok("combine", &format!("{args} --threads 3 -o same.safetensors --force"));
        assert_eq!(
            place.bytes("same.safetensors"),
            place.bytes(&format!("m{at}.safetensors")),
            "{rule}: threads matter"
        );
        place.ok("recalibrate", &format!("m{at}.safetensors --data data -o r{at}.safetensors"));
        let said = place.run("combine", &format!("{args} -o m{at}.safetensors")).code(0).stderr();
        assert!(said.contains("is up to date"), "{said}");
    }
    let out = model::read(&place.path("r3.safetensors")).unwrap().model;
    assert_eq!(out.tasks.len(), 3);
    place.ok("eval", "r3.safetensors r12.safetensors --data data");
    // What was measured of images is averaged whatever the rule.
    let [merged, t0, t1, t2] = ["m3", "t0", "t1", "t2"].map(|name| tensors(&place, &format!("{name}.safetensors")));
    let mean = (&t0["bn1.running_mean"] + &t1["bn1.running_mean"] + &t2["bn1.running_mean"]) / 3.0;
    assert!(max_difference(&merged["bn1.running_mean"], &mean) < 1e-6);
    for (i, tuned) in [t0, t1, t2].iter().enumerate() {
        assert_eq!(merged[&format!("models.{i}.linear.weight")], tuned["linear.weight"]);
    }
}

#[test]
fn heads_of_one_label_space_become_one() {
    let place = two_networks(&tiny_graph(), 60);
    fine_tunes(&place, 1);
    let mut again = model::read(&place.path("t0.safetensors")).unwrap().model;
    again.weights.values_mut().for_each(|tensor| *tensor *= 1.5);
    again.tasks[0].name = "elsewhere".into();
    write(&place, "again", &again);
    let networks = "base.safetensors t0.safetensors again.safetensors";
    place.ok("combine", &format!("{networks} --rule task-arithmetic --scale 0.5 --heads merge -o one.safetensors"));
    let [out, t0] = ["one", "t0"].map(|name| tensors(&place, &format!("{name}.safetensors")));
    assert!(
        max_difference(&out["linear.weight"], &(&t0["linear.weight"] * 1.25)) < 1e-5,
        "as the base has such a head: half of both vectors"
    );
    // A base with other classes has no such head: the mean.
    write(
        &place,
        "wide",
        &random_model(
            &zipit::graph::ArchSpec::new(zipit::graph::Arch::ResNet20, 0.25, 1, [12, 12], 9).build().unwrap(),
            1,
            "wide",
            &["0", "1", "2", "3", "4", "5", "6", "7", "8"],
        ),
    );
    let networks = "wide.safetensors t0.safetensors again.safetensors";
    place.ok("combine", &format!("{networks} --rule task-arithmetic --heads merge -o mean.safetensors"));
    assert!(
        max_difference(&tensors(&place, "mean.safetensors")["linear.weight"], &(&t0["linear.weight"] * 1.25)) < 1e-6
    );
    // One network on its way from the base.
    place.ok("combine", "base.safetensors t0.safetensors --rule task-arithmetic --scale 0.5 -o half.safetensors");
    let [half, base] = ["half", "base"].map(|name| tensors(&place, &format!("{name}.safetensors")));
    let middle = (&base["conv1.weight"] + &t0["conv1.weight"]) / 2.0;
    assert!(max_difference(&half["conv1.weight"], &middle) < 1e-6);
    let other = "base.safetensors t0.safetensors b.safetensors --rule average --heads merge -o no.safetensors";
    place.fails("combine", other, &["heads cannot be merged", "network 2"]);
}

#[test]
fn files_of_fewer_bits_are_read_and_written() {
    let place = Workplace::new();
    fine_tunes(&place, 2);
    let networks = "base.safetensors t0.safetensors t1.safetensors --rule ties";
    place.ok("combine", &format!("{networks} -o f32.safetensors"));
    for dtype in ["bf16", "f16"] {
        place.ok("combine", &format!("{networks} --dtype {dtype} -o {dtype}.safetensors"));
        let [few, all] = [dtype, "f32"].map(|name| tensors(&place, &format!("{name}.safetensors")));
        for (name, tensor) in &all {
            let bound = tensor.iter().fold(0.0_f32, |most, x| most.max(x.abs())) / 128.0;
            assert!(max_difference(tensor, &few[name]) <= bound, "{dtype} {name}");
        }
        // It is a model like any other, and what is made of it says so.
        place.ok(
            "combine",
            &format!("base.safetensors {dtype}.safetensors --rule average --dtype input -o again.safetensors --force"),
        );
        assert_eq!(
            place.bytes("again.safetensors").len() / 1000,
            place.bytes(&format!("{dtype}.safetensors")).len() / 1000
        );
    }
    // What is written piece by piece is what is written at once.
    let file = model::read(&place.path("f32.safetensors")).unwrap();
    model::write(&place.path("once.safetensors"), &file.model, &file.provenance).unwrap();
    assert_eq!(place.bytes("once.safetensors"), place.bytes("f32.safetensors"));
}

#[test]
fn a_base_that_is_none_is_told() {
    let place = Workplace::new();
    fine_tunes(&place, 2);
    write(&place, "other", &random_model(&tiny_graph(), 99, "other", &["p", "q", "r"]));
    let run = |base: &str| {
        let args = format!(
            "{base}.safetensors t0.safetensors t1.safetensors --rule task-arithmetic -o {base}_out.safetensors"
        );
        place.run("combine", &args).code(0).stderr()
    };
    let said = run("other");
    assert!(
        said.contains("t0.safetensors seems to be no fine-tune of the base") && said.contains("t1.safetensors seems"),
        "{said}"
    );
    assert!(said.contains("cosine of their weights is"), "{said}");
    let said = run("base");
    assert!(!said.contains("no fine-tune"), "{said}");
}

#[test]
fn what_cannot_be_combined_is_refused() {
    let place = two_networks(&tiny_graph(), 60);
    fine_tunes(&place, 2);
    cut(&place, "t1.safetensors", "cut.safetensors");
    flip_a_bit(&place, "t1.safetensors", "flipped.safetensors");
    let wide = zipit::graph::ArchSpec::new(zipit::graph::Arch::ResNet20, 0.5, 1, [12, 12], 3).build().unwrap();
    write(&place, "wide", &random_model(&wide, 3, "wide", &["0", "1", "2"]));
    let mut bright = model::read(&place.path("t1.safetensors")).unwrap().model;
    bright.preprocess.mean = vec![0.1];
    write(&place, "bright", &bright);
    let mut nan = place.bytes("t1.safetensors");
    let end = nan.len();
    nan[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    std::fs::write(place.path("nan.safetensors"), nan).unwrap();
    let other =
        |name: &str, rule: &str| format!("base.safetensors t0.safetensors {name} --rule {rule} -o out.safetensors");
    let two = |rule: &str| other("t1.safetensors", rule);
    let cases: Vec<(String, Vec<&str>)> = vec![
        (other("cut.safetensors", "ties"), vec!["cut.safetensors", "cut"]),
        (other("flipped.safetensors", "ties"), vec!["flipped.safetensors", "damaged"]),
        (other("nan.safetensors", "ties"), vec!["nan.safetensors"]),
        (other("none.safetensors", "ties"), vec!["none.safetensors", "no such file"]),
        (other("data", "ties"), vec!["data"]),
        (other("wide.safetensors", "average"), vec!["model 3 is wide.safetensors", "model 3: `conv1`"]),
        (other("bright.safetensors", "average"), vec!["model 3: preprocessing's mean"]),
        (two("ties --density 0"), vec!["the density is 0"]),
        (two("ties --density 1.5"), vec!["the density is 1.5"]),
        (two("dare --density -1"), vec!["the density is -1"]),
        (two("breadcrumbs --gamma 1"), vec!["gamma is 1"]),
        (two("slerp --t 2"), vec!["t is 2"]),
        (two("iso-cts --common 3"), vec!["the common share is 3"]),
        (two("task-arithmetic --scale inf"), vec!["the scale is inf"]),
        (two("average --weights 1,-1"), vec!["add up to zero"]),
        (two("average --weights NaN,1"), vec!["weight is NaN"]),
        ("base.safetensors t0.safetensors --rule model-stock -o out.safetensors".into(), vec!["give two at least"]),
        (
            "base.safetensors t0.safetensors --rule slerp -o out.safetensors".into(),
            vec!["between two networks: 1 are given"],
        ),
    ];
    let cases: Vec<(&str, &str, &[&str])> =
        cases.iter().map(|(args, words)| ("combine", args.as_str(), words.as_slice())).collect();
    refused(&place, 1, &cases);
    let usage = [
        two("average --density 0.5"),
        two("ties --t 0.5"),
        two("ties --weights 1,2,3"),
        two("model-stock --weights 1,2"),
        two("ties --no-base"),
        two("mean"),
        "base.safetensors --rule ties -o out.safetensors".to_owned(),
        "base.safetensors t0.safetensors --rule ties -o t0.safetensors".to_owned(),
    ];
    let usage: Vec<(&str, &str, &[&str])> =
        usage.iter().map(|args| ("combine", args.as_str(), [].as_slice())).collect();
    refused(&place, 2, &usage);
    // What infinity comes of is not written.
    place.fails("combine", &two("task-arithmetic --scale 1e45"), &["out.safetensors", "would hold"]);
    assert!(!place.path("out.safetensors").exists());
}
