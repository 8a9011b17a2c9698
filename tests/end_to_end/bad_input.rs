//! Proof obligation: whatever is wrong with the input, a message says what, the exit code is 1 (usage: 2), no file is
//! made and none is lost. `cargo test -- bad_input --nocapture` prints every message.
#![allow(clippy::print_stdout, reason = "the messages are to be read")]

use crate::support::{foreign_safetensors, tiny_graph, two_networks, write};
use ndarray::ArrayD;
use std::fs;
use std::path::PathBuf;
use zipit::Graph;
use zipit::graph::{Arch, ArchSpec};
use zipit_artifact::model;
use zipit_tests::{Workplace, random_model, write_idx};

/// Runs every (stage, arguments, words it must say): exit code `code`, nothing on stdout, and the folder is as it was.
pub fn refused(place: &Workplace, code: i32, cases: &[(&str, &str, &[&str])]) {
    let before = contents(place);
    let mut wrong = String::new();
    for (stage, args, words) in cases {
        let ran = place.run(stage, args);
        println!("$ {stage} {args}\n{}", ran.stderr());
        if let Err(why) = ran.refusal(code, words) {
            wrong += &format!("\n{why}: {ran}");
        }
        assert!(contents(place) == before, "{stage} {args}: files changed");
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// Every file under the workplace with its bytes.
fn contents(place: &Workplace) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    let mut folders = vec![place.path("")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let bytes = fs::read(&path).unwrap();
                found.push((path, bytes));
            }
        }
    }
    found.sort();
    found
}

pub fn cut(place: &Workplace, from: &str, to: &str) {
    let bytes = place.bytes(from);
    fs::write(place.path(to), &bytes[..bytes.len() * 2 / 3]).unwrap();
}

pub fn flip_a_bit(place: &Workplace, from: &str, to: &str) {
    let mut bytes = place.bytes(from);
    let middle = bytes.len() - bytes.len() / 3;
    bytes[middle] ^= 4;
    fs::write(place.path(to), bytes).unwrap();
}

fn network(graph: &Graph, seed: u64, name: &str, classes: [&str; 3]) -> zipit::Model {
    random_model(graph, seed, name, &classes)
}

/// A workplace with everything up to the merged network.
fn whole_pipeline() -> Workplace {
    let place = two_networks(&tiny_graph(), 60);
    place.ok("collect", "a.safetensors b.safetensors --data data -o stats.h5");
    place.ok("match", "stats.h5 -o plan.bin");
    place.ok("apply", "plan.bin a.safetensors b.safetensors -o merged.safetensors");
    place.ok("eval", "merged.safetensors --data data -o report.json");
    place
}

