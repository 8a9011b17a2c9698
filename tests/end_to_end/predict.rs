//! Logits of arrays and predictions for data sets: what `eval` counts.

use crate::bad_input::{cut, refused};
use crate::support::{max_difference, tensors, tiny_graph, two_networks};
use ndarray::{Array4, ArrayD, Axis, IxDyn, Slice};
use npyz::NpyFile;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::io::Cursor;
use zip::ZipArchive;
use zipit_artifact::model;
use zipit_data::{Dataset, Split};
use zipit_tests::Workplace;

/// As numpy.save writes it.
fn npy(images: &Array4<f32>) -> Vec<u8> {
    let text = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {:?}, }}", images.dim());
    let length = (10 + text.len() + 1).next_multiple_of(64) - 10;
    let text = format!("{text:<width$}\n", width = length - 1);
    let data: Vec<u8> = images.iter().flat_map(|x| x.to_le_bytes()).collect();
    [b"\x93NUMPY\x01\0", &(length as u16).to_le_bytes()[..], text.as_bytes(), &data].concat()
}

/// The arrays of an archive.
pub fn npz(place: &Workplace, name: &str) -> BTreeMap<String, ArrayD<f32>> {
    let mut archive = ZipArchive::new(Cursor::new(place.bytes(name))).unwrap();
    let names: Vec<String> = archive.file_names().map(|name| name.unwrap().into_owned()).collect();
    names
        .into_iter()
        .map(|name| {
            let file = NpyFile::new(archive.by_name(&name).unwrap()).unwrap();
            let shape: Vec<usize> = file.shape().iter().map(|&n| n as usize).collect();
            let array = ArrayD::from_shape_vec(IxDyn(&shape), file.into_vec().unwrap()).unwrap();
            (name.strip_suffix(".npy").unwrap().to_owned(), array)
        })
        .collect()
}

/// A gated network of tasks `first` and `second`, and the test images as it sees them, also in `images.npy`.
fn gated() -> (Workplace, Array4<f32>) {
    let place = two_networks(&tiny_graph(), 130);
    place.ok("collect", "a.safetensors b.safetensors --data data -o stats.h5");
    place.ok("match", "stats.h5 -o plan.bin");
    place.ok("refit", "plan.bin a.safetensors b.safetensors --data data -o network.safetensors");
    place.ok("gate", "network.safetensors --data data -o gated.safetensors");
    let preprocess = model::read(&place.path("gated.safetensors")).unwrap().model.preprocess;
    let data = Dataset::open(place.path("data"), Split::Test).unwrap();
    let images = data.load(&(0..data.len()).collect::<Vec<_>>(), &preprocess).unwrap();
    fs::write(place.path("images.npy"), npy(&images)).unwrap();
    (place, images)
}

#[test]
fn logits_are_those_that_eval_counts() {
    let (place, images) = gated();
    place.ok("eval", "gated.safetensors --data data --logits logits.safetensors");
    let said = place.ok("predict", "gated.safetensors --images images.npy -o logits.npz");
    assert!(said.contains("130 images") && said.contains("first [130, 3]") && said.contains("gate [130, 2]"), "{said}");
    let (found, expected) = (npz(&place, "logits.npz"), tensors(&place, "logits.safetensors"));
    assert!(found.keys().eq(["first", "gate", "second"]), "{:?}", found.keys());
    for task in ["first", "second"] {
        assert_eq!(found[task], expected[&format!("gated/{task}")], "{task}");
    }
    // Neither threads nor the file's name change a byte; batches change no more than rounding.
    place.ok("predict", "gated.safetensors --images images.npy --threads 1 -o again.npz");
    assert!(place.bytes("logits.npz") == place.bytes("again.npz"));
    fs::write(place.path("one.npy"), npy(&images.slice_axis(Axis(0), Slice::from(7..8)).to_owned())).unwrap();
    place.ok("predict", "gated.safetensors --images one.npy -o one.npz");
    place.ok("predict", "gated.safetensors --images images.npy --batch-size 7 -o sevens.npz");
    let (one, sevens) = (npz(&place, "one.npz"), npz(&place, "sevens.npz"));
    for (name, array) in &found {
        assert!(max_difference(&sevens[name], array) < 1e-4);
        assert!(max_difference(&one[name], &array.slice_axis(Axis(0), Slice::from(7..8)).to_owned()) < 1e-4);
    }
    // What somebody else left there is not lost.
    place.fails("predict", "gated.safetensors --images images.npy -o one.npz", &["one.npz", "--force"]);
    place.ok("predict", "gated.safetensors --images images.npy --force -o one.npz");
    assert!(place.bytes("logits.npz") == place.bytes("one.npz"));
}

