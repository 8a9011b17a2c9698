//! Joint prediction: a gate, a temperature and a bias per head.

use crate::support::{tensors, tiny_graph, two_networks};
use serde_json::Value;
use zipit_artifact::model;
use zipit_tests::Workplace;

const MODELS: &str = "a.safetensors b.safetensors";

fn report(place: &Workplace, name: &str) -> Value {
    serde_json::from_slice::<Value>(&place.bytes(name)).unwrap()["report"].clone()
}

/// A merged network, with its gate.
fn gated() -> Workplace {
    let place = two_networks(&tiny_graph(), 400);
    place.ok("collect", &format!("{MODELS} --data data -o stats.h5"));
    place.ok("match", "stats.h5 -o plan.bin");
    place.ok("refit", &format!("plan.bin {MODELS} --data data --images 300 -o network.safetensors"));
    place.ok("gate", "network.safetensors --data data --images 350 -o gated.safetensors");
    place
}

#[test]
fn a_gate_changes_no_head_and_eval_shows_every_rule() {
    let place = gated();
    place.ok("gate", &format!("{MODELS} --data data -o ensemble.safetensors"));
    let said = place.ok(
        "eval",
        "a.safetensors b.safetensors network.safetensors gated.safetensors ensemble.safetensors --data data \
         --logits logits.safetensors -o report.json",
    );
    for word in ["calibrated", "gate", "task found", "task identity", "gradients"] {
        assert!(said.contains(word), "no {word} in\n{said}");
    }
    let logits = tensors(&place, "logits.safetensors");
    for task in ["first", "second"] {
        assert_eq!(logits[&format!("network/{task}")], logits[&format!("gated/{task}")], "{task}");
    }
    let report = report(&place, "report.json");
    let row = |name: &str| report["rows"].as_array().unwrap().iter().find(|r| r["model"] == name).unwrap().clone();
    let gated = row("gated");
    assert_eq!(gated["kind"], "merged");
    assert_eq!(row("ensemble")["kind"], "ensemble");
    for rule in ["softmax", "calibrated", "gate", "task"] {
        assert!(gated["scores"]["joint"][rule]["n"].as_u64() == Some(400), "{rule}: {gated}");
    }
    assert!(row("network")["scores"]["joint"]["gate"].is_null());
    // What made it: 360 images to match (every tenth is kept for validation), 300 to refit, 350 to gate, of which only the gate knew the task.
    let used = &gated["used"];
    let n = |stage: &str| used["images"].as_array().unwrap().iter().find(|s| s["stage"] == stage).unwrap()["n"].clone();
    assert_eq!([n("collect"), n("refit"), n("gate")], [360, 300, 350].map(Value::from));
    assert_eq!(used["task_identity"], true);
    assert_eq!(
        [&used["labels"], &used["gradients"], &row("network")["used"]["task_identity"]],
        [&Value::from(false); 3]
    );
}

#[test]
fn a_gate_finds_tasks_whose_images_differ() {
    // The classes' images are alike, but bright ones are of the one task and dark ones of the other.
    let place = two_networks(&tiny_graph(), 600);
    for part in ["train", "t10k"] {
        let (images, labels) = (format!("data/{part}-images-idx3-ubyte"), format!("data/{part}-labels-idx1-ubyte"));
        let (mut pixels, labels) = (place.bytes(&images), place.bytes(&labels));
        for (i, &label) in labels[8..].iter().enumerate() {
            for pixel in &mut pixels[16 + i * 144..16 + (i + 1) * 144] {
                *pixel = *pixel / 2 + if label > 2 { 127 } else { 0 };
            }
        }
        std::fs::write(place.path(&images), pixels).unwrap();
    }
    place.ok("gate", &format!("{MODELS} --data data -o gated.safetensors"));
    place.ok("eval", "gated.safetensors --data data -o report.json");
    let joint = report(&place, "report.json")["rows"][0]["scores"]["joint"].clone();
    let right = |rule: &str| joint[rule]["n_correct"].as_f64().unwrap() / joint[rule]["n"].as_f64().unwrap();
    assert!(right("task") > 0.95, "{joint}");
    assert!(right("gate") > right("softmax"), "{joint}");
}

#[test]
fn a_gated_network_is_merged_and_recalibrated_without_its_gate() {
    let place = gated();
    // Gated again, it is the same: the old gate is no part of the features.
    place.ok("gate", "gated.safetensors --data data --images 350 -o again.safetensors");
    assert_eq!(tensors(&place, "gated.safetensors"), tensors(&place, "again.safetensors"));
    let gate = model::read(&place.path("gated.safetensors")).unwrap().model;
    assert_eq!(gate.graph.outputs.len(), 3);
    place.ok("collect", "gated.safetensors gated.safetensors --data data -o two.h5");
    place.ok("match", "two.h5 --method identity --unmerge pinv -o two.bin");
    place.ok("apply", "two.bin gated.safetensors gated.safetensors -o twins.safetensors");
    assert_eq!(model::read(&place.path("twins.safetensors")).unwrap().model.graph.outputs.len(), 4);
    place.run("recalibrate", "gated.safetensors --data data -o bn.safetensors").code(0).says(&["gate"]);
    assert_eq!(model::read(&place.path("bn.safetensors")).unwrap().model.joint, None);
    let said = place.ok("inspect", "gated.safetensors");
    assert!(said.contains("one logit per task") && said.contains("calibration"), "{said}");
}

#[test]
fn what_cannot_be_gated_is_refused() {
    let place = two_networks(&tiny_graph(), 60);
    place.fails("gate", "a.safetensors --data data -o g.safetensors", &["a.safetensors", "one head"]);
    place.fails("gate", "a.safetensors absent.safetensors --data data -o g.safetensors", &["absent.safetensors"]);
    place.fails("gate", &format!("{MODELS} --data data --images 2 -o g.safetensors"), &["too few images", "use more"]);
    place.run("gate", &format!("{MODELS} -o g.safetensors")).code(2).says(&["--data"]);
    place.run("gate", &format!("{MODELS} --data data -o a.safetensors")).code(2).says(&["another name"]);
    // Tasks that share their classes are told apart by their data sets, one for each.
    place.ok("collect", "a.safetensors a.safetensors --data data -o stats.h5");
    place.ok("match", "stats.h5 -o plan.bin");
    place.ok("apply", "plan.bin a.safetensors a.safetensors -o same.safetensors");
    place.fails(
        "gate",
        "same.safetensors --data data -o g.safetensors",
        &["is in 2 of the tasks", "one --data per task"],
    );
    place.ok("gate", "same.safetensors --data data --data data -o g.safetensors");
    assert!(place.path("g.safetensors").exists());
}
