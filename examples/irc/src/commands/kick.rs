//! KICK: removes somebody from a channel.

use crate::entry::Entry;
use crate::message::{Message, truncate};
use crate::names::ChannelName;
use crate::server::welcome::MAX_KICK;
use crate::server::{ClientId, Server};

pub(super) fn run(server: &mut Server, id: ClientId, message: &Message) {
    let Some((me, user)) = super::user(server, id) else { return };
    let (Some(name), Some(nick)) = (message.param(0), message.param(1)) else {
        return server.needs_more(id, "KICK");
    };
    let target = server.world.find(nick).map(|(target, _)| target);
    let own = server.nick_of(id);
    let Some((_, shown, channel)) = super::channel(server, id, name) else { return };
    if !channel.is_member(me) {
        return server.reply(id, 442, format_args!("{shown} :You're not on that channel"));
    }
    if !channel.is_operator(me) {
        return server.reply(id, 482, format_args!("{shown} :You're not channel operator"));
    }
    let (target, inside) = match target {
        Some(target) => (target, channel.is_member(target)),
        None => return server.no_such_nick(id, nick),
    };
    if !inside {
        let nick = crate::server::reply::printable(nick);
        return server.reply(id, 441, format_args!("{nick} {shown} :They aren't on that channel"));
    }
    let Some(channel) = ChannelName::parse(&shown) else { return };
    let reason = truncate(message.param(2).unwrap_or(&own), MAX_KICK).to_owned();
    server.change(id, Entry::Kick { user, channel, target, reason });
}
