//! The server as its clients see it: scripted clients over in-memory streams, nodes over an in-memory network, real logs
//! on disk.

#[path = "irc/channels.rs"]
mod channels;
#[path = "irc/harness.rs"]
mod harness;
#[path = "irc/messages.rs"]
mod messages;
#[path = "irc/nodes.rs"]
mod nodes;
#[path = "irc/registration.rs"]
mod registration;
