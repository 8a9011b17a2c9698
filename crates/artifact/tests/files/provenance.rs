//! Chains of provenance.

use crate::fixture::{self, Folder};
use zipit_artifact::{InputRef, Provenance, model, provenance_of};

fn made_from(tool: &str, inputs: &[(&str, &Provenance)]) -> Provenance {
    Provenance {
        tool: tool.into(),
        inputs: inputs
            .iter()
            .map(|(digest, provenance)| InputRef {
                name: (*digest).into(),
                kind: "model".into(),
                blake3: (*digest).into(),
                provenance: Some(Box::new((*provenance).clone())),
            })
            .collect(),
        ..Provenance::default()
    }
}

#[test]
fn a_file_met_twice_is_explained_once() {
    let train = made_from("train", &[]);
    let collect = made_from("collect", &[("a", &train), ("b", &train)]);
    let apply = made_from("apply", &[("stats", &collect), ("a", &train), ("c", &train)]).compact();
    let explained = |input: &InputRef| input.provenance.is_some();
    assert!(explained(&apply.inputs[0]) && !explained(&apply.inputs[1]) && explained(&apply.inputs[2]));
    let collect = apply.inputs[0].provenance.as_ref().unwrap();
    assert!(collect.inputs.iter().all(explained));
    assert_eq!(apply.inputs[1].blake3, "a");
}

/// Merging what was merged, forty times over: the chain neither doubles nor gets too deep to be read.
#[test]
fn a_long_chain_stays_small() {
    let folder = Folder::empty();
    let path = folder.path("m");
    let mut provenance = made_from("train", &[]);
    let mut sizes = Vec::new();
    for generation in 0..40 {
        let [a, b] = ["a", "b"].map(|side| format!("{generation}{side}"));
        let stats = made_from("collect", &[(&a, &provenance), (&b, &provenance)]);
        let merged = made_from("apply", &[(&format!("{generation}s"), &stats), (&a, &provenance), (&b, &provenance)]);
        model::write(&path, &fixture::network(1), &merged).unwrap();
        provenance = provenance_of(&path).unwrap().unwrap();
        sizes.push(serde_json::to_string(&provenance).unwrap().len());
    }
    assert!(sizes[39] < 3 * sizes[19], "{sizes:?}");
    assert_eq!(provenance.tool, "apply");
}
