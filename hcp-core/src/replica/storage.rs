//! What a replica keeps its log in.

use std::path::PathBuf;
use std::sync::Arc;

use crate::identity::OnionAddress;
use crate::replica::log::store::Store;
use crate::replica::log::store::memory::{MemoryDisk, MemoryStore};
#[cfg(feature = "postgres")]
use crate::replica::log::store::postgres::{PostgresStore, Server};
use crate::replica::log::store::sqlite::{SqliteStore, Tuning};
use crate::replica::place::NodeId;
use crate::store::StoreError;

/// What a replica keeps its log in.
#[derive(Clone, Debug)]
pub struct Storage(Kind);

#[derive(Clone, Debug)]
enum Kind {
    Sqlite(PathBuf, Tuning),
    #[cfg(feature = "postgres")]
    Postgres(Box<Server>),
    Memory(MemoryDisk),
}

impl Storage {
    /// A SQLite database at this path, which is made when it is missing.
    ///
    /// Every commit is synced before anything is said to be durable.
    pub fn sqlite(path: impl Into<PathBuf>) -> Self {
        Self(Kind::Sqlite(path.into(), Tuning::default()))
    }

    /// A SQLite database that is used in another way.
    #[cfg(test)]
    pub(super) fn sqlite_tuned(path: impl Into<PathBuf>, tuning: Tuning) -> Self {
        Self(Kind::Sqlite(path.into(), tuning))
    }

    /// A schema of a PostgreSQL server, which is made when it is missing: for `connection` a connection string
    /// (`host=… user=… dbname=…`), for `schema` a name of ASCII letters, digits and underscores.
    ///
    /// Two shapes: one server for all nodes, with a role and a schema for each, so that no node can rewrite another's log; or
    /// a server for each node. While the server is away, appends wait; nothing has to be started again. The connection is not
    /// encrypted: reach a server on another machine through a tunnel.
    ///
    /// On a server for all nodes its operator makes for each node, once:
    ///
    /// ```sql
    /// CREATE ROLE alice LOGIN PASSWORD '…';
    /// CREATE SCHEMA alice AUTHORIZATION alice;
    /// REVOKE ALL ON SCHEMA alice FROM PUBLIC;
    /// ```
    ///
    /// # Errors
    /// [`StoreError`] where the string or the name is wrong.
    #[cfg(feature = "postgres")]
    pub fn postgres(connection: &str, schema: &str) -> Result<Self, StoreError> {
        Ok(Self(Kind::Postgres(Box::new(Server::new(connection, schema)?))))
    }

    /// Memory, for tests: the disk keeps what it has when the replica is gone.
    pub fn memory(disk: &MemoryDisk) -> Self {
        Self(Kind::Memory(disk.clone()))
    }

    /// Opens it as one node of one service.
    pub(super) async fn open(&self, service: OnionAddress, node: NodeId) -> Result<Arc<dyn Store>, StoreError> {
        match &self.0 {
            Kind::Sqlite(path, tuning) => {
                let (path, tuning) = (path.clone(), *tuning);
                let open = move || SqliteStore::open(&path, &service, &node, tuning);
                let opened = tokio::task::spawn_blocking(open).await;
                Ok(Arc::new(opened.map_err(|_| StoreError::Closed)??))
            }
            #[cfg(feature = "postgres")]
            Kind::Postgres(server) => Ok(Arc::new(PostgresStore::open((**server).clone(), &service, &node).await?)),
            Kind::Memory(disk) => Ok(Arc::new(MemoryStore::open(disk, &service, &node)?)),
        }
    }
}
