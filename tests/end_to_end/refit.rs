//! Refit through the binary: a permuted copy is given back, moments do what images do, nothing is done twice.

use crate::support::{max_difference, network_and_permuted_copy, tensors, tiny_graph, two_networks};
use ndarray::ArrayD;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use zipit::Graph;
use zipit::graph::{Arch, ArchSpec, Input, Node, Op, Window};
use zipit_artifact::model;
use zipit_tests::Workplace;

const MODELS: &str = "a.safetensors b.safetensors";

/// |Δlogit| allowed, for logits of order one.
const TOLERANCE: f32 = 1e-4;
/// The same behind fifty layers: what rounding of the sums adds to each layer, where nothing was left to be solved.
const DEEP_TOLERANCE: f32 = 1e-3;

/// Merges a network with its permuted copy, solves every layer, and compares every head's logits on other images.
fn gives_the_function_back(arch: Arch, width: f64, size: usize, flags: &[&str], allowed: f32) {
    function_comes_back(&ArchSpec::new(arch, width, 1, [size; 2], 3).build().unwrap(), flags, allowed);
}

fn function_comes_back(graph: &Graph, flags: &[&str], allowed: f32) {
    let place = network_and_permuted_copy(graph, 400);
    place.ok("collect", &format!("{MODELS} --data data -o stats.h5"));
    place.ok("match", "stats.h5 --method zip --alpha 1 --beta 0 --unmerge pinv -o plan.bin");
    let mut networks = Vec::new();
    for (i, flags) in flags.iter().enumerate() {
        place.ok("refit", &format!("plan.bin {MODELS} --data data {flags} -o refitted{i}.safetensors"));
        networks.push(format!("refitted{i}"));
    }
    let files: Vec<String> = networks.iter().map(|name| format!("{name}.safetensors")).collect();
    place.ok("eval", &format!("a.safetensors {} --data data --logits logits.safetensors", files.join(" ")));
    let logits = tensors(&place, "logits.safetensors");
    let original = &logits["a/first"];
    let size = original.iter().fold(0f32, |m, x| m.max(x.abs()));
    assert!(size > 0.05, "logits of order one are compared, these are at most {size}");
    for (network, flags) in networks.iter().zip(flags) {
        for head in ["first", "second"] {
            let difference = max_difference(original, &logits[&format!("{network}/{head}")]);
            assert!(difference <= allowed, "{} {flags}: {head} is off by {difference}", graph.arch);
        }
    }
}

#[test]
fn a_permuted_copy_of_resnet20() {
    gives_the_function_back(
        Arch::ResNet20,
        0.5,
        28,
        &["", "--mode layerwise", "--repair", "--ridge 1e-3", "--trust surest", "--rounds 0"],
        TOLERANCE,
    );
}

#[test]
fn a_permuted_copy_of_vgg11() {
    gives_the_function_back(Arch::Vgg11Bn, 0.125, 64, &["", "--repair"], TOLERANCE);
}

#[test]
fn a_permuted_copy_of_resnet18() {
    gives_the_function_back(Arch::ResNet18, 0.25, 64, &["", "--repair"], TOLERANCE);
}

#[test]
fn a_permuted_copy_of_resnet50() {
    gives_the_function_back(Arch::ResNet50, 0.125, 64, &[""], DEEP_TOLERANCE);
}

/// Branches added up one after the other, as Python does it.
#[test]
fn a_permuted_copy_of_a_sum_of_three_layers() {
    let conv = |i, kernel: usize| {
        let window = Window::square(kernel, 1, kernel / 2);
        Op::Conv2d { in_channels: i, out_channels: 8, window, groups: 1, bias: true }
    };
    let nodes: [(&str, Op, &[&str]); 11] = [
        ("stem", conv(1, 3), &["x"]),
        ("relu", Op::Relu, &["stem"]),
        ("a", conv(8, 1), &["relu"]),
        ("b", conv(8, 3), &["relu"]),
        ("add", Op::Add, &["a", "b"]),
        ("c", conv(8, 5), &["relu"]),
        ("add_1", Op::Add, &["add", "c"]),
        ("bn", Op::BatchNorm2d { num_features: 8, eps: 1e-5 }, &["add_1"]),
        ("relu_1", Op::Relu, &["bn"]),
        ("mean", Op::Mean, &["relu_1"]),
        ("fc", Op::Linear { in_features: 8, out_features: 3, bias: true }, &["mean"]),
    ];
    let node = |(name, op, inputs): &(&str, Op, &[&str])| Node {
        module: (!op.params().is_empty()).then(|| (*name).to_owned()),
        ..Node::new(*name, op.clone(), inputs.iter().map(|&input| input.to_owned()).collect())
    };
    let input = Input { name: "x".into(), shape: vec![1, 12, 12] };
    let graph =
        Graph { arch: "branches".into(), input, nodes: nodes.iter().map(node).collect(), outputs: vec!["fc".into()] };
    function_comes_back(&graph, &["", "--mode layerwise", "--repair", "--ridge 1e-3"], TOLERANCE);
}

