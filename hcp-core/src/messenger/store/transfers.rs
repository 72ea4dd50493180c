//! Transfers in the database.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use rusqlite::{OptionalExtension, Row, params};

use super::Store;
use super::contacts::ContactId;
use crate::messenger::message::Direction;
use crate::messenger::transfer::{TransferFailure, TransferId, TransferState};
use crate::store::StoreError;

/// A transfer as it is stored.
#[derive(Clone)]
pub(in crate::messenger) struct TransferRow {
    pub(in crate::messenger) position: u64,
    pub(in crate::messenger) id: TransferId,
    pub(in crate::messenger) contact: ContactId,
    pub(in crate::messenger) direction: Direction,
    pub(in crate::messenger) name: String,
    pub(in crate::messenger) size: u64,
    pub(in crate::messenger) root: [u8; 32],
    /// The hashes of an offered file's pieces, one after the other.
    pub(in crate::messenger) pieces: Option<Vec<u8>>,
    pub(in crate::messenger) path: Option<PathBuf>,
    /// Whole pieces that are on the receiver's disk, as far as this side knows.
    pub(in crate::messenger) done: u64,
    pub(in crate::messenger) state: TransferState,
}

/// A transfer that begins.
pub(in crate::messenger) struct NewTransfer<'a> {
    pub(in crate::messenger) id: TransferId,
    pub(in crate::messenger) contact: ContactId,
    pub(in crate::messenger) direction: Direction,
    pub(in crate::messenger) name: &'a str,
    pub(in crate::messenger) size: u64,
    pub(in crate::messenger) root: &'a [u8; 32],
    pub(in crate::messenger) pieces: Option<&'a [u8]>,
    pub(in crate::messenger) path: Option<&'a Path>,
    pub(in crate::messenger) state: TransferState,
}

impl Store {
    /// Stores a transfer; returns its position.
    pub(in crate::messenger) fn insert_transfer(&self, new: &NewTransfer<'_>) -> Result<u64, StoreError> {
        let sql = "INSERT INTO transfers (transfer, contact, outgoing, name, size, root, pieces, path, done, state)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, 0, ?9)";
        self.connection().prepare_cached(sql)?.execute(params![
            new.id.0,
            new.contact.0,
            new.direction == Direction::Outgoing,
            new.name,
            new.size,
            new.root,
            new.pieces,
            new.path.map(path_bytes),
            number(new.state),
        ])?;
        // A row number is positive.
        Ok(self.connection().last_insert_rowid() as u64)
    }

    pub(in crate::messenger) fn transfer(&self, id: TransferId) -> Result<Option<TransferRow>, StoreError> {
        let mut statement = self.connection().prepare_cached(&format!("{SELECT} WHERE transfer = ?1"))?;
        statement.query_row([id.0], read).optional()?.transpose()
    }

    pub(in crate::messenger) fn transfer_at(&self, position: u64) -> Result<TransferRow, StoreError> {
        let mut statement = self.connection().prepare_cached(&format!("{SELECT} WHERE position = ?1"))?;
        statement.query_row([position], read)?
    }

