//! The streams on which the members gossip: one for each pair, dialled by the member with the lower address.
//!
//! Invariants: what a member sends is read no faster than its due, and held in bounded memory; a link that cannot keep up with
//! what this node sends is closed rather than waited for, as its silence is what others go by.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::PROTOCOL;
use super::driver::Event;
use super::gossip::{GossipError, Message};
use super::machine::Input;
use super::roster::Roster;
use crate::identity::OnionAddress;
use crate::node::{Node, Stream, StreamSender};
use crate::session::Priority;

/// The links of this node.
pub(super) struct Links {
    service: OnionAddress,
    events: mpsc::Sender<Event>,
    roster: watch::Receiver<Roster>,
    /// The one that counts for each member; a later one takes the place of an earlier one.
    current: Mutex<HashMap<OnionAddress, Current>>,
    /// Streams stay open, and nothing is said or heard on them.
    #[cfg(feature = "testing")]
    mute: Arc<std::sync::atomic::AtomicBool>,
}

struct Current {
    id: u64,
    outgoing: mpsc::Sender<Bytes>,
    task: AbortHandle,
}

impl Links {
    pub(super) fn new(
        service: OnionAddress,
        events: mpsc::Sender<Event>,
        roster: watch::Receiver<Roster>,
    ) -> Arc<Self> {
        Arc::new(Self {
            service,
            events,
            roster,
            current: Mutex::default(),
            #[cfg(feature = "testing")]
            mute: Arc::default(),
        })
    }

    /// Begins or ends saying and hearing nothing.
    #[cfg(feature = "testing")]
    pub(super) fn mute(&self, mute: bool) {
        self.mute.store(mute, std::sync::atomic::Ordering::Relaxed);
    }

    #[cfg(feature = "testing")]
    fn is_mute(&self) -> bool {
        self.mute.load(std::sync::atomic::Ordering::Relaxed)
    }

    #[cfg(not(feature = "testing"))]
    fn is_mute(&self) -> bool {
        false
    }

    /// Queues a message for a member; closes the link when it does not keep up.
    pub(super) fn send(&self, member: OnionAddress, message: &Message) {
        if self.is_mute() {
            return;
        }
        let mut current = self.current();
        if let Some(link) = current.get(&member)
            && link.outgoing.try_send(message.encode()).is_err()
            && let Some(link) = current.remove(&member)
        {
            link.task.abort();
        }
    }

    /// Closes the link with a member, if there is one; who dials makes a new one.
    pub(super) fn close(&self, member: OnionAddress) {
        if let Some(link) = self.current().remove(&member) {
            link.task.abort();
        }
    }

    /// Closes the links with those who are members no more, whichever side has dialled.
    pub(super) fn close_removed(&self) {
        let roster = self.roster.borrow();
        self.current().retain(|member, link| {
            let stays = roster.contains(member);
            if !stays {
                link.task.abort();
            }
            stays
        });
    }

    /// Runs a link on a stream until it ends.
    ///
    /// In a task of its own, so that it can be ended by whoever sends, or by a link that takes its place.
    pub(super) async fn run(self: &Arc<Self>, member: OnionAddress, stream: Stream) {
        let id = rand::random();
        let (outgoing, queue) = mpsc::channel(OUTGOING);
        let mut own = JoinSet::new();
        let (links, roster, events) = (Arc::clone(self), self.roster.clone(), self.events.clone());
        // It waits for its entry, so that nothing comes from a link that is not there yet.
        let (registered, wait) = tokio::sync::oneshot::channel::<()>();
        let task = own.spawn(async move {
            if wait.await.is_ok() {
                let sender = stream.sender();
                tokio::select! {
                    () = write(sender, queue) => {}
                    () = read(&links, stream, member, roster, events) => {}
                }
            }
        });
        if let Some(earlier) = self.current().insert(member, Current { id, outgoing, task }) {
            earlier.task.abort();
        }
        // It may have been removed since its stream was let in.
        self.close_removed();
        let _registered = Registered { links: Arc::clone(self), member, id };
        let up = self.events.send(Event::from(Input::LinkUp(member))).await;
        if up.is_ok() && registered.send(()).is_ok() {
            let _ = own.join_next().await;
        }
    }

    /// Dials a member and goes on dialling whenever the link has ended.
    pub(super) async fn keep(self: Arc<Self>, node: Node, member: OnionAddress) {
        let mut wait = REDIAL_FIRST;
        loop {
            let dialled = async {
                let session = node.connect(member).await.map_err(|error| error.to_string())?;
                session.open_with(PROTOCOL, Priority::Control).await.map_err(|error| error.to_string())
            };
            match timeout(DIAL_DEADLINE, dialled).await {
                Ok(Ok(stream)) => {
                    let began = Instant::now();
                    self.run(member, stream).await;
                    if began.elapsed() >= HEALTHY {
                        wait = REDIAL_FIRST;
                    }
                }
                failed => {
                    let error = failed.map_or_else(|_| "no answer in time".to_owned(), |r| r.err().unwrap_or_default());
                    tracing::debug!(error, "a member of the service cannot be linked with");
                    if self.events.send(Event::from(Input::DialFailed(member))).await.is_err() {
                        return;
                    }
                }
            }
            sleep(wait.mul_f64(rand::random_range(0.5..1.0))).await;
            wait = (wait * 2).min(REDIAL_MAX);
        }
    }

