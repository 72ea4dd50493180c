//! Runs `hcp-irc` nodes and `hcp-chat` daemons as processes, and scripted people who talk through them: for the demos, and
//! for the tests that kill.

pub mod bench_failover;
pub mod chat;
mod cluster;
pub mod failover;
pub mod faults;
mod node;
pub mod run;
mod timeline;
mod user;

pub use self::cluster::{Cluster, Launch, Material, Place};
pub use self::node::{NodeProcess, NodeState, Published, Takeover};
pub use self::timeline::{Timeline, complain, percentile, seconds};
pub use self::user::{Dial, Heard, User, UserState, dial_local, dial_socks, dial_socks_isolated};

/// What goes wrong here is told to a person.
pub type Result<T, E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;
