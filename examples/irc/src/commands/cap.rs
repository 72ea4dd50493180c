//! CAP: capability negotiation (IRCv3, version 302).

use crate::message::Message;
use crate::server::{Caps, ClientId, Phase, Server};

pub(super) fn run(server: &mut Server, id: ClientId, message: &Message) {
    let Some(subcommand) = message.param(0).map(str::to_ascii_uppercase) else {
        return server.needs_more(id, "CAP");
    };
    let nick = server.nick_of(id);
    let Some(client) = server.clients.get_mut(&id) else { return };
    let before = client.phase == Phase::New;
    match subcommand.as_str() {
        "LS" => {
            client.negotiating |= before;
            let names = Caps::NAMES.map(|(name, _)| name).join(" ");
            server.tell(id, format_args!("CAP {nick} LS :{names}"));
        }
        "LIST" => {
            let names = listed(client.caps);
            server.tell(id, format_args!("CAP {nick} LIST :{names}"));
        }
        "REQ" => {
            client.negotiating |= before;
            let asked = message.params().get(1).map_or("", String::as_str);
            match applied(client.caps, asked) {
                Some(caps) => {
                    client.caps = caps;
                    server.tell(id, format_args!("CAP {nick} ACK :{asked}"));
                }
                None => server.tell(id, format_args!("CAP {nick} NAK :{asked}")),
            }
        }
        "END" => {
            client.negotiating = false;
            server.try_register(id);
        }
        _ => {
            let shown = crate::server::reply::printable(&subcommand).to_owned();
            server.reply(id, 410, format_args!("{shown} :Invalid CAP command"));
        }
    }
}

/// The capabilities after a request, which counts as a whole or not at all.
fn applied(mut caps: Caps, asked: &str) -> Option<Caps> {
    for word in asked.split_ascii_whitespace() {
        let (name, on) = word.strip_prefix('-').map_or((word, true), |name| (name, false));
        let (_, cap) = Caps::NAMES.into_iter().find(|(known, _)| *known == name)?;
        caps = if on { caps.with(cap) } else { caps.without(cap) };
    }
    Some(caps)
}

fn listed(caps: Caps) -> String {
    let names: Vec<&str> = Caps::NAMES.into_iter().filter(|(_, cap)| caps.has(*cap)).map(|(name, _)| name).collect();
    names.join(" ")
}
