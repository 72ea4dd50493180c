//! What whoever seizes a running node finds on its disk and in its memory: the node's own keys, and nothing of the identity.

#![allow(clippy::unwrap_used)]

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use hcp_core::identity::keyfile::{KeyFile, Protection};
use hcp_core::identity::{Identity, Passphrase};
use hcp_core::owner::PeriodClock;
use hcp_core::testing::{PrivateTorNetwork, blinded_secret_scalar};
use hcp_demo::{Cluster, Place, User, dial_socks};
use memchr::memmem;

const SOON: Duration = Duration::from_secs(120);
/// What is read of a process at a time, in bytes.
const CHUNK: usize = 1 << 20;
/// No needle is longer.
const OVERLAP: usize = 64;
/// The smallest page of any kernel.
const PAGE: usize = 4096;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_seized_node_has_its_own_keys_and_nothing_of_the_identity() {
    let tor = PrivateTorNetwork::shared().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_hcp-irc"));
    let place = Place::PrivateTor(tor.description_file().to_owned());
    let cluster = Cluster::create(program, folder.path(), place, 1, 200).await.unwrap();
    let mut node = cluster.start(0).unwrap();
    node.wait("readiness", SOON, |node| node.ready.is_some()).await.unwrap();
    // It has published and met a client: whatever it needs for that it has had in its hands.
    assert!(!node.state().published_descriptors.is_empty());
    let client = tor.start_client().await.unwrap();
    let user = User::new("alice", "#hcp", dial_socks(client.socks_addr(), &cluster.address));
    user.wait("joining", SOON, |user| user.joined).await.unwrap();

    let passphrase = std::fs::read_to_string(folder.path().join("passphrase")).unwrap();
    let protection = Protection::Passphrase(Passphrase::new(passphrase.trim()).unwrap());
    let load = |path: PathBuf| -> Identity { KeyFile::new(path).load(&protection).unwrap() };
    let own = load(cluster.home(0).join("node.key"));
    let identity = load(folder.path().join("owner").join("identity.key"));
    assert_eq!(identity.address().to_string(), cluster.address, "it is the service's");
    let clock = PeriodClock::of_minutes(tor.description().time_period_minutes().try_into().unwrap()).unwrap();
    let now = clock.at(UNIX_EPOCH.elapsed().unwrap().as_secs());
    let periods = [now.previous().unwrap(), now, now.next().unwrap(), now.next().unwrap().next().unwrap()];
    // Its seed is nowhere, not even at the owner's: what is kept of an identity is the expanded key.
    let expanded = identity.expanded_secret_key();
    let mut hidden = vec![("the identity's scalar", expanded[..32].to_vec()), ("its prefix", expanded[32..].to_vec())];
    for period in periods {
        hidden.push(("a blinded secret", blinded_secret_scalar(&identity, period).to_vec()));
    }
    let control = own.expanded_secret_key();
    let control = ("the node's own key", control[..32].to_vec());

    node.freeze().await.unwrap();
    let needles: Vec<_> = hidden.iter().chain([&control]).collect();
    let found = in_memory(node.id().unwrap(), &needles);
    assert_eq!(found, ["the node's own key"], "in memory");

    // On disk the node's own key is sealed: its address, which is no secret, shows that the search works.
    let public = ("the service's address", identity.address().public_key().to_vec());
    let needles: Vec<_> = hidden.iter().chain([&control, &public]).collect();
    assert_eq!(on_disk(&cluster.home(0), &needles), ["the service's address"], "on disk");
}

/// The names of those that stand in what a process can read of its own.
fn in_memory(process: u32, needles: &[&(&'static str, Vec<u8>)]) -> Vec<&'static str> {
    let maps = BufReader::new(File::open(format!("/proc/{process}/maps")).unwrap());
    let memory = File::open(format!("/proc/{process}/mem")).unwrap();
    let mut found = Vec::new();
    let mut buffer = vec![0; CHUNK + OVERLAP];
    let mut read = 0;
    for line in maps.lines() {
        let line = line.unwrap();
        let mut words = line.split_whitespace();
        let (range, rights) = (words.next().unwrap(), words.next().unwrap());
        let (from, to) = range.split_once('-').unwrap();
        let (mut at, to) = (u64::from_str_radix(from, 16).unwrap(), u64::from_str_radix(to, 16).unwrap());
        if !rights.starts_with('r') {
            continue;
        }
        while at < to {
            let wanted = usize::try_from(to - at).unwrap_or(usize::MAX).min(buffer.len());
            // Pages of the kernel, and those never touched, cannot be read.
            let length = memory.read_at(&mut buffer[..wanted], at).unwrap_or(0);
            look(&buffer[..length], needles, &mut found);
            read += length;
            // Behind a page that cannot be read there may be one that can.
            at += if length == wanted { CHUNK } else { length / PAGE * PAGE + PAGE } as u64;
        }
    }
    assert!(read > 20 << 20, "a node has more memory than {read} bytes");
    found
}

/// The names of those that stand in a file below a folder.
fn on_disk(folder: &Path, needles: &[&(&'static str, Vec<u8>)]) -> Vec<&'static str> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            let kind = entry.file_type().unwrap();
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() {
                look(&std::fs::read(entry.path()).unwrap(), needles, &mut found);
            }
        }
    }
    found
}

fn look(bytes: &[u8], needles: &[&(&'static str, Vec<u8>)], found: &mut Vec<&'static str>) {
    for (name, needle) in needles {
        if !found.contains(name) && memmem::find(bytes, needle).is_some() {
            found.push(name);
        }
    }
}
