//! Which images a stage uses.

use crate::support::{tiny_graph, two_networks, write};
use std::fs;
use zipit_tests::{random_model, write_idx};

#[test]
fn recalibrate_uses_the_tasks_classes_or_all() {
    let place = two_networks(&tiny_graph(), 120);
    // The training split is the part that is not kept for validation.
    let own = place.ok("recalibrate", "a.safetensors --data data -o own.safetensors");
    let all = place.ok("recalibrate", "a.safetensors --data data --all-classes -o all.safetensors");
    let images = |said: &str| -> usize {
        let from = said.split(" from ").nth(1).unwrap();
        from.split(' ').next().unwrap().parse().unwrap()
    };
    assert_eq!(images(&all), 108, "{all}");
    assert!((50..60).contains(&images(&own)), "half of the classes are a's: {own}");
    assert!(place.bytes("own.safetensors") != place.bytes("all.safetensors"));
}

#[test]
fn each_task_brings_its_own_data_set() {
    let place = two_networks(&tiny_graph(), 60);
    write(&place, "c", &random_model(&tiny_graph(), 3, "third", &["circle", "square", "star"]));
    write_idx(&place.path("shapes"), 40, 12, 3);
    fs::write(place.path("shapes/classes.txt"), "circle\nsquare\nstar\n").unwrap();
    let said = place.ok("collect", "a.safetensors c.safetensors --data data --data shapes -o stats.h5");
    // 28 of the first one (30 of the classes 0, 1, 2, less two kept for validation) and 36 of the second (40 less 4).
    assert!(said.contains("on 64 images"), "{said}");
    let said = place.ok("eval", "a.safetensors c.safetensors --data data --data shapes --format csv");
    assert!(said.lines().any(|l| l.starts_with("a,")) && said.lines().any(|l| l.starts_with("c,")), "{said}");
}
