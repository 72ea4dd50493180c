//! What a node holds of its owner's grants: by what it speaks for the service now, with what it publishes, for how long.
//!
//! Grants lie in a folder, one file each, written whole or not at all. A grant is taken in only when it is newer than all that
//! are held; older ones stay until their delegations have ended, since a newer one may begin later. What the owner has said in
//! one of members and of the floor counts beyond its end, so that nothing comes back from an older one which ends later: the
//! grant that says it stays, and is good for nothing else. Nothing that was taken in is lost by what is refused: a bad file is
//! named and left alone.
//!
//! Opening, importing and refreshing block on the disk.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::grant::{Grant, GrantError, GrantedRound, Recipient};
use super::period::PeriodClock;
use super::request::{Request, RequestError};
use crate::error::ErrorKind;
use crate::identity::delegation::{PublicKey, ReplicaCredentials};
use crate::identity::keyfile::{read_bounded, write_over};
use crate::identity::manifest::Manifest;
use crate::identity::{DiscoveryKey, Identity};
use crate::network::Period;
use crate::network::onion::PeriodMaterial;

/// The grants of one node, and what follows from them.
pub struct Holdings {
    recipient: Recipient,
    folder: PathBuf,
    /// The newest last.
    grants: Vec<Grant>,
    /// Those that were over when they were read: they count for the manifest, for the floor, and for what is newer.
    over: Vec<Grant>,
    problems: Vec<Problem>,
}

/// A file among the grants that is not one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file's name.
    pub file: String,
    /// What is wrong with it.
    pub error: GrantError,
}

/// How long what a node holds lasts without a further grant, in Unix seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Left {
    /// The first second in which it could not speak for the service; none when it cannot now.
    pub speaks_until: Option<u64>,
    /// The first second in which it would lack material of a period in which it has to publish; none when it lacks some now,
    /// or does not publish.
    pub publishes_until: Option<u64>,
}

/// What became of a grant that was good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Import {
    /// It is newer than all that were held, and is held now.
    Taken,
    /// It is held already.
    Held,
}

impl Holdings {
    /// The most grants that are held at a time: more than a warden that works hands out before one of them ends.
    pub const MAX_GRANTS: usize = 32;

    /// Reads the grants in `folder`, which is made if it is missing; of those that are over only the manifest and the floor.
    ///
    /// # Errors
    /// [`HoldingsError`] when the folder cannot be read or made. Files that are no grants are [`problems`](Self::problems).
    pub fn open(folder: impl Into<PathBuf>, recipient: Recipient, unix_now: u64) -> Result<Self, HoldingsError> {
        let folder = folder.into();
        make_private(&folder).map_err(HoldingsError)?;
        let mut holdings = Self { recipient, folder, grants: Vec::new(), over: Vec::new(), problems: Vec::new() };
        holdings.refresh(unix_now)?;
        Ok(holdings)
    }

    /// Looks at the folder again, where another process may have put a grant; says whether there is something new.
    ///
    /// # Errors
    /// [`HoldingsError`] when the folder cannot be read; what was held is still held.
    pub fn refresh(&mut self, unix_now: u64) -> Result<bool, HoldingsError> {
        let mut names: Vec<String> = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(HoldingsError)? {
            let name = entry.map_err(HoldingsError)?.file_name();
            if let Some(name) = name.to_str().filter(|name| name.ends_with(SUFFIX)) {
                names.push(name.to_owned());
            }
        }
        // The newest last, as the names have it; those that are too many are the oldest.
        names.sort_unstable();
        let newest = names.split_off(names.len().saturating_sub(Self::MAX_GRANTS));
        let (mut is_new, mut over, mut problems) = (false, Vec::new(), Vec::new());
        for name in newest {
            if self.grants.iter().any(|grant| file_name(grant.serial()) == name) {
                continue;
            }
            match self.read(&name, unix_now) {
                Ok(grant) if grant.is_over(unix_now) => over.push(grant),
                Ok(grant) => {
                    self.grants.push(grant);
                    is_new = true;
                }
                // Nobody is bound any more by what an owner key says whose time is over, which is nobody's fault; the clock
                // may be wrong, so the file stays.
                Err(GrantError::CertificateExpired) => {}
                Err(error) => problems.push(Problem { file: name, error }),
            }
        }
        self.grants.sort_unstable_by_key(Grant::serial);
        self.grants.dedup_by_key(|grant| grant.serial());
        self.grants.drain(..self.grants.len().saturating_sub(Self::MAX_GRANTS));
        self.over = over;
        self.problems = problems;
        Ok(is_new)
    }

    /// The same grants read anew, with what another process has put into the folder since.
    ///
    /// # Errors
    /// [`HoldingsError`] when the folder cannot be read.
    pub fn reopen(&self, unix_now: u64) -> Result<Self, HoldingsError> {
        Self::open(self.folder.clone(), self.recipient.clone(), unix_now)
    }

