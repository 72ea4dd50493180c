use super::*;
use crate::identity::manifest::ManifestError;
use crate::network::Period;

fn verify(node: &Node, bytes: &[u8]) -> Result<Grant, GrantError> {
    Grant::verify(&node.recipient, bytes, NOW)
}

#[tokio::test]
async fn a_grant_lets_its_node_speak_and_publish_for_the_horizon() {
    let mut service = Service::new(3);
    let grants = service.day(1).await;
    for (place, (node, bytes)) in service.nodes.iter().zip(&grants).enumerate() {
        let grant = verify(node, bytes).expect("good");
        assert_eq!(grant.to_bytes().as_slice(), bytes);
        assert_eq!((grant.node(), grant.serial(), grant.rounds.len()), (node.address(), 2, 2));
        assert_eq!(grant.speaks_until(), NOW + DAY - 1);
        assert_eq!(grant.manifest().to_bytes(), service.manifest.to_bytes());
        for round in &grant.rounds {
            assert!(grant.credentials(&node.recipient.seed, round).is_some());
        }
        let material: Vec<Period> =
            (0..grant.periods.len()).map(|n| grant.clock.period(grant.first_period + n as u64)).collect();
        if place == 2 {
            assert!(material.is_empty() && grant.publishes_until().is_none(), "it does not publish");
            continue;
        }
        // From the first half of a period to the first half of the next: the one before, both, and in between the next.
        let (first, last) = PeriodClock::TOR.needed(NOW, NOW + DAY - 1);
        assert_eq!((material.first(), material.last()), (Some(&first), Some(&last)));
        assert_eq!(material.len(), 3);
        assert_eq!(grant.publishes_until(), Some(last.end() + 18 * HOUR));
        for period in material {
            let held = grant.material(&node.recipient.seed, period).expect("granted");
            let public = ed25519_dalek::SigningKey::from_bytes(&held.signing_seed).verifying_key().to_bytes();
            let certificate = super::super::period::PeriodCertificate::from_bytes(
                held.certificate.as_slice().try_into().expect("the length of one"),
            );
            assert!(certificate.is_for(service.address(), period, &public));
        }
        assert!(grant.material(&node.recipient.seed, last.next().expect("not the last")).is_none());
    }
    let secret = |grant: &[u8], node: usize| {
        let grant = verify(&service.nodes[node], grant).expect("good");
        grant.periods[0].revision_secret.clone()
    };
    assert_eq!(secret(&grants[0], 0), secret(&grants[1], 1), "publishers count alike");
}

#[tokio::test]
async fn rounds_follow_each_other_without_a_gap_and_end_with_the_horizon() {
    let mut service = Service::new(1);
    for (hours, rounds) in [(1, 1), (23, 2), (23, 24), (100, 7), (24 * 7, 64)] {
        let Ok(horizon) = Horizon::new(NOW + 1234, hours, rounds) else {
            assert!(u32::from(rounds) > hours);
            continue;
        };
        let requests = service.requests(service.book.next_serial() + 1000);
        let grants = service.grant(&requests, horizon).await.expect("granted");
        let times: Vec<_> = grants[0].rounds.iter().map(|round| round.delegation.validity()).collect();
        assert_eq!(times.len(), usize::from(rounds));
        assert_eq!((times[0].not_before(), grants[0].speaks_until()), (NOW, NOW + (u64::from(hours) + 1) * HOUR - 1));
        for pair in times.windows(2) {
            assert!(pair[0].not_before() < pair[1].not_before() && pair[1].not_before() <= pair[0].not_after());
            assert!(pair[0].not_after() - pair[1].not_before() < 6 * HOUR);
            assert_eq!(pair[1].not_before() % HOUR, 0);
        }
    }
    for (hours, rounds) in [(0, 1), (1, 0), (1, 2), (Horizon::MAX_HOURS + 1, 1), (8000, 1201)] {
        assert_eq!(Horizon::new(NOW, hours, rounds), Err(MakeError::Horizon));
    }
}

#[tokio::test]
async fn any_altered_byte_of_a_grant_is_noticed() {
    let mut service = Service::new(2);
    let good = service.day(1).await.remove(0);
    let node = &service.nodes[0];
    assert!(verify(node, &good).is_ok());
    for place in 0..good.len() {
        let mut bad = good.clone();
        bad[place] ^= 1;
        let error = verify(node, &bad).err();
        let expected: &[_] = match place {
            0 => &[GrantError::UnknownLayout],
            1..33 => &[GrantError::ForeignService, GrantError::Malformed],
            33..65 => &[GrantError::ForeignNode, GrantError::Malformed],
            65..113 => &[GrantError::TamperedCertificate, GrantError::Malformed],
            113..177 => &[GrantError::TamperedCertificate],
            _ => &[GrantError::Tampered],
        };
        assert!(error.is_some_and(|error| expected.contains(&error)), "byte {place}: {error:?}");
    }
    for len in (0..good.len()).step_by(7) {
        assert!(verify(node, &good[..len]).is_err(), "{len} bytes");
    }
    assert_eq!(verify(node, &vec![1; Grant::MAX_LEN + 1]).err(), Some(GrantError::Malformed));
}