    fn current(&self) -> MutexGuard<'_, HashMap<OnionAddress, Current>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A link that has its entry. Dropping it tells that the link is down, unless another one has taken its place: whoever runs a
/// link is aborted when the session ends.
struct Registered {
    links: Arc<Links>,
    member: OnionAddress,
    id: u64,
}

impl Drop for Registered {
    fn drop(&mut self) {
        {
            let mut current = self.links.current();
            if current.get(&self.member).is_some_and(|link| link.id != self.id) {
                return;
            }
            current.remove(&self.member);
        }
        let down = Event::from(Input::LinkDown(self.member));
        if let Err(TrySendError::Full(down)) = self.links.events.try_send(down)
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            // The driver is behind; it must hear of this all the same.
            let events = self.links.events.clone();
            drop(runtime.spawn(async move { drop(events.send(down).await) }));
        }
    }
}

async fn write(mut sender: StreamSender, mut queue: mpsc::Receiver<Bytes>) {
    while let Some(message) = queue.recv().await {
        if sender.send(message).await.is_err() {
            return;
        }
    }
}

async fn read(
    links: &Links,
    mut stream: Stream,
    member: OnionAddress,
    roster: watch::Receiver<Roster>,
    events: mpsc::Sender<Event>,
) {
    let mut pace = Pace::new(Instant::now());
    while let Ok(Some(bytes)) = stream.recv().await {
        let decoded = Message::decode(&bytes, links.service, &roster.borrow());
        let wait = pace.count(Instant::now(), decoded.as_ref().map_or(EACH, cost));
        if links.is_mute() {
            continue;
        }
        match decoded {
            Ok(message) => {
                if events.send(Event::from(Input::Message(member, message))).await.is_err() {
                    return;
                }
            }
            // The manifests may differ for a while.
            Err(GossipError::Stranger) => {}
            Err(error) => return tracing::warn!(%error, "a member broke the protocol of the service"),
        }
        if let Some(until) = wait {
            sleep_until(until).await;
        }
    }
}

/// How fast a member's messages are read: what comes faster waits in the stream, whose window bounds it.
struct Pace {
    /// When all that came would be done with at the steady rate.
    done: Instant,
}

impl Pace {
    fn new(now: Instant) -> Self {
        Self { done: now }
    }

    /// Counts a message that costs so much; until when to wait before the next one is looked at.
    fn count(&mut self, now: Instant, cost: Duration) -> Option<Instant> {
        self.done = self.done.max(now) + cost;
        self.done.checked_sub(BURST).filter(|until| *until > now)
    }
}

/// What a message counts for. Strangers can have a member send many of those that take no signature check, and heartbeats come
/// behind them.
fn cost(message: &Message) -> Duration {
    match message {
        Message::Tags(_) | Message::Heard(_) | Message::Reached(_) => LIGHT,
        _ => EACH,
    }
}

