//! `--dtype`: how the weights of what is made are stored.

use crate::bad_input::refused;
use crate::support::{exported, safetensors, tensors, tiny_graph, two_networks, write};
use std::fs;
use zipit_artifact::{Precision, model};
use zipit_tests::{Workplace, random_model};

fn precision(place: &Workplace, name: &str) -> Precision {
    model::read_header(&place.path(&format!("{name}.safetensors"))).unwrap().precision
}

#[test]
fn every_stage_that_makes_models_stores_them_as_asked() {
    let place = two_networks(&tiny_graph(), 120);
    let network = model::read(&place.path("a.safetensors")).unwrap().model;
    fs::write(place.path("plain.safetensors"), safetensors(&network, &exported(&network))).unwrap();
    let said = place.ok("import", "plain.safetensors --dtype f16 -o half.safetensors");
    assert!(said.contains("half.safetensors"), "{said}");
    assert_eq!(precision(&place, "half"), Precision::F16);
    place.ok("import", "plain.safetensors --dtype input -o same.safetensors");
    assert_eq!(precision(&place, "same"), Precision::F32);
    // A checkpoint in half precision comes back as one.
    place.ok("import", "half.safetensors --arch resnet20 --classes 0-2 --size 12 --mean 0.5 --std 0.25 --dtype input -o again.safetensors");
    assert_eq!(precision(&place, "again"), Precision::F16);
    assert_eq!(tensors(&place, "again.safetensors"), tensors(&place, "half.safetensors"));

    place.ok("collect", "half.safetensors b.safetensors --data data -o stats.h5");
    place.ok("match", "stats.h5 -o plan.bin");
    let models = "half.safetensors b.safetensors";
    place.ok("apply", &format!("plan.bin {models} -o full.safetensors"));
    place.ok("apply", &format!("plan.bin {models} --dtype input -o as_input.safetensors"));
    place.ok("apply", &format!("plan.bin {models} --dtype bf16 -o brain.safetensors"));
    place.ok("recalibrate", "brain.safetensors --data data --dtype input -o reset.safetensors");
    place.ok("refit", &format!("plan.bin {models} --data data --dtype f16 -o fitted.safetensors"));
    place.ok("gate", "fitted.safetensors --data data --dtype input -o gated.safetensors");
    let found = ["full", "as_input", "brain", "reset", "fitted", "gated"].map(|name| precision(&place, name));
    let (half, brain, full) = (Precision::F16, Precision::Bf16, Precision::F32);
    assert_eq!(found, [full, half, brain, brain, half, half]);
    // Half the bytes, hardly another network.
    assert!(2 * place.bytes("brain.safetensors").len() < place.bytes("full.safetensors").len() * 3 / 2);
    for (name, tensor) in tensors(&place, "full.safetensors") {
        let rounded = &tensors(&place, "as_input.safetensors")[&name];
        assert!(tensor.iter().zip(rounded).all(|(x, y)| (x - y).abs() <= x.abs() / 2048.0 + 1e-7), "{name}");
    }
    assert!(place.ok("inspect", "gated.safetensors").contains("f16"));
    assert!(place.ok("inspect", "brain.safetensors --format json").contains("\"dtype\": \"bf16\""));
    place.ok("eval", "gated.safetensors --data data");
    // Another type is another file; the same is up to date.
    let again = format!("plan.bin {models} --dtype bf16 -o brain.safetensors");
    place.run("apply", &again).code(0).says(&["up to date"]);
    assert!(!place.ok("apply", &again.replace("bf16", "f16")).is_empty());
}

#[test]
fn what_becomes_infinite_is_refused() {
    let place = Workplace::new();
    let mut network = random_model(&tiny_graph(), 1, "pets", &["cat", "dog", "owl"]);
    network.weights.get_mut("linear.bias").unwrap()[[1]] = 1e5;
    fs::write(place.path("large.safetensors"), safetensors(&network, &exported(&network))).unwrap();
    write(&place, "ours", &network);
    let case = |dtype: &str| format!("large.safetensors --dtype {dtype} -o out.safetensors");
    refused(&place, 1, &[("import", &case("f16"), &["out.safetensors", "linear.bias", "1e5", "bf16 or f32"])]);
    refused(&place, 2, &[("import", &case("f8"), &["f8", "bf16", "input"])]);
    place.ok("import", &case("bf16"));
}