/// Two networks, a plan of full width, and moments of what their layers read.
fn collected(graph: &Graph, n_images: usize) -> Workplace {
    let place = two_networks(graph, n_images);
    place.ok("collect", &format!("{MODELS} --data data --gram joint -o joint.h5"));
    place.ok("collect", &format!("{MODELS} --data data --gram own -o own.h5"));
    place.ok("match", "joint.h5 -o plan.bin");
    place
}

/// With more features than one network has, several layers take the place of one, and are solved one after the other.
#[test]
fn the_surest_is_believed_in_wide_residual_networks() {
    let graph = ArchSpec::new(Arch::ResNet20, 0.25, 1, [12; 2], 3).build().unwrap();
    let place = collected(&graph, 60);
    place.ok("match", "joint.h5 --budget 1.5 -o wide.bin");
    for trust in ["all", "surest"] {
        place.ok("refit", &format!("wide.bin {MODELS} --data data --trust {trust} -o {trust}.safetensors"));
    }
    let [all, surest] = ["all", "surest"].map(|name| tensors(&place, &format!("{name}.safetensors")));
    assert!(all.keys().eq(surest.keys()) && all != surest);
}

/// They are said, none is a copy, and a file without them is not taken for one with them.
#[test]
fn mirror_images_are_taken_beside_their_originals() {
    let graph = ArchSpec::new(Arch::ResNet20, 0.25, 1, [12; 2], 3).build().unwrap();
    let place = collected(&graph, 40);
    let command = format!("plan.bin {MODELS} --data data --images 30 --batch-size 5 -o out.safetensors");
    let told = place.ok("refit", &format!("{command} --flip --dry-run"));
    assert!(told.contains("30 unlabelled train images and their mirror images in batches of 6"), "{told}");
    place.ok("refit", &command);
    let plain = tensors(&place, "out.safetensors");
    let again = place.run("refit", &format!("{command} --flip --force")).code(0);
    assert!(!again.stderr().contains("copies"), "{again}");
    let mirrored = tensors(&place, "out.safetensors");
    assert!(plain.keys().eq(mirrored.keys()) && plain != mirrored);
    place.run("refit", &format!("{command} --flip")).code(0).says(&["out.safetensors is up to date"]);
}

/// The largest difference of two files' parameters, relative to the largest number of their layer.
fn difference(place: &Workplace, found: &str, expected: &str) -> f32 {
    let [found, expected] = [found, expected].map(|name| tensors(place, name));
    assert!(found.keys().eq(expected.keys()));
    let module = |name: &str| name.rsplit_once('.').unwrap().0.to_owned();
    let mut sizes: BTreeMap<String, f32> = BTreeMap::new();
    for (name, tensor) in &expected {
        let size = sizes.entry(module(name)).or_insert(f32::MIN_POSITIVE);
        *size = tensor.iter().fold(*size, |m, x| m.max(x.abs()));
    }
    let differ =
        |(name, tensor): (&String, &ArrayD<f32>)| max_difference(tensor, &expected[name]) / sizes[&module(name)];
    found.iter().map(differ).fold(0.0, f32::max)
}

