//! What a dialler remembers of the services that it has reached: how far their owners have withdrawn delegations.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Delegation, DelegationError};
use crate::identity::OnionAddress;

/// The highest floor that was verified for each service; clones share it.
///
/// It remembers [`CAPACITY`](Self::CAPACITY) services and forgets the one that was not reached for longest; towards a
/// service that it does not know, a dialler relies on expiry. An application that keeps state [exports](Self::export)
/// it when it stops and [imports](Self::import) it when it starts. What is exported is a list of services that were
/// dialled: keep it as carefully as other traces of that.
#[derive(Clone, Default)]
pub struct SerialFloors(Arc<Mutex<Floors>>);

impl SerialFloors {
    /// How many services are remembered: some 400 KiB at the most, and more services than a node dials.
    pub const CAPACITY: usize = 4096;

    /// Knows nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The floor of `service`; 0, below which no serial is, when none is known.
    pub fn floor(&self, service: OnionAddress) -> u64 {
        self.lock().known.get(&service).map_or(0, |known| known.floor)
    }

    /// What is known, the service that was reached last at the end.
    pub fn export(&self) -> Vec<(OnionAddress, u64)> {
        let floors = self.lock();
        let mut known: Vec<_> =
            floors.known.iter().map(|(service, known)| (known.used, *service, known.floor)).collect();
        drop(floors);
        known.sort_unstable();
        known.into_iter().map(|(_, service, floor)| (service, floor)).collect()
    }

    /// Takes what was exported; a floor that is known already is raised, never lowered.
    pub fn import(&self, floors: impl IntoIterator<Item = (OnionAddress, u64)>) {
        for (service, floor) in floors {
            self.lock().raise(service, floor);
        }
    }

    /// Forgets the floor of `service`: for when its owner key was stolen, and the thief has raised the floor out of reach.
    pub fn forget(&self, service: OnionAddress) {
        self.lock().known.remove(&service);
    }

    /// Checks that a delegation of `service`, which was good once, is at `unix_now` (Unix seconds) still: its time has not
    /// ended, and nothing has withdrawn it since.
    ///
    /// # Errors
    /// [`DelegationError::Expired`], [`DelegationError::BelowFloor`].
    pub(crate) fn check(
        &self,
        service: OnionAddress,
        delegation: &Delegation,
        unix_now: u64,
    ) -> Result<(), DelegationError> {
        delegation.validity().check(unix_now, DelegationError::NotYetValid, DelegationError::Expired)?;
        if delegation.serial() < self.floor(service) {
            return Err(DelegationError::BelowFloor);
        }
        Ok(())
    }

    /// Refuses a delegation whose serial is below its own floor or the one known, and takes its floor otherwise.
    pub(super) fn admit(&self, service: OnionAddress, delegation: &Delegation) -> Result<(), DelegationError> {
        // One lock for both: of two delegations at once none slips past the floor of the other.
        let mut floors = self.lock();
        let known = floors.known.get(&service).map_or(0, |known| known.floor);
        if delegation.serial() < delegation.lowest_serial().max(known) {
            return Err(DelegationError::BelowFloor);
        }
        floors.raise(service, delegation.lowest_serial());
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Floors> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for SerialFloors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SerialFloors").field("services", &self.lock().known.len()).finish()
    }
}

#[derive(Default)]
struct Floors {
    known: HashMap<OnionAddress, Known>,
    /// Counts uses, for want of a clock.
    uses: u64,
}

struct Known {
    floor: u64,
    used: u64,
}

impl Floors {
    fn raise(&mut self, service: OnionAddress, floor: u64) {
        self.uses += 1;
        if let Some(known) = self.known.get_mut(&service) {
            known.floor = known.floor.max(floor);
            known.used = self.uses;
            return;
        }
        // Nothing is below 0: no need to remember it.
        if floor == 0 {
            return;
        }
        if self.known.len() >= SerialFloors::CAPACITY
            && let Some(oldest) = self.known.iter().min_by_key(|(_, known)| known.used).map(|(service, _)| *service)
        {
            self.known.remove(&oldest);
        }
        self.known.insert(service, Known { floor, used: self.uses });
    }
}
