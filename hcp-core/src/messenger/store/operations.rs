//! Operations in the database: what was written to contacts and by them, in both directions.
//!
//! An operation gets its place, an epoch and a sequence number, when it is about to be sent, in the same transaction that
//! says so; one that was not about to be sent has none and can be cancelled.

use rusqlite::{OptionalExtension, Row, params};

use super::Store;
use super::contacts::ContactId;
use crate::messenger::message::{Direction, FailureReason, MessageId, MessageState};
use crate::store::StoreError;

/// One opening of a sender's database, as one contact sees it; random.
pub(in crate::messenger) type Epoch = [u8; 16];

/// An operation as it is stored.
#[derive(Clone)]
pub(in crate::messenger) struct OperationRow {
    pub(in crate::messenger) position: u64,
    pub(in crate::messenger) contact: ContactId,
    pub(in crate::messenger) direction: Direction,
    pub(in crate::messenger) id: MessageId,
    pub(in crate::messenger) mark: Vec<u8>,
    pub(in crate::messenger) content: Vec<u8>,
    pub(in crate::messenger) millis: u64,
    pub(in crate::messenger) state: MessageState,
    pub(in crate::messenger) is_text: bool,
}

/// What is to be stored.
pub(in crate::messenger) struct Written<'a> {
    pub(in crate::messenger) contact: ContactId,
    pub(in crate::messenger) direction: Direction,
    pub(in crate::messenger) id: MessageId,
    pub(in crate::messenger) place: Option<(Epoch, u64)>,
    pub(in crate::messenger) mark: &'a [u8],
    pub(in crate::messenger) content: &'a [u8],
    pub(in crate::messenger) is_text: bool,
    pub(in crate::messenger) millis: u64,
    pub(in crate::messenger) state: MessageState,
}

impl Store {
    /// Stores an operation; returns its position.
    pub(in crate::messenger) fn insert_operation(&self, written: &Written<'_>) -> Result<u64, StoreError> {
        let sql = "INSERT INTO operations (contact, outgoing, id, epoch, seq, mark, content, text, millis, state)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";
        self.connection().prepare_cached(sql)?.execute(params![
            written.contact.0,
            outgoing(written.direction),
            written.id.0,
            written.place.map(|(epoch, _)| epoch),
            written.place.map(|(_, seq)| seq),
            written.mark,
            written.content,
            written.is_text,
            written.millis,
            number(written.state),
        ])?;
        // A row number is positive.
        Ok(self.connection().last_insert_rowid() as u64)
    }

    pub(in crate::messenger) fn operation(&self, position: u64) -> Result<OperationRow, StoreError> {
        self.one("WHERE position = ?1", params![position])?.ok_or(StoreError::Damaged("an operation is missing"))
    }

    /// An operation with a contact.
    pub(in crate::messenger) fn operation_with(
        &self,
        contact: ContactId,
        direction: Direction,
        id: MessageId,
    ) -> Result<Option<OperationRow>, StoreError> {
        let filter = "WHERE contact = ?1 AND outgoing = ?2 AND id = ?3";
        self.one(filter, params![contact.0, outgoing(direction), id.0])
    }

    /// A text by its id alone; an own one, when a contact has given one of its own the same id.
    pub(in crate::messenger) fn text(&self, id: MessageId) -> Result<Option<OperationRow>, StoreError> {
        self.one("WHERE id = ?1 AND text ORDER BY outgoing DESC, position LIMIT 1", params![id.0])
    }

    /// The newest texts before a position, oldest first.
    pub(in crate::messenger) fn texts(
        &self,
        contact: ContactId,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<OperationRow>, StoreError> {
        let before = before.map_or(i64::MAX, |before| i64::try_from(before).unwrap_or(i64::MAX));
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let filter = "WHERE contact = ?1 AND text AND position < ?2 ORDER BY position DESC LIMIT ?3";
        let mut rows = self.many(filter, params![contact.0, before, limit])?;
        rows.reverse();
        Ok(rows)
    }

    pub(in crate::messenger) fn count_queued(&self, contact: ContactId) -> Result<usize, StoreError> {
        let sql = "SELECT count(*) FROM operations WHERE contact = ?1 AND state = 0";
        let count: i64 = self.connection().prepare_cached(sql)?.query_row([contact.0], |row| row.get(0))?;
        Ok(usize::try_from(count).unwrap_or(usize::MAX))
    }

    /// The operations that wait, oldest first, above a position.
    pub(in crate::messenger) fn queued(
        &self,
        contact: ContactId,
        above: u64,
        limit: usize,
    ) -> Result<Vec<OperationRow>, StoreError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let filter = "WHERE contact = ?1 AND state = 0 AND position > ?2 ORDER BY position LIMIT ?3";
        self.many(filter, params![contact.0, above, limit])
    }

