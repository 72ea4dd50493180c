//! How two people come to be contacts: what each says of the other, and what follows from it.
//!
//! Both say where they stand every time they are connected, so that whatever was lost on one side is found again. A blocked
//! peer hears exactly what an unknown one hears; which, the link that it speaks on knows.

use crate::messenger::contact::ContactState;
use crate::wire::messenger_proto::standing::Stand;

/// What follows from a peer's stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Meeting {
    /// The contact's new state; `None` leaves it as it is.
    pub(super) state: Option<ContactState>,
    /// What to say.
    pub(super) answer: Stand,
}

/// What this side says of a contact of its own accord.
pub(super) fn stand(state: ContactState) -> Stand {
    match state {
        ContactState::RequestQueued | ContactState::RequestSent => Stand::Asking,
        ContactState::Accepted => Stand::Accepted,
        ContactState::Pending => Stand::Pending,
        ContactState::Declined => Stand::Rejected,
        ContactState::Draft
        | ContactState::Rejected
        | ContactState::Blocked
        | ContactState::RemovedByPeer
        | ContactState::Archived => Stand::None,
    }
}

/// What follows when a peer in state `mine` (`None`: unknown) says `theirs`. `busy`: no request can be taken in now.
///
/// A blocked peer is not among them: for it counts what it would be if it were unknown.
pub(super) fn meet(mine: Option<ContactState>, theirs: Stand, busy: bool) -> Meeting {
    use ContactState as State;
    let keep = |answer| Meeting { state: None, answer };
    let turn = |state| Meeting { state: Some(state), answer: stand(state) };
    let inbox = || if busy { keep(Stand::Busy) } else { turn(State::Pending) };
    match (mine, theirs) {
        // Who says so of somebody unknown has a memory that was lost here; the user decides.
        (None, Stand::Asking | Stand::Accepted) => inbox(),
        (None, _) => keep(Stand::None),

        (Some(State::Draft | State::RemovedByPeer), Stand::Asking | Stand::Accepted) => inbox(),
        (Some(State::Archived | State::Rejected), Stand::Asking) => inbox(),
        (Some(State::Rejected), Stand::Accepted) => turn(State::Accepted),

        (Some(State::RequestQueued | State::RequestSent), Stand::Asking | Stand::Accepted) => turn(State::Accepted),
        (Some(State::RequestQueued), Stand::Pending) => turn(State::RequestSent),
        (Some(State::RequestQueued | State::RequestSent), Stand::Rejected) => turn(State::Rejected),

        (Some(State::Accepted), Stand::None | Stand::Rejected) => turn(State::RemovedByPeer),

        (Some(state), _) => keep(stand(state)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ContactState as State;

    const STANDS: [Stand; 6] =
        [Stand::None, Stand::Asking, Stand::Pending, Stand::Rejected, Stand::Accepted, Stand::Busy];

    #[test]
    fn nobody_becomes_a_contact_whom_the_user_did_not_ask_or_accept() {
        let consented = [State::RequestQueued, State::RequestSent, State::Accepted, State::Rejected];
        let all = [State::Draft, State::Pending, State::Declined, State::RemovedByPeer, State::Archived];
        for mine in all.map(Some).into_iter().chain([None]) {
            for theirs in STANDS {
                assert_ne!(meet(mine, theirs, false).state, Some(State::Accepted), "{mine:?} {theirs:?}");
            }
        }
        for mine in consented {
            assert!(
                STANDS
                    .iter()
                    .any(|theirs| { meet(Some(mine), *theirs, false).state.unwrap_or(mine) == State::Accepted })
            );
        }
    }

    #[test]
    fn whoever_ended_a_relation_says_so_to_a_peer_that_goes_on() {
        assert_eq!(meet(Some(State::Archived), Stand::Accepted, false), Meeting { state: None, answer: Stand::None });
        assert_eq!(
            meet(Some(State::Declined), Stand::Accepted, false),
            Meeting { state: None, answer: Stand::Rejected }
        );
        assert_eq!(meet(Some(State::Accepted), Stand::None, false).state, Some(State::RemovedByPeer));
        assert_eq!(meet(Some(State::Accepted), Stand::Pending, false).state, None, "they restored a backup");
    }

    #[test]
    fn a_full_inbox_takes_nobody_in() {
        for mine in [None, Some(State::Draft), Some(State::Archived), Some(State::RemovedByPeer)] {
            assert_eq!(meet(mine, Stand::Asking, true), Meeting { state: None, answer: Stand::Busy });
        }
    }
}
