//! What the parts of a replicated onion service say to each other: time periods, introduction points, and what a node needs to
//! sign descriptors. Free of Arti, so that deciding can be simulated without Tor.
//!
//! Secrets here are overwritten when they are dropped, and nothing prints them.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use ed25519_dalek::SigningKey;
use futures::future::BoxFuture;
use tokio::sync::{mpsc, watch};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::MAX_DISCOVERY_CLIENTS;
use crate::identity::DiscoveryPublicKey;

/// A time period of onion services (rend-spec-v3, section 2.2.1): descriptors and blinded keys change with each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Period {
    /// Counts periods since the epoch.
    pub number: u64,
    /// The length of each, in minutes; 1,440 on the public network.
    pub length: u32,
    /// When the first one began, in seconds since the epoch; half a day on the public network.
    pub offset: u32,
}

impl Period {
    /// The first second, in Unix seconds.
    pub fn start(&self) -> u64 {
        self.number.saturating_mul(u64::from(self.length) * 60).saturating_add(u64::from(self.offset))
    }

    /// The first second of the next one, in Unix seconds.
    pub fn end(&self) -> u64 {
        self.start().saturating_add(u64::from(self.length) * 60)
    }

    /// The one that follows; none after the last that can be counted.
    pub fn next(&self) -> Option<Self> {
        Some(Self { number: self.number.checked_add(1)?, ..*self })
    }

    /// The one before; none before the first.
    pub fn previous(&self) -> Option<Self> {
        Some(Self { number: self.number.checked_sub(1)?, ..*self })
    }
}

/// A relay, by its ed25519 identity.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct RelayId(pub(crate) [u8; 32]);

/// An introduction point, by the public half of its session id key (KP_hs_ipt_sid).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct PointId(pub(crate) [u8; 32]);

/// What everybody may know of an introduction point, and a descriptor lists.
///
/// The relay's own keys and addresses are not part of it: whoever lists the point takes them from its own consensus.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct PointDescription {
    pub(crate) relay: RelayId,
    pub(crate) id: PointId,
    /// The service's ntor key there (KP_hss_ntor).
    pub(crate) ntor: [u8; 32],
}

/// The secrets of an introduction point: the seed of its session id key, and its ntor key.
///
/// Whoever holds them can establish the point in the node's place and read what is introduced there; nothing of the service's
/// identity follows from them.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub(crate) struct PointSecrets {
    sid_seed: [u8; 32],
    ntor: [u8; 32],
}

impl PointSecrets {
    pub(crate) const LEN: usize = 64;

    /// Takes both secrets, each 32 bytes from a source of randomness.
    pub(crate) fn from_bytes(bytes: &[u8; Self::LEN]) -> Self {
        let mut secrets = Self { sid_seed: [0; 32], ntor: [0; 32] };
        secrets.sid_seed.copy_from_slice(&bytes[..32]);
        secrets.ntor.copy_from_slice(&bytes[32..]);
        secrets
    }

    /// For a holder that may establish the point in this node's place.
    pub(crate) fn to_bytes(&self) -> Zeroizing<[u8; Self::LEN]> {
        let mut bytes = Zeroizing::new([0; Self::LEN]);
        bytes[..32].copy_from_slice(&self.sid_seed);
        bytes[32..].copy_from_slice(&self.ntor);
        bytes
    }

    /// The seed (RFC 8032) of the session id key.
    pub(crate) fn sid_seed(&self) -> &[u8; 32] {
        &self.sid_seed
    }

    /// The ntor key, an X25519 secret.
    pub(crate) fn ntor(&self) -> &[u8; 32] {
        &self.ntor
    }

    /// The point's id.
    pub(crate) fn id(&self) -> PointId {
        PointId(SigningKey::from_bytes(&self.sid_seed).verifying_key().to_bytes())
    }

    /// The public half of the ntor key.
    pub(crate) fn ntor_public(&self) -> [u8; 32] {
        curve25519_dalek::MontgomeryPoint::mul_base_clamped(self.ntor).to_bytes()
    }

    /// What a descriptor lists when the point is at `relay`.
    pub(crate) fn describe(&self, relay: RelayId) -> PointDescription {
        PointDescription { relay, id: self.id(), ntor: self.ntor_public() }
    }
}

