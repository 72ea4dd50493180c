//! What this node's consensus says: the periods, the directories of each, the relays.

use std::collections::{BTreeSet, HashSet};
use std::sync::Weak;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use rand::seq::IteratorRandom as _;
use tokio::time::timeout;
use tor_hscrypto::Subcredential;
use tor_hscrypto::pk::HsIdKey;
use tor_hscrypto::time::TimePeriod;
use tor_linkspec::{HasRelayIds as _, RelayIdSet};
use tor_llcrypto::pk::ed25519::Ed25519Identity;
use tor_netdir::{DirEvent, NetDir, NetDirProvider, Relay, Timeliness};
use tor_relay_selection::{RelayExclusion, RelaySelector, RelayUsage};

use super::Shared;
use crate::network::onion::{DirectoryView, Period, PeriodView, RelayId};

/// Keeps the view and the subcredentials up to date until the service is gone.
pub(super) async fn watch(service: Weak<Shared>, mut events: BoxStream<'static, DirEvent>) {
    loop {
        // The consensus tells which periods count, but it also goes out of date.
        if matches!(timeout(LOOK_INTERVAL, events.next()).await, Ok(None)) {
            return;
        }
        let Some(service) = service.upgrade() else { return };
        service.look();
    }
}

impl Shared {
    /// Looks at the consensus; without a timely one, what was seen last stays.
    pub(super) fn look(&self) {
        let Ok(netdir) = self.directory.netdir(Timeliness::Timely) else { return };
        let periods: Vec<_> = netdir.hs_all_time_periods().iter().map(|params| params.time_period()).collect();
        self.context.set_subcredentials(subcredentials(&self.identity, &periods));
        let view = view(&netdir, &self.identity, &periods);
        self.view.send_if_modified(|old| {
            let changed = *old != view;
            *old = view;
            changed
        });
    }
}

fn view(netdir: &NetDir, identity: &HsIdKey, periods: &[TimePeriod]) -> DirectoryView {
    let of_period = |period: &TimePeriod| {
        let (blinded, _) = identity.compute_blinded_key(*period).ok()?;
        let directories = netdir.hs_dirs_upload(blinded.id(), *period).ok()?;
        // Sorted, so that two views of the same are equal.
        let directories: BTreeSet<_> = directories.filter_map(|relay| id_of(&relay)).collect();
        Some(PeriodView { period: own_period(period), directories: directories.into_iter().collect() })
    };
    DirectoryView { periods: periods.iter().filter_map(of_period).collect() }
}

/// The subcredentials of these periods, of the ones before and of the ones after: a client's clock or consensus may lag, and a
/// descriptor that it found before a period ended stays good for hours.
fn subcredentials(identity: &HsIdKey, periods: &[TimePeriod]) -> Vec<Subcredential> {
    let around = |period: &TimePeriod| [period.prev(), Some(*period), period.next()];
    let all: HashSet<TimePeriod> = periods.iter().flat_map(around).flatten().collect();
    all.into_iter().filter_map(|period| Some(identity.compute_blinded_key(period).ok()?.1)).collect()
}

/// A relay that can be an introduction point, none of `not`.
pub(super) fn choose(directory: &dyn NetDirProvider, not: &HashSet<RelayId>) -> Option<RelayId> {
    let netdir = directory.netdir(Timeliness::Timely).ok()?;
    let mut excluded = RelayIdSet::new();
    excluded.extend(not.iter().map(|relay| tor_linkspec::RelayId::from(arti_id(*relay))));
    let selector = RelaySelector::new(RelayUsage::new_intro_point(), RelayExclusion::exclude_identities(excluded));
    let mut random = rand::rng();
    if let (Some(relay), _) = selector.select_relay(&mut random, &netdir) {
        return id_of(&relay);
    }
    // A young network may have no stable relay left. On the public one there are thousands, so that this is never reached.
    netdir.relays().filter_map(|relay| id_of(&relay)).filter(|relay| !not.contains(relay)).choose(&mut random)
}

/// Whether the consensus lists the relay, and its keys are known; without a timely consensus, every relay counts as listed.
pub(super) fn is_listed(directory: &dyn NetDirProvider, relay: RelayId) -> bool {
    directory.netdir(Timeliness::Timely).map_or(true, |netdir| self::relay(&netdir, relay).is_some())
}

/// The relay, when it is listed and its keys are known.
pub(super) fn relay(netdir: &NetDir, relay: RelayId) -> Option<Relay<'_>> {
    netdir.by_id(&arti_id(relay))
}

fn arti_id(relay: RelayId) -> Ed25519Identity {
    Ed25519Identity::new(relay.0)
}

fn id_of(relay: &Relay<'_>) -> Option<RelayId> {
    Some(RelayId(relay.ed_identity()?.as_bytes().try_into().ok()?))
}

/// Arti's word for a period; none for one whose length no clock can count.
pub(super) fn arti_period(period: Period) -> Option<TimePeriod> {
    let fits = period.length > 0 && period.length.checked_mul(60).is_some();
    fits.then(|| TimePeriod::from_parts(period.length, period.number, period.offset))
        .filter(|period| period.range().is_ok())
}

pub(super) fn own_period(period: &TimePeriod) -> Period {
    Period { number: period.interval_num(), length: period.length().as_minutes(), offset: period.epoch_offset_in_sec() }
}

/// How often the consensus is looked at when nothing says that it changed.
const LOOK_INTERVAL: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use tor_hscrypto::pk::HsId;

    use super::*;
    use crate::identity::Identity;

    #[test]
    fn periods_are_the_same_in_both_words() {
        let period = Period { number: 20_000, length: 1_440, offset: 43_200 };
        let arti = arti_period(period).unwrap();
        assert_eq!(own_period(&arti), period);
        let start = arti.range().unwrap().start.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        assert_eq!(start, period.start());
        assert!(arti_period(Period { length: 0, ..period }).is_none());
        assert!(arti_period(Period { length: u32::MAX, ..period }).is_none());
        assert!(arti_period(Period { number: u64::MAX, ..period }).is_none());
    }

    #[test]
    fn of_two_periods_four_subcredentials_are_known() {
        let address = Identity::from_seed(&[1; 32]).address();
        let identity = HsIdKey::try_from(HsId::from(*address.public_key())).unwrap();
        let period = arti_period(Period { number: 20_000, length: 1_440, offset: 43_200 }).unwrap();
        assert_eq!(subcredentials(&identity, &[period]).len(), 3);
        assert_eq!(subcredentials(&identity, &[period, period.next().unwrap()]).len(), 4);
    }
}
