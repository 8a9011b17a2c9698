//! Proof obligation: stop any stage at any moment, the old file or the new file is there, whole; and work goes on.

use crate::support::{tiny_graph, two_networks};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::process::{Child, Command};
use std::time::{Duration, Instant};
use zipit_tests::Workplace;

fn signal(child: &Child, name: &str) {
    Command::new("kill").args([name, &child.id().to_string()]).status().unwrap();
}

/// Runs `stage` over and over with `--force`, kills it at random moments, and checks `output` each time.
fn killed_at_random(place: &Workplace, stage: &str, args: &str, output: &str) {
    let started = Instant::now();
    place.ok(stage, &format!("{args} -o {output}"));
    let whole = started.elapsed().as_secs_f64();
    let finished = place.bytes(output);
    let mut rng = ChaCha8Rng::seed_from_u64(finished.len() as u64);
    for round in 0..12 {
        // Every second time from nothing, else over the old file.
        if round % 2 == 0 {
            std::fs::remove_file(place.path(output)).unwrap();
        }
        let mut child = place.command(stage, &format!("{args} --force --quiet -o {output}")).spawn().unwrap();
        std::thread::sleep(Duration::from_secs_f64(rng.random_range(0.0..1.2) * whole));
        signal(&child, "-KILL");
        child.wait().unwrap();
        match std::fs::read(place.path(output)) {
            Ok(found) => assert!(found == finished, "{stage}: half a file under the final name"),
            Err(_) => place.ok(stage, &format!("{args} -o {output}")).truncate(0),
        }
        assert!(place.bytes(output) == finished, "{stage}: made again, it is another file");
    }
}

#[test]
fn kill_9_leaves_whole_files() {
    let place = two_networks(&tiny_graph(), 200);
    killed_at_random(&place, "collect", "a.safetensors b.safetensors --data data", "stats.h5");
    killed_at_random(&place, "match", "stats.h5 --unmerge covariance", "plan.bin");
    killed_at_random(&place, "apply", "plan.bin a.safetensors b.safetensors", "merged.safetensors");
    killed_at_random(&place, "refit", "plan.bin a.safetensors b.safetensors --data data", "refitted.safetensors");
    killed_at_random(
        &place,
        "adapt",
        "refitted.safetensors --to a.safetensors b.safetensors --data data --epochs 3",
        "adapted.safetensors",
    );
    killed_at_random(&place, "recalibrate", "merged.safetensors --data data", "network.safetensors");
    killed_at_random(&place, "eval", "network.safetensors --data data", "report.json");
}

/// Starts `stage`, does `stop` to it while it computes, and returns its exit code. Where it was done before, because the
/// machine has more time than when `half` was measured, its `outputs` are removed and it is stopped sooner.
fn stopped(
    place: &Workplace,
    (stage, args): (&str, &str),
    outputs: &[&str],
    half: Duration,
    stop: impl Fn(&Child),
) -> Option<i32> {
    for sooner in 0..4 {
        let mut child = place.command(stage, args).spawn().unwrap();
        std::thread::sleep(half / 2_u32.pow(sooner));
        stop(&child);
        let code = child.wait().unwrap().code();
        if code != Some(0) {
            return code;
        }
        for output in outputs {
            std::fs::remove_file(place.path(output)).unwrap();
        }
    }
    panic!("{stage} {args}: always done before it was stopped");
}

#[test]
fn an_interrupted_collection_goes_on() {
    let place = two_networks(&tiny_graph(), 6000);
    for (name, flags) in [("plain", ""), ("own", "--gram own"), ("important", "--importance")] {
        let args = format!("a.safetensors b.safetensors --data data {flags} --threads 1");
        let started = Instant::now();
        place.ok("collect", &format!("{args} -o {name}_whole.h5"));
        let half = started.elapsed() / 2;
        let (ran, out) = (format!("{args} -o {name}.h5"), format!("{name}.h5"));
        let code = stopped(&place, ("collect", &ran), &[&out], half, |child| signal(child, "-INT"));
        assert_eq!(code, Some(130));
        assert!(!place.path(&format!("{name}.h5")).exists());
        assert!(place.path(&format!("{name}.h5.partial")).exists());
        place.run("collect", &format!("{args} -o {name}.h5")).code(0).says(&["going on from"]);
        assert!(!place.path(&format!("{name}.h5.partial")).exists());
        let [whole, resumed] = ["_whole", ""].map(|which| place.bytes(&format!("{name}{which}.h5")));
        assert!(whole == resumed, "{name}: interrupted and resumed is not the same as whole");
    }
}

#[test]
fn an_interrupted_refit_goes_on() {
    let place = two_networks(&tiny_graph(), 6000);
    place.ok("collect", "a.safetensors b.safetensors --data data --images 500 -o stats.h5");
    place.ok("match", "stats.h5 -o plan.bin");
    for (name, flags, other, sent, exit) in [
        ("solved", "--report solved.json", "--ridge 0.1", "-INT", 130),
        ("scaled", "--repair --report scaled.json", "--seed 3", "-TERM", 143),
    ] {
        let args = format!("plan.bin a.safetensors b.safetensors --data data --threads 1 {flags}");
        let out = format!("{name}.safetensors");
        let started = Instant::now();
        place.ok("refit", &format!("{args} -o {out}"));
        let half = started.elapsed() / 2;
        let [whole, report] = [&out, &format!("{name}.json")].map(|file| place.bytes(file));
        let made = [&out, &*format!("{name}.json")];
        for file in made {
            std::fs::remove_file(place.path(file)).unwrap();
        }
        let ran = format!("{args} -o {out}");
        let code = stopped(&place, ("refit", &ran), &made, half, |child| signal(child, sent));
        assert_eq!(code, Some(exit));
        assert!(!place.path(&out).exists() && !place.path(&format!("{name}.json")).exists());
        assert!(place.path(&format!("{out}.resume")).exists());
        // Other settings do not take it up, nor lose it.
        let state = place.bytes(&format!("{out}.resume"));
        place.fails("refit", &format!("{args} {other} -o {out}"), &["other settings", "--force"]);
        assert!(place.bytes(&format!("{out}.resume")) == state);
        place.run("refit", &format!("{args} -o {out}")).code(0).says(&["going on after"]);
        assert!(!place.path(&format!("{out}.resume")).exists());
        assert!(place.bytes(&out) == whole, "{name}: resumed is not the same as whole");
        assert!(place.bytes(&format!("{name}.json")) == report, "{name}: its report is not the same");
    }
}

