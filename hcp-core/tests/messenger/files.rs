//! Files between contacts.
