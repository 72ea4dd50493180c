//! Onion addresses, identities and passphrases.

use std::fmt;
use std::sync::Arc;

use hcp_core::identity as core;
use zeroize::Zeroizing;

use crate::error::HcpError;

/// A v3 onion address: the id of a person, a node or a service. Its text has 62 characters, with `.onion`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, uniffi::Object)]
#[uniffi::export(Display, Eq, Hash)]
pub struct OnionAddress {
    pub(crate) inner: core::OnionAddress,
}

#[uniffi::export]
impl OnionAddress {
    /// Parses an address, in either case, with or without `.onion`.
    ///
    /// # Errors
    /// `InvalidInput`, whose message says what is wrong with the text.
    #[uniffi::constructor]
    pub fn parse(text: String) -> Result<Arc<Self>, HcpError> {
        Ok(Self::shared(text.parse()?))
    }

    /// Takes a public key of 32 bytes after checking that it is one that an address may hold.
    ///
    /// # Errors
    /// `InvalidInput`.
    #[uniffi::constructor]
    pub fn from_public_key(key: Vec<u8>) -> Result<Arc<Self>, HcpError> {
        Ok(Self::shared(core::OnionAddress::from_public_key(exactly("a public key", &key)?)?))
    }

    /// The Ed25519 public key, 32 bytes.
    pub fn public_key(&self) -> Vec<u8> {
        self.inner.public_key().to_vec()
    }

    /// Verifies that the holder of this address signed `message`.
    ///
    /// # Errors
    /// `Authentication` when the signature was not made by this address's key over this message.
    pub fn verify(&self, message: Vec<u8>, signature: Vec<u8>) -> Result<(), HcpError> {
        Ok(self.inner.verify(&message, &exactly("a signature", &signature)?)?)
    }
}

impl OnionAddress {
    pub(crate) fn shared(inner: core::OnionAddress) -> Arc<Self> {
        Arc::new(Self { inner })
    }
}

impl fmt::Display for OnionAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl fmt::Debug for OnionAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

/// The secret key of an onion address.
#[derive(Debug, uniffi::Object)]
pub struct Identity {
    pub(crate) inner: core::Identity,
}

#[uniffi::export]
impl Identity {
    /// Makes a new identity from the operating system's random source.
    #[uniffi::constructor]
    pub fn generate() -> Arc<Self> {
        Self::shared(core::Identity::generate())
    }

    /// Derives the identity of an RFC 8032 seed of 32 bytes; the same seed always gives the same address.
    ///
    /// # Errors
    /// `InvalidInput` when the seed has another length.
    #[uniffi::constructor]
    pub fn from_seed(seed: Vec<u8>) -> Result<Arc<Self>, HcpError> {
        let seed = Zeroizing::new(seed);
        Ok(Self::shared(core::Identity::from_seed(&Zeroizing::new(exactly("a seed", &seed)?))))
    }

    /// Takes an expanded key of 64 bytes, as C tor stores it.
    ///
    /// # Errors
    /// `InvalidInput` when it has another length, or its scalar is not clamped.
    #[uniffi::constructor]
    pub fn from_expanded_secret_key(expanded: Vec<u8>) -> Result<Arc<Self>, HcpError> {
        let expanded = Zeroizing::new(expanded);
        let expanded = Zeroizing::new(exactly("an expanded key", &expanded)?);
        Ok(Self::shared(core::Identity::from_expanded_secret_key(&expanded)?))
    }

    /// The address that this identity answers for.
    pub fn address(&self) -> Arc<OnionAddress> {
        OnionAddress::shared(self.inner.address())
    }

    /// Signs `message` with plain Ed25519; the signature has 64 bytes.
    ///
    /// Everything that HCP signs begins with `HCP/1 <purpose>` and a zero byte; keep to that for messages of your own,
    /// with a purpose of your own, or a signature made for one thing may count as another.
    pub fn sign(&self, message: Vec<u8>) -> Vec<u8> {
        self.inner.sign(&message).to_vec()
    }

    /// The expanded secret key, 64 bytes, for a Tor implementation or a backup. The copy is the caller's to overwrite.
    pub fn expanded_secret_key(&self) -> Vec<u8> {
        self.inner.expanded_secret_key().to_vec()
    }
}

impl Identity {
    pub(crate) fn shared(inner: core::Identity) -> Arc<Self> {
        Arc::new(Self { inner })
    }
}

/// The secret key with which a client finds addresses that are hidden from others.
///
/// It proves nothing to a service, which sees the public half: use one for each service that should not learn that it has a
/// client in common with another.
#[derive(Debug, uniffi::Object)]
pub struct DiscoveryKey {
    pub(crate) inner: core::DiscoveryKey,
}