#[test]
fn predictions_add_up_to_the_report() {
    let (place, _) = gated();
    place.ok("eval", "gated.safetensors --data data -o report.json");
    let scores =
        serde_json::from_slice::<Value>(&place.bytes("report.json")).unwrap()["report"]["rows"][0]["scores"].clone();
    let csv = place.ok("predict", "gated.safetensors --data data");
    let mut lines = csv.lines().map(|line| line.split(',').collect::<Vec<_>>());
    let headers = lines.next().unwrap();
    assert_eq!(headers[..3], ["image", "class", "first"]);
    assert_eq!(headers[3..], ["first probability", "second", "second probability", "joint task", "joint class"]);
    let rows: Vec<Vec<&str>> = lines.collect();
    assert_eq!(rows.len(), 130);
    let right = |column: usize| rows.iter().filter(|row| row[1] == row[column]).count();
    let counted = |what: &Value| what["n_correct"].as_u64().unwrap() as usize;
    assert_eq!(right(2), counted(&scores["tasks"][0]["score"]), "{scores}");
    assert_eq!(right(4), counted(&scores["tasks"][1]["score"]));
    assert_eq!(right(7), counted(&scores["joint"]["gate"]));
    assert!(rows.iter().enumerate().all(|(i, row)| row[0] == i.to_string()));
    assert!(rows.iter().all(|row| row[3].parse::<f64>().is_ok_and(|p| (1.0 / 3.0..=1.0).contains(&p))));

    place.ok("predict", "gated.safetensors --data data -o predictions.csv");
    assert_eq!(String::from_utf8(place.bytes("predictions.csv")).unwrap(), csv);
    // No rule, no joint choice; images of every class, whatever the network knows.
    let alone = place.ok("predict", "a.safetensors --data data --split val");
    assert_eq!(alone.lines().next(), Some("image,class,first,first probability"));
    assert_eq!(alone.lines().count(), 14);
}

#[test]
fn what_cannot_be_predicted_is_refused() {
    let (place, images) = gated();
    cut(&place, "images.npy", "cut.npy");
    cut(&place, "gated.safetensors", "cut.safetensors");
    fs::write(place.path("empty.npy"), "").unwrap();
    let write = |name: &str, images: &Array4<f32>| fs::write(place.path(name), npy(images)).unwrap();
    write("none.npy", &Array4::zeros((0, 1, 12, 12)));
    write("wide.npy", &Array4::zeros((2, 1, 12, 16)));
    write("last.npy", &Array4::zeros((2, 12, 12, 1)));
    let mut nan = images.clone();
    nan[[3, 0, 1, 1]] = f32::NAN;
    write("nan.npy", &nan);
    write("huge.npy", &Array4::from_elem((2, 1, 12, 12), 3e38));
    let case = |images: &str| format!("gated.safetensors --images {images} -o out.npz");
    refused(
        &place,
        1,
        &[
            ("predict", &case("absent.npy"), &["absent.npy"]),
            ("predict", &case("cut.npy"), &["cut.npy", "damaged"]),
            ("predict", &case("empty.npy"), &["empty.npy", "empty"]),
            ("predict", &case("none.npy"), &["none.npy", "no images"]),
            ("predict", &case("wide.npy"), &["wide.npy", "[1, 12, 16]", "gated.safetensors", "[1, 12, 12]"]),
            ("predict", &case("last.npy"), &["last.npy", "channels to the front"]),
            ("predict", &case("nan.npy"), &["nan.npy", "image 3", "NaN"]),
            ("predict", &case("huge.npy"), &["gated.safetensors", "NaN or infinity"]),
            ("predict", &case("stats.h5"), &["stats.h5", "numpy.save"]),
            ("predict", "cut.safetensors --images images.npy -o out.npz", &["cut.safetensors"]),
            ("predict", "plan.bin --images images.npy -o out.npz", &["plan.bin", "model"]),
            ("predict", "gated.safetensors --images images.npy -o nowhere/out.npz", &["nowhere"]),
            ("predict", "gated.safetensors --data absent", &["absent"]),
            ("predict", "gated.safetensors --data data -o plan.bin", &["plan.bin", "--force"]),
        ],
    );
    refused(
        &place,
        2,
        &[
            ("predict", "gated.safetensors", &["--images", "--data"]),
            ("predict", "gated.safetensors --images images.npy", &["--out"]),
            ("predict", "gated.safetensors --images images.npy --data data -o out.npz", &["--data"]),
            ("predict", "gated.safetensors --images images.npy --split val -o out.npz", &["--split"]),
            ("predict", "gated.safetensors --images images.npy --force -o images.npy", &["images.npy is an input"]),
        ],
    );
}
