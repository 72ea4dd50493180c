//! Lines from the server to one client: numerics and notices.

use super::{ClientId, Line, Server};
use crate::names::Folded;
use crate::world::channel::Channel;

impl Server {
    /// Sends a line as it is.
    pub(crate) fn send(&mut self, id: ClientId, line: &mut Line) {
        let Some(client) = self.clients.get(&id) else { return };
        if client.send(line.bytes(client.caps)).is_err() {
            self.doomed.push((id, "It reads too slowly: its send queue is full"));
        }
    }

    /// Sends `:server numeric nick rest`.
    pub(crate) fn reply(&mut self, id: ClientId, numeric: u16, rest: impl std::fmt::Display) {
        let nick = self.nick_of(id);
        let mut line = Line::new(format!(":{} {numeric:03} {nick} {rest}", self.config.name));
        self.send(id, &mut line);
    }

    /// Sends `:server COMMAND rest`.
    pub(crate) fn tell(&mut self, id: ClientId, rest: impl std::fmt::Display) {
        let mut line = Line::new(format!(":{} {rest}", self.config.name));
        self.send(id, &mut line);
    }

    /// ERR_NEEDMOREPARAMS.
    pub(crate) fn needs_more(&mut self, id: ClientId, command: &str) {
        self.reply(id, 461, format_args!("{command} :Not enough parameters"));
    }

    /// ERR_NOSUCHNICK.
    pub(crate) fn no_such_nick(&mut self, id: ClientId, nick: &str) {
        self.reply(id, 401, format_args!("{} :No such nick", printable(nick)));
    }

    /// ERR_NOSUCHCHANNEL.
    pub(crate) fn no_such_channel(&mut self, id: ClientId, name: &str) {
        self.reply(id, 403, format_args!("{} :No such channel", printable(name)));
    }

    /// What a client is called in replies; `*` before it has a name.
    pub(crate) fn nick_of(&self, id: ClientId) -> String {
        let Some(client) = self.clients.get(&id) else { return "*".to_owned() };
        let user = client.user.and_then(|user| self.world.user(user)).map(|user| user.nick());
        user.or(client.wanted.as_ref()).map_or_else(|| "*".to_owned(), ToString::to_string)
    }

    /// RPL_TOPIC and RPL_TOPICWHOTIME, or RPL_NOTOPIC.
    pub(crate) fn send_topic(&mut self, id: ClientId, folded: &Folded) {
        let Some(channel) = self.world.channel(folded) else { return };
        let name = channel.name(folded).to_owned();
        match channel.topic().cloned() {
            Some(topic) => {
                self.reply(id, 332, format_args!("{name} :{}", topic.text));
                self.reply(id, 333, format_args!("{name} {} {}", topic.by, topic.at));
            }
            None => self.reply(id, 331, format_args!("{name} :No topic is set")),
        }
    }

    /// RPL_NAMREPLY and RPL_ENDOFNAMES; nothing but the end for a channel that the client may not see.
    pub(crate) fn send_names(&mut self, id: ClientId, asked: &str) {
        let folded = Folded::of(asked);
        let user = self.clients.get(&id).and_then(|client| client.user);
        let seen = self.world.channel(&folded).filter(|channel| {
            user.is_some_and(|user| channel.is_member(user)) || !channel.flag(crate::entry::Flag::Secret)
        });
        let mut lines: Vec<String> = Vec::new();
        let mut name = printable(asked).to_owned();
        if let Some(channel) = seen {
            name = channel.name(&folded).to_owned();
            let inside = user.is_some_and(|user| channel.is_member(user));
            let shown = self.world.visible_members(channel).filter(|(_, member)| inside || !member.is_invisible());
            for (member, details) in shown {
                let entry = format!("{}{}", prefix(channel, member), details.nick());
                match lines.last_mut().filter(|line| line.len() + entry.len() < NAMES_BYTES) {
                    Some(line) => {
                        line.push(' ');
                        line.push_str(&entry);
                    }
                    None => lines.push(entry),
                }
            }
        }
        for line in lines {
            self.reply(id, 353, format_args!("= {name} :{line}"));
        }
        self.reply(id, 366, format_args!("{name} :End of /NAMES list"));
    }
}

/// The prefix of a member in lists: `@`, `+` or nothing.
pub(crate) fn prefix(channel: &Channel, user: crate::names::UserId) -> &'static str {
    if channel.is_operator(user) {
        "@"
    } else if channel.has_voice(user) {
        "+"
    } else {
        ""
    }
}

/// What a client sent, fit to stand in the middle of a reply: `*` for what is empty or holds spaces.
pub(crate) fn printable(text: &str) -> &str {
    let fits = !text.is_empty() && !text.contains(' ') && !text.starts_with(':');
    if fits { crate::message::truncate(text, 100) } else { "*" }
}

/// Bytes of names in one RPL_NAMREPLY, so that the longest server, channel and nickname fit beside them.
const NAMES_BYTES: usize = 300;
