//! When contacts are dialled: at once, then after pauses that grow, with jitter.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rand::RngExt;
use rand::rngs::StdRng;

use crate::identity::OnionAddress;

/// The first pause after a failed attempt, and after a session that ended.
const BACKOFF_FIRST: Duration = Duration::from_secs(2);
/// The longest pause.
const BACKOFF_MAX: Duration = Duration::from_secs(15 * 60);

/// Who is to be dialled, and when.
#[derive(Debug, Default)]
pub(super) struct Dialling {
    wanted: BTreeMap<OnionAddress, Dial>,
}

#[derive(Debug)]
struct Dial {
    failures: u32,
    /// An attempt is on its way; there is never a second one beside it.
    attempt: bool,
    /// When to try next; `None` while there is a link.
    next: Option<Instant>,
}

impl Dialling {
    /// Wants a session with somebody, or none any more.
    pub(super) fn want(&mut self, address: OnionAddress, wanted: bool, now: Instant) {
        if !wanted {
            self.wanted.remove(&address);
            return;
        }
        self.wanted.entry(address).or_insert(Dial { failures: 0, attempt: false, next: Some(now) });
    }

    /// Forgets everybody: this side is offline.
    pub(super) fn clear(&mut self) {
        self.wanted.clear();
    }

    /// Dials somebody as soon as possible: the user asks for it.
    pub(super) fn hurry(&mut self, address: &OnionAddress, now: Instant) {
        if let Some(dial) = self.wanted.get_mut(address) {
            dial.failures = 0;
            dial.next = dial.next.map(|_| now);
        }
    }

    /// The attempt to reach somebody is over, whatever came of it.
    pub(super) fn attempted(&mut self, address: &OnionAddress) {
        if let Some(dial) = self.wanted.get_mut(address) {
            dial.attempt = false;
        }
    }

    /// There is a link with somebody, whoever dialled.
    pub(super) fn connected(&mut self, address: &OnionAddress) {
        if let Some(dial) = self.wanted.get_mut(address) {
            dial.next = None;
        }
    }

    /// The last link with somebody is gone, or an attempt to make one has failed. `useful`: they have talked as contacts for
    /// a while.
    pub(super) fn disconnected(&mut self, address: &OnionAddress, useful: bool, now: Instant, rng: &mut StdRng) {
        if let Some(dial) = self.wanted.get_mut(address) {
            let pause = BACKOFF_FIRST.saturating_mul(2u32.saturating_pow(dial.failures)).min(BACKOFF_MAX);
            dial.failures = if useful { 0 } else { dial.failures.saturating_add(1) };
            let pause = if useful { BACKOFF_FIRST } else { pause };
            dial.next = Some(now + pause.mul_f64(rng.random_range(0.5..1.0)));
        }
    }

    /// Takes those who are due, who count as being dialled from now on.
    pub(super) fn due(&mut self, now: Instant) -> Vec<OnionAddress> {
        let mut due = Vec::new();
        for (address, dial) in &mut self.wanted {
            if !dial.attempt && dial.next.is_some_and(|at| at <= now) {
                dial.attempt = true;
                due.push(*address);
            }
        }
        due
    }

    /// When the next one is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.wanted.values().filter(|dial| !dial.attempt).filter_map(|dial| dial.next).min()
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;
    use crate::identity::Identity;

    #[test]
    fn pauses_grow_to_their_limit_and_start_anew_after_a_success() {
        let (address, mut rng) = (Identity::from_seed(&[1; 32]).address(), StdRng::seed_from_u64(1));
        let (mut dialling, mut now) = (Dialling::default(), Instant::now());
        dialling.want(address, true, now);
        let mut pauses = Vec::new();
        for _ in 0..14 {
            assert_eq!(dialling.due(now), [address]);
            assert!(dialling.due(now).is_empty() && dialling.next().is_none(), "one attempt at a time");
            dialling.attempted(&address);
            dialling.disconnected(&address, false, now, &mut rng);
            let next = dialling.next().unwrap();
            pauses.push(next - now);
            now = next;
        }
        assert!(pauses[0] <= BACKOFF_FIRST && pauses[13] >= BACKOFF_MAX / 2 && pauses[13] <= BACKOFF_MAX);
        dialling.connected(&address);
        assert!(dialling.due(now).is_empty());
        dialling.disconnected(&address, true, now, &mut rng);
        assert!(dialling.next().unwrap() - now <= BACKOFF_FIRST);
        dialling.disconnected(&address, false, now, &mut rng);
        dialling.hurry(&address, now);
        assert_eq!(dialling.due(now), [address]);
        dialling.want(address, false, now);
        assert_eq!(dialling.next(), None);
    }
}
