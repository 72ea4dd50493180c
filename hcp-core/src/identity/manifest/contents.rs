//! What a manifest says, and its bytes without the signature.
//!
//! Members are kept in the order of their addresses, so that there is one form for one content.

use std::collections::HashSet;
use std::fmt;
use std::num::ParseIntError;
use std::str::FromStr;

use super::ManifestError;
use crate::identity::delegation::PublicKey;
use crate::identity::fields::Fields;
use crate::identity::{DiscoveryPublicKey, MAX_CLIENTS, OnionAddress};

/// The version of a program that runs on a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct SoftwareVersion {
    major: u16,
    minor: u16,
    patch: u16,
}

impl SoftwareVersion {
    /// Takes the three numbers of a semantic version.
    pub const fn new(major: u16, minor: u16, patch: u16) -> Self {
        Self { major, minor, patch }
    }

    /// The three numbers.
    #[cfg_attr(not(feature = "replica"), allow(dead_code, reason = "for the log"))]
    pub(crate) fn numbers(self) -> [u16; 3] {
        [self.major, self.minor, self.patch]
    }

    /// That of this library.
    pub fn of_this_library() -> Self {
        let version = env!("CARGO_PKG_VERSION").parse();
        version.expect("Cargo takes no version that does not begin with three numbers")
    }
}

impl FromStr for SoftwareVersion {
    type Err = ParseIntError;

    /// Parses `1.2.3`; what follows a hyphen or a plus sign does not count, and what is missing is 0.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let numbers = text.split(['-', '+']).next().unwrap_or(text);
        let mut parts = numbers.splitn(3, '.');
        let mut next = || parts.next().map_or(Ok(0), str::parse);
        Ok(Self { major: next()?, minor: next()?, patch: next()? })
    }
}

impl fmt::Display for SoftwareVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// What a member does for the service's descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Role {
    /// Is listed in it. Whoever seizes such a node cannot publish.
    Listed,
    /// Is listed in it and publishes it, for which it holds material of some time periods.
    Publisher,
}

/// A node of the service.
#[derive(Clone, PartialEq, Eq)]
pub struct Member {
    address: OnionAddress,
    log_key: PublicKey,
    role: Role,
    name: String,
    discovery_key: Option<DiscoveryPublicKey>,
}

impl Member {
    /// The longest name; it stands in tables and file names.
    pub const MAX_NAME: usize = 32;

    /// Takes the node's own address and the public key of its log.
    ///
    /// # Errors
    /// [`ManifestError::NotAKey`] when `log_key` is none, and [`ManifestError::DuplicateMember`] when it is the address's.
    pub fn new(address: OnionAddress, log_key: [u8; 32], role: Role) -> Result<Self, ManifestError> {
        let log_key = PublicKey::from_bytes(log_key).map_err(|_| ManifestError::NotAKey)?;
        if log_key.as_bytes() == address.public_key() {
            return Err(ManifestError::DuplicateMember);
        }
        Ok(Self { address, log_key, role, name: String::new(), discovery_key: None })
    }

    /// Gives it a name, by which the owner knows it.
    ///
    /// # Errors
    /// [`ManifestError::Name`].
    pub fn named(self, name: &str) -> Result<Self, ManifestError> {
        let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if !(1..=Self::MAX_NAME).contains(&name.len()) || !name.bytes().all(fits) {
            return Err(ManifestError::Name);
        }
        Ok(Self { name: name.to_owned(), ..self })
    }

    /// Gives the key with which the node finds what only members find, the public half of
    /// [`ReplicaSeed::discovery_key`](crate::identity::ReplicaSeed::discovery_key).
    pub fn with_discovery_key(self, key: DiscoveryPublicKey) -> Self {
        Self { discovery_key: Some(key), ..self }
    }

    /// The node's own address.
    pub fn address(&self) -> OnionAddress {
        self.address
    }

    /// The public key that verifies the node's log.
    pub fn log_key(&self) -> PublicKey {
        self.log_key
    }

