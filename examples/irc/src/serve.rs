//! `hcp-irc serve`: keys, network, log, server and listeners put together, until something says stop.

mod network;

use std::fs::{File, OpenOptions, TryLockError};
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use hcp_core::identity::{Identity, LogKey};
use hcp_core::network::{Listener, ListenerStatus, Network};
use hcp_core::node::{Access, Node};
use hcp_core::replica::{Member, NodeId, PROTOCOL, Peers, Replica};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;

use self::network::Joined;
use crate::cli::Serve;
use crate::client::connection;
use crate::config::Cluster;
use crate::failure::Failure;
use crate::keys;
use crate::report::{Form, Report, Reporter, What};
use crate::server::{Handle, Server};

/// The virtual port of the service.
pub(crate) const IRC_PORT: u16 = 6667;

/// Runs a node until it is told to stop.
pub(crate) async fn serve(command: Serve) -> Result<(), Failure> {
    let began = Instant::now();
    let reporter = Reporter(if command.json { Form::Json } else { Form::Text });
    // Ends are noticed from the first moment on.
    let stop = stop_signal(command.until_stdin_closes)?;
    tokio::pin!(stop);
    let cluster = Cluster::load(&command.cluster)?;
    let _lock = lock(&command.home)?;
    let keys = open_keys(&command, &cluster).await?;
    let joined = tokio::select! {
        joined = network::join(&command, reporter) => joined?,
        () = &mut stop => return Ok(()),
    };
    let node = run(began, reporter, &command, &cluster, keys, &joined, stop).await;
    joined.leave().await;
    node
}

struct Keys {
    node: Identity,
    log: LogKey,
    service: Identity,
}

/// Runs everything that needs the network.
async fn run(
    began: Instant,
    reporter: Reporter,
    command: &Serve,
    cluster: &Cluster,
    keys: Keys,
    joined: &Joined,
    stop: impl Future<Output = ()>,
) -> Result<(), Failure> {
    let database = command.home.join("log.db");
    let own = NodeId(keys.log.public_key());
    let replica = Replica::open(&database, keys.service.address(), keys.log, cluster.members.clone())
        .await
        .map_err(|error| Failure::file("open the log", &database, &error))?;
    let network: Arc<dyn Network> = joined.network();
    let node = Node::builder(keys.node, network)
        .protocol(PROTOCOL, Access::Identified, replica.handler())
        .bind()
        .await
        .map_err(|error| Failure::of("serve this node's own address", &error))?;
    let links = replica.link(&node);
    let (server, handle) = Server::new(cluster.server(&keys.service.address()), replica.clone());
    let (listener, takeover) = joined.serve(&keys.service, IRC_PORT).await?;

    let mut tasks = JoinSet::new();
    tasks.spawn(tell_peers(reporter, cluster.members.clone(), replica.peers()));
    tasks.spawn(tell_clients(reporter, handle.clients()));
    tasks.spawn(tell_reachable(reporter, began, What::Node, node.status()));
    tasks.spawn(tell_reachable(reporter, began, What::Service, listener.status()));
    tasks.spawn(tell_ready(reporter, began, handle.ready(), [node.status(), listener.status()]));
    tasks.spawn(takeover.run(reporter, own, replica.peers()));
    tasks.spawn(accept(reporter, listener, handle.clone()));

    let ended = server.run(stop).await;
    handle.idle().await;
    drop(links);
    replica.shutdown().await;
    tasks.shutdown().await;
    ended.map_err(|error| Failure::new(error.to_string()))
}

async fn open_keys(command: &Serve, cluster: &Cluster) -> Result<Keys, Failure> {
    let protection = keys::protection(&command.keys)?;
    let home = command.home.clone();
    let service = command.service_key.clone().unwrap_or_else(|| home.join(keys::SERVICE_KEY));
    let opened = tokio::task::spawn_blocking(move || {
        Ok(Keys {
            node: keys::load(&home.join(keys::NODE_KEY), "node's key", &protection)?,
            log: keys::load(&home.join(keys::LOG_KEY), "log key", &protection)?,
            service: keys::load(&service, "service's key", &protection)?,
        })
    });
    let keys: Keys = opened.await.map_err(|error| Failure::of("open the keys", &error))??;
    let own = Member { address: keys.node.address(), node: NodeId(keys.log.public_key()) };
    if !cluster.members.contains(&own) {
        return Err(Failure::new(format!(
            "the keys in {} belong to no [[member]] of {}: add the block that `init` printed, on every node",
            command.home.display(),
            command.cluster.display()
        )));
    }
    Ok(keys)
}

