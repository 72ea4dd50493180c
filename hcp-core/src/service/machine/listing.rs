//! What a descriptor lists: the same from the same records, on whichever node it is made.
//!
//! Of every member as many points, at most [`MAX_LISTED`] in all. Where there are more members than that, the directories of a
//! period stand around a wheel of all members, each with the next [`MAX_LISTED`] of them, and every renewal goes on where
//! the last one stopped: after any number of uploads no two members were listed more than once apart.

use std::collections::BTreeMap;

use sha3::{Digest, Sha3_256};

use crate::identity::OnionAddress;
use crate::network::onion::{Period, PointDescription, PointId, RelayId};
use crate::service::tuning::{MAX_LISTED, MAX_POINTS};

/// Members with the points of theirs that are listed, in order.
pub(super) type Merged = Vec<(OnionAddress, Vec<PointDescription>)>;

/// The rank of a member for something; the lowest is the first (rendezvous hashing: a member that goes moves nobody else).
pub(super) fn score(purpose: &[u8], of: &[u8], member: &OnionAddress) -> [u8; 32] {
    let mut hash = Sha3_256::new();
    hash.update(b"HCP/1 rendezvous\0");
    hash.update([purpose.len() as u8]);
    hash.update(purpose);
    hash.update(of);
    hash.update(member.public_key());
    hash.finalize().into()
}

/// A period as bytes to hash.
pub(super) fn period_bytes(period: &Period) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&period.number.to_be_bytes());
    bytes[8..12].copy_from_slice(&period.length.to_be_bytes());
    bytes[12..].copy_from_slice(&period.offset.to_be_bytes());
    bytes
}

/// Gives every member its equal share.
///
/// As many points of each as most have (the lower median): one member that has few does not take from the others, and one that
/// announces many does not get more. A point that two announce, which needs a holder that lies, is listed once.
pub(super) fn merge(members: BTreeMap<OnionAddress, Vec<PointDescription>>) -> Merged {
    let mut owners: BTreeMap<PointId, OnionAddress> = BTreeMap::new();
    for (member, points) in &members {
        for point in points {
            let owner = owners.entry(point.id).or_insert(*member);
            if score(b"owner", &point.id.0, member) < score(b"owner", &point.id.0, owner) {
                *owner = *member;
            }
        }
    }
    let mut merged: Merged = members
        .into_iter()
        .map(|(member, mut points)| {
            points.retain(|point| owners.get(&point.id) == Some(&member));
            points.sort();
            (member, points)
        })
        .filter(|(_, points)| !points.is_empty())
        .collect();
    let mut counts: Vec<_> = merged.iter().map(|(_, points)| points.len()).collect();
    counts.sort_unstable();
    let median = counts.get(counts.len().saturating_sub(1) / 2).copied().unwrap_or(0);
    let share = median.min((MAX_LISTED / merged.len().max(1)).clamp(1, MAX_POINTS));
    #[cfg(test)]
    let share = if super::planted::planted(super::planted::Defect::ShareForgotten) { MAX_LISTED } else { share };
    for (_, points) in &mut merged {
        points.truncate(share);
    }
    merged
}

/// Names what is listed, for confirmations.
pub(super) fn set_hash(period: &Period, merged: &Merged, rotation: u32) -> [u8; 32] {
    let mut hash = Sha3_256::new();
    hash.update(b"HCP/1 service listing\0");
    hash.update(period_bytes(period));
    // Only where it says which subsets.
    hash.update(if rotates(merged) { rotation } else { 0 }.to_be_bytes());
    for point in merged.iter().flat_map(|(_, points)| points) {
        hash.update(point.relay.0);
        hash.update(point.id.0);
        hash.update(point.ntor);
    }
    hash.finalize().into()
}

/// Whether there are more points than one descriptor lists.
pub(super) fn rotates(merged: &Merged) -> bool {
    merged.iter().map(|(_, points)| points.len()).sum::<usize>() > MAX_LISTED
}

/// What each of a period's directories is to list.
pub(super) fn listings(
    period: &Period,
    merged: &Merged,
    directories: &[RelayId],
    rotation: u32,
) -> Vec<(Vec<RelayId>, Vec<PointDescription>)> {
    let mut directories = directories.to_vec();
    directories.sort_unstable();
    directories.dedup();
    if directories.is_empty() || merged.is_empty() {
        return Vec::new();
    }
    if !rotates(merged) {
        let points = merged.iter().flat_map(|(_, points)| points).copied().collect();
        return vec![(directories, points)];
    }
    // Each member has one place on the wheel: the share of so many is one point.
    let mut wheel: Vec<_> = merged
        .iter()
        .filter_map(|(member, points)| Some((score(b"wheel", &period_bytes(period), member), *points.first()?)))
        .collect();
    wheel.sort_unstable_by_key(|(score, _)| *score);
    let turn = directories.len() * MAX_LISTED;
    let start = (rotation as usize % wheel.len()) * (turn % wheel.len()) % wheel.len();
    let places = |index: usize| {
        let from = start + index * MAX_LISTED;
        (from..from + MAX_LISTED.min(wheel.len())).map(|place| wheel[place % wheel.len()].1).collect()
    };
    directories.iter().enumerate().map(|(index, directory)| (vec![*directory], places(index))).collect()
}
