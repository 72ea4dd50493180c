//! A private Tor network of the system's `tor` on one machine: three authorities, five relays or more, any number of
//! clients.
//!
//! Invariants: every process binds to one address only, of the loopback unless told otherwise, clients to 127.0.0.1; everything ends with the process that started it, even after
//! `kill -9`; nothing depends on the tokio runtime that happened to start it.

mod client;
mod control;
mod description;
mod error;
mod launch;
mod links;
mod period;
mod processes;
mod random;
mod torrc;

use std::ffi::OsString;
use std::fmt;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

pub use self::client::TorClientProcess;
pub use self::control::ControlError;
pub use self::description::{DescriptionError, PrivateTorDescription};
pub use self::error::StartError;
use self::links::DelayedLinks;
use self::processes::Processes;
use crate::identity::{DiscoveryKey, OnionAddress};

/// The environment variable that names the description of a running private network.
pub const TESTNET_VARIABLE: &str = "HCP_TESTNET";

/// A private Tor network, started by this process or attached to.
///
/// Dropping one that this process started ends it and removes its directory.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use hcp_core::network::tor::TorNetwork;
/// use hcp_core::testing::PrivateTorNetwork;
///
/// let testnet = PrivateTorNetwork::start().await?;
/// let network = TorNetwork::builder("node/state", "node/cache")
///     .private_network(testnet.description().network())
///     .bootstrap()
///     .await?;
/// # Ok(())
/// # }
/// ```
pub struct PrivateTorNetwork {
    description: PrivateTorDescription,
    file: PathBuf,
    _processes: Option<Processes>,
    _links: Option<DelayedLinks>,
}

impl PrivateTorNetwork {
    /// Begins to configure a network.
    pub fn builder() -> PrivateTorNetworkBuilder {
        PrivateTorNetworkBuilder {
            tor: "tor".into(),
            tor_gencert: "tor-gencert".into(),
            address: Ipv4Addr::LOCALHOST,
            relays: launch::RELAYS,
            time_period: None,
            link_delay: Duration::ZERO,
            on_event: Arc::new(|_| {}),
        }
    }

    /// Starts a network with the `tor` that the search path finds; takes 16 to 31 s.
    ///
    /// # Errors
    /// As [`PrivateTorNetworkBuilder::start`].
    ///
    /// # Cancel safety
    /// As [`PrivateTorNetworkBuilder::start`].
    pub async fn start() -> Result<Self, StartError> {
        Self::builder().start().await
    }

    /// Uses the running network that the file at `description` describes.
    ///
    /// # Errors
    /// When the file cannot be read or describes no network.
    pub fn attach(description: impl AsRef<Path>) -> Result<Self, DescriptionError> {
        let file = description.as_ref().to_owned();
        Ok(Self { description: PrivateTorDescription::load(&file)?, file, _processes: None, _links: None })
    }

    /// Returns the network that every caller in this process shares.
    ///
    /// It is the one that the environment variable `HCP_TESTNET` describes, else one that the first call starts and
    /// that ends with this process.
    ///
    /// # Errors
    /// As [`PrivateTorNetworkBuilder::start`]; every caller sees the same error.
    ///
    /// # Cancel safety
    /// Cancel-safe: the start goes on and the next call finds it.
    pub async fn shared() -> Result<&'static Self, &'static StartError> {
        static SHARED: OnceLock<Result<PrivateTorNetwork, StartError>> = OnceLock::new();
        let start = || {
            SHARED.get_or_init(|| match std::env::var_os(TESTNET_VARIABLE) {
                Some(file) => Self::attach(file).map_err(StartError::Description),
                None => launch::launch(&Self::builder()),
            })
        };
        match tokio::task::spawn_blocking(start).await {
            Ok(shared) => shared.as_ref(),
            Err(failed) => std::panic::resume_unwind(failed.into_panic()),
        }
    }

    /// Starts a C tor client of this network, with a data directory and so a descriptor cache of its own.
    ///
    /// Returns when it is bootstrapped; takes one to three seconds.
    ///
    /// # Errors
    /// When the process cannot be started or does not get ready within its deadline.
    ///
    /// # Cancel safety
    /// Dropping the future ends the process once its start is through.
    pub async fn start_client(&self) -> Result<TorClientProcess, StartError> {
        self.start_client_with(&[]).await
    }

    /// Starts a C tor client that has a discovery key for each of these addresses.
    ///
    /// # Errors
    /// As [`Self::start_client`].
    ///
    /// # Cancel safety
    /// As [`Self::start_client`].
    pub async fn start_client_with(
        &self,
        keys: &[(OnionAddress, DiscoveryKey)],
    ) -> Result<TorClientProcess, StartError> {
        let (description, keys) = (self.description.clone(), keys.to_vec());
        blocking(move || TorClientProcess::start(&description, &keys)).await
    }

