//! Generates the Kotlin and Swift sides of hcp-ffi from its library.
//!
//! `uniffi-bindgen kotlin|swift LIBRARY CONFIG FOLDER`; CONFIG is hcp-ffi's `uniffi.toml`. UniFFI's own program would do,
//! but to build it as part of `uniffi` changes the features of the library.

#![allow(clippy::print_stderr)]

use std::process::ExitCode;

use camino::Utf8PathBuf;
use uniffi_bindgen::bindings::{GenerateOptions, TargetLanguage, generate};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [language, library, config, folder] = arguments.as_slice() else { return usage() };
    let language = match language.as_str() {
        "kotlin" => TargetLanguage::Kotlin,
        "swift" => TargetLanguage::Swift,
        _ => return usage(),
    };
    let options = GenerateOptions {
        languages: vec![language],
        source: Utf8PathBuf::from(library),
        out_dir: Utf8PathBuf::from(folder),
        config_override: Some(Utf8PathBuf::from(config)),
        ..GenerateOptions::default()
    };
    match generate(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("uniffi-bindgen: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn usage() -> ExitCode {
    eprintln!("usage: uniffi-bindgen kotlin|swift LIBRARY CONFIG FOLDER");
    ExitCode::from(2)
}
