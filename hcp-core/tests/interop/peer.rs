//! What `hcp_reader` talks to: a node on the local network, driven by lines on standard input.
//!
//! usage: interop-peer FOLDER
//!
//! It writes `node ONION` and `service ONION` when it serves both, and then answers each line by one line:
//!
//! - `dial ONION known|anonymous PROTOCOL live|bulk|control COUNT SIZE`: opens a stream, sends COUNT messages of SIZE
//!   bytes while it takes their echoes, and says `ok`, or `error` and why.
//! - `greet ONION known|anonymous`: makes a session and holds it, and says `ok` and who the peer is, or `error` and
//!   why.
//!
//! It ends with its standard input. The protocols that it serves are the functions below.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::error::Error;
use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use hcp_core::identity::delegation::{OwnerCertificate, OwnerKey, ReplicaCredentials, Round, SessionKey, Validity};
use hcp_core::identity::{Identity, OnionAddress};
use hcp_core::network::{HCP_PORT, LocalNetwork, Network};
use hcp_core::node::{Access, Node, Service, Session, Stream};
use hcp_core::session::Priority;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

type Failure = Box<dyn Error + Send + Sync>;

const DAY: u64 = 86_400;
/// The longest that `test/drain/1` waits for the session's streams.
const DRAIN: Duration = Duration::from_secs(10);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let folder = std::env::args().nth(1).ok_or("usage: interop-peer FOLDER")?;
    let network: Arc<dyn Network> = Arc::new(LocalNetwork::new(folder)?);
    let service_identity = Identity::generate();
    let listener = network.listen(&service_identity, &[HCP_PORT]).await?;
    let service = Service::new(listener, replica_of(&service_identity)?).protocol("test/echo/1", Access::Anyone, echo);
    let node = Node::builder(Identity::generate(), network)
        .protocol("test/echo/1", Access::Anyone, echo)
        .protocol("test/who/1", Access::Anyone, who)
        .protocol("test/members/1", Access::Identified, who)
        .protocol("test/source/1", Access::Anyone, source)
        .protocol("test/sink/1", Access::Anyone, sink)
        .protocol("test/hold/1", Access::Anyone, hold)
        .protocol("test/drop/1", Access::Anyone, |_: Stream, _: Session| async {})
        .protocol("test/call-back/1", Access::Anyone, call_back)
        .protocol("test/drain/1", Access::Anyone, drain)
        .service(service)
        .bind()
        .await?;
    say(&format!("node {}", node.address()));
    say(&format!("service {}", service_identity.address()));
    let (sender, mut commands) = mpsc::channel(1);
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    let mut held = Vec::new();
    while let Some(line) = commands.recv().await {
        let words: Vec<&str> = line.split(' ').collect();
        let answer = match words[..] {
            ["greet", address, how] => greet(&node, address, how, &mut held).await,
            ["dial", address, how, protocol, priority, count, size] => {
                dial(&node, [address, how], [protocol, priority], count.parse()?, size.parse()?).await
            }
            _ => Err("no such command".into()),
        };
        // Every cause, in one line.
        say(&answer.unwrap_or_else(|error| {
            let mut text = format!("error {error}");
            let mut source = error.source();
            while let Some(cause) = source {
                text.push_str(&format!(": {cause}"));
                source = cause.source();
            }
            text
        }));
    }
    Ok(())
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).expect("who started this reads what it says");
}

/// A replica of a service whose owner is this process too.
fn replica_of(service: &Identity) -> Result<ReplicaCredentials, Failure> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let (owner, session_key) = (OwnerKey::generate(), SessionKey::generate());
    let certificate = OwnerCertificate::issue(service, owner.public_key(), Validity::new(now - DAY, now + 2 * DAY)?);
    let round = Round::new(7, 5, Validity::new(now - DAY, now + DAY)?)?;
    let delegation = owner.delegate(service.address(), session_key.public_key(), round);
    Ok(ReplicaCredentials::new(service.address(), certificate, delegation, session_key)?)
}

