//! Whatever is wrong with what `refit` is given, a message says what, and no file is made or lost.

use crate::bad_input::{cut, flip_a_bit, refused};
use crate::support::{tiny_graph, two_networks, write};
use std::fs;
use zipit_artifact::header::Provenance;
use zipit_artifact::stats::{self, StatsHeader, StatsReader};
use zipit_artifact::{model, plan};
use zipit_tests::Workplace;

const MODELS: &str = "a.safetensors b.safetensors";

/// Two networks, a plan, and moments with and without what the layers read.
fn collected() -> Workplace {
    let place = two_networks(&tiny_graph(), 60);
    for (name, flags) in [
        ("plain", ""),
        ("joint", "--gram joint"),
        ("own", "--gram own"),
        ("shard", "--gram joint --batch-size 8 --shard 1/2"),
        ("holdout", "--gram own --split test"),
    ] {
        place.ok("collect", &format!("{MODELS} --data data {flags} -o {name}.h5"));
    }
    place.ok("match", "plain.h5 -o plan.bin");
    place
}

/// The same moments, said to be those of fewer batches than there are.
fn unfinished(place: &Workplace, from: &str, to: &str) {
    let reader = StatsReader::open(&place.path(from)).unwrap();
    let header = reader.header();
    let header = StatsHeader { n_batches: header.n_batches + 1, ..header.clone() };
    stats::write(&place.path(to), &header, &reader.collected().unwrap()).unwrap();
}

#[test]
fn files_that_do_not_belong_together() {
    let place = collected();
    let mut changed = model::read(&place.path("b.safetensors")).unwrap().model;
    changed.weights.get_mut("linear.bias").unwrap()[[0]] += 1e-3;
    write(&place, "changed", &changed);
    place.ok("collect", "a.safetensors changed.safetensors --data data --gram joint -o changed.h5");
    place.ok("collect", "b.safetensors a.safetensors --data data --gram joint -o swapped.h5");
    unfinished(&place, "joint.h5", "unfinished.h5");
    cut(&place, "joint.h5", "cut.h5");
    flip_a_bit(&place, "joint.h5", "flipped.h5");
    flip_a_bit(&place, "plan.bin", "flipped.bin");
    let images = |models: &str| format!("plan.bin {models} --data data -o n.safetensors");
    let moments = |rest: &str| format!("plan.bin {MODELS} --mode gram {rest} -o n.safetensors");
    let part = ["unfinished.h5", "only a part of a collection", "collect --reduce"];
    refused(
        &place,
        1,
        &[
            ("refit", &format!("absent.bin {MODELS} --data data -o n.safetensors"), &["absent.bin", "no such file"]),
            ("refit", &format!("plain.h5 {MODELS} --data data -o n.safetensors"), &["plain.h5", "stats", "plan"]),
            ("refit", &format!("flipped.bin {MODELS} --data data -o n.safetensors"), &["flipped.bin", "damaged"]),
            ("refit", &images("a.safetensors"), &["a model called b.safetensors"]),
            (
                "refit",
                &images("a.safetensors changed.safetensors"),
                &["plan.bin", "b.safetensors", "changed.safetensors"],
            ),
            ("refit", &images(&format!("{MODELS} changed.safetensors")), &["changed.safetensors is not one of the 2"]),
            ("refit", &images("a.safetensors absent.safetensors"), &["absent.safetensors", "no such file"]),
            ("refit", &format!("plan.bin {MODELS} --data absent -o n.safetensors"), &["absent"]),
            ("refit", &format!("plan.bin {MODELS} --data data -o nowhere/n.safetensors"), &["nowhere"]),
            ("refit", &format!("plan.bin {MODELS} --data data --device cuda -o n.safetensors"), &["cuda", "cpu"]),
            ("refit", &format!("plan.bin {MODELS} --data data --heads merge -o n.safetensors"), &["first", "second"]),
            ("refit", &moments("--stats absent.h5"), &["absent.h5", "no such file"]),
            ("refit", &moments("--stats plan.bin"), &["plan.bin", "plan", "stats"]),
            ("refit", &moments("--stats cut.h5"), &["cut.h5"]),
            ("refit", &moments("--stats flipped.h5"), &["flipped.h5", "damaged"]),
            (
                "refit",
                &moments("--stats plain.h5"),
                &["plain.h5", "does not hold what the layers read", "--gram joint"],
            ),
            ("refit", &moments("--stats changed.h5"), &["changed.h5", "other models than plan.bin"]),
            ("refit", &moments("--stats swapped.h5"), &["swapped.h5", "other models than plan.bin"]),
            ("refit", &moments("--stats unfinished.h5"), &part),
            ("refit", &moments("--stats shard.h5"), &["shard.h5", "only a part of a collection"]),
            ("refit", &moments("--stats own.h5 --repair"), &["--gram joint"]),
            ("refit", &moments("--stats joint.h5 --holdout joint.h5"), &["same file", "other images"]),
            ("refit", &moments("--stats joint.h5 --holdout plain.h5"), &["plain.h5", "--gram joint"]),
            ("refit", &moments("--stats joint.h5 --holdout changed.h5"), &["changed.h5", "other models"]),
        ],
    );
}

