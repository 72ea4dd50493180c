//! Generates the Kotlin and Swift sides of hcp-ffi from its library.

fn main() {}
