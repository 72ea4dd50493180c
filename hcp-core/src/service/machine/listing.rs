//! What a descriptor lists: the same from the same records, on whichever node it is made.
//!
//! Of every member as many points, at most as many in all as fit ([`Roster::max_listed`]). Where there are more members than
//! that, the directories of a period stand around a wheel of all members, each with the next so many of them, and every
//! renewal goes on where the last one stopped: after any number of uploads no two members were listed more than once apart.

use std::collections::{BTreeMap, BTreeSet};

use sha3::{Digest, Sha3_256};

use crate::identity::OnionAddress;
use crate::network::onion::{Period, PointDescription, PointId, RelayId};
use crate::service::roster::Roster;
use crate::service::tuning::MAX_POINTS;

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
pub(super) fn merge(members: BTreeMap<OnionAddress, Vec<PointDescription>>, max_listed: usize) -> Merged {
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
    let share = median.min((max_listed / merged.len().max(1)).clamp(1, MAX_POINTS));
    #[cfg(test)]
    let share = if super::planted::planted(super::planted::Defect::ShareForgotten) { max_listed } else { share };
    for (_, points) in &mut merged {
        points.truncate(share);
    }
    merged
}

/// Names what is listed and for whom, for confirmations.
pub(super) fn set_hash(period: &Period, merged: &Merged, rotation: u32, roster: &Roster) -> [u8; 32] {
    let mut hash = Sha3_256::new();
    hash.update(b"HCP/1 service listing\0");
    hash.update(period_bytes(period));
    // Only where it says which subsets.
    hash.update(if rotates(merged, roster.max_listed()) { rotation } else { 0 }.to_be_bytes());
    let points = || merged.iter().flat_map(|(_, points)| points);
    // Members are at most 128, with a few points each.
    hash.update((points().count() as u32).to_be_bytes());
    for point in points() {
        hash.update(point.relay.0);
        hash.update(point.id.0);
        hash.update(point.ntor);
    }
    for client in roster.clients().into_iter().flat_map(|clients| clients.iter()) {
        hash.update(client.as_bytes());
    }
    hash.finalize().into()
}

/// Whether there are more points than one descriptor lists.
fn rotates(merged: &Merged, max_listed: usize) -> bool {
    merged.iter().map(|(_, points)| points.len()).sum::<usize>() > max_listed
}

/// What each of a period's directories is to list.
pub(super) fn listings(
    period: &Period,
    merged: &Merged,
    directories: &[RelayId],
    rotation: u32,
    max_listed: usize,
) -> Vec<(Vec<RelayId>, Vec<PointDescription>)> {
    let mut directories = directories.to_vec();
    directories.sort_unstable();
    directories.dedup();
    if directories.is_empty() || merged.is_empty() {
        return Vec::new();
    }
    if !rotates(merged, max_listed) {
        return vec![(directories, in_turn(merged))];
    }
    // Each member has one place on the wheel: the share of so many is one point.
    let mut wheel: Vec<_> = merged
        .iter()
        .filter_map(|(member, points)| Some((score(b"wheel", &period_bytes(period), member), *points.first()?)))
        .collect();
    wheel.sort_unstable_by_key(|(score, _)| *score);
    let turn = directories.len() * max_listed;
    let start = (rotation as usize % wheel.len()) * (turn % wheel.len()) % wheel.len();
    let places = |index: usize| {
        let from = start + index * max_listed;
        (from..from + max_listed.min(wheel.len())).map(|place| wheel[place % wheel.len()].1).collect()
    };
    directories.iter().enumerate().map(|(index, directory)| (vec![*directory], places(index))).collect()
}

