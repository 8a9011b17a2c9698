//! Every matching and every way to choose widths, through the binaries.

use crate::support::{network_and_permuted_copy, tiny_graph, two_networks};
use serde_json::Value;
use std::fs;
use zipit::matching::{oracle, zip};
use zipit_artifact::stats::StatsReader;
use zipit_artifact::{model, plan};
use zipit_tests::Workplace;

const MODELS: &str = "a.safetensors b.safetensors";

fn collected() -> Workplace {
    let place = two_networks(&tiny_graph(), 200);
    place.ok("collect", &format!("{MODELS} --data data -o stats.h5"));
    place
}

fn widths(place: &Workplace, file: &str) -> Vec<(String, usize)> {
    let found = plan::read(&place.path(file)).unwrap().plan;
    found.points.into_iter().map(|p| (p.name, p.n_groups)).collect()
}

#[test]
fn every_method_makes_a_network() {
    let place = collected();
    for method in [
        "ward",
        "ward --similarity covariance",
        "average --similarity moments",
        "kmeans --seed 3",
        "optimal",
        "random",
        "first",
        "cca --gamma 0.1",
        "weight --models a.safetensors b.safetensors",
        "mudsc --rho 0.3 --models a.safetensors b.safetensors",
        "mudsc --solver zip --alpha 0.5 --models a.safetensors b.safetensors",
    ] {
        for unmerge in ["pinv", "covariance"] {
            place.ok("match", &format!("stats.h5 --method {method} --unmerge {unmerge} --force -o plan.bin"));
            place.ok("apply", &format!("plan.bin {MODELS} --force -o merged.safetensors"));
            place.ok("recalibrate", "merged.safetensors --data data --force -o network.safetensors");
            place.ok("eval", "network.safetensors --data data");
        }
    }
}

#[test]
fn weights_alone_find_the_permutation() {
    let place = network_and_permuted_copy(&tiny_graph(), 60);
    place.ok("collect", &format!("{MODELS} --data data -o stats.h5"));
    place.ok("match", "stats.h5 --method permute --unmerge pinv -o permute.bin");
    place.ok("match", &format!("stats.h5 --method weight --models {MODELS} --unmerge pinv -o weight.bin"));
    let groups = |file: &str| {
        let plan = plan::read(&place.path(file)).unwrap().plan;
        plan.points.into_iter().map(|p| p.assignment).collect::<Vec<_>>()
    };
    assert_eq!(groups("permute.bin"), groups("weight.bin"));
}

#[test]
fn widths_by_share_file_and_budget() {
    let place = collected();
    place.ok("match", "stats.h5 --keep 0.5 -o keep.bin");
    assert!(widths(&place, "keep.bin").iter().all(|(name, n)| *n == if name.starts_with("layer1") { 6 } else { *n }));
    let file =
        "keep = 1\n[points.\"layer2.0.relu\"]\ngroups = 3\n[points.\"layer3.2.relu_1\"]\nkeep = -0.5\nbeta = 0.5\n";
    fs::write(place.path("points.toml"), file).unwrap();
    place.ok("match", "stats.h5 --method zip --points points.toml -o points.bin");
    for (name, n) in widths(&place, "points.bin") {
        let d =
            [("layer1", 4), ("layer2", 8), ("layer3", 16)].into_iter().find(|(l, _)| name.starts_with(l)).unwrap().1;
        let wanted = if name == "layer2.0.relu" {
            3
        } else if name == "layer3.2.relu_1" {
            d / 2
        } else {
            2 * d
        };
        assert_eq!(n, wanted, "{name}");
    }
    // The merged network costs at most what was allowed, and nearly that.
    let one = tiny_graph().cost().unwrap().macs as f64;
    place.ok("collect", &format!("{MODELS} --data data --importance -o important.h5"));
    let stats = ["stats.h5", "important.h5", "important.h5 --method select"];
    for (stats, budget) in stats.iter().flat_map(|stats| [0.25, 0.5, 1.0, 1.5, 2.0].map(|budget| (stats, budget))) {
        place.ok("match", &format!("{stats} --budget {budget} --force -o budget.bin"));
        place.ok("apply", &format!("budget.bin {MODELS} --force -o merged.safetensors"));
        let merged = model::read(&place.path("merged.safetensors")).unwrap().model;
        let share = merged.graph.cost().unwrap().macs as f64 / one;
        assert!(share <= budget && share > 0.8 * budget, "{stats}, {budget}: {share}");
    }
}

#[test]
fn a_search_ranks_on_other_images() {
    let place = collected();
    place.ok("collect", &format!("{MODELS} --data data --split test --seed 1 -o holdout.h5"));
    let said = place.ok("match", "stats.h5 --method zip --search --holdout holdout.h5 --format csv -o best.bin");
    let first = said.lines().nth(1).unwrap();
    assert!(first.starts_with("1,zip alpha"), "{said}");
    // The best one is what was written: 24 settings × 4 ridges were ranked.
    assert!(said.contains("\n96,zip"), "{said}");
    let settings = plan::read(&place.path("best.bin")).unwrap().plan.settings;
    let zipit::matching::Method::Zip { alpha, beta } = settings.method else { panic!("{settings:?}") };
    assert!(first.contains(&format!("zip alpha {alpha} beta {beta} ")), "{first}: {settings:?}");
    place.run("match", "stats.h5 --search -o insample.bin").code(0).says(&["--holdout"]);
}

