//! A user as every node knows it.

use std::collections::BTreeSet;

use hcp_core::replica::{LogId, Register, Spot};

use crate::names::{Folded, Nick, UserId};

/// The host of every user: where somebody is, is what the service hides.
pub(crate) const CLOAK: &str = "onion";

/// A connected user.
#[derive(Debug)]
pub(crate) struct User {
    /// The log that speaks for it.
    pub(crate) log: LogId,
    /// Where it connected.
    pub(super) connected: Spot,
    /// The name it asked for last.
    pub(super) claimed: Nick,
    /// The name it has: the one it asked for, or a guest's.
    pub(super) shown: Nick,
    pub(crate) username: String,
    pub(crate) realname: String,
    pub(super) invisible: Register<bool>,
    pub(super) away: Register<Option<String>>,
    /// The channels it is in.
    pub(super) channels: BTreeSet<Folded>,
    /// The channels that it has joined by an entry of its own, also those it left.
    pub(super) joined: BTreeSet<Folded>,
    /// The channels that may hold anything about it, also those it left: more or less of them, as the order of entries was.
    pub(super) visited: BTreeSet<Folded>,
}

impl User {
    pub(crate) fn nick(&self) -> &Nick {
        &self.shown
    }

    /// `nick!username@host`.
    pub(crate) fn mask(&self) -> String {
        mask(&self.shown, &self.username)
    }

    /// The mask with the name that it asked for last, which is the same on all nodes when it says something.
    pub(super) fn claimed_mask(&self) -> String {
        mask(&self.claimed, &self.username)
    }

    /// Whether this is the name it asked for last.
    pub(crate) fn claims(&self, nick: &Nick) -> bool {
        self.claimed == *nick
    }

    /// Gives every spot the name that `rename` has for it.
    pub(super) fn rename(&mut self, rename: &impl Fn(&mut Spot)) {
        rename(&mut self.connected);
        self.invisible.rename(rename);
        self.away.rename(rename);
    }

    pub(crate) fn is_invisible(&self) -> bool {
        self.invisible.value() == Some(&true)
    }

    /// What it says to those who write to it while it is away.
    pub(crate) fn away(&self) -> Option<&str> {
        self.away.value()?.as_deref()
    }

    pub(crate) fn channels(&self) -> impl Iterator<Item = &Folded> {
        self.channels.iter()
    }
}

/// The mask of somebody of whom only the id is known.
pub(super) fn unknown_mask(user: UserId) -> String {
    mask(&Nick::guest(user), "~u")
}

fn mask(nick: &Nick, username: &str) -> String {
    format!("{nick}!{username}@{CLOAK}")
}
