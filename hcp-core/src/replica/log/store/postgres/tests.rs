//! Against a real server from the system's packages, made for each test in a folder of its own.

mod cluster;

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use self::cluster::Cluster;
use super::{PostgresStore, Server};
use crate::identity::{Identity, OnionAddress};
use crate::replica::log::storage::{Outcome, Read};
use crate::replica::log::store::Store;
use crate::replica::log::store::contract::{self, Fixture, ME, batch, done, everything, log, row};
use crate::replica::log::store::workload::{last_held, nth};
use crate::replica::place::NodeId;
use crate::store::StoreError;

/// A disturbance or a recovery that takes longer is a failure.
const SOON: Duration = Duration::from_secs(120);

fn service() -> OnionAddress {
    Identity::from_seed(&[7; 32]).address()
}

async fn open(server: Server) -> PostgresStore {
    PostgresStore::open(server, &service(), &ME).await.unwrap()
}

/// A role with a schema of its own.
async fn provision(cluster: &Cluster, role: &str) -> Server {
    Server::new(&cluster.provision(role).await, role).unwrap()
}

/// What somebody has who may all.
fn superuser(cluster: &Cluster) -> Server {
    Server::new(&cluster.superuser(), "hcp").unwrap()
}

struct Schema(Server);

impl Fixture for Schema {
    fn open(&self, node: NodeId) -> BoxFuture<'_, Result<Arc<dyn Store>, StoreError>> {
        async move {
            let store = PostgresStore::open(self.0.clone(), &service(), &node).await?;
            Ok(Arc::new(store) as Arc<dyn Store>)
        }
        .boxed()
    }
}

/// One server with a role and a schema for each test, as for each node.
#[tokio::test]
async fn does_what_every_store_does() {
    let cluster = Cluster::start().await;
    macro_rules! each {
        ($($name:ident),+ $(,)?) => {
            $(
                eprintln!(stringify!($name));
                let fixture = Schema(provision(&cluster, stringify!($name)).await);
                contract::$name(&fixture).await;
            )+
        };
    }
    contract::all!(each);
}

#[tokio::test]
async fn a_node_can_neither_read_nor_write_anothers_schema() {
    let cluster = Cluster::start().await;
    let (one, other) = (provision(&cluster, "one").await, provision(&cluster, "other").await);
    let store = open(one.clone()).await;
    done(&store, batch([row(1, log(1), 1, 0, 10)])).await;
    let session = other.connect().await.unwrap();
    for sql in ["SELECT * FROM one.segments", "DELETE FROM one.segments", "DROP SCHEMA one CASCADE"] {
        let error = session.batch_execute(sql).await.unwrap_err();
        assert_eq!(error.code(), Some(&tokio_postgres::error::SqlState::INSUFFICIENT_PRIVILEGE), "{sql}");
    }
    assert_eq!(everything(&store, 1).await.len(), 1);
}

/// A server for each node: the superuser's, which makes the schema by itself.
#[tokio::test]
async fn servers_of_their_own_hold_logs_of_their_own() {
    let (one, other) = (Cluster::start().await, Cluster::start().await);
    let (one, other) = (open(superuser(&one)).await, open(superuser(&other)).await);
    done(&one, batch([row(1, log(1), 1, 0, 10)])).await;
    assert!(everything(&other, 1).await.is_empty());
    assert_eq!(everything(&one, 1).await.len(), 1);
}

#[tokio::test]
async fn who_opens_a_log_takes_it_from_who_had_it_open() {
    let cluster = Cluster::start().await;
    let server = provision(&cluster, "node").await;
    let old = open(server.clone()).await;
    done(&old, batch([row(1, log(1), 1, 0, 10)])).await;
    let new = open(server).await;
    assert_eq!(old.write(batch([row(2, log(1), 2, 0, 10)])).await, Outcome::Broken);
    assert!(matches!(*old.failure().unwrap(), StoreError::InUse));
    done(&new, batch([row(2, log(1), 2, 0, 20)])).await;
    assert_eq!(everything(&new, usize::MAX).await.len(), 2);
}