#[test]
fn report_and_prediction() {
    let place = collected();
    let said = place.ok("match", "stats.h5 --method ward --predict --report report.json -o plan.bin");
    assert!(said.contains("stop at") && said.contains("energy"), "{said}");
    let report: Value = serde_json::from_slice(&place.bytes("report.json")).unwrap();
    let points = report["report"]["points"].as_array().unwrap();
    assert_eq!(points.len(), 12);
    for point in points {
        let (n, d) = (point["n_features"].as_u64().unwrap(), point["n_groups"].as_u64().unwrap());
        let merges = point["merges"].as_array().unwrap();
        assert_eq!(merges.len() as u64, n - d);
        let sizes = point["group_sizes"].as_object().unwrap();
        let features: u64 = sizes.iter().map(|(size, n)| size.parse::<u64>().unwrap() * n.as_u64().unwrap()).sum();
        assert_eq!(features, n);
        assert_eq!(point["lost_per_model"].as_array().unwrap().len(), 2);
        // What the averages lose is what the covariance rule loses, or more.
        let lost = merges.last().unwrap()["lost"].as_f64().unwrap();
        assert!(lost >= point["summary"]["reconstruction_error"].as_f64().unwrap() - 1e-9);
        assert!(point["summary"]["condition"].as_f64().unwrap() > 1.0);
    }
    // Nothing is done twice, and the report of something else is not replaced.
    let again = "stats.h5 --method ward --report report.json -o plan.bin";
    place.run("match", again).code(0).says(&["plan.bin is up to date", "report.json is up to date"]);
    place.ok("match", "stats.h5 --method permute --report report.json -o other.bin");
    fs::write(place.path("theirs.json"), "{}").unwrap();
    let refused = place.run("match", "stats.h5 --report theirs.json -o new.bin");
    refused.refusal(1, &["theirs.json", "--force"]).unwrap();
    assert_eq!(place.bytes("theirs.json"), b"{}");
    assert!(!place.path("new.bin").exists());
    place.run("match", "stats.h5 --report same -o same").refusal(2, &["output twice"]).unwrap();
}

#[test]
fn real_features_are_matched_as_the_oracle_does() {
    let data = concat!(env!("CARGO_MANIFEST_DIR"), "/../data");
    let place = Workplace::new();
    let models = ["0-4_seed1", "5-9_seed2"].map(|name| format!("{data}/checkpoints/fashion_{name}.safetensors"));
    place.ok("collect", &format!("{} --data {data}/fashion-mnist --images 200 -o stats.h5", models.join(" ")));
    let stats = StatsReader::open(&place.path("stats.h5")).unwrap();
    for (name, d) in &stats.header().points {
        let moments = stats.moments(name).unwrap();
        let similarity = moments.correlation();
        for (alpha, beta) in [(1.0, 1.0), (0.7, 1.0), (0.3, 0.15), (0.01, 0.5), (0.0, 0.0), (1.0, 0.0)] {
            for n_groups in [*d, d + d / 4, d / 2] {
                let fast = zip::zip(similarity.view(), 2, n_groups, alpha, beta);
                let slow = oracle::zip(similarity.view(), 2, n_groups, alpha, beta);
                assert_eq!(fast, slow, "{name} alpha {alpha} beta {beta} to {n_groups}");
            }
        }
    }
}

#[test]
fn requests_that_make_no_sense() {
    let place = collected();
    fs::write(place.path("odd.toml"), "[points.\"layer7\"]\nkeep = 1\n").unwrap();
    fs::write(place.path("zips.toml"), "alpha = 0.5\n").unwrap();
    fs::write(place.path("typo.toml"), "kepe = 1\n").unwrap();
    for (code, args, words) in [
        (1, "--method permute --keep 0.5", &["permute", "d' = d"][..]),
        (1, "--keep 2", &["keep is 2"]),
        (1, "--budget 3", &["budget is 3"]),
        (1, "--budget 0.0001", &["cannot be met"]),
        (1, "--points zips.toml", &["zips.toml", "--method zip", "ward"]),
        (1, "--points odd.toml", &["layer7", "layer1.0.relu"]),
        (1, "--points typo.toml", &["typo.toml"]),
        (1, "--points absent.toml", &["absent.toml"]),
        (1, "--method mudsc --rho 2 --models a.safetensors b.safetensors", &["rho is 2"]),
        (1, "--method cca --gamma -1", &["gamma is -1"]),
        (1, "--method weight --models b.safetensors a.safetensors", &["in that order"]),
        (1, "--search --holdout stats.h5", &["same file"]),
        (1, "--similarity importance", &["no importance", "--importance"]),
        (1, "--method select", &["no importance", "--importance"]),
        (2, "--method select --unmerge pinv", &["--method select", "covariance"]),
        (2, "--method select --similarity moments", &["--similarity"]),
        (2, "--method zip --similarity importance", &["--similarity"]),
        (2, "--method weight", &["--models"]),
        (2, "--method zip --similarity moments", &["--similarity"]),
        (2, "--method ward --alpha 0.5", &["--alpha"]),
        (2, "--keep 0.5 --budget 1", &["--budget"]),
        (2, "--holdout stats.h5", &["--search"]),
    ] {
        let ran = place.run("match", &format!("stats.h5 {args} -o plan.bin"));
        if let Err(why) = ran.refusal(code, words) {
            panic!("{why}: {ran}");
        }
        assert!(!place.path("plan.bin").exists(), "{args}");
    }
}
