//! Whom clients find by the descriptors that directories have, as far as this node knows what these list.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::identity::OnionAddress;
use crate::network::onion::PointId;
use crate::service::gossip::Publication;
use crate::service::machine::listing::Merged;
use crate::service::machine::{Machine, Peer};

/// Members, with the names of their points.
pub(super) type Points = BTreeMap<OnionAddress, BTreeSet<PointId>>;

/// Whom a publication lists.
#[derive(Debug)]
pub(super) struct Lists {
    /// Which publication that is.
    pub(super) by: (OnionAddress, u64),
    pub(super) members: Points,
    /// Until when this was to be listed, by this node's clock.
    pub(super) until: Duration,
}

impl Machine {
    /// Whom a publication lists that was found to be of this version of what is to be listed.
    pub(super) fn listed_by(&self, (by, publication): &(OnionAddress, Publication), version: u64) -> Option<Lists> {
        let before = self.listed.before.iter().find(|(of, ..)| *of == version);
        let (members, until) = match before {
            Some((_, members, until)) => (members, *until),
            None if version == self.listed.version => (&self.listed.members, self.now),
            None => return None,
        };
        let merged = self.merge_without(members.clone(), &publication.left_out);
        Some(Lists { by: (*by, publication.at), members: points_of(&merged), until })
    }

    /// The peers that a client, and so a probe, can reach by the descriptor that directories have for the current period, as far as
    /// this node knows what that lists, and how many members it lists in all. Who has begun anew since, with other points, is none
    /// of them; nor, when somebody has published since what this node does not know, is anybody with other points.
    pub(in crate::service::machine) fn reachable(&self) -> (Vec<OnionAddress>, usize) {
        let period = self.view.periods.first().map(|view| view.period);
        let publishing = period.and_then(|period| self.publishing.get(&period));
        let Some(lists) = publishing.and_then(|publishing| publishing.lists.as_ref()) else { return (Vec::new(), 0) };
        let latest =
            period.and_then(|period| self.latest(&period)).map(|(member, publication)| (member, publication.at));
        let is_latest = latest == Some(lists.by);
        let reachable = |peer: &Peer, listed: &BTreeSet<PointId>| {
            let has = peer.record().is_some_and(|record| record.points.iter().any(|point| listed.contains(&point.id)));
            let as_before = || is_latest && peer.forgiven.is_none_or(|forgiven| forgiven < lists.until);
            peer.is_alive() && (has || as_before())
        };
        let listed = lists
            .members
            .iter()
            .filter(|(member, listed)| self.peers.get(member).is_some_and(|peer| reachable(peer, listed)));
        (listed.map(|(member, _)| *member).collect(), lists.members.len())
    }
}

pub(super) fn points_of(merged: &Merged) -> Points {
    merged.iter().map(|(member, points)| (*member, points.iter().map(|point| point.id).collect())).collect()
}
