//! `adapt`: what was learned is a file like any other, and no label had a part in it.

use crate::support::{max_difference, tensors, tiny_graph, two_networks, write};
use serde_json::Value;
use std::fs;
use zipit_artifact::model;
use zipit_tests::{Workplace, random_model};

/// Two networks and what `refit` makes of them, badly: on 30 images.
fn merged() -> Workplace {
    let place = two_networks(&tiny_graph(), 300);
    place.ok("collect", "a.safetensors b.safetensors --data data --images 100 -o stats.h5");
    place.ok("match", "stats.h5 -o plan.bin");
    let few = "--images 30 --rounds 0 -o merged.safetensors";
    place.ok("refit", &format!("plan.bin a.safetensors b.safetensors --data data {few}"));
    place
}

const ADAPT: &str = "merged.safetensors --to a.safetensors b.safetensors --data data";

fn report(place: &Workplace, name: &str) -> Value {
    serde_json::from_slice::<Value>(&place.bytes(name)).unwrap()["report"].clone()
}

fn losses(report: &Value) -> Vec<f64> {
    report["judged"].as_array().unwrap().iter().map(|judged| judged["loss"].as_f64().unwrap()).collect()
}

#[test]
fn it_learns_and_says_so() {
    let place = merged();
    let said = place.ok("adapt", &format!("{ADAPT} --epochs 12 --lr 0.003 --report report.json -o out.safetensors"));
    assert!(said.contains("as it was given") && said.contains("written"), "{said}");
    let report = report(&place, "report.json");
    let losses = losses(&report);
    let best = losses.iter().copied().fold(f64::INFINITY, f64::min);
    assert!(best < 0.9 * losses[0], "{losses:?}");
    let kept: Vec<&Value> = report["judged"].as_array().unwrap().iter().filter(|j| j["kept"] == true).collect();
    assert!(kept.len() == 1 && kept[0]["loss"].as_f64() == Some(best), "{report}");
    assert_eq!((report["n_images"].as_u64(), report["n_held_out"].as_u64()), (Some(270), Some(27)));
    // The table says what it took.
    place.ok("eval", "out.safetensors --data data -o eval.json");
    let row = self::report(&place, "eval.json")["rows"][0].clone();
    assert_eq!((&row["used"]["gradients"], &row["used"]["labels"]), (&Value::Bool(true), &Value::Bool(false)), "{row}");
    let stages: Vec<&str> =
        row["used"]["images"].as_array().unwrap().iter().map(|used| used["stage"].as_str().unwrap()).collect();
    assert_eq!(stages, ["collect", "refit", "adapt"]);
    assert_eq!(row["kind"], "merged");
    // It is a network like any other: adapted once more, gated, collected.
    place.ok("adapt", "out.safetensors --to b.safetensors a.safetensors --data data --epochs 1 -o again.safetensors");
    place.ok("gate", "out.safetensors --data data -o gated.safetensors");
    place.ok("adapt", &format!("gated{} --epochs 1 -o ungated.safetensors", ADAPT.strip_prefix("merged").unwrap()));
    assert!(model::read(&place.path("ungated.safetensors")).unwrap().model.joint.is_none());
}

