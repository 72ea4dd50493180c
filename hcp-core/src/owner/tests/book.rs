use super::*;

#[tokio::test]
async fn a_book_is_kept_and_read_back() {
    let mut service = Service::new(3);
    service.day(1).await;
    service.book.revoke(service.nodes[1].address(), NOW).expect("known");
    let bytes = service.book.to_bytes();
    let read = Book::from_bytes(&bytes).expect("good");
    assert!(read == service.book);
    assert_eq!((read.service(), read.clock(), read.next_serial()), (service.address(), PeriodClock::TOR, 3));
    assert!(read.is_revoked(service.nodes[1].address()) && !read.is_revoked(service.nodes[0].address()));
    for len in 0..bytes.len() {
        assert_eq!(Book::from_bytes(&bytes[..len]).err(), Some(BookError::Malformed), "{len} bytes");
    }
    assert!(Book::from_bytes(&[bytes, vec![0]].concat()).is_err());
}

#[tokio::test]
async fn serials_and_session_keys_are_given_out_once() {
    let mut service = Service::new(2);
    let requests = service.requests(1);
    let mut serials = Vec::new();
    let mut numbers = Vec::new();
    for _ in 0..3 {
        let grants = service.grant(&requests, horizon(23, 3)).await.expect("granted");
        serials.extend(grants[0].rounds.iter().map(|round| round.delegation.serial()));
        numbers.extend(grants[0].rounds.iter().map(|round| round.number));
    }
    assert_eq!(serials, (1..=9).collect::<Vec<_>>());
    assert_eq!(numbers, (1..=9).collect::<Vec<_>>());
    service.book.skip_serials(100);
    service.book.skip_serials(50);
    let grants = service.grant(&requests, horizon(23, 1)).await.expect("granted");
    assert_eq!(grants[1].serial(), 100);
}

#[tokio::test]
async fn what_cannot_be_granted_is_named_and_the_book_stays_as_it_was() {
    let mut service = Service::new(3);
    let other = Service::of_seed(5, 3);
    let requests = service.requests(1);
    let of = |n: usize| service.nodes[n].address();
    let (first, second, stranger) = (of(0), of(1), Node::new(service.address(), 50));
    let short = service.nodes[0].request(PeriodClock::TOR, (1, 2), 40, NOW);
    let few = service.nodes[0].request(PeriodClock::TOR, (1, 64), 2, NOW);
    let unnamed = stranger.request(PeriodClock::TOR, (1, 64), 40, NOW);
    let quick = PeriodClock::of_minutes(8).expect("a clock");
    let elsewhere = service.nodes[0].request(quick, (1, 64), 40, NOW);
    let twice = [requests[1].clone(), requests[1].clone()];
    service.day(100).await;
    service.book.revoke(second, NOW).expect("known");
    let before = service.book.clone();
    let week = horizon(24 * 7, 3);
    for (given, expected) in [
        (&requests[1..2], MakeError::Revoked(second)),
        (&[short], MakeError::SessionKeysUsedUp(first)),
        (&[few], MakeError::SessionKeysUsedUp(first)),
        (&[unnamed], MakeError::NotAMember(stranger.address())),
        (&[elsewhere], MakeError::OtherClock(first)),
        (&twice, MakeError::Revoked(second)),
        (&other.requests(1)[..1], MakeError::ForeignService),
    ] {
        assert_eq!(service.grant(given, week).await.err(), Some(expected));
        assert!(service.book == before);
        assert_eq!(expected.kind(), crate::error::ErrorKind::InvalidInput);
    }
    let few = service.nodes[0].request(PeriodClock::TOR, (1000, 64), 2, NOW);
    assert_eq!(service.grant(&[few], week).await.err(), Some(MakeError::PeriodsMissing(first)));
    let again = service.nodes[0].request(PeriodClock::TOR, (1000, 64), 40, NOW);
    let twice = [again.clone(), again.clone()];
    assert_eq!(service.grant(&twice, week).await.err(), Some(MakeError::Twice(first)));
    let long = horizon(Horizon::MAX_HOURS, 1);
    let ends = NOW + 300 * DAY;
    service.certificate = certificate(&service, ends);
    assert_eq!(service.grant(std::slice::from_ref(&again), long).await.err(), Some(MakeError::CertificateEnds));
    service.key = other.key.clone();
    assert_eq!(service.grant(&[again], week).await.err(), Some(MakeError::ForeignCertificate));
    assert!(service.book == before);
}

fn certificate(service: &Service, not_after: u64) -> OwnerCertificate {
    let validity = Validity::new(NOW - DAY, not_after).expect("in order");
    OwnerCertificate::issue(&service.identity, service.key.public_key(), validity)
}

