//! hcp-chat as its users see it: the real program, on loopback and on a private Tor network.

#![allow(clippy::unwrap_used)]

#[path = "chat/contacts.rs"]
mod contacts;
#[path = "chat/files.rs"]
mod files;
#[path = "chat/messages.rs"]
mod messages;
#[path = "chat/program.rs"]
mod program;
#[path = "chat/protocol.rs"]
mod protocol;
#[path = "chat/secrets.rs"]
mod secrets;
#[path = "chat/tor.rs"]
mod tor;
#[path = "chat/world.rs"]
mod world;
