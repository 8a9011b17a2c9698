//! More than two networks, merged networks merged again, and heads of one label space.

use crate::support::{max_difference, network_and_permuted_copy, tensors, tiny_graph, two_networks, write};
use zipit_artifact::model;
use zipit_tests::{permuted, random_model};

#[test]
fn three_copies_give_three_heads_of_the_same_function() {
    let place = network_and_permuted_copy(&tiny_graph(), 90);
    let mut c = permuted(&model::read(&place.path("a.safetensors")).unwrap().model, 9);
    c.tasks[0].name = "third".to_owned();
    c.tasks[0].classes = ["0", "2", "4"].map(str::to_owned).to_vec();
    write(&place, "c", &c);
    place.ok("collect", "a.safetensors b.safetensors c.safetensors --data data -o stats.h5");
    place.ok("match", "stats.h5 --method zip --beta 0 --unmerge pinv --stop-at 13/20 -o plan.bin");
    place.ok("apply", "plan.bin c.safetensors a.safetensors b.safetensors -o merged.safetensors");
    place.ok("eval", "a.safetensors merged.safetensors --data data --logits logits.safetensors");
    let logits = tensors(&place, "logits.safetensors");
    for head in ["merged/first", "merged/second", "merged/third"] {
        assert!(max_difference(&logits["a/first"], &logits[head]) <= 1e-4, "{head}");
    }
}

#[test]
fn merged_networks_are_merged_again() {
    let place = network_and_permuted_copy(&tiny_graph(), 90);
    let (a, b) = ("a.safetensors", "b.safetensors");
    for (i, order) in [format!("{a} {b}"), format!("{b} {a}")].iter().enumerate() {
        place.ok("collect", &format!("{order} --data data -o stats{i}.h5"));
        place.ok("match", &format!("stats{i}.h5 --method permute --unmerge pinv --stop-at 13/20 -o plan{i}.bin"));
        place.ok("apply", &format!("plan{i}.bin {order} -o merged{i}.safetensors"));
    }
    place.ok("collect", "merged0.safetensors merged1.safetensors --data data -o again.h5");
    place.ok("match", "again.h5 --method permute --unmerge pinv -o again.bin");
    place.ok("apply", "again.bin merged0.safetensors merged1.safetensors -o again.safetensors");
    place.ok("eval", "a.safetensors again.safetensors --data data --logits logits.safetensors");
    let logits = tensors(&place, "logits.safetensors");
    let heads: Vec<_> = logits.keys().filter(|name| name.starts_with("again/")).collect();
    assert_eq!(heads.len(), 4);
    for head in heads {
        assert!(max_difference(&logits["a/first"], &logits[head]) <= 1e-4, "{head}");
    }
}

#[test]
fn heads_of_one_label_space_are_merged_on_request() {
    let graph = tiny_graph();
    let place = two_networks(&graph, 90);
    let a = random_model(&graph, 1, "first", &["0", "1", "2"]);
    let mut b = permuted(&a, 5);
    b.tasks[0].name = "second".to_owned();
    write(&place, "a", &a);
    write(&place, "b", &b);
    place.ok("collect", "a.safetensors b.safetensors --data data -o stats.h5");
    place.ok("match", "stats.h5 --method permute --unmerge pinv -o plan.bin");
    place.ok("apply", "plan.bin a.safetensors b.safetensors --heads merge -o one.safetensors");
    place.ok("eval", "a.safetensors one.safetensors --data data --logits logits.safetensors");
    let logits = tensors(&place, "logits.safetensors");
    let heads: Vec<_> = logits.keys().filter(|name| name.starts_with("one/")).collect();
    assert_eq!(heads.len(), 1, "one output");
    assert!(max_difference(&logits["a/first"], &logits[heads[0]]) <= 1e-4);
}

#[test]
fn heads_of_different_label_spaces_are_not_merged() {
    let place = two_networks(&tiny_graph(), 90);
    place.ok("collect", "a.safetensors b.safetensors --data data -o stats.h5");
    place.ok("match", "stats.h5 -o plan.bin");
    let apply = "plan.bin a.safetensors b.safetensors --heads merge -o one.safetensors";
    place.fails("apply", apply, &["first", "second"]);
    assert!(!place.path("one.safetensors").exists());
}
