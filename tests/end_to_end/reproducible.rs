//! The same inputs give the same bytes, whatever the number of threads; what is up to date is left alone.

use crate::support::{tiny_graph, two_networks};
use std::time::Duration;
use zipit_tests::Workplace;

/// The whole pipeline with `threads`, into files called after it.
fn pipeline(place: &Workplace, threads: usize, flags: &str) {
    let t = format!("--threads {threads}");
    let folder = format!("t{threads}");
    std::fs::create_dir_all(place.path(&folder)).unwrap();
    place.ok("collect", &format!("a.safetensors b.safetensors --data data {t} -o {folder}/stats.h5"));
    place.ok("match", &format!("{folder}/stats.h5 {flags} {t} -o {folder}/plan.bin"));
    place.ok("apply", &format!("{folder}/plan.bin a.safetensors b.safetensors {t} -o {folder}/merged.safetensors"));
    place.ok("recalibrate", &format!("{folder}/merged.safetensors --data data {t} -o {folder}/network.safetensors"));
    place.ok(
        "eval",
        &format!(
            "{folder}/network.safetensors --data data {t} --logits {folder}/logits.safetensors -o {folder}/report.json"
        ),
    );
}

const FILES: [&str; 6] =
    ["stats.h5", "plan.bin", "merged.safetensors", "network.safetensors", "logits.safetensors", "report.json"];

#[test]
fn threads_never_change_a_byte() {
    let place = two_networks(&tiny_graph(), 300);
    for threads in [1, 2, 5] {
        pipeline(&place, threads, "--method zip --unmerge covariance --beta 0.4 --stop-at 13/20");
    }
    for file in FILES {
        let one = place.bytes(&format!("t1/{file}"));
        for threads in [2, 5] {
            assert!(one == place.bytes(&format!("t{threads}/{file}")), "{file} differs with {threads} threads");
        }
    }
}

#[test]
fn made_again_the_bytes_are_the_same() {
    let place = two_networks(&tiny_graph(), 100);
    pipeline(&place, 2, "--method permute");
    let first: Vec<_> = FILES.iter().map(|file| place.bytes(&format!("t2/{file}"))).collect();
    // File formats that store a modification time would show it.
    std::thread::sleep(Duration::from_millis(1100));
    std::fs::remove_dir_all(place.path("t2")).unwrap();
    pipeline(&place, 2, "--method permute");
    for (file, first) in FILES.iter().zip(first) {
        assert!(first == place.bytes(&format!("t2/{file}")), "{file} differs when made again");
    }
}

#[test]
fn what_is_up_to_date_is_left_alone() {
    let place = two_networks(&tiny_graph(), 100);
    let collect = "a.safetensors b.safetensors --data data -o stats.h5";
    let written = || std::fs::metadata(place.path("stats.h5")).unwrap().modified().unwrap();
    place.ok("collect", collect);
    let first = written();
    place.run("collect", collect).code(0).says(&["up to date"]);
    assert_eq!(written(), first);
    // Other images are another result; so is --force.
    place.ok("collect", &format!("{collect} --images 50"));
    let second = written();
    assert_ne!(second, first);
    place.ok("collect", &format!("{collect} --images 50 --force"));
    assert_ne!(written(), second);
    // Another model under the same name is seen by its content.
    std::fs::copy(place.path("b.safetensors"), place.path("c.safetensors")).unwrap();
    place.ok("match", "stats.h5 -o plan.bin");
    place.run("match", "stats.h5 -o plan.bin").code(0).says(&["up to date"]);
    place.ok("apply", "plan.bin c.safetensors a.safetensors -o merged.safetensors");
}

#[test]
fn an_environment_variable_is_a_flag_and_a_flag_wins() {
    let place = two_networks(&tiny_graph(), 100);
    place.ok("collect", "a.safetensors b.safetensors --data data -o stats.h5");
    let config = |args: &str| {
        let output = place.command("match", args).env("ZIPIT_ALPHA", "0.25").output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let line = |text: String| text.lines().find(|l| l.contains("--alpha")).unwrap().to_owned();
    let environment = line(config("stats.h5 -o plan.bin --print-config"));
    assert!(environment.contains("0.25") && environment.contains("environment"), "{environment}");
    let flag = line(config("stats.h5 --method zip --alpha 0.5 -o plan.bin --print-config"));
    assert!(flag.contains("0.5") && flag.contains("command line"), "{flag}");
    assert!(!place.path("plan.bin").exists());
}

#[test]
fn a_dry_run_writes_nothing() {
    let place = two_networks(&tiny_graph(), 100);
    let said = place.ok("collect", "a.safetensors b.safetensors --data data -o stats.h5 --dry-run");
    assert!(said.contains("would measure 12 merge points") && said.contains("GiB"), "{said}");
    assert!(!place.path("stats.h5").exists() && !place.path("manifest.json").exists());
}

#[test]
fn the_manifest_is_checked() {
    let place = two_networks(&tiny_graph(), 100);
    place.ok("collect", "a.safetensors b.safetensors --data data -o stats.h5");
    place.ok("match", "stats.h5 -o plan.bin");
    let said = place.ok("inspect", "--verify .");
    assert!(said.starts_with("2 files"), "{said}");
    let mut bytes = place.bytes("plan.bin");
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(place.path("plan.bin"), bytes).unwrap();
    place.fails("inspect", "--verify .", &["plan.bin", "has changed"]);
}