#[test]
fn moments_solve_what_images_solve() {
    let place = collected(&tiny_graph(), 300);
    for (plan, flags) in [("plan", ""), ("half", "--keep 0.5"), ("part", "--start-at 7/20 --stop-at 13/20")] {
        if plan != "plan" {
            place.ok("match", &format!("joint.h5 {flags} -o {plan}.bin"));
        }
        for ridge in ["1", "1e-2"] {
            let refit = |rest: &str| place.ok("refit", &format!("{plan}.bin {MODELS} --ridge {ridge} {rest} --force"));
            refit("--mode layerwise --data data --positions all -o layerwise.safetensors");
            refit("--mode gram --stats joint.h5 -o gram.safetensors");
            refit("--mode gram --stats own.h5 -o own.safetensors");
            let off = difference(&place, "gram.safetensors", "layerwise.safetensors");
            assert!(off <= 1e-4, "{plan}, ridge {ridge}: {off}");
            assert!(difference(&place, "own.safetensors", "layerwise.safetensors") > 0.01, "each model by itself");
        }
    }
    // The moments of more models than one are needed to know how they shrink.
    place.ok("refit", &format!("plan.bin {MODELS} --repair --data data -o repaired.safetensors"));
    place.ok("refit", &format!("plan.bin {MODELS} --repair --mode gram --stats joint.h5 -o closed.safetensors"));
    let [measured, closed] = ["repaired", "closed"].map(|name| tensors(&place, &format!("{name}.safetensors")));
    // The first layer reads the images: nothing is estimated there.
    assert!(max_difference(&measured["conv1.weight"], &closed["conv1.weight"]) < 1e-4);
    for name in ["gram", "own", "repaired", "closed"] {
        place.ok("eval", &format!("{name}.safetensors --data data"));
    }
}

#[test]
fn other_images_choose_the_ridge_of_moments() {
    let place = collected(&tiny_graph(), 300);
    for gram in ["joint", "own"] {
        place.ok("collect", &format!("{MODELS} --data data --split test --gram {gram} -o holdout.h5 --force"));
        let refit = format!("plan.bin {MODELS} --mode gram --stats {gram}.h5");
        place.ok("refit", &format!("{refit} --holdout holdout.h5 --report {gram}.json -o {gram}.safetensors"));
        let chosen = weights(&report(&place, &format!("{gram}.json")));
        assert!(chosen.iter().all(|layer| layer["held_out"].is_number()), "{chosen:?}");
        let ridges: BTreeSet<String> = chosen.iter().map(|layer| layer["ridge"].to_string()).collect();
        assert!(ridges.len() > 1, "layer by layer: {ridges:?}");
        // Without them it is a thousandth.
        place.ok("refit", &format!("{refit} --report {gram}_alone.json -o {gram}_alone.safetensors"));
        let alone = weights(&report(&place, &format!("{gram}_alone.json")));
        assert!(alone.iter().all(|layer| layer["ridge"] == 1e-3 && layer["held_out"].is_null()), "{alone:?}");
    }
}

/// The layers of a report.
fn report(place: &Workplace, name: &str) -> Vec<Value> {
    let report: Value = serde_json::from_slice(&place.bytes(name)).unwrap();
    report["report"]["layers"].as_array().unwrap().clone()
}

fn weights(layers: &[Value]) -> Vec<Value> {
    layers.iter().map(|layer| layer["outcome"]["weights"].clone()).collect()
}

