//! Places at which a test can end the process, as if somebody had pulled the plug.
//!
//! The environment variable `HCP_FAULT` names one, and at which passage: `operation stored, not committed:3`.
//! Without the feature `testing` nothing of this is compiled.

/// Every place, so that a test can try each and see that each was reached.
#[cfg(feature = "testing")]
pub const POINTS: &[&str] = &[
    "request queued",
    "contact accepted, not committed",
    "contact accepted",
    "standing taken, not committed",
    "standing committed, not sent",
    "message queued, not committed",
    "message queued",
    "operations placed, not committed",
    "operations placed, not sent",
    "operation stored, not committed",
    "operation committed, not acknowledged",
    "acknowledgement stored, not committed",
    "acknowledgement committed",
    "message cancelled, not committed",
    "message cancelled",
    "lost operations asked for, not given back",
    "lost operation stored, not committed",
    "lost operation committed, nothing more asked for",
    "backup without its key",
    "backup complete, not told",
    "file offered, not committed",
    "file offered",
    "file accepted, not committed",
    "file accepted",
    "serving committed, nothing sent",
    "piece sent",
    "piece held there, not noted",
    "piece written, not synced",
    "piece synced, not committed",
    "piece committed",
    "file complete, not moved",
    "file moved, not committed",
    "file complete, not noted",
    "transfer ended",
];

/// A place that the process passes.
#[cfg(feature = "testing")]
pub(crate) fn point(name: &str) {
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    static WANTED: LazyLock<Option<(String, u64)>> = LazyLock::new(|| {
        let wanted = std::env::var("HCP_FAULT").ok()?;
        let (name, count) = wanted.rsplit_once(':')?;
        Some((name.to_owned(), count.parse().ok()?))
    });
    static PASSED: AtomicU64 = AtomicU64::new(0);

    debug_assert!(POINTS.contains(&name), "{name} is missing from the list of points");
    if let Some((wanted, count)) = &*WANTED
        && wanted == name
        && PASSED.fetch_add(1, Ordering::Relaxed) + 1 == *count
    {
        // Nothing may run any more, not even what runs at an orderly end.
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
}

/// A place that the process passes.
#[cfg(not(feature = "testing"))]
pub(crate) fn point(_name: &str) {}
