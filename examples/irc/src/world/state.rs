//! The world in bytes: what a checkpoint holds.
//!
//! Invariants: worlds that applied the same entries have the same bytes, whatever the order, unless a node of the service has lost
//! its disk: of its earlier run, which its next one does not know, more or less is left then. Nothing local is in them: neither
//! who is visible here, nor when something came.

use std::collections::BTreeSet;
use std::sync::Arc;

use hcp_core::replica::{Incarnation, LogId, NodeId, Register, RestoreError, Spot, Stamp};

use super::World;
use super::change::Said;
use super::channel::{Channel, Creation, Rights, Topic};
use super::claims::Claims;
use super::history::History;
use super::user::User;
use crate::entry::{Flag, TextKind};
use crate::names::{ChannelId, ChannelName, Folded, Nick, UserId};

/// Writes fields one behind the other.
#[derive(Debug, Default)]
pub(super) struct Out(Vec<u8>);

/// Reads them again.
#[derive(Debug)]
pub(super) struct In<'a>(&'a [u8]);

impl Out {
    fn byte(&mut self, byte: u8) {
        self.0.push(byte);
    }

    fn number(&mut self, number: u64) {
        self.0.extend_from_slice(&number.to_be_bytes());
    }

    /// What is counted in memory fits.
    fn count(&mut self, count: usize) {
        self.number(count as u64);
    }

    fn text(&mut self, text: &str) {
        self.count(text.len());
        self.0.extend_from_slice(text.as_bytes());
    }

    fn option(&mut self, text: Option<&str>) {
        self.byte(u8::from(text.is_some()));
        self.text(text.unwrap_or_default());
    }

    fn spot(&mut self, spot: &Spot) {
        self.0.extend_from_slice(&spot.to_bytes());
    }

    fn stamp(&mut self, stamp: Stamp) {
        self.number(stamp.millis);
        self.0.extend_from_slice(&stamp.counter.to_be_bytes());
    }

    fn log(&mut self, log: &LogId) {
        self.0.extend_from_slice(&log.node.0);
        self.0.extend_from_slice(&log.incarnation.0);
    }

    fn register<T>(&mut self, register: &Register<T>, mut value: impl FnMut(&mut Self, &T)) {
        let values = register.values();
        self.count(values.len());
        for (spot, stamp, written) in values {
            self.spot(&spot);
            self.stamp(stamp);
            value(self, written);
        }
    }

    fn flag(&mut self, register: &Register<bool>) {
        self.register(register, |out, on| out.byte(u8::from(*on)));
    }
}

impl<'a> In<'a> {
    fn bytes<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (bytes, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*bytes)
    }

    fn bool(&mut self) -> Option<bool> {
        match self.bytes::<1>()? {
            [0] => Some(false),
            [1] => Some(true),
            _ => None,
        }
    }

    fn number(&mut self) -> Option<u64> {
        self.bytes().map(u64::from_be_bytes)
    }

    /// How many there are of something that takes a byte at the least.
    fn count(&mut self) -> Option<usize> {
        let count = usize::try_from(self.number()?).ok()?;
        (count <= self.0.len()).then_some(count)
    }

    fn many<T>(&mut self, mut read: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        (0..self.count()?).map(|_| read(self)).collect()
    }

    fn text(&mut self) -> Option<&'a str> {
        let length = usize::try_from(self.number()?).ok()?;
        let (text, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        std::str::from_utf8(text).ok()
    }

    fn option(&mut self) -> Option<Option<String>> {
        let (is_some, text) = (self.bool()?, self.text()?);
        Some(is_some.then(|| text.to_owned()))
    }

    fn spot(&mut self) -> Option<Spot> {
        self.bytes().map(|bytes| Spot::from_bytes(&bytes))
    }

    fn stamp(&mut self) -> Option<Stamp> {
        Some(Stamp { millis: self.number()?, counter: u32::from_be_bytes(self.bytes()?) })
    }

    fn log(&mut self) -> Option<LogId> {
        Some(LogId { node: NodeId(self.bytes()?), incarnation: Incarnation(self.bytes()?) })
    }

    fn register<T>(&mut self, mut value: impl FnMut(&mut Self) -> Option<T>) -> Option<Register<T>> {
        let values = self.many(|fields| Some((fields.spot()?, fields.stamp()?, value(fields)?)))?;
        Some(values.into_iter().collect())
    }

    fn flag(&mut self) -> Option<Register<bool>> {
        self.register(Self::bool)
    }

    fn nick(&mut self) -> Option<Nick> {
        Nick::parse(self.text()?)
    }

    fn folded(&mut self) -> Option<Folded> {
        self.text().map(Folded::of)
    }
}

