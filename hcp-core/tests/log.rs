//! The replicated log as applications use it: nodes on the memory network under paused time, and what needs real disks and
//! processes.

#![allow(clippy::unwrap_used)]

#[path = "log/away.rs"]
mod away;
#[path = "log/checkpoints.rs"]
mod checkpoints;
#[path = "log/disks.rs"]
mod disks;
#[path = "log/full.rs"]
mod full;
#[path = "log/harness.rs"]
mod harness;
#[path = "log/kills.rs"]
mod kills;
#[path = "log/load.rs"]
mod load;
#[path = "log/manifests.rs"]
mod manifests;
#[path = "log/nodes.rs"]
mod nodes;
#[cfg(feature = "postgres")]
#[path = "log/postgres.rs"]
mod postgres;
#[path = "log/subscriptions.rs"]
mod subscriptions;
