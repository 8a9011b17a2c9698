//! Outputs that are no vectors: segmentation networks from PyTorch through the binaries and back.

use crate::architectures::{Python, interpreter, say_skipped};
use crate::bad_input::refused;
use crate::predict::npz;
use crate::support::{max_difference, write};
use std::fs;
use std::process::Command;
use zipit::Task;
use zipit_artifact::model;
use zipit_tests::{Workplace, binary, permuted, repository, write_class_folders};

/// Networks with a map of classes at the image's size, the stream that it is made of, and perhaps logits.
const NETS: &str = r#"
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
import torch, zipit_torch
from torch import nn

def block(i, o, stride=1):
    return nn.Sequential(nn.Conv2d(i, o, 3, stride, 1, bias=False), nn.BatchNorm2d(o), nn.ReLU())

class Net(nn.Module):
    def __init__(self, n_classes, n_logits=0):
        super().__init__()
        self.stem, self.down, self.a, self.b = block(3, 6), block(6, 10, 2), block(10, 12), block(12, 10)
        self.after = block(10, 9)
        self.classes = nn.Conv2d(9, n_classes, 1)
        self.fc = nn.Linear(9, n_logits) if n_logits else None

    def forward(self, x):
        y = self.down(self.stem(x))
        y = y + self.b(self.a(y))
        z = self.after(y)
        out = nn.functional.interpolate(self.classes(z), size=x.shape[-2:], mode="bilinear", align_corners=False)
        found = {"out": out, "stream": y, "tokens": z.flatten(2).transpose(1, 2)}
        return found | ({} if self.fc is None else {"logits": self.fc(z.mean((2, 3)))})

spec = {"size": [16, 16], "mean": [0.5] * 3, "std": [0.25] * 3}
nets = {"a": ((3,), ()), "b": ((4,), [list("pqrs"), None, None]), "whole": ((3, 2), [["x", "y"]])}
for seed, name in enumerate(sys.argv[3:]):
    arguments, classes = nets[name]
    torch.manual_seed(seed)
    net = Net(*arguments)
    delta = zipit_torch.export(net, out=f"{name}.safetensors", classes=classes, preprocess=spec, bin_folder=sys.argv[2])
    assert delta < 1e-5, delta
"#;

/// The networks of these `names`: `a`, `b`, `whole`; their BatchNorm statistics those of the images of classes x and y in `data/`;
/// nothing without PyTorch.
fn networks(names: &[&str]) -> Option<Workplace> {
    if !interpreter().exists() {
        say_skipped("dense");
        return None;
    }
    let place = Workplace::new();
    fs::write(place.path("nets.py"), NETS).unwrap();
    let binaries = binary("import").parent().expect("a folder").to_owned();
    let ran = Command::new(interpreter())
        .args([place.path("nets.py"), repository().join("scripts"), binaries])
        .args(names)
        .current_dir(place.path(""))
        .env("OMP_NUM_THREADS", "1")
        .output()
        .expect("Python runs");
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    write_class_folders(&place.path("data"), &["x", "y"].map(str::to_owned), 40, 16);
    for name in names {
        place.ok("recalibrate", &format!("{name}.safetensors --data data -o {name}.calibrated.safetensors"));
        fs::rename(place.path(&format!("{name}.calibrated.safetensors")), place.path(&format!("{name}.safetensors")))
            .unwrap();
    }
    Some(place)
}

