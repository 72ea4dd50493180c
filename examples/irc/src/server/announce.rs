//! What changed, told to the clients of this node.

use std::collections::BTreeSet;
use std::sync::Arc;

use data_encoding::BASE32_NOPAD;
use hcp_core::replica::Spot;

use super::client::Spoken;
use super::{Caps, ClientId, InFlight, Line, Phase, Server, now};
use crate::commands::mode;
use crate::entry::{Entry, ModeChange, Target, TextKind};
use crate::names::{Folded, Nick, UserId};
use crate::world::change::{Change, Said, ServerTime};

impl Server {
    /// Announces what changed without an entry: users who are hidden or back.
    pub(super) fn announce_now(&mut self, changes: Vec<Change>) {
        if changes.is_empty() {
            return;
        }
        let time = self.world.time(now());
        changes.into_iter().for_each(|change| self.announce(time, change));
    }

    pub(super) fn announce(&mut self, time: ServerTime, change: Change) {
        match change {
            Change::Connected(user) => {
                if let Some(id) = self.by_user.get(&user).copied() {
                    self.welcome(id);
                    self.settle_for_guest(id, user);
                }
            }
            Change::Renamed { user, from, to } => self.announce_nick(time, user, &from, &to),
            Change::Gone { user, mask, channels, reason } => self.announce_gone(time, user, &mask, &channels, &reason),
            Change::Returned { user } => {
                let channels: Vec<Folded> =
                    self.world.user(user).into_iter().flat_map(|user| user.channels().cloned()).collect();
                for channel in channels {
                    self.announce_join(time, user, &channel);
                    self.announce_rights(time, user, &channel);
                }
            }
            Change::Joined { user, channel } => self.announce_join(time, user, &channel),
            Change::Left { user, channel, by, reason } => self.announce_left(time, user, &channel, by, &reason),
            Change::Topic { channel, by } => {
                let Some(state) = self.world.channel(&channel) else { return };
                let text = state.topic().map_or("", |topic| topic.text.as_str());
                let by = by.unwrap_or_else(|| self.config.name.clone());
                let line = format!(":{by} TOPIC {} :{text}", state.name(&channel));
                self.send_to_room(&channel, Line::new(line).at(time), None);
            }
            Change::Modes { channel, by, changes } => {
                let by = by.unwrap_or_else(|| self.config.name.clone());
                self.announce_modes(time, &by, &channel, &changes);
            }
            Change::Away { user } => {
                let away = self.world.user(user).is_some_and(|user| user.away().is_some());
                if let Some(id) = self.by_user.get(&user).copied() {
                    let (numeric, text) = if away {
                        (306, ":You have been marked as being away")
                    } else {
                        (305, ":You are no longer marked as being away")
                    };
                    self.reply(id, numeric, text);
                }
            }
            Change::UserMode { user } => {
                let sign = if self.world.user(user).is_some_and(|user| user.is_invisible()) { '+' } else { '-' };
                if let Some(id) = self.by_user.get(&user).copied() {
                    let nick = self.nick_of(id);
                    let mut line = Line::new(format!(":{} MODE {nick} {sign}i", self.world.mask(user))).at(time);
                    self.send(id, &mut line);
                }
            }
            Change::Said { user, target, said } => drop(self.announce_message(user, &target, said)),
            Change::Invited { by, channel, target } => {
                let Some(id) = self.by_user.get(&target).copied() else { return };
                let creation = self.world.channel(&channel.folded()).and_then(|channel| channel.id());
                if let Some(client) = self.clients.get_mut(&id) {
                    client.invited.extend(creation);
                }
                let nick = self.nick_of(id);
                self.send(id, &mut Line::new(format!(":{by} INVITE {nick} {channel}")).at(time));
            }
        }
    }

    /// Sends a message to all who get it but the sender; returns it, for the sender's echo, unless its recipient is no more.
    pub(super) fn announce_message(&mut self, user: UserId, target: &Target, said: Arc<Said>) -> Option<Spoken> {
        let sender = self.by_user.get(&user).copied();
        match target {
            Target::Channel(name, _) => {
                let folded = name.folded();
                let shown =
                    self.world.channel(&folded).map_or(name.as_str(), |channel| channel.name(&folded)).to_owned();
                let line = self.message_line(&shown, &said.source, &said);
                self.send_to_room(&folded, line, sender);
                Some(Spoken { target: shown, said })
            }
            Target::User(target) => {
                let nick = self.world.user(*target)?.nick().to_string();
                let mut line = self.message_line(&nick, &said.source, &said);
                if let Some(id) = self.by_user.get(target).copied() {
                    let tagged = self.clients.get(&id).is_some_and(|client| client.caps.has(Caps::MESSAGE_TAGS));
                    if tagged || !line.is_only_tags() {
                        self.send(id, &mut line);
                    }
                }
                Some(Spoken { target: nick, said })
            }
        }
    }

