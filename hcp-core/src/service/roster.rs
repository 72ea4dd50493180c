//! Who the members are: what the manifest says, as far as it concerns points and descriptors.

use std::fmt;

use super::tuning::MAX_MEMBERS;
use crate::identity::OnionAddress;

/// What a member does besides serving.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// It signs and uploads descriptors.
    Publisher,
    /// It is only listed.
    Listed,
}

/// The members, in order of their addresses.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Roster(Vec<(OnionAddress, Role)>);

/// More members than [`MAX_MEMBERS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a service has at most {MAX_MEMBERS} members")]
pub(crate) struct TooMany;

impl Roster {
    /// Of several roles of one member the first counts.
    ///
    /// # Errors
    /// [`TooMany`].
    pub(crate) fn new(members: impl IntoIterator<Item = (OnionAddress, Role)>) -> Result<Self, TooMany> {
        let mut members: Vec<_> = members.into_iter().take(MAX_MEMBERS + 1).collect();
        if members.len() > MAX_MEMBERS {
            return Err(TooMany);
        }
        members.sort_by_key(|(member, _)| *member);
        members.dedup_by_key(|(member, _)| *member);
        Ok(Self(members))
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (OnionAddress, Role)> + '_ {
        self.0.iter().copied()
    }

    pub(crate) fn contains(&self, member: &OnionAddress) -> bool {
        self.role(member).is_some()
    }

    pub(crate) fn role(&self, member: &OnionAddress) -> Option<Role> {
        self.0.binary_search_by_key(member, |(member, _)| *member).ok().map(|index| self.0[index].1)
    }

    /// The member whose public key this is, without the arithmetic that checking a key costs.
    pub(crate) fn by_key(&self, key: &[u8]) -> Option<OnionAddress> {
        let index = self.0.binary_search_by(|(member, _)| member.public_key()[..].cmp(key)).ok()?;
        Some(self.0[index].0)
    }
}

impl fmt::Debug for Roster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Roster({} members)", self.0.len())
    }
}
