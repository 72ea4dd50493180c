//! One introduction point: establishing it at a relay, and taking what is introduced there.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arti_client::{ErrorKind, HasKind as _};
use rand::RngExt as _;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot, watch};
use tokio::time::{sleep, timeout};
use tor_cell::relaycell::hs::est_intro::{DosParams, EstablishIntroDetails};
use tor_cell::relaycell::msg::{AnyRelayMsg, Introduce2, Unrecognized};
use tor_cell::relaycell::{RelayCmd, RelayMsg as _};
use tor_circmgr::ServiceOnionServiceIntroTunnel;
use tor_linkspec::CircTarget as _;
use tor_netdir::Timeliness;
use tor_netdir::params::NetParameters;
use tor_proto::{MetaCellDisposition, MsgHandler, TargetHop};
use tor_protover::named::HSINTRO_RATELIM;
use tracing::debug;

use super::queue::Queue;
use super::rendezvous::{Introduction, Keys};
use super::replay::{Log, Verdict, tag};
use super::{AbortOnDrop, Counters, IntroductionRate, Shared, view};
use crate::network::onion::{EstablishError, Point, PointSecrets, RelayId, Tag};

/// Establishes a point within [`DEADLINE`].
///
/// A relay that has a circuit of the same key drops that one: so a point is taken over.
pub(super) async fn establish(
    service: &Arc<Shared>,
    relay: RelayId,
    secrets: &PointSecrets,
    seen: &[Tag],
    still: impl FnOnce() -> bool,
) -> Result<Point, EstablishError> {
    match timeout(DEADLINE, within_deadline(service, relay, secrets, seen, still)).await {
        Ok(result) => result,
        Err(_) => {
            debug!("an introduction point was not established in time");
            Err(EstablishError::Failed)
        }
    }
}

async fn within_deadline(
    service: &Arc<Shared>,
    relay: RelayId,
    secrets: &PointSecrets,
    seen: &[Tag],
    still: impl FnOnce() -> bool,
) -> Result<Point, EstablishError> {
    let place = Arc::clone(&service.points).try_acquire_owned().map_err(|_| EstablishError::Failed)?;
    let netdir = service.directory.netdir(Timeliness::Timely).map_err(|_| EstablishError::Failed)?;
    let log =
        service.logs.open(secrets.id(), seen, introductions_in_a_life(netdir.params())).ok_or(EstablishError::Spent)?;
    let target = view::relay(&netdir, relay).ok_or(EstablishError::NotListed)?;
    let limits_rate = target.protovers().supports_named_subver(HSINTRO_RATELIM);
    let tunnel = loop {
        match service.pool().get_or_launch_svc_intro(&netdir, target.clone()).await {
            Ok(tunnel) => break tunnel,
            // Right after the start Arti has chosen no vanguards yet.
            Err(error) if error.kind() == ErrorKind::BootstrapRequired => sleep(VANGUARDS_POLL).await,
            Err(error) => return Err(failed(&error)),
        }
    };
    drop(netdir);

    let keys = Arc::new(Keys::new(secrets));
    let request = request(&tunnel, &keys, service.introduction_rate.filter(|_| limits_rate)).await?;
    let (established, answered) = oneshot::channel();
    let (accepted, marks) = mpsc::channel(MAX_MARKS);
    let open = Arc::new(AtomicBool::new(true));
    let handler = Handler {
        keys,
        open: Arc::clone(&open),
        established: Some(established),
        log,
        accepted,
        introductions: Arc::clone(&service.introductions),
        counters: Arc::clone(&service.context.counters),
    };
    if !still() {
        debug!("an introduction point was not asked for, as it is too late");
        return Err(EstablishError::Failed);
    }
    // From here on, introductions may come; whoever gives up closes the circuit.
    let up = Up { tunnel: Arc::new(tunnel), open, _place: place };
    up.tunnel.start_conversation(Some(request), handler, TargetHop::LastHop).await.map_err(|error| failed(&error))?;
    answered.await.map_err(|_| EstablishError::Failed)?;

    let (closed, watched) = watch::channel(false);
    let (ended, circuit) = (service.ended(), Arc::clone(&up.tunnel));
    let watching = AbortOnDrop::spawn(async move {
        tokio::select! {
            () = circuit.wait_for_close() => {}
            () = ended => circuit.terminate(),
        }
        closed.send_replace(true);
    });
    Ok(Point {
        description: secrets.describe(relay),
        closed: watched,
        accepted: marks,
        _guard: Box::new((watching, up)),
    })
}

