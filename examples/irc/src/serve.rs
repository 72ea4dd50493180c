//! `hcp-irc serve`: keys, grants, network, log, server and listeners put together, until something says stop.

mod bytes;
mod members;
mod misbehave;
mod network;
mod tell;
pub(crate) mod warden;

use std::fs::{File, OpenOptions, TryLockError};
use std::io::BufRead as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use hcp_core::identity::delegation::PublicKey;
use hcp_core::identity::keyfile::Protection;
use hcp_core::identity::manifest::{Manifest, SoftwareVersion};
use hcp_core::identity::{Identity, LogKey};
use hcp_core::network::{Listener, Network};
use hcp_core::node::{Access, Node, Session, Stream};
use hcp_core::owner::Holdings;
use hcp_core::replica::{self, NodeId, Replica, Storage};
use hcp_core::service::{self, Launched, ReplicatedService};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use self::network::Joined;
use crate::cli::Serve;
use crate::client::connection;
use crate::config::Member;
use crate::failure::Failure;
use crate::keys;
use crate::owner;
use crate::report::{Form, Report, Reporter};
use crate::server::{Handle, LOG, Server, ServerConfig};
use crate::settings::Settings;

/// The virtual port of the service.
pub(crate) const IRC_PORT: u16 = 6667;
/// The bytes of an IRC connection as messages of a stream, at the service's address: for clients that check the delegation.
pub(crate) const IRC_PROTOCOL: &str = "hcp/irc/1";
/// Lines from standard input that wait to be looked at.
const ORDERS: usize = 16;
/// The longest of them, in bytes.
const MAX_ORDER: usize = 64;
/// How long leaving in order may take; a supervisor is kept waiting no longer.
const LEAVING: Duration = Duration::from_secs(12);
/// Who was let in before the address was left to the others is perhaps still shaking hands: two round trips over Tor.
const ARRIVING: Duration = Duration::from_secs(2);

/// Runs a node until it is told to stop.
pub(crate) async fn serve(command: Serve) -> Result<(), Failure> {
    let began = Instant::now();
    let reporter = Reporter(if command.json { Form::Json } else { Form::Text });
    // Ends are noticed from the first moment on.
    let (orders, ordered) = tokio::sync::mpsc::channel(ORDERS);
    let stop = stop_signal(command.until_stdin_closes, orders)?;
    tokio::pin!(stop);
    let _lock = lock(&command.home)?;
    let home = open_home(&command).await?;
    let joined = tokio::select! {
        joined = network::join(&command.home, &command.place, reporter) => joined?,
        () = &mut stop => return Ok(()),
    };
    let node = run(began, reporter, &command, home, &joined, stop, ordered).await;
    joined.leave().await;
    node
}

/// What a node's folder holds.
struct Home {
    node: Identity,
    log: LogKey,
    holdings: Holdings,
    /// What came with the grants; the log may have a later one.
    manifest: Manifest,
    owner: PublicKey,
}

/// Runs everything that needs the network.
async fn run(
    began: Instant,
    reporter: Reporter,
    command: &Serve,
    home: Home,
    joined: &Joined,
    stop: impl Future<Output = ()>,
    ordered: tokio::sync::mpsc::Receiver<String>,
) -> Result<(), Failure> {
    let Home { node, log, holdings, manifest, owner } = home;
    let service = manifest.service();
    let database = command.home.join(LOG);
    let kept = settings_of(&manifest)?.history;
    let replica = Replica::builder(Storage::sqlite(&database), log, owner, manifest)
        .software(SoftwareVersion::of_this_library())
        .state_machine(move || Server::state(kept))
        .open()
        .await
        .map_err(|error| Failure::file("open the log", &database, &error))?;
    let manifest = replica.manifest().borrow().clone();
    let (settings, members) = (settings_of(&manifest)?, members::of(manifest.contents()));
    // Who finds this node's own address: the members, once all have told their keys.
    let finders = manifest.contents().discovery_keys();
    let network: Arc<dyn Network> = joined.network();
    let launched = ReplicatedService::launch(&*network, &node, holdings, &[IRC_PORT]).await;
    let launched = launched.map_err(|error| Failure::of("serve the shared address", &error))?;
    let Launched { listener, endpoint, gossip, starter } = launched;
    let config = ServerConfig { history: kept, ..settings.server(&service) };
    let (shown, show) = watch::channel(config.clone());
    let (server, handle) = Server::new(config, replica.clone());
    let server = server.showing(show);
    let irc = {
        let handle = handle.clone();
        move |stream: Stream, _: Session| serve_stream(reporter, handle.clone(), stream).boxed()
    };
    let mut builder = Node::builder(node, network);
    if let Some(finders) = finders.filter(|_| joined.hides()) {
        builder = builder.restricted_to(finders);
    }
    let node = builder
        .protocol(replica::PROTOCOL, Access::Identified, replica.handler())
        .protocol(service::PROTOCOL, Access::Identified, gossip)
        .service(endpoint.protocol(IRC_PROTOCOL, Access::Anyone, irc))
        .bind()
        .await
        .map_err(|error| Failure::of("serve this node's own address", &error))?;
    let links = replica.link(&node);
    let shared = starter.fetch_from(command.wardens.iter().copied()).start(&node);

    let mut tasks = JoinSet::new();
    tasks.spawn(members::give(replica.clone(), shared.holdings()));
    tasks.spawn(members::follow(node.clone(), joined.hides(), service, replica.manifest(), shown));
    tasks.spawn(tell::disk(replica.status()));
    tasks.spawn(tell::peers(reporter, members.clone(), replica.peers()));
    tasks.spawn(tell::clients(reporter, handle.clients()));
    tasks.spawn(tell::node(reporter, began, node.status()));
    tasks.spawn(tell::service(reporter, began, shared.status()));
    tasks.spawn(tell::events(reporter, members, shared.events()));
    tasks.spawn(tell::ready(reporter, began, handle.ready(), node.status(), shared.status()));
    tasks.spawn(accept(reporter, listener, handle.clone()));

    // New clients go to the others first; those who are here are served until then.
    let stop = async {
        tokio::select! {
            () = stop => {}
            () = misbehave::obey(&shared, ordered) => {}
        }
        if timeout(LEAVING, shared.shutdown()).await.is_err() {
            tracing::warn!("the others did not take over in time; leaving all the same");
        }
        tokio::time::sleep(ARRIVING).await;
    };
    let ended = server.run(stop).await;
    handle.idle().await;
    drop(links);
    replica.shutdown().await;
    tasks.shutdown().await;
    ended.map_err(|error| Failure::new(error.to_string()))
}

