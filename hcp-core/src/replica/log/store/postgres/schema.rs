//! The tables of one node's schema, and whose they are.

use super::session::Session;
use crate::identity::OnionAddress;
use crate::replica::place::NodeId;
use crate::store::StoreError;

/// Each is run once.
const MIGRATIONS: &[&str] = &["
    CREATE TABLE owner (service bytea NOT NULL, node bytea NOT NULL, run bigint NOT NULL, batch bigint NOT NULL);
    CREATE TABLE logs (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        node bytea NOT NULL,
        incarnation bytea NOT NULL,
        UNIQUE (node, incarnation)
    );
    CREATE TABLE segments (
        position bigint PRIMARY KEY,
        log bigint NOT NULL,
        seq bigint NOT NULL,
        branch bigint NOT NULL,
        system boolean NOT NULL,
        hash bytea NOT NULL,
        signature bytea NOT NULL,
        header bytea NOT NULL,
        payload bytea
    );
    -- Compressing what is encrypted, or small, costs time only.
    ALTER TABLE segments ALTER COLUMN payload SET STORAGE EXTERNAL;
    CREATE INDEX places ON segments (log, seq);
    CREATE TABLE checkpoint (
        id integer PRIMARY KEY CHECK (id = 1),
        root bytea NOT NULL,
        length bigint NOT NULL,
        summary bytea NOT NULL,
        pieces bytea NOT NULL,
        certificate bytea NOT NULL
    );
    CREATE TABLE pieces (root bytea, number bigint, bytes bytea NOT NULL, PRIMARY KEY (root, number));
    ALTER TABLE pieces ALTER COLUMN bytes SET STORAGE EXTERNAL;
"];

/// Brings the schema to the newest form, and makes it where it is missing and the role may.
pub(super) async fn migrate(session: &mut Session, schema: &str) -> Result<(), StoreError> {
    let fsync: String = session.query_one("SHOW fsync", &[]).await?.try_get(0)?;
    if fsync != "on" {
        return Err(StoreError::Unsynced);
    }
    let there = session.query_opt("SELECT 1 FROM pg_namespace WHERE nspname = current_schema()", &[]).await?;
    if there.is_none() {
        session.batch_execute(&format!("CREATE SCHEMA {schema}")).await?;
    }
    session.batch_execute("CREATE TABLE IF NOT EXISTS format (version integer NOT NULL)").await?;
    let within = session.client.transaction().await?;
    within.batch_execute("LOCK TABLE format").await?;
    let found = within.query_opt("SELECT version FROM format", &[]).await?;
    let found = found.map_or(Ok(0), |row| row.try_get::<_, i32>(0))? as u32;
    let known = MIGRATIONS.len() as u32;
    if found > known {
        return Err(StoreError::TooNew { found, known });
    }
    for migration in &MIGRATIONS[found as usize..] {
        within.batch_execute(migration).await?;
    }
    within.batch_execute(&format!("DELETE FROM format; INSERT INTO format VALUES ({known})")).await?;
    Ok(within.commit().await?)
}

/// Makes a new log this node's, refuses another's, and begins a run, whose number it returns: older runs write no more.
pub(super) async fn claim(session: &Session, service: &OnionAddress, node: &NodeId) -> Result<i64, StoreError> {
    let (service, node) = (&service.public_key()[..], &node.0[..]);
    let new = "INSERT INTO owner SELECT $1, $2, 0, 0 WHERE NOT EXISTS (SELECT 1 FROM owner)";
    session.execute(new, &[&service, &node]).await?;
    let claim = "UPDATE owner SET run = run + 1, batch = 0 WHERE service = $1 AND node = $2 RETURNING run";
    match session.query_opt(claim, &[&service, &node]).await? {
        Some(row) => Ok(row.try_get(0)?),
        None => Err(StoreError::Damaged("it belongs to another service or node")),
    }
}

/// Removes states that no checkpoint took up before the end of the last run.
pub(super) async fn forget_lost_states(session: &Session) -> Result<(), StoreError> {
    session.execute("DELETE FROM pieces WHERE root NOT IN (SELECT root FROM checkpoint)", &[]).await?;
    Ok(())
}
