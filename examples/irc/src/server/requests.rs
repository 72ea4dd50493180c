//! What commands ask of the server: to append an entry of a client's, and to end a client.

use super::client::Echo;
use super::{Caps, ClientId, InFlight, Line, Phase, Server};
use crate::entry::Entry;
use crate::message::truncate;
use crate::names::{Folded, Nick};

impl Server {
    /// Whether the log takes entries of clients now; if not, the line is tried again later.
    pub(crate) fn has_room(&self) -> bool {
        self.outbox.len() < OUTBOX
    }

    /// Appends an entry that the client's next line has to wait for.
    pub(crate) fn change(&mut self, id: ClientId, entry: Entry) {
        let flight = InFlight { client: Some(id), blocks: true, ..InFlight::default() };
        self.append(flight, entry, None);
    }

    /// Like [`Server::change`], for one that takes a nickname.
    pub(crate) fn change_nick(&mut self, id: ClientId, nick: &Nick, entry: Entry) {
        let nick = nick.folded();
        self.taken_nicks.insert(nick.clone());
        let flight = InFlight { client: Some(id), blocks: true, nick: Some(nick), ..InFlight::default() };
        self.append(flight, entry, None);
    }

    /// Like [`Server::change`], for one that creates or revives a channel.
    pub(crate) fn create(&mut self, id: ClientId, channel: Folded, entry: Entry) {
        self.taken_channels.insert(channel.clone());
        let flight = InFlight { client: Some(id), blocks: true, channel: Some(channel), ..InFlight::default() };
        self.append(flight, entry, None);
    }

    /// Appends a message; nothing waits for it but its echo. A sender who named a `recipient` is told if it quit meanwhile.
    pub(crate) fn speak(&mut self, id: ClientId, entry: Entry, recipient: Option<String>) {
        let echoes = self.clients.get(&id).is_some_and(|client| client.caps.has(Caps::ECHO_MESSAGE));
        let echo = echoes.then(|| {
            self.next_echo += 1;
            self.next_echo
        });
        if let (Some(token), Some(client)) = (echo, self.clients.get_mut(&id)) {
            client.echoes.push_back(Echo { token, spoken: None, confirmed: false });
            self.echo_owners.insert(token, id);
        }
        self.append(InFlight { client: Some(id), echo, recipient, ..InFlight::default() }, entry, echo);
    }

    /// Whether somebody else has the nickname or is about to.
    pub(crate) fn is_nick_taken(&self, nick: &Nick) -> bool {
        self.world.is_taken(nick) || self.taken_nicks.contains(&nick.folded())
    }

    /// Whether an entry on its way creates the channel.
    pub(crate) fn is_being_created(&self, channel: &Folded) -> bool {
        self.taken_channels.contains(channel)
    }

    /// Ends a client's connection; its user quits.
    pub(crate) fn close(&mut self, id: ClientId, reason: &str) {
        let Some(client) = self.clients.remove(&id) else { return };
        self.new_clients.remove(&id);
        let mut line = Line::new(format!("ERROR :Closing link: {reason}"));
        // The connection writes what is queued and ends when the queue's sender is gone; a full queue tells it nothing more.
        let _ = client.send(line.bytes(client.caps));
        for room in &client.rooms {
            if let Some(here) = self.rooms.get_mut(room) {
                here.remove(&id);
                if here.is_empty() {
                    self.rooms.remove(room);
                }
            }
        }
        for echo in &client.echoes {
            self.echo_owners.remove(&echo.token);
        }
        if client.phase == Phase::New {
            return;
        }
        if let Some(user) = client.user {
            self.by_user.remove(&user);
            let reason = truncate(reason, MAX_REASON).to_owned();
            // A stop waits until another node knows; nobody waits for the number itself.
            self.next_echo += 1;
            self.append(InFlight::default(), Entry::Quit { user: client.nonce, reason }, Some(self.next_echo));
        }
    }
}

/// Entries that wait for the log before clients have to wait.
const OUTBOX: usize = 1024;
/// Bytes of a QUIT reason.
const MAX_REASON: usize = 300;
