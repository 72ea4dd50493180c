//! ISON: which of some nicknames are in use.

use crate::message::Message;
use crate::server::{ClientId, Server};

pub(super) fn run(server: &mut Server, id: ClientId, message: &Message) {
    if message.param(0).is_none() {
        return server.needs_more(id, "ISON");
    }
    let asked = message.params().iter().flat_map(|param| param.split_ascii_whitespace());
    let found: Vec<&str> =
        asked.filter_map(|nick| server.world.find(nick)).map(|(_, user)| user.nick().as_str()).collect();
    let found = found.join(" ");
    server.reply(id, 303, format_args!(":{found}"));
}
