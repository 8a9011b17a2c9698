//! LibTorch's rpath, and what tells the C library when to give memory back: LibTorch's tensors are in its hands.

#[path = "../torch/rpath.rs"]
mod rpath;

fn main() {
    rpath::main();
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=../torch/rpath.rs");
    println!("cargo:rerun-if-changed=heap.c");
    cc::Build::new().file("heap.c").link_lib_modifier("+whole-archive").compile("zipit_heap");
}
