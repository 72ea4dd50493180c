//! Measures HCP's replicated log beside others: `bench-log [--trial] [--folder PATH] [PART …]`, by default all parts but
//! `memory-long`.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "printing is what it is for")]

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use hcp_benches::Failure;
use hcp_benches::log::disk::Place;
use hcp_benches::log::{Extent, Run, catch_up, failures, ingest, latency, memory, others, stores};
use hcp_benches::report::Report;

const PARTS: [&str; 8] = ["ingest", "catch-up", "latency", "others", "failures", "stores", "memory", "tor"];
/// What is measured only when it is asked for.
const LONG: &str = "memory-long";
/// Where the JSON goes.
const OUTPUT: &str = "bench-log.json";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done = match arguments.as_slice() {
        [first, folder, nodes] if first == memory::ARGUMENT => memory_of(Path::new(folder), nodes),
        arguments => run(arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench-log: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Result<(), Failure> {
    let here = std::env::current_exe()?.parent().map_or_else(PathBuf::new, PathBuf::from);
    let (mut extent, mut folder, mut parts) = (Extent::Whole, here.clone(), Vec::new());
    let mut arguments = arguments.iter().map(String::as_str);
    while let Some(argument) = arguments.next() {
        match argument {
            "--trial" => extent = Extent::Trial,
            "--folder" => folder = arguments.next().ok_or("--folder needs a path")?.into(),
            part if part == LONG || PARTS.contains(&part) => parts.push(part),
            unknown => {
                return Err(format!("no such part: {unknown}; there are {}, {LONG}", PARTS.join(", ")).into());
            }
        }
    }
    let wanted = |part: &str| parts.is_empty() || parts.contains(&part);
    let run = Run { place: Place::new(folder)?, extent };
    let mut report = Report::default();
    println!(
        "Ratios are medians of paired turns, with the quartiles in brackets; above 1 this library is the better one."
    );
    println!("All nodes share this machine's cores and the disk of {}.", run.place.path().display());
    if extent == Extent::Trial {
        println!("A trial: a tenth of the work, once. These figures mean nothing.");
    }
    let runtime = runtime()?;
    if wanted("ingest") {
        runtime.block_on(ingest::run(&mut report, &run))?;
    }
    if wanted("catch-up") {
        runtime.block_on(catch_up::run(&mut report, &run))?;
    }
    if wanted("latency") {
        runtime.block_on(latency::run(&mut report, &run))?;
    }
    if wanted("others") {
        runtime.block_on(others::run(&mut report, &run))?;
    }
    if wanted("failures") {
        runtime.block_on(failures::run(&mut report, &run))?;
    }
    if wanted("stores") {
        runtime.block_on(stores::run(&mut report, &run))?;
    }
    if wanted("memory") {
        runtime.block_on(memory::run(&mut report, &run, memory::USUAL))?;
    }
    if parts.contains(&LONG) {
        runtime.block_on(memory::run(&mut report, &run, memory::LONG))?;
    } else if parts.is_empty() {
        report.left_out(format!("logs of 10 million entries, which take long to write: PARTS={LONG}"));
    }
    if wanted("tor") {
        #[cfg(feature = "tor")]
        runtime.block_on(hcp_benches::log::tor::run(&mut report, &run))?;
        #[cfg(not(feature = "tor"))]
        report.left_out("everything over Tor: this program was built without the feature tor");
    }
    report.print_goals();
    report.write(&here.join(OUTPUT))
}

fn memory_of(folder: &Path, nodes: &str) -> Result<(), Failure> {
    println!("{}", runtime()?.block_on(memory::measure(folder, nodes.parse()?))?);
    Ok(())
}

/// As applications have it: as many threads as there are cores.
fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?)
}
