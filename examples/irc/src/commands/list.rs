//! LIST: the channels that are not secret.

use crate::entry::Flag;
use crate::message::Message;
use crate::names::Folded;
use crate::server::{ClientId, Server};

pub(super) fn run(server: &mut Server, id: ClientId, message: &Message) {
    let Some((me, _)) = super::user(server, id) else { return };
    let asked: Option<Vec<Folded>> =
        message.param(0).filter(|names| names.starts_with('#')).map(|names| names.split(',').map(Folded::of).collect());
    let mut lines = Vec::new();
    for (folded, channel) in server.world.channels() {
        let hidden = channel.flag(Flag::Secret) && !channel.is_member(me);
        if hidden || asked.as_ref().is_some_and(|asked| !asked.contains(folded)) {
            continue;
        }
        let members = server.world.visible_members(channel).count();
        if members > 0 {
            let topic = channel.topic().map_or("", |topic| topic.text.as_str());
            lines.push(format!("{} {members} :{topic}", channel.name(folded)));
        }
    }
    lines.sort();
    server.reply(id, 321, "Channel :Users  Name");
    for line in lines {
        server.reply(id, 322, line);
    }
    server.reply(id, 323, ":End of /LIST");
}