    /// What it does for the descriptor.
    pub fn role(&self) -> Role {
        self.role
    }

    /// Whether it publishes the descriptor.
    pub fn is_publisher(&self) -> bool {
        self.role == Role::Publisher
    }

    /// The name that the owner gave it, if any.
    pub fn name(&self) -> Option<&str> {
        (!self.name.is_empty()).then_some(self.name.as_str())
    }

    /// The key with which the node finds what only members find, if it has told one.
    pub fn discovery_key(&self) -> Option<DiscoveryPublicKey> {
        self.discovery_key
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.address.public_key());
        out.extend_from_slice(self.log_key.as_bytes());
        let role = match self.role {
            Role::Listed => LISTED,
            Role::Publisher => PUBLISHER,
        };
        // A name has at most 32 bytes.
        out.extend_from_slice(&[role, self.name.len() as u8]);
        out.extend_from_slice(self.name.as_bytes());
        let keys = self.discovery_key.as_slice();
        write_keys(keys, out);
    }

    fn read(fields: &mut Fields<'_>) -> Result<Self, ManifestError> {
        let address = fields.take().ok_or(ManifestError::Malformed)?;
        let address = OnionAddress::from_public_key(address).map_err(|_| ManifestError::NotAKey)?;
        let log_key = fields.take().ok_or(ManifestError::Malformed)?;
        let role = match fields.u8() {
            Some(LISTED) => Role::Listed,
            Some(PUBLISHER) => Role::Publisher,
            _ => return Err(ManifestError::Malformed),
        };
        let member = Self::new(address, log_key, role)?;
        let len = fields.u8().ok_or(ManifestError::Malformed)?;
        let name = fields.bytes(len.into()).ok_or(ManifestError::Malformed)?;
        let member = match std::str::from_utf8(name) {
            Ok("") => member,
            Ok(name) => member.named(name)?,
            Err(_) => return Err(ManifestError::Name),
        };
        match read_keys(fields)?[..] {
            [] => Ok(member),
            [key] => Ok(member.with_discovery_key(key)),
            _ => Err(ManifestError::Malformed),
        }
    }
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Member").field("role", &self.role).finish_non_exhaustive()
    }
}

/// What the owner says: version, members, lowest software version, shared configuration, who can find the service.
#[derive(Clone, PartialEq, Eq)]
pub struct Contents {
    version: u64,
    lowest_software: SoftwareVersion,
    members: Vec<Member>,
    shared: Vec<u8>,
    /// In order; empty when everybody who knows the address can find the service.
    clients: Vec<DiscoveryPublicKey>,
}

impl Contents {
    /// The most members: every node gossips with every other, and more than some hundred links cost a node more than its
    /// clients do.
    pub const MAX_MEMBERS: usize = 128;
    /// The longest shared configuration, in bytes: a text for people and some numbers, not a data store; it travels in every
    /// grant.
    pub const MAX_SHARED: usize = 64 * 1024;

    pub(super) const MAX_LEN: usize =
        HEAD_LEN + Self::MAX_MEMBERS * MEMBER_MAX_LEN + 4 + Self::MAX_SHARED + 1 + MAX_CLIENTS * DISCOVERY_LEN;

    /// Takes the version, which an owner raises with every manifest, and the members in any order.
    ///
    /// # Errors
    /// [`ManifestError::NoMembers`], [`TooManyMembers`](ManifestError::TooManyMembers),
    /// [`DuplicateMember`](ManifestError::DuplicateMember) or [`NoPublisher`](ManifestError::NoPublisher).
    pub fn new(version: u64, mut members: Vec<Member>) -> Result<Self, ManifestError> {
        members.sort_unstable_by_key(Member::address);
        check(&members)?;
        Ok(Self {
            version,
            lowest_software: SoftwareVersion::default(),
            members,
            shared: Vec::new(),
            clients: Vec::new(),
        })
    }

    /// Sets the lowest software version that a node may run; default 0.0.0, any.
    pub fn lowest_software(self, version: SoftwareVersion) -> Self {
        Self { lowest_software: version, ..self }
    }

