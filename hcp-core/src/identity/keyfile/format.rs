//! The bytes of a key file; no I/O here. The layout is in the parent's documentation.

use argon2::{Algorithm, Argon2, Block, Params, Version};
use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use sha2::{Digest, Sha512};
use zeroize::{Zeroize, Zeroizing};

use super::{Argon2Cost, Protection, SaveKeyError};
use crate::identity::Passphrase;
use crate::identity::delegation::ReplicaCredentials;
use crate::identity::key::random;

/// The length of the longest file: a replica's credentials, sealed.
pub(super) const MAX_LEN: usize = sealed_len(Purpose::Replica);

/// The length of a sealed file.
pub(super) const fn sealed_len(purpose: Purpose) -> usize {
    SEALED_PREFIX_LEN + purpose.secret_len() + TAG_LEN + CHECKSUM_LEN
}

/// What a key may be used for.
#[expect(unnameable_types, reason = "appears in a sealed trait only")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    Address = 1,
    Log = 2,
    #[cfg(feature = "messenger")]
    Database = 3,
    Owner = 4,
    Session = 5,
    Replica = 6,
    ReplicaSeed = 7,
    Discovery = 8,
    RevisionSeed = 9,
}

impl Purpose {
    /// How many bytes are kept for it.
    const fn secret_len(self) -> usize {
        match self {
            Self::Replica => ReplicaCredentials::STORED_LEN,
            Self::ReplicaSeed | Self::RevisionSeed => SEED_LEN,
            Self::Discovery => X25519_LEN,
            _ => KEY_PAIR_LEN,
        }
    }
}

/// Why bytes are not a key file that can be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DecodeError {
    Magic,
    Version,
    Purpose,
    Damaged,
    Cost,
    Unsealing,
    Sealed,
    NotSealed,
}

pub(super) fn encode(
    purpose: Purpose,
    secret: &[u8],
    protection: &Protection,
    cost: Argon2Cost,
) -> Result<Zeroizing<Vec<u8>>, SaveKeyError> {
    if secret.len() != purpose.secret_len() {
        return Err(SaveKeyError::Seal);
    }
    // Never grows, so that no copy of a plain key stays behind in memory.
    let mut out = Zeroizing::new(Vec::with_capacity(MAX_LEN));
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&[VERSION, purpose as u8]);
    match protection {
        Protection::Plain => {
            out.push(PLAIN);
            out.extend_from_slice(secret);
        }
        Protection::Passphrase(passphrase) => {
            let mut salt_and_nonce = [0; SALT_LEN + NONCE_LEN];
            random(&mut salt_and_nonce);
            out.push(SEALED);
            for field in [cost.memory_kib, cost.passes, cost.lanes] {
                out.extend_from_slice(&field.to_be_bytes());
            }
            out.extend_from_slice(&salt_and_nonce);
            let (salt, nonce) = salt_and_nonce.split_at(SALT_LEN);
            let key = sealing_key(passphrase, salt, cost).ok_or(SaveKeyError::Seal)?;
            let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| SaveKeyError::Seal)?;
            let mut text = Zeroizing::new(secret.to_vec());
            let tag = key
                .seal_in_place_separate_tag(nonce, Aad::from(out.as_slice()), &mut text)
                .map_err(|_| SaveKeyError::Seal)?;
            out.extend_from_slice(text.as_slice());
            out.extend_from_slice(tag.as_ref());
        }
    }
    let sum = checksum(&out);
    out.extend_from_slice(&sum);
    Ok(out)
}

pub(super) fn decode(
    purpose: Purpose,
    bytes: &[u8],
    protection: &Protection,
) -> Result<Zeroizing<Vec<u8>>, DecodeError> {
    // Magic and version go before the checksum: another version may have another one.
    let (prefix, _) = bytes.split_first_chunk::<PREFIX_LEN>().ok_or(DecodeError::Magic)?;
    let [magic @ .., version, found_purpose, found_protection] = prefix;
    if magic != MAGIC {
        return Err(DecodeError::Magic);
    }
    if *version != VERSION {
        return Err(DecodeError::Version);
    }
    let (covered, sum) = bytes.split_last_chunk::<CHECKSUM_LEN>().ok_or(DecodeError::Damaged)?;
    if *sum != checksum(covered) {
        return Err(DecodeError::Damaged);
    }
    let body = covered.get(PREFIX_LEN..).ok_or(DecodeError::Damaged)?;
    if *found_purpose != purpose as u8 {
        return Err(DecodeError::Purpose);
    }
    match (*found_protection, protection) {
        (PLAIN, Protection::Plain) if body.len() == purpose.secret_len() => Ok(Zeroizing::new(body.to_vec())),
        (SEALED, Protection::Passphrase(passphrase)) => open(purpose, covered, passphrase),
        (PLAIN, Protection::Passphrase(_)) => Err(DecodeError::NotSealed),
        (SEALED, Protection::Plain) => Err(DecodeError::Sealed),
        _ => Err(DecodeError::Damaged),
    }
}

