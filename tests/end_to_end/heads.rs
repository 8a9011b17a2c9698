//! Networks with heads of their own: other numbers of classes, with and without a bias, under other names.

use crate::support::{max_difference, network_and_permuted_copy, tensors, tiny_graph, write};
use zipit::graph::{Node, Op, Window};
use zipit::{Graph, Model};
use zipit_artifact::model;
use zipit_artifact::stats::StatsReader;
use zipit_tests::{Workplace, permuted, random_model};

const MODELS: &str = "a.safetensors one.safetensors two.safetensors";

/// The trunk of [`tiny_graph`] with a head of so many classes.
fn graph(classes: usize, bias: bool, name: &str) -> Graph {
    let mut graph = tiny_graph();
    let head = graph.nodes.last_mut().unwrap();
    if let Op::Linear { out_features, bias: own, .. } = &mut head.op {
        (*out_features, *own) = (classes, bias);
    }
    (head.name, head.module) = (name.to_owned(), Some(name.to_owned()));
    graph.outputs = vec![name.to_owned()];
    graph
}

fn read(place: &Workplace, name: &str) -> Model {
    model::read(&place.path(name)).unwrap().model
}

/// Networks a (three classes), one and two (so many) of one trunk with its features permuted.
fn three_networks() -> Workplace {
    let place = network_and_permuted_copy(&tiny_graph(), 120);
    let a = read(&place, "a.safetensors");
    for (seed, name, classes, bias) in [(5, "one", &["3"][..], true), (6, "two", &["4", "5"][..], false)] {
        let mut own = random_model(&graph(classes.len(), bias, &format!("{name}.fc")), seed, name, classes);
        own.weights
            .extend(a.weights.iter().filter(|(n, _)| !n.starts_with("linear")).map(|(n, t)| (n.clone(), t.clone())));
        write(&place, name, &permuted(&own, seed));
    }
    place
}

#[test]
fn three_one_and_two_classes_go_through_every_stage() {
    let place = three_networks();
    let collect = format!("{MODELS} --data data --images 90 --batch-size 16 --gram joint");
    for i in 1..=2 {
        place.ok("collect", &format!("{collect} --shard {i}/2 -o shard{i}.h5"));
    }
    place.ok("collect", "--reduce shard1.h5 shard2.h5 -o stats.h5");
    assert_eq!(StatsReader::open(&place.path("stats.h5")).unwrap().header().graphs().count(), 3);
    place.ok("inspect", "stats.h5");

    let matched = "--method permute --unmerge pinv";
    for (name, bound) in [("merged", ""), ("early", "--stop-at 13/20"), ("late", "--start-at 7/20")] {
        let said = place.ok("match", &format!("stats.h5 {matched} {bound} --predict -o {name}.bin"));
        place.ok("apply", &format!("{name}.bin {MODELS} -o {name}.safetensors"));
        // FLOPs are counted in those of the first network, with every head as wide as it is.
        let [one, all] =
            ["a", name].map(|name| read(&place, &format!("{name}.safetensors")).graph.cost().unwrap().macs as f64);
        let told = format!("{:.2}×", all / one);
        assert!(name == "late" || said.contains(&told), "{told}\n{said}");
    }
    let merged = read(&place, "merged.safetensors");
    assert_eq!(merged.tasks.iter().map(|task| task.classes.len()).collect::<Vec<_>>(), [3, 1, 2]);
    assert!(
        merged.weights.contains_key("models.1.one.fc.bias") && !merged.weights.contains_key("models.2.two.fc.bias")
    );
    place.ok("match", "stats.h5 --budget 1.5 -o budget.bin");
    let said = place.ok("apply", &format!("budget.bin {MODELS} -o budget.safetensors"));
    assert!(said.contains(": 1.4") || said.contains(": 1.50×"), "{said}");

    let images = "--data data --images 60 --batch-size 16";
    for (name, mode) in [
        ("sequential", images),
        ("layerwise", &format!("{images} --mode layerwise --trust surest")),
        ("scale", &format!("{images} --repair")),
        ("gram", "--mode gram --stats stats.h5"),
        ("gram_scale", "--mode gram --stats stats.h5 --repair"),
    ] {
        place.ok("refit", &format!("merged.bin {MODELS} {mode} -o {name}.safetensors"));
    }
    place.ok("recalibrate", &format!("merged.safetensors {images} -o again.safetensors"));
    place.ok("gate", "merged.safetensors --data data -o gated.safetensors");
    place.ok("gate", &format!("{MODELS} --data data -o side.safetensors"));

    let exact = ["merged", "early", "late", "gated", "side"];
    let solved = ["sequential", "layerwise", "scale", "gram", "gram_scale"];
    let all: Vec<String> = exact.iter().chain(&solved).map(|name| format!("{name}.safetensors")).collect();
    let rows = all.join(" ");
    let said = place.ok("eval", &format!("{rows} --ensemble {MODELS} --data data --logits logits.safetensors"));
    assert!(said.contains("gate") && said.contains("ensemble of 3"), "{said}");
    let logits = tensors(&place, "logits.safetensors");
    for name in exact.iter().chain(&solved) {
        for (model, task) in [("a", "first"), ("one", "one"), ("two", "two")] {
            let [own, found] = [model, name].map(|network| &logits[&format!("{network}/{task}")]);
            let (off, allowed) = (max_difference(own, found), if exact.contains(name) { 1e-4 } else { 1e-2 });
            assert!(off <= allowed, "{name}/{task}: {off}");
        }
    }
    place.ok("predict", "gated.safetensors --data data -o predictions.csv");
    place.ok("inspect", "gated.safetensors --svg gated.svg");
}

