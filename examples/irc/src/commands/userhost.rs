//! USERHOST: whether some users are here and away; the host is everybody's.

use crate::message::Message;
use crate::server::{ClientId, Server};
use crate::world::user::CLOAK;

pub(super) fn run(server: &mut Server, id: ClientId, message: &Message) {
    if message.param(0).is_none() {
        return server.needs_more(id, "USERHOST");
    }
    let asked = message.params().iter().flat_map(|param| param.split_ascii_whitespace()).take(5);
    let found: Vec<String> = asked
        .filter_map(|nick| server.world.find(nick))
        .map(|(_, user)| {
            let away = if user.away().is_some() { '-' } else { '+' };
            format!("{}={away}{}@{CLOAK}", user.nick(), user.username)
        })
        .collect();
    let found = found.join(" ");
    server.reply(id, 302, format_args!(":{found}"));
}
