//! Two people on the memory network: contacts, messages, presence, events; and peers that behave badly.

#![allow(clippy::unwrap_used)]

mod messenger {
    mod contacts;
    mod files;
    mod harness;
    mod hostile;
    mod messages;
    mod profiles;
}
