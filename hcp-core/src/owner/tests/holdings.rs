use std::fs;

use super::*;

/// As many steps as there are rounds, each for every node, in order.
async fn steps(service: &mut Service, first_number: u64, horizon: Horizon) -> Vec<(u64, OnionAddress, Vec<u8>)> {
    let requests = service.requests(first_number);
    let Service { signer, key, certificate, revisions, manifest, book, .. } = service;
    let owner = Owner { signer, key, certificate, revisions, manifest };
    let schedule = owner.schedule(book, &requests, horizon).await.expect("made");
    schedule
        .map(|step| step.expect("made"))
        .map(|step| (step.hand_out, step.grant.node(), step.grant.to_bytes().to_vec()))
        .collect()
}

#[tokio::test]
async fn a_grant_survives_a_restart_and_comes_into_force_in_a_running_node() {
    let mut service = Service::new(2);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let grants = service.day(1).await;
    let node = &service.nodes[0];
    let mut running = node.holdings(folder.path());
    assert!(running.credentials(NOW).is_none() && running.manifest().is_none());
    assert_eq!(running.left(NOW), Left::default());
    assert_eq!(running.refresh(NOW).ok(), Some(false));

    // Another process brings it.
    let mut other = node.holdings(folder.path());
    assert_eq!(other.import(&grants[0], NOW).ok(), Some(Import::Taken));
    assert_eq!(other.import(&grants[0], NOW).ok(), Some(Import::Held));
    assert_eq!(running.refresh(NOW).ok(), Some(true));
    assert_eq!(running.refresh(NOW).ok(), Some(false));
    for holdings in [&running, &other, &node.holdings(folder.path())] {
        let credentials = holdings.credentials(NOW).expect("held");
        assert_eq!((credentials.service(), credentials.delegation().serial()), (service.address(), 1));
        assert_eq!(holdings.manifest().map(Manifest::to_bytes), Some(service.manifest.to_bytes()));
        assert!(holdings.material(PeriodClock::TOR.at(NOW)).is_some());
        assert_eq!(holdings.problems(), []);
    }
}

#[tokio::test]
async fn a_node_speaks_with_the_newest_delegation_whose_time_it_is() {
    let mut service = Service::new(2);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let grants = service.day(1).await;
    let mut holdings = service.nodes[0].holdings(folder.path());
    holdings.import(&grants[0], NOW).expect("taken");
    let serial = |now| holdings.credentials(now).map(|credentials| credentials.delegation().serial());
    assert_eq!((serial(NOW - 1), serial(NOW), serial(NOW + 12 * HOUR - 1)), (None, Some(1), Some(1)));
    assert_eq!((serial(NOW + 12 * HOUR), serial(NOW + DAY - 1), serial(NOW + DAY)), (Some(2), Some(2), None));
    assert_eq!(holdings.next_change(NOW), Some(NOW + 12 * HOUR));
    assert_eq!(holdings.next_change(NOW + DAY), None);
    let left = holdings.left(NOW);
    assert_eq!(left.speaks_until, Some(NOW + DAY));
    // The next but one period would be wanted from the middle of the next one on.
    assert_eq!(left.publishes_until, Some(PeriodClock::TOR.at(NOW + DAY).end() - 12 * HOUR));
    assert_eq!(holdings.left(NOW + 2 * DAY), Left::default());
}

#[tokio::test]
async fn a_newer_grant_that_begins_later_leaves_the_older_one_in_force() {
    let mut service = Service::new(2);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let steps = steps(&mut service, 1, horizon(47, 4)).await;
    let node = service.nodes[0].address();
    let mut holdings = service.nodes[0].holdings(folder.path());
    let mut serials = Vec::new();
    for (hand_out, _, grant) in steps.iter().filter(|(_, whose, _)| *whose == node) {
        let now = NOW.max(*hand_out);
        assert_eq!(holdings.import(grant, now).ok(), Some(Import::Taken));
        let left = holdings.left(now);
        assert!(left.speaks_until.is_some_and(|until| until > now + 3 * HOUR), "{left:?}");
        assert!(left.publishes_until.is_some(), "handed out in time");
        serials.push(holdings.credentials(now).expect("speaks").delegation().serial());
    }
    assert_eq!(serials, [1, 1, 2, 3], "each comes into force after it was handed out");
    let kept = || fs::read_dir(folder.path()).expect("readable").count();
    assert_eq!(kept(), 2, "those that have ended are gone");
}

