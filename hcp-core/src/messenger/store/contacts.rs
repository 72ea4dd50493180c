//! Contacts in the database.

use rusqlite::{OptionalExtension, Row, params};

use super::Store;
use crate::identity::OnionAddress;
use crate::messenger::contact::ContactState;
use crate::store::StoreError;

/// Names a contact inside the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(in crate::messenger) struct ContactId(pub(super) i64);

impl ContactId {
    pub(in crate::messenger) fn number(self) -> i64 {
        self.0
    }

    pub(in crate::messenger) fn from_number(number: i64) -> Self {
        Self(number)
    }
}

/// A contact as it is stored.
#[derive(Clone)]
pub(in crate::messenger) struct ContactRow {
    pub(in crate::messenger) id: ContactId,
    pub(in crate::messenger) address: OnionAddress,
    pub(in crate::messenger) petname: String,
    pub(in crate::messenger) name: String,
    pub(in crate::messenger) greeting: String,
    pub(in crate::messenger) state: ContactState,
    /// Blocked, and has asked since.
    pub(in crate::messenger) shadow: bool,
}

impl Store {
    pub(in crate::messenger) fn contacts(&self) -> Result<Vec<ContactRow>, StoreError> {
        let mut statement = self.connection().prepare_cached(&format!("{SELECT} ORDER BY contact"))?;
        statement.query_map([], read)?.collect::<Result<Result<Vec<_>, _>, _>>()?
    }

    pub(in crate::messenger) fn contact(&self, address: &OnionAddress) -> Result<Option<ContactRow>, StoreError> {
        let mut statement = self.connection().prepare_cached(&format!("{SELECT} WHERE address = ?1"))?;
        statement.query_row([address.public_key()], read).optional()?.transpose()
    }

    pub(in crate::messenger) fn contact_by_id(&self, id: ContactId) -> Result<ContactRow, StoreError> {
        let mut statement = self.connection().prepare_cached(&format!("{SELECT} WHERE contact = ?1"))?;
        statement.query_row([id.0], read)?
    }

    /// Forgets the oldest contact that was declined or archived and with whom nothing was ever written; `false` when there is
    /// none.
    pub(in crate::messenger) fn forget_contact(&self) -> Result<bool, StoreError> {
        let sql = format!("DELETE FROM contacts WHERE contact = ({FORGETTABLE})");
        Ok(self.connection().execute(&sql, FORGETTABLE_STATES.map(number))? > 0)
    }

    /// Whether [`Self::forget_contact`] would find one.
    pub(in crate::messenger) fn can_forget_contact(&self) -> Result<bool, StoreError> {
        let sql = format!("SELECT ({FORGETTABLE}) IS NOT NULL");
        Ok(self.connection().query_row(&sql, FORGETTABLE_STATES.map(number), |row| row.get(0))?)
    }

    /// A contact that may be forgotten by now.
    pub(in crate::messenger) fn known_contact(&self, id: ContactId) -> Result<Option<ContactRow>, StoreError> {
        let mut statement = self.connection().prepare_cached(&format!("{SELECT} WHERE contact = ?1"))?;
        statement.query_row([id.0], read).optional()?.transpose()
    }

    /// How many contacts there are, in one state or in all.
    pub(in crate::messenger) fn count_contacts(&self, state: Option<ContactState>) -> Result<usize, StoreError> {
        let sql = "SELECT count(*) FROM contacts WHERE ?1 IS NULL OR state = ?1";
        let count: i64 = self.connection().query_row(sql, [state.map(number)], |row| row.get(0))?;
        Ok(usize::try_from(count).unwrap_or(usize::MAX))
    }

    pub(in crate::messenger) fn insert_contact(
        &self,
        address: &OnionAddress,
        state: ContactState,
    ) -> Result<ContactRow, StoreError> {
        let sql =
            "INSERT INTO contacts (address, petname, name, greeting, state, shadow) VALUES (?1, '', '', '', ?2, 0)";
        self.connection().execute(sql, params![address.public_key(), number(state)])?;
        let id = ContactId(self.connection().last_insert_rowid());
        let (petname, name, greeting) = Default::default();
        Ok(ContactRow { id, address: *address, petname, name, greeting, state, shadow: false })
    }

    /// Writes everything but the address.
    pub(in crate::messenger) fn update_contact(&self, row: &ContactRow) -> Result<(), StoreError> {
        let sql =
            "UPDATE contacts SET petname = ?2, name = ?3, greeting = ?4, state = ?5, shadow = ?6 WHERE contact = ?1";
        let mut statement = self.connection().prepare_cached(sql)?;
        statement.execute(params![row.id.0, row.petname, row.name, row.greeting, number(row.state), row.shadow])?;
        Ok(())
    }
}

const SELECT: &str = "SELECT contact, address, petname, name, greeting, state, shadow FROM contacts";

/// The contact that is forgotten first.
const FORGETTABLE: &str = "SELECT min(contact) FROM contacts WHERE state IN (?1, ?2)
    AND contact NOT IN (SELECT contact FROM operations) AND contact NOT IN (SELECT contact FROM epochs)
    AND contact NOT IN (SELECT contact FROM transfers)";
const FORGETTABLE_STATES: [ContactState; 2] = [ContactState::Declined, ContactState::Archived];

fn read(row: &Row<'_>) -> rusqlite::Result<Result<ContactRow, StoreError>> {
    let (address, state): ([u8; 32], u8) = (row.get(1)?, row.get(5)?);
    let shadow: bool = row.get(6)?;
    let (id, petname, name, greeting) = (ContactId(row.get(0)?), row.get(2)?, row.get(3)?, row.get(4)?);
    let address = OnionAddress::from_public_key(address).map_err(|_| StoreError::Damaged("a contact has no address"));
    Ok(address.and_then(|address| {
        Ok(ContactRow { id, address, petname, name, greeting, state: contact_state(state)?, shadow })
    }))
}

fn number(state: ContactState) -> u8 {
    STATES.iter().position(|other| *other == state).map_or(u8::MAX, |index| index as u8)
}

fn contact_state(number: u8) -> Result<ContactState, StoreError> {
    STATES.get(usize::from(number)).copied().ok_or(StoreError::Damaged("a contact has no state"))
}

/// Their places are on disk.
const STATES: [ContactState; 10] = [
    ContactState::Draft,
    ContactState::RequestQueued,
    ContactState::RequestSent,
    ContactState::Pending,
    ContactState::Accepted,
    ContactState::Declined,
    ContactState::Rejected,
    ContactState::Blocked,
    ContactState::RemovedByPeer,
    ContactState::Archived,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_comes_back_as_it_was() {
        for state in STATES {
            assert_eq!(contact_state(number(state)).unwrap(), state);
        }
        assert!(contact_state(STATES.len() as u8).is_err());
    }
}