    /// Sets the configuration that all nodes share, in a form that is the application's; default empty.
    ///
    /// # Errors
    /// [`ManifestError::SharedTooLong`].
    pub fn shared(self, shared: Vec<u8>) -> Result<Self, ManifestError> {
        if shared.len() > Self::MAX_SHARED {
            return Err(ManifestError::SharedTooLong);
        }
        Ok(Self { shared, ..self })
    }

    /// Hides the service from everybody who has the key of none of these clients: who knows the address learns that a
    /// descriptor was uploaded in the last hours, and not how to reach anybody. By default everybody finds it. The members find
    /// it too, as they look whether it is reachable; so each needs a [discovery key](Member::with_discovery_key), and counts as a
    /// client.
    ///
    /// Clients and members together are at most [`MAX_DISCOVERY_CLIENTS`](crate::network::MAX_DISCOVERY_CLIENTS). From some 96
    /// on a descriptor has no room for 20 introduction points beside them.
    ///
    /// # Errors
    /// [`ManifestError::Clients`] when there are none or too many, or one comes twice or is a member's;
    /// [`ManifestError::HiddenFromMember`] when a member has no discovery key.
    pub fn restricted_to(self, clients: impl IntoIterator<Item = DiscoveryPublicKey>) -> Result<Self, ManifestError> {
        let mut clients: Vec<_> = clients.into_iter().take(MAX_CLIENTS + 1).collect();
        clients.sort_unstable();
        if clients.is_empty() {
            return Err(ManifestError::Clients);
        }
        check_clients(&self.members, &clients)?;
        Ok(Self { clients, ..self })
    }

    /// Which manifest of the service it is.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The nodes, in the order of their addresses.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// The node with this address.
    pub fn member(&self, address: OnionAddress) -> Option<&Member> {
        let place = self.members.binary_search_by_key(&address, Member::address).ok()?;
        self.members.get(place)
    }

    /// The lowest software version that a node may run.
    pub fn lowest_software_version(&self) -> SoftwareVersion {
        self.lowest_software
    }

    /// The configuration that all nodes share.
    pub fn shared_configuration(&self) -> &[u8] {
        &self.shared
    }

    /// The clients that alone can find the service, besides its members; none when everybody can who knows the address.
    pub fn clients(&self) -> &[DiscoveryPublicKey] {
        &self.clients
    }

    /// The keys with which the members find what only members find; none unless every member has one.
    pub fn discovery_keys(&self) -> Option<Vec<DiscoveryPublicKey>> {
        self.members.iter().map(Member::discovery_key).collect()
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let behind = 4 + self.shared.len() + 1 + self.clients.len() * DISCOVERY_LEN + super::SIGNATURE_LEN;
        let mut out = Vec::with_capacity(HEAD_LEN + self.members.len() * MEMBER_MAX_LEN + behind);
        out.push(LAYOUT);
        out.extend_from_slice(&self.version.to_be_bytes());
        let SoftwareVersion { major, minor, patch } = self.lowest_software;
        // Both lengths are bounded far below what the fields hold.
        for number in [major, minor, patch, self.members.len() as u16] {
            out.extend_from_slice(&number.to_be_bytes());
        }
        self.members.iter().for_each(|member| member.write(&mut out));
        out.extend_from_slice(&(self.shared.len() as u32).to_be_bytes());
        out.extend_from_slice(&self.shared);
        write_keys(&self.clients, &mut out);
        out
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Result<Self, ManifestError> {
        const SHORT: ManifestError = ManifestError::Malformed;
        let mut fields = Fields::new(bytes);
        if fields.u8().ok_or(SHORT)? != LAYOUT {
            return Err(ManifestError::UnknownLayout);
        }
        let version = fields.u64().ok_or(SHORT)?;
        let mut number = || fields.u16().ok_or(SHORT);
        let lowest_software = SoftwareVersion { major: number()?, minor: number()?, patch: number()? };
        let count = usize::from(number()?);
        if count > Self::MAX_MEMBERS {
            return Err(ManifestError::TooManyMembers);
        }
        let members: Vec<Member> = (0..count).map(|_| Member::read(&mut fields)).collect::<Result<_, _>>()?;
        if members.windows(2).any(|pair| pair[0].address > pair[1].address) {
            return Err(ManifestError::Malformed);
        }
        check(&members)?;
        let len = usize::try_from(fields.u32().ok_or(SHORT)?).map_err(|_| ManifestError::SharedTooLong)?;
        if len > Self::MAX_SHARED {
            return Err(ManifestError::SharedTooLong);
        }
        let shared = fields.bytes(len).ok_or(SHORT)?.to_vec();
        let clients = read_keys(&mut fields)?;
        if !clients.is_sorted() {
            return Err(ManifestError::Malformed);
        }
        if !clients.is_empty() {
            check_clients(&members, &clients)?;
        }
        fields.end().ok_or(SHORT)?;
        Ok(Self { version, lowest_software, members, shared, clients })
    }
}

impl fmt::Debug for Contents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Contents")
            .field("version", &self.version)
            .field("lowest_software", &self.lowest_software)
            .field("members", &self.members)
            .field("clients", &self.clients.len())
            .finish_non_exhaustive()
    }
}