#[uniffi::export]
impl DiscoveryKey {
    /// Makes a new key from the operating system's random source.
    #[uniffi::constructor]
    pub fn generate() -> Arc<Self> {
        Self::shared(core::DiscoveryKey::generate())
    }

    /// Takes the 32 bytes of an X25519 secret, and clamps them as every use of them would.
    ///
    /// # Errors
    /// `InvalidInput` when they are not 32.
    #[uniffi::constructor]
    pub fn from_secret_bytes(secret: Vec<u8>) -> Result<Arc<Self>, HcpError> {
        let secret = Zeroizing::new(secret);
        let secret = Zeroizing::new(exactly("an X25519 secret", &secret)?);
        Ok(Self::shared(core::DiscoveryKey::from_secret_bytes(&secret)))
    }

    /// The 32 bytes of the secret, clamped, for a Tor implementation or a backup. The copy is the caller's to overwrite.
    pub fn secret_bytes(&self) -> Vec<u8> {
        self.inner.secret_bytes().to_vec()
    }

    /// The public half, for whoever serves the address.
    pub fn public_key(&self) -> Arc<DiscoveryPublicKey> {
        DiscoveryPublicKey::shared(self.inner.public_key())
    }

    /// The line that gives C tor this key for `address`, in a file NAME.auth_private of its `ClientOnionAuthDir`; its last part
    /// is what Tor Browser asks for. It holds the secret.
    pub fn c_tor_line(&self, address: Arc<OnionAddress>) -> String {
        self.inner.c_tor_line(address.inner).to_string()
    }
}

impl DiscoveryKey {
    pub(crate) fn shared(inner: core::DiscoveryKey) -> Arc<Self> {
        Arc::new(Self { inner })
    }
}

/// The public half of a [`DiscoveryKey`]. Its text is `descriptor:x25519:` and 52 characters, as in C tor's
/// authorized_clients.
#[derive(Clone, Copy, PartialEq, Eq, Hash, uniffi::Object)]
#[uniffi::export(Display, Eq, Hash)]
pub struct DiscoveryPublicKey {
    pub(crate) inner: core::DiscoveryPublicKey,
}

#[uniffi::export]
impl DiscoveryPublicKey {
    /// Parses the text of a key.
    ///
    /// # Errors
    /// `InvalidInput`, whose message says what is wrong with it.
    #[uniffi::constructor]
    pub fn parse(text: String) -> Result<Arc<Self>, HcpError> {
        Ok(Self::shared(text.parse()?))
    }

    /// Takes the 32 bytes of an X25519 public key after checking that it is one that protects something.
    ///
    /// # Errors
    /// `InvalidInput`.
    #[uniffi::constructor]
    pub fn from_bytes(key: Vec<u8>) -> Result<Arc<Self>, HcpError> {
        Ok(Self::shared(core::DiscoveryPublicKey::from_bytes(exactly("a public key", &key)?)?))
    }

    /// The 32 bytes of the X25519 public key.
    pub fn as_bytes(&self) -> Vec<u8> {
        self.inner.as_bytes().to_vec()
    }
}

impl DiscoveryPublicKey {
    fn shared(inner: core::DiscoveryPublicKey) -> Arc<Self> {
        Arc::new(Self { inner })
    }

    pub(crate) fn all(keys: &[Arc<Self>]) -> Vec<core::DiscoveryPublicKey> {
        keys.iter().map(|key| key.inner).collect()
    }
}

impl fmt::Display for DiscoveryPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl fmt::Debug for DiscoveryPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

/// A passphrase, overwritten when its last handle is dropped; the text that it was made of is not.
#[derive(Debug, uniffi::Object)]
pub struct Passphrase {
    pub(crate) inner: core::Passphrase,
}

#[uniffi::export]
impl Passphrase {
    /// Takes over `text`.
    ///
    /// # Errors
    /// `InvalidInput` when it is empty: it would protect nothing.
    #[uniffi::constructor]
    pub fn new(text: String) -> Result<Arc<Self>, HcpError> {
        Ok(Arc::new(Self { inner: core::Passphrase::new(text)? }))
    }
}

/// The bytes as an array, when they are as many as they must be.
pub(crate) fn exactly<const N: usize>(what: &str, bytes: &[u8]) -> Result<[u8; N], HcpError> {
    bytes.try_into().map_err(|_| HcpError::invalid(format!("{what} has {N} bytes, not {}", bytes.len())))
}