/// Each message costs some ten signature checks at most: 50 a second are a few percent of a core.
const EACH: Duration = Duration::from_millis(20);
/// Nothing to check: 500 a second are a few percent of a core too, and far more than marks of many points come in.
const LIGHT: Duration = Duration::from_millis(2);
/// A hundred at once: what two nodes with many points have to say when they meet.
const BURST: Duration = Duration::from_secs(2);
/// Messages for a member that its stream has not taken: more than the heartbeats of a minute, after which it is dead anyway.
const OUTGOING: usize = 256;
/// A dead member is known by dials that fail: they may not take longer than the network at its slowest.
const DIAL_DEADLINE: Duration = Duration::from_secs(30);
/// The first wait after a link was lost; doubles with every failure.
const REDIAL_FIRST: Duration = Duration::from_millis(200);
/// A member that comes back is to be found within seconds.
const REDIAL_MAX: Duration = Duration::from_secs(2);
/// A link that lived this long was a success.
const HEALTHY: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Identity;
    use crate::network::onion::PointId;
    use crate::network::{MemoryNetwork, Network};
    use crate::node::{Access, Session};
    use crate::service::gossip::Tags;
    use crate::service::roster::Role;
    use crate::service::tuning::MAX_TAGS;

    #[test]
    fn a_burst_is_read_at_once_and_a_flood_at_the_steady_rate() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        assert!((0..100).all(|_| pace.count(start, EACH).is_none()));
        let last = (0..500).filter_map(|_| pace.count(start, EACH)).last().unwrap();
        assert_eq!(last, start + EACH * 500);
        assert!(pace.count(last + BURST, EACH).is_none());
    }

    #[test]
    fn a_flood_of_introductions_holds_no_heartbeat_up() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        let marks = || Message::Tags(Tags { point: PointId([1; 32]), first: 0, tags: vec![[2; 32]; MAX_TAGS] });
        // Of nine points, as often as marks are passed on; besides, four other messages a second.
        let each_second = (0..9 * 10).map(|_| cost(&marks())).chain((0..4).map(|_| EACH));
        for second in 0..600 {
            let now = start + Duration::from_secs(second);
            assert!(each_second.clone().all(|cost| pace.count(now, cost).is_none()), "after {second} s");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_of_a_session_is_the_end_of_its_link_and_a_later_link_takes_the_place_of_an_earlier_one() {
        let network: Arc<dyn Network> = Arc::new(MemoryNetwork::new());
        let (service, other) = (Identity::from_seed(&[1; 32]).address(), Identity::from_seed(&[2; 32]));
        let member = other.address();
        let roster = Roster::new([(member, Role::Listed)]).unwrap();
        let (events, mut told) = mpsc::channel(16);
        let (_sender, watched) = watch::channel(roster);
        let links = Links::new(service, events, watched);
        let serve = move |stream: Stream, _: Session| {
            let links = Arc::clone(&links);
            async move { links.run(member, stream).await }
        };
        let node = Node::builder(Identity::from_seed(&[3; 32]), Arc::clone(&network))
            .protocol(PROTOCOL, Access::Identified, serve)
            .bind()
            .await
            .unwrap();
        let dialler = Node::builder(other, network).bind().await.unwrap();
        let session = dialler.connect(node.address()).await.unwrap();
        let mut next = async || match timeout(Duration::from_secs(60), told.recv()).await.unwrap().unwrap() {
            Event::Input(input) => match *input {
                Input::LinkUp(up) => (up, true),
                Input::LinkDown(down) => (down, false),
                other => panic!("only links come and go: {other:?}"),
            },
            _ => panic!("nobody asks for anything else"),
        };
        let mut first = session.open(PROTOCOL).await.unwrap();
        assert_eq!(next().await, (member, true));
        let _second = session.open(PROTOCOL).await.unwrap();
        assert_eq!(next().await, (member, true), "the first one's end is nothing to tell");
        assert!(first.recv().await.is_err(), "it was closed");
        session.shutdown().await;
        assert_eq!(next().await, (member, false));
    }

    #[tokio::test(start_paused = true)]
    async fn the_link_of_a_member_that_was_removed_is_closed_though_it_dialled() {
        let network: Arc<dyn Network> = Arc::new(MemoryNetwork::new());
        let (service, me) = (Identity::from_seed(&[1; 32]).address(), Identity::from_seed(&[3; 32]));
        let (stays, goes) = (Identity::from_seed(&[2; 32]), Identity::from_seed(&[4; 32]));
        let roster =
            |members: &[&Identity]| Roster::new(members.iter().map(|member| (member.address(), Role::Listed))).unwrap();
        let (events, mut told) = mpsc::channel(16);
        let (granted, watched) = watch::channel(roster(&[&stays, &goes]));
        let links = Links::new(service, events, watched);
        let serving = Arc::clone(&links);
        let serve = move |stream: Stream, session: Session| {
            let links = Arc::clone(&serving);
            async move { links.run(session.peer().address().unwrap(), stream).await }
        };
        let builder = Node::builder(me, Arc::clone(&network));
        let node = builder.protocol(PROTOCOL, Access::Identified, serve).bind().await.unwrap();
        let mut streams = Vec::new();
        for identity in [&stays, &goes] {
            let dialler = Node::builder(identity.clone(), Arc::clone(&network)).bind().await.unwrap();
            let session = dialler.connect(node.address()).await.unwrap();
            streams.push((session.open(PROTOCOL).await.unwrap(), session, dialler));
        }
        let mut next = async || timeout(Duration::from_secs(60), told.recv()).await.unwrap().unwrap();
        for _ in 0..2 {
            assert!(matches!(next().await, Event::Input(input) if matches!(*input, Input::LinkUp(_))));
        }
        granted.send_replace(roster(&[&stays]));
        links.close_removed();
        let gone = goes.address();
        assert!(matches!(next().await, Event::Input(input) if matches!(*input, Input::LinkDown(down) if down == gone)));
        assert!(streams[1].0.recv().await.is_err(), "it was closed");
        // Nor does a link that was let in before stay.
        let again = streams[1].1.open(PROTOCOL).await.unwrap();
        assert!(matches!(next().await, Event::Input(input) if matches!(*input, Input::LinkUp(up) if up == gone)));
        assert!(matches!(next().await, Event::Input(input) if matches!(*input, Input::LinkDown(down) if down == gone)));
        drop(again);
        assert_eq!(links.current().keys().copied().collect::<Vec<_>>(), [stays.address()]);
    }
}
