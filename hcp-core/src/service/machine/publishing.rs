//! Who uploads which descriptor, and when.
//!
//! For each period the publishers that live and hold material stand in an order (rendezvous hashing); the first uploads
//! whenever what directories have is not what is to be listed, and says in its record what they took. Of several such
//! publications the one with the latest revision is what directories have, whoever made it. The second waits for that
//! confirmation and then does the first one's work; less and less often when the first one undoes that: two that disagree must
//! not overwrite each other without end. What is to be listed may change faster than anybody can upload, when points of one member open and close
//! again and again: then it is uploaded all the same as often as the limit allows, and whoever lists what was wanted a moment
//! ago has done its work.

mod lists;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use rand::RngExt;

use self::lists::{Lists, Points, points_of};
use super::listing::{self, Merged};
use super::{Machine, Notice, Output, UploadId};
use crate::identity::{DiscoveryPublicKey, OnionAddress};
use crate::network::onion::{Period, PeriodView, PointDescription, RelayId, UploadReport};
use crate::service::gossip::Publication;
use crate::service::roster::Role;
use crate::service::tuning::{
    GATHERING, KNOWN_LEAD, MAX_LEAD, MAX_PUBLICATIONS, MAX_REMEMBERED, PUBLICATION_LIFE, REFUSED_LEAD,
    REFUSED_LEAD_AT_MOST, REUPLOAD, SETTLED, STRAGGLERS_AT_MOST, UNCONFIRMED, UNCONFIRMED_AT_MOST, UNCONFIRMED_URGENT,
    UNCONTESTED, UNSETTLED_AT_MOST, UPLOAD, UPLOAD_RETRY, UPLOADING, URGENT_UPLOAD, URGENT_UPLOADS, URGES,
};

/// What concerns one period.
#[derive(Debug, Default)]
pub(super) struct Publishing {
    /// What this node has uploaded last.
    own: Option<Publication>,
    flight: Option<Flight>,
    /// Which version of what is to be listed was seen last, and when first.
    want: u64,
    since: Duration,
    /// Since when directories have something else.
    unsatisfied: Option<Duration>,
    /// The same, since this node is one of those who could do something about it.
    unsettled: Option<Duration>,
    /// A node has failed or is leaving, and a descriptor lists it: what was to be listed until then.
    urgent: Option<u64>,
    /// The directories when they were last known to have it.
    directories: BTreeSet<RelayId>,
    /// When it was published last, by anybody, by this node's clock; which publication that was; when to renew it.
    published: Option<Duration>,
    agreed: Option<(OnionAddress, u64)>,
    renew: Option<Duration>,
    /// When uploads began, the latest last.
    uploads: VecDeque<Duration>,
    failures: u32,
    retry: Option<Duration>,
    /// Directories that did not take what others took.
    stragglers: BTreeSet<RelayId>,
    straggling: u32,
    lead: u64,
    /// The latest second at which directories took something from this node, or refused it because they had something later.
    known: u64,
    /// How often this node has replaced what another had put in the place of its own, and when it last saw that done.
    replaced: u32,
    contested: Option<Duration>,
    /// Who could publish, and in which order: hashing them again and again would be most of what a machine does.
    candidates: Vec<(bool, OnionAddress)>,
    order: Vec<OnionAddress>,
    /// Whether a publication lists what is to be listed, as it was found for these members.
    compared: Option<(u64, Publication, bool)>,
    /// Which version a publication lists, when it became known and was not what is to be listed.
    recognised: Option<(Publication, Option<u64>)>,
    /// What the latest publication lists that this node knows: what others only claim to have published says nothing.
    lists: Option<Lists>,
}

/// What is to be listed, as it was found last.
#[derive(Debug, Default)]
pub(super) struct Listed {
    pub(super) members: BTreeMap<OnionAddress, Vec<PointDescription>>,
    merged: Merged,
    /// For whom.
    clients: Option<Arc<[DiscoveryPublicKey]>>,
    /// Counts changes of the members, their points and the clients.
    version: u64,
    /// What was to be listed before, the latest last: its version, and until when.
    before: VecDeque<(u64, BTreeMap<OnionAddress, Vec<PointDescription>>, Duration)>,
    /// For every period directories have it.
    published: bool,
}

