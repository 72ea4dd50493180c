//! What a manifest must be, and each way in which something else is refused.

use curve25519_dalek::constants::EIGHT_TORSION;
use curve25519_dalek::edwards::CompressedEdwardsY;

use super::*;
use crate::identity::delegation::Validity;
use crate::identity::{DiscoveryKey, DiscoveryPublicKey, Identity, LogKey};

const NOW: u64 = 1_790_000_000;
const DAY: u64 = 86_400;

fn service() -> Identity {
    Identity::from_seed(&[1; 32])
}

fn owner() -> OwnerKey {
    OwnerKey::from_seed(&[2; 32])
}

fn certificate() -> OwnerCertificate {
    let validity = Validity::new(NOW - DAY, NOW + DAY).expect("in order");
    OwnerCertificate::issue(&service(), owner().public_key(), validity)
}

fn member(n: u8, role: Role) -> Member {
    let (address, log) = (Identity::from_seed(&[n; 32]).address(), LogKey::from_seed(&[n + 100; 32]));
    Member::new(address, log.public_key(), role).expect("two keys")
}

fn discovery(n: u8) -> DiscoveryPublicKey {
    DiscoveryKey::from_secret_bytes(&[n; 32]).public_key()
}

fn contents(version: u64) -> Contents {
    let members = vec![member(10, Role::Listed), member(11, Role::Publisher), member(12, Role::Publisher)];
    Contents::new(version, members).expect("good")
}

fn verify(bytes: &[u8]) -> Result<Manifest, ManifestError> {
    Manifest::verify(service().address(), &certificate(), bytes, NOW)
}

/// Signs what no tool of ours would.
fn forged(content: &[u8]) -> Vec<u8> {
    let signature = owner().sign(&signed(PURPOSE, service().address(), content));
    [content, &signature].concat()
}

fn good() -> Vec<u8> {
    Manifest::sign(&owner(), service().address(), contents(7)).expect("signed").to_bytes()
}

#[test]
fn says_what_the_owner_said_whatever_the_order_of_members() {
    let mut members = vec![
        member(12, Role::Publisher),
        member(10, Role::Listed).named("a-1").expect("a name"),
        member(11, Role::Publisher).with_discovery_key(discovery(11)),
    ];
    let lowest = SoftwareVersion::new(1, 2, 3);
    let made = |members: &[Member]| {
        let contents = Contents::new(7, members.to_vec()).expect("good").lowest_software(lowest);
        let contents = contents.shared(vec![9; Contents::MAX_SHARED]).expect("fits");
        Manifest::sign(&owner(), service().address(), contents).expect("signed").to_bytes()
    };
    let bytes = made(&members);
    let verified = verify(&bytes).expect("good");
    assert_eq!(verified.to_bytes(), bytes);
    members.reverse();
    assert_eq!(made(&members), bytes);
    let contents = verified.contents();
    assert_eq!((contents.version(), contents.members().len()), (7, 3));
    assert_eq!(contents.lowest_software_version(), lowest);
    assert_eq!(contents.shared_configuration(), [9; Contents::MAX_SHARED]);
    for wanted in &members {
        assert_eq!(contents.member(wanted.address()), Some(wanted));
    }
    assert_eq!(contents.member(members[1].address()).and_then(Member::name), Some("a-1"));
    assert_eq!(contents.member(members[0].address()).and_then(Member::discovery_key), Some(discovery(11)));
    assert_eq!((contents.discovery_keys(), contents.clients()), (None, &[][..]));
    assert_eq!(contents.member(service().address()), None);
    assert_eq!(verified.service(), service().address());
}

#[test]
fn the_largest_manifest_has_the_length_that_is_promised() {
    let many = (0..128).map(|n| {
        let (address, log) = (Identity::from_seed(&[n; 32]).address(), LogKey::from_seed(&[n + 128; 32]));
        let member = Member::new(address, log.public_key(), Role::Publisher).expect("two keys");
        member.named(&format!("{n:032}")).expect("a name").with_discovery_key(discovery(n))
    });
    let contents = Contents::new(1, many.collect()).expect("as many as may be");
    let contents = contents.shared(vec![0; Contents::MAX_SHARED]).expect("fits");
    assert_eq!(contents.clone().restricted_to((128..161).map(discovery)).err(), Some(ManifestError::Clients));
    let contents = contents.restricted_to((128..160).map(discovery)).expect("160 with the members");
    let service = Identity::from_seed(&[255; 32]);
    let bytes = Manifest::sign(&owner(), service.address(), contents).expect("signed").to_bytes();
    // Members and clients together are as many as there may be clients.
    assert_eq!(bytes.len(), Manifest::MAX_LEN - 128 * 32);
    assert!(Manifest::signed_by(service.address(), owner().public_key(), &bytes).is_ok());
}