    /// Takes in a grant that was received, durably, and lets go of those whose delegations have ended.
    ///
    /// # Errors
    /// [`ImportError`]; what was held is still held.
    pub fn import(&mut self, bytes: &[u8], unix_now: u64) -> Result<Import, ImportError> {
        let grant = Grant::verify(&self.recipient, bytes, unix_now)?;
        let newest = self.newest_serial();
        if newest >= grant.serial() {
            let is_same = self.all().any(|held| held.to_bytes().as_slice() == bytes);
            return match (is_same, newest == grant.serial()) {
                (true, _) => Ok(Import::Held),
                (false, true) => Err(ImportError::NotNewer),
                (false, false) => Err(ImportError::Older),
            };
        }
        if self.grants.iter().filter(|grant| !has_ended(grant, unix_now)).count() >= Self::MAX_GRANTS {
            return Err(ImportError::Full);
        }
        write_over(&self.folder.join(file_name(grant.serial())), bytes).map_err(ImportError::Io)?;
        self.grants.push(grant);
        self.drop_ended(unix_now);
        Ok(Import::Taken)
    }

    /// Files in the folder that are named as grants are, and were none when they were looked at last.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// Whom the grants are for.
    pub fn recipient(&self) -> &Recipient {
        &self.recipient
    }

    /// The manifest that counts among those that came with the grants.
    pub fn manifest(&self) -> Option<&Manifest> {
        self.all().map(Grant::manifest).reduce(|best, next| if next.supersedes(best) { next } else { best })
    }

    /// Whose signature manifests of the service carry, by the newest grant.
    pub fn owner_key(&self) -> Option<PublicKey> {
        self.grants.last().map(|grant| grant.certificate().owner_key())
    }

    /// With what the node speaks for the service at `unix_now` (Unix seconds): the newest delegation whose time it is.
    ///
    /// New sessions are to be accepted with these. Those that began with earlier ones go on with them, lanes included.
    pub fn credentials(&self, unix_now: u64) -> Option<ReplicaCredentials> {
        let floor = self.floor(unix_now);
        let counts = |round: &GrantedRound| {
            let validity = round.delegation.validity();
            round.delegation.serial() >= floor && (validity.not_before()..=validity.not_after()).contains(&unix_now)
        };
        let (grant, round) = self.rounds().filter(|(_, round)| counts(round)).last()?;
        grant.credentials(&self.recipient.seed, round)
    }

    /// When [`credentials`](Self::credentials) next gives something else than now, if ever, in Unix seconds.
    pub fn next_change(&self, unix_now: u64) -> Option<u64> {
        let ends = self.rounds().map(|(_, round)| round.delegation.validity());
        let changes = ends.flat_map(|validity| [validity.not_before(), validity.not_after().saturating_add(1)]);
        changes.filter(|change| *change > unix_now).min()
    }

    /// The serial of the newest grant that is held, also when it is over; 0 when there is none.
    pub(crate) fn newest_serial(&self) -> u64 {
        self.all().map(Grant::serial).max().unwrap_or(0)
    }

    /// The key with which the node finds what only members find.
    pub(crate) fn discovery_key(&self) -> DiscoveryKey {
        self.recipient.seed.discovery_key()
    }

    /// What it needs to sign the descriptors of `period`; none when it was not granted any.
    pub(crate) fn material(&self, period: Period) -> Option<PeriodMaterial> {
        self.grants.iter().rev().find_map(|grant| grant.material(&self.recipient.seed, period))
    }

    /// How long it lasts from `unix_now` (Unix seconds) on.
    pub fn left(&self, unix_now: u64) -> Left {
        let floor = self.floor(unix_now);
        let mut until = unix_now;
        // In the order of serials times ascend too, unless an owner went back; then it is the shorter time.
        for (_, round) in self.rounds().filter(|(_, round)| round.delegation.serial() >= floor) {
            let validity = round.delegation.validity();
            if validity.not_before() <= until {
                until = until.max(validity.not_after().saturating_add(1));
            }
        }
        Left { speaks_until: (until > unix_now).then_some(until), publishes_until: self.publishes_until(unix_now) }
    }

    /// A request for what the node needs next, from the period on that `clock` says it is, signed with the node's identity.
    ///
    /// # Errors
    /// [`RequestError::TooMany`], and [`RequestError::ForeignNode`](RequestError) when `node` is not the recipient.
    pub fn request(
        &self,
        node: &Identity,
        clock: PeriodClock,
        session_keys: u16,
        periods: u16,
        unix_now: u64,
    ) -> Result<Request, RequestError> {
        if node.address() != self.recipient.node {
            return Err(RequestError::ForeignNode);
        }
        // One period earlier, for an owner whose clock is behind.
        let (first, _) = clock.needed(unix_now, unix_now);
        let first = first.previous().unwrap_or(first);
        // Numbers begin at the time, so that none comes again when the grants were lost with a disk.
        let number = self.rounds().map(|(_, round)| round.number.saturating_add(1)).max();
        let number = number.unwrap_or(0).max(unix_now);
        let (seed, service) = (&self.recipient.seed, self.recipient.service);
        Request::new(node, seed, service, (number, session_keys), (first, periods))
    }