#[derive(Debug)]
struct Flight {
    upload: UploadId,
    since: Duration,
    publication: Publication,
    listed: Points,
    points: usize,
    directories: BTreeSet<RelayId>,
    targets: BTreeSet<RelayId>,
}

impl Flight {
    /// It goes only to those that did not take what others took.
    fn is_partial(&self) -> bool {
        self.targets != self.directories
    }
}

impl Machine {
    /// A node has failed or leaves: what lists it is to be replaced at once. One that does so again and again has to wait.
    pub(super) fn urge(&mut self, member: OnionAddress) {
        let now = self.now;
        self.hasten();
        let Some(peer) = self.peers.get_mut(&member) else { return };
        peer.urged.retain(|urged| now.saturating_sub(*urged) < UPLOAD * URGES as u32);
        if peer.urged.len() >= URGES {
            return;
        }
        peer.urged.push(now);
        let version = self.listed.version;
        for publishing in self.publishing.values_mut() {
            publishing.urgent = Some(version);
            // How long a refusal or a failure of before was to be waited out says nothing of this; the limits below hold.
            publishing.failures = 0;
            publishing.retry = None;
        }
    }

    /// Uploads what is this node's to upload.
    pub(super) fn publish(&mut self) {
        let views = self.view.periods.clone();
        self.publishing.retain(|period, _| views.iter().any(|view| view.period == *period));
        let members = self.listable();
        if members != self.listed.members || self.listed.clients.as_ref() != self.roster.clients() {
            self.listed.merged = listing::merge(members.clone(), self.roster.max_listed());
            let before = std::mem::replace(&mut self.listed.members, members);
            self.listed.before.push_back((self.listed.version, before, self.now));
            if self.listed.before.len() > MAX_REMEMBERED {
                self.listed.before.pop_front();
            }
            self.listed.clients = self.roster.clients().cloned();
            self.listed.version += 1;
        }
        let mut published = true;
        for view in views {
            published &= self.attend(&view);
        }
        self.listed.published = published || self.listed.merged.is_empty();
    }