#[test]
fn import() {
    let place = Workplace::new();
    let graph = tiny_graph();
    let good = random_model(&graph, 1, "good", &["0", "1", "2"]);
    write(&place, "good", &good);
    cut(&place, "good.safetensors", "cut.safetensors");
    let mut odd = good.clone();
    odd.weights.remove("bn1.weight");
    odd.weights.insert("extra.weight".into(), ArrayD::zeros(vec![2]));
    let bias = odd.weights.get_mut("linear.bias").unwrap();
    *bias = ArrayD::zeros(vec![4]);
    fs::write(place.path("odd.safetensors"), foreign_safetensors(&odd)).unwrap();
    let mut nan = good.clone();
    nan.weights.get_mut("layer1.0.conv1.weight").unwrap()[[0, 0, 1, 1]] = f32::NAN;
    fs::write(place.path("nan.safetensors"), foreign_safetensors(&nan)).unwrap();
    fs::write(place.path("text.pth"), "hello, I am not a checkpoint").unwrap();
    fs::write(place.path("empty.pth"), "").unwrap();
    let golden = zipit_tests::repository().join("tests/golden/tiny_resnet20/a.pt");
    let bytes = fs::read(&golden).unwrap();
    fs::write(place.path("cut.pt"), &bytes[..bytes.len() / 2]).unwrap();
    fs::write(place.path("a.pt"), bytes).unwrap();

    let flags = "--arch resnet20 --classes 0-2 --size 12 --mean 0.5 --std 0.25 -o out.safetensors";
    refused(
        &place,
        1,
        &[
            ("import", &format!("absent.pth {flags}"), &["absent.pth", "no such file"]),
            ("import", &format!("text.pth {flags}"), &["text.pth", "torch.save"]),
            ("import", &format!("empty.pth {flags}"), &["empty.pth", "empty"]),
            ("import", &format!("cut.pt {flags}"), &["cut.pt"]),
            ("import", &format!("cut.safetensors {flags}"), &["cut.safetensors"]),
            ("import", &format!(". {flags}"), &["folder"]),
            ("import", &format!("odd.safetensors {flags}"), &["bn1.weight", "extra.weight", "linear.bias"]),
            (
                "import",
                &format!("nan.safetensors {flags}"),
                &["nan.safetensors", "layer1.0.conv1.weight", "not finite"],
            ),
            (
                "import",
                "a.pt --arch resnet18 --classes 0-2 --size 12 --mean 0.5 --std 0.25 -o out.safetensors",
                &["a.pt", "resnet18"],
            ),
            (
                "import",
                "a.pt --arch resnet20 --classes 0-4 --size 12 --mean 0.5 --std 0.25 -o out.safetensors",
                &["3 logits", "names 5"],
            ),
            (
                "import",
                "a.pt --arch resnet20 --classes 0,1,1 --size 12 --mean 0.5 --std 0.25 -o out.safetensors",
                &["twice"],
            ),
            (
                "import",
                "a.pt --arch resnet20 --classes 0-2 --size 12 --mean 0.5,0.4 --std 0.25,0.2 -o out.safetensors",
                &["1 channel(s)", "2 numbers"],
            ),
            ("import", "a.pt --arch resnet20 --classes 0-2 --size 12 --mean 0.5 --std 0 -o out.safetensors", &["std"]),
            ("import", &format!("a.pt --key ema {flags}"), &["`ema`", "found some under: `state_dict.`\n"]),
            (
                "import",
                "a.pt --arch resnet20 --classes 0-2 --size 12 --mean 0.5 --std 0.25 -o nowhere/out.safetensors",
                &["nowhere"],
            ),
        ],
    );
    refused(
        &place,
        2,
        &[
            ("import", "a.pt --arch resnet21 --classes 0-2 -o out.safetensors", &["resnet21", "resnet20"]),
            ("import", "a.pt --arch resnet20 -o out.safetensors", &["--classes"]),
        ],
    );
}