/// What a publisher needs to sign the descriptors of one period: a key of its own, and the blinded key's certificate on it.
pub(crate) struct PeriodMaterial {
    pub(crate) period: Period,
    /// The seed (RFC 8032) of the descriptor-signing key.
    pub(crate) signing_seed: Zeroizing<[u8; 32]>,
    /// The certificate (cert-spec, type 8) that the period's blinded key made, as it stands in descriptors.
    pub(crate) certificate: Vec<u8>,
    /// All publishers of a service derive revision counters from the same secret, so that the later upload counts.
    pub(crate) revision_secret: Zeroizing<[u8; 32]>,
}

/// The ring of one period, as this node's consensus has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PeriodView {
    pub(crate) period: Period,
    /// The directories that hold the service's descriptor, in no order.
    pub(crate) directories: Vec<RelayId>,
}

/// The rate of introductions that relays pass on to each introduction point of a service on Tor (rend-spec-v3, section 3.1.1.1).
///
/// What is above it a relay refuses, if it is of a version that can, and clients try another point. By default 25 a second and 200
/// at once, which is what C tor takes for a service that limits them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IntroductionRate {
    pub(crate) per_second: u16,
    pub(crate) burst: u16,
}

impl IntroductionRate {
    /// So many in a second on average, at least 1, and so many at once after a pause, at least as many as in a second; none when
    /// they are fewer.
    pub fn new(per_second: u16, burst: u16) -> Option<Self> {
        (per_second > 0 && burst >= per_second).then_some(Self { per_second, burst })
    }
}

impl Default for IntroductionRate {
    fn default() -> Self {
        Self { per_second: 25, burst: 200 }
    }
}

/// What this node's consensus says of the service: it changes with the consensus.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct DirectoryView {
    /// The periods in which descriptors are to be had now: the one that clients use, and perhaps another, which they used or will.
    pub(crate) periods: Vec<PeriodView>,
}

/// What one upload of a descriptor came to, directory by directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct UploadReport {
    /// They took it.
    pub(crate) accepted: Vec<RelayId>,
    /// They hold one that is as new or newer: another node's, or this node's clock lags.
    pub(crate) refused: Vec<RelayId>,
    /// They could not be reached in time, or answered something else.
    pub(crate) failed: Vec<RelayId>,
}

/// The mark of an introduction that was accepted (a hash of its encrypted part), by which a replay is known.
pub(crate) type Tag = [u8; 32];

/// An introduction point that is established; dropping it tears its circuit down.
pub(crate) struct Point {
    pub(crate) description: PointDescription,
    /// Turns true when the circuit has closed.
    pub(crate) closed: watch::Receiver<bool>,
    /// The marks of introductions accepted here, for whoever may succeed; bounded: what does not fit closes the point.
    pub(crate) accepted: mpsc::Receiver<Tag>,
    pub(crate) _guard: Box<dyn Send + Sync>,
}

/// Why an introduction point was not established.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum EstablishError {
    /// The consensus does not list the relay any more.
    #[error("the relay is not in the consensus")]
    NotListed,
    /// No circuit to the relay, or it refused, or did not answer in time.
    #[error("the relay could not be reached or refused")]
    Failed,
    /// The point has taken its share of introductions, or nobody remembers which ones it took: it must be given up.
    #[error("the introduction point has taken its share of introductions")]
    Spent,
}

/// What a relay says of an introduction point that somebody announces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Checked {
    /// Somebody has established it there.
    There,
    /// Nobody has.
    NotThere,
    /// It could not be asked, did not answer in time, or said something else.
    Unknown,
}

/// One upload: the same points at all of a period's directories, or a subset of its own for each.
#[derive(Debug)]
pub(crate) struct Upload {
    pub(crate) material: PeriodMaterial,
    /// The revision is that of this second since 1970, or of a later one: another publisher's clock may lead this node's.
    pub(crate) not_before: u64,
    /// Who can read it, 1 to [`MAX_DISCOVERY_CLIENTS`] that differ; none when everybody can who knows the address.
    pub(crate) clients: Option<Arc<[DiscoveryPublicKey]>>,
    /// What to list at which directories; a directory stands in at most one of them, none is listed for those of no other.
    pub(crate) listings: Vec<(Vec<RelayId>, Vec<PointDescription>)>,
}