    /// Looks after one period; whether directories have what they should.
    fn attend(&mut self, view: &PeriodView) -> bool {
        let (now, me) = (self.now, self.me);
        let period = view.period;
        let latest = self.latest(&period);
        let satisfied = latest.as_ref().is_some_and(|(_, publication)| self.satisfies(publication));
        let candidates = self.candidates(&period);
        let reupload = self.rng.random_range(REUPLOAD.0..REUPLOAD.1);
        let left_out = self.unanswering();
        let believable = self.believable(&period);
        let nothing = self.listed.merged.is_empty();
        let version = self.listed.version;
        let listed = match &latest {
            Some(_) if satisfied => Some(version),
            Some((_, publication)) => self.recognise(publication),
            None => None,
        };
        let by = latest.as_ref().map(|(member, publication)| (*member, publication.at));
        let known = self.publishing.get(&period).and_then(|publishing| publishing.lists.as_ref());
        let lists = match (&latest, listed) {
            (Some(latest), Some(version)) if known.map(|known| known.by) != by => self.listed_by(latest, version),
            _ => None,
        };

        let publishing =
            self.publishing.entry(period).or_insert_with(|| Publishing { since: now, ..Publishing::default() });
        if publishing.want != version {
            (publishing.want, publishing.since) = (version, now);
        }
        if publishing.candidates != candidates {
            publishing.order = in_order(&period, &candidates);
            publishing.candidates = candidates;
        }
        let rank = publishing.order.iter().position(|member| *member == me);
        if publishing.flight.as_ref().is_some_and(|flight| now.saturating_sub(flight.since) >= UPLOADING) {
            publishing.flight = None;
            publishing.failures = publishing.failures.saturating_add(1);
        }
        let directories: BTreeSet<_> = view.directories.iter().copied().collect();
        if lists.is_some() {
            publishing.lists = lists;
        }
        if listed.is_some() && publishing.agreed != by {
            publishing.agreed = by;
            publishing.published = Some(now);
            publishing.renew = Some(now + reupload);
            if by.is_some_and(|(member, _)| member != me) {
                // Whoever uploaded it knew them as this node does, or nearly so.
                publishing.directories.clone_from(&directories);
                publishing.stragglers.clear();
            }
        }
        if satisfied || listed.zip(publishing.urgent).is_some_and(|(listed, until)| listed > until) {
            publishing.urgent = None;
        }
        if satisfied {
            publishing.unsatisfied = None;
        } else {
            publishing.unsatisfied.get_or_insert(now);
        }
        // Somebody has put another set in the place of this node's, which this node never held for the right one.
        let contested = publishing.agreed != by
            && latest
                .as_ref()
                .zip(publishing.own.as_ref())
                .is_some_and(|((member, publication), own)| *member != me && publication.set != own.set);
        if contested {
            publishing.contested = Some(now);
        } else if publishing.contested.is_some_and(|at| now.saturating_sub(at) >= UNCONTESTED) {
            (publishing.contested, publishing.replaced) = (None, 0);
        }
        publishing.unsettled = if satisfied || rank.is_none() { None } else { publishing.unsettled.or(Some(now)) };
        let Some(rank) = rank else { return satisfied };
        // Directories that are only given what others took already may take long, and who has failed is not waited for.
        let in_flight = |flight: &Flight| publishing.urgent.is_none() || !flight.is_partial();
        if nothing || directories.is_empty() || publishing.flight.as_ref().is_some_and(in_flight) {
            return satisfied;
        }

        let moved = satisfied && publishing.directories != directories;
        let renew = satisfied && publishing.renew.is_some_and(|at| at <= now);
        let lagging = satisfied && !publishing.stragglers.is_empty() && publishing.retry.is_none_or(|at| at <= now);
        let settled = publishing.urgent.is_some()
            || now.saturating_sub(publishing.since) >= SETTLED
            || publishing.unsettled.is_some_and(|since| now.saturating_sub(since) >= UNSETTLED_AT_MOST);
        let unsatisfied = publishing.unsatisfied.filter(|_| settled);
        let other_doubts = latest.as_ref().is_some_and(|(_, publication)| publication.left_out != left_out);
        let turn = match unsatisfied {
            Some(since) => {
                // Who has published what was wanted a moment ago sees to it.
                let attended = publishing.published.filter(|_| publishing.urgent.is_none());
                let since = attended.map_or(since, |attended| since.max(attended));
                let (wait, most) = match publishing.urgent {
                    Some(_) => (UNCONFIRMED_URGENT, UNCONFIRMED),
                    None => (UNCONFIRMED, UNCONFIRMED_AT_MOST),
                };
                let patience = (wait * 2_u32.saturating_pow(publishing.replaced.min(8))).min(most);
                let patience = (patience * u32::try_from(rank).unwrap_or(u32::MAX)).min(UNCONFIRMED_AT_MOST);
                now.saturating_sub(since) >= patience
            }
            None => rank == 0 && (moved || renew || lagging || (satisfied && other_doubts)),
        };
        #[cfg(test)]
        let turn = turn && !(planted(Defect::PublishedOnce) && publishing.own.is_some());
        #[cfg(test)]
        let turn =
            turn || (planted(Defect::NoUploadLimit) && publishing.uploads.back().is_none_or(|at| now - *at > SETTLED));
        if !turn || !publishing.may_upload(now) {
            return satisfied;
        }
        if rank > 0 && contested {
            publishing.replaced = publishing.replaced.saturating_add(1);
        }
        let targets = if lagging && !moved && !renew && !other_doubts {
            publishing.stragglers.clone()
        } else {
            directories.clone()
        };
        let rotation = latest.as_ref().map_or(0, |(_, publication)| publication.rotation);
        let rotation = rotation.wrapping_add(u32::from(renew));
        let wall = self.wall / 1_000;
        // Later than what directories have, whoever gave it to them; a clock that is far ahead is not followed without need.
        let after = |publication: &Publication| publication.at.saturating_add(1).min(believable);
        let at = latest.as_ref().map_or(wall, |(_, publication)| after(publication)).max(wall + publishing.lead);
        let at = publishing.flight.as_ref().map_or(at, |flight| at.max(flight.publication.at + 1));
        self.upload(&period, directories, targets, rotation, at, left_out);
        satisfied
    }

