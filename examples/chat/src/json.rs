//! What the messenger knows and tells, as JSON.

use std::time::{SystemTime, UNIX_EPOCH};

use hcp_core::messenger::{
    Contact, ContactState, Direction, Event, EventKind, FailureReason, Message, MessageState, Presence, Transfer,
    TransferFailure, TransferState,
};
use serde_json::{Value, json};

pub(crate) fn contact(contact: &Contact) -> Value {
    json!({
        "address": contact.address.to_string(),
        "petname": contact.petname,
        "name": contact.name,
        "greeting": contact.greeting,
        "state": contact_state(contact.state),
        "presence": presence(contact.presence),
    })
}

pub(crate) fn message(message: &Message) -> Value {
    let (state, reason) = message_state(message.state);
    let mut value = json!({
        "id": message.id.to_string(),
        "contact": message.contact.to_string(),
        "direction": direction(message.direction),
        "text": message.text,
        "state": state,
        "time_ms": milliseconds(message.time),
        "position": message.position,
    });
    add_reason(&mut value, reason);
    value
}

pub(crate) fn transfer(transfer: &Transfer) -> Value {
    let (state, reason) = transfer_state(transfer.state);
    let mut value = json!({
        "id": transfer.id.to_string(),
        "contact": transfer.contact.to_string(),
        "direction": direction(transfer.direction),
        "name": transfer.name,
        "size": transfer.size,
        "done": transfer.done,
        "state": state,
        "path": transfer.path.as_ref().map(|path| path.to_string_lossy()),
    });
    add_reason(&mut value, reason);
    value
}

/// An event; `None` for one of a kind that this program does not know.
pub(crate) fn event(event: &Event) -> Option<Value> {
    let mut value = match &event.kind {
        EventKind::Contact(changed) => json!({"event": "contact", "contact": contact(changed)}),
        EventKind::MessageReceived(received) => json!({"event": "message_received", "message": message(received)}),
        EventKind::MessageWritten(written) => json!({"event": "message_written", "message": message(written)}),
        EventKind::MessageState { id, contact, state } => {
            let (state, reason) = message_state(*state);
            let mut value = json!({
                "event": "message_state", "id": id.to_string(), "contact": contact.to_string(), "state": state,
            });
            add_reason(&mut value, reason);
            value
        }
        EventKind::TransferOffered(offered) => json!({"event": "transfer_offered", "transfer": transfer(offered)}),
        EventKind::TransferState { id, contact, state } => {
            let (state, reason) = transfer_state(*state);
            let mut value = json!({
                "event": "transfer_state", "id": id.to_string(), "contact": contact.to_string(), "state": state,
            });
            add_reason(&mut value, reason);
            value
        }
        EventKind::Presence { contact, presence: now } => {
            json!({"event": "presence", "contact": contact.to_string(), "presence": presence(*now)})
        }
        EventKind::Progress { id, contact, done, size } => json!({
            "event": "progress", "id": id.to_string(), "contact": contact.to_string(), "done": done, "size": size,
        }),
        _ => return None,
    };
    value["cursor"] = event.cursor.0.into();
    Some(value)
}

pub(crate) fn message_state(state: MessageState) -> (&'static str, Option<&'static str>) {
    match state {
        MessageState::Queued => ("queued", None),
        MessageState::Written => ("written", None),
        MessageState::Delivered => ("delivered", None),
        MessageState::Cancelled => ("cancelled", None),
        MessageState::Failed(FailureReason::Rejected) => ("failed", Some("rejected")),
        MessageState::Failed(FailureReason::Removed) => ("failed", Some("removed")),
        MessageState::Failed(_) => ("failed", Some("other")),
        _ => ("other", None),
    }
}

fn contact_state(state: ContactState) -> &'static str {
    match state {
        ContactState::Draft => "draft",
        ContactState::RequestQueued => "request_queued",
        ContactState::RequestSent => "request_sent",
        ContactState::Pending => "pending",
        ContactState::Accepted => "accepted",
        ContactState::Declined => "declined",
        ContactState::Rejected => "rejected",
        ContactState::Blocked => "blocked",
        ContactState::RemovedByPeer => "removed_by_peer",
        ContactState::Archived => "archived",
        _ => "other",
    }
}

fn transfer_state(state: TransferState) -> (&'static str, Option<&'static str>) {
    match state {
        TransferState::Offered => ("offered", None),
        TransferState::Running => ("running", None),
        TransferState::Done => ("done", None),
        TransferState::Declined => ("declined", None),
        TransferState::Cancelled => ("cancelled", None),
        TransferState::Failed(TransferFailure::Mismatch) => ("failed", Some("mismatch")),
        TransferState::Failed(TransferFailure::SourceChanged) => ("failed", Some("source_changed")),
        TransferState::Failed(TransferFailure::Disk) => ("failed", Some("disk")),
        TransferState::Failed(TransferFailure::Removed) => ("failed", Some("removed")),
        TransferState::Failed(_) => ("failed", Some("other")),
        _ => ("other", None),
    }
}

fn presence(presence: Presence) -> &'static str {
    match presence {
        Presence::Offline => "offline",
        Presence::Available => "available",
        Presence::Away => "away",
        Presence::ExtendedAway => "extended_away",
        _ => "other",
    }
}

fn direction(direction: Direction) -> &'static str {
    match direction {
        Direction::Incoming => "incoming",
        Direction::Outgoing => "outgoing",
    }
}

fn add_reason(value: &mut Value, reason: Option<&'static str>) {
    if let Some(reason) = reason {
        value["reason"] = reason.into();
    }
}

fn milliseconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
