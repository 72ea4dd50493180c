//! A channel as every node knows it: who is in it, and the state of its creations.
//!
//! Membership belongs to the name. Operators, modes, topic and history belong to a *creation*: a creation supersedes
//! those that its author had seen, which were empty then; when two made on the two sides of a split meet, the older
//! one's operators, modes and topic count, and the histories of both are shown.

use std::collections::HashMap;
use std::sync::Arc;

use hcp_core::replica::{Register, Spot, Stamp, Write};

use super::change::Said;
use super::history::History;
use super::seen;
use crate::entry::{Flag, ModeChange};
use crate::names::{ChannelId, ChannelName, Folded, UserId};

/// A channel name that was ever joined or left.
#[derive(Debug, Default)]
pub(crate) struct Channel {
    pub(super) members: HashMap<UserId, Register<bool>>,
    /// How many of them are in it.
    pub(super) present: usize,
    pub(super) creations: Vec<Creation>,
    /// The latest stamp of a part, of a kick, and of the end of somebody who had joined it: milliseconds.
    pub(super) left: u64,
}

/// What one creation of a channel consists of.
#[derive(Debug)]
pub(super) struct Creation {
    pub(super) id: ChannelId,
    pub(super) stamp: Stamp,
    pub(super) place: Spot,
    pub(super) name: ChannelName,
    pub(super) flags: [Register<bool>; Flag::ALL.len()],
    pub(super) key: Register<Option<String>>,
    pub(super) limit: Register<Option<u32>>,
    pub(super) topic: Register<Topic>,
    pub(super) rights: HashMap<UserId, Rights>,
    pub(super) history: History,
}

/// A topic and who set it when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Topic {
    pub(crate) text: String,
    pub(crate) by: String,
    /// Seconds since 1970.
    pub(crate) at: u64,
}

/// What a member may do.
#[derive(Debug, Default)]
pub(super) struct Rights {
    pub(super) operator: Register<bool>,
    pub(super) voice: Register<bool>,
}

/// What is visible of a channel's state apart from its members; two of them are compared to see what changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct View {
    flags: [bool; Flag::ALL.len()],
    key: Option<String>,
    limit: Option<u32>,
    topic: Option<Topic>,
    rights: HashMap<UserId, (bool, bool)>,
}

impl Channel {
    /// Applies a creation.
    pub(super) fn create(&mut self, write: &Write, id: ChannelId, name: ChannelName) {
        self.creations.retain(|creation| !seen(write, &creation.place));
        self.creations.push(Creation {
            id,
            stamp: write.stamp,
            place: write.spot,
            name,
            flags: Default::default(),
            key: Register::default(),
            limit: Register::default(),
            topic: Register::default(),
            rights: HashMap::new(),
            history: History::default(),
        });
    }

    /// The creation `id`, if it counts still and the author of `write` had seen it.
    ///
    /// The second condition makes an entry that names a creation before its time, as only a faulty node writes it, mean
    /// the same in every order: nothing.
    pub(super) fn creation(&mut self, write: &Write, id: ChannelId) -> Option<&mut Creation> {
        self.creations.iter_mut().find(|creation| creation.id == id && seen(write, &creation.place))
    }

    /// The id of the creation whose state counts.
    pub(crate) fn id(&self) -> Option<ChannelId> {
        self.oldest().map(|creation| creation.id)
    }

    pub(crate) fn name<'a>(&'a self, folded: &'a Folded) -> &'a str {
        self.oldest().map_or(folded.as_str(), |creation| creation.name.as_str())
    }

    /// Whether somebody is in it, visible or not.
    pub(crate) fn is_empty(&self) -> bool {
        self.present == 0
    }

    /// When the last member left, if it is empty: milliseconds since 1970.
    pub(crate) fn left(&self) -> u64 {
        self.left
    }

    pub(crate) fn is_member(&self, user: UserId) -> bool {
        self.members.get(&user).is_some_and(|member| member.value() == Some(&true))
    }

