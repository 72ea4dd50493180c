//! INVITE: lets somebody into an invite-only channel.

use crate::entry::{Entry, Flag};
use crate::message::Message;
use crate::names::ChannelName;
use crate::server::{ClientId, Server};

pub(super) fn run(server: &mut Server, id: ClientId, message: &Message) {
    let Some((me, user)) = super::user(server, id) else { return };
    let (Some(nick), Some(name)) = (message.param(0), message.param(1)) else {
        return server.needs_more(id, "INVITE");
    };
    let Some((target, target_nick)) = server.world.find(nick).map(|(id, user)| (id, user.nick().clone())) else {
        return server.no_such_nick(id, nick);
    };
    let Some((_, shown, channel)) = super::channel(server, id, name) else { return };
    let (Some(channel_name), Some(creation)) = (ChannelName::parse(&shown), channel.id()) else { return };
    if !channel.is_member(me) {
        return server.reply(id, 442, format_args!("{shown} :You're not on that channel"));
    }
    if channel.is_member(target) {
        return server.reply(id, 443, format_args!("{target_nick} {shown} :is already on channel"));
    }
    if channel.flag(Flag::InviteOnly) && !channel.is_operator(me) {
        return server.reply(id, 482, format_args!("{shown} :You're not channel operator"));
    }
    server.reply(id, 341, format_args!("{target_nick} {shown}"));
    server.change(id, Entry::Invite { user, channel: channel_name, creation, target });
}
