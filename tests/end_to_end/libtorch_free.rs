//! `import`, `inspect`, `match`, `apply`, `combine`, `experiment` and `report` run on machines without LibTorch.

use std::process::Command;
use zipit_tests::binary;

fn libraries(name: &str) -> String {
    let output = Command::new("ldd").arg(binary(name)).output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_pure_stages_link_no_libtorch() {
    for name in ["import", "inspect", "match", "apply", "combine", "experiment", "report"] {
        let libraries = libraries(name);
        assert!(!libraries.contains("torch") && !libraries.contains("hdf5"), "{name}:\n{libraries}");
    }
    // The check can fail: a stage that does link it shows it.
    assert!(libraries("collect").contains("libtorch"));
}

#[test]
fn the_others_find_libtorch_by_themselves() {
    for name in ["train", "check", "collect", "recalibrate", "refit", "adapt", "eval", "predict"] {
        let output = Command::new(binary(name)).arg("--version").env_remove("LD_LIBRARY_PATH").output().unwrap();
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    }
}