#[test]
fn reports_name_every_layer_and_nothing_is_done_twice() {
    let place = collected(&tiny_graph(), 200);
    for (name, flags) in [
        ("sequential", "--data data --rounds 0"),
        ("rounds", "--data data"),
        ("layerwise", "--mode layerwise --data data --weights 1,3"),
        ("gram", "--mode gram --stats joint.h5 --ridge 0.1"),
        ("own", "--mode gram --stats own.h5 --weights 1,3"),
        ("repair", "--repair --data data"),
        ("closed", "--repair --mode gram --stats joint.h5"),
    ] {
        let refit = |threads: usize, out: &str| {
            let args =
                format!("plan.bin {MODELS} {flags} --threads {threads} --report {out}.json -o {out}.safetensors");
            place.run("refit", &args).code(0)
        };
        let said = refit(1, name).stdout();
        refit(3, &format!("{name}3"));
        for kind in ["safetensors", "json"] {
            let [one, three] = ["", "3"].map(|threads| place.bytes(&format!("{name}{threads}.{kind}")));
            assert!(one == three, "{name}.{kind} differs with 3 threads");
        }
        let network = model::read(&place.path(&format!("{name}.safetensors"))).unwrap().model;
        let layers = report(&place, &format!("{name}.json"));
        let repaired = name == "repair" || name == "closed";
        let names = |layer: &Value| -> Vec<String> {
            layer["layers"].as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned()).collect()
        };
        let found: Vec<String> = layers.iter().flat_map(names).collect();
        // What the first layer makes of the images is exact; only its size may be wrong, and what comes through behind it.
        let all = network.graph.nodes.iter().filter(|node| node.module.is_some()).map(|node| node.name.as_str());
        let in_rounds = name == "rounds";
        let expected: Vec<&str> = all.skip(usize::from(!repaired && !in_rounds)).collect();
        let rounds = layers.iter().filter_map(|layer| layer["outcome"]["weights"]["rounds"].as_u64());
        assert_eq!(rounds.max(), in_rounds.then_some(2), "{name}");
        assert_eq!(found, expected, "{name}");
        for layer in &layers {
            let outcome = &layer["outcome"][if repaired { "scale" } else { "weights" }];
            let numbers = if repaired { &["spread"][..] } else { &["ridge", "before", "after"] };
            assert!(numbers.iter().all(|number| outcome[*number].as_f64().unwrap() >= 0.0), "{name}: {layer}");
            assert!(layer["n_inputs"].as_u64() > Some(0) && layer["n_outputs"].as_u64() > Some(0));
            assert!(said.contains(&names(layer).join(" + ")), "{name}: {said}");
        }
        // BatchNorm is gone, and so is what it knew.
        assert!(network.weights.keys().all(|name| !name.contains("running")));
        let written = || place.path(&format!("{name}.safetensors")).metadata().unwrap().modified().unwrap();
        let first = written();
        let again = refit(1, name);
        assert!(again.stdout().is_empty());
        again.says(&[&format!("{name}.safetensors is up to date"), &format!("{name}.json is up to date")]);
        assert_eq!(written(), first);
    }
}

#[test]
fn little_memory_takes_a_file_and_changes_nothing() {
    let place = collected(&tiny_graph(), 200);
    for (name, flags) in [("solved", ""), ("scaled", "--repair")] {
        let refit = format!("plan.bin {MODELS} --data data {flags}");
        place.ok("refit", &format!("{refit} -o {name}.safetensors"));
        place.ok("refit", &format!("{refit} --max-memory 0 -o {name}_aside.safetensors"));
        assert!(place.bytes(&format!("{name}.safetensors")) == place.bytes(&format!("{name}_aside.safetensors")));
    }
    // In rounds the first layer is solved, too: what it makes of the images is exact, what comes through behind it is not.
    for (flags, layers) in [("", 21), ("--rounds 0", 20)] {
        let said = place.ok("refit", &format!("plan.bin {MODELS} --data data {flags} -o dry.safetensors --dry-run"));
        assert!(
            said.contains(&format!("would solve {layers} layers on")) && said.contains("dry.safetensors"),
            "{said}"
        );
    }
    assert!(!place.path("dry.safetensors").exists());
}

#[test]
fn heads_of_one_label_space_are_solved_as_one() {
    let place = network_and_permuted_copy(&tiny_graph(), 200);
    let mut b = model::read(&place.path("b.safetensors")).unwrap().model;
    b.tasks[0].classes = ["0", "1", "2"].map(str::to_owned).to_vec();
    crate::support::write(&place, "c", &b);
    let models = "a.safetensors c.safetensors";
    place.ok("collect", &format!("{models} --data data -o stats.h5"));
    place.ok("match", "stats.h5 --method permute --unmerge pinv -o plan.bin");
    place.ok("refit", &format!("plan.bin {models} --heads merge --data data -o one.safetensors"));
    place.ok("eval", "a.safetensors one.safetensors --data data --logits logits.safetensors");
    let logits = tensors(&place, "logits.safetensors");
    let heads: Vec<_> = logits.keys().filter(|name| name.starts_with("one/")).collect();
    assert_eq!(heads.len(), 1, "one output");
    assert!(max_difference(&logits["a/first"], &logits[heads[0]]) <= TOLERANCE);
}