/// Two processes on one home would write two databases and announce one address.
fn lock(home: &Path) -> Result<File, Failure> {
    let path = home.join("lock");
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(|error| Failure::file("open the lock (does `init` come first?)", &path, &error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            Err(Failure::new(format!("{} is in use by another hcp-irc: stop that one first", home.display())))
        }
        Err(TryLockError::Error(error)) => Err(Failure::file("lock", &path, &error)),
    }
}

/// Resolves on SIGTERM, SIGINT and, if asked for, the end of standard input.
fn stop_signal(until_stdin_closes: bool) -> Result<impl Future<Output = ()>, Failure> {
    let handle = |kind| signal(kind).map_err(|error| Failure::of("handle signals", &error));
    let (mut terminate, mut interrupt) = (handle(SignalKind::terminate())?, handle(SignalKind::interrupt())?);
    let (closed, stdin_closed) = oneshot::channel::<()>();
    if until_stdin_closes {
        // A thread of its own: one of the runtime's would keep it from ending.
        std::thread::spawn(move || {
            let mut ignored = [0; 256];
            while std::io::stdin().read(&mut ignored).is_ok_and(|len| len > 0) {}
            drop(closed);
        });
    } else {
        std::mem::forget(closed);
    }
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = stdin_closed => {}
        }
    })
}

/// Serves clients; ends with its connections when it is aborted.
async fn accept(reporter: Reporter, mut listener: Listener, handle: Handle) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            incoming = listener.accept() => match incoming {
                Some(incoming) => {
                    reporter.tell(&Report::Accepted { port: incoming.port });
                    connections.spawn(connection(handle.clone(), incoming.stream));
                }
                None => return,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn tell_peers(reporter: Reporter, members: Vec<Member>, mut peers: watch::Receiver<Peers>) {
    let mut told = vec![false; members.len()];
    loop {
        for (node, state) in peers.borrow_and_update().iter() {
            let Some(member) = members.iter().position(|member| member.node == node) else { continue };
            if std::mem::replace(&mut told[member], state.live) != state.live {
                reporter.tell(&Report::Peer { member, live: state.live });
            }
        }
        if peers.changed().await.is_err() {
            return;
        }
    }
}

async fn tell_clients(reporter: Reporter, mut clients: watch::Receiver<usize>) {
    while clients.changed().await.is_ok() {
        let count = *clients.borrow_and_update();
        reporter.tell(&Report::Clients { count });
    }
}

async fn tell_reachable(reporter: Reporter, began: Instant, what: What, mut status: watch::Receiver<ListenerStatus>) {
    let mut was = false;
    loop {
        let now = status.borrow_and_update().clone();
        if let ListenerStatus::Broken(problem) = &now {
            tracing::warn!(?what, problem, "cannot be reached");
        }
        let is = now == ListenerStatus::Reachable;
        if is && !std::mem::replace(&mut was, is) {
            reporter.tell(&Report::Reachable { what, seconds: began.elapsed() });
        }
        was = is;
        if status.changed().await.is_err() {
            return;
        }
    }
}

async fn tell_ready(
    reporter: Reporter,
    began: Instant,
    mut server: watch::Receiver<bool>,
    listeners: [watch::Receiver<ListenerStatus>; 2],
) {
    if server.wait_for(|ready| *ready).await.is_err() {
        return;
    }
    for mut listener in listeners {
        if listener.wait_for(|status| *status == ListenerStatus::Reachable).await.is_err() {
            return;
        }
    }
    reporter.tell(&Report::Ready { seconds: began.elapsed() });
}
