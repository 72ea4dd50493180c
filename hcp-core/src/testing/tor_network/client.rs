//! A C tor client of a private network.

use std::fs::Permissions;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::control::{self, ControlError};
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
    control: PathBuf,
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
            // Tor makes no control socket where others could reach it.
            .permissions(Permissions::from_mode(0o700))
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
                return Ok(Self { socks_addr, log, control: folder.join(torrc::CONTROL), _processes: processes });
            }
            std::thread::sleep(POLL_INTERVAL);
        }
        Err(StartError::TimedOut { deadline: DEADLINE, state: last_line(&log) })
    }

    /// Where it accepts SOCKS5 connections; streams with different user names share no circuit.
    pub fn socks_addr(&self) -> SocketAddr {
        self.socks_addr
    }

    /// Tells it to forget what it knows of onion services, descriptors above all, and to use new circuits.
    ///
    /// C tor does so at most once in ten seconds, and late rather than never: [`Self::knows`] shows whether it has.
    ///
    /// # Errors
    /// When it cannot be told.
    ///
    /// # Cancel safety
    /// Cancel-safe; whether it was told is then unknown.
    pub async fn forget(&self) -> Result<(), ControlError> {
        control::ask(&self.control, "SIGNAL NEWNYM").await.map(drop)
    }

    /// Whether it has the descriptor of an onion address in its cache.
    ///
    /// # Errors
    /// When it cannot be asked.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub async fn knows(&self, address: &str) -> Result<bool, ControlError> {
        let id = address.trim_end_matches(".onion");
        match control::ask(&self.control, &format!("GETINFO hs/client/desc/id/{id}")).await {
            Ok(_) => Ok(true),
            Err(ControlError::Refused { code: control::NOT_FOUND }) => Ok(false),
            Err(error) => Err(error),
        }
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
