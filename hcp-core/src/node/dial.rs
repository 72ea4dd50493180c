//! Dialling: from an address to a session.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::time::{Instant, timeout};

use super::driver::LINGER;
use super::pipe::{Pipe, READ_BUFFER, Step};
use super::sessions::Sessions;
use crate::identity::OnionAddress;
use crate::network::BoxedTransport;
use crate::session::{Event, Machine, PRIMARY, Peer, SessionError, SessionId};

/// An established session that nobody drives yet.
pub(super) struct Established {
    pub(super) machine: Box<Machine>,
    pub(super) pipe: Pipe,
    pub(super) peer: Peer,
    pub(super) id: SessionId,
}

/// Runs the dialler's handshake, within the machine's deadline. `held` are the sessions of which the acceptor is told.
pub(super) async fn establish(
    mut machine: Box<Machine>,
    transport: BoxedTransport,
    target: OnionAddress,
    held: Option<&Arc<Sessions>>,
) -> Result<Established, SessionError> {
    let mut pipe = Pipe::new(transport);
    let mut input = vec![0; READ_BUFFER];
    let error = loop {
        let deadline = machine.poll_timeout();
        let step = pipe.step(&mut input, deadline, |out| machine.poll_output(Instant::now(), PRIMARY, out)).await?;
        let moved = match step {
            Step::Read(n) => {
                // As late as can be: a session that the peer dialled may have come in between.
                machine.set_known(held.and_then(|held| held.current_id(target)));
                machine.handle_input(Instant::now(), PRIMARY, &input[..n])
            }
            Step::Wrote => Ok(()),
            Step::Deadline => machine.handle_timeout(Instant::now()),
        };
        if let Err(error) = moved {
            break error;
        }
        if let Some(Event::Established(peer)) = machine.poll_event() {
            // A machine that is established has its id.
            let id = machine.session_id().ok_or(SessionError::Lost)?;
            return Ok(Established { machine, pipe, peer, id });
        }
    };
    // An alert of TLS tells the other side what is wrong.
    let words = pipe.finish(|out| machine.poll_output(Instant::now(), PRIMARY, out));
    let _ = timeout(LINGER, words).await;
    Err(error)
}

/// The wall clock, in seconds since 1970.
pub(super) fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