/// ESTABLISH_INTRO for this circuit and no other (rend-spec-v3, section 3.1.1).
async fn request(
    tunnel: &ServiceOnionServiceIntroTunnel,
    keys: &Keys,
    rate: Option<IntroductionRate>,
) -> Result<AnyRelayMsg, EstablishError> {
    let mut details = EstablishIntroDetails::new(keys.session_id.as_ref().verifying_key().into());
    if let Some(IntroductionRate { per_second, burst }) = rate {
        let limits = DosParams::new(Some(per_second.into()), Some(burst.into())).map_err(|error| failed(&error))?;
        details.set_extension_dos(limits);
    }
    let binding = tunnel.binding_key(TargetHop::LastHop).await.map_err(|error| failed(&error))?;
    let binding = binding.ok_or(EstablishError::Failed)?;
    let body = details.sign_and_encode(keys.session_id.as_ref(), binding.hs_mac()).map_err(|error| failed(&error))?;
    Ok(AnyRelayMsg::Unrecognized(Unrecognized::new(RelayCmd::ESTABLISH_INTRO, body)))
}

/// How many introductions a point takes before it closes: a number at random between those of the consensus, as in C tor.
///
/// Clients that flood one point with introductions, to correlate them with what this node's guard carries, have to find
/// another one then.
pub(super) fn introductions_in_a_life(params: &NetParameters) -> usize {
    let bound = |n: i32| usize::try_from(n).unwrap_or(0).clamp(1, MAX_INTRODUCTIONS);
    let least = bound(params.hs_introcirc_requests_min.get());
    let most = bound(params.hs_introcirc_requests_max.get()).max(least);
    rand::rng().random_range(least..=most)
}

/// The circuit of a point; dropping it ends that.
struct Up {
    tunnel: Arc<ServiceOnionServiceIntroTunnel>,
    open: Arc<AtomicBool>,
    _place: OwnedSemaphorePermit,
}

impl Drop for Up {
    fn drop(&mut self) {
        // What is still on the way from the circuit's task is not taken.
        self.open.store(false, Ordering::Release);
        self.tunnel.terminate();
    }
}

/// Takes what the relay sends; runs in the circuit's own task, and so must neither wait nor compute.
struct Handler {
    keys: Arc<Keys>,
    open: Arc<AtomicBool>,
    established: Option<oneshot::Sender<()>>,
    log: Arc<Log>,
    accepted: mpsc::Sender<Tag>,
    introductions: Arc<Queue<Introduction>>,
    counters: Arc<Counters>,
}

impl MsgHandler for Handler {
    fn handle_msg(&mut self, message: AnyRelayMsg) -> tor_proto::Result<MetaCellDisposition> {
        match message {
            AnyRelayMsg::IntroEstablished(_) => {
                let established = self.established.take().ok_or_else(|| violation("a second INTRO_ESTABLISHED"))?;
                // Nobody waits for it any more: the circuit is being closed.
                Ok(keep(established.send(()).is_ok()))
            }
            AnyRelayMsg::Introduce2(_) if self.established.is_some() => {
                Err(violation("an INTRODUCE2 before INTRO_ESTABLISHED"))
            }
            AnyRelayMsg::Introduce2(introduction) => Ok(keep(self.take(introduction))),
            other => Err(violation(&format!("an unexpected {} at an introduction point", other.cmd()))),
        }
    }
}

impl Handler {
    /// Takes an introduction; `false` when the point must close.
    fn take(&self, introduction: Introduce2) -> bool {
        if !self.open.load(Ordering::Acquire) {
            return false;
        }
        let tag = tag(introduction.encrypted_body());
        match self.log.note(&tag) {
            // The relay may do this, but so may any client, to have the point closed: it stays.
            Verdict::Replay => {
                Counters::count(&self.counters.replays);
                return true;
            }
            Verdict::Full => return false,
            Verdict::New => Counters::count(&self.counters.introductions),
        }
        // The mark goes out before the answer. Without it, a successor could be made to answer once more.
        if self.accepted.try_send(tag).is_err() {
            debug!("an introduction point closes, as its marks are not fetched");
            return false;
        }
        self.introductions.push(Introduction { keys: Arc::clone(&self.keys), cell: introduction });
        !self.log.is_full()
    }
}

fn keep(open: bool) -> MetaCellDisposition {
    if open { MetaCellDisposition::Consumed } else { MetaCellDisposition::CloseCirc }
}

fn violation(what: &str) -> tor_proto::Error {
    tor_proto::Error::CircProto(what.into())
}

