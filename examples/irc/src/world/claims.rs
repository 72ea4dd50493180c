//! Who holds a nickname.
//!
//! A claim supersedes the claims that its author had seen: a node makes one only for a free name or for one whose holder
//! has lapsed. Of the claims that remain, made on two sides of a split, the older stamp wins, then the lower place.
//! The holder is thus a function of the set of claims and removals, not of their order.

use hcp_core::replica::{Spot, Stamp, Write};

use super::seen;
use crate::names::UserId;

/// The claims on one nickname that no other claim supersedes.
#[derive(Debug, Default)]
pub(super) struct Claims(Vec<(Stamp, Spot, UserId)>);

impl Claims {
    /// Drops the claims that the author of a new one had seen; returns the users who made them.
    pub(super) fn supersede(&mut self, write: &Write) -> Vec<UserId> {
        let superseded = self.0.extract_if(.., |(_, place, _)| seen(write, place));
        superseded.map(|(_, _, user)| user).collect()
    }

    pub(super) fn claim(&mut self, write: &Write, user: UserId) {
        self.0.push((write.stamp, write.spot, user));
    }

    pub(super) fn remove(&mut self, user: UserId) {
        self.0.retain(|(_, _, claimant)| *claimant != user);
    }

    pub(super) fn holder(&self) -> Option<UserId> {
        self.0.iter().min_by_key(|(stamp, place, _)| (*stamp, *place)).map(|(_, _, user)| *user)
    }

    pub(super) fn claimants(&self) -> impl Iterator<Item = UserId> + '_ {
        self.0.iter().map(|(_, _, user)| *user)
    }

    /// Gives every spot the name that `rename` has for it.
    pub(super) fn rename(&mut self, rename: &impl Fn(&mut Spot)) {
        self.0.iter_mut().for_each(|(_, spot, _)| rename(spot));
    }

    /// All claims, in an order that is the same on all nodes.
    pub(super) fn in_order(&self) -> Vec<(Stamp, Spot, UserId)> {
        let mut claims = self.0.clone();
        claims.sort_unstable_by_key(|(stamp, spot, user)| (*stamp, *spot, *user));
        claims
    }

    /// The claims that [`in_order`](Self::in_order) gave.
    pub(super) fn of(claims: Vec<(Stamp, Spot, UserId)>) -> Self {
        Self(claims)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
