//! AWAY: marks the user as absent, or back.

use crate::entry::Entry;
use crate::message::{Message, truncate};
use crate::server::welcome::MAX_AWAY;
use crate::server::{ClientId, Server};

pub(super) fn run(server: &mut Server, id: ClientId, message: &Message) {
    let Some((_, user)) = super::user(server, id) else { return };
    let message = message.param(0).map(|text| truncate(text, MAX_AWAY).to_owned());
    server.change(id, Entry::Away { user, message });
}