    fn upload(
        &mut self,
        period: &Period,
        directories: BTreeSet<RelayId>,
        targets: BTreeSet<RelayId>,
        rotation: u32,
        at: u64,
        left_out: Vec<OnionAddress>,
    ) {
        let merged = self.merged_without(&left_out);
        self.next_id += 1;
        let upload = UploadId(self.next_id);
        let all: Vec<_> = directories.iter().copied().collect();
        let mut listings = listing::listings(period, &merged, &all, rotation, self.roster.max_listed());
        let points: BTreeSet<_> = listings.iter().flat_map(|(_, points)| points).map(|point| point.id).collect();
        let points = points.len();
        for (directories, _) in &mut listings {
            directories.retain(|directory| targets.contains(directory));
        }
        listings.retain(|(directories, _)| !directories.is_empty());
        let set = listing::set_hash(period, &merged, rotation, &self.roster);
        let publication = Publication { period: *period, set, rotation, at, left_out };
        let listed = points_of(&merged);
        let now = self.now;
        let Some(publishing) = self.publishing.get_mut(period) else { return };
        publishing.uploads.push_back(now);
        if publishing.uploads.len() > URGENT_UPLOADS {
            publishing.uploads.pop_front();
        }
        publishing.retry = None;
        publishing.flight = Some(Flight { upload, since: now, publication, listed, points, directories, targets });
        self.outputs.push_back(Output::Upload { upload, period: *period, not_before: at, listings });
    }

    pub(super) fn uploaded(&mut self, upload: UploadId, report: &UploadReport) {
        let (now, me) = (self.now, self.me);
        let lead = self.rng.random_range(REFUSED_LEAD.0..REFUSED_LEAD.1);
        let jitter = self.rng.random_range(1.0..1.5);
        let flown = |publishing: &&mut Publishing| publishing.flight.as_ref().is_some_and(|f| f.upload == upload);
        let Some(publishing) = self.publishing.values_mut().find(flown) else { return };
        let Some(flight) = publishing.flight.take() else { return };
        let accepted: BTreeSet<_> = report.accepted.iter().copied().filter(|at| flight.targets.contains(at)).collect();
        let missed: BTreeSet<_> = flight.targets.difference(&accepted).copied().collect();
        let refused = report.refused.iter().filter(|at| flight.targets.contains(at)).count();
        let mostly_refused = !flight.is_partial() && refused * 2 > flight.targets.len();
        let refused = refused > 0;
        publishing.lead = match (refused, mostly_refused) {
            // A clock far ahead was followed once, or is wrong. A few directories that lie must not lead anybody astray.
            (true, true) => (publishing.lead + lead).max(publishing.lead * 2).min(REFUSED_LEAD_AT_MOST),
            (true, false) => (publishing.lead + lead).min(MAX_LEAD),
            (false, _) => 0,
        };
        if mostly_refused || !accepted.is_empty() {
            publishing.known = publishing.known.max(flight.publication.at);
        }
        if flight.is_partial() || (accepted.len() * 2 >= flight.targets.len() && !accepted.is_empty()) {
            publishing.failures = 0;
            publishing.straggling = if missed.is_empty() { 0 } else { publishing.straggling.saturating_add(1) };
            publishing.stragglers = missed;
            publishing.directories = flight.directories;
            self.outputs.push_back(Output::Notice(Notice::Published {
                period: flight.publication.period,
                listed: flight.listed.keys().copied().collect(),
                points: flight.points,
                accepted: accepted.len(),
                refused: report.refused.len(),
                failed: report.failed.len(),
            }));
            if !accepted.is_empty() {
                let by = (me, flight.publication.at);
                publishing.lists = Some(Lists { by, members: flight.listed, until: flight.since });
                publishing.own = Some(flight.publication);
            }
            let pause = UPLOAD * 2_u32.saturating_pow(publishing.straggling.min(8));
            publishing.retry = Some(now + pause.min(STRAGGLERS_AT_MOST).mul_f64(jitter));
        } else {
            publishing.failures = publishing.failures.saturating_add(1);
            let pause = match (refused, publishing.urgent.is_some()) {
                // Somebody else's is newer, and the limit holds; a later revision goes at once when somebody has failed.
                (true, false) => UPLOAD,
                (true, true) => URGENT_UPLOAD,
                (false, _) => (UPLOAD_RETRY * 2_u32.saturating_pow(publishing.failures.min(8) - 1)).min(UPLOAD),
            };
            publishing.retry = Some(now + pause.mul_f64(jitter));
        }
        self.hasten();
    }

    /// Whether an upload of this node's is under way.
    pub(super) fn is_uploading(&self) -> bool {
        self.publishing.values().any(|publishing| publishing.flight.is_some())
    }

