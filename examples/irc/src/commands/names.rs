//! NAMES: who is in a channel.

use crate::message::Message;
use crate::server::{ClientId, Server};

pub(super) fn run(server: &mut Server, id: ClientId, message: &Message) {
    match message.param(0) {
        Some(names) => names.split(',').take(crate::server::welcome::MAX_TARGETS).for_each(|name| {
            server.send_names(id, name);
        }),
        None => server.reply(id, 366, "* :End of /NAMES list"),
    }
}
