//! Support for tests and demonstrations of programs that use this library.
//!
//! Nothing here belongs in a program that people rely on: the private Tor network runs on one machine and
//! hides nothing from anybody.

use zeroize::Zeroizing;

use crate::identity::Identity;
use crate::network::Period;

pub mod bench;
#[cfg(feature = "messenger")]
pub mod fault {
    //! Places at which the environment variable `HCP_FAULT` makes a process kill itself: `NAME:COUNT`, at the passage of
    //! that number. What follows must be as if somebody had pulled the plug.

    pub use crate::messenger::fault::POINTS;
}
pub mod fuzz;
mod simulator;
#[cfg(feature = "tor")]
mod socks;
#[cfg(all(feature = "tor", unix))]
mod tor_network;

pub use self::simulator::{Report, Simulation, SimulationError};
#[cfg(feature = "tor")]
pub use self::socks::{SocksError, socks_connect, socks_connect_isolated};
#[cfg(all(feature = "tor", unix))]
pub use self::tor_network::{
    ControlError, DescriptionError, PrivateTorDescription, PrivateTorNetwork, PrivateTorNetworkBuilder, StartError,
    StartEvent, TESTNET_VARIABLE, TorClientProcess,
};

/// The secret scalar with which `service` signs in `period`, for tests that look for it where it must not be.
pub fn blinded_secret_scalar(service: &Identity, period: Period) -> Zeroizing<[u8; 32]> {
    crate::identity::blinded::blinded_secret_scalar(service, period.number, period.length)
}
