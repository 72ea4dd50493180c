//! Reads documents of a fixed layout field by field: no length is believed before it is checked, nothing is allocated.

use super::OnionAddress;
use super::delegation::{PublicKey, Validity};

/// What is left of a document; every reader is `None` where the document is too short or the field is not what it must be.
pub(crate) struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    pub(crate) fn new(document: &'a [u8]) -> Self {
        Self(document)
    }

    pub(crate) fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*field)
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Option<&'a [u8]> {
        let (field, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(field)
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.take().map(u8::from_be_bytes)
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_be_bytes)
    }

    pub(crate) fn key(&mut self) -> Option<PublicKey> {
        PublicKey::from_bytes(self.take()?).ok()
    }

    pub(crate) fn address(&mut self) -> Option<OnionAddress> {
        OnionAddress::from_public_key(self.take()?).ok()
    }

    pub(crate) fn validity(&mut self) -> Option<Validity> {
        Validity::new(self.u64()?, self.u64()?).ok()
    }

    /// `None` when something is left over.
    pub(crate) fn end(self) -> Option<()> {
        self.0.is_empty().then_some(())
    }
}
