//! JOIN: enters channels, creating those that do not exist.

use std::collections::HashSet;

use tokio::time::Instant;

use super::Flow;
use crate::entry::{Entry, Flag, Standing};
use crate::message::Message;
use crate::names::{ChannelName, Folded};
use crate::server::welcome::MAX_CHANNELS;
use crate::server::{ClientId, Server, now};

/// How long a channel that lost its last member keeps its modes, topic and history for whoever comes first: members who
/// all lost their connection at once find it as it was.
const LINGER_MILLIS: u64 = 5 * 60 * 1000;
/// Channels with somebody in them beyond which this node lets its clients create no more. Empty ones do not count: they
/// would use up the limit for good, as their memory is not given back yet; how fast a client creates is limited instead.
const MAX_NAMES: usize = 20_000;

pub(super) fn run(server: &mut Server, id: ClientId, message: &Message) -> Flow {
    let Some(names) = message.param(0) else {
        server.needs_more(id, "JOIN");
        return Flow::Done;
    };
    if names == "0" {
        super::part::all(server, id);
        return Flow::Done;
    }
    let mut keys = message.param(1).unwrap_or("").split(',');
    // Each name once: the second JOIN would be written before the first is applied.
    let mut seen = HashSet::new();
    let asked = names.split(',').map(|name| (name, keys.next().unwrap_or("")));
    let asked: Vec<(&str, &str)> = asked.filter(|(name, _)| seen.insert(Folded::of(name))).take(MAX_CHANNELS).collect();
    // A channel that another line brings into being right now is joined, not created a second time.
    if asked.iter().any(|(name, _)| server.is_being_created(&Folded::of(name))) {
        return Flow::Retry;
    }
    let mut joined = server.clients.get(&id).map_or(0, |client| client.rooms.len());
    for (name, key) in asked {
        if joined >= MAX_CHANNELS {
            server.reply(id, 405, format_args!("{} :You have joined too many channels", printable(name)));
        } else if join(server, id, name, key) {
            joined += 1;
        }
    }
    Flow::Done
}

/// Whether an entry is on its way.
fn join(server: &mut Server, id: ClientId, name: &str, key: &str) -> bool {
    let Some((me, user)) = super::user(server, id) else { return false };
    let Some(channel) = ChannelName::parse(name) else {
        server.no_such_channel(id, name);
        return false;
    };
    let folded = channel.folded();
    let known = server.world.channel(&folded).map(|state| (state, state.id()));
    let Some((state, Some(creation))) = known else { return create(server, id, user, channel) };
    if state.is_member(me) {
        return false;
    }
    let empty = state.is_empty();
    if empty && now() > state.left().saturating_add(LINGER_MILLIS) {
        return create(server, id, user, channel);
    }
    let invited = server.clients.get(&id).is_some_and(|client| client.invited.contains(&creation));
    let full = state.limit().is_some_and(|limit| server.world.visible_members(state).count() >= limit as usize);
    let shown = state.name(&folded);
    let refusal = if invited {
        None
    } else if state.flag(Flag::InviteOnly) {
        Some((473, format!("{shown} :Cannot join channel (+i)")))
    } else if state.key().is_some_and(|wanted| wanted != key) {
        Some((475, format!("{shown} :Cannot join channel (+k)")))
    } else if full {
        Some((471, format!("{shown} :Cannot join channel (+l)")))
    } else {
        None
    };
    if let Some((numeric, text)) = refusal {
        server.reply(id, numeric, text);
        return false;
    }
    if let Some(client) = server.clients.get_mut(&id) {
        client.invited.remove(&creation);
    }
    if empty {
        server.create(id, folded, Entry::Join { user, channel, standing: Standing::Reviver(creation) });
    } else {
        server.change(id, Entry::Join { user, channel, standing: Standing::Member(creation) });
    }
    true
}

/// Whether an entry that creates the channel is on its way.
fn create(server: &mut Server, id: ClientId, user: u64, channel: ChannelName) -> bool {
    if server.world.occupied_channels() >= MAX_NAMES {
        server.reply(id, 405, format_args!("{channel} :There are too many channels"));
        return false;
    }
    if !server.clients.get_mut(&id).is_some_and(|client| client.may_create(Instant::now())) {
        server.reply(id, 437, format_args!("{channel} :You create channels too fast; try again later"));
        return false;
    }
    let standing = Standing::Creator(rand::random());
    server.create(id, channel.folded(), Entry::Join { user, channel, standing });
    true
}

fn printable(name: &str) -> &str {
    crate::server::reply::printable(name)
}
