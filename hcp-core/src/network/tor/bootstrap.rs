//! Joining the Tor network: configuration, the lock on the state directory, progress.

use std::fmt;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arti_client::config::{BoolOrAuto, TorClientConfigBuilder};
use arti_client::status::BootstrapStatus;
use arti_client::{ErrorKind as ArtiErrorKind, HasKind as _, TorClient, TorClientConfig};
use futures::StreamExt as _;
use tokio::sync::watch;
use tokio::time::timeout;
use tor_persist::state_dir::StateDirectory;
use tor_rtcompat::PreferredRuntime;

use super::dial::{DialDeadlines, Dialler};
use super::discovery::DiscoveryKeys;
use super::private::PrivateNetwork;
use super::{AbortOnDrop, Inner, TorNetwork};
use crate::error::ErrorKind;
use crate::identity::{DiscoveryKey, OnionAddress};

/// Configures a [`TorNetwork`].
#[derive(Debug)]
pub struct TorNetworkBuilder {
    state_dir: PathBuf,
    cache_dir: PathBuf,
    private: Option<PrivateNetwork>,
    bootstrap_deadline: Duration,
    dial: DialDeadlines,
    keys: Vec<(OnionAddress, DiscoveryKey)>,
    memory: usize,
    progress: watch::Sender<BootstrapProgress>,
}

impl TorNetworkBuilder {
    pub(super) fn new(state_dir: &Path, cache_dir: &Path) -> Self {
        Self {
            state_dir: state_dir.to_owned(),
            cache_dir: cache_dir.to_owned(),
            private: None,
            bootstrap_deadline: BOOTSTRAP_DEADLINE,
            dial: DialDeadlines::default(),
            keys: Vec::new(),
            memory: MEMORY,
            progress: watch::Sender::new(BootstrapProgress { percent: 0, text: "starting".into() }),
        }
    }

    /// Joins a private test network; default: the public one.
    ///
    /// This also allows local addresses, and directories that others can write to. It protects nobody.
    pub fn private_network(self, network: PrivateNetwork) -> Self {
        Self { private: Some(network), ..self }
    }

    /// How long [`bootstrap`](Self::bootstrap) may take; default 5 minutes.
    ///
    /// The first start on a slow line fetches several megabytes; a shorter deadline gives up on such lines.
    pub fn bootstrap_deadline(self, deadline: Duration) -> Self {
        Self { bootstrap_deadline: deadline, ..self }
    }

    /// How long a dial waits for the network to be usable before it begins; default 60 s.
    pub fn network_deadline(mut self, deadline: Duration) -> Self {
        self.dial.network = deadline;
        self
    }

    /// How long a dial may take once the network is usable, all its tries together; default 60 s.
    ///
    /// Ten seconds are usual at worst on the public network; a shorter deadline gives up on introduction points that
    /// are slow rather than dead. A try that takes unusually long is no reason for one: another begins beside it.
    pub fn connect_deadline(mut self, deadline: Duration) -> Self {
        self.dial.connect = deadline;
        self
    }

    /// Dials `address` with a key; each as often as it is called. See
    /// [`set_discovery_key`](TorNetwork::set_discovery_key).
    pub fn discovery_key(mut self, address: OnionAddress, key: DiscoveryKey) -> Self {
        self.keys.push((address, key));
        self
    }

    /// About how much memory, in bytes, queued cells may take before Arti closes circuits; default 256 MiB.
    ///
    /// More allows more bulk transfers at once, less bounds what a flood costs.
    pub fn memory_limit(self, bytes: usize) -> Self {
        Self { memory: bytes, ..self }
    }

    /// Watches the progress of [`bootstrap`](Self::bootstrap), and of the network after it.
    pub fn progress(&self) -> watch::Receiver<BootstrapProgress> {
        self.progress.subscribe()
    }

