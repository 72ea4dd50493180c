//! The bindings have what the core has: the core's public API, derived from its source, against the sources of hcp-py and
//! hcp-ffi. What a binding leaves out stands in its `parity.toml` with a reason.
//!
//! Names are compared without case and underscores, by the last parts of their paths. Whether a bound thing works is for
//! the binding's own tests.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod parity {
    pub(crate) mod binding;
    pub(crate) mod bound_rust;
    pub(crate) mod compare;
    pub(crate) mod core_api;
    mod planted;
    pub(crate) mod python;
    pub(crate) mod source;
}

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use parity::binding::Binding;
use parity::compare::{compare, parse_reasons};
use parity::core_api::{ApiItem, walk};
use parity::{bound_rust, python, source};

/// Fewer, and the walk is broken.
const FEWEST_ITEMS: usize = 150;

#[test]
fn hcp_py_has_what_the_core_has() {
    let extension = bound_rust::pyo3(&source::read(&workspace().join("hcp-py/src"), "rs").unwrap()).unwrap();
    let package = source::read(&workspace().join("hcp-py/python/hcp"), "py").unwrap();
    let binding = python::package(&package, extension);
    check("hcp-py", &binding);
}

#[test]
fn hcp_ffi_has_what_the_core_has() {
    let binding = bound_rust::uniffi(&source::read(&workspace().join("hcp-ffi/src"), "rs").unwrap()).unwrap();
    check("hcp-ffi", &binding);
}

fn check(name: &str, binding: &Binding) {
    let core = core();
    let file = workspace().join(name).join("parity.toml");
    let reasons = match std::fs::read_to_string(&file) {
        Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
        read => read.unwrap(),
    };
    let report = compare(&core, binding, &parse_reasons(&reasons).unwrap());
    println!(
        "{name}: of {} items of the core {} are covered and {} excused",
        core.len(),
        report.covered,
        report.excused
    );
    assert!(
        report.problems.is_empty(),
        "{name} and the core differ in {} places; bind what is missing, or say in {} why not:\n{}",
        report.problems.len(),
        file.display(),
        report.problems.join("\n")
    );
}

fn core() -> Vec<ApiItem> {
    let core = walk(&source::read(&workspace().join("hcp-core/src"), "rs").unwrap()).unwrap();
    assert!(core.len() >= FEWEST_ITEMS, "only {} items found in the core: the walk is broken", core.len());
    core
}

/// Where the workspace is at run time, so that a built test can look at another one.
fn workspace() -> PathBuf {
    let package = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_else(|_| env!("CARGO_MANIFEST_DIR").to_owned());
    Path::new(&package).parent().unwrap().to_owned()
}
