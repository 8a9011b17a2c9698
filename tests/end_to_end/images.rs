//! Which images a stage uses.

use crate::support::{tiny_graph, two_networks, write};
use std::fs;
use zipit::{Crop, Interpolation};
use zipit_artifact::model;
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

/// Interpolation, crop mode and fill are asked for, shown, obeyed, and must agree.
#[test]
fn preprocessing_is_part_of_the_network() {
    let place = two_networks(&tiny_graph(), 30);
    let flags = "a.safetensors --arch resnet20 --classes 0-2 --size 12 --mean 0.5 --std 0.25";
    place.ok("import", &format!("{flags} -o plain.safetensors"));
    place.ok("import", &format!("{flags} --crop-pct 0.8 --interpolation bicubic -o cubic.safetensors"));
    place.ok("import", &format!("{flags} --resize 9x8 --crop border --fill 7 -o border.safetensors"));
    let read = |name: &str| model::read(&place.path(&format!("{name}.safetensors"))).unwrap().model.preprocess;
    assert_eq!((read("cubic").resize, read("cubic").interpolation), (Some([15, 15]), Interpolation::Bicubic));
    assert_eq!(
        (read("border").crop, read("border").resize, read("border").fill),
        (Crop::Border, Some([9, 8]), Some(vec![7]))
    );
    let said = place.ok("inspect", "cubic.safetensors");
    assert!(said.contains("covering 15×15 (bicubic), centre 12×12, mean [0.5], std [0.25]"), "{said}");

    let logits = |name: &str| {
        place.ok("predict", &format!("{name}.safetensors --data data -o {name}.csv"));
        place.bytes(&format!("{name}.csv"))
    };
    let found = ["plain", "cubic", "border"].map(logits);
    assert!(found[0] != found[1] && found[0] != found[2] && found[1] != found[2]);

    let words =
        ["preprocessing's interpolation is bicubic, model 1's is bilinear", "resize is 15×15, model 1's is 12×12"];
    place.fails("collect", "plain.safetensors cubic.safetensors --data data -o stats.h5", &words);
    let said = place.run("inspect", "plain.safetensors cubic.safetensors").code(1).stdout();
    assert!(words.iter().all(|words| said.contains(words)), "{said}");
    place.fails(
        "import",
        &format!("{flags} --crop-pct 1.2 -o no.safetensors"),
        &["resized to 10×10", "resize to 12 or more"],
    );
    place.fails("import", &format!("{flags} --fill 7 -o no.safetensors"), &["only `border` has a fill"]);
}
