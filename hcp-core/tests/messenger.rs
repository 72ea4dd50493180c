//! Two people on the memory network: contacts, messages, presence, events.

#![allow(clippy::unwrap_used)]

mod messenger {
    mod contacts;
    mod files;
    mod harness;
    mod messages;
    mod profiles;
}