    /// Those that are over as well.
    fn all(&self) -> impl Iterator<Item = &Grant> {
        self.over.iter().chain(&self.grants)
    }

    fn rounds(&self) -> impl Iterator<Item = (&Grant, &GrantedRound)> {
        self.grants.iter().flat_map(|grant| grant.rounds.iter().map(move |round| (grant, round)))
    }

    /// The highest floor of the delegations whose time has come: diallers who see one of them take no lower serial.
    fn floor(&self, unix_now: u64) -> u64 {
        self.all().filter_map(|grant| floor_of(grant, unix_now)).max().unwrap_or(0)
    }

    fn publishes_until(&self, unix_now: u64) -> Option<u64> {
        let clock = self.grants.last()?.clock;
        let has = |period: Period| self.grants.iter().any(|grant| grant.granted(period).is_some());
        let (first, last) = clock.needed(unix_now, unix_now);
        if !has(first) || !has(last) {
            return None;
        }
        let mut period = last;
        while let Some(next) = period.next().filter(|next| has(*next)) {
            period = next;
        }
        // The next one is wanted from the middle of the last one on.
        Some(period.end().saturating_sub(u64::from(period.length) * 30))
    }

    fn read(&self, name: &str, unix_now: u64) -> Result<Grant, GrantError> {
        let bytes = read_bounded(&self.folder.join(name), Grant::MAX_LEN).map_err(|_| GrantError::Malformed)?;
        let grant = Grant::verify_even_over(&self.recipient, &bytes, unix_now)?;
        // Under another's name it could hide the other.
        if file_name(grant.serial()) == name { Ok(grant) } else { Err(GrantError::Malformed) }
    }

    /// Lets go of what has ended, unless it says something that nothing newer does: of the members, or of the floor.
    fn drop_ended(&mut self, unix_now: u64) {
        let mut all: Vec<_> = self.all().collect();
        all.sort_unstable_by_key(|grant| std::cmp::Reverse(grant.serial()));
        let (mut manifest, mut floor): (Option<&Manifest>, _) = (None, None);
        let mut dropped = Vec::new();
        for grant in all {
            let (own_manifest, own_floor) = (grant.manifest(), floor_of(grant, unix_now));
            let supersedes = manifest.is_none_or(|newer| own_manifest.supersedes(newer));
            let says_more = supersedes || own_floor > floor;
            if supersedes {
                manifest = Some(own_manifest);
            }
            floor = floor.max(own_floor);
            if has_ended(grant, unix_now) && !says_more {
                dropped.push(grant.serial());
            }
        }
        for serial in &dropped {
            // What stays on disk is over and does no harm.
            drop(fs::remove_file(self.folder.join(file_name(*serial))));
        }
        self.grants.retain(|grant| !dropped.contains(&grant.serial()));
        self.over.retain(|grant| !dropped.contains(&grant.serial()));
    }
}

impl fmt::Debug for Holdings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Holdings").field("grants", &self.grants).finish_non_exhaustive()
    }
}

/// The folder of a node's grants could not be used.
#[derive(Debug, Error)]
#[error("the folder of the node's grants could not be read; check its permissions")]
pub struct HoldingsError(#[source] io::Error);

impl HoldingsError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::Storage
    }
}

/// Why a grant was not taken in.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ImportError {
    /// It is no grant for this node.
    #[error(transparent)]
    Grant(#[from] GrantError),
    /// It was made before one that is held.
    #[error("the grant is older than one that this node holds")]
    Older,
    /// It has the serial of one that is held, and another content.
    #[error("the node holds another grant with the same serial; was the owner's book restored from a backup?")]
    NotNewer,
    /// As many grants as may be are held, and none of them has ended.
    #[error("the node holds 32 grants of which none has ended; import fewer at a time")]
    Full,
    /// The disk said no.
    #[error("the grant could not be written; check the home's permissions and free space")]
    Io(#[source] io::Error),
}

impl ImportError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Grant(error) => error.kind(),
            Self::Older | Self::NotNewer => ErrorKind::InvalidInput,
            Self::Full => ErrorKind::LimitExceeded,
            Self::Io(_) => ErrorKind::Storage,
        }
    }
}

/// The highest floor of those of its delegations whose time has come.
fn floor_of(grant: &Grant, unix_now: u64) -> Option<u64> {
    let begun = grant.rounds.iter().filter(|round| round.delegation.validity().not_before() <= unix_now);
    begun.map(|round| round.delegation.lowest_serial()).max()
}

fn has_ended(grant: &Grant, unix_now: u64) -> bool {
    grant.speaks_until().saturating_add(KEPT_FOR) < unix_now
}

fn file_name(serial: u64) -> String {
    format!("{serial:020}{SUFFIX}")
}

pub(super) fn make_private(folder: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

const SUFFIX: &str = ".grant";
/// How long a grant stays after its last delegation, in seconds: a clock that was set right again finds it.
const KEPT_FOR: u64 = 3600;
