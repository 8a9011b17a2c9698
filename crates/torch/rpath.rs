//! Build script of every crate that links LibTorch: writes LibTorch's folder into the binary's rpath, so that it
//! runs without `LD_LIBRARY_PATH`. A binary that uses CUDA must keep its link to `libtorch_cuda` although no symbol
//! of it is named.

use std::path::Path;

fn main() {
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    if let Ok(lib) = std::env::var("DEP_TCH_LIBTORCH_LIB") {
        println!("cargo:rustc-link-arg=-Wl,-rpath,{lib}");
        if Path::new(&lib).join("libtorch_cuda.so").exists() {
            println!("cargo:rustc-link-arg=-Wl,--no-as-needed");
            println!("cargo:rustc-link-arg=-ltorch");
        }
    }
}