#[test]
fn an_interrupted_training_goes_on() {
    let place = two_networks(&tiny_graph(), 3000);
    let args = "--arch resnet20 --width 0.25 --data data --classes 0-2 --epochs 3 --batch-size 32 --seed 5";
    let started = Instant::now();
    place.ok("train", &format!("{args} -o whole.safetensors"));
    let half = started.elapsed() / 2;
    let ran = format!("{args} -o net.safetensors");
    let code = stopped(&place, ("train", &ran), &["net.safetensors"], half, |child| signal(child, "-TERM"));
    assert_eq!(code, Some(143));
    assert!(!place.path("net.safetensors").exists());
    assert!(place.path("net.safetensors.resume").exists());
    // Other settings do not take it up.
    place.fails("train", &format!("{args} --lr 0.1 -o net.safetensors"), &["other settings", "--force"]);
    place.run("train", &format!("{args} -o net.safetensors")).code(0).says(&["going on"]);
    assert!(!place.path("net.safetensors.resume").exists());
    assert!(place.bytes("whole.safetensors") == place.bytes("net.safetensors"), "resumed is not the same as whole");
}

/// Slurm sends TERM twice to the steps of a job at its time limit, make to the processes of its group.
fn stopped_twice(place: &Workplace, stage: &str, args: &str, output: &str, state: &str) {
    let started = Instant::now();
    place.ok(stage, &format!("{args} -o whole.{output}"));
    let half = started.elapsed() / 2;
    for delay in [0, 5, 20, 100] {
        let out = format!("after{delay}.{output}");
        let code = stopped(place, (stage, &format!("{args} -o {out}")), &[&out], half, |child| {
            let twice = format!("kill -TERM {0}; sleep 0.{delay:03}; kill -TERM {0}", child.id());
            Command::new("sh").args(["-c", &twice]).status().unwrap();
        });
        assert_eq!(code, Some(143), "{stage}, {delay} ms");
        assert!(!place.path(&out).exists(), "{stage}, {delay} ms: it is not done");
        assert!(place.path(&format!("{out}.{state}")).exists(), "{stage}, {delay} ms: all is lost");
    }
    place.run(stage, &format!("{args} -o after20.{output}")).code(0).says(&["going on"]);
    assert!(place.bytes(&format!("after20.{output}")) == place.bytes(&format!("whole.{output}")), "{stage}");
}

#[test]
fn a_stage_that_is_stopped_twice_loses_nothing() {
    let place = two_networks(&tiny_graph(), 6000);
    let models = "a.safetensors b.safetensors";
    place.ok("collect", &format!("{models} --data data --images 500 -o stats.h5"));
    place.ok("match", "stats.h5 -o plan.bin");
    let train = "--arch resnet20 --width 0.25 --data data --classes 0-2 --epochs 1 --batch-size 32";
    for (stage, args, output, state) in [
        ("collect", format!("{models} --data data --threads 1"), "h5", "partial"),
        ("refit", format!("plan.bin {models} --data data --images 3000 --threads 1"), "safetensors", "resume"),
        ("train", train.to_owned(), "net.safetensors", "resume"),
        (
            "adapt",
            "--root a.safetensors --to b.safetensors --data data --epochs 2".to_owned(),
            "rooted.safetensors",
            "resume",
        ),
    ] {
        stopped_twice(&place, stage, &args, output, state);
    }
}

/// What ends without warning, a node that fails, goes on from what was saved last.
#[test]
fn what_is_done_is_saved_now_and_then() {
    let place = two_networks(&tiny_graph(), 6000);
    let models = "a.safetensors b.safetensors";
    place.ok("collect", &format!("{models} --data data --images 500 -o stats.h5"));
    place.ok("match", "stats.h5 -o plan.bin");
    for (stage, args, output, state) in [
        ("collect", format!("{models} --data data --gram joint --threads 1"), "grams.h5", "partial"),
        ("refit", format!("plan.bin {models} --data data --threads 1"), "refitted.safetensors", "resume"),
        (
            "adapt",
            "--root a.safetensors --to b.safetensors --data data --epochs 4".to_owned(),
            "rooted.safetensors",
            "resume",
        ),
    ] {
        let args = format!("{args} --save-every 1 -o {output}");
        let mut child = place.command(stage, &args).spawn().unwrap();
        while !place.path(&format!("{output}.{state}")).exists() {
            assert_eq!(child.try_wait().unwrap(), None, "{stage} ended and saved nothing on the way");
            std::thread::sleep(Duration::from_millis(5));
        }
        signal(&child, "-KILL");
        child.wait().unwrap();
        assert!(!place.path(output).exists());
        place.run(stage, &args).code(0).says(&["going on"]);
        let resumed = place.bytes(output);
        place.ok(stage, &format!("{args} --force"));
        assert!(place.bytes(output) == resumed, "{stage}: resumed is not the same as whole");
    }
}