/// What must hold of members together, who are in order.
fn check(members: &[Member]) -> Result<(), ManifestError> {
    if members.is_empty() {
        return Err(ManifestError::NoMembers);
    }
    if members.len() > Contents::MAX_MEMBERS {
        return Err(ManifestError::TooManyMembers);
    }
    let (mut keys, mut names, mut discovery) = (HashSet::new(), HashSet::new(), HashSet::new());
    for member in members {
        let named_before = member.name().is_some_and(|name| !names.insert(name));
        let found_before = member.discovery_key.is_some_and(|key| !discovery.insert(key));
        let key_before = !keys.insert(member.address.public_key()) || !keys.insert(member.log_key.as_bytes());
        if key_before || named_before || found_before {
            return Err(ManifestError::DuplicateMember);
        }
    }
    if !members.iter().any(Member::is_publisher) {
        return Err(ManifestError::NoPublisher);
    }
    Ok(())
}

/// What must hold of clients, of whom there are some, in order.
fn check_clients(members: &[Member], clients: &[DiscoveryPublicKey]) -> Result<(), ManifestError> {
    let mut all = HashSet::new();
    for member in members {
        all.insert(member.discovery_key.ok_or(ManifestError::HiddenFromMember)?);
    }
    let different = clients.iter().all(|client| all.insert(*client));
    if different && all.len() <= MAX_CLIENTS { Ok(()) } else { Err(ManifestError::Clients) }
}

/// There are no more than [`MAX_CLIENTS`], so that one byte counts them.
fn write_keys(keys: &[DiscoveryPublicKey], out: &mut Vec<u8>) {
    out.push(keys.len() as u8);
    keys.iter().for_each(|key| out.extend_from_slice(key.as_bytes()));
}

fn read_keys(fields: &mut Fields<'_>) -> Result<Vec<DiscoveryPublicKey>, ManifestError> {
    let count = fields.u8().ok_or(ManifestError::Malformed)?;
    let read = |_| {
        let key = fields.take().ok_or(ManifestError::Malformed)?;
        DiscoveryPublicKey::from_bytes(key).map_err(|_| ManifestError::NotAKey)
    };
    (0..count).map(read).collect()
}

const LAYOUT: u8 = 1;
const LISTED: u8 = 0;
const PUBLISHER: u8 = 1;
/// Layout, version, lowest software, number of members.
const HEAD_LEN: usize = 1 + 8 + 6 + 2;
const DISCOVERY_LEN: usize = 32;
/// Address, log key, role, length of the name, name, number of discovery keys, one of them.
const MEMBER_MAX_LEN: usize = 32 + 32 + 1 + 1 + Member::MAX_NAME + 1 + DISCOVERY_LEN;