#[test]
fn collect_models() {
    let place = two_networks(&tiny_graph(), 60);
    let spec = |width: f64, size: usize| ArchSpec::new(Arch::ResNet20, width, 1, [size, size], 3).build().unwrap();
    write(&place, "wide", &network(&spec(0.5, 12), 3, "wide", ["0", "1", "2"]));
    write(&place, "large", &network(&spec(0.25, 16), 3, "large", ["0", "1", "2"]));
    let mut other = network(&tiny_graph(), 3, "other", ["0", "1", "2"]);
    other.preprocess.mean = vec![0.1];
    write(&place, "other", &other);
    write(&place, "hats", &network(&tiny_graph(), 3, "hats", ["0", "1", "hat"]));
    cut(&place, "b.safetensors", "cut.safetensors");
    flip_a_bit(&place, "b.safetensors", "flipped.safetensors");
    fs::write(place.path("text.safetensors"), "hello").unwrap();
    fs::create_dir(place.path("folder")).unwrap();
    let rest = "--data data -o stats.h5";
    refused(
        &place,
        1,
        &[
            ("collect", &format!("a.safetensors absent.safetensors {rest}"), &["absent.safetensors", "no such file"]),
            ("collect", &format!("a.safetensors text.safetensors {rest}"), &["text.safetensors", "model"]),
            ("collect", &format!("a.safetensors cut.safetensors {rest}"), &["cut.safetensors"]),
            ("collect", &format!("a.safetensors flipped.safetensors {rest}"), &["flipped.safetensors", "damaged"]),
            ("collect", &format!("a.safetensors wide.safetensors {rest}"), &["model 2", "`conv1`", "1→8"]),
            ("collect", &format!("a.safetensors large.safetensors {rest}"), &["[1, 12, 12]", "[1, 16, 16]"]),
            ("collect", &format!("a.safetensors other.safetensors {rest}"), &["preprocess", "0.5", "0.1"]),
            ("collect", &format!("a.safetensors hats.safetensors {rest}"), &["data", "lacks hat", "hats"]),
            ("collect", "a.safetensors b.safetensors --data data -o nowhere/stats.h5", &["nowhere"]),
            ("collect", "a.safetensors b.safetensors --data data -o folder", &["folder"]),
            ("collect", "a.safetensors b.safetensors --data data --device cuda -o stats.h5", &["cuda", "cpu"]),
            (
                "collect",
                "a.safetensors b.safetensors --data data --images 5 --batch-size 5 --shard 2/2 -o s.h5",
                &["shard"],
            ),
        ],
    );
    refused(
        &place,
        2,
        &[
            ("collect", "a.safetensors b.safetensors -o stats.h5", &["--data"]),
            ("collect", "a.safetensors b.safetensors --data data --shard 5/4 -o stats.h5", &["5/4"]),
            ("collect", "a.safetensors b.safetensors --data data --images 0 -o stats.h5", &["--images"]),
            ("collect", "a.safetensors b.safetensors --data data --device tpu -o stats.h5", &["tpu"]),
            ("collect", "--data data -o stats.h5", &["MODELS"]),
        ],
    );
}

#[test]
fn collect_images() {
    let place = two_networks(&tiny_graph(), 60);
    let idx = |folder: &str, change: &dyn Fn(&mut Vec<u8>, &mut Vec<u8>)| {
        write_idx(&place.path(folder), 60, 12, 6);
        let [images, labels] = ["images-idx3", "labels-idx1"].map(|f| place.path(&format!("{folder}/train-{f}-ubyte")));
        let (mut i, mut l) = (fs::read(&images).unwrap(), fs::read(&labels).unwrap());
        change(&mut i, &mut l);
        fs::write(images, i).unwrap();
        fs::write(labels, l).unwrap();
    };
    idx("truncated", &|images, _| images.truncate(3000));
    idx("fewer_labels", &|_, labels| {
        labels.truncate(48);
        labels[7] = 40;
    });
    idx("magic", &|images, _| images[2] = 0x0d);
    fs::create_dir(place.path("nothing")).unwrap();
    fs::create_dir_all(place.path("photos/train/cat")).unwrap();
    fs::write(place.path("photos/train/cat/1.jpg"), b"\xff\xd8\xff\xe0 broken").unwrap();
    fs::create_dir_all(place.path("photos/test/cat")).unwrap();
    fs::write(place.path("photos/test/cat/1.png"), b"\x89PNG\r\n\x1a\n broken").unwrap();
    fs::create_dir_all(place.path("no_pictures/cat")).unwrap();
    fs::write(place.path("no_pictures/cat/readme.txt"), "no picture").unwrap();
    fs::write(place.path("readme.txt"), "no data set").unwrap();
    let case = |data: &str| format!("a.safetensors b.safetensors --data {data} -o stats.h5");
    refused(
        &place,
        1,
        &[
            ("collect", &case("absent"), &["absent"]),
            ("collect", &case("nothing"), &["nothing"]),
            ("collect", &case("no_pictures"), &["no_pictures"]),
            ("collect", &case("readme.txt"), &["readme.txt"]),
            ("collect", &case("truncated"), &["train-images-idx3-ubyte"]),
            ("collect", &case("fewer_labels"), &["60", "40"]),
            ("collect", &case("magic"), &["train-images-idx3-ubyte"]),
            ("collect", &case("photos"), &["1.jpg"]),
            ("collect", &format!("{} --split test", case("photos")), &["1.png"]),
            ("eval", "a.safetensors --data photos", &["cat"]),
        ],
    );
}