    pub(in crate::messenger) fn set_operation_state(
        &self,
        position: u64,
        state: MessageState,
    ) -> Result<(), StoreError> {
        let sql = "UPDATE operations SET state = ?2 WHERE position = ?1";
        self.connection().prepare_cached(sql)?.execute(params![position, number(state)])?;
        Ok(())
    }

    /// Gives an operation its place: it is about to be sent.
    pub(in crate::messenger) fn place_operation(
        &self,
        position: u64,
        epoch: Epoch,
        seq: u64,
        state: MessageState,
    ) -> Result<(), StoreError> {
        let sql = "UPDATE operations SET epoch = ?2, seq = ?3, state = ?4 WHERE position = ?1";
        self.connection().prepare_cached(sql)?.execute(params![position, epoch, seq, number(state)])?;
        Ok(())
    }

    /// Those of an epoch above a sequence number, in order, with their numbers.
    pub(in crate::messenger) fn placed(
        &self,
        contact: ContactId,
        direction: Direction,
        epoch: &Epoch,
        above: u64,
        limit: usize,
    ) -> Result<Vec<(u64, OperationRow)>, StoreError> {
        let sql = format!(
            "SELECT {COLUMNS}, seq FROM operations WHERE contact = ?1 AND outgoing = ?2 AND epoch = ?3 AND seq > ?4
            ORDER BY seq LIMIT ?5"
        );
        let mut statement = self.connection().prepare_cached(&sql)?;
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let arguments = params![contact.0, outgoing(direction), epoch, above, limit];
        let rows = statement.query_map(arguments, |row| Ok((row.get::<_, u64>(COLUMN_COUNT)?, read(row)?)))?;
        rows.map(|row| row.map_err(StoreError::from).and_then(|(seq, row)| Ok((seq, row?)))).collect()
    }

    /// Those on their way in an epoch, up to a sequence number.
    pub(in crate::messenger) fn written_up_to(
        &self,
        contact: ContactId,
        epoch: &Epoch,
        seq: u64,
    ) -> Result<Vec<OperationRow>, StoreError> {
        self.many(
            "WHERE state = 1 AND contact = ?1 AND epoch = ?2 AND seq <= ?3 AND outgoing ORDER BY seq",
            params![contact.0, epoch, seq],
        )
    }

    /// Whether something of an own epoch is on its way.
    pub(in crate::messenger) fn is_on_its_way(&self, contact: ContactId, epoch: &Epoch) -> Result<bool, StoreError> {
        let sql =
            "SELECT EXISTS (SELECT 1 FROM operations WHERE state = 1 AND contact = ?1 AND epoch = ?2 AND outgoing)";
        Ok(self.connection().prepare_cached(sql)?.query_row(params![contact.0, epoch], |row| row.get(0))?)
    }

