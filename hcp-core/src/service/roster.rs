//! Who the members are: what the manifest says, as far as it concerns points and descriptors.

use std::fmt;
use std::sync::Arc;

use super::tuning::{MAX_LISTED, MAX_MEMBERS};
use crate::identity::{DiscoveryPublicKey, OnionAddress};
use crate::network::onion::max_points;

/// What a member does besides serving.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// It signs and uploads descriptors.
    Publisher,
    /// It is only listed.
    Listed,
}

/// The members, in order of their addresses, and who can find the service.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Roster {
    members: Vec<(OnionAddress, Role)>,
    clients: Option<Arc<[DiscoveryPublicKey]>>,
}

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
        Ok(Self { members, clients: None })
    }

    /// The same where only these clients can find the service, the members among them.
    pub(crate) fn restricted_to(self, clients: impl IntoIterator<Item = DiscoveryPublicKey>) -> Self {
        let mut clients: Vec<_> = clients.into_iter().collect();
        clients.sort_unstable();
        clients.dedup();
        Self { clients: Some(clients.into()), ..self }
    }

    /// Who alone can find the service, in order; none when everybody can who knows the address.
    pub(crate) fn clients(&self) -> Option<&Arc<[DiscoveryPublicKey]>> {
        self.clients.as_ref()
    }

    /// How many points one descriptor may list.
    pub(crate) fn max_listed(&self) -> usize {
        max_points(self.clients.as_ref().map(|clients| clients.len())).min(MAX_LISTED)
    }

    pub(crate) fn len(&self) -> usize {
        self.members.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (OnionAddress, Role)> + '_ {
        self.members.iter().copied()
    }

    pub(crate) fn contains(&self, member: &OnionAddress) -> bool {
        self.role(member).is_some()
    }

    pub(crate) fn role(&self, member: &OnionAddress) -> Option<Role> {
        self.members.binary_search_by_key(member, |(member, _)| *member).ok().map(|index| self.members[index].1)
    }

    /// The member whose public key this is, without the arithmetic that checking a key costs.
    pub(crate) fn by_key(&self, key: &[u8]) -> Option<OnionAddress> {
        let index = self.members.binary_search_by(|(member, _)| member.public_key()[..].cmp(key)).ok()?;
        Some(self.members[index].0)
    }
}

impl fmt::Debug for Roster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Roster({} members)", self.members.len())
    }
}
