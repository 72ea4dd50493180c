//! PART: leaves channels.

use std::collections::HashSet;

use crate::entry::Entry;
use crate::message::{Message, truncate};
use crate::names::{ChannelName, Folded};
use crate::server::welcome::{MAX_CHANNELS, MAX_KICK};
use crate::server::{ClientId, Server};

pub(super) fn run(server: &mut Server, id: ClientId, message: &Message) {
    let Some(names) = message.param(0) else { return server.needs_more(id, "PART") };
    let reason = truncate(message.param(1).unwrap_or(""), MAX_KICK);
    // Each name once: the second PART would be written before the first is applied.
    let mut seen = HashSet::new();
    for name in names.split(',').filter(|name| seen.insert(Folded::of(name))).take(MAX_CHANNELS) {
        part(server, id, name, reason);
    }
}

/// Leaves all channels.
pub(super) fn all(server: &mut Server, id: ClientId) {
    let rooms = server.clients.get(&id).map(|client| client.rooms.clone()).unwrap_or_default();
    for room in rooms {
        part(server, id, room.as_str(), "");
    }
}

fn part(server: &mut Server, id: ClientId, name: &str, reason: &str) {
    let Some((me, user)) = super::user(server, id) else { return };
    let Some((_, shown, channel)) = super::channel(server, id, name) else { return };
    if !channel.is_member(me) {
        return server.reply(id, 442, format_args!("{shown} :You're not on that channel"));
    }
    let Some(channel) = ChannelName::parse(&shown) else { return };
    server.change(id, Entry::Part { user, channel, reason: reason.to_owned() });
}