    /// Members whose points a descriptor is to list now, each with all of them.
    fn listable(&self) -> BTreeMap<OnionAddress, Vec<PointDescription>> {
        let (now, target) = (self.now, self.target());
        let mut members = BTreeMap::new();
        let own: Vec<_> = self.announced().iter().filter_map(|point| point.description()).collect();
        if self.stopping.is_none() && !own.is_empty() {
            members.insert(self.me, own);
        }
        for (member, peer) in &self.peers {
            let Some(record) = peer.record().filter(|record| peer.is_alive() && !record.stopping) else { continue };
            // Who has just begun is listed once it is complete: what is listed early stays in clients' caches.
            let young = peer.introduced.is_none_or(|at| now.saturating_sub(at) < GATHERING);
            if record.points.is_empty() || (young && record.points.len() < target) {
                continue;
            }
            #[cfg(test)]
            if planted(Defect::NewcomersIgnored) && peer.introduced > Some(self.started + GATHERING * 2) {
                continue;
            }
            members.insert(*member, record.points.clone());
        }
        self.without_missing(&mut members);
        members
    }

    /// The name of what is to be listed.
    #[cfg(test)]
    pub(super) fn wanted(&self, period: &Period) -> [u8; 32] {
        listing::set_hash(period, &self.listed.merged, 0, &self.roster)
    }

    /// What is to be listed without some members; never without half of all.
    fn merged_without(&self, left_out: &[OnionAddress]) -> Merged {
        if left_out.is_empty() {
            return self.listed.merged.clone();
        }
        self.merge_without(self.listed.members.clone(), left_out)
    }

    fn merge_without(
        &self,
        mut members: BTreeMap<OnionAddress, Vec<PointDescription>>,
        left_out: &[OnionAddress],
    ) -> Merged {
        let most = members.len().saturating_sub(1) / 2;
        for member in left_out.iter().take(most) {
            members.remove(member);
        }
        listing::merge(members, self.roster.max_listed())
    }

    /// The publishers of a period that live, and whether they are about to leave.
    fn candidates(&self, period: &Period) -> Vec<(bool, OnionAddress)> {
        let own = self.holds().contains(period).then_some((self.stopping.is_some(), self.me));
        #[cfg(test)]
        if planted(Defect::EverybodyPublishes) {
            return own.into_iter().collect();
        }
        let others = self.peers.iter().filter_map(|(member, peer)| {
            let record = peer.record().filter(|record| peer.is_alive() && record.holds.contains(period))?;
            Some((record.stopping, *member))
        });
        let is_publisher = |member: &OnionAddress| self.roster.role(member) == Some(Role::Publisher);
        own.into_iter().chain(others).filter(|(_, member)| is_publisher(member)).collect()
    }

    /// The publishers of a period that live, the first of them first.
    pub(super) fn order(&self, period: &Period) -> Vec<OnionAddress> {
        in_order(period, &self.candidates(period))
    }

    /// The latest second of a revision that is believed. That is not far ahead of this node's clock, unless directories have
    /// shown that they do have something from there.
    fn believable(&self, period: &Period) -> u64 {
        let wall = self.wall / 1_000;
        let known = self.publishing.get(period).map_or(0, |publishing| publishing.known);
        wall.saturating_add(MAX_LEAD.max(known.saturating_sub(wall).saturating_mul(KNOWN_LEAD)))
    }

    /// What directories have: of all that publishers say they have uploaded, the one with the latest revision.
    pub(super) fn latest(&self, period: &Period) -> Option<(OnionAddress, Publication)> {
        let most = self.believable(period);
        let own = self.publishing.get(period).and_then(|publishing| publishing.own.as_ref());
        let own = own.map(|publication| (self.me, publication));
        let others = self.peers.iter().filter_map(|(member, peer)| {
            let publications = &peer.record()?.publications;
            Some((*member, publications.iter().find(|publication| publication.period == *period)?))
        });
        own.into_iter()
            .chain(others)
            .filter(|(member, _)| self.roster.role(member) == Some(Role::Publisher))
            .filter(|(_, publication)| publication.at <= most)
            .max_by_key(|(member, publication)| (publication.at, *member))
            .map(|(member, publication)| (member, publication.clone()))
    }

