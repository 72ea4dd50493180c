//! A table in PostgreSQL: a server that writes and two that follow it, one of which must have synced a commit as well before
//! it is said to be one.

mod server;

use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::task::JoinSet;
use tokio_postgres::binary_copy::BinaryCopyInWriter;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Statement};

pub use self::server::Server;
use self::server::connect;
use super::cluster::{Cluster, Victim};
use super::disk::Place;
use super::service::Entries;
use crate::Failure;

/// Connections, each of which commits by itself.
const CONNECTIONS: usize = 64;
/// Rows of one COPY, and so of one commit; and how many of them are under way.
const TOGETHER: usize = 500;
const UNDER_WAY: usize = 16;
const STANDBYS: [&str; 2] = ["one", "two"];

/// The servers, and who is connected.
pub struct Table {
    servers: Mutex<Servers>,
    /// Where any of them may be, of which one takes writes.
    anywhere: String,
    connections: Vec<tokio::sync::Mutex<Option<Connection>>>,
    turn: AtomicUsize,
    entries: Entries,
}

struct Servers {
    primary: Option<Server>,
    standbys: Vec<Server>,
}

struct Connection {
    client: Client,
    insert: Statement,
}

impl Table {
    /// # Errors
    /// When a server cannot be started.
    pub async fn start(place: &Place) -> Result<Self, Failure> {
        let primary = Server::start(place).await?;
        let admin = primary.connect().await?;
        admin.batch_execute("CREATE TABLE entries (id bigserial PRIMARY KEY, bytes bytea NOT NULL)").await?;
        let mut standbys = Vec::new();
        for name in STANDBYS {
            standbys.push(primary.standby(place, name).await?);
        }
        let names = format!("ALTER SYSTEM SET synchronous_standby_names = 'ANY 1 ({})'", STANDBYS.join(", "));
        admin.batch_execute(&names).await?;
        admin.batch_execute("SELECT pg_reload_conf()").await?;
        // Commits wait for them only from when both are known as such.
        let known = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming' AND sync_state = 'quorum'";
        while admin.query_one(known, &[]).await?.get::<_, i64>(0) < STANDBYS.len() as i64 {
            tokio::task::yield_now().await;
        }
        let all = std::iter::once(&primary).chain(&standbys);
        let (hosts, ports): (Vec<_>, Vec<_>) = all.map(|server| ("127.0.0.1", server.port().to_string())).unzip();
        let anywhere = format!(
            "host={} port={} user=postgres dbname=postgres target_session_attrs=read-write connect_timeout=1",
            hosts.join(","),
            ports.join(",")
        );
        let connections = (0..CONNECTIONS).map(|_| tokio::sync::Mutex::default()).collect();
        let servers = Mutex::new(Servers { primary: Some(primary), standbys });
        Ok(Self { servers, anywhere, connections, turn: AtomicUsize::new(0), entries: Entries::new() })
    }

    async fn connected(&self) -> Result<Connection, Failure> {
        let client = connect(&self.anywhere).await?;
        let insert = client.prepare("INSERT INTO entries (bytes) VALUES ($1)").await?;
        Ok(Connection { client, insert })
    }
}

impl Cluster for Table {
    fn write(&self) -> BoxFuture<'_, Result<(), Failure>> {
        async {
            let turn = self.turn.fetch_add(1, Ordering::Relaxed) % CONNECTIONS;
            let mut slot = self.connections[turn].lock().await;
            let connection = match slot.take().filter(|connection| !connection.client.is_closed()) {
                Some(connection) => slot.insert(connection),
                None => slot.insert(self.connected().await?),
            };
            connection.client.execute(&connection.insert, &[&&self.entries.get(turn)[..]]).await?;
            Ok(())
        }
        .boxed()
    }

    fn ingest(&self, count: usize) -> BoxFuture<'_, Result<(), Failure>> {
        async move {
            let mut writing = JoinSet::new();
            for part in 0..UNDER_WAY {
                let mut left = count / UNDER_WAY + usize::from(part < count % UNDER_WAY);
                let (client, entries) = (connect(&self.anywhere).await?, Entries::new());
                writing.spawn(async move {
                    while left > 0 {
                        let length = left.min(TOGETHER);
                        let sink = client.copy_in("COPY entries (bytes) FROM STDIN BINARY").await?;
                        let mut rows = pin!(BinaryCopyInWriter::new(sink, &[Type::BYTEA]));
                        for number in 0..length {
                            rows.as_mut().write(&[&&entries.get(number)[..]]).await?;
                        }
                        rows.as_mut().finish().await?;
                        left -= length;
                    }
                    Ok::<_, Failure>(())
                });
            }
            while let Some(done) = writing.join_next().await {
                done??;
            }
            Ok(())
        }
        .boxed()
    }

    fn kill(&self, victim: Victim) -> BoxFuture<'_, Result<Instant, Failure>> {
        let mut servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        let server = match victim {
            Victim::Leader => servers.primary.take(),
            Victim::Follower => servers.standbys.pop(),
        };
        async {
            server.ok_or("there is no such server")?.kill()?;
            Ok(Instant::now())
        }
        .boxed()
    }
}
