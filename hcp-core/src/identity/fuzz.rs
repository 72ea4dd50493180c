//! Arbitrary bytes as addresses, keys, key files, certificates, delegations and manifests.

use std::sync::LazyLock;

use super::delegation::{
    Delegation, OwnerCertificate, OwnerKey, PublicKey, ReplicaCredentials, Round, SerialFloors, SessionKey, Validity,
    verify,
};
use super::manifest::Manifest;
use super::{DiscoveryKey, DiscoveryPublicKey, Identity, OnionAddress, Passphrase, ReplicaSeed, ctor, keyfile};

/// As text and as a public key, of an address and for discovery.
pub(crate) fn address(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(address) = text.parse::<OnionAddress>()
    {
        let printed = address.to_string();
        assert_eq!(printed.trim_end_matches(".onion"), text.to_ascii_lowercase().trim_end_matches(".onion"));
        assert_eq!(printed.parse(), Ok(address));
    }
    if let Ok(key) = data.try_into()
        && let Ok(address) = OnionAddress::from_public_key(key)
    {
        assert_eq!(address.to_string().parse(), Ok(address));
    }
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(key) = text.parse::<DiscoveryPublicKey>()
    {
        assert!(key.to_string().eq_ignore_ascii_case(text));
        assert_eq!(key.to_string().parse(), Ok(key));
    }
    if let Ok(key) = data.try_into()
        && let Ok(key) = DiscoveryPublicKey::from_bytes(key)
    {
        assert_eq!(key.to_string().parse(), Ok(key));
    }
}

/// As the content of C tor's `hs_ed25519_secret_key`.
pub(crate) fn tor_key(data: &[u8]) {
    if let Ok(identity) = ctor::decode_secret_key(data) {
        assert_eq!(*identity.expanded_secret_key(), data[32..]);
        assert!(identity.address().verify(b"fuzz", &identity.sign(b"fuzz")).is_ok());
    }
}

/// As a key file of each purpose, plain and sealed, as it is and with the checksum that fits.
pub(crate) fn key_file(data: &[u8]) {
    keyfile::fuzz::decode::<Identity>(data, &PASSPHRASE);
    keyfile::fuzz::decode::<OwnerKey>(data, &PASSPHRASE);
    keyfile::fuzz::decode::<SessionKey>(data, &PASSPHRASE);
    keyfile::fuzz::decode::<DiscoveryKey>(data, &PASSPHRASE);
    keyfile::fuzz::decode::<ReplicaCredentials>(data, &PASSPHRASE);
    keyfile::fuzz::decode::<ReplicaSeed>(data, &PASSPHRASE);
}

/// The clock of the delegations that are good.
const NOW: u64 = 1_790_000_000;
static PASSPHRASE: LazyLock<Passphrase> = LazyLock::new(|| Passphrase::new("fuzz").expect("not empty"));

/// The service and the session key of `tests/vectors/delegation.json`, and its owner's.
struct Known {
    service: OnionAddress,
    owner: OwnerKey,
    owner_public: PublicKey,
    session: PublicKey,
    certified: Identity,
}

static KNOWN: LazyLock<Known> = LazyLock::new(|| {
    let (certified, owner) = (Identity::from_seed(&[1; 32]), OwnerKey::from_seed(&[2; 32]));
    Known {
        service: certified.address(),
        owner_public: owner.public_key(),
        owner,
        session: SessionKey::from_seed(&[3; 32]).public_key(),
        certified,
    }
});

/// As the certificate, the delegation and the clock (Unix seconds, big-endian) of whoever shows the known session key.
///
/// What is taken must be to the byte what the owner would sign: signatures are deterministic and strict.
pub(crate) fn delegation(data: &[u8]) {
    let certificate = &data[..data.len().min(OwnerCertificate::LEN)];
    let rest = &data[certificate.len()..];
    let delegation = &rest[..rest.len().min(Delegation::LEN)];
    let now = rest[delegation.len()..].first_chunk().map_or(NOW, |now| u64::from_be_bytes(*now));
    let certified = OwnerCertificate::from_bytes(certificate);
    if let Ok(parsed) = &certified {
        assert_eq!(parsed.to_bytes(), *certificate);
    }
    if let Ok(parsed) = Delegation::from_bytes(delegation) {
        assert_eq!(parsed.to_bytes(), *delegation);
    }
    let (known, floors) = (&*KNOWN, SerialFloors::new());
    let verified = verify(known.service, certificate, delegation, known.session.as_bytes(), now, &floors);
    match (verified, certified) {
        (Ok(verified), Ok(certified)) => {
            let issued = OwnerCertificate::issue(&known.certified, known.owner_public, certified.validity());
            assert!(certified == issued, "a certificate that nobody signed");
            let round = Round::new(verified.serial(), verified.lowest_serial(), verified.validity());
            let round = round.expect("a serial below its own floor is refused");
            assert!(known.owner.delegate(known.service, known.session, round) == verified, "nobody signed it");
            assert!(in_time(certified.validity(), now) && in_time(verified.validity(), now));
            assert_eq!(floors.floor(known.service), verified.lowest_serial());
        }
        (Ok(_), Err(_)) => panic!("a certificate that cannot be read was taken"),
        (Err(_), _) => assert_eq!(floors.export(), []),
    }
}

/// As a manifest of the known service, and with the owner's signature behind it: what is taken is to the byte what would be
/// sent, and the owner has signed it.
pub(crate) fn manifest(data: &[u8]) {
    let known = &*KNOWN;
    let take = |bytes: &[u8]| Manifest::signed_by(known.service, known.owner_public, bytes);
    if let Ok(manifest) = take(data) {
        let again = Manifest::sign(&known.owner, known.service, manifest.contents().clone());
        assert!(again.is_ok_and(|again| again.to_bytes() == data), "nobody signed it");
    }
    let signature = known.owner.sign(&super::delegation::signed(b"HCP/1 manifest\0", known.service, data));
    let bytes = [data, &signature].concat();
    if let Ok(manifest) = take(&bytes) {
        assert_eq!(manifest.to_bytes(), bytes);
        assert!(bytes.len() <= Manifest::MAX_LEN && !manifest.supersedes(&manifest));
        let contents = manifest.contents();
        assert!(contents.members().iter().all(|member| contents.member(member.address()) == Some(member)));
        assert!(contents.members().iter().any(|member| member.is_publisher()));
    }
}

fn in_time(validity: Validity, now: u64) -> bool {
    // In wider numbers than the code that is looked at.
    let (now, skew) = (i128::from(now), i128::from(super::delegation::CLOCK_SKEW));
    i128::from(validity.not_before()) - skew <= now && now <= i128::from(validity.not_after()) + skew
}