#[test]
fn threads_and_labels_never_change_a_byte() {
    let place = merged();
    // Labels that are others, of the same classes: every image is used all the same.
    fs::create_dir(place.path("garbage")).unwrap();
    for file in fs::read_dir(place.path("data")).unwrap() {
        let file = file.unwrap();
        let mut bytes = fs::read(file.path()).unwrap();
        if file.file_name().to_string_lossy().contains("labels") {
            bytes[8..].iter_mut().enumerate().for_each(|(i, label)| *label = ((i + i / 6 + 2) % 6) as u8);
        }
        fs::write(place.path("garbage").join(file.file_name()), bytes).unwrap();
    }
    assert_ne!(
        fs::read(place.path("data/train-labels-idx1-ubyte")).unwrap(),
        fs::read(place.path("garbage/train-labels-idx1-ubyte")).unwrap()
    );
    // More images a step than one thread takes at once.
    let flags = "--epochs 20 --batch-size 150 --flip --shift 1";
    for threads in [1, 2, 5] {
        place.ok("adapt", &format!("{ADAPT} {flags} --threads {threads} -o t{threads}.safetensors"));
    }
    assert!(place.bytes("t1.safetensors") == place.bytes("t2.safetensors"));
    assert!(place.bytes("t1.safetensors") == place.bytes("t5.safetensors"));
    let garbage = ADAPT.replace("--data data", "--data garbage");
    place.ok("adapt", &format!("{garbage} {flags} -o garbage.safetensors"));
    assert_eq!(tensors(&place, "t1.safetensors"), tensors(&place, "garbage.safetensors"));
    // Not even kept in memory, images are others.
    place.ok("adapt", &format!("{ADAPT} {flags} --max-memory 0 -o read.safetensors"));
    assert!(place.bytes("t1.safetensors") == place.bytes("read.safetensors"));
}

/// Images that the network was fitted to speak for it as it is.
#[test]
fn others_judge_than_the_network_was_fitted_to() {
    let place = merged();
    let warned = |adapt: &str| {
        place
            .run("adapt", &format!("{ADAPT} {adapt} --epochs 0.5 --force -o x.safetensors"))
            .code(0)
            .stderr()
            .contains("was fitted to")
    };
    assert!(!warned("") && !warned("--images 100"), "30 of 270 images");
    place.ok("refit", "plan.bin a.safetensors b.safetensors --data data --images 260 --rounds 0 -o merged.safetensors");
    assert!(warned(""), "260 of 270 images");
    assert!(!warned("--images 50"), "five others are left");
    assert!(warned("--images 50 --seed 1"), "in another order they are anywhere");
}

#[test]
fn minutes_become_epochs_that_make_the_same_elsewhere() {
    let place = merged();
    let ran = place.run("adapt", &format!("{ADAPT} --minutes 0.02 -o clock.safetensors")).code(0);
    let said = ran.stderr();
    let epochs = said.split("--epochs ").nth(1).unwrap().split(' ').next().unwrap().to_owned();
    place.ok("adapt", &format!("{ADAPT} --epochs {epochs} -o count.safetensors"));
    assert_eq!(tensors(&place, "clock.safetensors"), tensors(&place, "count.safetensors"));
}

