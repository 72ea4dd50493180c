//! What all tests on the private network need: networks, clients, a server that says who it is, conditions with a deadline.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use hcp_core::identity::{Identity, OnionAddress};
use hcp_core::network::tor::{TorNetwork, TorNetworkBuilder};
use hcp_core::network::{HCP_PORT, Listener};
use hcp_core::testing::{PrivateTorNetwork, socks_connect};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::task::JoinHandle;
use tokio::time::timeout;

pub(super) async fn testnet() -> &'static PrivateTorNetwork {
    let filter = tracing_subscriber::EnvFilter::from_default_env();
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init();
    PrivateTorNetwork::shared().await.unwrap()
}

pub(super) fn home() -> TempDir {
    tempfile::tempdir().unwrap()
}

pub(super) fn builder(home: &TempDir, testnet: &PrivateTorNetwork) -> TorNetworkBuilder {
    TorNetwork::builder(home.path().join("state"), home.path().join("cache"))
        .private_network(testnet.description().network())
}

pub(super) async fn joined(testnet: &PrivateTorNetwork) -> (TorNetwork, TempDir) {
    let home = home();
    (within(60, builder(&home, testnet).bootstrap()).await.unwrap(), home)
}

pub(super) async fn client(testnet: &PrivateTorNetwork) -> hcp_core::testing::TorClientProcess {
    testnet.start_client().await.unwrap()
}

pub(super) async fn reachable(listener: Listener) -> Listener {
    assert!(within(60, listener.reachable()).await, "{listener:?}");
    listener
}

/// Greets every connection with `name` and its port, then returns what it sends.
pub(super) fn echo(name: &'static str, mut listener: Listener) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut handlers = tokio::task::JoinSet::new();
        while let Some(mut incoming) = listener.accept().await {
            handlers.spawn(async move {
                incoming.stream.write_all(format!("{name} {}\n", incoming.port).as_bytes()).await?;
                incoming.stream.flush().await?;
                let mut buffer = [0; 512];
                loop {
                    let length = incoming.stream.read(&mut buffer).await?;
                    if length == 0 {
                        return std::io::Result::Ok(());
                    }
                    incoming.stream.write_all(&buffer[..length]).await?;
                    incoming.stream.flush().await?;
                }
            });
        }
    })
}

/// Reads the greeting and checks that the echo works.
pub(super) async fn converse(stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin) -> String {
    let mut stream = BufReader::new(stream);
    let greeting = greeting(&mut stream).await;
    ping(&mut stream).await;
    greeting
}

pub(super) async fn greeting(stream: &mut (impl tokio::io::AsyncBufRead + Unpin)) -> String {
    let mut line = String::new();
    within(60, stream.read_line(&mut line)).await.unwrap();
    line.trim().to_owned()
}

pub(super) async fn ping<S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin>(stream: &mut BufReader<S>) {
    let sent = format!("{:x}\n", rand_word());
    stream.write_all(sent.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    let mut line = String::new();
    within(60, stream.read_line(&mut line)).await.unwrap();
    assert_eq!(line, sent);
}

pub(super) fn rand_word() -> u64 {
    use std::hash::BuildHasher as _;
    std::hash::RandomState::new().hash_one(0)
}

/// What greets a C tor client that never heard of the address.
pub(super) async fn fresh_client(testnet: &PrivateTorNetwork, address: &OnionAddress) -> String {
    let client = client(testnet).await;
    let proxy: SocketAddr = client.socks_addr();
    let stream = socks_connect(proxy, &address.to_string(), HCP_PORT).await;
    converse(stream.unwrap_or_else(|e| panic!("{e}: {}", client.log()))).await
}

pub(super) fn assert_no_key_on_disk(folder: &Path, identity: &Identity) {
    assert_not_on_disk(folder, &[&identity.expanded_secret_key()[..32], b"PRIVATE KEY"]);
}

pub(super) fn assert_not_on_disk(folder: &Path, needles: &[&[u8]]) {
    let mut files = 0;
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            files += 1;
            let bytes = std::fs::read(&path).unwrap();
            for needle in needles {
                assert!(!bytes.windows(needle.len()).any(|w| w == *needle), "a key in {}", path.display());
            }
            assert!(!path.to_string_lossy().contains("keystore"), "{}", path.display());
        }
    }
    assert!(files > 3, "the directory must be the one that the network uses");
}

pub(super) fn runs(id: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{id}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

#[track_caller]
pub(super) fn within<T>(seconds: u64, future: impl Future<Output = T>) -> impl Future<Output = T> {
    let place = std::panic::Location::caller();
    async move {
        let result = timeout(Duration::from_secs(seconds), future).await;
        result.unwrap_or_else(|_| panic!("not done within {seconds} s at {place}"))
    }
}

/// Waits for a condition that nothing announces.
pub(super) async fn eventually(seconds: u64, condition: impl Fn() -> bool) {
    within(seconds, async {
        let mut tick = tokio::time::interval(Duration::from_millis(20));
        while !condition() {
            tick.tick().await;
        }
    })
    .await;
}
