//! The commands of IRC, one file each.
//!
//! A command checks the line against the world as it is here, answers what it refuses, and appends an entry for what
//! changes. Replies to a change are sent when the entry has been applied, by the server's `announce`.

mod away;
mod cap;
mod invite;
mod ison;
mod join;
mod kick;
mod list;
pub(crate) mod mode;
mod names;
mod nick;
mod part;
mod ping;
mod privmsg;
mod topic;
mod user;
mod userhost;
mod who;
mod whois;

use crate::message::{Message, ParseMessageError, truncate};
use crate::names::{Folded, UserId};
use crate::server::{ClientId, Phase, Server};
use crate::world::channel::Channel;

/// What became of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flow {
    /// It was processed, or its entry is on the way.
    Done,
    /// Something it depends on is on the way: try it again.
    Retry,
}

/// Processes one line of a client.
pub(crate) fn run(server: &mut Server, id: ClientId, line: &Result<Message, ParseMessageError>) -> Flow {
    if !server.has_room() {
        return Flow::Retry;
    }
    let message = match line {
        Ok(message) => message,
        Err(error) => {
            refuse(server, id, *error);
            return Flow::Done;
        }
    };
    let registered = server.clients.get(&id).is_some_and(|client| client.phase == Phase::Registered);
    match message.command() {
        "CAP" => cap::run(server, id, message),
        "NICK" => nick::run(server, id, message),
        "USER" => user::run(server, id, message),
        "PING" => ping::run(server, id, message),
        "PASS" if registered => server.reply(id, 462, ":You may not reregister"),
        // What the connection's task wanted of PONG was any line at all; there are no passwords.
        "PONG" | "PASS" => {}
        "QUIT" => {
            let reason = truncate(message.param(0).unwrap_or("Client quit"), MAX_QUIT).to_owned();
            server.close(id, &format!("Quit: {reason}"));
        }
        _ if !registered => server.reply(id, 451, ":You have not registered"),
        "AWAY" => away::run(server, id, message),
        "INVITE" => invite::run(server, id, message),
        "ISON" => ison::run(server, id, message),
        "JOIN" => return join::run(server, id, message),
        "KICK" => kick::run(server, id, message),
        "LIST" => list::run(server, id, message),
        "LUSERS" => server.send_counts(id),
        "MODE" => mode::run(server, id, message),
        "MOTD" => server.send_motd(id),
        "NAMES" => names::run(server, id, message),
        "NOTICE" | "PRIVMSG" | "TAGMSG" => privmsg::run(server, id, message),
        "PART" => part::run(server, id, message),
        "TOPIC" => topic::run(server, id, message),
        "USERHOST" => userhost::run(server, id, message),
        "VERSION" => {
            let name = server.config.name.clone();
            server.reply(id, 351, format_args!("hcp-irc {name} :One server on many equal nodes"));
        }
        "WHO" => who::run(server, id, message),
        "WHOIS" => whois::run(server, id, message),
        unknown => {
            let unknown = truncate(unknown, 50);
            server.reply(id, 421, format_args!("{unknown} :Unknown command"));
        }
    }
    Flow::Done
}

fn refuse(server: &mut Server, id: ClientId, error: ParseMessageError) {
    match error {
        ParseMessageError::TooLong => server.reply(id, 417, ":Input line was too long"),
        ParseMessageError::NotUtf8 => server.tell(id, "FAIL * INVALID_UTF8 :Message rejected, it is not UTF-8"),
        ParseMessageError::Empty => {}
        ParseMessageError::ControlCharacter | ParseMessageError::NoCommand => {
            server.reply(id, 421, "* :Unknown command");
        }
    }
}

/// The user of a registered client, with its number in this log.
fn user(server: &Server, id: ClientId) -> Option<(UserId, u64)> {
    let client = server.clients.get(&id)?;
    Some((client.user?, client.nonce))
}

/// A channel by name, with its folded name and the name it shows; answers ERR_NOSUCHCHANNEL when nobody is in it.
fn channel<'a>(server: &'a mut Server, id: ClientId, name: &str) -> Option<(Folded, String, &'a Channel)> {
    let folded = Folded::of(name);
    if server.world.channel(&folded).is_none_or(Channel::is_empty) {
        server.no_such_channel(id, name);
        return None;
    }
    let channel = server.world.channel(&folded)?;
    let shown = channel.name(&folded).to_owned();
    Some((folded, shown, channel))
}

/// Bytes of a QUIT message.
const MAX_QUIT: usize = 250;
