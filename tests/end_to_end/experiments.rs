//! Experiments: from a TOML file through make to tables and a page; nothing twice; interrupted, it goes on.

use crate::support::write;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};
use zipit::graph::{Arch, ArchSpec};
use zipit_tests::{Workplace, binary, random_model, repository, write_class_folders, write_idx};

const TWO_TASKS: &str = r#"
title = "Three classes and three others"
data = ["data"]
images = { collect = 60, reset = 40, refit = 40 }

[networks.low]
seeds = [1, 3]
file = "low{seed}.safetensors"

[networks.high]
seeds = [2, 4]
file = "high{seed}.safetensors"

[[cases]]
name = "3 + 3"
merge = ["low", "high"]

[[rows]]
method = ["permute"]
rule = ["pinv"]

[[rows]]
choose = "chosen"
choose-on = 1
method = ["zip"]
alpha = [0.5, 1]
beta = [1]
rule = ["pinv"]

[[rows]]
like = "chosen"
extent = ["to 7/20"]
rule = ["pinv"]

[[rows]]
method = ["ward"]
rule = ["refit"]
gate = true

[[published]]
source = "somebody"
setting = "something else"
model = "theirs"
joint = 12.5
"#;

/// A folder with the repository's Makefile, an experiment, and the networks that it merges.
fn place(name: &str, toml: &str) -> Workplace {
    let place = Workplace::new();
    symlink(repository().join("Makefile"), place.path("Makefile")).unwrap();
    fs::create_dir(place.path("experiments")).unwrap();
    fs::write(place.path(&format!("experiments/{name}.toml")), toml).unwrap();
    place
}

fn two_tasks() -> Workplace {
    let place = place("two", TWO_TASKS);
    write_idx(&place.path("data"), 240, 12, 6);
    let graph = ArchSpec::new(Arch::ResNet20, 0.25, 1, [12, 12], 3).build().unwrap();
    for (name, classes) in [("low", ["0", "1", "2"]), ("high", ["3", "4", "5"])] {
        for seed in if name == "low" { [1, 3] } else { [2, 4] } {
            write(&place, &format!("{name}{seed}"), &random_model(&graph, seed, name, &classes));
        }
    }
    place
}

fn make(place: &Workplace, name: &str) -> Command {
    let mut make = Command::new("make");
    let bin = binary("experiment");
    make.args(["-o", "build", "experiment", "JOBS=2"])
        .args([format!("NAME={name}"), format!("BIN={}", bin.parent().unwrap().display())])
        .current_dir(place.path(""))
        .env_remove("MAKEFLAGS")
        .env_remove("MAKELEVEL")
        .stdin(Stdio::null());
    make
}

fn made(place: &Workplace, name: &str) -> String {
    let Output { status, stdout, stderr } = make(place, name).output().unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "make experiment NAME={name}\n{stdout}\n{stderr}");
    stdout.into_owned()
}

/// The stages that make ran: lines such as `[3/20] match: …`.
fn stages(said: &str) -> BTreeMap<&str, usize> {
    let mut stages = BTreeMap::new();
    for line in said.lines().filter(|line| line.starts_with('[')) {
        *stages.entry(line.split(' ').nth(1).unwrap().trim_end_matches(':')).or_default() += 1;
    }
    stages
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))).unwrap()
}

/// The results without what differs from run to run.
fn results(place: &Workplace, name: &str) -> Value {
    let mut results = json(&place.path(&format!("runs/experiments/{name}/results.json")));
    results.as_object_mut().unwrap().remove("time");
    results
}

fn row<'a>(results: &'a Value, case: usize, model: &str) -> &'a Value {
    let rows = results["cases"][case]["rows"].as_array().unwrap();
    let names: Vec<&Value> = rows.iter().map(|row| &row["model"]).collect();
    rows.iter().find(|row| row["model"] == model).unwrap_or_else(|| panic!("no {model} among {names:?}"))
}

