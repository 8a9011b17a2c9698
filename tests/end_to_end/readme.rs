//! Every command of the README works, as it is written there.

use crate::support::{tiny_graph, write};
use std::collections::BTreeSet;
use std::fs;
use std::process::Command;
use zipit::graph::{ArchSpec, arch::Arch};
use zipit_tests::{Workplace, binary, random_model, repository, write_cifar, write_idx};

/// The lines after `$ ` in the README's console blocks.
fn commands() -> Vec<String> {
    commands_of("README.md")
}

/// The lines after `$ ` in the console blocks of a page.
fn commands_of(page: &str) -> Vec<String> {
    let text = fs::read_to_string(repository().join(page)).unwrap();
    let mut commands = Vec::new();
    let mut inside = false;
    for line in text.lines() {
        if let Some(kind) = line.strip_prefix("```") {
            inside = kind == "console";
        } else if inside {
            commands.push(line.strip_prefix("$ ").expect("a console block holds commands").to_owned());
        }
    }
    commands
}

fn bash(place: &Workplace, command: &str) {
    let output = Command::new("bash").args(["-c", command]).current_dir(place.path("")).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "$ {command}\n{said}");
}

#[test]
fn merging_your_own_two_checkpoints() {
    let place = Workplace::new();
    // What the README takes for granted: the programs, two PyTorch checkpoints and a folder of images.
    fs::create_dir_all(place.path("target")).unwrap();
    let programs = binary("import").parent().unwrap().to_owned();
    std::os::unix::fs::symlink(programs, place.path("target/release")).unwrap();
    let golden = repository().join("tests/golden/tiny_resnet20");
    for name in ["a", "b"] {
        fs::copy(golden.join(format!("{name}.pt")), place.path(&format!("{name}.pth"))).unwrap();
    }
    write_idx(&place.path("images"), 600, 28, 6);
    fs::write(place.path("images/classes.txt"), "top\ntrouser\npullover\ndress\ncoat\nsandal\n").unwrap();

    let mut stages = BTreeSet::new();
    for command in commands() {
        let Some(rest) = command.strip_prefix("target/release/") else { continue };
        stages.insert(rest.split(' ').next().unwrap().to_owned());
        bash(&place, &command);
    }
    let all = [
        "adapt",
        "apply",
        "check",
        "collect",
        "eval",
        "gate",
        "import",
        "inspect",
        "match",
        "predict",
        "recalibrate",
        "refit",
    ];
    assert!(stages.iter().eq(all), "the README shows {stages:?}");
    // The result is what the README says it is: an ordinary file with PyTorch's names.
    let merged = crate::support::tensors(&place, "recalibrated.safetensors");
    assert!(merged.contains_key("conv1.weight") && tiny_graph().params().contains_key("conv1.weight"));
}

/// A small network of torchvision's, as somebody's own file would make it, and a checkpoint of each task.
const MY_NETS: &str = r#"
import torch
from torchvision.models import mobilenet_v2

def build():
    return mobilenet_v2(num_classes=3, width_mult=0.25)

if __name__ == "__main__":
    for seed, name in enumerate(["cats", "dogs"]):
        torch.manual_seed(seed)
        torch.save(build().state_dict(), f"{name}.pth")
"#;

