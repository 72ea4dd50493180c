//! Who shows which nickname: the claims on it decide, and whoever holds none shows a guest's name.

use hcp_core::replica::Write;

use super::World;
use super::change::Change;
use super::claims::Claims;
use crate::names::{Folded, Nick, UserId};

impl World {
    /// Ends the claims that the author of a new one had seen, whether or not the new one counts: that may depend on the
    /// order of its node's runs. Returns whose names may change.
    pub(super) fn supersede(&mut self, write: &Write, nick: &Nick) -> Vec<UserId> {
        let folded = nick.folded();
        let Some(claims) = self.nicks.get_mut(&folded) else { return Vec::new() };
        let mut touched = claims.supersede(write);
        touched.extend(claims.claimants());
        if claims.is_empty() {
            self.nicks.remove(&folded);
        }
        touched
    }

    /// Claims a name; returns whose names may change.
    pub(super) fn claim(&mut self, write: &Write, nick: &Nick, id: UserId) -> Vec<UserId> {
        let claims = self.nicks.entry(nick.folded()).or_default();
        claims.claim(write, id);
        claims.claimants().collect()
    }

    pub(super) fn unclaim(&mut self, folded: &Folded, id: UserId) -> Vec<UserId> {
        let Some(claims) = self.nicks.get_mut(folded) else { return Vec::new() };
        claims.remove(id);
        let left = claims.claimants().collect();
        if claims.is_empty() {
            self.nicks.remove(folded);
        }
        left
    }

    /// Settles the visible names of those whose claims changed, and reports which became different.
    pub(super) fn settle_all(&mut self, users: Vec<UserId>, changes: &mut Vec<Change>) {
        for id in users {
            let Some(from) = self.settle(id) else { continue };
            if let Some(user) = self.users.get(&id).filter(|user| self.shows(&user.log)) {
                changes.push(Change::Renamed { user: id, from, to: user.shown.clone() });
            }
        }
    }

    /// Settles one user's visible name; its mask before, if the name is another one now.
    pub(super) fn settle(&mut self, id: UserId) -> Option<String> {
        let user = self.users.get_mut(&id)?;
        let holds = self.nicks.get(&user.claimed.folded()).and_then(Claims::holder) == Some(id);
        let shown = if holds { user.claimed.clone() } else { Nick::guest(id) };
        if user.shown == shown {
            return None;
        }
        let from = user.mask();
        user.shown = shown;
        Some(from)
    }

    /// The user who shows this guest name without having claimed it; of two, the one with the lower id.
    pub(super) fn guest(&self, folded: &Folded) -> Option<UserId> {
        let ids = Nick::parse(folded.as_str())?.guest_ids()?;
        self.users.range(ids).find(|(_, user)| user.shown.folded() == *folded).map(|(id, _)| *id)
    }
}
