//! TOPIC: shows or sets a channel's topic.

use crate::entry::{Entry, Flag};
use crate::message::{Message, truncate};
use crate::names::ChannelName;
use crate::server::welcome::MAX_TOPIC;
use crate::server::{ClientId, Server};

pub(super) fn run(server: &mut Server, id: ClientId, message: &Message) {
    let Some((me, user)) = super::user(server, id) else { return };
    let Some(name) = message.param(0) else { return server.needs_more(id, "TOPIC") };
    let by = server.nick_of(id);
    let Some((folded, shown, channel)) = super::channel(server, id, name) else { return };
    let secret = channel.flag(Flag::Secret);
    let Some(text) = message.params().get(1) else {
        if secret && !channel.is_member(me) {
            return server.reply(id, 442, format_args!("{shown} :You're not on that channel"));
        }
        return server.send_topic(id, &folded);
    };
    if !channel.is_member(me) {
        return server.reply(id, 442, format_args!("{shown} :You're not on that channel"));
    }
    if channel.flag(Flag::TopicLocked) && !channel.is_operator(me) {
        return server.reply(id, 482, format_args!("{shown} :You're not channel operator"));
    }
    let (Some(creation), Some(channel)) = (channel.id(), ChannelName::parse(&shown)) else { return };
    let text = truncate(text, MAX_TOPIC).to_owned();
    server.change(id, Entry::Topic { user, channel, creation, by, text });
}
