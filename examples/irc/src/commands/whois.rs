//! WHOIS: what may be known of a user; neither where it is nor since when nor how busy.

use crate::entry::Flag;
use crate::message::Message;
use crate::server::reply::{prefix, printable};
use crate::server::{ClientId, Server};
use crate::world::user::CLOAK;

pub(super) fn run(server: &mut Server, id: ClientId, message: &Message) {
    let Some((me, _)) = super::user(server, id) else { return };
    // `WHOIS server nick` asks one server of many; there is one.
    let Some(asked) = message.param(1).or(message.param(0)) else {
        return server.reply(id, 431, ":No nickname given");
    };
    let Some((target, user)) = server.world.find(asked) else {
        server.no_such_nick(id, asked);
        return server.reply(id, 318, format_args!("{} :End of /WHOIS list", printable(asked)));
    };
    let (nick, username, realname, away) =
        (user.nick().clone(), user.username.clone(), user.realname.clone(), user.away().map(str::to_owned));
    let channels: Vec<String> = user
        .channels()
        .filter_map(|folded| Some((folded, server.world.channel(folded)?)))
        .filter(|(_, channel)| channel.is_member(me) || !(channel.flag(Flag::Secret) || user.is_invisible()))
        .map(|(folded, channel)| format!("{}{}", prefix(channel, target), channel.name(folded)))
        .collect();
    let name = server.config.name.clone();
    server.reply(id, 311, format_args!("{nick} {username} {CLOAK} * :{realname}"));
    // Five names of full length fit into a line.
    for some in channels.chunks(5) {
        server.reply(id, 319, format_args!("{nick} :{}", some.join(" ")));
    }
    server.reply(id, 312, format_args!("{nick} {name} :One server on many equal nodes"));
    if let Some(away) = away {
        server.reply(id, 301, format_args!("{nick} :{away}"));
    }
    server.reply(id, 318, format_args!("{nick} :End of /WHOIS list"));
}
