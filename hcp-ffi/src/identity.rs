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