#[test]
fn a_restricted_service_names_clients_besides_members_that_all_find_it() {
    let found = |n| member(n, Role::Publisher).with_discovery_key(discovery(n));
    let contents = || Contents::new(7, vec![found(10), found(11)]).expect("good");
    let restricted = |clients: &[u8]| contents().restricted_to(clients.iter().copied().map(discovery));
    let made = restricted(&[3, 1, 2]).expect("good");
    let bytes = Manifest::sign(&owner(), service().address(), made.clone()).expect("signed").to_bytes();
    let verified = verify(&bytes).expect("good");
    assert_eq!((verified.contents(), restricted(&[2, 3, 1]).as_ref()), (&made, Ok(&made)), "whatever their order");
    assert_eq!(verified.contents().clients().len(), 3);
    assert!((1..4).all(|n| verified.contents().clients().contains(&discovery(n))));
    let mut keys = verified.contents().discovery_keys().expect("all have one");
    keys.sort();
    let mut wanted = [discovery(10), discovery(11)];
    wanted.sort();
    assert_eq!(keys, wanted);

    for clients in [&[][..], &[1, 1], &[1, 10]] {
        assert_eq!(restricted(clients).err(), Some(ManifestError::Clients), "{clients:?}");
    }
    let hidden = Contents::new(7, vec![found(10), member(11, Role::Listed)]).expect("good");
    assert_eq!(hidden.restricted_to([discovery(1)]).err(), Some(ManifestError::HiddenFromMember));
}

#[test]
fn members_that_contradict_each_other_are_refused() {
    let new = |members: Vec<Member>| Contents::new(1, members).err();
    let (one, two) = (member(10, Role::Publisher), member(11, Role::Publisher));
    assert_eq!(new(vec![]), Some(ManifestError::NoMembers));
    assert_eq!(new(vec![one.clone(); 129]), Some(ManifestError::TooManyMembers));
    assert_eq!(new(vec![one.clone(), one.clone()]), Some(ManifestError::DuplicateMember));
    let other_log = Member::new(one.address(), LogKey::from_seed(&[99; 32]).public_key(), Role::Listed);
    assert_eq!(new(vec![one.clone(), other_log.expect("two keys")]), Some(ManifestError::DuplicateMember));
    let same_log = Member::new(two.address(), *one.log_key().as_bytes(), Role::Listed).expect("two keys");
    assert_eq!(new(vec![one.clone(), same_log]), Some(ManifestError::DuplicateMember));
    let crossed = Member::new(two.address(), *one.address().public_key(), Role::Listed).expect("two keys");
    assert_eq!(new(vec![one.clone(), crossed]), Some(ManifestError::DuplicateMember));
    let named = |member: Member| member.named("same").expect("a name");
    assert_eq!(new(vec![named(one.clone()), named(two.clone())]), Some(ManifestError::DuplicateMember));
    let found = |member: Member| member.with_discovery_key(discovery(1));
    assert_eq!(new(vec![found(one.clone()), found(two)]), Some(ManifestError::DuplicateMember));
    assert_eq!(new(vec![member(10, Role::Listed), member(11, Role::Listed)]), Some(ManifestError::NoPublisher));
    let own_address = *one.address().public_key();
    assert_eq!(Member::new(one.address(), own_address, Role::Listed).err(), Some(ManifestError::DuplicateMember));
    let as_member = Member::new(service().address(), [0; 32], Role::Publisher).err();
    assert_eq!(as_member, Some(ManifestError::NotAKey), "of small order");
    let log = LogKey::from_seed(&[98; 32]).public_key();
    let as_member = Member::new(service().address(), log, Role::Publisher).expect("two keys");
    let contents = Contents::new(1, vec![as_member]).expect("known only with the service");
    let error = Manifest::sign(&owner(), service().address(), contents).err();
    assert_eq!(error, Some(ManifestError::ServiceAsMember));
}