/// Sends back what comes, and ends when the peer does.
async fn echo(mut stream: Stream, _: Session) {
    while let Ok(Some(message)) = stream.recv().await {
        if stream.send(message).await.is_err() {
            return;
        }
    }
    stream.finish().await;
}

/// Says who dialled, and stays until the peer ends.
async fn who(mut stream: Stream, session: Session) {
    let name = session.peer().address().map_or_else(|| "anonymous".to_owned(), |address| address.to_string());
    let _ = stream.send(name).await;
    let _ = stream.recv().await;
    stream.finish().await;
}

/// Sends as many messages of as many bytes as the first message, two u32, says; the byte counts the messages.
async fn source(mut stream: Stream, _: Session) {
    let Ok(Some(wanted)) = stream.recv().await else { return };
    let [count, size] = [0, 4].map(|at| u32::from_be_bytes(wanted[at..at + 4].try_into().unwrap()));
    for number in 0..count {
        if stream.send(vec![number as u8; size as usize]).await.is_err() {
            return;
        }
    }
    stream.finish().await;
    while let Ok(Some(_)) = stream.recv().await {}
}

/// Takes messages until the peer ends, and says how many they were and the SHA-256 of all.
async fn sink(mut stream: Stream, _: Session) {
    let (mut count, mut hash) = (0u32, Sha256::new());
    while let Ok(Some(message)) = stream.recv().await {
        count += 1;
        hash.update(&message);
    }
    let _ = stream.send([&count.to_be_bytes()[..], &hash.finalize()].concat()).await;
    stream.finish().await;
}

/// Takes one message and never another.
async fn hold(mut stream: Stream, _: Session) {
    let _ = stream.recv().await;
    std::future::pending::<()>().await;
}

/// Opens the stream that the first message names back to the peer, sends the second there and the answer here.
async fn call_back(mut stream: Stream, session: Session) {
    let (Ok(Some(name)), Ok(Some(message))) = (stream.recv().await, stream.recv().await) else { return };
    let answer = async {
        let mut back = session.open(std::str::from_utf8(&name)?).await?;
        back.send(message).await?;
        let answer = back.recv().await?.ok_or("no answer")?;
        back.finish().await;
        Ok::<Bytes, Failure>(answer)
    };
    let answer = answer.await.unwrap_or_else(|error| error.to_string().into());
    let _ = stream.send(answer).await;
    stream.finish().await;
}

/// Drains the session, and meanwhile echoes.
async fn drain(stream: Stream, session: Session) {
    tokio::join!(session.drain(DRAIN), echo(stream, session.clone()));
}

async fn session(node: &Node, address: &str, how: &str) -> Result<Session, Failure> {
    let address: OnionAddress = address.parse()?;
    Ok(match how {
        "known" => node.connect(address).await?,
        _ => node.connect_anonymously(address).await?,
    })
}

async fn greet(node: &Node, address: &str, how: &str, held: &mut Vec<Session>) -> Result<String, Failure> {
    let session = session(node, address, how).await?;
    let peer = session.peer().address();
    held.push(session);
    Ok(format!("ok {}", peer.map_or_else(|| "anonymous".to_owned(), |peer| peer.to_string())))
}

async fn dial(node: &Node, who: [&str; 2], what: [&str; 2], count: u32, size: usize) -> Result<String, Failure> {
    let session = session(node, who[0], who[1]).await?;
    let priority = match what[1] {
        "bulk" => Priority::Bulk,
        "control" => Priority::Control,
        _ => Priority::Live,
    };
    let mut stream = session.open_with(what[0], priority).await?;
    let mut sender = stream.sender();
    let sending = tokio::spawn(async move {
        for number in 0..count {
            sender.send(vec![number as u8; size]).await?;
        }
        sender.finish().await;
        Ok::<(), Failure>(())
    });
    for number in 0..count {
        let message = stream.recv().await?.ok_or("an echo is missing")?;
        if message != vec![number as u8; size] {
            return Err("an echo is wrong".into());
        }
    }
    if stream.recv().await?.is_some() {
        return Err("an echo too many".into());
    }
    sending.await??;
    session.shutdown().await;
    Ok("ok".to_owned())
}
