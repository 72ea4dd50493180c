//! How a session ends: its last words, its handlers, and what others are told.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::time::{Instant, timeout};

use super::lanes::LaneDials;
use super::streams::Attached;
use super::{Driver, LINGER};
use crate::node::channel::{Shared, Standing};
use crate::node::event::{DialledBy, NodeEvent, Telling, count};
use crate::node::failure::Failure;
use crate::session::{CLOSE_BUSY, CLOSE_PROTOCOL, CLOSE_SHUTDOWN, Event, PRIMARY, SessionError};

impl Driver {
    /// Sends what can still be sent and lets handlers finish, with a deadline, and lets go of everything.
    pub(super) async fn finish(mut self, error: SessionError) {
        // Whoever connects now gets another session, with somebody else where this one has failed.
        if let (Some(sessions), Some(peer)) = (&self.environment.sessions, self.shared.peer.address())
            && let Some(failure) = Failure::of(&self.shared, &error)
        {
            sessions.failed(peer, failure);
        }
        if matches!(error, SessionError::Lost | SessionError::Silent) {
            // Nothing more can be said, so there is no draining.
            self.obituary.tell(error.clone());
        } else {
            self.shared.standing.send_if_modified(Standing::drain);
        }
        self.entered = None;
        self.lanes_taken = None;
        self.lane_dials = LaneDials::default();
        let code = match &error {
            SessionError::Lost | SessionError::Silent | SessionError::ClosedByPeer(_) => None,
            SessionError::Shutdown => Some(self.drain_code),
            SessionError::Evicted => Some(CLOSE_BUSY),
            _ => Some(CLOSE_PROTOCOL),
        };
        if let Some(code) = code {
            self.machine.close(code);
        }
        // Handles receive what has come in, and then the end; but what was too much is given up.
        if matches!(error, SessionError::Evicted) {
            self.streams.values().for_each(Attached::clear);
        }
        // Nothing more is taken from applications, and what waits in the queue is given up.
        self.shared.backlog.close();
        self.queue.close();
        while self.queue.try_recv().is_ok() {}
        // What still goes out takes memory until it has, or until the machine is gone; any other end has let go of it.
        let mut unsent = self.shared.backlog.nothing();
        if code == Some(CLOSE_SHUTDOWN) {
            self.streams.values_mut().for_each(|attached| attached.leave_to(&mut unsent));
        }
        self.streams.clear();
        // Dropping the transports of lanes ends them; the peer sends again what it sent on them.
        let primary = self.connections.swap_remove(0).pipe;
        self.connections.clear();
        if matches!(error, SessionError::Lost | SessionError::Silent) {
            drop(primary);
        } else {
            let machine = &mut self.machine;
            // What the peer is slow to read in an orderly end is what the node may have no room for.
            let takes_room = !unsent.is_empty();
            let words = primary.finish(|out| {
                machine.poll_output(Instant::now(), PRIMARY, out);
                while let Some(event) = machine.poll_event() {
                    if let Event::Gone { bytes, .. } | Event::Refunded { bytes, .. } = event {
                        unsent.give_back(bytes);
                    }
                }
            });
            tokio::select! {
                biased;
                _ = timeout(LINGER, words) => {}
                () = self.shared.eviction.due(), if takes_room => {}
            }
        }
        drop(self.machine);
        drop(unsent);
        // Before handlers are waited for, since those may be waiting for this.
        self.obituary.tell(error.clone());
        let orderly = code.is_none() || matches!(error, SessionError::Shutdown);
        if orderly {
            let handlers = &mut self.handlers;
            let ended = async { while handlers.join_next().await.is_some() {} };
            let _ = timeout(LINGER, ended).await;
        }
        self.handlers.shutdown().await;
    }
}

/// Tells of the session's beginning, and of its end when it is dropped, whatever has ended it.
pub(super) struct Obituary {
    shared: Arc<Shared>,
    telling: Arc<Telling>,
    told: bool,
}

impl Obituary {
    pub(super) fn new(shared: Arc<Shared>, telling: Arc<Telling>) -> Self {
        count(&telling.counts.sessions_open);
        count(match shared.dialled_by {
            DialledBy::Us => &telling.counts.sessions_dialled,
            DialledBy::Peer => &telling.counts.sessions_accepted,
        });
        telling.tell(NodeEvent::SessionBegan { peer: shared.peer, dialled_by: shared.dialled_by });
        Self { shared, telling, told: false }
    }

    /// Tells why the session has ended; once.
    fn tell(&mut self, error: SessionError) {
        if !std::mem::replace(&mut self.told, true) {
            let Shared { peer, dialled_by, .. } = *self.shared;
            self.shared.standing.send_replace(Standing::Ended(error.clone()));
            self.telling.tell(NodeEvent::SessionEnded { peer, dialled_by, error });
        }
    }
}

impl Drop for Obituary {
    fn drop(&mut self) {
        self.telling.counts.sessions_open.fetch_sub(1, Ordering::Relaxed);
        // Lost, unless somebody knew better: the node has let go of it.
        self.tell(SessionError::Lost);
    }
}
