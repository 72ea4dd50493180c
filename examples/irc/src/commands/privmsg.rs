//! PRIVMSG, NOTICE and TAGMSG: messages to channels and users.

use std::collections::HashSet;

use crate::entry::{Entry, Flag, Target, TextKind};
use crate::message::Message;
use crate::names::{ChannelName, Folded};
use crate::server::reply::printable;
use crate::server::welcome::MAX_TARGETS;
use crate::server::{Caps, ClientId, Server};

pub(super) fn run(server: &mut Server, id: ClientId, message: &Message) {
    let kind = match message.command() {
        "NOTICE" => TextKind::Notice,
        "TAGMSG" => TextKind::Tagmsg,
        _ => TextKind::Privmsg,
    };
    // NOTICE never causes an automatic reply (RFC 1459), an error included.
    let quiet = kind == TextKind::Notice;
    let tagged = server.clients.get(&id).is_some_and(|client| client.caps.has(Caps::MESSAGE_TAGS));
    if kind == TextKind::Tagmsg && !tagged {
        return server.reply(id, 421, "TAGMSG :Unknown command");
    }
    let Some(targets) = message.param(0) else {
        if !quiet {
            server.reply(id, 411, format_args!(":No recipient given ({})", kind.command()));
        }
        return;
    };
    let text = match (kind, message.param(1)) {
        (TextKind::Tagmsg, _) => "",
        (_, Some(text)) => text,
        (_, None) => {
            if !quiet {
                server.reply(id, 412, ":No text to send");
            }
            return;
        }
    };
    let tags = if tagged { message.client_tags() } else { String::new() };
    let mut seen = HashSet::new();
    for target in targets.split(',') {
        if !seen.insert(Folded::of(target)) {
            continue;
        }
        if seen.len() > MAX_TARGETS {
            server.reply(id, 407, format_args!("{} :Too many targets", printable(target)));
            return;
        }
        say(server, id, kind, target, text, &tags);
    }
}

fn say(server: &mut Server, id: ClientId, kind: TextKind, target: &str, text: &str, tags: &str) {
    let Some((_, user)) = super::user(server, id) else { return };
    let entry = |target| Entry::Text { user, target, kind, text: text.to_owned(), tags: tags.to_owned() };
    let checked =
        if target.starts_with('#') { to_channel(server, id, target, text) } else { to_user(server, target, text) };
    match checked {
        Ok(to) => {
            let away = match &to {
                Target::User(user) => server.world.user(*user).and_then(|user| {
                    let away = user.away()?;
                    Some(format!("{} :{away}", user.nick()))
                }),
                Target::Channel(..) => None,
            };
            let recipient = matches!(to, Target::User(_)) && kind != TextKind::Notice;
            server.speak(id, entry(to), recipient.then(|| target.to_owned()));
            if let Some(away) = away.filter(|_| kind == TextKind::Privmsg) {
                server.reply(id, 301, away);
            }
        }
        Err((numeric, text)) if kind != TextKind::Notice => server.reply(id, numeric, text),
        Err(_) => {}
    }
}

fn to_channel(server: &Server, id: ClientId, name: &str, text: &str) -> Result<Target, (u16, String)> {
    let missing = || (403, format!("{} :No such channel", printable(name)));
    let parsed = ChannelName::parse(name).ok_or_else(missing)?;
    let channel = server.world.channel(&parsed.folded()).filter(|channel| !channel.is_empty()).ok_or_else(missing)?;
    let (Some(creation), Some((me, _))) = (channel.id(), super::user(server, id)) else { return Err(missing()) };
    let refused = |why: &str| Err((404, format!("{parsed} :Cannot send to channel ({why})")));
    if channel.flag(Flag::NoExternal) && !channel.is_member(me) {
        return refused("+n");
    }
    if channel.flag(Flag::Moderated) && !channel.is_operator(me) && !channel.has_voice(me) {
        return refused("+m");
    }
    if is_refused_ctcp(server, text) {
        return refused("CTCP gives away who and where you are");
    }
    Ok(Target::Channel(parsed, creation))
}

fn to_user(server: &Server, nick: &str, text: &str) -> Result<Target, (u16, String)> {
    let (target, user) = server.world.find(nick).ok_or_else(|| (401, format!("{} :No such nick", printable(nick))))?;
    if is_refused_ctcp(server, text) {
        return Err((531, format!("{} :Cannot send to user (CTCP gives away who and where you are)", user.nick())));
    }
    Ok(Target::User(target))
}

/// Clients answer CTCP on their own, with their version, their time zone, or, for DCC, their network address.
fn is_refused_ctcp(server: &Server, text: &str) -> bool {
    let action = |request: &str| request.split([' ', '\u{1}']).next().is_some_and(|verb| verb == "ACTION");
    !server.config.ctcp && text.strip_prefix('\u{1}').is_some_and(|request| !action(request))
}
