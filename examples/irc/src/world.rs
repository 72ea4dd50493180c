//! The state that all nodes share: users, nicknames, channels. It changes only by applying the log's entries.
//!
//! Invariants: two worlds that applied the same entries, each in some causal order, hold the same users, nicknames,
//! memberships, modes, topics and histories. An entry speaks only for users of its own log. Who is *visible* is local:
//! the users of a node that lapsed are hidden here and come back with it; nothing is written for that.
//!
//! What honest nodes check before they write (who may kick, who may set a topic) is not checked again here: whether a
//! check holds would depend on the order of concurrent entries. A faulty node of the service can therefore do in its own
//! users' names what only operators may do. It cannot do it in the name of anybody else's user.

pub(crate) mod change;
pub(crate) mod channel;
mod claims;
mod history;
mod nicknames;
mod state;
#[cfg(test)]
mod tests;
pub(crate) mod user;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use hcp_core::replica::{
    Applied, Incarnation, LogId, NodeId, Register, RestoreError, Split, Spot, StateMachine, Turn, Write,
};

use self::change::{Change, OrderClock, Said, ServerTime};
use self::channel::{Channel, View};
use self::claims::Claims;
use self::user::User;
use crate::entry::{Entry, ModeChange, Standing, Target, TextKind};
use crate::names::{ChannelId, ChannelName, Folded, Nick, UserId};

/// The replicated state and who of it is visible here.
#[derive(Debug)]
pub(crate) struct World {
    own: LogId,
    history: usize,
    clock: OrderClock,
    /// The run of each other node that is live, as far as this node knows.
    live: HashMap<NodeId, Incarnation>,
    /// The run of each node whose users count.
    runs: HashMap<NodeId, Register<Incarnation>>,
    /// In the order of their ids, with which the names of guests begin.
    users: BTreeMap<UserId, User>,
    by_log: HashMap<LogId, HashSet<UserId>>,
    nicks: HashMap<Folded, Claims>,
    /// Every name that was ever joined or left: what an empty channel holds is not given back yet.
    channels: HashMap<Folded, Channel>,
    /// How many channels somebody is in.
    occupied: usize,
}

impl World {
    /// An empty world of the node that writes `own` and keeps `history` messages for each channel.
    pub(crate) fn new(own: LogId, history: usize) -> Self {
        Self {
            own,
            history,
            clock: OrderClock::default(),
            live: HashMap::new(),
            runs: HashMap::new(),
            users: BTreeMap::new(),
            by_log: HashMap::new(),
            nicks: HashMap::new(),
            channels: HashMap::new(),
            occupied: 0,
        }
    }

    /// Applies one entry. Entries that are malformed, unknown or name what does not exist change nothing.
    pub(crate) fn apply(&mut self, write: &Write, entry: &[u8]) -> Vec<Change> {
        let entry = match Entry::decode(entry) {
            Ok(entry) => entry,
            Err(error) => {
                tracing::debug!(%error, "passed over an entry");
                return Vec::new();
            }
        };
        let log = author_of(write);
        let author = entry.author(&log);
        let mut changes = Vec::new();
        match (entry, author) {
            (Entry::Start, _) => self.start(write, &mut changes),
            (Entry::Connect { nick, username, realname, .. }, Some(user)) => {
                self.connect(write, user, nick, username, realname, &mut changes);
            }
            (Entry::Quit { reason, .. }, Some(user)) => self.remove(write, user, &reason, &mut changes),
            (Entry::Nick { nick, .. }, Some(user)) => self.rename(write, user, nick, &mut changes),
            (Entry::UserMode { invisible, .. }, Some(id)) => {
                if let Some(user) = self.users.get_mut(&id) {
                    user.invisible.write(write, invisible);
                    changes.push(Change::UserMode { user: id });
                }
            }
            (Entry::Away { message, .. }, Some(id)) => {
                if let Some(user) = self.users.get_mut(&id) {
                    user.away.write(write, message);
                    changes.push(Change::Away { user: id });
                }
            }
            (Entry::Join { channel, standing, .. }, Some(user)) => {
                self.join(write, user, channel, standing, &mut changes);
            }
            (Entry::Part { channel, reason, .. }, Some(user)) => {
                self.leave(write, user, &channel, None, reason, &mut changes);
            }
            (Entry::Kick { channel, target, reason, .. }, Some(user)) => {
                let by = Some(self.mask(user));
                self.leave(write, target, &channel, by, reason, &mut changes);
            }
            (Entry::Topic { channel, creation, by, text, .. }, Some(user)) => {
                let mask = self.mask(user);
                self.edit(&channel, Some(mask), &mut changes, |channel, _| {
                    if let Some(creation) = channel.creation(write, creation) {
                        creation.set_topic(write, by, text);
                    }
                });
            }
            (Entry::Mode { channel, creation, changes: modes, .. }, Some(user)) => {
                let mask = self.mask(user);
                for target in modes.iter().filter_map(ModeChange::target) {
                    if let Some(user) =
                        self.users.get_mut(&target).filter(|_| self.channels.contains_key(&channel.folded()))
                    {
                        user.visited.insert(channel.folded());
                    }
                }
                self.edit(&channel, Some(mask), &mut changes, |channel, users| {
                    let known = |user| users.get(&user).is_some_and(|user| seen(write, &user.connected));
                    if let Some(creation) = channel.creation(write, creation) {
                        modes.into_iter().for_each(|mode| creation.set(write, mode, known));
                    }
                });
            }
            (Entry::Text { target, kind, text, tags, .. }, Some(user)) => {
                self.say(write, user, target, kind, text, tags, &mut changes);
            }
            (Entry::Invite { channel, target, .. }, Some(user)) => {
                if self.is_visible(target) {
                    changes.push(Change::Invited { by: self.mask(user), channel, target });
                }
            }
            // Every entry but `Start` names its author.
            (_, None) => {}
        }
        changes
    }

