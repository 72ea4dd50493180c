//! Nodes and clients for tests. Everything waits for a condition, with a deadline.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hcp_core::identity::delegation::OwnerKey;
use hcp_core::identity::manifest::{Contents, Manifest, Member, Role};
use hcp_core::identity::{Identity, LogKey};
use hcp_core::network::{MemoryNetwork, Network};
use hcp_core::node::{Access, Node};
use hcp_core::replica::{Links, PROTOCOL, Replica, Storage};
use hcp_irc::client::connection;
use hcp_irc::server::{Handle, Server, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

/// How long anything may take before a test fails.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// A service of several nodes.
pub(crate) struct Service {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) network: MemoryNetwork,
    pub(crate) service: Identity,
    pub(crate) owner: OwnerKey,
    pub(crate) keys: Vec<(Identity, LogKey)>,
    pub(crate) max_clients: usize,
    pub(crate) history: usize,
}

/// One running node.
pub(crate) struct Running {
    pub(crate) handle: Handle,
    pub(crate) replica: Replica,
    node: Node,
    links: Option<Links>,
    stop: Option<oneshot::Sender<()>>,
    server: JoinHandle<Result<(), hcp_irc::LogFailure>>,
}

impl Service {
    pub(crate) fn new(nodes: usize) -> Self {
        let mut keys: Vec<_> = (0..nodes).map(|_| (Identity::generate(), LogKey::generate())).collect();
        // The node with the lower address dials: tests cut links at the first node.
        keys.sort_by_key(|(identity, _)| identity.address());
        Self {
            folder: tempfile::tempdir().expect("a temporary folder"),
            network: MemoryNetwork::new(),
            service: Identity::generate(),
            owner: OwnerKey::generate(),
            keys,
            max_clients: 100,
            history: 200,
        }
    }

    /// Starts a node and waits until it serves clients.
    pub(crate) async fn start(&self, index: usize) -> Running {
        let manifest = self.manifest(1, "Hello.");
        let (identity, key) = self.keys[index].clone();
        let history = self.history;
        let replica = Replica::builder(Storage::sqlite(self.database(index)), key, self.owner.public_key(), manifest)
            .state_machine(move || Server::state(history))
            .open()
            .await
            .expect("opens");
        let config = ServerConfig {
            name: "irc.test".into(),
            network: "Test".into(),
            motd: vec!["Hello.".into()],
            history: self.history,
            ctcp: false,
            real_names: false,
            msgid_key: ServerConfig::derive_msgid_key(&self.service.address().to_string(), "irc.test"),
            max_clients: self.max_clients,
        };
        let (server, handle) = Server::new(config.clone(), replica.clone());
        let server = server.showing(show(config, replica.manifest()));
        let network: Arc<dyn Network> = Arc::new(self.network.clone());
        let node = Node::builder(identity, network)
            .protocol(PROTOCOL, Access::Identified, replica.handler())
            .bind()
            .await
            .expect("binds");
        let links = Some(replica.link(&node));
        let (stop, stopped) = oneshot::channel::<()>();
        let server = tokio::spawn(server.run(async move { drop(stopped.await) }));
        let mut ready = handle.ready();
        within("the server to be ready", ready.wait_for(|ready| *ready)).await.expect("the server runs");
        Running { handle, replica, node, links, stop: Some(stop), server }
    }

    /// What the owner signs; the shared configuration is the message of the day.
    pub(crate) fn manifest(&self, version: u64, motd: &str) -> Manifest {
        let member = |(identity, key): &(Identity, LogKey)| {
            Member::new(identity.address(), key.public_key(), Role::Publisher).expect("a member's keys")
        };
        let contents = Contents::new(version, self.keys.iter().map(member).collect()).expect("members");
        let contents = contents.shared(motd.as_bytes().to_vec()).expect("is short");
        Manifest::sign(&self.owner, self.service.address(), contents).expect("no member is the service")
    }

    /// A node that is not running loses its log.
    pub(crate) fn lose(&self, index: usize) {
        let name = format!("{index}.db");
        for file in std::fs::read_dir(self.folder.path()).expect("the folder is there") {
            let file = file.expect("it can be listed");
            if file.file_name().to_string_lossy().starts_with(&name) {
                std::fs::remove_file(file.path()).expect("it can be deleted");
            }
        }
    }

    fn database(&self, index: usize) -> PathBuf {
        self.folder.path().join(format!("{index}.db"))
    }
}

impl Running {
    /// Connects a client that has said nothing yet.
    pub(crate) fn connect(&self) -> Client {
        Client::of(self.handle.clone())
    }

    /// Connects a client without capabilities and registers it.
    pub(crate) async fn user(&self, nick: &str) -> Client {
        let mut client = self.connect();
        client.send(&format!("NICK {nick}\r\nUSER {nick} 0 * :{nick}")).await;
        client.until(" 376 ").await;
        client
    }