#[test]
fn segmentation_networks_are_merged_and_come_back() {
    let Some(place) = networks(&["a", "b"]) else { return };
    let (a, b) = ("a.safetensors", "b.safetensors");
    let drawn = place.ok("inspect", b);
    assert!(drawn.contains("[4, 16, 16]: p, q, r, s") && drawn.contains("[10, 8, 8]: no classes"), "{drawn}");
    assert!(place.ok("check", &format!("{a} {b} --no-trial")).contains("can be merged"));
    place.ok("collect", &format!("{a} {b} --data data -o stats.h5"));
    place.ok("match", "stats.h5 -o plan.bin");
    place.ok("apply", &format!("plan.bin {a} {b} -o merged.safetensors"));
    place.ok("refit", &format!("plan.bin {a} {b} --data data -o refitted.safetensors"));
    for name in ["a", "merged", "refitted"] {
        place.ok("predict", &format!("{name}.safetensors --data data -o {name}.npz"));
    }
    // Each network's own number of classes, and its own features where they are inner ones.
    let [own, merged, refitted] = ["a.npz", "merged.npz", "refitted.npz"].map(|name| npz(&place, name));
    let shapes = |name: &str| merged[name].shape()[1..].to_vec();
    assert_eq!([shapes("out"), shapes("out-2")], [vec![3, 16, 16], vec![4, 16, 16]]);
    assert_eq!([shapes("stream-2"), shapes("tokens-2")], [vec![10, 8, 8], vec![64, 9]]);
    let size = |array: &ndarray::ArrayD<f32>| array.iter().fold(0_f32, |m, x| m.max(x.abs()));
    let square = |found: &ndarray::ArrayD<f32>| (found - &own["out"]).mapv(|x| x * x).sum();
    let [before, after] = [&merged, &refitted].map(|arrays| square(&arrays["out"]));
    assert!(after < before, "off by {before} when merged, by {after} refitted");

    // A copy with its features in another order gives the function back.
    let original = model::read(&place.path(a)).unwrap().model;
    write(&place, "copy", &permuted(&original, 7));
    place.ok("collect", &format!("{a} copy.safetensors --data data -o copies.h5"));
    place.ok("match", "copies.h5 --method permute --unmerge pinv -o copies.bin");
    place.ok("apply", &format!("copies.bin {a} copy.safetensors -o same.safetensors"));
    place.ok("predict", "same.safetensors --data data -o same.npz");
    let same = npz(&place, "same.npz");
    assert_eq!(same.len(), 2 * own.len());
    for (name, array) in &own {
        for found in [name.clone(), format!("{name}-2")] {
            let off = max_difference(array, &same[&found]) / size(array);
            assert!(off < 1e-5, "{found}: {off}");
        }
    }

    let back = Python::start(&place).ask("check refitted.safetensors");
    assert!(back["load"].as_f64().unwrap() < 1e-4 && back["onnx"].as_f64().unwrap() < 1e-4, "{back}");
    let told = "classifies no images: output `out` is [3, 16, 16], output `stream` is [10, 8, 8]";
    refused(
        &place,
        1,
        &[
            ("eval", "a.safetensors --data data", &["a.safetensors", told, "predict -o FILE.npz"]),
            ("predict", "a.safetensors --data data -o a.csv", &["a.safetensors", told, "write arrays, -o FILE.npz"]),
            ("gate", "merged.safetensors --data data -o gated.safetensors", &["classifies no images", "`out-2` is"]),
            (
                "refit",
                "plan.bin a.safetensors b.safetensors --data data --trust surest -o sure.safetensors",
                &["model 1 classifies no images", "say --trust all"],
            ),
            (
                "apply",
                "plan.bin a.safetensors b.safetensors --heads merge -o one.safetensors",
                &["heads", "have no classes that say which features belong together"],
            ),
        ],
    );
}

#[test]
fn what_classifies_images_is_evaluated_and_gated_beside_maps() {
    let Some(place) = networks(&["whole"]) else { return };
    let mut other = permuted(&model::read(&place.path("whole.safetensors")).unwrap().model, 3);
    other.tasks.iter_mut().for_each(|task| task.name += " too");
    write(&place, "other", &other);
    place
        .ok("gate", "whole.safetensors other.safetensors --data data --data data --batch-size 20 -o gated.safetensors");
    let gated = model::read(&place.path("gated.safetensors")).unwrap().model;
    assert_eq!((gated.tasks.len(), gated.graph.outputs.len()), (8, 9));
    let without = Task { name: "out too".to_owned(), classes: vec![] };
    assert_eq!((&gated.tasks[4], gated.joint.as_ref().unwrap().heads.len()), (&without, 2));
    let ran = place.run("eval", "gated.safetensors --data data --logits logits.safetensors").code(0);
    ran.says(&["WARN", "gated.safetensors: left out is what classifies no images: output `out` is [3, 16, 16]"]);
    let table = ran.stdout();
    assert!(table.contains("logits too") && table.contains("gate") && !table.contains("stream"), "{table}");
    let csv = place.ok("predict", "gated.safetensors --data data");
    let header = csv.lines().next().unwrap();
    let columns = "image,class,logits,logits probability,logits too,logits too probability,joint task,joint class";
    assert_eq!(header, columns);
    place.ok("predict", "gated.safetensors --data data -o all.npz");
    let all = npz(&place, "all.npz");
    assert_eq!((all.len(), all["gate"].shape(), all["tokens too"].shape()), (9, &[40, 2][..], &[40, 64, 9][..]));
}
