//! MODE: modes of channels and of oneself.

use std::fmt::Write as _;

use crate::entry::{Entry, Flag, MAX_KEY, MAX_MODE_CHANGES, ModeChange};
use crate::message::Message;
use crate::names::{ChannelName, Folded};
use crate::server::reply::printable;
use crate::server::{ClientId, Server};
use crate::world::World;
use crate::world::user::User;

pub(super) fn run(server: &mut Server, id: ClientId, message: &Message) {
    match message.param(0) {
        None => server.needs_more(id, "MODE"),
        Some(name) if name.starts_with('#') => of_channel(server, id, name, message),
        Some(nick) => of_user(server, id, nick, message.param(1)),
    }
}

/// Mode changes as a MODE line shows them, parameters included.
pub(crate) fn written(world: &World, changes: &[ModeChange]) -> String {
    let (mut modes, mut params, mut last) = (String::new(), String::new(), ' ');
    for change in changes {
        let (letter, on, param) = match change {
            ModeChange::Flag(flag, on) => (flag.letter(), *on, None),
            ModeChange::Key(Some(key)) => ('k', true, Some(key.clone())),
            ModeChange::Key(None) => ('k', false, Some("*".to_owned())),
            ModeChange::Limit(limit) => ('l', limit.is_some(), limit.map(|limit| limit.to_string())),
            ModeChange::Operator(user, on) => ('o', *on, Some(nick(world, *user))),
            ModeChange::Voice(user, on) => ('v', *on, Some(nick(world, *user))),
        };
        let sign = if on { '+' } else { '-' };
        if sign != last {
            modes.push(sign);
            last = sign;
        }
        modes.push(letter);
        if let Some(param) = param {
            let _ = write!(params, " {param}");
        }
    }
    modes + &params
}

fn nick(world: &World, user: crate::names::UserId) -> String {
    world.user(user).map_or_else(|| "*".to_owned(), |user| user.nick().to_string())
}

fn of_channel(server: &mut Server, id: ClientId, name: &str, message: &Message) {
    let Some((me, user)) = super::user(server, id) else { return };
    let Some((folded, shown, channel)) = super::channel(server, id, name) else { return };
    let (inside, operator) = (channel.is_member(me), channel.is_operator(me));
    let Some(modes) = message.param(1) else {
        return query(server, id, &folded, &shown, inside);
    };
    // Clients ask for the ban list when they join.
    if matches!(modes, "b" | "+b") && message.param(2).is_none() {
        return server.reply(id, 368, format_args!("{shown} :End of channel ban list"));
    }
    if !inside {
        return server.reply(id, 442, format_args!("{shown} :You're not on that channel"));
    }
    if !operator {
        return server.reply(id, 482, format_args!("{shown} :You're not channel operator"));
    }
    let changes = parse(server, id, &folded, &shown, modes, &message.params()[2..]);
    let creation = server.world.channel(&folded).and_then(|channel| channel.id());
    if let (Some(creation), Some(channel), false) = (creation, ChannelName::parse(&shown), changes.is_empty()) {
        server.change(id, Entry::Mode { user, channel, creation, changes });
    }
}

fn parse(
    server: &mut Server,
    id: ClientId,
    folded: &Folded,
    shown: &str,
    modes: &str,
    params: &[String],
) -> Vec<ModeChange> {
    let mut params = params.iter().map(String::as_str);
    let (mut changes, mut on) = (Vec::new(), true);
    for letter in modes.chars() {
        if changes.len() == MAX_MODE_CHANGES {
            break;
        }
        match letter {
            '+' => on = true,
            '-' => on = false,
            'k' => {
                let param = params.next();
                match param {
                    _ if !on => changes.push(ModeChange::Key(None)),
                    Some(key) if is_key(key) => changes.push(ModeChange::Key(Some(key.to_owned()))),
                    Some(_) => server.reply(id, 525, format_args!("{shown} :Key is not well-formed")),
                    None => server.reply(id, 696, format_args!("{shown} k * :You must specify a parameter")),
                }
            }
            'l' if on => match params.next().map(str::parse) {
                Some(Ok(limit)) if limit > 0 => changes.push(ModeChange::Limit(Some(limit))),
                Some(_) => server.reply(id, 696, format_args!("{shown} l * :The limit must be a positive number")),
                None => server.reply(id, 696, format_args!("{shown} l * :You must specify a parameter")),
            },
            'l' => changes.push(ModeChange::Limit(None)),
            'o' | 'v' => {
                let Some(nick) = params.next() else {
                    server.reply(id, 696, format_args!("{shown} {letter} * :You must specify a parameter"));
                    continue;
                };
                let Some(target) = server.world.find(nick).map(|(target, _)| target) else {
                    server.no_such_nick(id, nick);
                    continue;
                };
                if !server.world.channel(folded).is_some_and(|channel| channel.is_member(target)) {
                    server.reply(id, 441, format_args!("{} {shown} :They aren't on that channel", printable(nick)));
                } else if letter == 'o' {
                    changes.push(ModeChange::Operator(target, on));
                } else {
                    changes.push(ModeChange::Voice(target, on));
                }
            }
            letter => match Flag::from_letter(letter) {
                Some(flag) => changes.push(ModeChange::Flag(flag, on)),
                None if letter.is_control() => {}
                None => server.reply(id, 472, format_args!("{letter} :is unknown mode char to me")),
            },
        }
    }
    changes
}

/// RPL_CHANNELMODEIS and RPL_CREATIONTIME; the key only for members.
fn query(server: &mut Server, id: ClientId, folded: &Folded, shown: &str, inside: bool) {
    let Some(channel) = server.world.channel(folded) else { return };
    let mut modes: Vec<ModeChange> =
        Flag::ALL.into_iter().filter(|flag| channel.flag(*flag)).map(|flag| ModeChange::Flag(flag, true)).collect();
    if let Some(key) = channel.key() {
        modes.push(ModeChange::Key(Some(if inside { key.to_owned() } else { "*".to_owned() })));
    }
    if let Some(limit) = channel.limit() {
        modes.push(ModeChange::Limit(Some(limit)));
    }
    let created = channel.created();
    let text = if modes.is_empty() { "+".to_owned() } else { written(&server.world, &modes) };
    server.reply(id, 324, format_args!("{shown} {text}"));
    server.reply(id, 329, format_args!("{shown} {created}"));
}

fn of_user(server: &mut Server, id: ClientId, nick: &str, modes: Option<&str>) {
    let Some((me, user)) = super::user(server, id) else { return };
    let Some(target) = server.world.find(nick).map(|(target, _)| target) else {
        return server.no_such_nick(id, nick);
    };
    if target != me {
        return server.reply(id, 502, ":Can't change mode for other users");
    }
    let invisible = server.world.user(me).is_some_and(User::is_invisible);
    let Some(modes) = modes else {
        return server.reply(id, 221, if invisible { "+i" } else { "+" });
    };
    let (mut on, mut wanted, mut unknown) = (true, invisible, false);
    for letter in modes.chars() {
        match letter {
            '+' => on = true,
            '-' => on = false,
            'i' => wanted = on,
            _ => unknown = true,
        }
    }
    if unknown {
        server.reply(id, 501, ":Unknown MODE flag");
    }
    if wanted != invisible {
        server.change(id, Entry::UserMode { user, invisible: wanted });
    }
}

fn is_key(key: &str) -> bool {
    (1..=MAX_KEY).contains(&key.len()) && !key.starts_with(':') && !key.contains([' ', ','])
}