#[test]
fn numbers_that_make_no_sense() {
    let place = collected();
    let with = |flags: &str| format!("plan.bin {MODELS} --data data {flags} -o n.safetensors");
    refused(
        &place,
        1,
        &[
            ("refit", &with("--ridge 0"), &["ridge of the refit is 0", "positive"]),
            ("refit", &with("--ridge=-1"), &["ridge of the refit is -1"]),
            ("refit", &with("--ridge nan"), &["ridge of the refit is NaN"]),
            ("refit", &with("--ridge inf"), &["ridge of the refit is inf"]),
            ("refit", &with("--weights 1"), &["1 weights for 2 models"]),
            ("refit", &with("--weights 1,2,3"), &["3 weights for 2 models"]),
            ("refit", &with("--weights 1,0"), &["weight 0 is not a positive number"]),
            ("refit", &with("--weights=-1,1"), &["weight -1 is not a positive number"]),
            ("refit", &with("--weights nan,1"), &["weight NaN is not a positive number"]),
            ("refit", &with("--max-memory=-1"), &["--max-memory is -1"]),
            ("refit", &with("--max-memory nan"), &["--max-memory is NaN"]),
        ],
    );
    refused(
        &place,
        2,
        &[
            ("refit", &with("--ridge much"), &["--ridge", "much"]),
            ("refit", &with("--weights 1,b"), &["--weights", "b"]),
            ("refit", &with("--images 0"), &["--images"]),
            ("refit", &with("--device tpu"), &["tpu"]),
            ("refit", &with("--mode magic"), &["magic", "sequential"]),
            ("refit", &with("--trust nobody"), &["nobody", "all", "surest"]),
        ],
    );
}

