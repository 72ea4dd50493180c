//! The node's side: it asks the owner, and takes in what it is granted.

use std::path::Path;

use hcp_core::identity::keyfile::Protection;
use hcp_core::identity::manifest::Manifest;
use hcp_core::identity::{Identity, OnionAddress, ReplicaSeed};
use hcp_core::owner::{Holdings, Import, Recipient};

use super::args::{ImportGrant, Request};
use super::folder::{read_grant, write};
use super::time::{left_if, now};
use crate::failure::Failure;
use crate::keys::{self, print};
use crate::settings::Settings;

/// The file of a node's seed in its home.
pub(crate) const SEED: &str = "replica.key";
/// The file with the address of the service that a node serves, in its home.
pub(crate) const SERVICE: &str = "service";
/// The folder of a node's grants in its home.
pub(crate) const GRANTS: &str = "grants";

/// `hcp-irc request`.
pub(crate) fn request(command: &Request) -> Result<(), Failure> {
    let protection = keys::protection(&command.keys)?;
    let clock = command.clock.clock().map_err(|error| Failure::of("use this length of time periods", &error))?;
    let home = &command.home;
    let node: Identity = keys::load(&home.join(keys::NODE_KEY), "node's key (does `init` come first?)", &protection)?;
    let service = service_of(home, command.service)?;
    let seed_path = home.join(SEED);
    let seed = if seed_path.exists() {
        keys::load(&seed_path, "node's seed", &protection)?
    } else {
        let seed = ReplicaSeed::generate();
        keys::save(&seed_path, &seed, &protection)?;
        seed
    };
    let now = now();
    let recipient = Recipient::new(service, node.address(), seed);
    let holdings = Holdings::open(home.join(GRANTS), recipient, now);
    let holdings = holdings.map_err(|error| Failure::file("open", &home.join(GRANTS), &error))?;
    let request = holdings.request(&node, clock, command.rounds, command.periods, now);
    let request = request.map_err(|error| Failure::of("make a request", &error))?;
    let out = command.out.clone().unwrap_or_else(|| home.join("node.request"));
    write(&out, &request.to_bytes())?;
    print(&format!("{}\n", out.display()))?;
    keys::hint("Next: bring this file to the owner, and there: hcp-irc owner grant --dir DIR --hours HOURS FILE")
}

/// `hcp-irc import-grant`.
pub(crate) fn import_grant(command: &ImportGrant) -> Result<(), Failure> {
    let protection = keys::protection(&command.keys)?;
    let now = now();
    let mut holdings = open(&command.home, &protection, now)?;
    let bytes = read_grant(&command.file)?;
    let import = holdings.import(&bytes, now).map_err(|error| Failure::file("import", &command.file, &error))?;
    let mut text = match import {
        Import::Held => "This node holds the grant already.\n".to_owned(),
        _ => "Imported.\n".to_owned(),
    };
    if let Some(contents) = holdings.manifest().map(Manifest::contents) {
        let settings = Settings::from_shared(contents.shared_configuration());
        let settings =
            settings.map_err(|error| Failure::new(format!("cannot use the manifest's settings: {error}")))?;
        let (version, members) = (contents.version(), contents.members().len());
        text.push_str(&format!("  Manifest {version}: {} on {members} nodes\n", settings.name));
    }
    let left = holdings.left(now);
    text.push_str(&format!("  It speaks for the service {}\n", left_if(left.speaks_until, now)));
    text.push_str(&format!("  It publishes the descriptor {}\n", left_if(left.publishes_until, now)));
    for problem in holdings.problems() {
        text.push_str(&format!("  {} in the folder of grants is none: {}\n", problem.file, problem.error));
    }
    print(&text)
}

/// What the node in `home` holds now.
pub(crate) fn open_holdings(home: &Path, protection: &Protection) -> Result<Holdings, Failure> {
    open(home, protection, now())
}

/// What the node in `home` holds.
fn open(home: &Path, protection: &Protection, now: u64) -> Result<Holdings, Failure> {
    let node: Identity = keys::load(&home.join(keys::NODE_KEY), "node's key (does `init` come first?)", protection)?;
    let seed = keys::load(&home.join(SEED), "node's seed (does `request` come first?)", protection)?;
    let recipient = Recipient::new(service_of(home, None)?, node.address(), seed);
    let folder = home.join(GRANTS);
    Holdings::open(&folder, recipient, now).map_err(|error| Failure::file("open", &folder, &error))
}

/// The service that the node serves: what its home says, which the first request writes.
fn service_of(home: &Path, given: Option<OnionAddress>) -> Result<OnionAddress, Failure> {
    let path = home.join(SERVICE);
    if !path.exists() {
        let service = given.ok_or_else(|| {
            Failure::new(format!("{} is missing: name the service with `request --service ADDRESS`", path.display()))
        })?;
        write(&path, format!("{service}\n").as_bytes())?;
        return Ok(service);
    }
    let text = std::fs::read_to_string(&path).map_err(|error| Failure::file("read", &path, &error))?;
    let service = text.trim().parse().map_err(|error| Failure::file("understand", &path, &error))?;
    match given {
        Some(other) if other != service => Err(Failure::new(format!(
            "{} names another service: a home serves one; use another --home for another",
            path.display()
        ))),
        _ => Ok(service),
    }
}
