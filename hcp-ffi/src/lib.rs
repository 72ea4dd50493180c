//! HCP for Kotlin and Swift, through UniFFI.

uniffi::setup_scaffolding!("hcp");