    /// Joins the network; returns once it can be used.
    ///
    /// Must be called within a tokio runtime. Arti's own tasks run on two threads beside it, which end with the network.
    /// Installs aws-lc-rs as the process's rustls provider unless one is installed.
    ///
    /// # Errors
    /// [`BootstrapError`] tells a directory in use from one that is not private enough from a network out of reach.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the network and releases the state directory.
    pub async fn bootstrap(self) -> Result<TorNetwork, BootstrapError> {
        let lock = StateLock::acquire(&self.state_dir)?;
        // An error means that the program has chosen a provider already, which is as good.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();

        let config = self.config()?;
        let services_dir = self.state_dir.join(SERVICES);
        match std::fs::remove_dir_all(&services_dir) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(BootstrapError::Storage(Box::new(e))),
            _ => {}
        }
        let services = StateDirectory::new(&services_dir, config.fs_mistrust())
            .map_err(|e| BootstrapError::Storage(Box::new(e)))?;

        let threads = Threads::start()?;
        let client = TorClient::with_runtime(threads.runtime()?)
            .config(config.clone())
            .create_unbootstrapped_async()
            .await
            .map_err(BootstrapError::from_arti)?;

        let status = self.progress.subscribe();
        let sender = self.progress;
        let mut events = client.bootstrap_events();
        let watcher = AbortOnDrop::spawn(async move {
            while let Some(status) = events.next().await {
                sender.send_replace(BootstrapProgress::from_arti(&status));
            }
        });

        match timeout(self.bootstrap_deadline, client.bootstrap()).await {
            Ok(result) => result.map_err(BootstrapError::from_arti)?,
            Err(_) => return Err(BootstrapError::TimedOut { progress: status.borrow().clone() }),
        }
        // Arti tells how far it is from a task of its own, which may be behind.
        let mut told = status.clone();
        let _ = timeout(TOLD, told.wait_for(|progress| progress.percent == 100)).await;
        let keys = Arc::<DiscoveryKeys>::default();
        self.keys.iter().for_each(|(address, key)| keys.set(*address, key));
        Ok(TorNetwork {
            dialler: Arc::new(Dialler::new(Arc::clone(&client), config, Arc::clone(&keys), self.dial)),
            inner: Arc::new(Inner {
                client,
                progress: status,
                _watcher: watcher,
                services,
                served: Arc::default(),
                circuits: Arc::default(),
                keys,
                _threads: threads,
                _lock: lock,
            }),
        })
    }

    fn config(&self) -> Result<TorClientConfig, BootstrapError> {
        let mut config = TorClientConfigBuilder::from_directories(&self.state_dir, &self.cache_dir);
        // Services bring key stores of their own, in memory; nothing else has keys.
        config.storage().keystore().enabled(BoolOrAuto::Explicit(false));
        config.system().memory().max(self.memory);
        if let Some(network) = &self.private {
            network.apply(&mut config);
        }
        config.build().map_err(|e| BootstrapError::Configuration(Box::new(e)))
    }
}

/// How well the network can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootstrapProgress {
    /// 0 to 100; 100 is ready to use.
    pub percent: u8,
    /// What is going on or going wrong, on one line.
    pub text: String,
}

impl BootstrapProgress {
    fn from_arti(status: &BootstrapStatus) -> Self {
        // A float cast saturates, and the fraction is documented to be at most 1.
        let percent = (status.as_frac() * 100.0) as u8;
        let text = match status.blocked() {
            Some(blockage) => format!("stuck: {}", blockage.message()),
            None if status.ready_for_traffic() => "ready".into(),
            None => status.to_string().split_once("%: ").map_or_else(String::new, |(_, text)| text.into()),
        };
        Self { percent, text }
    }
}

impl fmt::Display for BootstrapProgress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} %: {}", self.percent, self.text)
    }
}