#[tokio::test]
async fn a_grant_is_for_one_node_one_service_and_its_time() {
    let (mut service, other) = (Service::new(2), Service::of_seed(5, 2));
    let grants = service.day(1).await;
    let node = &service.nodes[0];
    let at = |now| Grant::verify(&node.recipient, &grants[0], now).err();
    assert_eq!(at(NOW + DAY + 299), None);
    assert_eq!(at(NOW + DAY + 300), Some(GrantError::Over));
    assert_eq!(at(NOW - 2 * DAY), Some(GrantError::CertificateNotYetValid));
    assert_eq!(at(NOW + 500 * DAY), Some(GrantError::CertificateExpired));
    assert_eq!(verify(node, &grants[1]).err(), Some(GrantError::ForeignNode));
    assert_eq!(verify(&other.nodes[0], &grants[0]).err(), Some(GrantError::ForeignService));
    let replaced = ReplicaSeed::from_bytes(&[77; 32]);
    let replaced = Recipient::new(service.address(), node.address(), replaced);
    assert_eq!(Grant::verify(&replaced, &grants[0], NOW).err(), Some(GrantError::OtherSessionKey));
}

#[tokio::test]
async fn what_an_owner_must_not_sign_is_refused_when_it_has() {
    let service = Service::new(3);
    let other = Service::of_seed(5, 3);
    let requests = service.requests(1);
    let make = async |node: usize| {
        let mut book = service.book.clone();
        let Service { signer, key, certificate, revisions, manifest, .. } = &service;
        let owner = Owner { signer, key, certificate, revisions, manifest };
        owner.grant(&mut book, &requests[node..=node], horizon(23, 2)).await.expect("granted").remove(0)
    };
    let (one, listed) = (make(0).await, make(2).await);
    let two = make(1).await;
    let again = || verify(&service.nodes[0], &one.to_bytes()).expect("good");
    let refusal = |bytes: &[u8]| verify(&service.nodes[0], bytes).err();
    assert_eq!(refusal(&service.forge(again(), |_| ())), None);

    let of_other = other.manifest.clone();
    let bytes = service.forge(again(), |parts| parts.manifest = of_other);
    assert_eq!(refusal(&bytes), Some(GrantError::ForeignService), "the manifest's service is the grant's");
    let key = OwnerKey::from_seed(&[99; 32]);
    let foreign = manifest(&key, service.address(), 1, &service.nodes, 3);
    let bytes = service.forge(again(), |parts| parts.manifest = foreign);
    assert_eq!(refusal(&bytes), Some(GrantError::Manifest(ManifestError::Tampered)));
    let without = manifest(&service.key, service.address(), 2, &service.nodes[1..], 1);
    let bytes = service.forge(again(), |parts| parts.manifest = without);
    assert_eq!(refusal(&bytes), Some(GrantError::NotAMember));

    let bytes = service.forge(listed, |parts| {
        parts.periods = again().periods;
        parts.first_period = one.first_period;
    });
    assert_eq!(verify(&service.nodes[2], &bytes).err(), Some(GrantError::NotAPublisher));
    let bytes = service.forge(again(), |parts| parts.periods = two.periods);
    assert_eq!(refusal(&bytes), Some(GrantError::PeriodCertificate), "another node's");
    let bytes = service.forge(again(), |parts| parts.first_period += 1);
    assert_eq!(refusal(&bytes), Some(GrantError::PeriodCertificate), "of another period");
    let bytes = service.forge(again(), |parts| parts.periods.swap(0, 1));
    assert_eq!(refusal(&bytes), Some(GrantError::PeriodCertificate));
    let bytes = service.forge(again(), |parts| parts.rounds = two.rounds);
    assert_eq!(refusal(&bytes), Some(GrantError::OtherSessionKey), "another node's");
    let bytes = service.forge(again(), |parts| parts.rounds[0].number += 1);
    assert_eq!(refusal(&bytes), Some(GrantError::OtherSessionKey));
    let bytes = service.forge(again(), |parts| parts.rounds.swap(0, 1));
    assert_eq!(refusal(&bytes), Some(GrantError::Malformed), "serials go back");
    let bytes = service.forge(again(), |parts| parts.rounds.clear());
    assert_eq!(refusal(&bytes), Some(GrantError::Malformed), "no rounds");
    let delegated = |by: &OwnerKey, serial| {
        let session = service.nodes[0].recipient.seed.session_key(service.address(), 1).public_key();
        let validity = Validity::new(NOW, NOW + DAY).expect("in order");
        let round = crate::identity::delegation::Round::new(serial, serial, validity).expect("fits");
        by.delegate(service.address(), session, round)
    };
    let bytes = service.forge(again(), |parts| {
        parts.rounds.truncate(1);
        parts.rounds[0].delegation = delegated(&key, 9);
    });
    assert_eq!(refusal(&bytes), Some(GrantError::TamperedDelegation), "another owner's");
    let bytes = service.forge(again(), |parts| {
        parts.rounds.truncate(1);
        parts.rounds[0].delegation = delegated(&service.key, 9);
    });
    assert_eq!(refusal(&bytes), None);
}

#[tokio::test]
async fn the_largest_grant_fits() {
    // A year in as many rounds as there may be, for a publisher, with the longest configuration.
    let mut service = Service::new(1);
    let contents = Contents::new(1, service.manifest.contents().members().to_vec()).expect("good");
    let contents = contents.shared(vec![7; Contents::MAX_SHARED]).expect("fits");
    service.manifest = Manifest::sign(&service.key, service.address(), contents).expect("signed");
    let requests =
        [service.nodes[0].request(PeriodClock::TOR, (1, Request::MAX_SESSION_KEYS), Request::MAX_PERIODS, NOW)];
    let horizon = horizon(Horizon::MAX_HOURS, Request::MAX_SESSION_KEYS);
    let grant = service.grant(&requests, horizon).await.expect("granted").remove(0).to_bytes();
    assert!(grant.len() > 280_000 && grant.len() <= Grant::MAX_LEN, "{}", grant.len());
    assert!(verify(&service.nodes[0], &grant).is_ok());
}