    /// Applies an entry that was applied before, where it stood first: what counts by who had seen what is renewed, and
    /// nothing is said a second time.
    pub(crate) fn apply_again(&mut self, write: &Write, entry: &[u8]) -> Vec<Change> {
        let first = write.first();
        self.respot(&|spot| {
            if *spot == first {
                *spot = write.spot;
            }
        });
        let mut changes = self.apply(write, entry);
        changes.retain(|change| !matches!(change, Change::Said { .. } | Change::Invited { .. }));
        changes
    }

    /// A node was found to have written twice in one place.
    pub(crate) fn split(&mut self, split: &Split) {
        self.respot(&|spot| split.rename(spot));
        self.channels.values_mut().for_each(|channel| channel.rename_history(&|spot| split.rename(spot)));
    }

    fn respot(&mut self, rename: &impl Fn(&mut Spot)) {
        self.runs.values_mut().for_each(|run| run.rename(rename));
        self.users.values_mut().for_each(|user| user.rename(rename));
        self.nicks.values_mut().for_each(|claims| claims.rename(rename));
        self.channels.values_mut().for_each(|channel| channel.rename(rename));
    }

    /// Hides the users of a node's earlier runs at once; its first entry, [`Entry::Start`], then removes them for good.
    pub(crate) fn began(&mut self, log: LogId) -> Vec<Change> {
        match self.live.get(&log.node) {
            Some(live) if *live != log.incarnation => self.lapse(log.node),
            _ => Vec::new(),
        }
    }

    /// Hides the users of a node that cannot be reached.
    pub(crate) fn lapse(&mut self, node: NodeId) -> Vec<Change> {
        let Some(incarnation) = self.live.remove(&node) else { return Vec::new() };
        let users = self.users_of(LogId { node, incarnation });
        users.iter().filter_map(|user| self.gone(*user, "Connection to the service lost")).collect()
    }

    /// Shows the users of a node's run again, or for the first time.
    pub(crate) fn restore(&mut self, log: LogId) -> Vec<Change> {
        if log.node == self.own.node || self.live.get(&log.node) == Some(&log.incarnation) {
            return Vec::new();
        }
        let mut changes = self.lapse(log.node);
        self.live.insert(log.node, log.incarnation);
        changes.extend(self.users_of(log).into_iter().map(|user| Change::Returned { user }));
        changes
    }

    /// Whether the users of `log` count, as far as its node's runs go.
    pub(crate) fn is_current(&self, log: &LogId) -> bool {
        self.runs.get(&log.node).and_then(Register::value) == Some(&log.incarnation)
    }

    /// The server-time of something that has no entry, or of an entry stamped `millis`.
    pub(crate) fn time(&mut self, millis: u64) -> ServerTime {
        self.clock.time(millis)
    }

    /// A user, visible or not.
    pub(crate) fn user(&self, id: UserId) -> Option<&User> {
        self.users.get(&id)
    }