#[test]
fn match_and_apply() {
    let place = whole_pipeline();
    cut(&place, "stats.h5", "cut.h5");
    flip_a_bit(&place, "stats.h5", "flipped.h5");
    cut(&place, "plan.bin", "cut.bin");
    flip_a_bit(&place, "plan.bin", "flipped.bin");
    fs::write(place.path("text.h5"), "hello").unwrap();
    let mut changed = model::read(&place.path("b.safetensors")).unwrap().model;
    changed.weights.get_mut("linear.bias").unwrap()[[0]] += 1e-3;
    write(&place, "changed", &changed);
    refused(
        &place,
        1,
        &[
            ("match", "absent.h5 -o p.bin", &["absent.h5"]),
            ("match", "text.h5 -o p.bin", &["text.h5", "stats"]),
            ("match", "a.safetensors -o p.bin", &["a.safetensors", "model", "stats"]),
            ("match", "cut.h5 -o p.bin", &["cut.h5"]),
            ("match", "flipped.h5 -o p.bin", &["flipped.h5"]),
            ("match", "stats.h5 --stop-at layer9.0.relu -o p.bin", &["layer9.0.relu", "layer1.0.relu"]),
            ("match", "stats.h5 --start-at 13/20 --stop-at 7/20 -o p.bin", &["13/20", "7/20"]),
            ("match", "stats.h5 --stop-at 25/20 -o p.bin", &["25/20"]),
            ("match", "stats.h5 --merge-only layer1.0.relu,conv7 -o p.bin", &["conv7"]),
            ("match", "stats.h5 -o report.json", &["report.json", "zipit eval", "--force"]),
            (
                "match",
                "stats.h5 -o data/train-images-idx3-ubyte",
                &["train-images-idx3-ubyte", "no file of zipit", "--force"],
            ),
            ("eval", "a.safetensors --data data --logits b.safetensors", &["b.safetensors", "--force"]),
            ("match", "stats.h5 --method zip --alpha 1.5 -o p.bin", &["alpha is"]),
            ("match", "stats.h5 --method zip --alpha NaN -o p.bin", &["alpha is"]),
            ("match", "stats.h5 --method zip --beta -1 -o p.bin", &["beta is"]),
            ("apply", "plan.bin a.safetensors -o m.safetensors", &["a model called b.safetensors", "a.safetensors"]),
            ("apply", "plan.bin a.safetensors a.safetensors -o m.safetensors", &["a.safetensors"]),
            ("apply", "plan.bin a.safetensors changed.safetensors -o m.safetensors", &["changed.safetensors"]),
            (
                "apply",
                "plan.bin a.safetensors b.safetensors merged.safetensors -o m.safetensors",
                &["merged.safetensors"],
            ),
            ("apply", "stats.h5 a.safetensors b.safetensors -o m.safetensors", &["stats.h5", "plan"]),
            ("apply", "cut.bin a.safetensors b.safetensors -o m.safetensors", &["cut.bin"]),
            ("apply", "flipped.bin a.safetensors b.safetensors -o m.safetensors", &["flipped.bin", "damaged"]),
        ],
    );
    refused(
        &place,
        2,
        &[
            ("match", "stats.h5 --force -o ./stats.h5", &["stats.h5 is an input"]),
            ("apply", "plan.bin a.safetensors b.safetensors -o b.safetensors", &["b.safetensors is an input"]),
            ("match", "stats.h5 --method permute --alpha 0.5 -o p.bin", &["--alpha", "zip"]),
            ("match", "stats.h5 --unmerge pinv --ridge 0.1 -o p.bin", &["--ridge", "covariance"]),
            ("match", "stats.h5 --method magic -o p.bin", &["magic", "permute"]),
            ("match", "stats.h5", &["--out"]),
        ],
    );
}

