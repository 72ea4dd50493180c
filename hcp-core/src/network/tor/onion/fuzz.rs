//! What arbitrary bytes do to the readers of this module.

use tor_llcrypto::pk::ed25519::Keypair;

use super::rendezvous::{Keys, open, place};
use crate::network::onion::PointSecrets;

/// An introduction that was not made for this point is refused, and one that was decrypted is read without a panic.
pub(super) fn introduction(data: &[u8]) {
    let keys = Keys::new(&PointSecrets::from_bytes(&[7; 64]));
    let (header, encrypted) = data.split_at(data.len().min(56));
    assert!(open(&keys, &[[3; 32].into()], header, encrypted).is_err(), "nobody knows the key");
    let _ = place(data);
}

/// A certificate that is rebuilt is the one that was given.
pub(super) fn certificate(data: &[u8]) {
    let blinded = Keypair::from_bytes(&[1; 32]).verifying_key();
    let key = Keypair::from_bytes(&[2; 32]).verifying_key();
    assert!(super::certificate::rebuild(data, &blinded, &key).is_err(), "nobody signed it");
}