#[test]
fn names_are_short_and_plain() {
    for name in ["", "Paris", "a b", "é", "../x", &"a".repeat(33)] {
        assert_eq!(member(10, Role::Listed).named(name).err(), Some(ManifestError::Name), "{name}");
    }
    assert_eq!(member(10, Role::Listed).named("paris-1").expect("a name").name(), Some("paris-1"));
    assert_eq!(member(10, Role::Listed).name(), None);
    let too_long = contents(1).shared(vec![0; Contents::MAX_SHARED + 1]).err();
    assert_eq!(too_long, Some(ManifestError::SharedTooLong));
}

#[test]
fn every_altered_byte_is_noticed() {
    let good = good();
    assert!(verify(&good).is_ok());
    for place in 0..good.len() {
        let mut bad = good.clone();
        bad[place] ^= 1;
        assert_eq!(verify(&bad).err(), Some(ManifestError::Tampered), "byte {place}");
    }
    for len in 0..good.len() {
        let expected = if len < SIGNATURE_LEN { ManifestError::Malformed } else { ManifestError::Tampered };
        assert_eq!(verify(&good[..len]).err(), Some(expected), "{len} bytes");
    }
    assert_eq!(verify(&[0; Manifest::MAX_LEN + 1]).err(), Some(ManifestError::Malformed));
}

#[test]
fn what_the_owner_must_not_sign_is_refused_when_it_has() {
    let good = good();
    let content = &good[..good.len() - SIGNATURE_LEN];
    let with = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut content = content.to_vec();
        change(&mut content);
        verify(&forged(&content)).err()
    };
    // Layout, version (8), software (6), count (2), then members of 67 bytes without names and discovery keys.
    assert_eq!(with(&|_| ()), None);
    assert_eq!(with(&|c| c[0] = 2), Some(ManifestError::UnknownLayout));
    assert_eq!(with(&|c| c[16] = 129), Some(ManifestError::TooManyMembers));
    assert_eq!(with(&|c| c[15] = 1), Some(ManifestError::TooManyMembers));
    assert_eq!(with(&|c| c[16] = 4), Some(ManifestError::Malformed), "the configuration is no member");
    assert_eq!(with(&|c| c[17 + 64] = 2), Some(ManifestError::Malformed), "an unknown role");
    assert_eq!(with(&|c| c[17 + 65] = 1), Some(ManifestError::Name));
    assert_eq!(with(&|c| c[17 + 66] = 2), Some(ManifestError::NotAKey), "what follows is no discovery key");
    assert_eq!(with(&|c| c.push(0)), Some(ManifestError::Malformed));
    assert_eq!(with(&|c| c.truncate(c.len() - 1)), Some(ManifestError::Malformed));
    assert_eq!(with(&|c| drop(c.drain(1..))), Some(ManifestError::Malformed));
    assert_eq!(with(&|c| c.clear()), Some(ManifestError::Malformed));
    let (first, second) = (17..17 + 67, 17 + 67..17 + 134);
    let swapped = |c: &mut Vec<u8>| {
        let (a, b) = (c[first.clone()].to_vec(), c[second.clone()].to_vec());
        c.splice(17..17 + 134, [b, a].concat());
    };
    assert_eq!(with(&swapped), Some(ManifestError::Malformed), "members out of order");
    let twice = |c: &mut Vec<u8>| {
        let one = c[first.clone()].to_vec();
        c[second.clone()].copy_from_slice(&one);
    };
    assert_eq!(with(&twice), Some(ManifestError::DuplicateMember));
    let publishers_gone = |c: &mut Vec<u8>| (0..3).for_each(|n| c[17 + 67 * n + 64] = 0);
    assert_eq!(with(&publishers_gone), Some(ManifestError::NoPublisher));
    let nobody = |c: &mut Vec<u8>| {
        c.drain(17..17 + 3 * 67);
        c[16] = 0;
    };
    assert_eq!(with(&nobody), Some(ManifestError::NoMembers));
    let long = |c: &mut Vec<u8>| {
        let at = c.len() - 5;
        c[at..at + 4].copy_from_slice(&(Contents::MAX_SHARED as u32 + 1).to_be_bytes());
    };
    assert_eq!(with(&long), Some(ManifestError::SharedTooLong));
    for place in [17, 17 + 32] {
        let disguised = |c: &mut Vec<u8>| {
            let key: [u8; 32] = c[place..place + 32].try_into().expect("32 bytes");
            let point = CompressedEdwardsY(key).decompress().expect("a key") + EIGHT_TORSION[1];
            c[place..place + 32].copy_from_slice(point.compress().as_bytes());
        };
        assert_eq!(with(&disguised), Some(ManifestError::NotAKey), "a torsion component at {place}");
    }
}