#[test]
fn flags_that_do_not_go_together() {
    let place = collected();
    let with = |flags: &str| format!("plan.bin {MODELS} {flags} -o n.safetensors");
    refused(
        &place,
        2,
        &[
            ("refit", &with(""), &["--data"]),
            ("refit", &with("--mode gram"), &["--mode gram needs --stats", "collect --gram"]),
            ("refit", &with("--mode gram --stats joint.h5 --data data"), &["takes no images"]),
            ("refit", &with("--mode gram --stats joint.h5 --images 5"), &["takes no images"]),
            ("refit", &with("--mode gram --stats joint.h5 --flip"), &["takes no images", "--flip"]),
            (
                "refit",
                &with("--mode gram --stats joint.h5 --positions 8"),
                &["--positions", "cannot be used with", "--stats"],
            ),
            ("refit", &with("--data data --stats joint.h5"), &["--stats belongs to --mode gram"]),
            ("refit", &with("--mode layerwise --data data --stats joint.h5"), &["--stats belongs to --mode gram"]),
            ("refit", &with("--mode gram --holdout holdout.h5"), &["--stats"]),
            ("refit", &with("--mode gram --stats own.h5 --holdout holdout.h5 --ridge 1"), &["--ridge", "--holdout"]),
            ("refit", &with("--mode gram --stats own.h5 --rounds 1"), &["--rounds belongs to --mode sequential"]),
            ("refit", &with("--data data --mode layerwise --rounds 1"), &["--rounds belongs to --mode sequential"]),
            ("refit", &with("--data data --repair --rounds 1"), &["--rounds", "--repair"]),
            ("refit", &with("--data data --rounds two"), &["--rounds", "two"]),
            ("refit", &with("--data data --repair --ridge 1"), &["--ridge", "--repair"]),
            ("refit", &with("--data data --repair --mode layerwise"), &["--repair", "--mode"]),
            ("refit", &with("--data data --repair --trust surest"), &["--repair", "leave --trust out"]),
            ("refit", &with("--mode gram --stats joint.h5 --trust surest"), &["--trust", "--mode gram has none"]),
            ("refit", &format!("plan.bin {MODELS} --data data"), &["--out"]),
            (
                "refit",
                &format!("plan.bin {MODELS} --data data --force -o b.safetensors"),
                &["b.safetensors is an input"],
            ),
            ("refit", &format!("plan.bin {MODELS} --data data --force -o plan.bin"), &["plan.bin is an input"]),
            (
                "refit",
                &format!("plan.bin {MODELS} --mode gram --stats joint.h5 --force -o joint.h5"),
                &["joint.h5 is an input"],
            ),
            ("refit", &with("--data data --report n.safetensors"), &["output twice"]),
            ("collect", &format!("{MODELS} --data data --gram both -o s.h5"), &["both", "joint", "own"]),
        ],
    );
}

#[test]
fn what_others_made_is_not_replaced() {
    let place = collected();
    place.ok("apply", &format!("plan.bin {MODELS} -o merged.safetensors"));
    fs::write(place.path("theirs.json"), "{}").unwrap();
    fs::create_dir(place.path("folder")).unwrap();
    let refit = format!("plan.bin {MODELS} --data data");
    let moments = format!("plan.bin {MODELS} --mode gram --stats joint.h5");
    refused(
        &place,
        1,
        &[
            ("refit", &format!("{refit} -o merged.safetensors"), &["merged.safetensors", "zipit apply", "--force"]),
            ("refit", &format!("{moments} -o merged.safetensors"), &["merged.safetensors", "zipit apply", "--force"]),
            ("refit", &format!("{refit} --report theirs.json -o n.safetensors"), &["theirs.json", "--force"]),
            ("refit", &format!("{refit} -o folder"), &["folder"]),
        ],
    );
    fs::write(place.path("n.safetensors.resume"), "hello").unwrap();
    place.fails("refit", &format!("{refit} -o n.safetensors"), &["n.safetensors.resume"]);
    assert!(!place.path("n.safetensors").exists());
}

/// No file of ours holds a NaN, but a network of finite numbers can compute one.
#[test]
fn a_network_that_overflows() {
    let place = two_networks(&tiny_graph(), 60);
    let mut huge = model::read(&place.path("b.safetensors")).unwrap().model;
    huge.weights.get_mut("linear.weight").unwrap().fill(1e37);
    huge.weights.get_mut("linear.bias").unwrap().fill(3.3e38);
    write(&place, "huge", &huge);
    huge.weights.get_mut("linear.bias").unwrap()[[1]] = f32::NAN;
    assert!(model::write(&place.path("nan.safetensors"), &huge, &Provenance::default()).is_err());
    let models = "a.safetensors huge.safetensors";
    place.ok("collect", &format!("{models} --data data --gram joint -o stats.h5"));
    place.ok("match", "stats.h5 -o plan.bin");
    assert_eq!(plan::read(&place.path("plan.bin")).unwrap().models.len(), 2);
    let refit = format!("plan.bin {models} --data data");
    refused(
        &place,
        1,
        &[
            ("refit", &format!("{refit} -o n.safetensors"), &["`models.1.linear`", "NaN or too large"]),
            ("refit", &format!("{refit} --repair -o n.safetensors"), &[".linear`", "NaN or too large"]),
        ],
    );
}