    /// The newest transfers, oldest first.
    pub(in crate::messenger) fn transfers(&self, limit: usize) -> Result<Vec<TransferRow>, StoreError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let mut statement = self.connection().prepare_cached(&format!("{SELECT} ORDER BY position DESC LIMIT ?1"))?;
        let mut rows = statement.query_map([limit], read)?.collect::<Result<Result<Vec<_>, _>, _>>()??;
        rows.reverse();
        Ok(rows)
    }

    /// Whether a file is on its way to a path.
    pub(in crate::messenger) fn is_saving_to(&self, path: &Path) -> Result<bool, StoreError> {
        let sql = "SELECT count(*) FROM transfers WHERE state = 1 AND NOT outgoing AND path = ?1";
        let count: i64 = self.connection().prepare_cached(sql)?.query_row([path_bytes(path)], |row| row.get(0))?;
        Ok(count > 0)
    }

    /// The transfers with a contact that have not ended.
    pub(in crate::messenger) fn open_transfers(&self, contact: ContactId) -> Result<Vec<TransferRow>, StoreError> {
        let mut statement = self
            .connection()
            .prepare_cached(&format!("{SELECT} WHERE contact = ?1 AND state <= 1 ORDER BY position"))?;
        statement.query_map([contact.0], read)?.collect::<Result<Result<Vec<_>, _>, _>>()?
    }

    /// Notes the end of a transfer that is not known.
    pub(in crate::messenger) fn insert_end(
        &self,
        contact: ContactId,
        id: TransferId,
        direction: Direction,
        state: TransferState,
    ) -> Result<(), StoreError> {
        let sql = "INSERT OR IGNORE INTO ends (contact, transfer, outgoing, state) VALUES (?1, ?2, ?3, ?4)";
        let outgoing = direction == Direction::Outgoing;
        self.connection().prepare_cached(sql)?.execute(params![contact.0, id.0, outgoing, number(state)])?;
        Ok(())
    }

    /// The ends that were noted of a transfer: in which direction they were written, and what it came to.
    pub(in crate::messenger) fn ends(
        &self,
        contact: ContactId,
        id: TransferId,
    ) -> Result<Vec<(Direction, TransferState)>, StoreError> {
        let sql = "SELECT outgoing, state FROM ends WHERE contact = ?1 AND transfer = ?2";
        let mut statement = self.connection().prepare_cached(sql)?;
        let rows = statement.query_map(params![contact.0, id.0], |row| Ok((row.get(0)?, row.get(1)?)))?;
        rows.map(|row| {
            let (outgoing, state) = row?;
            Ok((if outgoing { Direction::Outgoing } else { Direction::Incoming }, transfer_state(state)?))
        })
        .collect()
    }

    /// Notes that what there is of a file is to be deleted.
    pub(in crate::messenger) fn insert_discard(&self, path: &Path) -> Result<(), StoreError> {
        let sql = "INSERT OR IGNORE INTO discards (path) VALUES (?1)";
        self.connection().prepare_cached(sql)?.execute([path_bytes(path)])?;
        Ok(())
    }

    /// It is deleted, or belongs to another transfer from now on.
    pub(in crate::messenger) fn remove_discard(&self, path: &Path) -> Result<(), StoreError> {
        self.connection().prepare_cached("DELETE FROM discards WHERE path = ?1")?.execute([path_bytes(path)])?;
        Ok(())
    }

    /// Where something is to be deleted.
    pub(in crate::messenger) fn discards(&self) -> Result<Vec<PathBuf>, StoreError> {
        let mut statement = self.connection().prepare_cached("SELECT path FROM discards")?;
        let paths = statement.query_map([], |row| row.get(0).map(path_from_bytes))?;
        Ok(paths.collect::<Result<_, _>>()?)
    }

    /// Writes what can change: done, path and state.
    pub(in crate::messenger) fn update_transfer(&self, row: &TransferRow) -> Result<(), StoreError> {
        let sql = "UPDATE transfers SET done = ?2, path = ?3, state = ?4 WHERE position = ?1";
        self.connection().prepare_cached(sql)?.execute(params![
            row.position,
            row.done,
            row.path.as_deref().map(path_bytes),
            number(row.state),
        ])?;
        Ok(())
    }
}

const SELECT: &str =
    "SELECT position, transfer, contact, outgoing, name, size, root, pieces, path, done, state FROM transfers";

fn read(row: &Row<'_>) -> rusqlite::Result<Result<TransferRow, StoreError>> {
    let state: u8 = row.get(10)?;
    let transfer = TransferRow {
        position: row.get(0)?,
        id: TransferId(row.get(1)?),
        contact: ContactId(row.get(2)?),
        direction: if row.get(3)? { Direction::Outgoing } else { Direction::Incoming },
        name: row.get(4)?,
        size: row.get(5)?,
        root: row.get(6)?,
        pieces: row.get(7)?,
        path: row.get::<_, Option<Vec<u8>>>(8)?.map(path_from_bytes),
        done: row.get(9)?,
        state: TransferState::Offered,
    };
    Ok(transfer_state(state).map(|state| TransferRow { state, ..transfer }))
}

/// Paths need not be Unicode.
fn path_bytes(path: &Path) -> Vec<u8> {
    path.as_os_str().as_encoded_bytes().to_vec()
}

#[cfg(unix)]
fn path_from_bytes(bytes: Vec<u8>) -> PathBuf {
    PathBuf::from(<OsString as std::os::unix::ffi::OsStringExt>::from_vec(bytes))
}

#[cfg(not(unix))]
fn path_from_bytes(bytes: Vec<u8>) -> PathBuf {
    PathBuf::from(OsString::from(String::from_utf8_lossy(&bytes).into_owned()))
}

pub(in crate::messenger) fn number(state: TransferState) -> u8 {
    STATES.iter().position(|other| *other == state).map_or(u8::MAX, |index| index as u8)
}

pub(in crate::messenger) fn transfer_state(number: u8) -> Result<TransferState, StoreError> {
    STATES.get(usize::from(number)).copied().ok_or(StoreError::Damaged("a transfer has no state"))
}

/// Their places are on disk; that the first two are open also stands in a query.
const STATES: [TransferState; 9] = [
    TransferState::Offered,
    TransferState::Running,
    TransferState::Done,
    TransferState::Declined,
    TransferState::Cancelled,
    TransferState::Failed(TransferFailure::Mismatch),
    TransferState::Failed(TransferFailure::SourceChanged),
    TransferState::Failed(TransferFailure::Disk),
    TransferState::Failed(TransferFailure::Removed),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_comes_back_as_it_was() {
        for state in STATES {
            assert_eq!(transfer_state(number(state)).unwrap(), state);
        }
        assert!(transfer_state(STATES.len() as u8).is_err());
    }
}