    /// What a client needs to know about the network.
    pub fn description(&self) -> &PrivateTorDescription {
        &self.description
    }

    /// The file with the description, for another process to [attach](Self::attach) to.
    pub fn description_file(&self) -> &Path {
        &self.file
    }
}

impl fmt::Debug for PrivateTorNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrivateTorNetwork").field("file", &self.file).finish_non_exhaustive()
    }
}

/// Configures a [`PrivateTorNetwork`].
#[derive(Clone)]
pub struct PrivateTorNetworkBuilder {
    tor: OsString,
    tor_gencert: OsString,
    address: Ipv4Addr,
    relays: usize,
    time_period: Option<Duration>,
    link_delay: Duration,
    on_event: Arc<dyn Fn(StartEvent) + Send + Sync>,
}

impl PrivateTorNetworkBuilder {
    /// The `tor` program: a path, or a name for the search path; default `tor`.
    pub fn tor(self, program: impl Into<OsString>) -> Self {
        Self { tor: program.into(), ..self }
    }

    /// The `tor-gencert` program: a path, or a name for the search path; default `tor-gencert`.
    pub fn tor_gencert(self, program: impl Into<OsString>) -> Self {
        Self { tor_gencert: program.into(), ..self }
    }

    /// The address of this machine at which authorities and relays are to be found; default 127.0.0.1.
    ///
    /// With another one, nodes in network namespaces of their own can use the network, and so can whoever else reaches it.
    pub fn address(self, address: Ipv4Addr) -> Self {
        Self { address, ..self }
    }

    /// How many relays there are beside the three authorities, which are relays too; default, and at the least: 5.
    ///
    /// Introduction points have relays of their own only where there are more relays than points. Each is a process of some
    /// 40 MB.
    pub fn relays(self, relays: usize) -> Self {
        Self { relays: relays.max(launch::RELAYS), ..self }
    }

    /// The length of a time period of onion services; default: one of those of two to eight hours, such that the present one
    /// ends last.
    ///
    /// It is 24 times the time between two votes, which are whole seconds and divide a day evenly; and whole minutes. The
    /// shortest is 8 minutes. The shorter, the more work for all processes.
    pub fn time_period(self, length: Duration) -> Self {
        Self { time_period: Some(length), ..self }
    }

    /// How long bytes take to each relay and back from it, each way; default: no longer than the machine needs.
    ///
    /// A stream to an onion service takes six to eight such links. It ends with the process, even when others go on using
    /// the network.
    pub fn link_delay(self, one_way: Duration) -> Self {
        Self { link_delay: one_way, ..self }
    }

    /// Calls `observer`, on a thread of its own, as the start gets on; default: nobody is told.
    pub fn on_event(self, observer: impl Fn(StartEvent) + Send + Sync + 'static) -> Self {
        Self { on_event: Arc::new(observer), ..self }
    }

    /// Starts the network and waits until it has a consensus that clients can use.
    ///
    /// # Errors
    /// When `tor` is missing or too old, a process fails, the time period cannot be had, or there is no complete consensus
    /// after three attempts of 40 s.
    ///
    /// # Cancel safety
    /// Dropping the future ends the network once its start is through.
    pub async fn start(self) -> Result<PrivateTorNetwork, StartError> {
        blocking(move || launch::launch(&self)).await
    }
}

impl fmt::Debug for PrivateTorNetworkBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrivateTorNetworkBuilder").field("tor", &self.tor).finish_non_exhaustive()
    }
}

/// How far the start of a private network got.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StartEvent {
    /// The system's `tor` is recent enough.
    TorFound {
        /// The version as `tor` prints it.
        version: String,
    },
    /// The authorities have their keys and certificates.
    KeysMade,
    /// All processes run.
    Running {
        /// How many.
        processes: usize,
    },
    /// The latest consensus lists this many relays; more are awaited.
    Consensus {
        /// Relays in the consensus.
        listed: usize,
        /// Relays in the network.
        expected: usize,
    },
    /// Clients can use the network.
    Ready {
        /// Time since the start.
        after: Duration,
    },
}

impl fmt::Display for StartEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TorFound { version } => write!(f, "found tor {version}"),
            Self::KeysMade => f.write_str("made the keys of the authorities"),
            Self::Running { processes } => write!(f, "started {processes} tor processes"),
            Self::Consensus { listed, expected } => write!(f, "the consensus lists {listed} of {expected} relays"),
            Self::Ready { after } => write!(f, "ready after {:.1} s", after.as_secs_f64()),
        }
    }
}

/// Runs `work` where it may block.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StartError> + Send + 'static,
) -> Result<T, StartError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(failed) => match failed.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(StartError::Cancelled),
        },
    }
}
