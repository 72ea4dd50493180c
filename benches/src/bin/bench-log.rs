//! Measures HCP's replicated log beside others: `bench-log [--trial] [--folder PATH] [PART …]`, by default all parts but
//! `memory-long`.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "printing is what it is for")]

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use hcp_benches::Failure;
use hcp_benches::log::disk::Place;
use hcp_benches::log::{Extent, Run, catch_up, failures, ingest, latency, memory, others, stores};
use hcp_benches::report::Report;

const PARTS: [&str; 8] = ["ingest", "catch-up", "latency", "others", "failures", "stores", "memory", "tor"];
/// What is measured only when it is asked for.
const LONG: &str = "memory-long";
/// Every part is done by then, or never.
const LONGEST: Duration = Duration::from_secs(3_600);
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
    let mut failed = Vec::new();
    // What fails takes nothing from what was measured before and after it.
    let mut measured = |part: &'static str, done: Result<(), Failure>| {
        if let Err(error) = done {
            eprintln!("bench-log: {part}: {error}");
            failed.push(part);
        }
    };
    macro_rules! part {
        ($name:literal, $run:expr) => {
            if wanted($name) {
                let limited = async {
                    tokio::time::timeout(LONGEST, $run).await.unwrap_or_else(|_| Err("it stands still".into()))
                };
                measured($name, runtime.block_on(limited));
            }
        };
    }
    part!("ingest", ingest::run(&mut report, &run));
    part!("catch-up", catch_up::run(&mut report, &run));
    part!("latency", latency::run(&mut report, &run));
    part!("others", others::run(&mut report, &run));
    part!("failures", failures::run(&mut report, &run));
    part!("stores", stores::run(&mut report, &run));
    part!("memory", memory::run(&mut report, &run, memory::USUAL));
    if parts.contains(&LONG) {
        measured(LONG, runtime.block_on(memory::run(&mut report, &run, memory::LONG)));
    } else if parts.is_empty() {
        report.left_out(format!("logs of 10 million entries, which take long to write: PARTS={LONG}"));
    }
    #[cfg(feature = "tor")]
    part!("tor", hcp_benches::log::tor::run(&mut report, &run));
    #[cfg(not(feature = "tor"))]
    if wanted("tor") {
        report.left_out("everything over Tor: this program was built without the feature tor");
    }
    report.print_goals();
    report.write(&here.join(OUTPUT))?;
    if failed.is_empty() { Ok(()) } else { Err(format!("not measured: {}", failed.join(", ")).into()) }
}

fn memory_of(folder: &Path, nodes: &str) -> Result<(), Failure> {
    println!("{}", runtime()?.block_on(memory::measure(folder, nodes.parse()?))?);
    Ok(())
}

/// As applications have it: as many threads as there are cores.
fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?)
}
