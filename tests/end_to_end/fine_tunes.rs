//! `train --from`: fine-tunes of one base, which share its weights, graph and preprocessing.

use crate::support::{max_difference, tensors, tiny_graph, two_networks, write};
use zipit::graph::Op;
use zipit_artifact::model;
use zipit_tests::random_model;

const TRAIN: &str = "--data data --epochs 1 --batch-size 16 --no-flip --lr 0.002";

#[test]
fn fine_tunes_begin_with_the_base_and_a_head_of_their_own() {
    let place = two_networks(&tiny_graph(), 240);
    let mut base = random_model(&tiny_graph(), 9, "many", &["p", "q", "r"]);
    (base.preprocess.mean, base.preprocess.std) = (vec![0.3], vec![0.4]);
    write(&place, "base", &base);
    for (name, classes) in [("one", "0,1"), ("two", "2-5")] {
        let made = format!("--classes {classes} --seed 3 -o {name}.safetensors");
        place.ok("train", &format!("--from base.safetensors {TRAIN} {made}"));
        let file = model::read(&place.path(&format!("{name}.safetensors"))).unwrap();
        assert_eq!(file.model.preprocess, base.preprocess);
        assert!(file.provenance.inputs.iter().any(|input| input.name == "base.safetensors" && input.kind == "model"));
        let n_classes = file.model.tasks[0].classes.len();
        let head = file.model.graph.nodes.last().unwrap();
        assert_eq!(file.model.weights[&head.tensor("weight")].shape()[0], n_classes);
        assert_eq!(n_classes, if name == "one" { 2 } else { 4 });
        // What was learned lies near the base.
        for layer in ["conv1.weight", "layer3.2.conv2.weight"] {
            let moved = max_difference(&file.model.weights[layer], &base.weights[layer]);
            assert!(moved > 0.0 && moved < 0.1, "{name} {layer}: {moved}");
        }
    }
    // They are merged as they are.
    place.ok("collect", "one.safetensors two.safetensors --data data -o stats.h5");
    place.ok("match", "stats.h5 --method identity -o plan.bin");
    place.ok("apply", "plan.bin one.safetensors two.safetensors -o average.safetensors");
    let [one, two, average] = ["one", "two", "average"].map(|name| tensors(&place, &format!("{name}.safetensors")));
    let mean = (&one["conv1.weight"] + &two["conv1.weight"]) / 2.0;
    assert!(max_difference(&mean, &average["conv1.weight"]) < 1e-6);
}

#[test]
fn what_can_be_no_base_is_refused() {
    let place = two_networks(&tiny_graph(), 240);
    let train = |from: &str| format!("--from {from}.safetensors {TRAIN} --classes 0-2 -o out.safetensors");
    place.run("train", &format!("{} --arch resnet20", train("a"))).code(2).says(&["cannot be used with"]);
    place.run("train", &format!("{TRAIN} -o out.safetensors")).code(2).says(&["--arch"]);
    let mut two_heads = random_model(&tiny_graph(), 1, "first", &["0", "1", "2"]);
    two_heads.graph.outputs.push(two_heads.graph.nodes[0].name.clone());
    two_heads.tasks.push(zipit::Task { name: "features".into(), classes: vec![] });
    write(&place, "several", &two_heads);
    place.fails("train", &train("several"), &["several.safetensors has 2 outputs", "a base has one"]);
    let mut headless = random_model(&tiny_graph(), 1, "first", &[]);
    let head = headless.graph.nodes.pop().unwrap();
    assert!(matches!(head.op, Op::Linear { .. }));
    headless.graph.outputs = head.inputs;
    headless.drop_unused();
    write(&place, "headless", &headless);
    place.fails("train", &train("headless"), &["headless.safetensors does not end with one linear layer"]);
    let colour = zipit::graph::ArchSpec::new(zipit::graph::Arch::ResNet20, 0.25, 3, [12, 12], 3).build().unwrap();
    let mut colours = random_model(&colour, 3, "colours", &["0", "1", "2"]);
    colours.preprocess = zipit::Preprocess::new([12, 12], vec![0.5; 3], vec![0.2; 3]);
    write(&place, "colours", &colours);
    // Gray images become three equal channels.
    assert!(!place.path("out.safetensors").exists());
    place.ok("train", &train("colours"));
    assert_eq!(model::read(&place.path("out.safetensors")).unwrap().model.preprocess, colours.preprocess);
}
