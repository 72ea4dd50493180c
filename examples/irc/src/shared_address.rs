//! Who takes the shared address over when a node is lost.
//!
//! On Tor the last descriptor uploaded counts. When a node is gone, one of the survivors uploads its own, lest clients
//! find only the lost node's introduction points; which one, all survivors work out alike.

use std::collections::BTreeMap;
use std::time::Duration;

use hcp_core::replica::{LogId, NodeId, Peers};
use tokio::time::Instant;

/// How long a peer must be gone: a link that is merely being rebuilt is back by then.
pub(crate) const GONE: Duration = Duration::from_secs(3);

/// How long to wait after a takeover that failed: until one succeeds, clients find only the lost node.
pub(crate) const RETRY: Duration = Duration::from_secs(30);

/// Watches the peers and says when this node's turn has come.
#[derive(Debug)]
pub(crate) struct Succession {
    own: NodeId,
    live: BTreeMap<NodeId, LogId>,
    /// The runs that were live and are gone, and when that will be for good.
    gone: BTreeMap<NodeId, (LogId, Instant)>,
    /// When to try again what failed.
    retry: Option<Instant>,
}

impl Succession {
    pub(crate) fn new(own: NodeId) -> Self {
        Self { own, live: BTreeMap::new(), gone: BTreeMap::new(), retry: None }
    }

    /// Notes who is live now.
    pub(crate) fn note(&mut self, peers: &Peers, now: Instant) {
        self.note_states(peers.iter().map(|(node, state)| (node, state.incarnation.filter(|_| state.live))), now);
    }

    fn note_states(
        &mut self,
        states: impl Iterator<Item = (NodeId, Option<hcp_core::replica::Incarnation>)>,
        now: Instant,
    ) {
        for (node, run) in states {
            match run {
                Some(incarnation) => {
                    self.live.insert(node, LogId { node, incarnation });
                    self.gone.remove(&node);
                }
                None => {
                    if let Some(log) = self.live.remove(&node) {
                        self.gone.insert(node, (log, now + GONE));
                    }
                }
            }
        }
    }

    /// When to call [`Succession::is_heir`] next.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.gone.values().map(|(_, at)| *at).chain(self.retry).min()
    }

    /// Notes that the takeover failed, so that it is due again after [`RETRY`].
    pub(crate) fn failed(&mut self, now: Instant) {
        self.retry = Some(now + RETRY);
    }

    /// Whether a peer is gone by `now` and this node is the one to succeed it. Says so once, and again when that failed.
    pub(crate) fn is_heir(&mut self, now: Instant) -> bool {
        let due: Vec<LogId> = self.gone.values().filter(|(_, at)| *at <= now).map(|(log, _)| *log).collect();
        let mut heir = self.retry.take_if(|at| *at <= now).is_some();
        for lost in due {
            self.gone.remove(&lost.node);
            heir |= self.live.keys().all(|node| rank(&lost, node) < rank(&lost, &self.own));
        }
        heir
    }
}

/// Rendezvous hashing: every survivor ranks all survivors alike, and each loss ranks them anew.
fn rank(lost: &LogId, survivor: &NodeId) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key("hcp-irc 2026 succession");
    hasher.update(&lost.node.0).update(&lost.incarnation.0).update(&survivor.0);
    *hasher.finalize().as_bytes()
}

#[cfg(test)]
mod tests {
    use hcp_core::replica::Incarnation;

    use super::*;

    fn node(n: u8) -> NodeId {
        NodeId([n; 32])
    }

    fn state(n: u8, live: bool) -> (NodeId, Option<Incarnation>) {
        (node(n), live.then_some(Incarnation([n; 16])))
    }

    #[test]
    fn exactly_one_survivor_succeeds_a_lost_node_once() {
        let now = Instant::now();
        for lost in 1..=5 {
            let mut heirs = 0;
            for own in (1..=5).filter(|own| *own != lost) {
                let mut succession = Succession::new(node(own));
                let others = || (1..=5).filter(move |n| *n != own);
                succession.note_states(others().map(|n| state(n, true)), now);
                succession.note_states(others().map(|n| state(n, n != lost)), now);
                assert_eq!(succession.next(), Some(now + GONE));
                assert!(!succession.is_heir(now), "a link may be back soon");
                heirs += usize::from(succession.is_heir(now + GONE));
                assert!(!succession.is_heir(now + GONE * 2), "once");
            }
            assert_eq!(heirs, 1);
        }
    }

    #[test]
    fn a_takeover_that_failed_is_due_again_until_it_succeeds() {
        let now = Instant::now();
        let mut succession = Succession::new(node(1));
        succession.note_states([state(2, true)].into_iter(), now);
        succession.note_states([state(2, false)].into_iter(), now);
        let mut at = now + GONE;
        assert!(succession.is_heir(at));
        for _ in 0..3 {
            succession.failed(at);
            assert!(!succession.is_heir(at));
            at += RETRY;
            assert_eq!(succession.next(), Some(at));
            assert!(succession.is_heir(at));
        }
        assert_eq!(succession.next(), None);
        assert!(!succession.is_heir(at + RETRY));
    }

    #[test]
    fn a_peer_that_comes_back_in_time_and_one_never_seen_are_not_lost() {
        let now = Instant::now();
        let mut succession = Succession::new(node(1));
        succession.note_states([state(2, false), state(3, true)].into_iter(), now);
        succession.note_states([state(3, false)].into_iter(), now);
        succession.note_states([state(3, true)].into_iter(), now + GONE / 2);
        assert_eq!(succession.next(), None);
        assert!(!succession.is_heir(now + GONE * 2));
    }
}
