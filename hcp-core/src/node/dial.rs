//! Dialling: from an address to a session.
//!
//! A network finds its own way around replicas that cannot be reached. What shows only in the handshake is dealt with here: a
//! peer that was reached and then says nothing, and a replica that failed a moment ago. A delegation that does not count is told
//! at once.
//! Each is answered by another dial that shares nothing with the one before, a few times.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::{Instant, timeout};

use super::ConnectError;
use super::driver::LINGER;
use super::failure::Failure;
use super::pipe::{Pipe, READ_BUFFER, Step};
use super::sessions::Sessions;
use crate::identity::delegation::Delegation;
use crate::identity::{Identity, OnionAddress};
use crate::network::{BoxedTransport, HCP_PORT, Network};
use crate::session::{Dial, Event, HANDSHAKE_TIMEOUT, Machine, PRIMARY, Peer, SessionError, SessionId};

/// Dials of one connect beyond the first. Of three replicas, one that failed and came back is met by all of them once in 81.
const REDIALS: u32 = 3;
/// How long the first handshake of a connect may take: a round trip over a circuit that has just been built. Later ones have
/// the machine's own deadline.
const PATIENCE: Duration = Duration::from_secs(5);

/// As whom a node dials.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub enum DialAs {
    /// As the node itself; all who do so share one session with a peer.
    #[default]
    Node,
    /// As nobody in particular, which is the default towards services.
    Anonymous,
    /// As somebody else, such as an identity made for this one peer.
    Identity(Identity),
}

/// Which way a dial takes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Path {
    /// Wherever the network leads; it may be where the dial before did.
    Usual,
    /// To somebody other than who failed a moment ago, if one answers within a few dials.
    Around(Failure),
    /// Apart from all other dials, and once only: whom chance chose is who counts, also where that one does not answer.
    Apart,
}

impl From<Option<Failure>> for Path {
    fn from(failure: Option<Failure>) -> Self {
        failure.map_or(Self::Usual, Self::Around)
    }
}

impl Path {
    /// Dials beyond the first.
    fn redials(self) -> u32 {
        match self {
            Self::Usual | Self::Around(_) => REDIALS,
            Self::Apart => 0,
        }
    }

    /// Whether it leads around who holds this delegation.
    fn is_around(self, delegation: Option<&Delegation>) -> bool {
        matches!(self, Self::Around(failure) if failure.is_of(delegation))
    }
}

/// An established session that nobody drives yet.
pub(super) struct Established {
    pub(super) machine: Box<Machine>,
    pub(super) pipe: Pipe,
    pub(super) peer: Peer,
    pub(super) id: SessionId,
}

/// Dials on `path` until a handshake succeeds with somebody other than the replica that has failed; in the end also with that
/// one. `held` are the sessions of which the acceptor is told.
pub(super) async fn reach(
    network: &dyn Network,
    dial: Dial,
    held: Option<&Arc<Sessions>>,
    path: Path,
) -> Result<Established, ConnectError> {
    let mut redials = 0;
    loop {
        let transport = if redials == 0 && matches!(path, Path::Usual) {
            network.dial(dial.target, HCP_PORT).await?
        } else {
            // What was kept from before may lead to where it failed.
            network.dial_isolated(dial.target, HCP_PORT).await?
        };
        let machine = Box::new(Machine::dial(Dial { unix_now: unix_now(), ..dial.clone() }, Instant::now())?);
        let last = redials == path.redials();
        let patience = if redials == 0 && !last { PATIENCE } else { HANDSHAKE_TIMEOUT };
        let handshake = timeout(patience, establish(machine, transport, dial.target, held));
        let outcome = handshake.await.unwrap_or(Err(SessionError::HandshakeTimedOut));
        match outcome {
            Ok(reached) if last || !path.is_around(reached.machine.delegation()) => return Ok(reached),
            Ok(_) => tracing::debug!("the replica that has failed answered; dialling for another"),
            Err(error) if last || !is_worth_another(&error, redials) => return Err(error.into()),
            Err(error) => tracing::debug!(%error, "a handshake failed; dialling again"),
        }
        redials += 1;
    }
}

/// Whether another dial may do better: one, for bad luck.
fn is_worth_another(error: &SessionError, redials: u32) -> bool {
    match error {
        SessionError::HandshakeTimedOut | SessionError::Lost => redials == 0,
        _ => false,
    }
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
