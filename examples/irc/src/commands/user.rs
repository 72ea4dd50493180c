//! USER: the username and real name of a new client, which are not passed on unless the configuration says so.

use crate::message::{Message, truncate};
use crate::server::{ClientId, Phase, Server};

pub(super) fn run(server: &mut Server, id: ClientId, message: &Message) {
    let shown = server.config.real_names;
    let Some(client) = server.clients.get_mut(&id) else { return };
    if client.phase != Phase::New {
        return server.reply(id, 462, ":You may not reregister");
    }
    let (Some(username), Some(realname)) = (message.param(0), message.param(3)) else {
        return server.needs_more(id, "USER");
    };
    client.named = Some(if shown { (word(username), truncate(realname, 64).to_owned()) } else { anonymous() });
    server.try_register(id);
}

/// What everybody is called: clients send the login name of the machine they run on.
fn anonymous() -> (String, String) {
    ("~u".to_owned(), "anonymous".to_owned())
}

fn word(username: &str) -> String {
    let kept = username.chars().filter(|c| c.is_ascii_alphanumeric() || "-_.".contains(*c)).take(16);
    format!("~{}", kept.collect::<String>())
}