impl World {
    /// The state in one form.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut out = Out::default();
        out.byte(LAYOUT);
        let mut runs: Vec<_> = self.runs.iter().collect();
        runs.sort_unstable_by_key(|(node, _)| **node);
        out.count(runs.len());
        for (node, run) in runs {
            out.0.extend_from_slice(&node.0);
            out.register(run, |out, run| out.0.extend_from_slice(&run.0));
        }
        out.count(self.users.len());
        for (id, user) in &self.users {
            put_user(&mut out, id, user);
        }
        let mut nicks: Vec<_> = self.nicks.iter().collect();
        nicks.sort_unstable_by_key(|(name, _)| name.as_str());
        out.count(nicks.len());
        for (name, claims) in nicks {
            out.text(name.as_str());
            let claims = claims.in_order();
            out.count(claims.len());
            for (stamp, spot, user) in claims {
                out.stamp(stamp);
                out.spot(&spot);
                out.0.extend_from_slice(&user.0);
            }
        }
        let mut channels: Vec<_> = self.channels.iter().collect();
        channels.sort_unstable_by_key(|(name, _)| name.as_str());
        out.count(channels.len());
        for (name, channel) in channels {
            out.text(name.as_str());
            channel.put(&mut out);
        }
        out.0
    }

    /// Becomes what [`to_bytes`](Self::to_bytes) gave the bytes of, apart from who is visible here.
    pub(crate) fn replace(&mut self, state: &[u8]) -> Result<(), RestoreError> {
        let mut world = Self::new(self.own, self.history);
        world.live = std::mem::take(&mut self.live);
        world.take(&mut In(state)).ok_or(RestoreError)?;
        *self = world;
        Ok(())
    }

    fn take(&mut self, fields: &mut In<'_>) -> Option<()> {
        if fields.bytes()? != [LAYOUT] {
            return None;
        }
        let runs = fields.many(|fields| {
            let node = NodeId(fields.bytes()?);
            Some((node, fields.register(|fields| fields.bytes().map(Incarnation))?))
        });
        self.runs = runs?.into_iter().collect();
        for (id, user) in fields.many(take_user)? {
            self.by_log.entry(user.log).or_default().insert(id);
            self.users.insert(id, user);
        }
        let nicks = fields.many(|fields| {
            let name = fields.folded()?;
            let claims = fields.many(|fields| Some((fields.stamp()?, fields.spot()?, UserId(fields.bytes()?))))?;
            Some((name, Claims::of(claims)))
        });
        self.nicks = nicks?.into_iter().collect();
        let history = self.history;
        let channels = fields.many(|fields| Some((fields.folded()?, Channel::take(fields, history)?)));
        self.channels = channels?.into_iter().collect();
        self.occupied = self.channels.values().filter(|channel| !channel.is_empty()).count();
        for (name, channel) in &self.channels {
            let rights = channel.creations.iter().flat_map(|creation| creation.rights.keys());
            for id in channel.members.keys().chain(rights) {
                if let Some(user) = self.users.get_mut(id) {
                    user.visited.insert(name.clone());
                }
            }
        }
        let users: Vec<UserId> = self.users.keys().copied().collect();
        for id in users {
            if let Some(user) = self.users.get_mut(&id) {
                user.visited.extend(user.joined.iter().cloned());
            }
            self.settle(id);
        }
        fields.0.is_empty().then_some(())
    }
}

fn put_user(out: &mut Out, id: &UserId, user: &User) {
    out.0.extend_from_slice(&id.0);
    out.log(&user.log);
    out.spot(&user.connected);
    out.text(user.claimed.as_str());
    out.text(&user.username);
    out.text(&user.realname);
    out.flag(&user.invisible);
    out.register(&user.away, |out, away| out.option(away.as_deref()));
    for channels in [&user.channels, &user.joined] {
        out.count(channels.len());
        channels.iter().for_each(|channel| out.text(channel.as_str()));
    }
}

fn take_user(fields: &mut In<'_>) -> Option<(UserId, User)> {
    let id = UserId(fields.bytes()?);
    let (log, connected, claimed) = (fields.log()?, fields.spot()?, fields.nick()?);
    let (username, realname) = (fields.text()?.to_owned(), fields.text()?.to_owned());
    let (invisible, away) = (fields.flag()?, fields.register(In::option)?);
    let user = User {
        log,
        connected,
        // Settled once all claims are there.
        shown: claimed.clone(),
        claimed,
        username,
        realname,
        invisible,
        away,
        channels: fields.many(In::folded)?.into_iter().collect(),
        joined: fields.many(In::folded)?.into_iter().collect(),
        // Found again once all channels are there.
        visited: BTreeSet::new(),
    };
    Some((id, user))
}