    /// Everybody in it, visible or not.
    pub(super) fn members(&self) -> impl Iterator<Item = UserId> + '_ {
        self.members.iter().filter(|(_, member)| member.value() == Some(&true)).map(|(user, _)| *user)
    }

    pub(crate) fn flag(&self, flag: Flag) -> bool {
        self.oldest().is_some_and(|creation| creation.flag(flag))
    }

    pub(crate) fn key(&self) -> Option<&str> {
        self.oldest()?.key.value()?.as_deref()
    }

    pub(crate) fn limit(&self) -> Option<u32> {
        *self.oldest()?.limit.value()?
    }

    /// The topic; `None` when there is none or it is empty.
    pub(crate) fn topic(&self) -> Option<&Topic> {
        self.oldest()?.topic.value().filter(|topic| !topic.text.is_empty())
    }

    pub(crate) fn is_operator(&self, user: UserId) -> bool {
        self.rights(user).0
    }

    pub(crate) fn has_voice(&self, user: UserId) -> bool {
        self.rights(user).1
    }

    /// When it was created: seconds since 1970.
    pub(crate) fn created(&self) -> u64 {
        self.oldest().map_or(0, |creation| creation.stamp.millis / 1000)
    }

    /// The messages of all creations that count, oldest first, at most `limit`.
    pub(crate) fn history(&self, limit: usize) -> Vec<Arc<Said>> {
        let mut messages: Vec<_> =
            self.creations.iter().flat_map(|creation| creation.history.iter()).map(Arc::clone).collect();
        messages.sort_by_key(|said| (said.stamp, said.place));
        messages.drain(..messages.len().saturating_sub(limit));
        messages
    }

    pub(super) fn view(&self) -> View {
        let Some(creation) = self.oldest() else { return View::default() };
        View {
            flags: Flag::ALL.map(|flag| creation.flag(flag)),
            key: self.key().map(str::to_owned),
            limit: self.limit(),
            topic: self.topic().cloned(),
            rights: self.members().map(|user| (user, self.rights(user))).collect(),
        }
    }

    /// Writes whether a user is in it; says whether it was and whether it is.
    pub(super) fn set_member(&mut self, write: &Write, user: UserId, inside: bool) -> (bool, bool) {
        let was = self.is_member(user);
        self.members.entry(user).or_default().write(write, inside);
        let is = self.is_member(user);
        self.present = self.present + usize::from(is) - usize::from(was);
        (was, is)
    }

    /// Gives every spot the name that `rename` has for it.
    pub(super) fn rename(&mut self, rename: &impl Fn(&mut Spot)) {
        self.members.values_mut().for_each(|member| member.rename(rename));
        for creation in &mut self.creations {
            rename(&mut creation.place);
            creation.flags.iter_mut().for_each(|flag| flag.rename(rename));
            creation.key.rename(rename);
            creation.limit.rename(rename);
            creation.topic.rename(rename);
            for rights in creation.rights.values_mut() {
                rights.operator.rename(rename);
                rights.voice.rename(rename);
            }
        }
    }

    /// As [`rename`](Self::rename), for messages, which have the names of where they stood first.
    pub(super) fn rename_history(&mut self, rename: &impl Fn(&mut Spot)) {
        self.creations.iter_mut().for_each(|creation| creation.history.rename(rename));
    }

    pub(super) fn forget(&mut self, user: UserId) {
        self.present -= usize::from(self.is_member(user));
        self.members.remove(&user);
        for creation in &mut self.creations {
            creation.rights.remove(&user);
        }
    }

    fn rights(&self, user: UserId) -> (bool, bool) {
        let rights = self.oldest().and_then(|creation| creation.rights.get(&user));
        rights.map_or((false, false), |rights| {
            (rights.operator.value() == Some(&true), rights.voice.value() == Some(&true))
        })
    }

    fn oldest(&self) -> Option<&Creation> {
        self.creations.iter().min_by_key(|creation| (creation.stamp, creation.place))
    }
}

impl Creation {
    /// Applies one mode; rights of users that `known` does not hold are passed over.
    pub(super) fn set(&mut self, write: &Write, change: ModeChange, known: impl Fn(UserId) -> bool) {
        match change {
            ModeChange::Flag(flag, on) => self.flags[flag as usize].write(write, on),
            ModeChange::Key(key) => self.key.write(write, key),
            ModeChange::Limit(limit) => self.limit.write(write, limit),
            ModeChange::Operator(user, on) if known(user) => {
                self.rights.entry(user).or_default().operator.write(write, on);
            }
            ModeChange::Voice(user, on) if known(user) => {
                self.rights.entry(user).or_default().voice.write(write, on);
            }
            ModeChange::Operator(..) | ModeChange::Voice(..) => {}
        }
    }

    pub(super) fn set_topic(&mut self, write: &Write, by: String, text: String) {
        self.topic.write(write, Topic { text, by, at: write.stamp.millis / 1000 });
    }

    fn flag(&self, flag: Flag) -> bool {
        let default = matches!(flag, Flag::NoExternal | Flag::TopicLocked);
        self.flags[flag as usize].value().copied().unwrap_or(default)
    }
}

impl View {
    /// The mode changes that lead from `self` to `after`; rights only of users who were members before and after.
    pub(super) fn modes_to(&self, after: &Self) -> Vec<ModeChange> {
        let mut changes = Vec::new();
        for (index, flag) in Flag::ALL.into_iter().enumerate() {
            if self.flags[index] != after.flags[index] {
                changes.push(ModeChange::Flag(flag, after.flags[index]));
            }
        }
        if self.key != after.key {
            changes.push(ModeChange::Key(after.key.clone()));
        }
        if self.limit != after.limit {
            changes.push(ModeChange::Limit(after.limit));
        }
        for (user, (operator, voice)) in &after.rights {
            let Some((was_operator, had_voice)) = self.rights.get(user) else { continue };
            if operator != was_operator {
                changes.push(ModeChange::Operator(*user, *operator));
            }
            if voice != had_voice {
                changes.push(ModeChange::Voice(*user, *voice));
            }
        }
        changes
    }

    pub(super) fn topic(&self) -> Option<&Topic> {
        self.topic.as_ref()
    }
}

#[cfg(test)]
impl Channel {
    /// Everything that must be equal on all nodes, in a fixed order.
    pub(super) fn snapshot(&self) -> String {
        let mut members: Vec<_> =
            self.members.iter().map(|(user, member)| format!("{user:?}={:?}", member.value())).collect();
        members.sort();
        let mut creations: Vec<_> = self
            .creations
            .iter()
            .map(|c| {
                let mut rights: Vec<_> = c
                    .rights
                    .iter()
                    .map(|(user, r)| format!("{user:?}={:?}/{:?}", r.operator.value(), r.voice.value()))
                    .collect();
                rights.sort();
                let history: Vec<_> = c.history.iter().map(|said| (said.stamp, said.text.as_str())).collect();
                let flags = Flag::ALL.map(|flag| c.flag(flag));
                let (key, limit, topic) = (c.key.value(), c.limit.value(), c.topic.value());
                format!("{:?} {} {flags:?} {key:?} {limit:?} {topic:?} {rights:?} {history:?}", c.id, c.name)
            })
            .collect();
        creations.sort();
        format!("{members:?} {creations:?} {:?}", self.id())
    }
}