    /// The sender's own copy of what it said, under the name that it has now: it would not take another's for its own.
    pub(super) fn echo_line(&self, user: UserId, spoken: &Spoken) -> Line {
        let now = self.world.user(user).map(|_| self.world.mask(user));
        self.message_line(&spoken.target, now.as_deref().unwrap_or(&spoken.said.source), &spoken.said)
    }

    fn message_line(&self, target: &str, source: &str, said: &Said) -> Line {
        let body = match said.kind {
            TextKind::Tagmsg => format!(":{source} TAGMSG {target}"),
            kind => format!(":{source} {} {target} :{}", kind.command(), said.text),
        };
        let line = Line::new(body).at(said.time).message(self.msgid(&said.place), said.tags.clone());
        if said.kind == TextKind::Tagmsg { line.only_tags() } else { line }
    }

    /// The same on every node, and silent about which one the message came from.
    fn msgid(&self, place: &Spot) -> String {
        let mut hasher = blake3::Hasher::new_keyed(&self.config.msgid_key);
        hasher.update(&place.writer.log.node.0).update(&place.writer.log.incarnation.0);
        hasher.update(&place.seq.to_le_bytes()).update(&place.index.to_le_bytes());
        let mut id = [0; 15];
        hasher.finalize_xof().fill(&mut id);
        BASE32_NOPAD.encode(&id).to_ascii_lowercase()
    }

    /// Sends a line to the clients of this node in a channel.
    fn send_to_room(&mut self, channel: &Folded, mut line: Line, except: Option<ClientId>) {
        let Some(here) = self.rooms.get(channel) else { return };
        let only_tagged = line.is_only_tags();
        for id in here.iter().filter(|id| Some(**id) != except) {
            let Some(client) = self.clients.get(id) else { continue };
            if only_tagged && !client.caps.has(Caps::MESSAGE_TAGS) {
                continue;
            }
            if client.send(line.bytes(client.caps)).is_err() {
                self.doomed.push((*id, "It reads too slowly: its send queue is full"));
            }
        }
    }

    /// Sends a line once to every client of this node who shares one of the channels, and to `also`.
    fn send_to_neighbours(&mut self, channels: &[Folded], also: Option<ClientId>, mut line: Line) {
        let mut to: BTreeSet<ClientId> = also.into_iter().collect();
        to.extend(channels.iter().filter_map(|channel| self.rooms.get(channel)).flatten());
        to.into_iter().for_each(|id| self.send(id, &mut line));
    }

    fn announce_nick(&mut self, time: ServerTime, user: UserId, from: &str, to: &Nick) {
        let channels: Vec<Folded> =
            self.world.user(user).into_iter().flat_map(|user| user.channels().cloned()).collect();
        let own = self.by_user.get(&user).copied();
        // Only a lost claim leads to a guest's name that its user did not ask for.
        let lost = self.world.user(user).filter(|state| *to == Nick::guest(user) && !state.claims(to));
        let node = lost.map(|user| user.log.node);
        if let Some(node) = node.filter(|node| self.down.remove(node).is_some()) {
            // Somebody took the name of a user whose node cannot be reached: elsewhere it has lapsed a moment earlier.
            for mut change in self.world.lapse(node) {
                if let Change::Gone { user: gone, mask, .. } = &mut change
                    && *gone == user
                {
                    from.clone_into(mask);
                }
                self.announce(time, change);
            }
            return;
        }
        // Whoever has not been welcomed learns its name from the welcome.
        let told = own.filter(|id| self.clients.get(id).is_some_and(|client| client.phase == Phase::Registered));
        self.send_to_neighbours(&channels, told, Line::new(format!(":{from} NICK :{to}")).at(time));
        if let Some(id) = own {
            self.settle_for_guest(id, user);
        }
    }

    /// Makes a lost claim's fallback permanent, so that the name does not come back by surprise.
    fn settle_for_guest(&mut self, id: ClientId, user: UserId) {
        let guest = Nick::guest(user);
        let Some(state) = self.world.user(user) else { return };
        if *state.nick() != guest || state.claims(&guest) {
            return;
        }
        let Some(client) = self.clients.get(&id) else { return };
        let nonce = client.nonce;
        self.append(InFlight::default(), Entry::Nick { user: nonce, nick: guest }, None);
    }

    fn announce_gone(&mut self, time: ServerTime, user: UserId, mask: &str, channels: &[Folded], reason: &str) {
        self.send_to_neighbours(channels, None, Line::new(format!(":{mask} QUIT :{reason}")).at(time));
        if let Some(id) = self.by_user.get(&user).copied() {
            self.doomed.push((id, "The server process is starting anew; connect again"));
        }
    }

