//! Measures HCP's session beside its peers and prints ratios: `bench-wire [PART …]`, by default all parts.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "printing is what it is for")]

use std::path::PathBuf;
use std::process::ExitCode;

use hcp_benches::report::Report;
use hcp_benches::{Failure, codec, handshakes, idle, padding, setup, streams};

const PARTS: [&str; 7] = ["frames", "streams", "set-up", "handshakes", "memory", "padding", "tor"];
/// Where the JSON goes.
const OUTPUT: &str = "bench-wire.json";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done = match arguments.as_slice() {
        [first, kind] if first == idle::ARGUMENT => idle_of(kind),
        parts => match parts.iter().find(|part| !PARTS.contains(&part.as_str())) {
            Some(unknown) => Err(format!("no such part: {unknown}; there are {}", PARTS.join(", ")).into()),
            None => run(parts),
        },
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench-wire: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(parts: &[String]) -> Result<(), Failure> {
    let wanted = |part: &str| parts.is_empty() || parts.iter().any(|wanted| wanted == part);
    let runtime = runtime()?;
    let mut report = Report::default();
    println!(
        "Ratios are medians of paired turns, with the quartiles in brackets; above 1 this library is the better one"
    );
    println!("unless it says otherwise. Each end has one thread; over Tor both share as many as there are cores.");
    if wanted("frames") {
        codec::run(&mut report);
    }
    if wanted("streams") {
        runtime.block_on(streams::run(&mut report))?;
    }
    if wanted("set-up") {
        setup::run(&mut report)?;
    }
    if wanted("handshakes") {
        runtime.block_on(handshakes::run(&mut report))?;
    }
    if wanted("memory") {
        runtime.block_on(idle::run(&mut report))?;
    }
    if wanted("padding") {
        padding::run(&mut report)?;
    }
    if wanted("tor") {
        #[cfg(feature = "tor")]
        hcp_benches::tor::run(&mut report)?;
        #[cfg(not(feature = "tor"))]
        report.left_out("everything over Tor: this program was built without the feature tor");
    }
    report.print_goals();
    let folder = std::env::current_exe()?.parent().map_or_else(PathBuf::new, PathBuf::from);
    report.write(&folder.join(OUTPUT))
}

fn idle_of(kind: &str) -> Result<(), Failure> {
    println!("{}", runtime()?.block_on(idle::measure(kind))?);
    Ok(())
}

/// The near end's.
fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}
