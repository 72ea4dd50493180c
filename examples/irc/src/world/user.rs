//! A user as every node knows it.

use std::collections::BTreeSet;

use hcp_core::replica::{LogId, Place};

use crate::names::{Folded, Nick, UserId};

/// The host of every user: where somebody is, is what the service hides.
pub(crate) const CLOAK: &str = "onion";

/// A connected user.
#[derive(Debug)]
pub(crate) struct User {
    /// The log that speaks for it.
    pub(crate) log: LogId,
    /// Where it connected.
    pub(super) connected: Place,
    /// The name it asked for last.
    pub(super) claimed: Nick,
    /// The name it has: the one it asked for, or a guest's.
    pub(super) shown: Nick,
    pub(crate) username: String,
    pub(crate) realname: String,
    pub(crate) invisible: bool,
    pub(crate) away: Option<String>,
    /// The channels it is in.
    pub(super) channels: BTreeSet<Folded>,
    /// The channels that hold anything about it, also those it left.
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

    /// Whether this is the name it asked for last.
    pub(crate) fn claims(&self, nick: &Nick) -> bool {
        self.claimed == *nick
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
