//! Models in every floating-point type: what is written is rounded once, and read as f32.

use crate::fixture::{self, Folder};
use crate::forge::{Safetensors, Tensor};
use half::{bf16, f16};
use zipit_artifact::{Error, Precision, model, sniff};

type Rounding = fn(f32) -> f32;

const ALL: [(Precision, &str, Rounding); 4] = [
    (Precision::F16, "F16", |x| f16::from_f32(x).to_f32()),
    (Precision::Bf16, "BF16", |x| bf16::from_f32(x).to_f32()),
    (Precision::F32, "F32", |x| x),
    (Precision::F64, "F64", |x| x),
];

#[test]
fn every_type_there_and_back() {
    let folder = Folder::empty();
    let network = fixture::network(3);
    for (precision, dtype, rounded) in ALL {
        let [path, again] = ["a", "b"].map(|name| folder.path(&format!("{name}{dtype}")));
        model::write_as(&path, &network, precision, &fixture::provenance()).unwrap();
        let file = model::read(&path).unwrap();
        assert_eq!(file.precision, precision);
        assert_eq!(model::read_header(&path).unwrap().precision, precision);
        for (name, tensor) in &network.weights {
            assert_eq!(file.model.weights[name], tensor.mapv(rounded), "{dtype} {name}");
        }
        // What was rounded stays as it is.
        model::write_as(&again, &file.model, precision, &fixture::provenance()).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(bytes, std::fs::read(&again).unwrap());
        // The types and the digest are as the README says.
        let forged = Safetensors::of(&bytes);
        assert!(forged.tensors.values().all(|tensor| tensor.dtype == dtype));
        assert_eq!(forged.digest(), forged.metadata["zipit.digest"]);
        assert_eq!(sniff(&path).unwrap(), zipit_artifact::Kind::Model);
        assert_eq!(model::read_foreign_safetensors(&path).unwrap().precision, precision);
    }
    let default = folder.path("default");
    model::write(&default, &network, &fixture::provenance()).unwrap();
    assert_eq!(std::fs::read(default).unwrap(), std::fs::read(folder.path("aF32")).unwrap());
}

#[test]
fn numbers_that_a_type_cannot_hold_are_refused_by_name() {
    let folder = Folder::empty();
    let path = folder.path("m");
    let mut network = fixture::network(3);
    // 65519 rounds to the largest f16, 65520 does not.
    for (x, refused) in
        [(65_519.0, None), (-65_520.0, Some("bf16 or f32")), (3.389_5e38, Some("bf16 or f32")), (1e-30, None)]
    {
        network.weights.get_mut("fc.bias").unwrap()[[1]] = x;
        let written = model::write_as(&path, &network, Precision::F16, &fixture::provenance());
        match refused {
            None => written.unwrap(),
            Some(advice) => {
                let error = written.unwrap_err();
                assert!(matches!(error, Error::Unwritable { .. }), "{error}");
                let told = error.to_string();
                assert!(told.contains("`fc.bias`") && told.contains("f16") && told.contains(advice), "{told}");
            }
        }
    }
    network.weights.get_mut("fc.bias").unwrap()[[1]] = f32::MAX;
    let told = model::write_as(&path, &network, Precision::Bf16, &fixture::provenance()).unwrap_err().to_string();
    assert!(told.contains("`fc.bias`") && told.contains("store it as f32"), "{told}");
    model::write(&path, &network, &fixture::provenance()).unwrap();
}

#[test]
fn types_may_be_mixed_and_the_most_numbers_count() {
    let folder = Folder::empty();
    let network = fixture::network(3);
    let path = folder.path("m");
    model::write_as(&path, &network, Precision::F16, &fixture::provenance()).unwrap();
    let mut file = Safetensors::of(&std::fs::read(&path).unwrap());
    let bytes = network.weights["fc.bias"].iter().flat_map(|&x| f64::from(x).to_le_bytes()).collect();
    file.tensors.insert("fc.bias".into(), Tensor { dtype: "F64", shape: vec![2], bytes });
    let found = model::read(&folder.write("mixed", &file.sealed())).unwrap();
    assert_eq!(found.precision, Precision::F16);
    assert_eq!(found.model.weights["fc.bias"], network.weights["fc.bias"]);
    assert_eq!(Precision::mostly([(Precision::F16, 5), (Precision::F32, 3), (Precision::F16, 1)]), Precision::F16);
    assert_eq!(Precision::mostly([(Precision::F64, 5), (Precision::Bf16, 5)]), Precision::F64);
    assert_eq!(Precision::mostly([]), Precision::F32);
}