async fn open_home(command: &Serve) -> Result<Home, Failure> {
    let protection = keys::protection(&command.keys)?;
    let home = command.home.clone();
    let opened = tokio::task::spawn_blocking(move || read_home(&home, &protection));
    opened.await.map_err(|error| Failure::of("open the keys", &error))?
}

fn read_home(home: &Path, protection: &Protection) -> Result<Home, Failure> {
    let node: Identity = keys::load(&home.join(keys::NODE_KEY), "node's key", protection)?;
    let log: LogKey = keys::load(&home.join(keys::LOG_KEY), "log key", protection)?;
    let holdings = owner::open_holdings(home, protection)?;
    for problem in holdings.problems() {
        tracing::warn!(file = problem.file, error = %problem.error, "a file in the folder of grants is none");
    }
    let manifest = holdings.manifest().ok_or_else(|| {
        Failure::new(format!(
            "{} holds no grant that is valid now: run `hcp-irc request`, bring its file to the owner, and take in with \
             `hcp-irc import-grant` what comes back",
            home.display()
        ))
    })?;
    let members = members::of(manifest.contents());
    let own = Member { address: node.address(), node: NodeId(log.public_key()) };
    if !members.contains(&own) {
        return Err(Failure::new(format!(
            "the keys in {} belong to no member of the manifest: the owner adds the block that `init` printed to the \
             cluster file, signs a new manifest and makes new grants",
            home.display()
        )));
    }
    let (manifest, owner) = (manifest.clone(), holdings.owner_key());
    let owner = owner.ok_or_else(|| Failure::new(format!("{} holds no grant", home.display())))?;
    Ok(Home { node, log, holdings, manifest, owner })
}

fn settings_of(manifest: &Manifest) -> Result<Settings, Failure> {
    Settings::from_shared(manifest.contents().shared_configuration())
        .map_err(|problem| Failure::new(format!("the settings in the manifest cannot be used: {problem}")))
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
fn stop_signal(
    until_stdin_closes: bool,
    orders: tokio::sync::mpsc::Sender<String>,
) -> Result<impl Future<Output = ()>, Failure> {
    let handle = |kind| signal(kind).map_err(|error| Failure::of("handle signals", &error));
    let (mut terminate, mut interrupt) = (handle(SignalKind::terminate())?, handle(SignalKind::interrupt())?);
    let (closed, stdin_closed) = oneshot::channel::<()>();
    if until_stdin_closes {
        // A thread of its own: one of the runtime's would keep it from ending.
        std::thread::spawn(move || {
            let (mut stdin, mut line) = (std::io::stdin().lock(), Vec::new());
            while let Ok(bytes @ [_, ..]) = stdin.fill_buf() {
                let taken = bytes.len();
                for byte in bytes {
                    if *byte != b'\n' {
                        // What is longer is no order.
                        line.truncate(MAX_ORDER);
                        line.push(*byte);
                    } else if let Ok(order) = String::from_utf8(std::mem::take(&mut line)) {
                        // Nobody waits for a node to do what it is told here.
                        let _ = orders.try_send(order);
                    }
                }
                stdin.consume(taken);
            }
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
                None => break,
            },
            Some(_) = connections.join_next() => {}
        }
    }
    // Who is served is served until the server itself ends.
    while connections.join_next().await.is_some() {}
}

/// Serves a client that came by a session.
async fn serve_stream(reporter: Reporter, handle: Handle, stream: Stream) {
    reporter.tell(&Report::Accepted { port: hcp_core::network::HCP_PORT });
    bytes::as_bytes(stream, |io| connection(handle, io)).await;
}
