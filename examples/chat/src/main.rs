//! hcp-chat: talk and send files from person to person over Tor, without a server.

fn main() {}
