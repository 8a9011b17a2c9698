//! `check`: what is said of pairs that cannot be merged as they are, and of pairs that can.

use crate::support::{tiny_graph, two_networks, write};
use serde_json::Value;
use zipit::graph::{Arch, ArchSpec, Input, Node, Op, Window};
use zipit::{Graph, Model};
use zipit_tests::{Workplace, random_model};

const BOTH: &str = "a.safetensors b.safetensors";

/// The page about a network of [`tiny_graph`] and this one, which must be refused; its first line and its advice.
fn refused(other: &Model) -> (String, String) {
    let place = Workplace::new();
    write(&place, "a", &random_model(&tiny_graph(), 1, "first", &["0", "1", "2"]));
    write(&place, "b", other);
    let ran = place.run("check", BOTH).code(1);
    let page = ran.stdout();
    let first = page.lines().next().unwrap().to_owned();
    let reason = first.strip_prefix("cannot be merged: ").unwrap().to_owned();
    ran.says(&[&format!("error: these models cannot be merged with each other: {reason}")]);
    assert!(!page.contains("collect"), "nothing is tried of what cannot be done\n{page}");
    let advice = page.lines().find_map(|line| line.trim().strip_prefix("what to do")).unwrap().trim().to_owned();
    (first, advice)
}

fn network(graph: &Graph) -> Model {
    random_model(graph, 2, "second", &["3", "4", "5"])
}

#[test]
fn another_width() {
    let (first, advice) = refused(&network(&ArchSpec::new(Arch::ResNet20, 0.5, 1, [12, 12], 3).build().unwrap()));
    let conv = |n: usize| format!("Conv2d 1→{n}, 3×3, padding 1 of x with weights `conv1`");
    assert_eq!(first, format!("cannot be merged: model 2: `conv1` is {}, model 1's is {}", conv(8), conv(4)));
    assert!(advice.contains("one width"), "{advice}");
}

#[test]
fn another_depth() {
    let (first, advice) = refused(&network(&ArchSpec::new(Arch::ResNet32, 0.25, 1, [12, 12], 3).build().unwrap()));
    let told = "cannot be merged: model 2: has `layer1.3.conv1` (Conv2d 4→4, 3×3, padding 1), which model 1 has not";
    assert_eq!(first, told);
    assert!(advice.contains("one architecture and depth"), "{advice}");
}

#[test]
fn another_kernel() {
    let mut graph = tiny_graph();
    let node = graph.nodes.iter_mut().find(|node| node.name == "layer2.0.conv2").unwrap();
    if let Op::Conv2d { window, .. } = &mut node.op {
        *window = Window::square(5, 1, 2);
    }
    let (first, advice) = refused(&network(&graph));
    let conv = |window: &str| format!("Conv2d 8→8, {window} of layer2.0.relu with weights `layer2.0.conv2`");
    let [own, theirs] = ["5×5, padding 2", "3×3, padding 1"].map(conv);
    assert_eq!(first, format!("cannot be merged: model 2: `layer2.0.conv2` is {own}, model 1's is {theirs}"));
    assert!(advice.contains("one kind of layer"), "{advice}");
}

#[test]
fn another_preprocessing() {
    let mut other = network(&tiny_graph());
    other.preprocess.std = vec![0.3];
    other.preprocess.mean = vec![0.1];
    let (first, advice) = refused(&other);
    assert_eq!(first, "cannot be merged: model 2: `mean` of the preprocessing is [0.1], model 1's is [0.5]");
    assert!(advice.contains("preprocessing"), "{advice}");
}

#[test]
fn another_size_of_images() {
    let (first, advice) = refused(&network(&ArchSpec::new(Arch::ResNet20, 0.25, 1, [16, 16], 3).build().unwrap()));
    assert_eq!(first, "cannot be merged: model 2: `size` of the preprocessing is 16×16, model 1's is 12×12");
    assert!(advice.contains("images of one size"), "{advice}");
}