#[test]
#[allow(clippy::print_stderr, reason = "a test that does nothing says so")]
fn your_two_checkpoints_in_five_commands() {
    let python = repository().join(".venv-python/bin/python");
    if !python.exists() {
        eprintln!("skipped: exporting needs the full PyTorch; `make setup-python` installs it");
        return;
    }
    let place = Workplace::new();
    fs::create_dir_all(place.path("target")).unwrap();
    for name in [".venv-python", "scripts"] {
        std::os::unix::fs::symlink(repository().join(name), place.path(name)).unwrap();
    }
    std::os::unix::fs::symlink(binary("import").parent().unwrap(), place.path("target/release")).unwrap();
    write_cifar(&place.path("images"), 100);
    let names = "tabby siamese persian beagle poodle husky bird fish cow horse";
    fs::write(place.path("images/batches.meta.txt"), names.replace(' ', "\n") + "\n").unwrap();
    fs::write(place.path("my_nets.py"), MY_NETS).unwrap();
    bash(&place, ".venv-python/bin/python my_nets.py");

    let commands = commands_of("docs/your-networks.md");
    assert_eq!(commands.len(), 8, "five, and three that look at the result");
    for command in &commands {
        bash(&place, command);
    }
    let back = "import sys; sys.path.insert(0, 'scripts'); import torch, zipit_torch; \
                net = zipit_torch.load('both.safetensors'); y = net(torch.zeros(2, 3, 32, 32)); \
                assert {k: tuple(v.shape) for k, v in y.items()} == {'cats': (2, 3), 'dogs': (2, 3)}, y";
    bash(&place, &format!(".venv-python/bin/python -c \"{back}\""));
}

#[test]
fn fine_tunes_of_one_base_as_their_page_says() {
    let place = Workplace::new();
    fs::create_dir_all(place.path("target")).unwrap();
    std::os::unix::fs::symlink(binary("import").parent().unwrap(), place.path("target/release")).unwrap();
    write_cifar(&place.path("images"), 400);
    let base = ArchSpec::new(Arch::ResNet20, 0.25, 3, [32, 32], 7).build().unwrap();
    write(&place, "base", &random_model(&base, 1, "base", &["a", "b", "c", "d", "e", "f", "g"]));
    let commands = commands_of("docs/fine-tunes.md");
    assert_eq!(commands.len(), 11);
    for command in &commands {
        bash(&place, command);
    }
    let sum = crate::support::tensors(&place, "sum.safetensors");
    assert!(sum.values().all(|tensor| tensor.iter().all(|x| x.is_finite())));
}

#[test]
fn make_knows_every_target_it_is_asked_for() {
    let mut targets = BTreeSet::new();
    for command in commands().iter().filter(|c| c.starts_with("make ")) {
        let output = Command::new("bash")
            .args(["-c", &format!("{command} --dry-run")])
            .current_dir(repository())
            .env_remove("MAKEFLAGS")
            .output()
            .unwrap();
        assert!(output.status.success(), "$ {command}\n{}", String::from_utf8_lossy(&output.stderr));
        targets.insert(command.clone());
    }
    // The first two are the two that a newcomer copies; the gate runs them for real.
    assert_eq!(commands()[..2], ["make demo", "make test"]);
    assert!(targets.contains("make setup"));
}

#[test]
fn help_of_every_program_has_an_example() {
    for name in [
        "train",
        "import",
        "inspect",
        "check",
        "collect",
        "match",
        "apply",
        "combine",
        "recalibrate",
        "refit",
        "adapt",
        "gate",
        "eval",
        "predict",
    ] {
        let output = Command::new(binary(name)).arg("--help").output().unwrap();
        let help = String::from_utf8(output.stdout).unwrap();
        assert!(help.contains(&format!("Example: {name} ")), "{name} --help has no example:\n{help}");
    }
}

#[test]
fn the_experiments_that_the_readme_names_exist() {
    let place = Workplace::new();
    let readme = fs::read_to_string(repository().join("README.md")).unwrap();
    let shown: Vec<String> =
        commands().into_iter().filter_map(|c| Some(c.strip_prefix("make experiment NAME=")?.to_owned())).collect();
    assert_eq!(shown, ["fashion-5+5"]);
    let mut named: BTreeSet<String> = shown.into_iter().collect();
    let table = readme.split("| NAME |").nth(1).unwrap().split("\n\n").next().unwrap();
    for row in table.lines().skip(2) {
        let cell = row.split('|').nth(1).unwrap();
        named.extend(cell.split('`').skip(1).step_by(2).map(str::to_owned));
    }
    let folder = repository().join("experiments");
    let there: BTreeSet<String> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    assert_eq!(named, there);
    for name in there {
        place.ok("experiment", &format!("{} --part select --dry-run", folder.join(name + ".toml").display()));
    }
}