    /// A visible user by nickname.
    pub(crate) fn find(&self, nick: &str) -> Option<(UserId, &User)> {
        let folded = Folded::of(nick);
        let id = self.nicks.get(&folded).and_then(Claims::holder);
        let id = id.or_else(|| self.guest(&folded))?;
        let user = self.users.get(&id)?;
        (user.shown.folded() == folded && self.is_visible(id)).then_some((id, user))
    }

    /// Whether somebody visible has or claims the nickname. A name whose holder lapsed is free.
    pub(crate) fn is_taken(&self, nick: &Nick) -> bool {
        let claims = self.nicks.get(&nick.folded());
        claims.is_some_and(|claims| claims.claimants().any(|user| self.is_visible(user)))
    }

    pub(crate) fn is_visible(&self, id: UserId) -> bool {
        self.users.get(&id).is_some_and(|user| self.shows(&user.log))
    }

    /// All visible users.
    pub(crate) fn visible_users(&self) -> impl Iterator<Item = (UserId, &User)> {
        self.users.iter().filter(|(_, user)| self.shows(&user.log)).map(|(id, user)| (*id, user))
    }

    pub(crate) fn channel(&self, folded: &Folded) -> Option<&Channel> {
        self.channels.get(folded)
    }

    /// All channel names that were ever joined or left.
    pub(crate) fn channels(&self) -> impl Iterator<Item = (&Folded, &Channel)> {
        self.channels.iter()
    }

    /// How many channels somebody is in, visible or not.
    pub(crate) fn occupied_channels(&self) -> usize {
        self.occupied
    }

    pub(crate) fn visible_members<'a>(&'a self, channel: &'a Channel) -> impl Iterator<Item = (UserId, &'a User)> {
        channel.members().filter_map(|id| Some((id, self.users.get(&id)?))).filter(|(_, user)| self.shows(&user.log))
    }

    /// The mask of a user, known or not.
    pub(crate) fn mask(&self, id: UserId) -> String {
        self.users.get(&id).map_or_else(|| user::unknown_mask(id), User::mask)
    }

    /// How many messages a channel keeps.
    pub(crate) fn history_limit(&self) -> usize {
        self.history
    }
}

/// The copy of which checkpoints are made: nobody watches it.
impl StateMachine for World {
    fn apply(&mut self, entry: &Applied) {
        let _ = match entry.turn {
            Turn::First => self.apply(&entry.write, &entry.entry),
            Turn::Repeated => self.apply_again(&entry.write, &entry.entry),
        };
    }

    fn split(&mut self, split: &Split) {
        self.split(split);
    }

    fn checkpoint(&self) -> Vec<u8> {
        self.to_bytes()
    }

    fn restore(&mut self, state: &[u8]) -> Result<(), RestoreError> {
        self.replace(state)
    }
}

impl World {
    /// A node's process started. An author that had seen its earlier runs ends them; of runs that know nothing of each
    /// other, because a disk was lost, the later counts, and the node that finds its run passed over starts it anew.
    fn start(&mut self, write: &Write, changes: &mut Vec<Change>) {
        let log = author_of(write);
        let runs = self.runs.entry(log.node).or_default();
        runs.write(write, log.incarnation);
        let current = runs.value().copied();
        let ended: Vec<LogId> = self
            .by_log
            .keys()
            .filter(|other| other.node == log.node && Some(other.incarnation) != current)
            .copied()
            .collect();
        let users: Vec<UserId> = ended.into_iter().flat_map(|log| self.users_of(log)).collect();
        for user in users {
            self.remove(write, user, "The server process that held this connection has ended", changes);
        }
    }

    fn connect(
        &mut self,
        write: &Write,
        id: UserId,
        nick: Nick,
        username: String,
        realname: String,
        changes: &mut Vec<Change>,
    ) {
        let log = author_of(write);
        let nick = choosable(nick, id);
        let mut touched = self.supersede(write, &nick);
        let full = self.by_log.get(&log).is_some_and(|users| users.len() >= MAX_USERS);
        if full || !self.is_current(&log) || self.users.contains_key(&id) || !is_word(&username) {
            return self.settle_all(touched, changes);
        }
        let user = User {
            log,
            connected: write.spot,
            claimed: nick.clone(),
            // Settled below, when the claim is.
            shown: nick.clone(),
            username,
            realname,
            invisible: Register::default(),
            away: Register::default(),
            channels: BTreeSet::new(),
            joined: BTreeSet::new(),
            visited: BTreeSet::new(),
        };
        self.users.insert(id, user);
        self.by_log.entry(log).or_default().insert(id);
        touched.extend(self.claim(write, &nick, id));
        self.settle(id);
        self.settle_all(touched, changes);
        if self.is_visible(id) {
            changes.push(Change::Connected(id));
        }
    }