#[tokio::test]
async fn a_server_that_does_not_sync_is_refused() {
    let cluster = Cluster::start_with(&["-c", "fsync=off"]).await;
    let opened = PostgresStore::open(superuser(&cluster), &service(), &ME).await;
    assert!(matches!(opened, Err(StoreError::Unsynced)), "{opened:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_killed_and_started_under_load_loses_nothing_and_the_store_goes_on() {
    let mut cluster = Cluster::start().await;
    let server = provision(&cluster, "node").await;
    let store = Arc::new(open(server.clone()).await);
    let (told, mut done) = tokio::sync::watch::channel(0);
    let writer = tokio::spawn({
        let store = Arc::clone(&store);
        async move {
            for number in 1.. {
                assert_eq!(store.write(Box::new(nth(number))).await, Outcome::Done, "{:?}", store.failure());
                told.send_replace(number);
            }
        }
    });
    let reader = tokio::spawn({
        let store = Arc::clone(&store);
        async move {
            loop {
                let _ = store.read(Read::Hashes(vec![(log(1), 1)])).await;
                tokio::task::yield_now().await;
            }
        }
    });
    for round in 1..=4 {
        let before = *done.borrow();
        let more = done.wait_for(|number| *number >= before + 10 + round);
        tokio::time::timeout(SOON, more).await.expect("the store goes on by itself").unwrap();
        cluster.kill();
        cluster.restart().await;
    }
    let before = *done.borrow();
    let more = done.wait_for(|number| *number > before + 10);
    tokio::time::timeout(SOON, more).await.expect("the store goes on by itself").unwrap();
    writer.abort();
    reader.abort();
    let reported = *done.borrow();
    store.shutdown().await;
    let held = last_held(&open(server).await).await.unwrap();
    assert!(held == reported || held == reported + 1, "{held} are there, {reported} were durable");
}

#[tokio::test]
async fn a_server_that_is_away_is_waited_for_until_the_store_is_shut_down() {
    let mut cluster = Cluster::start().await;
    let store = open(provision(&cluster, "node").await).await;
    cluster.kill();
    // The process that serves this connection outlives the first one for a moment, and may store some more.
    let write = async {
        for number in 1.. {
            match store.write(Box::new(nth(number))).await {
                Outcome::Done => {}
                outcome => return outcome,
            }
        }
        unreachable!("it stores for ever")
    };
    let stop = async {
        while store.failure().is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        store.shutdown().await;
    };
    let (outcome, ()) = tokio::time::timeout(SOON, async { tokio::join!(write, stop) }).await.unwrap();
    assert_eq!(outcome, Outcome::Broken);
}

/// What becomes of a commit whose connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Commit {
    /// The server has done it before anybody hears of it.
    Done,
    /// The server is still about to do it while the store has connected again.
    UnderWay,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_whose_answer_is_lost_counts_once() {
    commits_count_once(Commit::Done).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_is_under_way_when_the_connection_is_lost_counts_once() {
    commits_count_once(Commit::UnderWay).await;
}

async fn commits_count_once(commit: Commit) {
    let cluster = Cluster::start().await;
    cluster.provision("node").await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (cut, cuts) = tokio::sync::watch::channel(0_u32);
    let (server_port, lost) = (cluster.port(), cut.clone());
    let (accepted, connections) = tokio::sync::watch::channel(0_u32);
    let proxy = tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = TcpStream::connect(("127.0.0.1", server_port)).await.unwrap();
            accepted.send_modify(|count| *count += 1);
            let passing = Passing { cuts: cuts.clone(), lost: lost.clone(), connections: connections.clone(), commit };
            tokio::spawn(pass(client, server, passing));
        }
    });
    let store = open(Server::new(&cluster.role_at("node", port), "node").unwrap()).await;
    done(&store, Box::new(nth(1))).await;
    // The next two commits.
    cut.send_replace(2);
    done(&store, Box::new(nth(2))).await;
    done(&store, Box::new(nth(3))).await;
    assert_eq!(*cut.borrow(), 0);
    done(&store, Box::new(nth(4))).await;
    assert_eq!(last_held(&store).await.unwrap(), 4);
    proxy.abort();
}

struct Passing {
    /// Commits that are to be cut off.
    cuts: tokio::sync::watch::Receiver<u32>,
    lost: tokio::sync::watch::Sender<u32>,
    connections: tokio::sync::watch::Receiver<u32>,
    commit: Commit,
}

/// Passes bytes on until a commit is to be cut off from its answer.
async fn pass(mut client: TcpStream, mut server: TcpStream, mut passing: Passing) {
    let (mut up, mut down) = (vec![0; 64 * 1024], vec![0; 64 * 1024]);
    loop {
        tokio::select! {
            Ok(length @ 1..) = client.read(&mut up) => {
                let up = &up[..length];
                let is_cut = *passing.cuts.borrow() > 0 && up.windows(6).any(|part| part == b"COMMIT");
                if is_cut && passing.commit == Commit::UnderWay {
                    passing.lost.send_modify(|cuts| *cuts -= 1);
                    let before = *passing.connections.borrow();
                    drop(client);
                    passing.connections.wait_for(|count| *count > before).await.unwrap();
                    // Who does not wait for this commit has asked about it by then.
                    tokio::time::sleep(Duration::from_millis(500)).await;
                    server.write_all(up).await.unwrap();
                    assert!(server.read(&mut down).await.unwrap() > 0);
                    return;
                }
                server.write_all(up).await.unwrap();
                if is_cut {
                    // The server says that it has committed, to nobody.
                    let answered = server.read(&mut down).await.unwrap();
                    assert!(answered > 0);
                    passing.lost.send_modify(|cuts| *cuts -= 1);
                    return;
                }
            }
            Ok(length @ 1..) = server.read(&mut down) => {
                if client.write_all(&down[..length]).await.is_err() {
                    return;
                }
            }
            else => return,
        }
    }
}

/// Frozen, it takes connections and says nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_frozen_is_waited_for_and_does_not_keep_the_store_from_shutting_down() {
    let cluster = Cluster::start().await;
    let server = provision(&cluster, "node").await;
    let store = Arc::new(open(server.clone()).await);
    done(&*store, Box::new(nth(1))).await;
    cluster.freeze();
    let write = tokio::spawn({
        let store = Arc::clone(&store);
        async move { store.write(Box::new(nth(2))).await }
    });
    let told = async {
        while !store.failure().is_some_and(|error| matches!(*error, StoreError::Silent)) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(SOON, told).await.unwrap();
    cluster.thaw();
    assert_eq!(write.await.unwrap(), Outcome::Done);
    assert!(store.failure().is_none());
    cluster.freeze();
    let opened = tokio::time::timeout(SOON, PostgresStore::open(server.clone(), &service(), &ME)).await.unwrap();
    assert!(matches!(opened, Err(StoreError::Silent)), "{opened:?}");
    let (write, read) = (store.write(Box::new(nth(3))), store.opened());
    let both = async { tokio::join!(write, read, store.shutdown()) };
    let (write, read, ()) = tokio::time::timeout(SOON, both).await.unwrap();
    assert_eq!(write, Outcome::Broken);
    assert!(matches!(read, Err(StoreError::Closed)), "{read:?}");
    cluster.thaw();
    let held = last_held(&open(server).await).await.unwrap();
    assert!(held == 2 || held == 3, "{held}");
}
