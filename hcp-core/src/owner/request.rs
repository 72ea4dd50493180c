//! What a node asks the owner for: session keys to be delegated, and keys to be certified for time periods, all public.
//!
//! A [`Request`] that exists was signed by its node, for its service.

use std::fmt;

use ed25519_dalek::SigningKey;
use thiserror::Error;

use super::period::PeriodClock;
use crate::error::ErrorKind;
use crate::identity::delegation::{PublicKey, signed};
use crate::identity::fields::Fields;
use crate::identity::{Identity, OnionAddress, ReplicaSeed};
use crate::network::Period;

/// Public keys of a node, which it signed; from them an owner makes grants until they are used up.
#[derive(Clone, PartialEq, Eq)]
pub struct Request {
    service: OnionAddress,
    node: OnionAddress,
    first_number: u64,
    session_keys: Vec<PublicKey>,
    clock: PeriodClock,
    first_period: u64,
    descriptor_keys: Vec<PublicKey>,
    signature: [u8; 64],
}

impl Request {
    /// The most session keys: more than three a day for a year.
    pub const MAX_SESSION_KEYS: u16 = 1_200;
    /// The most time periods: a year of days, and a day of the shortest ones.
    pub const MAX_PERIODS: u16 = 400;
    /// The longest one.
    pub const MAX_LEN: usize =
        HEAD_LEN + 32 * (Self::MAX_SESSION_KEYS as usize + Self::MAX_PERIODS as usize) + SIGNATURE_LEN;

    /// Derives the keys from `seed` and signs them with the node's own identity: of session keys those with the numbers from
    /// `first_number` on, of time periods those from `first_period` on.
    ///
    /// # Errors
    /// [`RequestError::TooMany`] beyond the limits, or when there are no session keys; [`RequestError::Malformed`] when the
    /// numbers reach beyond what can be counted, or `first_period` is of no Tor network.
    pub fn new(
        node: &Identity,
        seed: &ReplicaSeed,
        service: OnionAddress,
        (first_number, session_keys): (u64, u16),
        (first_period, periods): (Period, u16),
    ) -> Result<Self, RequestError> {
        check_counts(first_number, session_keys, first_period.number, periods)?;
        let clock = PeriodClock::new(first_period.length, first_period.offset).map_err(|_| RequestError::Malformed)?;
        let session = |n: u16| seed.session_key(service, first_number + u64::from(n)).public_key();
        let descriptor = |n: u16| {
            let key = descriptor_key(seed, service, clock.period(first_period.number + u64::from(n)));
            PublicKey::from_bytes(key).expect("the public half of a seed's key is a key")
        };
        let mut request = Self {
            service,
            node: node.address(),
            first_number,
            session_keys: (0..session_keys).map(session).collect(),
            clock,
            first_period: first_period.number,
            descriptor_keys: (0..periods).map(descriptor).collect(),
            signature: [0; SIGNATURE_LEN],
        };
        request.signature = node.sign(&signed(PURPOSE, service, &request.content()));
        Ok(request)
    }

    /// Takes the bytes of a request for `service`, when the node that it names signed it.
    ///
    /// # Errors
    /// [`RequestError`], one variant for each reason.
    pub fn verify(service: OnionAddress, bytes: &[u8]) -> Result<Self, RequestError> {
        if bytes.len() > Self::MAX_LEN {
            return Err(RequestError::Malformed);
        }
        let (content, signature) = bytes.split_last_chunk::<SIGNATURE_LEN>().ok_or(RequestError::Malformed)?;
        let mut fields = Fields::new(content);
        if fields.u8().ok_or(RequestError::Malformed)? != LAYOUT {
            return Err(RequestError::UnknownLayout);
        }
        let found = fields.address().ok_or(RequestError::Malformed)?;
        if found != service {
            return Err(RequestError::ForeignService);
        }
        let node = fields.address().ok_or(RequestError::Malformed)?;
        // Before the keys, each of which takes time.
        if node.verify(&signed(PURPOSE, service, content), signature).is_err() {
            return Err(RequestError::Tampered);
        }
        let first_number = fields.u64().ok_or(RequestError::Malformed)?;
        let session_keys = keys(&mut fields, Self::MAX_SESSION_KEYS)?;
        let clock = PeriodClock::read(&mut fields).ok_or(RequestError::Malformed)?;
        let first_period = fields.u64().ok_or(RequestError::Malformed)?;
        let descriptor_keys = keys(&mut fields, Self::MAX_PERIODS)?;
        fields.end().ok_or(RequestError::Malformed)?;
        // Neither count is above its limit, which is a u16.
        check_counts(first_number, session_keys.len() as u16, first_period, descriptor_keys.len() as u16)?;
        Ok(Self {
            service,
            node,
            first_number,
            session_keys,
            clock,
            first_period,
            descriptor_keys,
            signature: *signature,
        })
    }

