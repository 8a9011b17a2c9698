//! Proof obligation: shards reduced = unsharded, to 1e-12 relative.

use crate::support::{tiny_graph, two_networks};
use zipit::Moments;
use zipit::refit::Gram;
use zipit_artifact::stats::StatsReader;

fn relative_difference(a: &Moments, b: &Moments) -> f64 {
    let scale = a.outer.iter().fold(0f64, |m, x| m.max(x.abs()));
    let pairs = a.sum.iter().zip(&b.sum).chain(a.outer.iter().zip(&b.outer));
    pairs.map(|(x, y)| (x - y).abs()).fold(0.0, f64::max) / scale
}

#[test]
fn shards_add_up_to_the_whole() {
    let place = two_networks(&tiny_graph(), 230);
    let collect = "a.safetensors b.safetensors --data data --images 200 --seed 4 --batch-size 16";
    place.ok("collect", &format!("{collect} -o whole.h5"));
    for i in 1..=3 {
        place.ok("collect", &format!("{collect} --shard {i}/3 -o shard{i}.h5"));
    }
    // In any order.
    place.ok("collect", "--reduce shard3.h5 shard1.h5 shard2.h5 -o sum.h5");
    let (whole, sum) =
        (StatsReader::open(&place.path("whole.h5")).unwrap(), StatsReader::open(&place.path("sum.h5")).unwrap());
    assert_eq!(whole.header().n_images, 200);
    assert_eq!(sum.header().n_images, 200);
    for (point, _) in &whole.header().points {
        let (a, b) = (whole.moments(point).unwrap(), sum.moments(point).unwrap());
        assert_eq!(a.count, b.count, "{point}");
        let difference = relative_difference(&a, &b);
        assert!(difference <= 1e-12, "{point}: {difference}");
    }
    assert!(whole.read_values().len() > 12);
    for value in whole.read_values() {
        assert_eq!(whole.extent(value).unwrap(), sum.extent(value).unwrap(), "{value}");
    }
    place.ok("match", "sum.h5 -o plan.bin");
}

#[test]
fn shards_of_what_layers_read_add_up_too() {
    let place = two_networks(&tiny_graph(), 150);
    for kind in ["joint", "own"] {
        let collect = format!("a.safetensors b.safetensors --data data --batch-size 16 --gram {kind}");
        place.ok("collect", &format!("{collect} -o {kind}.h5"));
        let shards: Vec<String> = (1..=3).map(|i| format!("{kind}{i}.h5")).collect();
        for (i, shard) in (1..).zip(&shards) {
            place.ok("collect", &format!("{collect} --shard {i}/3 -o {shard}"));
        }
        place.ok("collect", &format!("--reduce {} -o {kind}_sum.h5", shards.join(" ")));
        let [whole, sum] =
            ["", "_sum"].map(|which| StatsReader::open(&place.path(&format!("{kind}{which}.h5"))).unwrap());
        assert_eq!((whole.header().layers.len(), whole.header().gram), (20 + 2, sum.header().gram));
        let moments = |gram: Gram| match gram {
            Gram::Joint(moments) => vec![moments],
            Gram::Own(each) => each,
        };
        for (layer, _) in &whole.header().layers {
            let [a, b] = [&whole, &sum].map(|stats| moments(stats.gram(layer).unwrap()));
            assert_eq!((a.len(), b.len()), if kind == "joint" { (1, 1) } else { (2, 2) });
            for (a, b) in a.iter().zip(&b) {
                assert_eq!(a.count, b.count, "{layer}");
                let difference = relative_difference(a, b);
                assert!(difference <= 1e-12, "{kind} {layer}: {difference}");
            }
        }
    }
    // Shards of one kind are not added to those of the other.
    let mixed = "--reduce joint1.h5 joint2.h5 own3.h5 -o sum.h5";
    place.fails("collect", mixed, &["own3.h5", "other layers (--gram)"]);
}

#[test]
fn shards_of_importance_add_up_too() {
    let place = two_networks(&tiny_graph(), 150);
    let collect = "a.safetensors b.safetensors --data data --batch-size 16 --importance";
    place.ok("collect", &format!("{collect} -o whole.h5"));
    for i in 1..=3 {
        place.ok("collect", &format!("{collect} --shard {i}/3 -o shard{i}.h5"));
    }
    place.ok("collect", "--reduce shard2.h5 shard1.h5 shard3.h5 -o sum.h5");
    let [whole, sum] = ["whole.h5", "sum.h5"].map(|name| StatsReader::open(&place.path(name)).unwrap());
    let mut n_places = 0;
    for (point, _) in &whole.header().points {
        let [a, b] = [&whole, &sum].map(|stats| stats.importance(point).unwrap().unwrap().places);
        assert_eq!(a.len(), b.len());
        n_places += a.len();
        for (a, b) in a.iter().zip(&b) {
            let pairs = a.joint.iter().zip(&b.joint).chain(a.gradients.iter().zip(&b.gradients));
            for (a, b) in pairs {
                assert_eq!(a.count, b.count, "{point}");
                let difference = relative_difference(a, b);
                assert!(difference <= 1e-12, "{point}: {difference}");
            }
        }
    }
    assert_eq!(n_places, 9 + 10);
    place.ok("match", "sum.h5 -o plan.bin");
    place.ok("collect", &format!("{collect} --probe-seed 4 --shard 3/3 -o other3.h5"));
    place.ok("collect", "a.safetensors b.safetensors --data data --batch-size 16 --shard 3/3 -o plain3.h5");
    for other in ["other3.h5", "plain3.h5"] {
        let mixed = format!("--reduce shard1.h5 shard2.h5 {other} -o mixed.h5");
        place.fails("collect", &mixed, &[other, "importance by other probes"]);
    }
    place
        .run("collect", "a.safetensors b.safetensors --data data --probe-seed 4 -o s.h5")
        .code(2)
        .says(&["--importance"]);
}

#[test]
fn shards_that_do_not_belong_together_are_refused() {
    let place = two_networks(&tiny_graph(), 200);
    let collect = "a.safetensors b.safetensors --data data --batch-size 16";
    for i in 1..=3 {
        place.ok("collect", &format!("{collect} --images 100 --shard {i}/3 -o shard{i}.h5"));
    }
    place.ok("collect", &format!("{collect} --images 90 --shard 3/3 -o other.h5"));
    place.ok(
        "collect",
        "b.safetensors a.safetensors --data data --batch-size 16 --images 100 --shard 3/3 -o swapped.h5",
    );
    place.fails("collect", "--reduce shard1.h5 shard2.h5 -o sum.h5", &["shards are missing", "3/3"]);
    place.fails("collect", "--reduce shard1.h5 shard2.h5 shard2.h5 -o sum.h5", &["same shard"]);
    place.fails("collect", "--reduce shard1.h5 shard2.h5 other.h5 -o sum.h5", &["other.h5", "other images"]);
    place.fails("collect", "--reduce shard1.h5 shard2.h5 swapped.h5 -o sum.h5", &["swapped.h5", "other models"]);
    assert!(!place.path("sum.h5").exists());
}