/// Why the network could not be joined.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BootstrapError {
    /// Another process, or another network of this one, uses the state directory.
    #[error("the state directory is in use by another process")]
    StateLocked,
    /// A directory cannot be used; on the public network also because others could write to it.
    #[error("the state or cache directory cannot be used")]
    Storage(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The configuration contradicts itself.
    #[error("the configuration of the network is invalid")]
    Configuration(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The network could not be reached or made no sense.
    #[error("the tor network could not be joined")]
    Failed(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The deadline passed.
    #[error("the tor network could not be joined in time; it got to {progress}")]
    TimedOut {
        /// How far it got.
        progress: BootstrapProgress,
    },
}

impl BootstrapError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::StateLocked => ErrorKind::InUse,
            Self::Storage(_) => ErrorKind::Storage,
            Self::Configuration(_) => ErrorKind::InvalidInput,
            Self::Failed(_) => ErrorKind::Unreachable,
            Self::TimedOut { .. } => ErrorKind::TimedOut,
        }
    }

    fn from_arti(e: arti_client::Error) -> Self {
        match e.kind() {
            ArtiErrorKind::LocalResourceAlreadyInUse => Self::StateLocked,
            ArtiErrorKind::FsPermissions
            | ArtiErrorKind::PersistentStateAccessFailed
            | ArtiErrorKind::PersistentStateCorrupted
            | ArtiErrorKind::CacheAccessFailed
            | ArtiErrorKind::CacheCorrupted => Self::Storage(Box::new(e)),
            ArtiErrorKind::InvalidConfig => Self::Configuration(Box::new(e)),
            _ => Self::Failed(Box::new(e)),
        }
    }
}

/// The threads on which Arti runs.
///
/// Its tasks hold on to each other: on a runtime that lives longer than the network they go on building circuits for ever
/// (seen in Arti 0.47), and keep Arti's lock on the state directory. With their own runtime, they end.
pub(super) struct Threads(Option<tokio::runtime::Runtime>);

impl Threads {
    fn start() -> Result<Self, BootstrapError> {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(THREADS).thread_name("hcp-tor").enable_all().build();
        Ok(Self(Some(runtime.map_err(|e| BootstrapError::Failed(Box::new(e)))?)))
    }

    fn runtime(&self) -> Result<PreferredRuntime, BootstrapError> {
        let _entered = self.0.as_ref().map(tokio::runtime::Runtime::enter);
        PreferredRuntime::current().map_err(|e| BootstrapError::Failed(Box::new(e)))
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        // In the background, since this may be dropped within another runtime.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// The state directory, locked.
///
/// Arti has a lock of its own, but when that is taken it goes on without saving its guards.
pub(super) struct StateLock(#[allow(dead_code, reason = "held, not used")] File);

impl StateLock {
    fn acquire(state_dir: &Path) -> Result<Self, BootstrapError> {
        let storage = |e: std::io::Error| BootstrapError::Storage(Box::new(e));
        create_private(state_dir).map_err(storage)?;
        let file =
            File::options().create(true).write(true).truncate(false).open(state_dir.join(LOCK)).map_err(storage)?;
        match file.try_lock() {
            Ok(()) => Ok(Self(file)),
            Err(TryLockError::WouldBlock) => Err(BootstrapError::StateLocked),
            Err(TryLockError::Error(e)) => Err(storage(e)),
        }
    }
}

/// Creates a directory that only its owner can enter; one that exists stays as it is.
fn create_private(path: &Path) -> std::io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::DirBuilderExt as _;
        builder.mode(0o700);
    }
    builder.create(path)
}

/// How long progress may lag behind what is so.
const TOLD: Duration = Duration::from_secs(5);

/// Enough for a first start on a slow mobile line.
const BOOTSTRAP_DEADLINE: Duration = Duration::from_secs(300);

/// Arti's own default is 40 to 75 % of the machine's memory, which is no bound at all for a guest on it.
const MEMORY: usize = 256 << 20;

/// One for circuits, one that is free while the other is busy with a key exchange.
const THREADS: usize = 2;

const LOCK: &str = "hcp.lock";
const SERVICES: &str = "services";