    /// What [`verify`](Self::verify) takes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.content();
        bytes.extend_from_slice(&self.signature);
        bytes
    }

    /// The service that the node wants to serve.
    pub fn service(&self) -> OnionAddress {
        self.service
    }

    /// The node that asks.
    pub fn node(&self) -> OnionAddress {
        self.node
    }

    /// How the node's network cuts time.
    pub fn clock(&self) -> PeriodClock {
        self.clock
    }

    /// The number behind the last session key.
    pub fn end_number(&self) -> u64 {
        self.first_number + self.session_keys.len() as u64
    }

    /// The first period that it has no key for.
    pub fn end_period(&self) -> Period {
        self.clock.period(self.first_period + self.descriptor_keys.len() as u64)
    }

    /// The first of its session keys with a number above `last`, with its number, and those that follow.
    pub(super) fn session_keys_above(&self, last: Option<u64>) -> impl Iterator<Item = (u64, PublicKey)> + '_ {
        let numbered = self.session_keys.iter().enumerate();
        let numbered = numbered.map(|(place, key)| (self.first_number + place as u64, *key));
        numbered.filter(move |(number, _)| last.is_none_or(|last| *number > last))
    }

    /// The key for one period.
    pub(super) fn descriptor_key(&self, period: Period) -> Option<PublicKey> {
        let place = period.number.checked_sub(self.first_period).filter(|_| self.clock.has(period))?;
        self.descriptor_keys.get(usize::try_from(place).ok()?).copied()
    }

    fn content(&self) -> Vec<u8> {
        let keys = self.session_keys.len() + self.descriptor_keys.len();
        let mut out = Vec::with_capacity(HEAD_LEN + 32 * keys + SIGNATURE_LEN);
        out.push(LAYOUT);
        out.extend_from_slice(self.service.public_key());
        out.extend_from_slice(self.node.public_key());
        out.extend_from_slice(&self.first_number.to_be_bytes());
        write_keys(&mut out, &self.session_keys);
        out.extend_from_slice(&self.clock.to_bytes());
        out.extend_from_slice(&self.first_period.to_be_bytes());
        write_keys(&mut out, &self.descriptor_keys);
        out
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("session_keys", &self.session_keys.len())
            .field("periods", &self.descriptor_keys.len())
            .finish_non_exhaustive()
    }
}

/// Why something is no request, or none can be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RequestError {
    /// Not the bytes of a request.
    #[error("malformed request")]
    Malformed,
    /// A layout that this version does not know.
    #[error("the request has a layout that this version does not know; update the program")]
    UnknownLayout,
    /// More keys than a request may hold, or no session key.
    #[error("a request holds 1 to 1200 session keys, and keys for at most 400 time periods")]
    TooMany,
    /// It is for another service.
    #[error("the request is for another service")]
    ForeignService,
    /// The identity that shall sign it is not the node's.
    #[error("the request is to be signed with another identity than that of the node")]
    ForeignNode,
    /// It is not what the node signed that it names.
    #[error("the request is not what the node that it names has signed")]
    Tampered,
}

impl RequestError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Malformed => ErrorKind::ProtocolViolation,
            Self::ForeignService | Self::ForeignNode | Self::Tampered => ErrorKind::Authentication,
            Self::UnknownLayout | Self::TooMany => ErrorKind::InvalidInput,
        }
    }
}

/// The public half of the key that signs descriptors in `period`.
pub(super) fn descriptor_key(seed: &ReplicaSeed, service: OnionAddress, period: Period) -> [u8; 32] {
    let seed = seed.descriptor_signing_seed(service, period.number, period.length, period.offset);
    SigningKey::from_bytes(&seed).verifying_key().to_bytes()
}

fn check_counts(first_number: u64, session_keys: u16, first_period: u64, periods: u16) -> Result<(), RequestError> {
    if !(1..=Request::MAX_SESSION_KEYS).contains(&session_keys) || periods > Request::MAX_PERIODS {
        return Err(RequestError::TooMany);
    }
    let ends = [first_number.checked_add(session_keys.into()), first_period.checked_add(periods.into())];
    if ends.contains(&None) { Err(RequestError::Malformed) } else { Ok(()) }
}

fn keys(fields: &mut Fields<'_>, limit: u16) -> Result<Vec<PublicKey>, RequestError> {
    let count = fields.u16().ok_or(RequestError::Malformed)?;
    if count > limit {
        return Err(RequestError::TooMany);
    }
    (0..count).map(|_| fields.key().ok_or(RequestError::Malformed)).collect()
}

fn write_keys(out: &mut Vec<u8>, keys: &[PublicKey]) {
    // There are no more than the limits, which are u16.
    out.extend_from_slice(&(keys.len() as u16).to_be_bytes());
    keys.iter().for_each(|key| out.extend_from_slice(key.as_bytes()));
}

const PURPOSE: &[u8] = b"HCP/1 request\0";
const LAYOUT: u8 = 1;
const SIGNATURE_LEN: usize = 64;
/// Layout, service, node, first number and count of session keys; clock, first number and count of periods.
const HEAD_LEN: usize = 1 + 32 + 32 + 8 + 2 + PeriodClock::LEN + 8 + 2;
