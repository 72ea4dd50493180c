//! Loopback TCP as a network of this library's, without files or Tor.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use hcp_core::identity::{Identity, OnionAddress};
use hcp_core::network::{BoxedTransport, DialError, Incoming, ListenError, Listener, ListenerStatus, Network};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::far;
use crate::Failure;

/// Addresses on loopback, known to this process alone.
#[derive(Clone, Default)]
pub struct TcpNetwork {
    services: Arc<Mutex<HashMap<(OnionAddress, u16), SocketAddr>>>,
}

impl TcpNetwork {
    pub fn new() -> Self {
        Self::default()
    }
}

impl fmt::Debug for TcpNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TcpNetwork").finish_non_exhaustive()
    }
}

impl Network for TcpNetwork {
    fn dial(&self, address: OnionAddress, port: u16) -> BoxFuture<'_, Result<BoxedTransport, DialError>> {
        async move {
            let services = self.services.lock().unwrap_or_else(PoisonError::into_inner).get(&(address, port)).copied();
            let stream = connect(services.ok_or(DialError::NotFound)?).await;
            Ok(Box::new(stream.map_err(|error| DialError::Unreachable(error.into()))?) as BoxedTransport)
        }
        .boxed()
    }

    fn listen<'a>(&'a self, identity: &'a Identity, ports: &'a [u16]) -> BoxFuture<'a, Result<Listener, ListenError>> {
        async move {
            let launch = |error: io::Error| ListenError::Launch(error.into());
            let (sender, incoming) = mpsc::channel(hcp_core::network::ACCEPT_QUEUE);
            let mut tasks = JoinSet::new();
            for port in ports.iter().copied() {
                let listener = listen().await.map_err(launch)?;
                let actual = listener.local_addr().map_err(launch)?;
                self.services.lock().unwrap_or_else(PoisonError::into_inner).insert((identity.address(), port), actual);
                let sender = sender.clone();
                tasks.spawn(async move {
                    while let Ok(stream) = accept(&listener).await {
                        if sender.send(Incoming { port, stream: Box::new(stream) }).await.is_err() {
                            return;
                        }
                    }
                });
            }
            let (status, watched) = watch::channel(ListenerStatus::Reachable);
            Ok(Listener::new(incoming, watched, (Mutex::new(tasks), status)))
        }
        .boxed()
    }
}

/// A listener on a free port of loopback.
pub(super) async fn listen() -> io::Result<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await
}

pub(super) async fn accept(listener: &TcpListener) -> io::Result<TcpStream> {
    let (stream, _) = listener.accept().await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

pub(super) async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Serves one connection at the far end; returns where.
pub(super) async fn serve<F>(handler: impl FnOnce(TcpStream) -> F + Send + 'static) -> Result<SocketAddr, Failure>
where
    F: Future<Output = Result<(), Failure>> + Send + 'static,
{
    far(async {
        let listener = listen().await?;
        let address = listener.local_addr()?;
        tokio::spawn(async move { handler(accept(&listener).await?).await });
        Ok(address)
    })
    .await
}