    /// The epochs of one direction in the order in which they began here, with their highest numbers.
    pub(in crate::messenger) fn epochs(
        &self,
        contact: ContactId,
        direction: Direction,
    ) -> Result<Vec<(Epoch, u64)>, StoreError> {
        let sql = "SELECT epoch, seq FROM epochs WHERE contact = ?1 AND outgoing = ?2 ORDER BY number";
        let mut statement = self.connection().prepare_cached(sql)?;
        let rows =
            statement.query_map(params![contact.0, outgoing(direction)], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    pub(in crate::messenger) fn epoch(
        &self,
        contact: ContactId,
        direction: Direction,
        epoch: &Epoch,
    ) -> Result<Option<u64>, StoreError> {
        let sql = "SELECT seq FROM epochs WHERE contact = ?1 AND outgoing = ?2 AND epoch = ?3";
        let mut statement = self.connection().prepare_cached(sql)?;
        Ok(statement.query_row(params![contact.0, outgoing(direction), epoch], |row| row.get(0)).optional()?)
    }

    pub(in crate::messenger) fn count_epochs(
        &self,
        contact: ContactId,
        direction: Direction,
    ) -> Result<usize, StoreError> {
        let sql = "SELECT count(*) FROM epochs WHERE contact = ?1 AND outgoing = ?2";
        let mut statement = self.connection().prepare_cached(sql)?;
        let count: i64 = statement.query_row(params![contact.0, outgoing(direction)], |row| row.get(0))?;
        Ok(usize::try_from(count).unwrap_or(usize::MAX))
    }

    /// Notes the highest number of an epoch, which begins with it when it is new.
    pub(in crate::messenger) fn set_epoch(
        &self,
        contact: ContactId,
        direction: Direction,
        epoch: &Epoch,
        seq: u64,
    ) -> Result<(), StoreError> {
        let sql = "INSERT INTO epochs (contact, outgoing, epoch, seq) VALUES (?1, ?2, ?3, ?4)
            ON CONFLICT (contact, outgoing, epoch) DO UPDATE SET seq = ?4";
        self.connection().prepare_cached(sql)?.execute(params![contact.0, outgoing(direction), epoch, seq])?;
        Ok(())
    }

    /// Notes the highest number of an own epoch that the contact has given back.
    pub(in crate::messenger) fn set_recalled(
        &self,
        contact: ContactId,
        epoch: &Epoch,
        seq: u64,
    ) -> Result<(), StoreError> {
        let sql = "INSERT INTO epochs (contact, outgoing, epoch, seq, recalled) VALUES (?1, 1, ?2, ?3, 1)
            ON CONFLICT (contact, outgoing, epoch) DO UPDATE SET seq = ?3";
        self.connection().prepare_cached(sql)?.execute(params![contact.0, epoch, seq])?;
        Ok(())
    }

    /// How many own epochs began with what a contact gave back.
    pub(in crate::messenger) fn count_recalled(&self, contact: ContactId) -> Result<usize, StoreError> {
        let sql = "SELECT count(*) FROM epochs WHERE contact = ?1 AND outgoing AND recalled";
        let count: i64 = self.connection().prepare_cached(sql)?.query_row([contact.0], |row| row.get(0))?;
        Ok(usize::try_from(count).unwrap_or(usize::MAX))
    }

    /// Forgets the epoch of a contact's that began first here.
    pub(in crate::messenger) fn forget_epoch(&self, contact: ContactId) -> Result<(), StoreError> {
        let sql =
            "DELETE FROM epochs WHERE number = (SELECT min(number) FROM epochs WHERE contact = ?1 AND NOT outgoing)";
        self.connection().prepare_cached(sql)?.execute([contact.0])?;
        Ok(())
    }

    /// All operations with a contact, in the order in which they came here.
    #[cfg(test)]
    pub(in crate::messenger) fn operations(&self, contact: ContactId) -> Vec<OperationRow> {
        self.many("WHERE contact = ?1 ORDER BY position", params![contact.0]).unwrap()
    }

    fn one(&self, filter: &str, arguments: &[&dyn rusqlite::ToSql]) -> Result<Option<OperationRow>, StoreError> {
        let mut statement = self.connection().prepare_cached(&format!("SELECT {COLUMNS} FROM operations {filter}"))?;
        statement.query_row(arguments, read).optional()?.transpose()
    }

    fn many(&self, filter: &str, arguments: &[&dyn rusqlite::ToSql]) -> Result<Vec<OperationRow>, StoreError> {
        let mut statement = self.connection().prepare_cached(&format!("SELECT {COLUMNS} FROM operations {filter}"))?;
        statement.query_map(arguments, read)?.collect::<Result<Result<Vec<_>, _>, _>>()?
    }
}

const COLUMNS: &str = "position, contact, outgoing, id, mark, content, millis, state, text";
const COLUMN_COUNT: usize = 9;

fn read(row: &Row<'_>) -> rusqlite::Result<Result<OperationRow, StoreError>> {
    let state: u8 = row.get(7)?;
    let operation = OperationRow {
        position: row.get(0)?,
        contact: ContactId(row.get(1)?),
        direction: if row.get(2)? { Direction::Outgoing } else { Direction::Incoming },
        id: MessageId(row.get(3)?),
        mark: row.get(4)?,
        content: row.get(5)?,
        millis: row.get(6)?,
        state: MessageState::Queued,
        is_text: row.get(8)?,
    };
    Ok(message_state(state).map(|state| OperationRow { state, ..operation }))
}

fn outgoing(direction: Direction) -> bool {
    direction == Direction::Outgoing
}

pub(in crate::messenger) fn number(state: MessageState) -> u8 {
    STATES.iter().position(|other| *other == state).map_or(u8::MAX, |index| index as u8)
}

pub(in crate::messenger) fn message_state(number: u8) -> Result<MessageState, StoreError> {
    STATES.get(usize::from(number)).copied().ok_or(StoreError::Damaged("a message has no state"))
}

/// Their places are on disk; the first two also in the schema.
const STATES: [MessageState; 6] = [
    MessageState::Queued,
    MessageState::Written,
    MessageState::Delivered,
    MessageState::Cancelled,
    MessageState::Failed(FailureReason::Rejected),
    MessageState::Failed(FailureReason::Removed),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_comes_back_as_it_was() {
        for state in STATES {
            assert_eq!(message_state(number(state)).unwrap(), state);
        }
        assert!(message_state(STATES.len() as u8).is_err());
    }
}
