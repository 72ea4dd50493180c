//! WHO: the members of a channel, or one user.

use crate::entry::Flag;
use crate::message::Message;
use crate::names::Folded;
use crate::server::reply::{prefix, printable};
use crate::server::{ClientId, Server};
use crate::world::user::{CLOAK, User};

pub(super) fn run(server: &mut Server, id: ClientId, message: &Message) {
    let Some((me, _)) = super::user(server, id) else { return };
    let mask = message.param(0).unwrap_or("*");
    let name = server.config.name.clone();
    let line = |channel: &str, user: &User, prefix: &str| {
        let here = if user.away().is_some() { 'G' } else { 'H' };
        let (nick, realname) = (user.nick(), &user.realname);
        format!("{channel} {} {CLOAK} {name} {nick} {here}{prefix} :0 {realname}", user.username)
    };
    let mut lines = Vec::new();
    let folded = Folded::of(mask);
    if mask.starts_with('#') {
        if let Some(channel) = server.world.channel(&folded) {
            let inside = channel.is_member(me);
            for (id, user) in server.world.visible_members(channel) {
                if inside || !(channel.flag(Flag::Secret) || user.is_invisible()) {
                    lines.push(line(channel.name(&folded), user, prefix(channel, id)));
                }
            }
        }
    } else if let Some((_, user)) = server.world.find(mask) {
        lines.push(line("*", user, ""));
    }
    for line in lines {
        server.reply(id, 352, line);
    }
    server.reply(id, 315, format_args!("{} :End of /WHO list", printable(mask)));
}
