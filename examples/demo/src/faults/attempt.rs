//! One connect: who tried, when, and what came of it.

use std::time::Duration;

use serde::Serialize;

/// Who connects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A stock Arti client.
    Arti,
    /// Debian's C tor.
    Tor,
    /// HCP's own dialler.
    Hcp,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Arti, Self::Tor, Self::Hcp];

    /// What it is called in tables.
    pub fn title(self) -> &'static str {
        match self {
            Self::Arti => "Arti",
            Self::Tor => "C tor",
            Self::Hcp => "HCP",
        }
    }

    /// Whether it is a client that knows nothing of replicas.
    pub fn is_stock(self) -> bool {
        self != Self::Hcp
    }
}

/// What the client knew of the service before the fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Knowledge {
    /// Nothing: it fetches the descriptor.
    Fresh,
    /// The descriptor, and nothing else.
    Cached,
    /// A circuit to one of the nodes as well, which is perhaps the one that fails. Only our own dialler says what it does then.
    Connected,
}

/// What one connect came to.
#[derive(Clone, Debug, Serialize)]
pub struct Attempt {
    /// Who tried.
    pub kind: Kind,
    /// What it knew.
    pub knowledge: Knowledge,
    /// Which round of its case.
    pub round: usize,
    /// When it began, after the fault of its round.
    #[serde(serialize_with = "as_seconds")]
    pub begun: Duration,
    /// How long it took until the first bytes of the service came, or it failed.
    #[serde(serialize_with = "as_seconds")]
    pub took: Duration,
    /// The node that answered, from 1, as far as the nodes' own words tell.
    pub node: Option<usize>,
    /// Why it failed.
    pub error: Option<String>,
}

pub(super) fn as_seconds<S: serde::Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64((duration.as_secs_f64() * 1000.0).round() / 1000.0)
}
