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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Identity;
    use crate::network::onion::PointSecrets;

    fn member(index: u8) -> OnionAddress {
        Identity::from_seed(&[index; 32]).address()
    }

    fn point(member: u8, index: u8) -> PointDescription {
        let mut bytes = [member; PointSecrets::LEN];
        bytes[1] = index;
        PointSecrets::from_bytes(&bytes).describe(RelayId([index; 32]))
    }

    fn members(counts: &[usize]) -> BTreeMap<OnionAddress, Vec<PointDescription>> {
        let of = |(index, count): (usize, &usize)| {
            (member(index as u8), (0..*count).map(|number| point(index as u8, number as u8)).collect())
        };
        counts.iter().enumerate().map(of).collect()
    }

    fn counts(merged: &Merged) -> Vec<usize> {
        let mut counts: Vec<_> = merged.iter().map(|(_, points)| points.len()).collect();
        counts.sort_unstable();
        counts
    }

    const PERIOD: Period = Period { number: 5, length: 1_440, offset: 43_200 };

    #[test]
    fn everybody_gets_the_same_and_nobody_more_than_most_have() {
        assert_eq!(counts(&merge(members(&[3, 3, 3]))), [3, 3, 3]);
        assert_eq!(counts(&merge(members(&[3, 3, 1]))), [1, 3, 3], "who has few takes nothing from others");
        assert_eq!(counts(&merge(members(&[1, 1, 3]))), [1, 1, 1], "who has many gets no more");
        assert_eq!(counts(&merge(members(&[0, 2, 2]))), [2, 2]);
        assert_eq!(counts(&merge(members(&[3; 9]))), [2; 9]);
        assert_eq!(counts(&merge(members(&[3; 40]))), [1; 40]);
    }

    #[test]
    fn a_point_that_two_announce_is_listed_once() {
        let mut members = members(&[2, 2]);
        let stolen = members[&member(0)].clone();
        members.insert(member(1), stolen);
        let ids: Vec<_> = merge(members).iter().flat_map(|(_, points)| points).map(|point| point.id).collect();
        assert_eq!(ids.iter().collect::<std::collections::BTreeSet<_>>().len(), ids.len());
    }

    #[test]
    fn twenty_points_are_the_same_everywhere() {
        let merged = merge(members(&[1; 20]));
        let directories: Vec<_> = (0..6).map(|index| RelayId([index; 32])).collect();
        let listings = listings(&PERIOD, &merged, &directories, 4);
        assert_eq!(listings.len(), 1);
        assert_eq!((listings[0].0.len(), listings[0].1.len()), (6, 20));
    }

    /// A hundred nodes, directories that come and go, and members too: after every upload everybody is listed somewhere, and
    /// over a day of uploads clients meet everybody equally often.
    #[test]
    fn a_hundred_nodes_are_listed_somewhere_and_equally_often() {
        let all = members(&[1; 100]);
        for count in [5_u8, 6, 8] {
            let directories: Vec<_> = (0..count).map(|index| RelayId([index; 32])).collect();
            let mut listed: BTreeMap<PointId, usize> = BTreeMap::new();
            for rotation in 0..24 {
                let upload = listings(&PERIOD, &merge(all.clone()), &directories, rotation);
                assert_eq!(upload.len(), usize::from(count));
                let mut here: BTreeMap<PointId, usize> = BTreeMap::new();
                for (at, points) in &upload {
                    assert_eq!((at.len(), points.len()), (1, MAX_LISTED));
                    points.iter().for_each(|point| *here.entry(point.id).or_default() += 1);
                }
                assert_eq!(here.len(), 100, "somebody is listed nowhere");
                here.iter().for_each(|(id, times)| *listed.entry(*id).or_default() += times);
                let (least, most) = (listed.values().min().unwrap(), listed.values().max().unwrap());
                assert!(most - least <= 1, "{least} to {most} after {} uploads", rotation + 1);
            }
        }
        // Fewer places than members: two uploads list everybody.
        let directories: Vec<_> = (0..3).map(|index| RelayId([index; 32])).collect();
        let two = (0..2).flat_map(|rotation| listings(&PERIOD, &merge(all.clone()), &directories, rotation));
        let ids: std::collections::BTreeSet<_> = two.flat_map(|(_, points)| points).map(|point| point.id).collect();
        assert_eq!(ids.len(), 100);
    }

    #[test]
    fn a_rotation_names_another_set_only_where_there_are_subsets() {
        let (few, many) = (merge(members(&[3; 3])), merge(members(&[1; 30])));
        assert_eq!(set_hash(&PERIOD, &few, 0), set_hash(&PERIOD, &few, 1));
        assert_ne!(set_hash(&PERIOD, &many, 0), set_hash(&PERIOD, &many, 1));
        let next = PERIOD.next().unwrap();
        assert_ne!(set_hash(&PERIOD, &few, 0), set_hash(&next, &few, 0));
    }
}
