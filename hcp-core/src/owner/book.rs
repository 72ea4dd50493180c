//! What an owner has to remember from one errand to the next: serials, which session keys were used, who holds what until when.
//!
//! A serial is given out once and serials only rise; a session key is delegated once. The book is written before a grant
//! leaves the owner's hands, so that a crash loses numbers and never gives one twice; whoever restores an old book from a
//! backup must raise the serial above all that were given out ([`Book::skip_serials`]).

use std::collections::BTreeMap;
use std::fmt;

use thiserror::Error;

use super::period::PeriodClock;
use crate::error::ErrorKind;
use crate::identity::OnionAddress;
use crate::identity::fields::Fields;
use crate::identity::manifest::Contents;

/// The owner's book of one service.
#[derive(Clone, PartialEq, Eq)]
pub struct Book {
    pub(super) service: OnionAddress,
    pub(super) clock: PeriodClock,
    pub(super) next_serial: u64,
    pub(super) floor: u64,
    pub(super) nodes: BTreeMap<OnionAddress, Record>,
}

/// What the book says of one node.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct Record {
    /// The number of the last session key that was delegated.
    pub(super) last_number: Option<u64>,
    pub(super) is_revoked: bool,
    pub(super) granted: Vec<Granted>,
}

/// One grant, as far as it matters when its node is seized.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Granted {
    pub(super) serial: u64,
    /// From when on the node may hold it, in Unix seconds; before, a warden does.
    pub(super) handed_out: u64,
    pub(super) speaks_until: u64,
    /// 0 when it lets the node publish nothing.
    pub(super) publishes_until: u64,
}

/// For how long whoever seizes a node at some time could use what it holds then, in Unix seconds.
///
/// Nothing takes back what was handed out: period material runs out, and a delegation too, unless a floor above its serial has
/// come to whoever dials.
#[derive(Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Exposure {
    /// The node.
    pub node: OnionAddress,
    /// Whether the owner has revoked it.
    pub is_revoked: bool,
    /// The highest serial that it may hold.
    pub serial: u64,
    /// Until when it could speak for the service; none when it cannot.
    pub speaks_until: Option<u64>,
    /// Whether all that it could speak with is below the floor that the next round carries, or the last one did: then only
    /// who has not yet dialled a renewed node still believes it.
    pub is_withdrawn: bool,
    /// Until when it could publish descriptors; none when it cannot.
    pub publishes_until: Option<u64>,
    /// Until when it could speak with what is made in advance too, which whoever seizes the warden as well has.
    pub speaks_until_with_warden: Option<u64>,
    /// Until when it could publish with what is made in advance too.
    pub publishes_until_with_warden: Option<u64>,
}

impl Book {
    /// The most nodes that a book knows, those included that are members no more: each is some KiB.
    pub const MAX_NODES: usize = 4096;
    /// The most grants of a node that have not ended: those of two of the longest schedules.
    pub const MAX_GRANTED: usize = 2_400;
    /// The longest file: all members with as many grants as may be, and the nodes that were members before.
    pub const MAX_LEN: usize =
        HEAD_LEN + Self::MAX_NODES * RECORD_LEN + Contents::MAX_MEMBERS * Self::MAX_GRANTED * GRANTED_LEN;

    /// An empty book for a service on a network with this clock.
    pub fn new(service: OnionAddress, clock: PeriodClock) -> Self {
        Self { service, clock, next_serial: 1, floor: 0, nodes: BTreeMap::new() }
    }

    /// The service.
    pub fn service(&self) -> OnionAddress {
        self.service
    }

    /// How the service's network cuts time.
    pub fn clock(&self) -> PeriodClock {
        self.clock
    }

    /// The serial of the next round.
    pub fn next_serial(&self) -> u64 {
        self.next_serial
    }

    /// The lowest serial that is still valid, as the next round says it.
    pub fn floor(&self) -> u64 {
        self.floor
    }

    /// Whether the owner has revoked the node.
    pub fn is_revoked(&self, node: OnionAddress) -> bool {
        self.nodes.get(&node).is_some_and(|record| record.is_revoked)
    }

    /// Skips serials, so that the next round has this one; for a book that was restored from a backup. Never goes back.
    pub fn skip_serials(&mut self, next: u64) {
        self.next_serial = self.next_serial.max(next);
    }

