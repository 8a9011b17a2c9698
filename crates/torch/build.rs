//! rpath for this crate's own tests and benchmarks, and LibTorch's version, which tch has no call for: it is read from
//! the headers this build compiles against and kept in `ZIPIT_LIBTORCH_VERSION`.

use std::path::Path;

mod rpath;

fn main() {
    rpath::main();
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=rpath.rs");
    let version = std::env::var("DEP_TCH_LIBTORCH_LIB").ok().and_then(|lib| version(Path::new(&lib).parent()?));
    println!("cargo:rustc-env=ZIPIT_LIBTORCH_VERSION={}", version.as_deref().unwrap_or("unknown"));
}

/// `2.11.0` from `#define TORCH_VERSION_MAJOR 2` and its siblings, or `2.11.0+cu130` from a wheel's `version.py`.
fn version(libtorch: &Path) -> Option<String> {
    if let Ok(python) = std::fs::read_to_string(libtorch.join("version.py"))
        && let Some(line) = python.lines().find(|line| line.starts_with("__version__"))
        && let Some(version) = line.split('\'').nth(1)
    {
        return Some(version.to_owned());
    }
    let header = ["headeronly/version.h", "version.h"]
        .iter()
        .find_map(|name| std::fs::read_to_string(libtorch.join("include/torch").join(name)).ok())?;
    let number = |part: &str| {
        let define = format!("#define TORCH_VERSION_{part} ");
        header.lines().find_map(|line| Some(line.strip_prefix(&define)?.trim().to_owned()))
    };
    Some(format!("{}.{}.{}", number("MAJOR")?, number("MINOR")?, number("PATCH")?))
}
