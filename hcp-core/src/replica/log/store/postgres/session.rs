//! Connections to a server: one that writes, and a few that read, made anew when the server went away.

use std::fmt;
use std::ops::Deref;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task::JoinHandle;
use tokio_postgres::{Client, NoTls};

use crate::store::StoreError;

/// A server that does not answer for so long when it is connected to is away.
const CONNECT: Duration = Duration::from_secs(10);

/// A server, and the schema in it that one node's log is kept in.
#[derive(Clone)]
pub(crate) struct Server {
    config: tokio_postgres::Config,
    schema: String,
}

impl Server {
    /// Takes a connection string and the name of a schema, of ASCII letters, digits and underscores.
    ///
    /// The connection is not encrypted: reach a server on another machine through a tunnel.
    ///
    /// # Errors
    /// [`StoreError::Postgres`] where the string is wrong, [`StoreError::Damaged`] where the name is.
    pub(crate) fn new(connection: &str, schema: &str) -> Result<Self, StoreError> {
        let mut config: tokio_postgres::Config = connection.parse()?;
        if !is_name(schema) {
            return Err(StoreError::Damaged("a schema's name has other characters than letters, digits, underscores"));
        }
        // A server whose machine or network is gone sends no end of a connection.
        config.connect_timeout(CONNECT).keepalives_idle(CONNECT).keepalives_interval(CONNECT).keepalives_retries(3);
        config.tcp_user_timeout(3 * CONNECT);
        config.application_name("hcp");
        // Whatever the server's or the role's default is: what is reported must survive a power cut.
        config.options(format!("-c synchronous_commit=on -c search_path={schema}"));
        Ok(Self { config, schema: schema.to_owned() })
    }

    pub(crate) fn schema(&self) -> &str {
        &self.schema
    }

    pub(super) async fn connect(&self) -> Result<Session, StoreError> {
        // A server that is frozen takes connections all the same, and says nothing.
        let connected = tokio::time::timeout(CONNECT, self.config.connect(NoTls)).await;
        let (client, connection) = connected.map_err(|_| StoreError::Silent)??;
        let driver = tokio::spawn(async move {
            // Whoever uses the session hears of it.
            let _ = connection.await;
        });
        Ok(Session { client, driver })
    }
}

/// Whether a name can stand in a statement as it is.
fn is_name(name: &str) -> bool {
    !name.is_empty() && name.len() < 64 && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("schema", &self.schema).finish_non_exhaustive()
    }
}

/// A connection with the task that drives it.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) client: Client,
    driver: JoinHandle<()>,
}

impl Deref for Session {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// Sessions that read.
#[derive(Debug)]
pub(super) struct Pool {
    server: Server,
    /// One for each session.
    turns: Semaphore,
    /// One for each who waits or reads.
    waiting: Semaphore,
    idle: Mutex<Vec<Session>>,
}

impl Pool {
    pub(super) fn new(server: Server, sessions: usize, waiting: usize) -> Self {
        let (turns, waiting) = (Semaphore::new(sessions), Semaphore::new(waiting));
        Self { server, turns, waiting, idle: Mutex::default() }
    }

    /// Waits for a session, which comes back when the lease is dropped.
    pub(super) async fn take(&self) -> Result<Lease<'_>, StoreError> {
        let waits = self.waiting.acquire().await.map_err(|_| StoreError::Closed)?;
        let turn = self.turns.acquire().await.map_err(|_| StoreError::Closed)?;
        let idle = self.idle().pop();
        let session = match idle.filter(|session| !session.is_closed()) {
            Some(session) => session,
            None => self.server.connect().await?,
        };
        Ok(Lease { pool: self, session: Some(session), _permits: (waits, turn) })
    }

    /// Nobody is answered from now on.
    pub(super) fn end(&self) {
        self.waiting.close();
        self.turns.close();
        self.idle().clear();
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Session>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A session for one question.
#[derive(Debug)]
pub(super) struct Lease<'a> {
    pool: &'a Pool,
    /// There until it is dropped.
    session: Option<Session>,
    _permits: (SemaphorePermit<'a>, SemaphorePermit<'a>),
}

impl Deref for Lease<'_> {
    type Target = Session;

    fn deref(&self) -> &Session {
        self.session.as_ref().expect("it is taken out when the lease is dropped")
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        let open = self.session.take().filter(|session| !session.is_closed() && !self.pool.turns.is_closed());
        self.pool.idle().extend(open);
    }
}
