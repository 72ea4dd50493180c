//! The two clocks of a node.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

/// CLOCK_BOOTTIME: goes on while the machine is suspended, and nobody can set it. Where a system has none, the monotonic clock.
pub(super) fn boottime() -> Duration {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let time = clock_gettime(ClockId::Boottime);
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    let time = clock_gettime(ClockId::Monotonic);
    // Neither is ever negative.
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Milliseconds since 1970.
pub(super) fn wall() -> u64 {
    u64::try_from(since_epoch().as_millis()).unwrap_or(u64::MAX)
}

/// Seconds since 1970.
pub(super) fn unix_now() -> u64 {
    since_epoch().as_secs()
}

fn since_epoch() -> Duration {
    // A clock before 1970 is as good as one that stands at it.
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
