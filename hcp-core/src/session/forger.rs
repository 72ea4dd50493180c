//! Who shows on a connection of its own the PROOF that somebody else has shown on another: for the simulator.

use std::io::Write;

use super::{SessionError, tls};
use crate::wire::{FIRST_FLIGHT, Frame};

/// A stranger that has seen a PROOF.
#[derive(Debug)]
pub(crate) struct Forger {
    tls: rustls::Connection,
    /// Until it is shown.
    proof: Option<Frame>,
}

impl Forger {
    /// Shows `proof` as soon as it is greeted.
    pub(crate) fn new(proof: Frame) -> Result<Self, SessionError> {
        let tls = tls::client_config().and_then(tls::client).map_err(SessionError::Tls)?;
        Ok(Self { tls: tls.into(), proof: Some(proof) })
    }

    /// Takes bytes from the transport. Whatever is wrong with them, it has nothing to lose.
    pub(crate) fn handle_input(&mut self, mut input: &[u8]) {
        while !input.is_empty() && self.tls.read_tls(&mut input).is_ok_and(|read| read > 0) {
            let Ok(state) = self.tls.process_new_packets() else { return };
            if state.plaintext_bytes_to_read() > 0
                && let Some(proof) = self.proof.take()
            {
                let mut words = Vec::new();
                proof.encode(&mut words);
                words.resize(FIRST_FLIGHT.max(words.len()), 0);
                // What TLS does not take is not shown.
                let _ = self.tls.writer().write_all(&words);
            }
        }
    }

    /// Appends bytes for the transport to `out`.
    pub(crate) fn poll_output(&mut self, out: &mut Vec<u8>) {
        while self.tls.wants_write() {
            // Writing to a Vec cannot fail.
            if self.tls.write_tls(out).is_err() {
                return;
            }
        }
    }
}