#[test]
fn from_a_file_to_a_page_and_nothing_twice() {
    let place = two_tasks();
    let said = made(&place, "two");
    let counts = stages(&said);
    // Two sets: statistics of reset networks and of raw ones; permute, zip twice on the first, ward; the part up to 7/20.
    assert_eq!(counts["collect"], 4, "{said}");
    assert_eq!(counts["match"], 2 + 3 + 2 + 2, "{said}");
    assert_eq!((counts["refit"], counts["gate"]), (2, 4), "{said}");

    let found = results(&place, "two");
    let merges = place.path("runs/merges");
    let permute = row(&found, 0, "permute full pinv");
    for (i, set) in ["low1+high2", "low3+high4"].into_iter().enumerate() {
        let report = json(&merges.join(set).join("data_60_reset40/permute_full_pinv/reset40/test_data.json"));
        assert_eq!(permute["task_avg"]["values"][i], report["report"]["rows"][0]["scores"]["task_avg"]);
    }
    let values = permute["task_avg"]["values"].as_array().unwrap();
    let mean = values.iter().map(|x| x.as_f64().unwrap()).sum::<f64>() / 2.0;
    assert!((permute["task_avg"]["mean"].as_f64().unwrap() - mean).abs() < 1e-12);
    // Two heads are a little more than one.
    assert!((permute["relative_macs"].as_f64().unwrap() - 1.0).abs() < 1e-3);
    for model in
        ["low, alone", "high, alone", "ensemble", "ensemble, BN reset", "ensemble, gate", "ward full refit, gate"]
    {
        row(&found, 0, model);
    }
    // The choice is the better of the two on validation images.
    let choice = &found["cases"][0]["choices"][0];
    let candidates = choice["candidates"].as_array().unwrap();
    let task_avg = |candidate: &Value| candidate["task_avg"].as_f64().unwrap();
    let best = if task_avg(&candidates[1]) > task_avg(&candidates[0]) { &candidates[1] } else { &candidates[0] };
    assert_eq!(choice["best"], best["model"]);
    row(&found, 0, &format!("chosen: {}", best["model"].as_str().unwrap()));
    assert!(found["published"][0]["joint"] == 0.125);

    let folder = place.path("runs/experiments/two");
    let page = fs::read_to_string(folder.join("report.html")).unwrap();
    let percent = format!("{:.2}", 100.0 * mean);
    assert!(page.contains(&percent) && fs::read_to_string(folder.join("results.md")).unwrap().contains(&percent));
    assert!(fs::read_dir(folder.join("figures")).unwrap().count() > 4);

    // A second run does nothing; what is missing is made again, with what depends on it.
    assert!(stages(&made(&place, "two")).is_empty());
    let network = merges.join("low1+high2/data_60_reset40/permute_full_pinv/reset40/network.safetensors");
    fs::remove_file(network).unwrap();
    assert_eq!(stages(&made(&place, "two")), BTreeMap::from([("recalibrate", 1), ("eval", 1)]));
    assert_eq!(results(&place, "two"), found);
    // A results.json alone is enough to draw it again.
    place.ok("report", "runs/experiments/two/results.json -o again");
    assert!(place.bytes("again/results.md") == fs::read(folder.join("results.md")).unwrap());
}

#[test]
fn killed_half_way_it_goes_on() {
    let (whole, broken) = (two_tasks(), two_tasks());
    made(&whole, "two");
    let mut child = make(&broken, "two").stdout(Stdio::null()).stderr(Stdio::null()).process_group(0).spawn().unwrap();
    let (started, half) = (Instant::now(), broken.path("runs/merges/low1+high2/data_60_reset40/stats.h5"));
    while !half.exists() && started.elapsed() < Duration::from_secs(120) {
        std::thread::sleep(Duration::from_millis(20));
    }
    Command::new("kill").args(["-KILL", "--", &format!("-{}", child.id())]).status().unwrap();
    child.wait().unwrap();
    assert!(half.exists() && !broken.path("runs/experiments/two/results.json").exists());
    let said = made(&broken, "two");
    assert_eq!(stages(&said)["collect"], 3, "{said}");
    assert_eq!(results(&broken, "two"), results(&whole, "two"));
}

#[test]
fn networks_whose_task_is_known_have_a_row() {
    let toml = r#"
        title = "Two fine-tunes of one base"
        data = ["data"]
        images = { collect = 40, reset = 40, refit = 40 }
        networks.base = { seeds = [9], file = "base.safetensors" }
        networks.low = { classes = "0-2", seeds = [1], train = { from = "base", epochs = 1 } }
        networks.high = { classes = "3-5", seeds = [2], train = { from = "base", epochs = 1 } }
        [[cases]]
        name = "two"
        merge = ["low", "high"]
        [[rows]]
        combine = ["average", "emr"]
    "#;
    let place = place("masked", toml);
    write_idx(&place.path("data"), 480, 12, 6);
    let graph = ArchSpec::new(Arch::ResNet20, 0.25, 1, [12, 12], 6).build().unwrap();
    write(&place, "base", &random_model(&graph, 9, "base", &["0", "1", "2", "3", "4", "5"]));
    let said = made(&place, "masked");
    let counts = stages(&said);
    assert_eq!((counts["combine"], counts["recalibrate"]), (2, 1), "{said}");
    let found = results(&place, "masked");
    let (masked, average) = (row(&found, 0, "emr, task known"), row(&found, 0, "average"));
    assert_eq!((&masked["masks"], &masked["joint"], &masked["relative_macs"]), (&2.into(), &Value::Null, &1.0.into()));
    assert!(average.get("masks").is_none() && !average["joint"].is_null(), "{average}");
    let path = place.path("runs/experiments/masked/results.md");
    let text = fs::read_to_string(path).unwrap();
    // It is in the table, and is not what the sentence above it compares.
    assert!(text.contains("| emr, task known |") && text.contains("average reaches **"), "{text}");
}

