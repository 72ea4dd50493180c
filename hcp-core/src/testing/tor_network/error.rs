//! Why a private Tor network or a client of it did not start.

use std::path::PathBuf;
use std::time::Duration;

use super::description::DescriptionError;
use crate::error::ErrorKind;

/// Why a private Tor network or a client of it did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The program does not exist.
    #[error("`{program}` was not found: install Tor 0.4.8 or later (on Debian and Ubuntu: apt-get install tor)")]
    TorMissing {
        /// The program that was looked for.
        program: String,
    },
    /// The program is too old, or is not Tor.
    #[error("`{program}` is {found}: install Tor 0.4.8 or later (see https://support.torproject.org/apt/)")]
    TorTooOld {
        /// The program that was asked.
        program: String,
        /// What it says it is.
        found: String,
    },
    /// A program could not be run or failed.
    #[error("`{program}` failed: {problem}")]
    Failed {
        /// The program.
        program: String,
        /// What it said last, on one line.
        problem: String,
    },
    /// The ports that were free a moment ago were taken, again and again.
    #[error("other programs kept taking the ports meant for the network: try again")]
    PortsTaken,
    /// The time period that was asked for cannot be had.
    #[error("a time period of {} s cannot be had: 24 times a whole divisor of a day of at least 20 s, and whole minutes", length.as_secs())]
    TimePeriod {
        /// What was asked for.
        length: Duration,
    },
    /// A file or directory could not be written or read.
    #[error("{} cannot be used", path.display())]
    Storage {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The network or client did not get ready in time.
    #[error("not ready after {} s: {state}", deadline.as_secs())]
    TimedOut {
        /// The deadline that passed.
        deadline: Duration,
        /// How far it got.
        state: String,
    },
    /// The description of a running network could not be used.
    #[error("the description of the running network cannot be used")]
    Description(#[from] DescriptionError),
    /// The runtime shut down during the start.
    #[error("the runtime shut down during the start")]
    Cancelled,
}

impl StartError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::TorMissing { .. } | Self::TorTooOld { .. } | Self::TimePeriod { .. } => ErrorKind::InvalidInput,
            Self::Failed { .. } => ErrorKind::Internal,
            Self::PortsTaken => ErrorKind::InUse,
            Self::Storage { .. } => ErrorKind::Storage,
            Self::TimedOut { .. } => ErrorKind::TimedOut,
            Self::Description(e) => e.kind(),
            Self::Cancelled => ErrorKind::Closed,
        }
    }
}