/// A root becomes what another network is; then they are fine-tunes of one.
#[test]
fn a_root_becomes_each_of_the_networks() {
    let place = two_networks(&tiny_graph(), 300);
    write(&place, "root", &random_model(&tiny_graph(), 9, "root", &["x", "y", "z"]));
    for name in ["a", "b"] {
        let flags = "--data data --epochs 12 --lr 0.003 --batch-size 50";
        let made = format!("--report {name}.json -o {name}_rooted.safetensors");
        place.ok("adapt", &format!("--root root.safetensors --to {name}.safetensors {flags} {made}"));
        let losses = losses(&report(&place, &format!("{name}.json")));
        assert!(losses.last().unwrap() < &(0.7 * losses[0]), "{name}: {losses:?}");
        let [rooted, source] = [format!("{name}_rooted"), name.to_owned()]
            .map(|name| model::read(&place.path(&format!("{name}.safetensors"))).unwrap().model);
        assert_eq!((&rooted.graph, &rooted.tasks), (&source.graph, &source.tasks));
        // Statistics are the root's.
        let root = tensors(&place, "root.safetensors");
        assert_eq!(rooted.weights["bn1.running_var"], root["bn1.running_var"]);
        let moved = max_difference(&rooted.weights["conv1.weight"], &root["conv1.weight"]);
        assert!(moved > 0.0 && moved < 0.5, "{moved}");
    }
    // A table does not call them trained, and nothing else.
    place.ok("eval", "a.safetensors a_rooted.safetensors --data data -o rooted.json");
    let rows = report(&place, "rooted.json")["rows"].clone();
    let gradients = [0, 1].map(|i| rows[i]["used"]["gradients"].clone());
    assert_eq!(gradients, [Value::Bool(false), Value::Bool(true)]);
    place.ok("collect", "a_rooted.safetensors b_rooted.safetensors --data data -o stats.h5");
    place.ok("match", "stats.h5 --method identity --unmerge pinv -o plan.bin");
    place.ok("apply", "plan.bin a_rooted.safetensors b_rooted.safetensors -o average.safetensors");
    // Task vectors over the root, and coefficients that lower the entropy of each head on images of its task.
    let to = "average.safetensors --to a_rooted.safetensors b_rooted.safetensors --base root.safetensors --data data";
    let learn = "--learn coefficients --objective entropy --epochs 12 --lr 0.02";
    for (name, flags, shape) in [
        ("task", "", (2, 1)),
        ("tensor", "--per tensor --clamp", (2, 63)),
        ("ties", "--ties 0.2 --initial 0.5", (2, 1)),
    ] {
        place.ok("adapt", &format!("{to} {learn} {flags} --report {name}.json -o {name}.safetensors"));
        let report = report(&place, &format!("{name}.json"));
        let losses = losses(&report);
        assert!(losses.iter().skip(1).any(|loss| *loss < losses[0]), "{name}: {losses:?}");
        let rows: Vec<usize> =
            report["coefficients"].as_array().unwrap().iter().map(|row| row.as_array().unwrap().len()).collect();
        assert_eq!((rows.len(), rows[0]), shape, "{name}");
    }
    // θ₀ + Σ λ τ, by hand.
    let lambda: Vec<f32> = report(&place, "task.json")["coefficients"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row[0].as_f64().unwrap() as f32)
        .collect();
    let [root, a, b, mixed] =
        ["root", "a_rooted", "b_rooted", "task"].map(|name| tensors(&place, &format!("{name}.safetensors")));
    for name in ["conv1.weight", "layer3.2.bn2.bias"] {
        let wanted = &root[name] + &((&a[name] - &root[name]) * lambda[0]) + &((&b[name] - &root[name]) * lambda[1]);
        assert!(max_difference(&wanted, &mixed[name]) < 1e-6, "{name}");
    }
    place.ok("eval", "task.safetensors --data data -o eval.json");
    let used = report(&place, "eval.json")["rows"][0]["used"].clone();
    assert_eq!((&used["task_identity"], &used["gradients"]), (&Value::Bool(true), &Value::Bool(true)), "{used}");
}

/// Networks of one task, whose heads became one: on every image the surest of them is believed.
#[test]
fn several_networks_speak_of_one_output() {
    let place = two_networks(&tiny_graph(), 300);
    for (name, seed) in [("a", 1), ("b", 2)] {
        write(&place, name, &random_model(&tiny_graph(), seed, name, &["0", "1", "2"]));
    }
    place.ok("collect", "a.safetensors b.safetensors --data data -o stats.h5");
    place.ok("match", "stats.h5 -o plan.bin");
    let one = "plan.bin a.safetensors b.safetensors --heads merge --data data --images 30 --rounds 0";
    place.ok("refit", &format!("{one} -o merged.safetensors"));
    for trust in ["surest", "all"] {
        let flags = format!("--trust {trust} --epochs 12 --report {trust}.json");
        place.ok("adapt", &format!("{ADAPT} {flags} -o {trust}.safetensors"));
        let losses = losses(&report(&place, &format!("{trust}.json")));
        assert!(losses.iter().skip(1).any(|loss| *loss < losses[0]), "{trust}: {losses:?}");
    }
    assert_ne!(tensors(&place, "surest.safetensors"), tensors(&place, "all.safetensors"));
}