#[test]
fn networks_of_two_and_of_three_heads_are_merged() {
    let place = three_networks();
    let matched = "--method permute --unmerge pinv";
    for (name, models) in [("pair", "a.safetensors two.safetensors"), ("three", MODELS)] {
        place.ok("collect", &format!("{models} --data data -o {name}.h5"));
        place.ok("match", &format!("{name}.h5 {matched} -o {name}.bin"));
        place.ok("apply", &format!("{name}.bin {models} -o {name}.safetensors"));
    }
    let both = "pair.safetensors three.safetensors";
    place.ok("collect", &format!("{both} --data data --gram own -o both.h5"));
    place.ok("match", &format!("both.h5 {matched} -o both.bin"));
    place.ok("apply", &format!("both.bin {both} -o five.safetensors"));
    place.ok("refit", &format!("both.bin {both} --data data --mode layerwise -o refit.safetensors"));
    place.ok("refit", &format!("both.bin {both} --stats both.h5 --mode gram -o gram.safetensors"));
    place.ok(
        "eval",
        &format!(
            "five.safetensors refit.safetensors gram.safetensors {MODELS} --data data --logits logits.safetensors"
        ),
    );
    let logits = tensors(&place, "logits.safetensors");
    for (network, allowed) in [("five", 1e-4), ("refit", 1e-2), ("gram", 1e-2)] {
        for (head, own) in
            [("first", "a/first"), ("two", "two/two"), ("first-2", "a/first"), ("one", "one/one"), ("two-2", "two/two")]
        {
            let off = max_difference(&logits[&format!("{network}/{head}")], &logits[own]);
            assert!(off <= allowed, "{network}/{head}: {off}");
        }
    }
    let refused = format!("both.bin {both} --heads merge -o merged.safetensors");
    place.fails("apply", &refused, &["keep them separate", "model 2 has its outputs at"]);
}

#[test]
fn trunks_that_differ_are_refused_by_their_first_difference() {
    let place = three_networks();
    let mut deeper = tiny_graph();
    let last = deeper.nodes.last_mut().unwrap();
    (last.name, last.module) = ("fc.0".to_owned(), Some("fc.0".to_owned()));
    let mut logits = last.clone();
    (logits.name, logits.module, logits.inputs) = ("fc.1".into(), Some("fc.1".into()), vec!["fc.0".into()]);
    logits.op = Op::Linear { in_features: 3, out_features: 2, bias: true };
    deeper.nodes.push(logits);
    deeper.outputs = vec!["fc.1".to_owned()];
    write(&place, "deeper", &random_model(&deeper, 3, "deeper", &["4", "5"]));
    let words = ["model 2: has `fc.0`", "the head at fc.1", "hidden layers"];
    place.fails("collect", "a.safetensors deeper.safetensors --data data -o stats.h5", &words);
    place.fails("gate", "a.safetensors deeper.safetensors --data data -o gated.safetensors", &words);
    place.ok("inspect", "a.safetensors one.safetensors two.safetensors");
}

/// A second head that reads what nothing else does, before a ReLU.
#[test]
fn an_early_exit_of_one_network_is_kept() {
    let place = three_networks();
    let mut graph = tiny_graph();
    let window = Window::square(1, 1, 0);
    let logits = Op::Conv2d { in_channels: 4, out_channels: 2, window, groups: 1, bias: true };
    let node = |name: &str, op: Op, input: &str| Node::new(name, op, vec![input.to_owned()]);
    let exit = Node { module: Some("exit".to_owned()), ..node("exit", logits, "layer1.0.bn1") };
    let pool = node("exit.pool", Op::AdaptiveAvgPool2d { output: [1, 1] }, "exit");
    graph.nodes.extend([exit, pool, node("exit.flatten", Op::Flatten, "exit.pool")]);
    graph.outputs.push("exit.flatten".to_owned());
    let mut early = random_model(&graph, 3, "early", &["3", "4", "5"]);
    let classes = ["0", "1"].map(str::to_owned).to_vec();
    early.tasks.push(zipit::Task { name: "exit".to_owned(), classes });
    let trunk = read(&place, "a.safetensors").weights.into_iter().filter(|(name, _)| !name.starts_with("linear"));
    early.weights.extend(trunk);
    write(&place, "early", &permuted(&early, 8));
    let words = ["the head of early.safetensors reads `layer1.0.bn1`", "first"];
    place.fails("collect", "a.safetensors early.safetensors --data data -o stats.h5", &words);
    place.ok("collect", "early.safetensors a.safetensors --data data -o stats.h5");
    place.ok("match", "stats.h5 --method permute --unmerge pinv -o plan.bin");
    place.ok("apply", "plan.bin a.safetensors early.safetensors -o merged.safetensors");
    place.ok("refit", "plan.bin a.safetensors early.safetensors --data data --mode layerwise -o refit.safetensors");
    place.ok(
        "eval",
        "a.safetensors early.safetensors merged.safetensors refit.safetensors --data data --logits logits.safetensors",
    );
    let logits = tensors(&place, "logits.safetensors");
    for (network, allowed) in [("merged", 1e-4), ("refit", 1e-2)] {
        for own in ["early/early", "early/exit", "a/first"] {
            let head = own.split_once('/').unwrap().1;
            let off = max_difference(&logits[own], &logits[&format!("{network}/{head}")]);
            assert!(off <= allowed, "{network}/{head}: {off}");
        }
    }
}