    /// Whether a publication lists what is to be listed.
    fn satisfies(&mut self, publication: &Publication) -> bool {
        let version = self.listed.version;
        let fresh = publication.at.saturating_add(PUBLICATION_LIFE.as_secs()) >= self.wall / 1_000;
        let known = self.publishing.get(&publication.period).and_then(|publishing| publishing.compared.as_ref());
        if let Some((_, _, same)) = known.filter(|(at, of, _)| *at == version && of == publication) {
            return fresh && *same;
        }
        let merged = self.merged_without(&publication.left_out);
        let set = listing::set_hash(&publication.period, &merged, publication.rotation, &self.roster);
        let same = publication.set == set;
        if let Some(publishing) = self.publishing.get_mut(&publication.period) {
            publishing.compared = Some((version, publication.clone(), same));
        }
        fresh && same
    }

    /// Which version of what was to be listed until a moment ago a publication lists, as far as that was so when it became
    /// known: a member whose points change all the time must not make everybody doubt whoever publishes.
    fn recognise(&mut self, publication: &Publication) -> Option<u64> {
        let known = self.publishing.get(&publication.period).and_then(|publishing| publishing.recognised.as_ref());
        if let Some((_, version)) = known.filter(|(of, _)| of == publication) {
            return *version;
        }
        let lists = |members: &BTreeMap<_, _>| {
            let merged = self.merge_without(members.clone(), &publication.left_out);
            listing::set_hash(&publication.period, &merged, publication.rotation, &self.roster) == publication.set
        };
        let lately = |until: Duration| self.now.saturating_sub(until) < UPLOAD;
        let version = self.listed.before.iter().rev().find(|(_, members, until)| lately(*until) && lists(members));
        let version = version.map(|(version, ..)| *version);
        if let Some(publishing) = self.publishing.get_mut(&publication.period) {
            publishing.recognised = Some((publication.clone(), version));
        }
        version
    }

    /// Whether, for every period, directories have what is to be listed, or nothing is.
    pub(super) fn is_published(&self) -> bool {
        #[cfg(test)]
        if planted(Defect::RetireBeforePublish) {
            return true;
        }
        self.listed.published
    }

    /// What this node has published, for its record.
    pub(super) fn own_publications(&self) -> Vec<Publication> {
        let own = self.publishing.values().filter_map(|publishing| publishing.own.clone());
        own.take(MAX_PUBLICATIONS).collect()
    }

    /// Who has published a period last, how long ago, and whether it is what is to be listed.
    pub(super) fn published(&self, period: &Period) -> (Option<OnionAddress>, Option<Duration>, bool) {
        let Some(publishing) = self.publishing.get(period) else { return (None, None, false) };
        let by = self.latest(period).map(|(member, _)| member);
        let age = publishing.published.map(|at| self.now.saturating_sub(at));
        (by, age, publishing.unsatisfied.is_none())
    }

    /// Whether the latest descriptor of some period leaves this node out.
    pub(super) fn is_left_out(&self) -> bool {
        let latest = |view: &PeriodView| self.latest(&view.period);
        self.view.periods.iter().filter_map(latest).any(|(_, publication)| publication.left_out.contains(&self.me))
    }
}

impl Publishing {
    fn may_upload(&self, now: Duration) -> bool {
        #[cfg(test)]
        if planted(Defect::NoUploadLimit) {
            return true;
        }
        if self.failures > 0 && self.retry.is_some_and(|retry| now < retry) {
            return false;
        }
        let Some(last) = self.uploads.back() else { return true };
        if self.urgent.is_some() {
            let lately = self.uploads.iter().filter(|at| now.saturating_sub(**at) < UPLOAD).count();
            return now.saturating_sub(*last) >= URGENT_UPLOAD && lately < URGENT_UPLOADS;
        }
        // What no directory took is nothing that they are burdened with.
        self.failures > 0 || now.saturating_sub(*last) >= UPLOAD
    }
}

/// Those who leave come last.
fn in_order(period: &Period, candidates: &[(bool, OnionAddress)]) -> Vec<OnionAddress> {
    let bytes = listing::period_bytes(period);
    let mut order = candidates.to_vec();
    order.sort_by_cached_key(|(stopping, member)| (*stopping, listing::score(b"publisher", &bytes, member)));
    order.into_iter().map(|(_, member)| member).collect()
}

#[cfg(test)]
use super::planted::{Defect, planted};