#[test]
fn what_makes_no_sense_is_refused() {
    let place = merged();
    for (flags, code, words) in [
        ("--learn coefficients", 2, "needs --base"),
        ("--base a.safetensors", 2, "belong to --learn coefficients"),
        ("--clamp", 2, "belong to --learn coefficients"),
        ("--epochs 3 --minutes 1", 2, "cannot be used with"),
        ("--views 2", 2, "goes with --flip or --shift"),
        ("--epochs 0", 1, "--epochs is 0: it must be positive"),
        ("--minutes -1", 2, ""),
        ("--lr 0", 1, "--lr is 0"),
        ("--objective cross-entropy --temperature 0", 1, "--temperature is 0"),
        ("--root a.safetensors", 2, "cannot be used with"),
        ("--device cuda", 1, "sees no CUDA device"),
        ("--learn coefficients --base a.safetensors --ties 0", 1, "--ties is 0"),
    ] {
        let ran = place.run("adapt", &format!("{ADAPT} {flags} -o refused.safetensors"));
        ran.code(code).says(&[words]);
        assert!(!place.path("refused.safetensors").exists(), "{flags}");
    }
    place
        .run("adapt", "--root a.safetensors --to a.safetensors b.safetensors --data data -o x.safetensors")
        .code(2)
        .says(&["one network at a time"]);
    // Not feature by feature the base's: folded, or in another order.
    let base = "--base a.safetensors --learn coefficients --objective entropy -o x.safetensors";
    let ran = |network: &str| format!("{network} --to a.safetensors b.safetensors --data data {base}");
    place.fails("adapt", &ran("merged.safetensors"), &["has no `bn1.bias` of the base's shape", "--method identity"]);
    place.ok("match", "stats.h5 --unmerge pinv -o ward.bin");
    place.ok("apply", "ward.bin a.safetensors b.safetensors -o ward.safetensors");
    place.fails("adapt", &ran("ward.safetensors"), &["the head of network 1", "--method identity"]);
    let alone = "merged.safetensors --to a.safetensors --data data -o x.safetensors";
    place.fails("adapt", alone, &["no network after --to speaks of task second"]);
    let mut root = random_model(&tiny_graph(), 3, "root", &["0", "1", "2"]);
    root.preprocess.mean = vec![0.1];
    write(&place, "root", &root);
    let rooted = "--root root.safetensors --to a.safetensors --data data -o x.safetensors";
    place.fails("adapt", rooted, &["root.safetensors and a.safetensors expect their images in different ways"]);
    let from = |network: &str, to: &str| format!("{network} --to {to} --data data -o x.safetensors");
    place.fails("adapt", &from("a.safetensors", "b.safetensors"), &["no output for task `second`", "it has: first"]);
    let mut other = random_model(&tiny_graph(), 3, "first", &["0", "1", "2"]);
    other.preprocess.mean = vec![0.1];
    write(&place, "other", &other);
    let both = "other.safetensors b.safetensors";
    place.fails("adapt", &from("merged.safetensors", both), &["other.safetensors", "in another way"]);
    // Unlike in width: no root.
    let wide = zipit::graph::ArchSpec::new(zipit::graph::Arch::ResNet20, 0.5, 1, [12, 12], 3).build().unwrap();
    write(&place, "wide", &random_model(&wide, 3, "wide", &["0", "1", "2"]));
    let root = "--root wide.safetensors --to a.safetensors --data data -o x.safetensors";
    place.fails("adapt", root, &["the root lacks", "of one architecture"]);
    place.fails(
        "adapt",
        &from("merged.safetensors", "a.safetensors b.safetensors --max-memory=-1"),
        &["--max-memory is -1"],
    );
    let said = place.ok("adapt", &format!("{ADAPT} --dry-run -o x.safetensors"));
    assert!(said.contains("would adapt") && !place.path("x.safetensors").exists(), "{said}");
}