#[tokio::test]
async fn at_any_time_a_warden_has_handed_out_what_a_node_needs_and_not_much_more() {
    let mut service = Service::new(2);
    let steps = steps(&mut service, 1, horizon(24 * 7 - 1, 28)).await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut holdings = service.nodes[0].holdings(folder.path());
    let own: Vec<_> = steps.iter().filter(|(_, whose, _)| *whose == service.nodes[0].address()).collect();
    let mut now = NOW;
    while now < NOW + 7 * DAY {
        let due = own.iter().rfind(|(hand_out, ..)| *hand_out <= now).expect("the first at once");
        holdings.import(&due.2, now).expect("taken or held");
        let (credentials, left) = (holdings.credentials(now), holdings.left(now));
        assert!(credentials.is_some() && left.publishes_until.is_some(), "{} h", (now - NOW) / HOUR);
        assert!(left.speaks_until.is_some_and(|until| until <= now + 10 * HOUR), "{} h", (now - NOW) / HOUR);
        now += HOUR;
    }
    assert!(holdings.credentials(now).is_none(), "the horizon is over");
}

#[tokio::test]
async fn what_is_older_or_different_is_refused_by_name_and_nothing_is_lost() {
    let mut service = Service::new(2);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut twin = Service::new(2);
    let (old, new) = (service.day(1).await, service.day(100).await);
    let twins = [twin.day(1).await, twin.day(200).await];
    let mut holdings = service.nodes[0].holdings(folder.path());
    holdings.import(&new[0], NOW).expect("taken");
    assert!(matches!(holdings.import(&old[0], NOW), Err(ImportError::Older)));
    assert!(matches!(holdings.import(&twins[0][0], NOW), Err(ImportError::Older)));
    assert!(matches!(holdings.import(&twins[1][0], NOW), Err(ImportError::NotNewer)));
    assert!(matches!(holdings.import(&new[1], NOW), Err(ImportError::Grant(GrantError::ForeignNode))));
    let mut bad = new[0].clone();
    bad[300] ^= 1;
    assert!(matches!(holdings.import(&bad, NOW), Err(ImportError::Grant(GrantError::Tampered))));
    assert_eq!(holdings.credentials(NOW).expect("held").delegation().serial(), 3);
    assert_eq!(fs::read_dir(folder.path()).expect("readable").count(), 1);

    // On disk: one that was altered, one under another's name, and one that has nothing to do with it.
    let at = |name: &str| folder.path().join(name);
    fs::write(at("00000000000000000009.grant"), &bad).expect("written");
    fs::write(at("00000000000000000008.grant"), &new[0]).expect("written");
    fs::write(at("00000000000000000004.grant.0123.tmp"), b"left over").expect("written");
    for holdings in [&mut holdings, &mut service.nodes[0].holdings(folder.path())] {
        assert_eq!(holdings.refresh(NOW).ok(), Some(false));
        let named: Vec<_> = holdings.problems().iter().map(|problem| (problem.file.as_str(), problem.error)).collect();
        let expected = [
            ("00000000000000000008.grant", GrantError::Malformed),
            ("00000000000000000009.grant", GrantError::Tampered),
        ];
        assert_eq!(named, expected);
        assert_eq!(holdings.credentials(NOW).expect("held").delegation().serial(), 3);
    }
}

#[tokio::test]
async fn no_more_grants_are_held_than_may_be() {
    let mut service = Service::new(1);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut holdings = service.nodes[0].holdings(folder.path());
    let requests = [service.nodes[0].request(PeriodClock::TOR, (1, 64), 4, NOW)];
    for _ in 0..Holdings::MAX_GRANTS {
        let grant = service.grant(&requests, horizon(1, 1)).await.expect("granted").remove(0).to_bytes();
        assert_eq!(holdings.import(&grant, NOW).ok(), Some(Import::Taken));
    }
    let one_more = service.grant(&requests, horizon(4, 1)).await.expect("granted").remove(0).to_bytes();
    assert!(matches!(holdings.import(&one_more, NOW), Err(ImportError::Full)));
    assert_eq!(holdings.import(&one_more, NOW + 4 * HOUR).ok(), Some(Import::Taken), "those before have ended");
    assert_eq!(fs::read_dir(folder.path()).expect("readable").count(), 1);
}

