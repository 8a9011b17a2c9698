//! Networks exported with their graph: `import` takes them without a word more.

use crate::bad_input::refused;
use crate::support::{exported, foreign_safetensors, safetensors, tiny_graph, two_networks, write};
use std::fs;
use zipit_artifact::model;
use zipit_tests::{Workplace, random_model};

fn network() -> zipit::Model {
    random_model(&tiny_graph(), 1, "pets", &["cat", "dog", "owl"])
}

#[test]
fn the_file_says_everything() {
    let place = Workplace::new();
    let network = network();
    fs::write(place.path("net.safetensors"), safetensors(&network, &exported(&network))).unwrap();
    fs::write(place.path("net.pth"), "the checkpoint it was exported from").unwrap();
    place.ok("import", "net.safetensors -o plain.safetensors");
    let plain = model::read(&place.path("plain.safetensors")).unwrap();
    assert_eq!(plain.model, network);
    assert_eq!(plain.provenance.environment["torch"], "2.11.0");
    assert_eq!(plain.provenance.inputs[0].name, "net.safetensors");

    let said = place.ok("import", "net.safetensors --source net.pth --task zoo --classes 5-7 -o named.safetensors");
    assert!(said.contains("task `zoo` with 3 classes (5, 6, 7)"), "{said}");
    let named = model::read(&place.path("named.safetensors")).unwrap();
    assert_eq!((&*named.model.tasks[0].name, &*named.model.tasks[0].classes[2]), ("zoo", "7"));
    assert_eq!(named.model.weights, network.weights);
    let inputs: Vec<_> = named.provenance.inputs.iter().map(|i| i.name.as_str()).collect();
    assert_eq!(inputs, ["net.pth"]);
    assert!(named.provenance.environment.contains_key("exported"));
    // The same again is up to date; the same checkpoint exported otherwise is not.
    let again = "net.safetensors --source net.pth --task zoo --classes 5-7 -o named.safetensors";
    place.run("import", again).code(0).says(&["up to date"]);
    let mut other = network.clone();
    other.preprocess.mean = vec![0.25];
    fs::write(place.path("net.safetensors"), safetensors(&network, &exported(&other))).unwrap();
    assert!(!place.ok("import", again).is_empty());
    assert_eq!(model::read(&place.path("named.safetensors")).unwrap().model.preprocess.mean, [0.25]);
}

#[test]
fn several_tasks_are_renamed_one_after_the_other() {
    let place = two_networks(&tiny_graph(), 60);
    place.ok("collect", "a.safetensors b.safetensors --data data -o stats.h5");
    place.ok("match", "stats.h5 --stop-at 7/20 -o plan.bin");
    place.ok("apply", "plan.bin a.safetensors b.safetensors -o merged.safetensors");
    let merged = model::read(&place.path("merged.safetensors")).unwrap().model;
    fs::write(place.path("two.safetensors"), safetensors(&merged, &exported(&merged))).unwrap();
    place.ok("import", "two.safetensors --task x --task y --classes a,b,c,d,e,f -o renamed.safetensors");
    let renamed = model::read(&place.path("renamed.safetensors")).unwrap().model;
    assert_eq!(renamed.graph, merged.graph);
    let tasks: Vec<_> = renamed.tasks.iter().map(|t| (t.name.as_str(), t.classes.concat())).collect();
    assert_eq!(tasks, [("x", "abc".to_owned()), ("y", "def".to_owned())]);
    refused(
        &place,
        1,
        &[
            ("import", "two.safetensors --task x -o out.safetensors", &["2 task(s)", "names 1"]),
            ("import", "two.safetensors --classes a,b,c -o out.safetensors", &["6 classes", "names 3"]),
        ],
    );
}