    fn rename(&mut self, write: &Write, id: UserId, nick: Nick, changes: &mut Vec<Change>) {
        let nick = choosable(nick, id);
        let mut touched = self.supersede(write, &nick);
        if let Some(user) = self.users.get_mut(&id) {
            let old = std::mem::replace(&mut user.claimed, nick.clone()).folded();
            touched.extend(self.unclaim(&old, id));
            touched.extend(self.claim(write, &nick, id));
        }
        // Who loses the name is told of before who gets it.
        touched.retain(|user| *user != id);
        touched.push(id);
        self.settle_all(touched, changes);
    }

    fn remove(&mut self, write: &Write, id: UserId, reason: &str, changes: &mut Vec<Change>) {
        let gone = self.gone_if_visible(id, reason);
        let Some(user) = self.users.remove(&id) else { return };
        changes.extend(gone);
        if let Some(users) = self.by_log.get_mut(&user.log) {
            users.remove(&id);
            if users.is_empty() {
                self.by_log.remove(&user.log);
            }
        }
        for folded in &user.visited {
            if let Some(channel) = self.channels.get_mut(folded) {
                let empty = channel.is_empty();
                channel.forget(id);
                self.occupied = self.occupied + usize::from(empty) - usize::from(channel.is_empty());
                if user.joined.contains(folded) {
                    channel.left = channel.left.max(write.stamp.millis);
                }
            }
        }
        let touched = self.unclaim(&user.claimed.folded(), id);
        self.settle_all(touched, changes);
    }

    fn join(&mut self, write: &Write, id: UserId, name: ChannelName, standing: Standing, changes: &mut Vec<Change>) {
        let folded = name.folded();
        let channel = self.channels.entry(folded.clone()).or_default();
        // A creation counts even if its user does not, for whether it does may depend on the order of other runs.
        let (before, creation) = match standing {
            Standing::Creator(nonce) => {
                let before = channel.view();
                let creation = ChannelId::new(&author_of(write), nonce);
                channel.create(write, creation, name);
                (Some(before), creation)
            }
            Standing::Member(creation) | Standing::Reviver(creation) => (None, creation),
        };
        if let Some(before) = before {
            self.tell(&folded, None, &before, changes);
        }
        let Some(user) = self.users.get_mut(&id) else { return };
        let Some(channel) = self.channels.get_mut(&folded) else { return };
        let operator = !matches!(standing, Standing::Member(_));
        if let Some(creation) = channel.creation(write, creation) {
            creation.set(write, ModeChange::Operator(id, operator), |_| true);
            creation.set(write, ModeChange::Voice(id, false), |_| true);
        }
        user.joined.insert(folded.clone());
        user.visited.insert(folded.clone());
        let empty = channel.is_empty();
        let (was, is) = channel.set_member(write, id, true);
        self.occupied = self.occupied + usize::from(empty) - usize::from(channel.is_empty());
        self.moved(id, folded, (was, is), None, String::new(), changes);
    }

    fn leave(
        &mut self,
        write: &Write,
        id: UserId,
        name: &ChannelName,
        by: Option<String>,
        reason: String,
        changes: &mut Vec<Change>,
    ) {
        let folded = name.folded();
        // Whether the user is gone already may depend on the order, so this does not ask for it.
        let channel = self.channels.entry(folded.clone()).or_default();
        channel.left = channel.left.max(write.stamp.millis);
        let Some(user) = self.users.get_mut(&id) else { return };
        // A kick by an author that had not seen the user connect is a faulty node's: it means nothing in any order.
        if !seen(write, &user.connected) {
            return;
        }
        user.visited.insert(folded.clone());
        // A kick may arrive before a join that its author had not seen.
        let empty = channel.is_empty();
        let (was, is) = channel.set_member(write, id, false);
        self.occupied = self.occupied + usize::from(empty) - usize::from(channel.is_empty());
        self.moved(id, folded, (was, is), by, reason, changes);
    }