#[tokio::test]
async fn a_floor_that_has_come_into_force_ends_what_is_below_it() {
    let mut service = Service::new(1);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut holdings = service.nodes[0].holdings(folder.path());
    let long = service.grant(&service.requests(1), horizon(100, 1)).await.expect("granted").remove(0);
    holdings.import(&long.to_bytes(), NOW).expect("taken");
    service.book.floor = service.book.next_serial();
    let later = Horizon::new(NOW + 10 * HOUR, 1, 1).expect("a horizon");
    let short = service.grant(&service.requests(100), later).await.expect("granted").remove(0);
    holdings.import(&short.to_bytes(), NOW).expect("taken");
    let serial = |now| holdings.credentials(now).map(|credentials| credentials.delegation().serial());
    assert_eq!(serial(NOW), Some(1), "nobody has seen the floor yet");
    assert_eq!(serial(NOW + 10 * HOUR), Some(2));
    assert_eq!(serial(NOW + 12 * HOUR), None, "who has seen the floor takes the first one no more");
    let reopened = holdings.reopen(NOW + 12 * HOUR).expect("readable");
    assert!(
        reopened.credentials(NOW + 12 * HOUR).is_none(),
        "nor does a node that reads its grants anew speak with it"
    );
}

#[tokio::test]
async fn who_was_removed_stays_removed_when_the_grant_that_said_so_is_over_before_an_older_one() {
    let mut service = Service::new(3);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut holdings = service.nodes[0].holdings(folder.path());
    let ask = |service: &Service, first| vec![service.nodes[0].request(service.book.clock(), (first, 64), 40, NOW)];
    let requests = ask(&service, 1);
    let long = service.grant(&requests, horizon(200, 1)).await.expect("granted").remove(0);
    holdings.import(&long.to_bytes(), NOW).expect("taken");
    service.manifest = manifest(&service.key, service.address(), 2, &service.nodes[..2], 2);
    let requests = ask(&service, 100);
    let short = service.grant(&requests, horizon(48, 2)).await.expect("granted").remove(0);
    holdings.import(&short.to_bytes(), NOW).expect("taken");
    let later = NOW + 60 * HOUR;
    let version = |holdings: &Holdings| holdings.manifest().map(|manifest| manifest.contents().version());
    for mut holdings in [holdings.reopen(later).expect("readable"), service.nodes[0].holdings(folder.path())] {
        holdings.refresh(later).expect("readable");
        assert_eq!(version(&holdings), Some(2));
        assert!(matches!(holdings.import(&short.to_bytes(), later), Err(ImportError::Grant(GrantError::Over))));
        assert!(matches!(holdings.import(&long.to_bytes(), later), Err(ImportError::Older) | Ok(Import::Held)));
    }
    // What an owner makes with an old book and an old manifest brings nobody back either.
    let mut holdings = holdings.reopen(later).expect("readable");
    assert_eq!(holdings.newest_serial(), short.serial());
    service.manifest = manifest(&service.key, service.address(), 1, &service.nodes, 2);
    let requests = ask(&service, 300);
    let old =
        service.grant(&requests, Horizon::new(later, 10, 1).expect("a horizon")).await.expect("granted").remove(0);
    assert_eq!(holdings.import(&old.to_bytes(), later).ok(), Some(Import::Taken));
    assert_eq!(version(&holdings.reopen(later).expect("readable")), Some(2));
}

#[tokio::test]
async fn a_node_asks_with_keys_that_no_grant_of_its_has_used() {
    let mut service = Service::new(1);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut holdings = service.nodes[0].holdings(folder.path());
    let ask = |holdings: &Holdings, now| {
        holdings.request(&service.nodes[0].identity, PeriodClock::TOR, 4, 5, now).expect("made")
    };
    let first = ask(&holdings, NOW);
    assert_eq!(first.end_number(), NOW + 4);
    let mut book = service.book.clone();
    let Service { signer, key, certificate, revisions, manifest, .. } = &service;
    let owner = Owner { signer, key, certificate, revisions, manifest };
    let grants = owner.grant(&mut book, std::slice::from_ref(&first), horizon(23, 4)).await.expect("granted");
    holdings.import(&grants[0].to_bytes(), NOW).expect("taken");
    assert_eq!(ask(&holdings, NOW).end_number(), NOW + 8, "within one second too");
    assert_eq!(ask(&holdings, NOW + DAY).end_number(), NOW + DAY + 4);
    let stranger = Identity::from_seed(&[44; 32]);
    let error = holdings.request(&stranger, PeriodClock::TOR, 4, 5, NOW).err();
    assert_eq!(error, Some(RequestError::ForeignNode));
    service.book = book;
    let used_up = service.grant(&[first], horizon(23, 1)).await.err();
    assert_eq!(used_up, Some(MakeError::SessionKeysUsedUp(service.nodes[0].address())));
}