#[test]
fn what_is_missing_is_said() {
    let place = two_tasks();
    fs::remove_file(place.path("high4.safetensors")).unwrap();
    let output = make(&place, "two").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let expected = "high4.safetensors is not there, and two.toml does not say how to train it: put the network there";
    assert!(!output.status.success() && said.contains(expected), "{said}");
    let output = make(&place, "three").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("no experiments/three.toml: NAME is one of two"), "{said}");

    place.fails("report", "experiments/two.toml -o out", &["high4", "make experiment NAME=two"]);
    place.fails("experiment", "experiments/none.toml", &["cannot read experiments/none.toml"]);
    fs::write(place.path("experiments/bad.toml"), TWO_TASKS.replace("rule", "rules")).unwrap();
    place.fails(
        "experiment",
        "experiments/bad.toml",
        &["bad.toml is no experiment", "unknown field `rules`", "line 20"],
    );
    fs::write(place.path("bad.json"), "{\"name\": 1}").unwrap();
    place.fails("report", "bad.json -o out", &["bad.json holds no results"]);
    assert!(!place.path("out").exists());
}

/// An experiment of the repository on networks and images of the same layout, small and made up: it runs. The numbers
/// mean nothing.
fn stand_in(name: &str, networks: &[(&str, Vec<String>)], arch: &ArchSpec) -> Value {
    let toml = fs::read_to_string(repository().join(format!("experiments/{name}.toml"))).unwrap();
    let place = place(name, &toml);
    for (i, (file, classes)) in networks.iter().enumerate() {
        let classes: Vec<&str> = classes.iter().map(String::as_str).collect();
        let graph = ArchSpec { n_classes: classes.len(), ..arch.clone() }.build().unwrap();
        let network = random_model(&graph, i as u64, file, &classes);
        fs::create_dir_all(place.path("runs/networks")).unwrap();
        write(&place, &format!("runs/networks/{file}_seed{}", network_seed(name, i)), &network);
    }
    for data in data_of(&toml) {
        let all = networks.iter().filter(|(file, _)| data_of(&toml).len() == 1 || data.ends_with(&folder(file)));
        let classes: Vec<String> = all.flat_map(|(_, classes)| classes.clone()).collect();
        write_class_folders(&place.path(&data), &classes, 2, arch.image_size[0]);
    }
    made(&place, name);
    results(&place, name)
}

/// Networks of several seeds stand in the list seed by seed.
fn network_seed(name: &str, i: usize) -> usize {
    if name == "multi-dataset" { 1 } else { i + 1 }
}

fn folder(network: &str) -> String {
    match network {
        "dogs" => "stanford-dogs".to_owned(),
        "pets" => "oxford-pets".to_owned(),
        other => other.to_owned(),
    }
}

fn data_of(toml: &str) -> Vec<String> {
    let line = toml.lines().find(|line| line.starts_with("data = ")).unwrap();
    line.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

fn classes(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|i| format!("n{i:08}")).collect()
}

#[test]
fn cifar100_runs_on_a_stand_in() {
    let of = |i: usize| {
        (if i.is_multiple_of(2) { "cifar100_0-49" } else { "cifar100_50-99" }, classes(i % 2 * 50..i % 2 * 50 + 50))
    };
    let networks: Vec<_> = (0..4).map(of).collect();
    let found = stand_in("cifar100-50+50", &networks, &ArchSpec::new(Arch::ResNet20, 0.25, 3, [8, 8], 50));
    assert_eq!(found["cases"][0]["sets"].as_array().unwrap().len(), 2);
    assert!(row(&found, 0, "ward budget 1 refit")["relative_macs"].as_f64().unwrap() <= 1.01);
}

#[test]
fn imagenet_runs_on_a_stand_in() {
    let networks = [("imagenet_0-199", classes(0..200)), ("imagenet_200-399", classes(200..400))];
    let found = stand_in("imagenet-200+200", &networks, &ArchSpec::new(Arch::ResNet50, 0.125, 3, [32, 32], 200));
    assert!(row(&found, 0, "ward to 22/50 refit")["relative_macs"].as_f64().unwrap() > 1.0);
}

#[test]
fn several_data_sets_run_on_a_stand_in() {
    let of = |(i, name): (usize, &'static str)| (name, classes(10 * i..10 * i + 5));
    let networks: Vec<_> = ["dogs", "pets", "cub", "nabirds"].into_iter().enumerate().map(of).collect();
    let found = stand_in("multi-dataset", &networks, &ArchSpec::new(Arch::ResNet50, 0.125, 3, [32, 32], 5));
    assert_eq!(found["cases"][0]["sets"].as_array().unwrap().len(), 6);
    assert_eq!(row(&found, 1, "ensemble")["tasks"].as_object().unwrap().len(), 4);
}
