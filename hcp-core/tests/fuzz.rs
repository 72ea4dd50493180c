//! Every fuzz target's function on stable Rust: over its corpus, and over seeded mutations of it for ten seconds in all
//! (`HCP_FUZZ_SECONDS`); `HCP_FUZZ_SEED` replays the seed that a failure prints.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod fuzz {
    pub(crate) mod corpus;
    pub(crate) mod mutate;
}

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fuzz::{corpus, mutate};
use hcp_core::testing::fuzz as targets;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

type Target = fn(&[u8]);

const TARGETS: [(&str, Target); 13] = [
    ("address", targets::address),
    ("delegation", targets::delegation),
    ("frame", targets::frame),
    ("gossip", targets::gossip),
    ("grant", targets::grant),
    ("hello", targets::hello),
    ("key_file", targets::key_file),
    ("log", targets::log),
    ("manifest", targets::manifest),
    ("request", targets::request),
    ("session", targets::session),
    ("tor_key", targets::tor_key),
    ("warden", targets::warden),
];
/// The longest input, as under cargo-fuzz: what is longer only takes longer.
const MAX_INPUT: usize = 4_096;

#[test]
fn nothing_breaks_on_the_corpora_and_on_seeded_mutations_of_them() {
    let seconds = env::var("HCP_FUZZ_SECONDS").map_or(10.0, |seconds| seconds.parse().unwrap());
    let seed = env::var("HCP_FUZZ_SEED").map_or_else(|_| rand::random(), |seed| seed.parse().unwrap());
    let share = Duration::from_secs_f64(seconds) / TARGETS.len() as u32;
    println!("seed {seed}");
    for (name, target) in TARGETS {
        let mut random = StdRng::seed_from_u64(seed);
        let corpus = kept(name);
        assert!(corpus.len() >= 4, "{name}: a corpus of {}", corpus.len());
        for (entry, input) in &corpus {
            run(target, input, &format!("{name}: corpus entry {entry}"));
        }
        let inputs: Vec<_> = corpus.into_values().collect();
        let (until, mut runs) = (Instant::now() + share, 0_u64);
        // However slow the machine is, some.
        while runs < 20 || Instant::now() < until {
            let mut input = inputs[random.random_range(0..inputs.len())].clone();
            mutate::mutate(&mut input, &inputs, MAX_INPUT, &mut random);
            run(target, &input, &format!("{name}: mutation {runs} of seed {seed}"));
            runs += 1;
        }
        println!("{name}: {} of the corpus, {runs} mutations", inputs.len());
    }
}

/// The panic of a target goes on, with the input that caused it.
fn run(target: Target, input: &[u8], what: &str) {
    if catch_unwind(AssertUnwindSafe(|| target(input))).is_err() {
        panic!("{what}: {}", data_encoding::HEXLOWER.encode(input));
    }
}

#[test]
fn the_corpora_are_what_the_vectors_give() {
    let made = corpus::all(&vectors());
    let names: Vec<_> = made.keys().copied().collect();
    assert_eq!(names, TARGETS.map(|(name, _)| name));
    for (target, entries) in made {
        if env::var_os("HCP_WRITE_VECTORS").is_some() {
            let folder = corpora().join(target);
            fs::create_dir_all(&folder).unwrap();
            for (name, input) in &entries {
                fs::write(folder.join(name), input).unwrap();
            }
        }
        let kept = kept(target);
        for (name, input) in entries {
            assert!(input.len() <= MAX_INPUT, "{target}/{name} has {} bytes", input.len());
            assert!(kept.get(&name) == Some(&input), "{target}/{name} differs; HCP_WRITE_VECTORS=1 rewrites it");
        }
    }
}

#[test]
fn a_planted_defect_is_found() {
    // Gives up at a delegation whose serial is above 2^56: bytes 160 to 168 of the input.
    let broken: Target = |data| assert!(data.get(160).is_none_or(|high| *high == 0), "planted");
    let mut random = StdRng::seed_from_u64(1);
    let inputs: Vec<_> = kept("delegation").into_values().filter(|input| input.get(160) == Some(&0)).collect();
    let found = (0..100_000).find(|_| {
        let mut input = inputs[random.random_range(0..inputs.len())].clone();
        mutate::mutate(&mut input, &inputs, MAX_INPUT, &mut random);
        catch_unwind(AssertUnwindSafe(|| broken(&input))).is_err()
    });
    assert!(found.is_some());
}

fn corpora() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus")
}

fn vectors() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors")
}

fn kept(target: &str) -> BTreeMap<String, Vec<u8>> {
    let folder = corpora().join(target);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    entries
        .map(|entry| {
            let entry = entry.unwrap();
            (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())
        })
        .collect()
}