    /// Notes that the node gets no grants any more, and says what it holds at `unix_now` (Unix seconds).
    ///
    /// # Errors
    /// [`BookError::UnknownNode`] when it never got a grant.
    pub fn revoke(&mut self, node: OnionAddress, unix_now: u64) -> Result<Exposure, BookError> {
        self.nodes.get_mut(&node).ok_or(BookError::UnknownNode)?.is_revoked = true;
        self.exposure(unix_now).into_iter().find(|exposure| exposure.node == node).ok_or(BookError::UnknownNode)
    }

    /// Raises the floor above every serial that a revoked node may hold, with what was made in advance for it: the next
    /// round carries it. Says the new floor.
    ///
    /// # Errors
    /// [`BookError::NothingRevoked`] when no serial of a revoked node is above the floor, and [`BookError::NotRenewed`] while
    /// a node that is not revoked holds nothing above it that has not ended: diallers would refuse that one too.
    pub fn raise_floor(&mut self, unix_now: u64) -> Result<u64, BookError> {
        let floor = self.revoked_serial().map(|serial| serial.saturating_add(1)).filter(|floor| *floor > self.floor);
        let floor = floor.ok_or(BookError::NothingRevoked)?;
        let lasts = |record: &&Record| record.granted.iter().any(|granted| granted.speaks_until >= unix_now);
        let is_renewed = |record: &Record| {
            record.granted.iter().any(|granted| granted.serial >= floor && granted.handed_out <= unix_now)
        };
        let mut others = self.nodes.iter().filter(|(_, record)| !record.is_revoked && lasts(record));
        if let Some((node, _)) = others.find(|(_, record)| !is_renewed(record)) {
            return Err(BookError::NotRenewed(*node));
        }
        self.floor = floor;
        self.next_serial = self.next_serial.max(floor);
        Ok(floor)
    }

    /// What each node holds at `unix_now` (Unix seconds) that has not ended, and what is made for it in advance.
    pub fn exposure(&self, unix_now: u64) -> Vec<Exposure> {
        let of = |(node, record): (&OnionAddress, &Record)| {
            let held = || record.granted.iter().filter(|granted| granted.handed_out <= unix_now);
            let last = |times: &mut dyn Iterator<Item = u64>| times.filter(|until| *until >= unix_now).max();
            let speaking = || held().filter(|granted| granted.speaks_until >= unix_now);
            Exposure {
                node: *node,
                is_revoked: record.is_revoked,
                serial: held().map(|granted| granted.serial).max().unwrap_or(0),
                speaks_until: last(&mut held().map(|granted| granted.speaks_until)),
                is_withdrawn: speaking().all(|granted| granted.serial < self.floor) && speaking().next().is_some(),
                publishes_until: last(&mut held().map(|granted| granted.publishes_until)),
                speaks_until_with_warden: last(&mut record.granted.iter().map(|granted| granted.speaks_until)),
                publishes_until_with_warden: last(&mut record.granted.iter().map(|granted| granted.publishes_until)),
            }
        };
        self.nodes.iter().map(of).collect()
    }