#[test]
fn recalibrate_eval_and_inspect() {
    let place = whole_pipeline();
    place.ok("eval", "a.safetensors --data data --split val -o val.json");
    fs::write(place.path("report2.json"), "{\"format\": \"zipit\"").unwrap();
    refused(
        &place,
        1,
        &[
            ("recalibrate", "plan.bin --data data -o n.safetensors", &["plan.bin", "model"]),
            ("recalibrate", "merged.safetensors --data absent -o n.safetensors", &["absent"]),
            ("eval", "stats.h5 --data data", &["stats.h5"]),
            ("eval", "report2.json --data data", &["report2.json"]),
            ("eval", "report.json val.json", &["val.json"]),
            ("eval", "absent.safetensors --data data", &["absent.safetensors"]),
            ("inspect", "absent.bin", &["absent.bin"]),
            ("inspect", "data", &["folder"]),
            ("inspect", "--verify data", &["manifest.json"]),
            ("inspect", "data/train-images-idx3-ubyte", &["data/train-images-idx3-ubyte"]),
        ],
    );
    refused(
        &place,
        2,
        &[
            ("recalibrate", "merged.safetensors -o n.safetensors", &["--data"]),
            ("eval", "--data data", &["FILES"]),
            ("eval", "merged.safetensors", &["--data"]),
            ("inspect", "", &["FILES"]),
        ],
    );
}

#[test]
fn train() {
    let place = Workplace::new();
    write_idx(&place.path("data"), 60, 12, 6);
    let rest = "--width 0.25 --epochs 1 -o net.safetensors";
    refused(
        &place,
        1,
        &[
            ("train", &format!("--arch resnet20 --data data --classes 0-9 {rest}"), &["0-9", "0, 1, 2, 3, 4, 5"]),
            ("train", &format!("--arch resnet20 --data data --classes shirt {rest}"), &["shirt"]),
            ("train", &format!("--arch resnet20 --data absent {rest}"), &["absent"]),
            ("train", &format!("--arch vgg16_bn --data data {rest}"), &["vgg16_bn", "12"]),
            ("train", "--arch resnet20 --data data --width 0 -o net.safetensors", &["width 0"]),
            ("train", &format!("--arch resnet20 --data data --lr -1 {rest}"), &["learning rate"]),
        ],
    );
}

/// A limit on a file's size stands in for a full disk: the write fails in the middle.
#[test]
fn a_disk_that_fills_up() {
    let place = whole_pipeline();
    let old = place.bytes("merged.safetensors");
    for (stage, args) in [
        ("collect", "a.safetensors b.safetensors --data data --images 50 -o stats.h5"),
        ("apply", "plan.bin a.safetensors b.safetensors --force -o merged.safetensors"),
        ("apply", "plan.bin a.safetensors b.safetensors -o new.safetensors"),
        ("eval", "merged.safetensors --data data --logits logits.safetensors"),
    ] {
        let before = contents(&place);
        let command = place.command(stage, args);
        let words: Vec<_> = std::iter::once(command.get_program()).chain(command.get_args()).collect();
        let output = std::process::Command::new("bash")
            .args(["-c", "trap '' XFSZ; ulimit -f 2; exec \"$@\"", "bash"])
            .args(words)
            .current_dir(place.path(""))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        println!("$ {stage} {args}\n{said}");
        assert_eq!(output.status.code(), Some(1), "{stage}: {said}");
        assert!(said.starts_with("error: ") && !said.contains("panicked"), "{said}");
        assert!(contents(&place) == before, "{stage} {args}: files changed");
    }
    assert!(place.bytes("merged.safetensors") == old);
}
