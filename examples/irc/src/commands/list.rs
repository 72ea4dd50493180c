//! LIST: the channels that are not secret.

use std::collections::BTreeSet;

use crate::entry::Flag;
use crate::message::Message;
use crate::names::Folded;
use crate::server::{ClientId, Server};
use crate::world::channel::Channel;

pub(super) fn run(server: &mut Server, id: ClientId, message: &Message) {
    let Some((me, _)) = super::user(server, id) else { return };
    let shown = |(folded, channel): (&Folded, &Channel)| {
        let members = server.world.visible_members(channel).count();
        let hidden = channel.flag(Flag::Secret) && !channel.is_member(me);
        let topic = channel.topic().map_or("", |topic| topic.text.as_str());
        (members > 0 && !hidden).then(|| format!("{} {members} :{topic}", channel.name(folded)))
    };
    let mut lines: Vec<String> = match message.param(0).filter(|names| names.starts_with('#')) {
        Some(names) => {
            let asked: BTreeSet<Folded> = names.split(',').map(Folded::of).collect();
            asked.iter().filter_map(|folded| shown((folded, server.world.channel(folded)?))).collect()
        }
        None => server.world.channels().filter_map(shown).collect(),
    };
    lines.sort();
    lines.truncate(MAX_LINES);
    server.reply(id, 321, "Channel :Users  Name");
    for line in lines {
        server.reply(id, 322, line);
    }
    server.reply(id, 323, ":End of /LIST");
}

/// Channels in one answer: with their topics they fit into the client's send queue, which would drop it otherwise.
const MAX_LINES: usize = 1000;
