//! `inspect --svg` and `--dot` of everything that has a network.

use crate::bad_input::refused;
use crate::support::{tiny_graph, two_networks, write};
use serde_json::Value;
use zipit::graph::{Arch, ArchSpec};
use zipit_tests::{Workplace, random_model};

fn svg(place: &Workplace, file: &str) -> String {
    place.ok("inspect", &format!("{file} --svg out.svg --force"));
    let text = String::from_utf8(place.bytes("out.svg")).unwrap();
    assert!(text.starts_with("<svg ") && text.ends_with("</svg>\n"));
    assert_eq!(text.matches("<text").count(), text.matches("</text>").count());
    assert!(!text.contains("NaN") && !text.contains("inf"), "{text}");
    text
}

fn dot(place: &Workplace, file: &str) -> String {
    let text = place.ok("inspect", &format!("{file} --dot"));
    assert_eq!(text.matches('{').count(), text.matches('}').count());
    text
}

#[test]
fn models_stats_and_plans() {
    let place = two_networks(&tiny_graph(), 60);
    place.ok("collect", "a.safetensors b.safetensors --data data -o stats.h5");
    place.ok("match", "stats.h5 --stop-at 13/20 -o plan.bin");
    place.ok("apply", "plan.bin a.safetensors b.safetensors -o merged.safetensors");
    // A network of one task: every node once, boxes for chains, the spaces by number and name.
    let (drawn, text) = (svg(&place, "a.safetensors"), dot(&place, "a.safetensors"));
    for node in &tiny_graph().nodes {
        let named = |text: &str| text.lines().any(|line| line.contains(&format!("{} ", node.name)));
        assert!(named(&drawn) && named(&text), "{}", node.name);
    }
    for word in
        ["Conv2d", "4×12×12", "#0 x, fixed: input", "fixed: output", "task first: 3 classes", "#1 layer1.2.relu_1"]
    {
        assert!(drawn.contains(word) && text.contains(word), "{word}");
    }
    assert!(!drawn.contains("alone") && !text.contains("subgraph"));
    let boxes = text.lines().filter(|line| line.trim_start().starts_with('n') && line.contains("[label")).count();
    assert!(boxes < tiny_graph().nodes.len() / 2, "{boxes} boxes");

    let measured = svg(&place, "stats.h5");
    assert!(measured.contains("stats of 2 models on") && measured.contains("measured: 2 × 4 features"), "{measured}");
    let planned = dot(&place, "plan.bin");
    assert!(
        planned.contains("merged: 8 → 4") && planned.contains("dashed") && planned.contains("penwidth"),
        "{planned}"
    );
    // Two heads in frames of their own behind the trunk.
    let (drawn, text) = (svg(&place, "merged.safetensors"), dot(&place, "merged.safetensors"));
    for model in ["model 0 alone", "model 1 alone", "models.1.linear"] {
        assert!(drawn.contains(model) && text.contains(model), "{model}");
    }
    assert_eq!(text.matches("subgraph cluster_").count(), 2);
    // The same file, the same drawing.
    assert_eq!(svg(&place, "merged.safetensors"), drawn);
}

#[test]
fn descriptions_name_spaces_their_members_and_tasks() {
    let place = two_networks(&tiny_graph(), 60);
    place.ok("collect", "a.safetensors b.safetensors --data data -o stats.h5");
    place.ok("match", "stats.h5 -o plan.bin");
    for (file, words) in [
        ("a.safetensors", ["task", "stored as", "4    2/20  layer1.0.conv1, layer1.0.bn1, layer1.0.relu"]),
        ("stats.h5", ["second: 3, 4, 5", "images", "(15 values)"]),
        ("plan.bin", ["groups", "from stats stats.h5", "(15 values)"]),
    ] {
        let said = place.ok("inspect", file);
        for word in [&words[..], &["fixed spaces", "input x (1), output linear (3)", "made by"]].concat() {
            assert!(said.contains(word), "{file} does not say `{word}`:\n{said}");
        }
        let json: Value = serde_json::from_str(&place.ok("inspect", &format!("{file} --format json"))).unwrap();
        assert_eq!((&json["spaces"][0]["fixed"], &json["spaces"][0]["dim"]), (&Value::from("input"), &Value::from(1)));
        let members = json["spaces"].as_array().unwrap().iter().flat_map(|s| s["members"].as_array().unwrap());
        assert_eq!(members.count(), tiny_graph().nodes.len() + 1, "{file}: every value is in one space here");
        assert_eq!(json["graph"]["arch"], "resnet20");
    }
}

#[test]
fn every_family_in_its_full_depth() {
    let place = Workplace::new();
    for (arch, size) in [(Arch::ResNet50, 64), (Arch::Vgg16Bn, 32), (Arch::ResNet56, 32)] {
        let graph = ArchSpec::new(arch, 0.0625, 3, [size, size], 4).build().unwrap();
        write(&place, "net", &random_model(&graph, 1, "pets", &["cat", "dog", "owl", "<&\\\"hen"]));
        let drawn = svg(&place, "net.safetensors");
        let rects: Vec<[f64; 4]> = drawn.lines().filter(|line| line.contains(" rx=")).map(rect).collect();
        assert!(rects.len() > 10);
        for (i, a) in rects.iter().enumerate() {
            for b in &rects[..i] {
                let apart = (0..2).any(|k| a[k] + a[k + 2] <= b[k] || b[k] + b[k + 2] <= a[k]);
                assert!(apart, "{arch}: boxes lie on each other: {a:?} and {b:?}");
            }
        }
    }
}

/// x, y, width and height.
fn rect(line: &str) -> [f64; 4] {
    ["x", "y", "width", "height"].map(|key| {
        let (_, rest) = line.split_once(&format!(" {key}=\"")).unwrap();
        rest.split('"').next().unwrap().parse().unwrap()
    })
}

#[test]
fn what_cannot_be_drawn_is_refused() {
    let place = two_networks(&tiny_graph(), 60);
    place.ok("eval", "a.safetensors --data data -o report.json");
    refused(
        &place,
        1,
        &[
            ("inspect", "report.json --svg out.svg", &["report.json", "a zipit report", "network to draw"]),
            ("inspect", "absent.safetensors --svg out.svg", &["absent.safetensors"]),
            ("inspect", "data --dot", &["folder"]),
            ("inspect", "a.safetensors --svg nowhere/out.svg", &["nowhere"]),
            ("inspect", "a.safetensors --svg report.json", &["report.json", "--force"]),
        ],
    );
    refused(
        &place,
        2,
        &[
            ("inspect", "a.safetensors b.safetensors --svg out.svg", &["one file"]),
            ("inspect", "a.safetensors --force --svg a.safetensors", &["a.safetensors is an input"]),
            ("inspect", "--verify . --dot", &["--verify"]),
        ],
    );
}