    /// Connects a client with all capabilities and registers it.
    pub(crate) async fn modern(&self, nick: &str) -> Client {
        let mut client = self.connect();
        client.send("CAP REQ :server-time message-tags echo-message").await;
        client.send(&format!("NICK {nick}\r\nUSER {nick} 0 * :{nick}\r\nCAP END")).await;
        client.until(" 376 ").await;
        client
    }

    /// Waits until this many peers are live.
    pub(crate) async fn linked(&self, peers: usize) {
        let mut watch = self.replica.peers();
        within("links", watch.wait_for(|state| state.live() == peers)).await.expect("the replica runs");
    }

    /// Cuts the links that this node dials.
    pub(crate) fn cut(&mut self) {
        self.links = None;
    }

    /// Dials again.
    pub(crate) fn heal(&mut self) {
        self.links = Some(self.replica.link(&self.node));
    }

    /// Ends the node as a crash does: its users do not quit.
    pub(crate) async fn kill(self) {
        self.server.abort();
        let _ = self.server.await;
        drop((self.links, self.node, self.handle));
        self.replica.shutdown().await;
    }

    /// Stops the node in order.
    pub(crate) async fn stop(mut self) {
        drop(self.stop.take());
        within("the server to stop", self.server).await.expect("no panic").expect("no failure");
        drop((self.links, self.node, self.handle));
        self.replica.shutdown().await;
    }
}

/// Has clients shown what manifests say.
fn show(config: ServerConfig, mut manifests: watch::Receiver<Manifest>) -> watch::Receiver<ServerConfig> {
    let (sender, shown) = watch::channel(config.clone());
    tokio::spawn(async move {
        while manifests.changed().await.is_ok() {
            let motd = manifests.borrow_and_update().contents().shared_configuration().to_vec();
            let motd = vec![String::from_utf8(motd).expect("is text")];
            sender.send_replace(ServerConfig { motd, ..config.clone() });
        }
    });
    shown
}

/// A client that reads lines.
pub(crate) struct Client {
    stream: DuplexStream,
    unread: String,
    seen: Vec<String>,
    _task: JoinHandle<()>,
}

impl Client {
    /// Connects to a server, which may have ended.
    pub(crate) fn of(handle: Handle) -> Self {
        let (near, far) = tokio::io::duplex(64 * 1024);
        let task = tokio::spawn(connection(handle, far));
        Self { stream: near, unread: String::new(), seen: Vec::new(), _task: task }
    }

    pub(crate) async fn send(&mut self, lines: &str) {
        self.stream.write_all(format!("{lines}\r\n").as_bytes()).await.expect("the connection is open");
    }

    pub(crate) fn into_stream(self) -> DuplexStream {
        self.stream
    }

    pub(crate) async fn send_raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.expect("the connection is open");
    }

    /// The next line; `None` at the end of the connection.
    pub(crate) async fn line(&mut self) -> Option<String> {
        loop {
            if let Some((line, rest)) = self.unread.split_once("\r\n") {
                let line = line.to_owned();
                self.unread = rest.to_owned();
                self.seen.push(line.clone());
                return Some(line);
            }
            let mut bytes = [0; 4096];
            let read = tokio::time::timeout(DEADLINE, self.stream.read(&mut bytes)).await;
            match read {
                Ok(Ok(0) | Err(_)) => return None,
                Ok(Ok(len)) => self.unread.push_str(std::str::from_utf8(&bytes[..len]).expect("UTF-8")),
                Err(_) => panic!("nothing came; before that:\n{}", self.seen.join("\n")),
            }
        }
    }

    /// Reads up to the first line that contains `part`.
    pub(crate) async fn until(&mut self, part: &str) -> String {
        loop {
            match self.line().await {
                Some(line) if line.contains(part) => return line,
                Some(_) => {}
                None => panic!("the connection ended before {part:?}:\n{}", self.seen.join("\n")),
            }
        }
    }

    /// Sends lines and reads up to a line that contains `part`.
    pub(crate) async fn ask(&mut self, lines: &str, part: &str) -> String {
        self.send(lines).await;
        self.until(part).await
    }

    /// All lines up to the reply of a PING sent now.
    pub(crate) async fn drain(&mut self) -> Vec<String> {
        let token = format!("drain-{}", rand::random::<u32>());
        self.send(&format!("PING {token}")).await;
        let mut lines = Vec::new();
        loop {
            let line = self.line().await.expect("the connection is open");
            if line.ends_with(&token) {
                return lines;
            }
            lines.push(line);
        }
    }
}

/// Waits with the deadline.
pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(DEADLINE, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited too long for {what}"),
    }
}
