//! Build script of every crate that links LibTorch: writes LibTorch's folder into the binary's rpath, so that it
//! runs without `LD_LIBRARY_PATH`. A binary that uses CUDA must keep its link to `libtorch_cuda` although no symbol
//! of it is named; that link is left out where LibTorch's CUDA libraries are not installed, because then the binary
//! would not start. `ZIPIT_CUDA=1` or `0` decides it by hand.

use std::path::{Path, PathBuf};

#[allow(clippy::redundant_pub_crate)]
#[allow(clippy::print_stdout, reason = "a build script speaks to cargo")]
pub(crate) fn main() {
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    println!("cargo:rerun-if-env-changed=ZIPIT_CUDA");
    if let Ok(lib) = std::env::var("DEP_TCH_LIBTORCH_LIB") {
        println!("cargo:rustc-link-arg=-Wl,-rpath,{lib}");
        let cuda = match std::env::var("ZIPIT_CUDA").as_deref() {
            Ok("0") => false,
            Ok("1") => true,
            _ => has_cuda(Path::new(&lib)),
        };
        if cuda {
            println!("cargo:rustc-link-arg=-Wl,--no-as-needed");
            println!("cargo:rustc-link-arg=-ltorch");
        }
    }
}

/// Whether `libtorch_cuda` is there and can be loaded: cuSPARSE, which it needs, lies beside it (LibTorch's archive)
/// or in the `nvidia` packages beside PyTorch (wheels). The lean set-up installs the wheel without those packages.
fn has_cuda(lib: &Path) -> bool {
    let lib = lib.canonicalize().unwrap_or_else(|_| lib.to_owned());
    let mut folders: Vec<PathBuf> = vec![lib.clone()];
    if let Some(packages) = lib.ancestors().nth(2)
        && let Ok(nvidia) = std::fs::read_dir(packages.join("nvidia"))
    {
        folders.extend(nvidia.filter_map(|entry| Some(entry.ok()?.path().join("lib"))));
    }
    let has_cusparse = |folder: &PathBuf| {
        std::fs::read_dir(folder).is_ok_and(|mut files| {
            files.any(|file| file.is_ok_and(|file| file.file_name().to_string_lossy().starts_with("libcusparse.so")))
        })
    };
    lib.join("libtorch_cuda.so").exists() && folders.iter().any(has_cusparse)
}