#[test]
fn counts_for_its_service_and_while_the_owner_does() {
    let good = good();
    let other = Identity::from_seed(&[3; 32]);
    let of = |service: &Identity, certificate: &OwnerCertificate, now| {
        Manifest::verify(service.address(), certificate, &good, now).err()
    };
    let certificate = certificate();
    assert_eq!(of(&service(), &certificate, NOW), None);
    assert_eq!(of(&other, &certificate, NOW), Some(ManifestError::ForeignCertificate));
    assert_eq!(of(&service(), &certificate, NOW - 2 * DAY), Some(ManifestError::CertificateNotYetValid));
    assert_eq!(of(&service(), &certificate, NOW + 2 * DAY), Some(ManifestError::CertificateExpired));
    // The same owner key serves another service: a manifest is still for one.
    let validity = certificate.validity();
    let theirs = OwnerCertificate::issue(&other, owner().public_key(), validity);
    assert_eq!(of(&other, &theirs, NOW), Some(ManifestError::Tampered));
    let replaced = OwnerCertificate::issue(&service(), OwnerKey::from_seed(&[9; 32]).public_key(), validity);
    assert_eq!(of(&service(), &replaced, NOW), Some(ManifestError::Tampered));
}

#[test]
fn of_two_all_nodes_choose_the_same() {
    let sign = |contents| Manifest::sign(&owner(), service().address(), contents).expect("signed");
    let (old, new) = (sign(contents(7)), sign(contents(8)));
    assert!(new.supersedes(&old) && !old.supersedes(&new));
    let twins: Vec<_> =
        (0..8).map(|n| sign(contents(7).shared(vec![n]).expect("fits"))).chain([old.clone(), old.clone()]).collect();
    fn best<'m>(order: impl Iterator<Item = &'m Manifest>) -> Option<&'m Manifest> {
        order.reduce(|best, next| if next.supersedes(best) { next } else { best })
    }
    let (first, last) = (best(twins.iter()), best(twins.iter().rev()));
    assert_eq!(first.map(Manifest::to_bytes), last.map(Manifest::to_bytes));
    let smallest = twins.iter().map(|manifest| manifest.0.hash).min();
    assert_eq!(first.map(|manifest| manifest.0.hash), smallest);
    assert!(!old.supersedes(&old), "nothing to do about what is held already");
}

#[test]
fn nothing_here_prints_a_key_or_an_address() {
    let member = member(10, Role::Publisher).named("secret-place").expect("a name");
    let contents = Contents::new(7, vec![member]).expect("good");
    let manifest = Manifest::sign(&owner(), service().address(), contents).expect("signed");
    let printed = format!("{manifest:?}");
    assert!(printed.contains("version: 7") && printed.contains("Publisher"), "{printed}");
    assert!(!printed.contains("onion") && !printed.contains("secret-place"), "{printed}");
}

#[test]
fn software_versions_are_read_and_ordered() {
    let parse = |text: &str| text.parse::<SoftwareVersion>();
    assert_eq!(parse("1.2.3"), Ok(SoftwareVersion::new(1, 2, 3)));
    assert_eq!(parse("1.2.3-beta.1+x"), Ok(SoftwareVersion::new(1, 2, 3)));
    assert_eq!(parse("2"), Ok(SoftwareVersion::new(2, 0, 0)));
    assert!(parse("1.2.3.4").is_err() && parse("").is_err() && parse("1.x").is_err());
    assert!(SoftwareVersion::new(0, 10, 0) > SoftwareVersion::new(0, 9, 9));
    assert_eq!(SoftwareVersion::of_this_library().to_string(), env!("CARGO_PKG_VERSION"));
}
