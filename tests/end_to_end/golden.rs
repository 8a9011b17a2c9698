//! The whole chain against an independent derivation in PyTorch and `NumPy` (`scripts/derive_golden.py`).

use crate::support::{max_difference, tensors};
use serde_json::Value;
use std::fs;
use zipit_artifact::plan;
use zipit_tests::{Workplace, repository};

fn number(value: &Value) -> String {
    value.as_f64().unwrap().to_string()
}

#[test]
fn the_binaries_agree_with_the_derivation() {
    let golden = repository().join("tests/golden/tiny_resnet20");
    let place = Workplace::new();
    for (name, classes) in [("a", "0-2"), ("b", "3-5")] {
        let file = golden.join(format!("{name}.pt"));
        place.ok(
            "import",
            &format!(
                "{} --arch resnet20 --classes {classes} --size 12 --mean 0.4 --std 0.3 -o {name}.safetensors",
                file.display()
            ),
        );
    }
    place.ok("collect", &format!("a.safetensors b.safetensors --data {} -o stats.h5", golden.join("data").display()));
    let expected: Value = serde_json::from_slice(&fs::read(golden.join("expected.json")).unwrap()).unwrap();
    for (case, expected) in expected.as_object().unwrap() {
        let settings = &expected["settings"];
        let stop_at = ["7/20", "13/20", "19/20"][settings["stages"].as_u64().unwrap() as usize - 1];
        let mut flags = format!(
            "--method zip --alpha {} --beta {} --stop-at {stop_at} --unmerge {}",
            number(&settings["alpha"]),
            number(&settings["beta"]),
            settings["unmerge"].as_str().unwrap()
        );
        if settings.get("ridge").is_some() {
            flags += &format!(" --ridge {}", number(&settings["ridge"]));
        }
        place.ok("match", &format!("stats.h5 {flags} -o {case}.bin"));
        place.ok("apply", &format!("{case}.bin a.safetensors b.safetensors -o {case}.safetensors"));

        let found = plan::read(&place.path(&format!("{case}.bin"))).unwrap().plan;
        let points = expected["points"].as_object().unwrap();
        assert_eq!(found.points.len(), points.len(), "{case}");
        for point in &found.points {
            let wanted: Vec<u32> = serde_json::from_value(points[&point.name]["assignment"].clone()).unwrap();
            assert_eq!(point.assignment, wanted, "{case}: {}", point.name);
        }

        let merged = tensors(&place, &format!("{case}.safetensors"));
        let wanted = zipit_artifact::model::read_foreign_safetensors(&golden.join(format!("{case}.safetensors")))
            .unwrap()
            .weights;
        assert_eq!(merged.keys().collect::<Vec<_>>(), wanted.keys().collect::<Vec<_>>(), "{case}");
        for (name, tensor) in &wanted {
            let difference = max_difference(tensor, &merged[name]);
            assert!(difference <= 1e-5, "{case}: {name} is off by {difference}");
        }
    }
}
