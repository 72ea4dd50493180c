//! What every fuzz target runs: each function takes arbitrary bytes, and panics where the library breaks its word.
//!
//! `hcp-core/fuzz` calls them under cargo-fuzz, `tests/fuzz.rs` on stable Rust. They are of no other use: no session is
//! opened here that one could speak through.

/// Frames: however the bytes are cut, the same frames come out of them.
pub fn frame(data: &[u8]) {
    crate::wire::fuzz::frames(data);
}

/// HELLO to a dialler, or PROOF and JOIN to an acceptor, inside TLS.
pub fn hello(data: &[u8]) {
    let _outcome = crate::session::fuzz::first_words(data);
}

/// Owner certificates and delegations: none is taken that was not signed.
pub fn delegation(data: &[u8]) {
    crate::identity::fuzz::delegation(data);
}

/// Manifests: as they come, and with the owner's signature behind them.
pub fn manifest(data: &[u8]) {
    crate::identity::fuzz::manifest(data);
}

/// A node's request to its owner.
pub fn request(data: &[u8]) {
    crate::owner::fuzz::request(data);
}

/// An owner's grant to a node, and the owner's book.
pub fn grant(data: &[u8]) {
    crate::owner::fuzz::grant(data);
}

/// A session's input: before TLS, in the place of the handshake, and inside TLS once the session is established.
pub fn session(data: &[u8]) {
    let _events = crate::session::fuzz::session(data);
}

/// Onion addresses and public keys.
pub fn address(data: &[u8]) {
    crate::identity::fuzz::address(data);
}

/// Key files of every purpose.
pub fn key_file(data: &[u8]) {
    crate::identity::fuzz::key_file(data);
}

/// C tor's secret key files.
pub fn tor_key(data: &[u8]) {
    crate::identity::fuzz::tor_key(data);
}

/// What a node and its warden say to each other.
pub fn warden(data: &[u8]) {
    crate::service::warden::fuzz::message(data);
}

/// What nodes that share a log tell each other, and what stands in it.
#[cfg(feature = "replica")]
pub fn log(data: &[u8]) {
    crate::replica::log::fuzz::log(data);
}

/// What the members of a replicated service tell each other.
pub fn gossip(data: &[u8]) {
    crate::service::gossip::fuzz::message(data);
}