#[tokio::test]
async fn exposure_is_what_was_handed_out_and_what_a_warden_holds() {
    let mut service = Service::new(3);
    let requests = service.requests(1);
    let Service { signer, key, certificate, revisions, manifest, book, nodes, .. } = &mut service;
    let owner = Owner { signer, key, certificate, revisions, manifest };
    owner.schedule(book, &requests, horizon(24 * 7 - 1, 7)).await.expect("made");
    let of = |node: usize, now| {
        let exposure = book.exposure(now).into_iter().find(|exposure| exposure.node == nodes[node].address());
        exposure.expect("in the book")
    };
    let (publisher, listed) = (of(0, NOW), of(2, NOW));
    assert_eq!((publisher.serial, publisher.is_revoked, publisher.is_withdrawn), (1, false, false));
    // A day, and the overlap of a quarter of it, at most six hours.
    assert_eq!(publisher.speaks_until, Some(NOW + 30 * HOUR - 1));
    assert_eq!(publisher.speaks_until_with_warden, Some(NOW + 7 * DAY - 1));
    let last = |to| PeriodClock::TOR.needed(to, to).1.end() + 18 * HOUR;
    assert_eq!(publisher.publishes_until, Some(last(NOW + 30 * HOUR - 1)));
    assert_eq!(publisher.publishes_until_with_warden, Some(last(NOW + 7 * DAY - 1)));
    assert_eq!((listed.speaks_until, listed.publishes_until), (publisher.speaks_until, None));
    assert_eq!(listed.publishes_until_with_warden, None);
    assert_eq!(of(0, NOW + 18 * HOUR).serial, 2, "the next one was handed out six hours before");
    let later = of(0, NOW + 8 * DAY);
    assert_eq!(later.speaks_until, None);
    assert!(later.publishes_until.is_some(), "material outlives the horizon, to the end of its periods");
    assert_eq!(of(0, NOW + 20 * DAY).publishes_until, None);
}

#[tokio::test]
async fn a_revoked_node_is_withdrawn_once_the_others_have_renewed() {
    let mut service = Service::new(3);
    service.day(1).await;
    let (lost, others) = (service.nodes[2].address(), [0, 1]);
    assert_eq!(service.book.raise_floor(NOW), Err(BookError::NothingRevoked));
    let stranger = Identity::from_seed(&[60; 32]).address();
    assert_eq!(service.book.revoke(stranger, NOW).err(), Some(BookError::UnknownNode));
    let exposure = service.book.revoke(lost, NOW).expect("known");
    assert_eq!((exposure.speaks_until, exposure.is_withdrawn), (Some(NOW + DAY - 1), false));
    assert!(matches!(service.book.raise_floor(NOW), Err(BookError::NotRenewed(node)) if node != lost));

    let folder = tempfile::tempdir().expect("a temporary folder");
    let renew = async |service: &mut Service, first| {
        let requests: Vec<_> = others.iter().map(|node| service.requests(first).swap_remove(*node)).collect();
        service.grant(&requests, horizon(23, 2)).await.expect("granted")
    };
    let renewed = renew(&mut service, 100).await;
    assert_eq!(renewed[0].rounds[0].delegation.lowest_serial(), 0, "the others first");
    assert_eq!(service.book.raise_floor(NOW), Ok(3));
    assert_eq!(service.book.raise_floor(NOW), Err(BookError::NothingRevoked));
    let withdrawn = service.book.exposure(NOW).into_iter().find(|exposure| exposure.node == lost).expect("known");
    assert!(withdrawn.is_withdrawn && withdrawn.speaks_until.is_some());
    let raised = renew(&mut service, 200).await;
    assert!(raised.iter().all(|grant| grant.rounds.iter().all(|round| round.delegation.lowest_serial() == 3)));

    // A dialler that has seen a renewed node takes the revoked one no more.
    let mut holdings = service.nodes[0].holdings(folder.path());
    holdings.import(&raised[0].to_bytes(), NOW).expect("taken");
    let floors = crate::identity::delegation::SerialFloors::new();
    let dial = |certificate: &OwnerCertificate, delegation: &[u8], key: &[u8; 32]| {
        let certificate = certificate.to_bytes();
        crate::identity::delegation::verify(service.address(), &certificate, delegation, key, NOW, &floors).map(drop)
    };
    let good = holdings.credentials(NOW).expect("speaks");
    let key = good.session_key().public_key();
    assert_eq!(dial(good.certificate(), &good.delegation().to_bytes(), key.as_bytes()), Ok(()));
    let mut before = Service::new(3);
    let lost_grant = before.day(1).await.remove(2);
    let lost_grant = Grant::verify(&service.nodes[2].recipient, &lost_grant, NOW).expect("it has it still");
    let lost_round = &lost_grant.rounds[0].delegation;
    let refused = dial(&service.certificate, &lost_round.to_bytes(), lost_round.session_key().as_bytes());
    assert_eq!(refused, Err(crate::identity::delegation::DelegationError::BelowFloor));
}
