//! stage
fn main() {}
