//! Loopback TCP and a folder that maps addresses to ports: development without Tor. **Not anonymous**, not encrypted by
//! the transport, for one machine only.
//!
//! The folder has one file for each listener, `<address>.<virtual port>.<random>`, that holds a loopback port. Several
//! listeners may serve one address, as several nodes may publish one onion service; a dialler takes one at random, and
//! another when that one is dead.

use std::fmt;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use rand::seq::SliceRandom;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::{
    ACCEPT_QUEUE, BoxedTransport, DialError, DialPhase, Hosting, Incoming, IntroductionRate, ListenError, Listener,
    ListenerStatus, Network, check_ports,
};
use crate::error::ErrorKind;
use crate::identity::{Identity, OnionAddress};

/// How long one connect to loopback may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The wait after a failed accept, so that a lasting cause does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// The longest content of a file that names a port, in bytes.
const MAX_PORT_FILE: usize = 8;

/// Addresses on one machine, through a folder that all of its users share. Not anonymous.
#[derive(Clone)]
pub struct LocalNetwork {
    folder: PathBuf,
}

/// Why [`LocalNetwork::new`] failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot use the folder of the local network")]
pub struct LocalNetworkError(#[from] io::Error);

impl LocalNetworkError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::Storage
    }
}

impl LocalNetwork {
    /// A network whose addresses stand in `folder`, which is made when it is missing.
    ///
    /// # Errors
    /// [`LocalNetworkError`] when the folder cannot be made.
    pub fn new(folder: impl Into<PathBuf>) -> Result<Self, LocalNetworkError> {
        let folder = folder.into();
        std::fs::create_dir_all(&folder)?;
        Ok(Self { folder })
    }

    /// The files of those who serve this port of the address.
    fn files(&self, address: OnionAddress, port: u16) -> io::Result<Vec<PathBuf>> {
        let prefix = format!("{address}.{port}.");
        let mut files = Vec::new();
        for entry in std::fs::read_dir(&self.folder)? {
            let entry = entry?;
            if entry.file_name().to_str().is_some_and(|name| name.starts_with(&prefix)) {
                files.push(entry.path());
            }
        }
        Ok(files)
    }

    async fn dial_any(&self, address: OnionAddress, port: u16) -> Result<BoxedTransport, DialError> {
        let mut files = self.files(address, port).map_err(unreachable)?;
        files.shuffle(&mut rand::rng());
        let mut last = DialError::NotFound;
        for file in files {
            let Some(target) = read_port(&file) else { continue };
            match tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect((Ipv4Addr::LOCALHOST, target))).await {
                Ok(Ok(stream)) => {
                    stream.set_nodelay(true).map_err(unreachable)?;
                    return Ok(Box::new(stream));
                }
                // Its process has died without removing the file.
                Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    let _ = std::fs::remove_file(&file);
                }
                Ok(Err(error)) => last = unreachable(error),
                Err(_) => last = DialError::TimedOut { phase: DialPhase::Connect },
            }
        }
        Err(last)
    }

    async fn listen_on(&self, address: OnionAddress, ports: &[u16]) -> Result<Listener, ListenError> {
        check_ports(ports)?;
        let (sender, incoming) = mpsc::channel(ACCEPT_QUEUE);
        let mut tasks = JoinSet::new();
        let mut files = Vec::new();
        for port in ports.iter().copied() {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(launch)?;
            let actual = listener.local_addr().map_err(launch)?.port();
            let name = format!("{address}.{port}.{:016x}", rand::random::<u64>());
            let file = RemovedOnDrop(self.folder.join(&name));
            // Written aside and renamed, so that nobody reads half of it.
            let aside = self.folder.join(format!("new-{name}"));
            std::fs::write(&aside, actual.to_string())
                .and_then(|()| std::fs::rename(&aside, &file.0))
                .map_err(launch)?;
            files.push(file);
            let sender = sender.clone();
            tasks.spawn(async move {
                loop {
                    let stream = match listener.accept().await {
                        Ok((stream, _)) => stream,
                        Err(error) => {
                            // Too many open files, or a connection that was gone before it was accepted.
                            tracing::warn!(%error, "cannot accept a connection");
                            tokio::time::sleep(ACCEPT_PAUSE).await;
                            continue;
                        }
                    };
                    let _ = stream.set_nodelay(true);
                    if sender.send(Incoming { port, stream: Box::new(stream) }).await.is_err() {
                        return;
                    }
                }
            });
        }
        let (status, watched) = watch::channel(ListenerStatus::Reachable);
        Ok(Listener::new(incoming, watched, Serving { _tasks: tasks, _files: files, _status: status }))
    }
}

impl Network for LocalNetwork {
    fn dial(&self, address: OnionAddress, port: u16) -> BoxFuture<'_, Result<BoxedTransport, DialError>> {
        self.dial_any(address, port).boxed()
    }

    fn listen<'a>(&'a self, identity: &'a Identity, ports: &'a [u16]) -> BoxFuture<'a, Result<Listener, ListenError>> {
        self.listen_on(identity.address(), ports).boxed()
    }

    fn host<'a>(
        &'a self,
        service: OnionAddress,
        ports: &'a [u16],
        _rate: Option<IntroductionRate>,
    ) -> BoxFuture<'a, Result<Hosting, ListenError>> {
        async move { self.listen_on(service, ports).await.map(Hosting::new) }.boxed()
    }
}

impl fmt::Debug for LocalNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalNetwork").field("folder", &self.folder).finish()
    }
}

struct RemovedOnDrop(PathBuf);

impl Drop for RemovedOnDrop {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

struct Serving {
    _tasks: JoinSet<()>,
    _files: Vec<RemovedOnDrop>,
    _status: watch::Sender<ListenerStatus>,
}

fn read_port(file: &Path) -> Option<u16> {
    use std::io::Read;
    let mut text = String::new();
    std::fs::File::open(file).ok()?.take(MAX_PORT_FILE as u64).read_to_string(&mut text).ok()?;
    text.parse().ok()
}

fn unreachable(error: io::Error) -> DialError {
    DialError::Unreachable(error.into())
}

fn launch(error: io::Error) -> ListenError {
    ListenError::Launch(error.into())
}
