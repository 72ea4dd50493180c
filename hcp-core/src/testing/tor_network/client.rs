//! A C tor client of a private network.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::description::PrivateTorDescription;
use super::error::StartError;
use super::launch::{POLL_INTERVAL, create, last_line, write};
use super::processes::Processes;
use super::torrc;
use crate::identity::{DiscoveryKey, OnionAddress};

/// A running C tor client; dropping it ends the process.
#[derive(Debug)]
pub struct TorClientProcess {
    socks_addr: SocketAddr,
    log: PathBuf,
    _processes: Processes,
}

impl TorClientProcess {
    /// Starts a client that has these keys, and waits until it is bootstrapped; blocks.
    pub(super) fn start(
        description: &PrivateTorDescription,
        keys: &[(OnionAddress, DiscoveryKey)],
    ) -> Result<Self, StartError> {
        let directory = tempfile::Builder::new()
            .prefix("client-")
            .tempdir_in(&description.directory)
            .map_err(|source| StartError::Storage { path: description.directory.clone(), source })?;
        let mut processes = Processes::new(directory)?;
        let folder = processes.directory().to_owned();
        write(&folder.join("torrc"), &torrc::client(&folder, &description.authorities, description.voting_interval))?;
        let auth = torrc::client_auth(&folder);
        create(&auth)?;
        for (number, (address, key)) in keys.iter().enumerate() {
            write(&auth.join(format!("{number}.auth_private")), &key.c_tor_line(*address))?;
        }
        processes.spawn_tor(&description.tor, &folder)?;

        let log = folder.join("log");
        let started = Instant::now();
        while started.elapsed() < DEADLINE {
            if !processes.all_run() {
                let program = description.tor.display().to_string();
                return Err(StartError::Failed { program, problem: last_line(&log) });
            }
            if let Some(socks_addr) = ready(&log) {
                return Ok(Self { socks_addr, log, _processes: processes });
            }
            std::thread::sleep(POLL_INTERVAL);
        }
        Err(StartError::TimedOut { deadline: DEADLINE, state: last_line(&log) })
    }

    /// Where it accepts SOCKS5 connections; streams with different user names share no circuit.
    pub fn socks_addr(&self) -> SocketAddr {
        self.socks_addr
    }

    /// What it has logged so far, for the message of a test that fails.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

/// The SOCKS address once the log says that the client is bootstrapped.
fn ready(log: &Path) -> Option<SocketAddr> {
    let text = std::fs::read_to_string(log).ok()?;
    if !text.contains("Bootstrapped 100%") {
        return None;
    }
    let (_, rest) = text.split_once("Opened Socks listener connection (ready) on ")?;
    rest.split_whitespace().next()?.parse().ok()
}

/// A client needs one to three seconds; a loaded machine may need ten times as long.
const DEADLINE: Duration = Duration::from_secs(60);