#[test]
fn what_cannot_be_a_network_is_refused() {
    let place = Workplace::new();
    let network = network();
    write(&place, "ours", &network);
    fs::write(place.path("bare.safetensors"), foreign_safetensors(&network)).unwrap();
    let metadata = |key: &str, value: Option<&str>| {
        let mut metadata = exported(&network);
        metadata.retain(|(k, _)| *k != key || value.is_some());
        for (_, text) in metadata.iter_mut().filter(|(k, _)| *k == key) {
            value.unwrap().clone_into(text);
        }
        metadata
    };
    let file = |name: &str, bytes: Vec<u8>| fs::write(place.path(&format!("{name}.safetensors")), bytes).unwrap();
    let graph = serde_json::to_string(&network.graph).unwrap();
    file("cut_graph", safetensors(&network, &metadata("zipit.graph", Some(&graph[..graph.len() / 2]))));
    file(
        "odd_op",
        safetensors(
            &network,
            &metadata("zipit.graph", Some(&graph.replacen("\"op\":\"relu\"", "\"op\":\"warp_drive\"", 1))),
        ),
    );
    file(
        "odd_input",
        safetensors(&network, &metadata("zipit.graph", Some(&graph.replacen("[\"conv1\"]", "[\"conv9\"]", 1)))),
    );
    file("no_tasks", safetensors(&network, &metadata("zipit.tasks", None)));
    file("two_tasks", safetensors(&network, &metadata("zipit.tasks", Some("[]"))));
    file("mean", safetensors(&network, &metadata("zipit.preprocess", Some(r#"{"size": [12, 12], "mean": 3}"#))));
    file("environment", safetensors(&network, &metadata("zipit.environment", Some("[1]"))));
    let mut odd = network.clone();
    odd.weights.remove("bn1.weight");
    odd.weights.insert("extra.weight".into(), ndarray::ArrayD::zeros(vec![2]));
    file("odd", safetensors(&odd, &exported(&network)));
    let integer = safetensors(&network, &exported(&network));
    let at = integer.windows(13).position(|w| w == br#""dtype":"F32""#).unwrap();
    let mut integer = integer;
    integer[at + 9] = b'I';
    file("integer", integer);
    let mut cut = safetensors(&network, &exported(&network));
    cut.truncate(cut.len() / 2);
    file("cut", cut);
    let mut infinite = network.clone();
    infinite.weights.get_mut("linear.bias").unwrap()[[1]] = f32::INFINITY;
    file("infinite", safetensors(&infinite, &exported(&network)));

    let case = |name: &str| format!("{name}.safetensors -o out.safetensors");
    refused(
        &place,
        1,
        &[
            ("import", &case("ours"), &["ours.safetensors", "zipit model already"]),
            ("import", &case("cut_graph"), &["cut_graph.safetensors", "graph cannot be understood"]),
            ("import", &case("odd_op"), &["odd_op.safetensors", "warp_drive"]),
            ("import", &case("odd_input"), &["odd_input.safetensors", "conv9"]),
            ("import", &case("no_tasks"), &["no_tasks.safetensors", "zipit.tasks"]),
            ("import", &case("two_tasks"), &["two_tasks.safetensors", "1 outputs but 0 tasks"]),
            ("import", &case("mean"), &["mean.safetensors", "preprocessing cannot be understood"]),
            ("import", &case("environment"), &["environment.safetensors", "environment cannot be understood"]),
            ("import", &case("odd"), &["odd.safetensors", "bn1.weight", "extra.weight"]),
            ("import", &case("integer"), &["integer.safetensors", "I32", "no floating-point"]),
            ("import", &case("cut"), &["cut.safetensors"]),
            ("import", &case("infinite"), &["infinite.safetensors", "linear.bias", "not finite"]),
            ("import", &format!("{} --source absent.pth", case("odd_op")), &["odd_op"]),
            ("inspect", "bare.safetensors", &["import"]),
        ],
    );
    file("good", safetensors(&network, &exported(&network)));
    refused(
        &place,
        1,
        &[
            ("import", "good.safetensors --task gate -o out.safetensors", &["a task is called `gate`"]),
            ("import", &format!("{} --task=", case("good")), &["a task has no name"]),
            ("import", &format!("{} --classes a,,b", case("good")), &["class 1 has no name"]),
        ],
    );
    fs::write(place.path("classes.txt"), "\u{feff}cat\ndog\nowl\n").unwrap();
    let said = place.ok("import", "good.safetensors --classes-file classes.txt -o named.safetensors");
    assert!(said.contains("(cat, dog, owl)"), "{said}");
    let flags = "--arch resnet20 --classes 0-2 --size 12 --mean 0.5 --std 0.25 -o out.safetensors";
    refused(&place, 1, &[("import", &format!("{} --source absent.pth", case("good")), &["absent.pth"])]);
    refused(
        &place,
        2,
        &[
            ("import", &case("bare"), &["bare.safetensors", "--arch", "resnet50", "scripts/zipit_torch.py export"]),
            ("import", &format!("{} --size 12", case("good")), &["--arch"]),
            ("import", &format!("{} --key ema", case("good")), &["--arch"]),
            ("import", &format!("good.safetensors --source x.pth {flags}"), &["--source"]),
        ],
    );
    // Whoever names the architecture decides: the graph in the file is not looked at.
    place.ok("import", &format!("odd_op.safetensors {flags}"));
}
