//! NICK: chooses or changes the nickname.

use crate::entry::Entry;
use crate::message::Message;
use crate::names::Nick;
use crate::server::reply::printable;
use crate::server::{ClientId, Phase, Server};

pub(super) fn run(server: &mut Server, id: ClientId, message: &Message) {
    let Some(name) = message.param(0) else {
        return server.reply(id, 431, ":No nickname given");
    };
    let Some(nick) = Nick::parse(name).filter(|nick| !nick.is_guest()) else {
        return server.reply(id, 432, format_args!("{} :Erroneous nickname", printable(name)));
    };
    let Some(client) = server.clients.get(&id) else { return };
    let phase = client.phase;
    let own = client.user.and_then(|user| server.world.user(user)).map(|user| user.nick().clone());
    if own.as_ref() == Some(&nick) {
        return;
    }
    let mine = own.is_some_and(|own| own.folded() == nick.folded());
    if !mine && server.is_nick_taken(&nick) {
        return server.reply(id, 433, format_args!("{nick} :Nickname is already in use"));
    }
    if phase == Phase::Registered {
        let Some((_, user)) = super::user(server, id) else { return };
        server.change_nick(id, &nick.clone(), Entry::Nick { user, nick });
    } else {
        if let Some(client) = server.clients.get_mut(&id) {
            client.wanted = Some(nick);
        }
        server.try_register(id);
    }
}