impl Channel {
    fn put(&self, out: &mut Out) {
        let mut members: Vec<_> = self.members.iter().collect();
        members.sort_unstable_by_key(|(user, _)| **user);
        out.count(members.len());
        for (user, member) in members {
            out.0.extend_from_slice(&user.0);
            out.flag(member);
        }
        out.number(self.left);
        let mut creations: Vec<&Creation> = self.creations.iter().collect();
        creations.sort_unstable_by_key(|creation| creation.place);
        out.count(creations.len());
        creations.into_iter().for_each(|creation| creation.put(out));
    }

    fn take(fields: &mut In<'_>, history: usize) -> Option<Self> {
        let members = fields.many(|fields| Some((UserId(fields.bytes()?), fields.flag()?)))?;
        let mut channel = Self { members: members.into_iter().collect(), ..Self::default() };
        channel.present = channel.members.values().filter(|member| member.value() == Some(&true)).count();
        channel.left = fields.number()?;
        channel.creations = fields.many(|fields| Creation::take(fields, history))?;
        Some(channel)
    }
}

impl Creation {
    fn put(&self, out: &mut Out) {
        out.0.extend_from_slice(&self.id.0);
        out.stamp(self.stamp);
        out.spot(&self.place);
        out.text(self.name.as_str());
        self.flags.iter().for_each(|flag| out.flag(flag));
        out.register(&self.key, |out, key| out.option(key.as_deref()));
        out.register(&self.limit, |out, limit| out.number(limit.map_or(u64::MAX, u64::from)));
        out.register(&self.topic, |out, topic| {
            out.text(&topic.text);
            out.text(&topic.by);
            out.number(topic.at);
        });
        let mut rights: Vec<_> = self.rights.iter().collect();
        rights.sort_unstable_by_key(|(user, _)| **user);
        out.count(rights.len());
        for (user, rights) in rights {
            out.0.extend_from_slice(&user.0);
            out.flag(&rights.operator);
            out.flag(&rights.voice);
        }
        self.history.put(out);
    }

    fn take(fields: &mut In<'_>, history: usize) -> Option<Self> {
        let (id, stamp, place) = (ChannelId(fields.bytes()?), fields.stamp()?, fields.spot()?);
        let name = ChannelName::parse(fields.text()?)?;
        let mut flags: [Register<bool>; Flag::ALL.len()] = Default::default();
        for flag in &mut flags {
            *flag = fields.flag()?;
        }
        let key = fields.register(In::option)?;
        let limit = fields.register(|fields| match fields.number()? {
            u64::MAX => Some(None),
            limit => u32::try_from(limit).ok().map(Some),
        })?;
        let topic = fields.register(|fields| {
            let (text, by) = (fields.text()?.to_owned(), fields.text()?.to_owned());
            Some(Topic { text, by, at: fields.number()? })
        })?;
        let rights = fields.many(|fields| {
            let user = UserId(fields.bytes()?);
            Some((user, Rights { operator: fields.flag()?, voice: fields.flag()? }))
        })?;
        let rights = rights.into_iter().collect();
        Some(Self {
            id,
            stamp,
            place,
            name,
            flags,
            key,
            limit,
            topic,
            rights,
            history: History::take(fields, history)?,
        })
    }
}

impl History {
    fn put(&self, out: &mut Out) {
        out.byte(u8::from(self.dropped().is_some()));
        if let Some((stamp, spot)) = self.dropped() {
            out.stamp(stamp);
            out.spot(&spot);
        }
        out.count(self.iter().len());
        for said in self.iter() {
            out.stamp(said.stamp);
            out.spot(&said.place);
            out.text(&said.claimed);
            out.byte(match said.kind {
                TextKind::Privmsg => 0,
                TextKind::Notice => 1,
                TextKind::Tagmsg => 2,
            });
            out.text(&said.text);
            out.text(&said.tags);
        }
    }

    fn take(fields: &mut In<'_>, limit: usize) -> Option<Self> {
        let dropped = if fields.bool()? { Some((fields.stamp()?, fields.spot()?)) } else { None };
        let mut history = Self::beginning_behind(dropped);
        let said = fields.many(|fields| {
            let (stamp, place, claimed) = (fields.stamp()?, fields.spot()?, fields.text()?.to_owned());
            let kind = match fields.bytes()? {
                [0] => TextKind::Privmsg,
                [1] => TextKind::Notice,
                [2] => TextKind::Tagmsg,
                _ => return None,
            };
            let (text, tags) = (fields.text()?.to_owned(), fields.text()?.to_owned());
            let source = claimed.clone();
            Some(Said {
                place,
                stamp,
                time: super::change::ServerTime::of(stamp.millis),
                source,
                claimed,
                kind,
                text,
                tags,
            })
        })?;
        said.into_iter().for_each(|said| history.insert(Arc::new(said), limit));
        Some(history)
    }
}

const LAYOUT: u8 = 1;
