//! Checkpoints as training programs save them: other tensors beside the weights, prefixes, counters that became floats.

use crate::support::{exported, safetensors, tiny_graph};
use ndarray::{ArrayD, IxDyn};
use zipit::Model;
use zipit_artifact::model;
use zipit_tests::{Workplace, random_model};

const IMPORT: &str = "--arch resnet20 --classes 0,1,2 --size 12 --mean 0.5 --std 0.25";

fn network() -> Model {
    random_model(&tiny_graph(), 1, "net", &["0", "1", "2"])
}

/// The network's tensors as another program stores them.
fn stored(change: impl FnOnce(&mut Model)) -> Vec<u8> {
    let mut network = network();
    change(&mut network);
    safetensors(&network, &[])
}

fn ones(shape: &[usize]) -> ArrayD<f32> {
    ArrayD::ones(IxDyn(shape))
}

#[test]
fn what_is_not_the_networks_is_left_out_by_name() {
    let place = Workplace::new();
    let files: [(&str, Vec<u8>, &[&str]); 4] = [
        (
            "trained",
            stored(|net| {
                net.weights =
                    std::mem::take(&mut net.weights).into_iter().map(|(n, t)| (format!("model.{n}"), t)).collect();
                net.weights.insert("model.bn1.num_batches_tracked".into(), ones(&[]));
                net.weights.insert("criterion.pos_weight".into(), ones(&[]));
            }),
            &["took the tensors under `model`", "left 1 other tensor in the checkpoint alone (criterion.pos_weight)"],
        ),
        (
            "best",
            stored(|net| {
                net.weights.insert("best_acc".into(), ones(&[]));
                net.weights.insert("layer1.0.conv1.total_ops".into(), ones(&[1]));
            }),
            &["left 2 other tensors in the checkpoint alone (best_acc, layer1.0.conv1.total_ops)"],
        ),
        (
            "half",
            stored(|net| {
                net.weights.insert("bn1.num_batches_tracked".into(), ones(&[]));
            }),
            &["left 1 tensors that only count"],
        ),
        (
            // safetensors' save_model stores a tensor with two names once.
            "alias",
            {
                let mut network = network();
                let tensor = network.weights.remove("linear.weight").unwrap();
                network.weights.insert("classifier.weight".into(), tensor);
                safetensors(&network, &[("format", "pt".to_owned()), ("linear.weight", "classifier.weight".to_owned())])
            },
            &["left 1 other tensor in the checkpoint alone (classifier.weight)"],
        ),
    ];
    for (name, bytes, words) in files {
        std::fs::write(place.path(&format!("{name}.safetensors")), bytes).unwrap();
        place.run("import", &format!("{name}.safetensors {IMPORT} -o {name}.model.safetensors")).code(0).says(words);
        let imported = model::read(&place.path(&format!("{name}.model.safetensors"))).unwrap().model;
        assert_eq!(imported.weights, network().weights, "{name}");
    }
    // An exported network's counters may be floats, too.
    let mut half = network();
    half.weights.insert("bn1.num_batches_tracked".into(), ones(&[]));
    std::fs::write(place.path("exported.safetensors"), safetensors(&half, &exported(&network()))).unwrap();
    place.ok("import", "exported.safetensors -o from_exported.safetensors");
}

#[test]
fn weights_that_are_missing_or_of_another_network_are_refused() {
    let place = Workplace::new();
    let fails = |name: &str, bytes: &[u8], words: &[&str]| {
        std::fs::write(place.path(&format!("{name}.safetensors")), bytes).unwrap();
        let ran = place.run("import", &format!("{name}.safetensors {IMPORT} -o out.safetensors")).code(1);
        ran.says(words);
        ran.to_string()
    };
    // What is missing comes first.
    let missing = stored(|net| {
        net.weights.remove("linear.bias");
        net.weights.insert("best_acc".into(), ones(&[]));
    });
    let said = fails("missing", &missing, &["missing: linear.bias [3]", "unexpected: best_acc"]);
    assert!(said.find("missing: linear.bias") < said.find("unexpected: best_acc"), "{said}");
    for (name, shape) in [("conv1.bias", &[4][..]), ("layer1.0.se.fc1.weight", &[2, 4])] {
        let other = stored(|net| {
            net.weights.insert(name.into(), ones(shape));
        });
        fails("other", &other, &[&format!("unexpected: {name}")]);
    }
    // The commonest ResNet for CIFAR has shortcuts without weights.
    let plain = stored(|net| net.weights.retain(|name, _| !name.contains("shortcut")));
    fails(
        "plain",
        &plain,
        &["only the shortcuts' weights are missing", "scripts/zipit_torch.py export", "missing: layer2.0"],
    );
    let plainer = stored(|net| net.weights.retain(|name, _| !name.contains("shortcut") && name != "linear.bias"));
    assert!(!fails("plainer", &plainer, &["missing: layer2.0"]).contains("only the shortcuts"));
    // Eight bits a number say nothing without a scale.
    let header = br#"{"conv1.weight":{"dtype":"F8_E4M3","shape":[2],"data_offsets":[0,2]}}"#;
    let float8 = [&(header.len() as u64).to_le_bytes()[..], header, &[1, 2]].concat();
    fails("float8", &float8, &["conv1.weight", "float8", "bfloat16"]);
}

#[test]
fn class_names_are_read_whatever_wrote_them() {
    let place = Workplace::new();
    std::fs::write(place.path("net.safetensors"), stored(|_| ())).unwrap();
    std::fs::write(place.path("classes.txt"), b"\xef\xbb\xbfdog\r\ncat\r\ncow\r\n").unwrap();
    let import = "net.safetensors --arch resnet20 --size 12 --mean 0.5 --std 0.25 -o named.safetensors";
    place.ok("import", &format!("{import} --classes-file classes.txt"));
    let named = model::read(&place.path("named.safetensors")).unwrap().model;
    assert_eq!(named.tasks[0].classes, ["dog", "cat", "cow"]);
    place.fails("import", &format!("{import} --classes a,,b --force"), &["task `net`: class 1 has no name"]);
    place.fails("import", &format!("{import} --classes a,b,c --task= --force"), &["has no name"]);
}
