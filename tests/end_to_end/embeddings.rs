//! `train --embeddings`: networks of different tasks in one label space, merged with one head; `--mean`, `--std`;
//! `--classes`.

use crate::support::{tensors, tiny_graph, two_networks};
use ndarray::Array2;
use serde_json::{Value, json};
use std::fs;
use zipit_artifact::{model, stats::StatsReader};
use zipit_tests::{Workplace, write_idx};

const TRAIN: &str = "--arch resnet20 --width 0.25 --data data --epochs 1 --batch-size 16 --no-flip";

/// Six classes, a vector of three numbers for each.
fn place() -> (Workplace, Array2<f32>) {
    let place = Workplace::new();
    write_idx(&place.path("data"), 240, 12, 6);
    let vectors = Array2::from_shape_fn((6, 3), |(i, j)| ((i * 7 + j * 5) % 11) as f32 / 10.0 - 0.5);
    let object: serde_json::Map<String, Value> =
        (0..6).map(|i| (i.to_string(), json!(vectors.row(i).to_vec()))).collect();
    fs::write(place.path("words.json"), Value::Object(object).to_string()).unwrap();
    (place, vectors)
}

#[test]
fn networks_of_different_tasks_share_a_head() {
    let (place, vectors) = place();
    place.ok("train", &format!("{TRAIN} --embeddings words.json --classes 0-2 --seed 1 -o a.safetensors"));
    place.ok("train", &format!("{TRAIN} --embeddings words.json --classes 3-5 --seed 2 -o b.safetensors"));
    for name in ["a", "b"] {
        let file = format!("{name}.safetensors");
        // The vectors are as they were given, of all classes; the layer before them has learned.
        assert_eq!(tensors(&place, &file)["classes.weight"], vectors.clone().into_dyn());
        let network = model::read(&place.path(&file)).unwrap();
        assert_eq!(network.model.tasks[0].classes, ["0", "1", "2", "3", "4", "5"]);
        assert!(network.provenance.inputs.iter().any(|input| input.kind == "embeddings"));
    }
    place.ok("collect", "a.safetensors b.safetensors --data data -o stats.h5");
    place.ok("match", "stats.h5 -o plan.bin");
    place.ok("refit", "plan.bin a.safetensors b.safetensors --heads merge --data data -o merged.safetensors");
    let refit = |trust: &str| {
        place.ok(
            "refit",
            &format!(
                "plan.bin a.safetensors b.safetensors --heads merge --trust {trust} --data data -o {trust}.safetensors"
            ),
        );
        tensors(&place, &format!("{trust}.safetensors"))
    };
    // The surest network is believed, unless all are to be.
    let merged = tensors(&place, "merged.safetensors");
    assert!(refit("surest") == merged && refit("all") != merged);
    let table = place.ok("eval", "merged.safetensors --data data --format json");
    let report: Value = serde_json::from_str(&table).unwrap();
    // One output, on all 240 test images.
    let tasks = report["rows"][0]["scores"]["tasks"].as_array().unwrap();
    assert_eq!((tasks.len(), &tasks[0]["score"]["n"]), (1, &json!(240)));
    assert_eq!(tasks[0]["classes"].as_array().unwrap().len(), 6);
}

#[test]
fn embeddings_and_statistics_that_do_not_fit_are_refused() {
    let (place, _) = place();
    for (text, words) in [
        ("[1, 2]", "expected a JSON object of class names and vectors"),
        ("{\"0\": [1, 2]}", "has no vector for class `1`"),
        (
            r#"{"0": [1], "1": [1, 2], "2": [1], "3": [1], "4": [1], "5": [1]}"#,
            "the vector of `1` has 2 numbers, expected 1",
        ),
        (r#"{"0": [], "1": [], "2": [], "3": [], "4": [], "5": []}"#, "the vector of `0` has 0 numbers"),
        (r#"{"0": [1e39], "1": [1], "2": [1], "3": [1], "4": [1], "5": [1]}"#, "bad.json"),
    ] {
        fs::write(place.path("bad.json"), text).unwrap();
        place.fails("train", &format!("{TRAIN} --embeddings bad.json -o c.safetensors"), &["bad.json", words]);
    }
    place.fails("train", &format!("{TRAIN} --embeddings none.json -o c.safetensors"), &["cannot read none.json"]);
    for given in ["--mean 0.1,0.2 --std 0.5,0.5", "--mean 0.1 --std 0", "--mean nan --std 0.5"] {
        place.fails("train", &format!("{TRAIN} {given} -o c.safetensors"), &["1 channels", "give 1 numbers for each"]);
    }
    assert!(!place.path("c.safetensors").exists());
    place.ok("train", &format!("{TRAIN} --mean 0.25 --std 0.5 -o c.safetensors"));
    let given = model::read(&place.path("c.safetensors")).unwrap().model.preprocess;
    assert_eq!((given.mean, given.std), (vec![0.25], vec![0.5]));
}

#[test]
fn statistics_of_some_classes_only() {
    let place = two_networks(&tiny_graph(), 120);
    let images = |name: &str| StatsReader::open(&place.path(name)).unwrap().header().n_images;
    place.ok("collect", "a.safetensors b.safetensors --data data -o all.h5");
    place.ok("collect", "a.safetensors b.safetensors --data data --classes 0-1,4 -o some.h5");
    // Every tenth of the 120 images is for validation, and 4 of the 60 of these classes.
    assert_eq!((images("all.h5"), images("some.h5")), (108, 56));
    place.fails("collect", "a.safetensors b.safetensors --data data --classes 9 -o none.h5", &["data: --classes", "9"]);
    let both = place.run("recalibrate", "a.safetensors --data data --classes 0 --all-classes -o r.safetensors");
    both.code(2).says(&["cannot be used with"]);
}