fn failed(error: &(dyn std::error::Error + 'static)) -> EstablishError {
    // What Arti's errors say of relays stays at this level.
    debug!(error, "an introduction point was not established");
    EstablishError::Failed
}

/// A circuit of four hops and an answer over it take a second on the public network. Longer than this, another relay is better.
const DEADLINE: Duration = Duration::from_secs(15);

const VANGUARDS_POLL: Duration = Duration::from_millis(100);

/// Marks that wait until the successors have them. A thousand in the moments between two fetches is a flood, and then the
/// point may as well close.
const MAX_MARKS: usize = 1024;

/// More than the consensus has ever asked for; bounds what a log can cost.
const MAX_INTRODUCTIONS: usize = 32_768;

#[cfg(test)]
mod tests {
    use tor_cell::relaycell::msg::{Body, IntroEstablished};

    use super::super::replay::Logs;
    use super::*;

    struct Circuit {
        handler: Handler,
        established: oneshot::Receiver<()>,
        marks: mpsc::Receiver<Tag>,
    }

    impl Circuit {
        /// To a point that takes `limit` introductions, of which `marks` wait.
        fn new(limit: usize, marks: usize) -> Self {
            let secrets = PointSecrets::from_bytes(&[7; 64]);
            let (established, answered) = oneshot::channel();
            let (accepted, marks) = mpsc::channel(marks);
            let handler = Handler {
                keys: Arc::new(Keys::new(&secrets)),
                open: Arc::new(AtomicBool::new(true)),
                established: Some(established),
                log: Logs::default().open(secrets.id(), &[], limit).unwrap(),
                accepted,
                introductions: Arc::new(Queue::new(100)),
                counters: Arc::default(),
            };
            Self { handler, established: answered, marks }
        }

        fn up(limit: usize, marks: usize) -> Self {
            let mut circuit = Self::new(limit, marks);
            assert!(circuit.receive(IntroEstablished::new().into()));
            circuit
        }

        /// Whether the circuit stays.
        fn receive(&mut self, message: AnyRelayMsg) -> bool {
            matches!(self.handler.handle_msg(message), Ok(MetaCellDisposition::Consumed))
        }

        fn introduce(&mut self, content: u8) -> bool {
            let mut cell = vec![0; 20];
            cell.extend([2, 0, 32]);
            cell.extend([1; 32]);
            cell.push(0);
            cell.extend([content; 100]);
            let mut reader = tor_bytes::Reader::from_slice(&cell);
            let cell = <Introduce2 as Body>::decode_from_reader(&mut reader).unwrap();
            self.receive(cell.into())
        }
    }

    #[test]
    fn introductions_come_after_the_relay_agreed_and_only_then() {
        let mut circuit = Circuit::new(10, 10);
        assert!(!circuit.introduce(1), "too early");
        assert!(circuit.receive(IntroEstablished::new().into()));
        assert!(circuit.established.try_recv().is_ok());
        assert!(circuit.introduce(1));
        assert_eq!(circuit.marks.try_recv(), Ok(tag(&[1; 100])));
        assert!(!circuit.receive(IntroEstablished::new().into()), "twice");
        assert!(
            !circuit.receive(AnyRelayMsg::Unrecognized(Unrecognized::new(RelayCmd::ESTABLISH_INTRO, vec![]))),
            "something else"
        );
    }

    #[test]
    fn a_replay_is_counted_and_neither_answered_nor_marked() {
        let mut circuit = Circuit::up(10, 10);
        assert!(circuit.introduce(1) && circuit.introduce(1) && circuit.introduce(2));
        assert_eq!(circuit.handler.counters.read().introductions, 2);
        assert_eq!(circuit.handler.counters.read().replays, 1);
        assert_eq!(circuit.marks.len(), 2);
    }

    #[test]
    fn the_last_introduction_of_a_life_is_taken_and_closes_the_point() {
        let mut circuit = Circuit::up(2, 10);
        assert!(circuit.introduce(1));
        assert!(!circuit.introduce(2));
        assert_eq!(circuit.handler.counters.read().introductions, 2);
        assert!(!circuit.introduce(3));
        assert_eq!(circuit.handler.counters.read().introductions, 2);
    }

    #[test]
    fn nothing_is_answered_whose_mark_cannot_go_out() {
        let mut circuit = Circuit::up(10, 1);
        assert!(circuit.introduce(1));
        assert!(!circuit.introduce(2));
        assert_eq!(circuit.marks.len(), 1);
        let mut circuit = Circuit::up(10, 1);
        circuit.marks.close();
        assert!(!circuit.introduce(1));
    }

    #[test]
    fn a_point_that_was_dropped_takes_nothing() {
        let mut circuit = Circuit::up(10, 10);
        circuit.handler.open.store(false, Ordering::Release);
        assert!(!circuit.introduce(1));
        assert_eq!(circuit.handler.counters.read().introductions, 0);
    }

    #[test]
    fn a_life_is_as_long_as_the_consensus_says_within_what_memory_allows() {
        let life = introductions_in_a_life(&NetParameters::default());
        assert!((16_384..=32_768).contains(&life), "{life}");
    }
}
