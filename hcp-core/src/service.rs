//! One onion address, many nodes: who lists whom, who publishes, who takes over from whom.
//!
//! Every node keeps introduction points of its own. The nodes tell each other of them (`gossip`), one of them uploads a
//! descriptor that lists them all, and when a node falls silent the others list it no more and establish its points in its
//! place. Deciding all that is `machine`'s, which has neither I/O nor a clock nor randomness of its own and is simulated
//! with seeds (`simulation`); the numbers stand in `tuning`.
//!
//! `driver` joins it with Tor, the members' links and the owner's grants; [`ReplicatedService`] is what an application holds.
//! [`Warden`] hands out over sessions what an owner made in advance, and a node fetches it by itself.

mod clock;
mod driver;
pub(crate) mod gossip;
mod grants;
mod links;
pub(crate) mod machine;
mod probe;
mod replicated;
pub(crate) mod roster;
#[cfg(test)]
mod simulation;
mod status;
pub(crate) mod tuning;
pub(crate) mod warden;

pub use self::probe::PROBE_PROTOCOL;
#[cfg(feature = "testing")]
pub use self::replicated::Misbehaviour;
pub use self::replicated::{Gossip, LaunchError, Launched, ReplicatedService, ServiceOptions, Starter};
pub use self::status::{
    DescriptorStatus, LOW_HOURS, MemberStatus, ServiceCounts, ServiceEvent, ServiceProblem, ServiceStatus,
};
pub use self::warden::{WARDEN_PROTOCOL, Warden};

/// The protocol on which the members of a service tell each other how they stand; at their own addresses.
pub const PROTOCOL: &str = "hcp/service/1";
