//! PING: asks whether the server is there.

use crate::message::Message;
use crate::server::{ClientId, Server};

pub(super) fn run(server: &mut Server, id: ClientId, message: &Message) {
    let Some(token) = message.param(0) else { return server.needs_more(id, "PING") };
    let name = server.config.name.clone();
    server.tell(id, format_args!("PONG {name} :{token}"));
}