    /// Notes whether a user is in a channel, which it was or was not before. An entry can have either outcome: a join that has
    /// seen another one takes its place, and may lose against a kick that the other won against.
    fn moved(
        &mut self,
        id: UserId,
        channel: Folded,
        (was, is): (bool, bool),
        by: Option<String>,
        reason: String,
        changes: &mut Vec<Change>,
    ) {
        let Some(user) = self.users.get_mut(&id) else { return };
        if is {
            user.channels.insert(channel.clone());
        } else {
            user.channels.remove(&channel);
        }
        match (was, is) {
            (false, true) if self.is_visible(id) => changes.push(Change::Joined { user: id, channel }),
            (true, false) if self.is_visible(id) => changes.push(Change::Left { user: id, channel, by, reason }),
            _ => {}
        }
    }

    /// Changes a channel's state and reports what became different.
    fn edit(
        &mut self,
        name: &ChannelName,
        by: Option<String>,
        changes: &mut Vec<Change>,
        edit: impl FnOnce(&mut Channel, &BTreeMap<UserId, User>),
    ) {
        let folded = name.folded();
        let Some(channel) = self.channels.get_mut(&folded) else { return };
        let before = channel.view();
        edit(channel, &self.users);
        self.tell(&folded, by, &before, changes);
    }

    fn tell(&self, folded: &Folded, by: Option<String>, before: &View, changes: &mut Vec<Change>) {
        let Some(channel) = self.channels.get(folded) else { return };
        let after = channel.view();
        let modes = before.modes_to(&after);
        if !modes.is_empty() {
            changes.push(Change::Modes { channel: folded.clone(), by: by.clone(), changes: modes });
        }
        if before.topic() != after.topic() {
            changes.push(Change::Topic { channel: folded.clone(), by });
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of one entry")]
    fn say(
        &mut self,
        write: &Write,
        user: UserId,
        target: Target,
        kind: TextKind,
        text: String,
        tags: String,
        changes: &mut Vec<Change>,
    ) {
        let claimed = self.users.get(&user).map_or_else(|| user::unknown_mask(user), User::claimed_mask);
        let said = Arc::new(Said {
            place: write.first(),
            stamp: write.stamp,
            time: self.clock.time(write.stamp.millis),
            source: self.mask(user),
            claimed,
            kind,
            text,
            tags,
        });
        if let Target::Channel(name, creation) = &target {
            let Some(channel) = self.channels.get_mut(&name.folded()) else { return };
            if let Some(creation) = channel.creation(write, *creation).filter(|_| kind != TextKind::Tagmsg) {
                creation.history.insert(Arc::clone(&said), self.history);
            }
        }
        changes.push(Change::Said { user, target, said });
    }

    fn gone_if_visible(&self, id: UserId, reason: &str) -> Option<Change> {
        self.is_visible(id).then(|| self.gone(id, reason)).flatten()
    }

    fn gone(&self, id: UserId, reason: &str) -> Option<Change> {
        let user = self.users.get(&id)?;
        Some(Change::Gone {
            user: id,
            mask: user.mask(),
            channels: user.channels.iter().cloned().collect(),
            reason: reason.to_owned(),
        })
    }

    fn users_of(&self, log: LogId) -> Vec<UserId> {
        self.by_log.get(&log).into_iter().flatten().copied().collect()
    }

    fn shows(&self, log: &LogId) -> bool {
        *log == self.own || self.live.get(&log.node) == Some(&log.incarnation)
    }
}

/// Users of one log beyond which its further ones are passed over, so that a faulty node cannot fill the others' memory.
/// A log's entries are applied in their order everywhere, and nothing but them adds or removes users of a log that counts.
const MAX_USERS: usize = 10_000;

/// Whether the author of `write` had seen the entry at `spot`, which may be its own.
fn seen(write: &Write, spot: &Spot) -> bool {
    write.spot == *spot || write.supersedes(spot)
}

/// The log whose users an entry speaks for: that in which it stood first.
fn author_of(write: &Write) -> LogId {
    write.first().writer.log
}

/// The nickname itself, unless it is a guest's name, which only its own user may have.
fn choosable(nick: Nick, id: UserId) -> Nick {
    if nick.is_guest() { Nick::guest(id) } else { nick }
}

/// Whether a username can stand in a mask.
fn is_word(text: &str) -> bool {
    !text.is_empty() && !text.contains([' ', '!', '@']) && !text.contains(char::is_control)
}