    /// The bytes of the book, for a file; they are no secret, and tell who the nodes are.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = vec![LAYOUT];
        out.extend_from_slice(self.service.public_key());
        out.extend_from_slice(&self.clock.to_bytes());
        out.extend_from_slice(&self.next_serial.to_be_bytes());
        out.extend_from_slice(&self.floor.to_be_bytes());
        out.extend_from_slice(&(self.nodes.len() as u32).to_be_bytes());
        for (node, record) in &self.nodes {
            out.extend_from_slice(node.public_key());
            let flags = u8::from(record.last_number.is_some()) | u8::from(record.is_revoked) << 1;
            out.push(flags);
            out.extend_from_slice(&record.last_number.unwrap_or(0).to_be_bytes());
            out.extend_from_slice(&(record.granted.len() as u32).to_be_bytes());
            for Granted { serial, handed_out, speaks_until, publishes_until } in &record.granted {
                for number in [serial, handed_out, speaks_until, publishes_until] {
                    out.extend_from_slice(&number.to_be_bytes());
                }
            }
        }
        out
    }

    /// Reads a book back.
    ///
    /// # Errors
    /// [`BookError::Malformed`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, BookError> {
        Self::read(bytes).ok_or(BookError::Malformed)
    }

    /// The number of the last session key that was delegated to the node.
    pub(super) fn last_number(&self, node: OnionAddress) -> Option<u64> {
        self.nodes.get(&node).and_then(|record| record.last_number)
    }

    /// Notes what a node is given; none when the book has no room for it.
    pub(super) fn note(&mut self, node: OnionAddress, last_number: Option<u64>, granted: Vec<Granted>) -> Option<()> {
        if self.nodes.len() >= Self::MAX_NODES && !self.nodes.contains_key(&node) {
            return None;
        }
        let record = self.nodes.entry(node).or_default();
        record.last_number = last_number.max(record.last_number);
        record.granted.extend(granted);
        (record.granted.len() <= Self::MAX_GRANTED).then_some(())
    }

    /// Forgets grants that have ended.
    pub(super) fn forget_ended(&mut self, unix_now: u64) {
        for record in self.nodes.values_mut() {
            record.granted.retain(|granted| granted.speaks_until.max(granted.publishes_until) >= unix_now);
        }
    }

    /// The highest serial that a revoked node may hold and that has not ended, as far as the book knows.
    fn revoked_serial(&self) -> Option<u64> {
        let revoked = self.nodes.values().filter(|record| record.is_revoked);
        revoked.flat_map(|record| &record.granted).map(|granted| granted.serial).max()
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields::new(bytes);
        if fields.u8()? != LAYOUT {
            return None;
        }
        let (service, clock) = (fields.address()?, PeriodClock::read(&mut fields)?);
        let (next_serial, floor) = (fields.u64()?, fields.u64()?);
        let count = usize::try_from(fields.u32()?).ok().filter(|count| *count <= Self::MAX_NODES)?;
        let mut nodes = BTreeMap::new();
        for _ in 0..count {
            let node = fields.address()?;
            let flags = fields.u8().filter(|flags| *flags < 4)?;
            let number = fields.u64()?;
            let count = usize::try_from(fields.u32()?).ok().filter(|count| *count <= Self::MAX_GRANTED)?;
            let granted = (0..count).map(|_| {
                let (serial, handed_out) = (fields.u64()?, fields.u64()?);
                Some(Granted { serial, handed_out, speaks_until: fields.u64()?, publishes_until: fields.u64()? })
            });
            let granted: Vec<_> = granted.collect::<Option<_>>()?;
            let last_number = (flags & 1 != 0).then_some(number);
            if nodes.insert(node, Record { last_number, is_revoked: flags & 2 != 0, granted }).is_some() {
                return None;
            }
        }
        fields.end()?;
        Some(Self { service, clock, next_serial, floor, nodes })
    }
}

impl fmt::Debug for Book {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Book")
            .field("next_serial", &self.next_serial)
            .field("floor", &self.floor)
            .field("nodes", &self.nodes.len())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Exposure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exposure")
            .field("serial", &self.serial)
            .field("speaks_until", &self.speaks_until)
            .field("publishes_until", &self.publishes_until)
            .finish_non_exhaustive()
    }
}

/// Why the book does not do what was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum BookError {
    /// Not the bytes of a book.
    #[error("this is not an owner's book, or it is damaged; restore it from a backup")]
    Malformed,
    /// The node never got a grant.
    #[error("the book knows no such node; it never got a grant")]
    UnknownNode,
    /// No node is revoked whose serials are not below the floor already.
    #[error("no revoked node holds a serial that is not below the floor already")]
    NothingRevoked,
    /// A node that is not revoked holds nothing that the new floor would leave it.
    #[error("a node that is not revoked was not renewed since; diallers would refuse it too: grant and import first")]
    NotRenewed(OnionAddress),
}

impl BookError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Malformed => ErrorKind::Storage,
            _ => ErrorKind::InvalidInput,
        }
    }
}

const LAYOUT: u8 = 1;
/// Layout, service, clock, next serial, floor, number of nodes.
const HEAD_LEN: usize = 1 + 32 + PeriodClock::LEN + 8 + 8 + 4;
/// Node, flags, last number, number of grants.
const RECORD_LEN: usize = 32 + 1 + 8 + 4;
const GRANTED_LEN: usize = 4 * 8;
