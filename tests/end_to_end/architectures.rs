//! Every promised architecture, from PyTorch through the binaries and back: it traces, our forward is PyTorch's, a merge
//! with a permuted copy of itself gives the function back, a merge of two networks of different weights runs end to end,
//! and what comes out loads in PyTorch and runs as ONNX.
//!
//! Those that cover every rule of feature spaces run with `make test`, the others with `make test-full`.
//!
//! Needs the full PyTorch (`make setup-python`); without it the tests say so and pass. `ZIPIT_FULL=1` takes full-size images.

use serde_json::Value;
use std::fs::File;
use std::io::{BufRead, BufReader, Lines, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use zipit_tests::{Workplace, binary, repository, write_cifar};

/// |Δlogit| relative to the largest logit.
const TOLERANCE: f32 = 1e-3;

/// `scripts/architectures.py serve`: PyTorch, loaded once and asked by the line.
pub struct Python {
    process: Child,
    questions: Option<ChildStdin>,
    answers: Lines<BufReader<ChildStdout>>,
    complaints: PathBuf,
}

impl Python {
    /// In the folder of `place`.
    pub fn start(place: &Workplace) -> Self {
        let complaints = place.path("python.txt");
        let mut process = Command::new(interpreter())
            .arg(repository().join("scripts/architectures.py"))
            .args(["serve", "--bin"])
            .arg(binary("import").parent().expect("a folder"))
            .current_dir(place.path(""))
            .env("OMP_NUM_THREADS", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(&complaints).expect("a file for what Python says"))
            .spawn()
            .expect("Python runs");
        let answers = BufReader::new(process.stdout.take().expect("a pipe")).lines();
        Self { questions: process.stdin.take(), process, answers, complaints }
    }

    /// What a command of the script prints.
    pub fn ask(&mut self, command: &str) -> Value {
        let questions = self.questions.as_mut().expect("a pipe");
        let asked = writeln!(questions, "{command}");
        let answer = self.answers.next().and_then(Result::ok);
        let parsed = answer.as_deref().map(serde_json::from_str);
        match (asked, parsed) {
            (Ok(()), Some(Ok(value))) => value,
            _ => panic!("{command}: {answer:?}: {}", std::fs::read_to_string(&self.complaints).unwrap_or_default()),
        }
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        self.questions = None; // it ends with its input
        let ended = self.process.wait();
        assert!(std::thread::panicking() || ended.is_ok_and(|status| status.success()), "Python ended badly");
    }
}

/// Of the full PyTorch.
pub fn interpreter() -> PathBuf {
    repository().join(".venv-python/bin/python")
}

#[allow(clippy::print_stderr, reason = "a test that does nothing says so")]
pub fn say_skipped(name: &str) {
    eprintln!("skipped: {name} needs the full PyTorch; `make setup-python` installs it");
}

fn architecture(name: &str) {
    if !interpreter().exists() {
        say_skipped(name);
        return;
    }
    let full = std::env::var_os("ZIPIT_FULL").is_some();
    let place = Workplace::new();
    write_cifar(&place.path("data"), 160);
    let mut python = Python::start(&place);
    let mut row = python.ask(&format!("export {name} .{}", if full { " --full" } else { "" }));

    let same = place.merge_with_copy("one", 120).unwrap_or_else(|why| panic!("{name}: {why}"));
    let worst = same.difference;
    assert!(worst <= TOLERANCE, "{name}: merged with its permuted copy it is off by {worst} of its largest logit");

    place.merge_two(120).unwrap_or_else(|why| panic!("{name}: {why}"));
    // Before statistics are measured anew: those of a few small images are so narrow in places that rounding would decide.
    let back = python.ask("check zipped.safetensors");

    let a = same.network;
    let spaces = a.graph.spaces().unwrap();
    row["nodes"] = a.graph.nodes.len().into();
    row["spaces"] = a.graph.merge_points(&spaces).len().into();
    row["permuted"] = worst.into();
    row["load"] = back["load"].clone();
    row["onnx"] = back["onnx"].clone();
    let folder = repository().join("runs/architectures").join(if full { "full" } else { "small" });
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join(format!("{name}.json")), row.to_string()).unwrap();
}

macro_rules! architectures {
    ($($name:ident)* ; others: $($other:ident)*) => {
        $(
            #[test]
            fn $name() {
                architecture(stringify!($name));
            }
        )*

        /// Whose rules are those of the ones above: with `make test-full`.
        mod others {
            $(
                #[test]
                fn $other() {
                    super::architecture(stringify!($other));
                }
            )*
        }

        #[test]
        fn none_is_forgotten() {
            if !interpreter().exists() {
                return;
            }
            let script = repository().join("scripts/architectures.py");
            let listed = Command::new(interpreter()).arg(script).arg("list").output().unwrap();
            let listed = String::from_utf8(listed.stdout).unwrap();
            let mut listed: Vec<&str> = listed.lines().collect();
            let mut tested = vec![$(stringify!($name),)* $(stringify!($other)),*];
            listed.sort_unstable();
            tested.sort_unstable();
            assert_eq!(listed, tested);
        }
    };
}

architectures! {
    resnet50 resnext50_32x4d vgg11_bn alexnet densenet121 mobilenet_v3_large shufflenet_v2_x1_0 googlenet convnext_tiny
    mobilenet_v2 timm_resnet18d regnet_y_400mf vit_b_16 timm_vit_tiny_patch16_224 swin_small timm_convnextv2_atto
    timm_edgenext_xx_small;
    others:
    resnet18 resnet34 resnet101 wide_resnet50_2 vgg11 vgg16 vgg16_bn efficientnet_b0 inception_v3 vit_small
    timm_efficientnet_lite0 timm_convnext_atto
}