/// Points at as many relays, in an order in which members take turns; of points that share a relay only the first, unless a
/// member had no other listed.
///
/// C tor knows the point that it has built a circuit to by its relay alone, and takes the first that is listed there
/// (`find_desc_intro_point_by_legacy_id` in hs_client.c): it never uses another one, and, worse, never notes that it failed.
/// As long as C tor thinks that some point of a descriptor can be used it does not fetch a newer one, so a second point at a
/// relay would keep it from a service all of whose nodes have come back with other points. Where relays are so few, no member
/// has more points listed than another, as far as that can be.
fn in_turn(merged: &Merged) -> Vec<PointDescription> {
    let mut left: Vec<&[PointDescription]> = merged.iter().map(|(_, points)| &points[..]).collect();
    let mut taken = BTreeSet::new();
    let mut listed = Vec::new();
    let most = left.iter().map(|points| points.len()).max().unwrap_or_default();
    for turn in 0..most {
        for points in &mut left {
            let free = points.iter().position(|point| taken.insert(point.relay));
            // Those before it have no relay of their own.
            let next = free.or((turn == 0 && !points.is_empty()).then_some(0));
            if let Some(next) = next {
                listed.push(points[next]);
                *points = &points[next + 1..];
            }
        }
    }
    listed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{DiscoveryKey, Identity};
    use crate::network::onion::PointSecrets;
    use crate::service::tuning::MAX_LISTED;

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
        assert_eq!(counts(&merge(members(&[3, 3, 3]), MAX_LISTED)), [3, 3, 3]);
        assert_eq!(counts(&merge(members(&[3, 3, 1]), MAX_LISTED)), [1, 3, 3], "who has few takes nothing from others");
        assert_eq!(counts(&merge(members(&[1, 1, 3]), MAX_LISTED)), [1, 1, 1], "who has many gets no more");
        assert_eq!(counts(&merge(members(&[0, 2, 2]), MAX_LISTED)), [2, 2]);
        assert_eq!(counts(&merge(members(&[3; 9]), MAX_LISTED)), [2; 9]);
        assert_eq!(counts(&merge(members(&[3; 40]), MAX_LISTED)), [1; 40]);
    }

    #[test]
    fn a_point_that_two_announce_is_listed_once() {
        let mut members = members(&[2, 2]);
        let stolen = members[&member(0)].clone();
        members.insert(member(1), stolen);
        let ids: Vec<_> =
            merge(members, MAX_LISTED).iter().flat_map(|(_, points)| points).map(|point| point.id).collect();
        assert_eq!(ids.iter().collect::<std::collections::BTreeSet<_>>().len(), ids.len());
    }

    /// So many members with so many points each, all at the same relays.
    fn at_few_relays(count: usize, each: usize) -> Vec<PointDescription> {
        in_turn(&merge(members(&vec![each; count]), MAX_LISTED))
    }

    fn owners(listed: &[PointDescription], members: &BTreeMap<OnionAddress, Vec<PointDescription>>) -> Vec<usize> {
        members.values().map(|points| listed.iter().filter(|point| points.contains(point)).count()).collect()
    }

    #[test]
    fn of_points_that_share_a_relay_one_is_listed_and_each_member_has_as_many() {
        let listed = at_few_relays(3, 3);
        assert_eq!(owners(&listed, &members(&[3; 3])), [1, 1, 1]);
        assert_eq!(listed.iter().map(|point| point.relay).collect::<BTreeSet<_>>().len(), 3);
        let listed = at_few_relays(2, 3);
        assert_eq!(listed.len(), 3);
        // Whose relays are all taken is listed all the same.
        let listed = at_few_relays(5, 2);
        assert_eq!(owners(&listed, &members(&[2; 5])), [1; 5]);
    }

    #[test]
    fn twenty_points_are_the_same_everywhere() {
        let merged = merge(members(&[1; 20]), MAX_LISTED);
        let directories: Vec<_> = (0..6).map(|index| RelayId([index; 32])).collect();
        let listings = listings(&PERIOD, &merged, &directories, 4, MAX_LISTED);
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
                let upload = listings(&PERIOD, &merge(all.clone(), MAX_LISTED), &directories, rotation, MAX_LISTED);
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
        let two = (0..2).flat_map(|rotation| {
            listings(&PERIOD, &merge(all.clone(), MAX_LISTED), &directories, rotation, MAX_LISTED)
        });
        let ids: std::collections::BTreeSet<_> = two.flat_map(|(_, points)| points).map(|point| point.id).collect();
        assert_eq!(ids.len(), 100);
    }

    #[test]
    fn a_rotation_names_another_set_only_where_there_are_subsets() {
        let open = Roster::new([]).unwrap();
        let (few, many) = (merge(members(&[3; 3]), MAX_LISTED), merge(members(&[1; 30]), MAX_LISTED));
        assert_eq!(set_hash(&PERIOD, &few, 0, &open), set_hash(&PERIOD, &few, 1, &open));
        assert_ne!(set_hash(&PERIOD, &many, 0, &open), set_hash(&PERIOD, &many, 1, &open));
        let next = PERIOD.next().unwrap();
        assert_ne!(set_hash(&PERIOD, &few, 0, &open), set_hash(&next, &few, 0, &open));
    }
    #[test]
    fn clients_of_a_restricted_service_leave_room_for_fewer_and_name_another_set() {
        let client = |n: u8| DiscoveryKey::from_secret_bytes(&[n; 32]).public_key();
        let open = Roster::new([]).unwrap();
        let restricted = |clients: u8| open.clone().restricted_to((0..clients).map(client));
        assert_eq!((open.max_listed(), restricted(1).max_listed()), (MAX_LISTED, MAX_LISTED));
        let most = restricted(160).max_listed();
        assert_eq!(most, 15);

        let directories: Vec<_> = (0..6).map(|index| RelayId([index; 32])).collect();
        let merged = merge(members(&[1; 20]), most);
        let upload = listings(&PERIOD, &merged, &directories, 0, most);
        assert_eq!(upload.iter().map(|(_, points)| points.len()).collect::<Vec<_>>(), [most; 6]);
        let ids: std::collections::BTreeSet<_> = upload.iter().flat_map(|(_, points)| points).map(|p| p.id).collect();
        assert_eq!(ids.len(), 20, "somebody is listed nowhere");
        assert_eq!(counts(&merge(members(&[3; 6]), most)), [2; 6], "where everybody may have 18 of 20");

        let few = merge(members(&[3; 3]), most);
        let hash = |roster: &Roster| set_hash(&PERIOD, &few, 0, roster);
        let mut hashes = vec![hash(&open), hash(&restricted(1)), hash(&restricted(2)), hash(&restricted(3))];
        hashes.dedup();
        assert_eq!(hashes.len(), 4);
    }
}