#[test]
fn blocks_that_are_put_together_from_shuffled_parts() {
    let read = |name: &str| vec![name.to_owned()];
    let layer =
        |name: &str, op: Op, inputs: Vec<String>| Node { module: Some(name.to_owned()), ..Node::new(name, op, inputs) };
    let conv = |in_channels, out_channels, groups| Op::Conv2d {
        in_channels,
        out_channels,
        window: Window::square(3, 1, 1),
        groups,
        bias: false,
    };
    let graph = Graph {
        arch: "shuffled".to_owned(),
        input: Input { name: "x".to_owned(), shape: vec![1, 12, 12] },
        nodes: vec![
            layer("conv1", conv(1, 4, 1), read("x")),
            layer("conv2", conv(1, 4, 1), read("x")),
            layer("conv3", conv(1, 2, 1), read("x")),
            Node::new("both", Op::Concat, ["conv1", "conv2"].map(str::to_owned).to_vec()),
            Node::new("turned", Op::ChannelShuffle { groups: 2 }, read("both")),
            Node::new("all", Op::Concat, ["turned", "conv3"].map(str::to_owned).to_vec()),
            Node::new("shuffled", Op::Slice { ranges: vec![[0, 8]] }, read("all")),
            layer("grouped", conv(8, 4, 2), read("shuffled")),
            Node::new("mean", Op::Mean, read("grouped")),
            layer("fc", Op::Linear { in_features: 4, out_features: 3, bias: true }, read("mean")),
        ],
        outputs: read("fc"),
    };
    let (first, advice) = refused(&network(&graph));
    assert!(
        first.starts_with("cannot be merged: model 2: node `grouped` (Conv2d): `shuffled` has features in blocks"),
        "{first}"
    );
    assert!(advice.contains("docs/ops.md"), "{advice}");
}

#[test]
fn what_can_be_merged_is_described_and_tried() {
    let place = two_networks(&tiny_graph(), 120);
    let page = place.ok("check", &format!("{BOTH} --data data --images 60 --threads 2"));
    assert_eq!(page.lines().next(), Some("can be merged: 1 a.safetensors, 2 b.safetensors"));
    for words in [
        "models 1 and 2 share an initialisation  no: averaging",
        "task of model 2",
        "do not share one label space",
        "12 spaces of 112 features",
        "--stop-at layer1.2.relu_1",
        "recalibrate",
        "GiB",
    ] {
        assert!(page.contains(words), "{words}\n{page}");
    }
    assert!(!page.contains("dead weights"), "{page}");
    let page: Value =
        serde_json::from_str(&place.ok("check", &format!("{BOTH} --data data --images 60 --format json"))).unwrap();
    assert_eq!(page["mergeable"], true);
    let estimates = page["estimates"].as_array().unwrap();
    let stages: Vec<&str> = estimates.iter().map(|e| e["stage"].as_str().unwrap()).collect();
    assert_eq!(stages, ["collect", "match", "refit", "recalibrate", "eval"]);
    for estimate in estimates {
        assert_eq!(estimate["images"], if estimate["stage"] == "match" { 0 } else { 60 }, "{estimate}");
        assert!(estimate["seconds"].as_f64().unwrap() > 0.0, "{estimate}");
        // No stage is larger than LibTorch and a few small batches, and none is free.
        let mib = estimate["peak_bytes"].as_f64().unwrap() / f64::from(1 << 20);
        assert!(mib > 5.0 && mib < 1000.0, "{estimate}");
    }
    // Without trials, memory is told from the graph, and time is not told.
    let page: Value =
        serde_json::from_str(&place.ok("check", &format!("{BOTH} --data data --images 60 --no-trial --format json")))
            .unwrap();
    let untried = page["estimates"].as_array().unwrap();
    assert_eq!(untried.len(), estimates.len());
    for (tried, untried) in estimates.iter().zip(untried) {
        assert_eq!([&tried["stage"], &tried["images"]], [&untried["stage"], &untried["images"]]);
        assert!(untried["seconds"].is_null() && untried["cpu_seconds"].is_null(), "{untried}");
        let ratio = untried["peak_bytes"].as_f64().unwrap() / tried["peak_bytes"].as_f64().unwrap();
        assert!((0.5..2.0).contains(&ratio), "{ratio}: {tried}, {untried}");
    }
}

#[test]
fn relatives_heads_and_dead_weights_are_told() {
    let place = Workplace::new();
    let graph = tiny_graph();
    let a = random_model(&graph, 1, "first", &["0", "1", "2"]);
    // A fine-tune of the same network: most of each weight is the other's. One filter and two channels do nothing.
    let mut b = a.clone();
    let own = random_model(&graph, 2, "second", &["2", "1", "0"]);
    for (name, weight) in &mut b.weights {
        weight.zip_mut_with(&own.weights[name], |x, y| *x += 0.1 * y);
    }
    b.weights.get_mut("conv1.weight").unwrap().index_axis_mut(ndarray::Axis(0), 0).fill(0.0);
    b.weights.get_mut("bn1.weight").unwrap().iter_mut().take(2).for_each(|x| *x = 0.0);
    b.tasks = own.tasks;
    write(&place, "a", &a);
    write(&place, "b", &b);
    let page = place.ok("check", &format!("{BOTH} --no-trial"));
    for words in [
        "models 1 and 2 share an initialisation  yes: averaging",
        "fine-tunes",
        "0, 1, 2",
        "possible",
        "dead weights of model 2",
        "1 filters of zeros, 2 BatchNorm weights of zero",
    ] {
        assert!(page.contains(words), "{words}\n{page}");
    }
    assert!(page.contains("not tried") && !page.contains("dead weights of model 1"), "{page}");
}
