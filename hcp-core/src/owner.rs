//! The owner's work, offline, and what of it a node holds: a service runs on nodes none of which has its identity.
//!
//! A node makes a seed and a [`Request`]: public keys that come from the seed, signed by the node. The owner, who has the
//! service's identity and the [owner key](crate::identity::delegation::OwnerKey) on a machine that is no node, makes a [`Grant`]
//! of it: delegations by which the node speaks for the service, and, if the manifest names it as a publisher, certificates by
//! which it publishes the service's descriptor in some of Tor's time periods. The node's [`Holdings`] check it and keep it. No
//! secret travels, but the one from which publishers derive revision counters.
//!
//! **The horizon is the exposure.** What a node holds it can use until it runs out, and so can whoever seizes it; nothing takes
//! period material back. So grants are made for hours, renewed over any channel, or made in advance as a [`Schedule`] and
//! handed out one by one from a [`Stock`] by a warden, which itself can neither speak nor publish. [`Book::exposure`] says in time what a
//! seizure would give.
//!
//! ```
//! use hcp_core::identity::delegation::{OwnerKey, Validity};
//! use hcp_core::identity::manifest::{Contents, Manifest, Member, Role};
//! use hcp_core::identity::{Identity, LogKey, ReplicaSeed, RevisionSeed};
//! use hcp_core::owner::{
//!     Book, Holdings, Horizon, IdentitySigner, Owner, PeriodClock, Recipient, Request, certify,
//! };
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let (now, day) = (1_790_000_000, 86_400);
//! # let folder = tempfile::tempdir()?;
//! // The owner: an identity that stays offline, an owner key that it certifies, a manifest.
//! let service = Identity::generate();
//! let (signer, key, revisions) = (IdentitySigner::new(service.clone()), OwnerKey::generate(), RevisionSeed::generate());
//! let certificate = certify(&signer, key.public_key(), Validity::new(now, now + 365 * day)?).await?;
//! let node = Identity::generate();
//! let member = Member::new(node.address(), LogKey::generate().public_key(), Role::Publisher)?;
//! let manifest = Manifest::sign(&key, service.address(), Contents::new(1, vec![member])?)?;
//! let mut book = Book::new(service.address(), PeriodClock::TOR);
//!
//! // The node asks, for as many rounds and time periods as it likes to be served from one request.
//! let recipient = Recipient::new(service.address(), node.address(), ReplicaSeed::generate());
//! let mut holdings = Holdings::open(folder.path().join("grants"), recipient, now)?;
//! let request = holdings.request(&node, PeriodClock::TOR, 16, 10, now)?.to_bytes();
//!
//! // The owner grants a day, in two rounds; the node takes it in.
//! let requests = [Request::verify(service.address(), &request)?];
//! let owner = Owner { signer: &signer, key: &key, certificate: &certificate, revisions: &revisions, manifest: &manifest };
//! let grants = owner.grant(&mut book, &requests, Horizon::new(now, 24, 2)?).await?;
//! holdings.import(&grants[0].to_bytes(), now)?;
//! assert!(holdings.credentials(now).is_some());
//! assert!(book.exposure(now)[0].publishes_until.is_some());
//! # Ok(())
//! # }
//! ```

mod book;
#[cfg(feature = "testing")]
pub(crate) mod fuzz;
mod grant;
mod holdings;
mod issue;
mod period;
mod request;
mod signer;
mod stock;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod vectors;

pub use self::book::{Book, BookError, Exposure};
pub use self::grant::{Grant, GrantError, Recipient};
pub use self::holdings::{Holdings, HoldingsError, Import, ImportError, Left, Problem};
pub use self::issue::{Horizon, MakeError, Owner, Schedule, Step, certify};
pub use self::period::{PeriodClock, PeriodClockError};
pub use self::request::{Request, RequestError};
pub use self::signer::{IdentitySigner, ServiceSigner, SignError, SignRequest};
pub use self::stock::{Due, HandOut, Stock, StockError};