    fn announce_join(&mut self, time: ServerTime, user: UserId, channel: &Folded) {
        let Some(state) = self.world.channel(channel) else { return };
        let name = state.name(channel).to_owned();
        let own = self.by_user.get(&user).copied();
        if let Some(id) = own {
            self.rooms.entry(channel.clone()).or_default().insert(id);
            if let Some(client) = self.clients.get_mut(&id) {
                client.rooms.insert(channel.clone());
            }
        }
        self.send_to_room(channel, Line::new(format!(":{} JOIN {name}", self.world.mask(user))).at(time), None);
        if let Some(id) = own {
            if self.world.channel(channel).is_some_and(|state| state.topic().is_some()) {
                self.send_topic(id, channel);
            }
            self.send_names(id, &name);
            self.replay(id, channel, &name);
        }
    }

    /// Sends the last hour's messages to a client that can tell by time and id that they are not new.
    ///
    /// Older ones are left out where all would take more than half of what the client's send queue has left: somebody who
    /// joins many channels at once must not be taken for a slow reader.
    fn replay(&mut self, id: ClientId, channel: &Folded, name: &str) {
        let caps = self.clients.get(&id).map(|client| client.caps).unwrap_or_default();
        if !caps.has(Caps::SERVER_TIME.with(Caps::MESSAGE_TAGS)) {
            return;
        }
        let since = now().saturating_sub(REPLAYED_MILLIS);
        let Some(state) = self.world.channel(channel) else { return };
        let recent = state.history(self.world.history_limit()).into_iter().filter(|said| said.stamp.millis >= since);
        let lines: Vec<Line> = recent.map(|said| self.message_line(name, &said.source, &said)).collect();
        let (mut room, mut bytes) = self.clients.get(&id).map(|client| client.room()).unwrap_or_default();
        (room, bytes) = (room / 2, bytes / 2);
        let mut fitting = Vec::new();
        for mut line in lines.into_iter().rev() {
            let length = line.bytes(caps).len();
            if room == 0 || length > bytes {
                break;
            }
            (room, bytes) = (room - 1, bytes - length);
            fitting.push(line);
        }
        for line in fitting.iter_mut().rev() {
            self.send(id, line);
        }
    }

    /// Tells the others what a user who came back may do.
    fn announce_rights(&mut self, time: ServerTime, user: UserId, channel: &Folded) {
        let Some(state) = self.world.channel(channel) else { return };
        let mut changes = Vec::new();
        if state.is_operator(user) {
            changes.push(ModeChange::Operator(user, true));
        }
        if state.has_voice(user) {
            changes.push(ModeChange::Voice(user, true));
        }
        let by = self.config.name.clone();
        self.announce_modes(time, &by, channel, &changes);
    }

    fn announce_modes(&mut self, time: ServerTime, by: &str, channel: &Folded, changes: &[ModeChange]) {
        let Some(state) = self.world.channel(channel) else { return };
        let name = state.name(channel).to_owned();
        // The rights of the hidden are told when they return.
        let told: Vec<ModeChange> = changes
            .iter()
            .filter(|change| change.target().is_none_or(|user| self.world.is_visible(user)))
            .cloned()
            .collect();
        for some in told.chunks(MODES_PER_LINE) {
            let modes = mode::written(&self.world, some);
            self.send_to_room(channel, Line::new(format!(":{by} MODE {name} {modes}")).at(time), None);
        }
    }

    fn announce_left(&mut self, time: ServerTime, user: UserId, channel: &Folded, by: Option<String>, reason: &str) {
        let Some(state) = self.world.channel(channel) else { return };
        let name = state.name(channel);
        let line = match by {
            Some(by) => {
                let nick = self.world.user(user).map_or_else(|| "*".to_owned(), |user| user.nick().to_string());
                format!(":{by} KICK {name} {nick} :{reason}")
            }
            None if reason.is_empty() => format!(":{} PART {name}", self.world.mask(user)),
            None => format!(":{} PART {name} :{reason}", self.world.mask(user)),
        };
        self.send_to_room(channel, Line::new(line).at(time), None);
        if let Some(id) = self.by_user.get(&user).copied() {
            if let Some(client) = self.clients.get_mut(&id) {
                client.rooms.remove(channel);
            }
            if let Some(here) = self.rooms.get_mut(channel) {
                here.remove(&id);
                if here.is_empty() {
                    self.rooms.remove(channel);
                }
            }
        }
    }
}

/// How far back a channel's messages are sent to somebody who joins: an hour covers a lost node, a slow reconnection and
/// a short absence, and shows newcomers no more than that.
const REPLAYED_MILLIS: u64 = 60 * 60 * 1000;
/// Mode changes in one line, so that nicknames of full length fit.
const MODES_PER_LINE: usize = 10;