fn open(purpose: Purpose, covered: &[u8], passphrase: &Passphrase) -> Result<Zeroizing<Vec<u8>>, DecodeError> {
    let (header, sealed) = covered.split_first_chunk::<SEALED_PREFIX_LEN>().ok_or(DecodeError::Damaged)?;
    let (text, tag) = sealed.split_at_checked(purpose.secret_len()).ok_or(DecodeError::Damaged)?;
    let (cost, salt_and_nonce) = header[PREFIX_LEN..].split_at(COST_LEN);
    let (salt, nonce) = salt_and_nonce.split_at(SALT_LEN);
    let cost = cost_of(cost)?;
    let key = sealing_key(passphrase, salt, cost).ok_or(DecodeError::Cost)?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| DecodeError::Damaged)?;
    let mut secret = Zeroizing::new(text.to_vec());
    key.open_in_place_separate_tag(nonce, Aad::from(header), tag, &mut secret).map_err(|_| DecodeError::Unsealing)?;
    Ok(secret)
}

/// Reads the cost and bounds it: nothing is allocated for a file that demands more.
fn cost_of(bytes: &[u8]) -> Result<Argon2Cost, DecodeError> {
    let mut fields = bytes.chunks_exact(4).map(|f| u32::from_be_bytes([f[0], f[1], f[2], f[3]]));
    let mut next = || fields.next().ok_or(DecodeError::Damaged);
    Argon2Cost::new(next()?, next()?, next()?).map_err(|_| DecodeError::Cost)
}

/// Derives the sealing key; `None` when Argon2 refuses its parameters or the memory cannot be had.
fn sealing_key(passphrase: &Passphrase, salt: &[u8], cost: Argon2Cost) -> Option<LessSafeKey> {
    let params = Params::new(cost.memory_kib, cost.passes, cost.lanes, Some(KEY_LEN)).ok()?;
    let mut memory = Vec::new();
    memory.try_reserve_exact(params.block_count()).ok()?;
    memory.resize(params.block_count(), Block::new());
    let mut key = Zeroizing::new([0; KEY_LEN]);
    let done = Argon2::new(Algorithm::Argon2id, Version::V0x13, params).hash_password_into_with_memory(
        passphrase.as_bytes(),
        salt,
        key.as_mut_slice(),
        &mut memory,
    );
    memory.iter_mut().for_each(Zeroize::zeroize);
    done.ok()?;
    UnboundKey::new(&CHACHA20_POLY1305, key.as_slice()).ok().map(LessSafeKey::new)
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM_LEN] {
    let mut sum = [0; CHECKSUM_LEN];
    sum.copy_from_slice(&Sha512::digest(bytes)[..CHECKSUM_LEN]);
    sum
}

pub(super) const MAGIC: &[u8; 8] = b"HCP-KEY\0";
const VERSION: u8 = 1;
const PLAIN: u8 = 0;
const SEALED: u8 = 1;
/// Magic, version, purpose, protection.
const PREFIX_LEN: usize = 11;
const COST_LEN: usize = 12;
const SALT_LEN: usize = 16;
const NONCE_LEN: usize = 12;
const SEALED_PREFIX_LEN: usize = PREFIX_LEN + COST_LEN + SALT_LEN + NONCE_LEN;
/// An expanded secret key, or two keys of 32 bytes.
const KEY_PAIR_LEN: usize = 64;
const SEED_LEN: usize = 32;
/// An X25519 secret.
const X25519_LEN: usize = 32;
const KEY_LEN: usize = 32;
const TAG_LEN: usize = 16;
const CHECKSUM_LEN: usize = 32;

/// Replaces the checksum, as somebody who alters a file on purpose would; of bytes too few for one, nothing.
#[cfg(any(test, feature = "testing"))]
pub(super) fn fix_checksum(bytes: &mut [u8]) {
    if let Some((covered, sum)) = bytes.split_last_chunk_mut::<CHECKSUM_LEN>() {
        *sum = checksum(covered);
    }
}

/// Whether opening the file costs no more than the least that one may.
#[cfg(feature = "testing")]
pub(super) fn is_cheap(bytes: &[u8]) -> bool {
    let cost = bytes.get(PREFIX_LEN..PREFIX_LEN + COST_LEN).and_then(|cost| cost_of(cost).ok());
    cost.is_none_or(|cost| cost.memory_kib == *Argon2Cost::MEMORY_KIB.start() && cost.passes == 1 && cost.lanes == 1)
}