/// How many points fit into a descriptor beside what lets so many clients read it; none when everybody can.
///
/// From the lengths of what is in the part that is encrypted for those who know the address, which is padded to a multiple of
/// 10 KiB: three times that is what the 50,000 bytes of a descriptor have room for.
pub(crate) fn max_points(clients: Option<usize>) -> usize {
    let clients = clients.unwrap_or(1).min(MAX_DISCOVERY_CLIENTS).next_multiple_of(CLIENT_PADDING);
    (MIDDLE - HEADERS).saturating_sub(clients * PER_CLIENT).div_euclid(PER_POINT).min(MAX_POINTS)
}

/// What C tor's clients accept (rend-spec-v3, section 2.5.2.2).
pub(crate) const MAX_POINTS: usize = 20;
/// Points that a node has up at once: its own, and those that it took over from others. A point that has seen all its
/// introductions costs 1.2 MB, so that a flood at all of them costs 48 MB.
pub(crate) const MAX_ESTABLISHED: usize = 40;
/// Made-up clients fill the number up to a multiple of this, as in C tor.
pub(crate) const CLIENT_PADDING: usize = 16;
const MIDDLE: usize = 30 * 1024;
/// What is in it beside clients and points.
const HEADERS: usize = 600;
const PER_CLIENT: usize = 80;
/// With an IPv6 address.
const PER_POINT: usize = 1_100;

/// What deciding asks of Tor. On Tor it is `network::tor::onion`; in tests something in memory.
pub(crate) trait OnionBackend: Send + Sync + 'static {
    /// What the consensus says now, and whenever that changes.
    fn view(&self) -> watch::Receiver<DirectoryView>;

    /// A relay fit to be an introduction point, at random, none of `not`; none when there is no other.
    fn choose(&self, not: &HashSet<RelayId>) -> Option<RelayId>;

    /// Whether the consensus lists the relay.
    fn is_listed(&self, relay: RelayId) -> bool;

    /// Establishes a point; within a deadline of the backend's. Introductions whose mark is in `seen` are not answered. It
    /// closes after a random number of introductions in the life of its keys, 16,384 to 32,768 on the public network.
    ///
    /// `still` is asked when the circuit to the relay is there, right before the point is requested: it fails when that says
    /// no, as it is too late.
    fn establish(
        &self,
        relay: RelayId,
        secrets: PointSecrets,
        seen: Vec<Tag>,
        still: Box<dyn FnOnce() -> bool + Send>,
    ) -> BoxFuture<'static, Result<Point, EstablishError>>;

    /// Asks a relay whether a point is there; within a deadline of the backend's.
    fn check(&self, relay: RelayId, point: PointId) -> BoxFuture<'static, Checked>;

    /// Uploads; within a deadline of the backend's. A revision is later than that of every earlier upload of this process.
    fn upload(&self, upload: Upload) -> BoxFuture<'static, UploadReport>;

    /// What has happened since the launch.
    fn counts(&self) -> OnionCounts;
}

/// What has happened at a service since its launch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct OnionCounts {
    /// Introductions that were new.
    pub(crate) introductions: u64,
    /// Introductions that were there before.
    pub(crate) replays: u64,
    /// Introductions that made room for newer ones before anybody looked at them.
    pub(crate) displaced: u64,
    /// Introductions that made no sense.
    pub(crate) malformed: u64,
    /// Clients that were met.
    pub(crate) met: u64,
    /// Clients that could not be met.
    pub(crate) missed: u64,
}

impl fmt::Debug for RelayId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RelayId([redacted])")
    }
}

impl fmt::Debug for PointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PointId([redacted])")
    }
}

impl fmt::Debug for PointDescription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PointDescription([redacted])")
    }
}

impl fmt::Debug for PointSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PointSecrets([redacted])")
    }
}

impl fmt::Debug for PeriodMaterial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeriodMaterial").field("period", &self.period).finish_non_exhaustive()
    }
}
