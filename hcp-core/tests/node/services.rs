//! Services: nodes that speak for an address which none of them holds.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hcp_core::identity::Identity;
use hcp_core::identity::delegation::{
    CLOCK_SKEW, DelegationError, OwnerCertificate, OwnerKey, ReplicaCredentials, Round, SerialFloors, SessionKey,
    Validity,
};
use hcp_core::network::{HCP_PORT, Network};
use hcp_core::node::{Access, ConnectError, Node, RecvError, RenewError, Service};
use hcp_core::session::{Peer, Priority, SessionError};

use super::harness::{COUNT, ECHO, Lanes, Route, WHO, count, echo, echoes, eventually, memory, send_numbered, who};

pub(crate) struct Owner {
    pub(crate) service: Identity,
    key: OwnerKey,
    certificate: OwnerCertificate,
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// A day before now and a day after.
fn today() -> Validity {
    Validity::new(now() - 86_400, now() + 86_400).unwrap()
}

impl Owner {
    pub(crate) fn new() -> Self {
        let (service, key) = (Identity::generate(), OwnerKey::generate());
        let certificate = OwnerCertificate::issue(&service, key.public_key(), today());
        Self { service, key, certificate }
    }

    pub(crate) fn credentials(&self, serial: u64, lowest: u64) -> ReplicaCredentials {
        self.credentials_for(serial, lowest, today())
    }

    pub(crate) fn credentials_for(&self, serial: u64, lowest: u64, validity: Validity) -> ReplicaCredentials {
        let session_key = SessionKey::generate();
        let round = Round::new(serial, lowest, validity).unwrap();
        let delegation = self.key.delegate(self.service.address(), session_key.public_key(), round);
        ReplicaCredentials::new(self.service.address(), self.certificate.clone(), delegation, session_key).unwrap()
    }

    /// A node that serves the service, each on a network of its own, as replicas are at places of their own.
    pub(crate) async fn replica(&self, network: &Arc<dyn Network>, credentials: ReplicaCredentials) -> Node {
        let listener = network.listen(&self.service, &[HCP_PORT]).await.unwrap();
        let service = Service::new(listener, credentials).protocol(ECHO, Access::Anyone, echo).protocol(
            COUNT,
            Access::Anyone,
            count,
        );
        Node::builder(Identity::generate(), Arc::clone(network))
            .protocol(WHO, Access::Anyone, who)
            .service(service)
            .bind()
            .await
            .unwrap()
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_is_dialled_by_its_address_and_shares_nothing_with_the_node_that_serves_it() {
    let (network, owner) = (memory(), Owner::new());
    let replica = owner.replica(&network, owner.credentials(7, 5)).await;
    let floors = SerialFloors::new();
    let dialler =
        Node::builder(Identity::generate(), Arc::clone(&network)).floors(floors.clone()).bind().await.unwrap();
    let session = dialler.connect_anonymously(owner.service.address()).await.unwrap();
    assert_eq!(session.peer(), Peer::Address(owner.service.address()));
    assert_eq!(session.delegation().unwrap().serial(), 7);
    assert_eq!(floors.floor(owner.service.address()), 5);
    echoes(&session, "for the service").await;
    assert_eq!(session.open(WHO).await.unwrap().recv().await, Err(RecvError::UnknownProtocol));

    let own = dialler.connect(replica.address()).await.unwrap();
    assert!(own.delegation().is_none());
    assert_eq!(own.open(ECHO).await.unwrap().recv().await, Err(RecvError::UnknownProtocol));
}

#[tokio::test(start_paused = true)]
async fn a_delegation_that_was_withdrawn_is_refused() {
    let (network, owner) = (memory(), Owner::new());
    let replica = owner.replica(&network, owner.credentials(7, 5)).await;
    let floors = SerialFloors::new();
    let dialler =
        Node::builder(Identity::generate(), Arc::clone(&network)).floors(floors.clone()).bind().await.unwrap();
    floors.import([(owner.service.address(), 8)]);
    let error = dialler.connect(owner.service.address()).await.unwrap_err();
    assert!(
        matches!(&error, ConnectError::Session(SessionError::Delegation(DelegationError::BelowFloor))),
        "{error:?}"
    );
    assert_eq!(replica.stats().sessions_accepted, 0);
}

#[tokio::test(start_paused = true)]
async fn a_lane_that_reaches_another_replica_is_dialled_again() {
    let owner = Owner::new();
    let (here, there) = (memory(), memory());
    let first = owner.replica(&here, owner.credentials(1, 1)).await;
    let second = owner.replica(&there, owner.credentials(1, 1)).await;
    let (right, wrong) = (Arc::clone(&here), Arc::clone(&there));
    let network = Lanes::new(&here, move |nth| Route::To(Arc::clone(if nth == 3 { &right } else { &wrong })));
    let dialler = Node::builder(Identity::generate(), Arc::clone(&network) as _).lanes(1).bind().await.unwrap();
    let session = dialler.connect_anonymously(owner.service.address()).await.unwrap();
    let mut bulk = session.open_with(COUNT, Priority::Bulk).await.unwrap();
    eventually("the fourth joins", || session.stats().lanes == 1 && first.stats().lanes_joined == 1).await;
    send_numbered(&mut bulk, 100, 60_000).await;
    assert!(network.carried() > 3_000_000);
    assert_eq!((network.isolated(), dialler.stats().lanes_failed, session.stats().lanes), (4, 3, 1));
    assert_eq!((second.stats().sessions_accepted, second.stats().lanes_joined), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_session_goes_on_without_lanes_when_only_other_replicas_answer() {
    let owner = Owner::new();
    let (here, there) = (memory(), memory());
    let first = owner.replica(&here, owner.credentials(1, 1)).await;
    let _second = owner.replica(&there, owner.credentials(1, 1)).await;
    let wrong = Arc::clone(&there);
    // Whoever dialled on for ever would do so without a pause.
    let network =
        Lanes::new(&here, move |nth| if nth < 20 { Route::To(Arc::clone(&wrong)) } else { Route::Unreachable });
    let dialler = Node::builder(Identity::generate(), Arc::clone(&network) as _).lanes(2).bind().await.unwrap();
    let session = dialler.connect_anonymously(owner.service.address()).await.unwrap();
    let mut bulk = session.open_with(COUNT, Priority::Bulk).await.unwrap();
    send_numbered(&mut bulk, 100, 60_000).await;
    let mut bulk = session.open_with(COUNT, Priority::Bulk).await.unwrap();
    tokio::time::sleep(Duration::from_secs(600)).await;
    send_numbered(&mut bulk, 100, 60_000).await;
    // Two at a time: the last pair began before the fourth had failed.
    assert!((4..=5).contains(&network.isolated()), "{}", network.isolated());
    assert_eq!((session.stats().lanes, first.stats().lanes_joined), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_running_node_takes_a_renewed_delegation_and_sessions_of_before_go_on_with_their_lanes() {
    let (network, owner) = (memory(), Owner::new());
    let replica = owner.replica(&network, owner.credentials(7, 5)).await;
    let to = Arc::clone(&network);
    let lanes = Lanes::new(&network, move |_| Route::To(Arc::clone(&to)));
    let dialler = Node::builder(Identity::generate(), Arc::clone(&lanes) as _).lanes(2).bind().await.unwrap();
    let service = owner.service.address();
    let old = dialler.connect_anonymously(service).await.unwrap();
    replica.renew(owner.credentials(8, 5)).unwrap();
    let new = dialler.connect_anonymously(service).await.unwrap();
    let keys = [&old, &new].map(|session| session.delegation().unwrap().session_key());
    assert_eq!([&old, &new].map(|session| session.delegation().unwrap().serial()), [7, 8]);
    assert_ne!(keys[0], keys[1]);
    // Another round while two live: each of them still finds its own key.
    replica.renew(owner.credentials(9, 5)).unwrap();
    for session in [&old, &new] {
        echoes(session, "as before").await;
        let mut bulk = session.open_with(COUNT, Priority::Bulk).await.unwrap();
        eventually("both lanes join", || session.stats().lanes == 2).await;
        let before = lanes.carried();
        send_numbered(&mut bulk, 100, 60_000).await;
        assert!(lanes.carried() - before > 5_000_000);
    }
    assert_eq!((lanes.isolated(), dialler.stats().lanes_failed, replica.stats().lanes_failed), (4, 0, 0));
    let newest = dialler.connect_anonymously(service).await.unwrap();
    assert_eq!(newest.delegation().unwrap().serial(), 9);
}

#[tokio::test(start_paused = true)]
async fn a_dialler_that_shares_its_session_moves_to_the_new_delegation_when_it_drains() {
    let (network, owner) = (memory(), Owner::new());
    let replica = owner.replica(&network, owner.credentials(7, 5)).await;
    let floors = SerialFloors::new();
    let dialler =
        Node::builder(Identity::generate(), Arc::clone(&network)).floors(floors.clone()).bind().await.unwrap();
    let service = owner.service.address();
    let old = dialler.connect(service).await.unwrap();
    assert_eq!(old.check_delegation(), Ok(()));
    replica.renew(owner.credentials(8, 8)).unwrap();
    assert_eq!(
        dialler.connect(service).await.unwrap().delegation().unwrap().serial(),
        7,
        "it is shared as long as it lives"
    );
    assert_eq!(old.check_delegation(), Ok(()), "nobody has told this node yet");

    let mut open = old.open(ECHO).await.unwrap();
    let draining = tokio::spawn({
        let old = old.clone();
        async move { old.drain(Duration::from_secs(60)).await }
    });
    tokio::task::yield_now().await;
    assert_eq!(floors.floor(service), 5);
    let new = loop {
        let session = dialler.connect(service).await.unwrap();
        if session.delegation().unwrap().serial() == 8 {
            break session;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!((new.check_delegation(), old.check_delegation()), (Ok(()), Err(DelegationError::BelowFloor)));
    // What was open goes on to its end.
    open.send("to the end").await.unwrap();
    assert_eq!(open.recv().await.unwrap().unwrap(), "to the end");
    open.finish().await;
    assert_eq!(open.recv().await, Ok(None));
    assert!(draining.await.unwrap());
    echoes(&new, "on the new one").await;
    assert!(dialler.connect(replica.address()).await.unwrap().check_delegation().is_ok(), "it needs none");
}

#[tokio::test]
async fn a_session_tells_that_its_delegation_has_expired_and_goes_on() {
    let (network, owner) = (memory(), Owner::new());
    let ends = now() + 1;
    let almost_over = Validity::new(now() - 86_400, ends - CLOCK_SKEW).unwrap();
    let _replica = owner.replica(&network, owner.credentials_for(7, 5, almost_over)).await;
    let dialler = Node::builder(Identity::generate(), Arc::clone(&network)).bind().await.unwrap();
    let session = dialler.connect_anonymously(owner.service.address()).await.unwrap();
    assert_eq!(session.delegation().unwrap().validity().not_after(), ends - CLOCK_SKEW);
    eventually("it expires", || session.check_delegation() == Err(DelegationError::Expired)).await;
    assert!(now() > ends);
    echoes(&session, "all the same").await;
    let error = dialler.connect_anonymously(owner.service.address()).await.unwrap_err();
    assert!(matches!(error, ConnectError::Session(SessionError::Delegation(DelegationError::Expired))), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn credentials_that_help_nobody_are_refused_and_the_old_ones_stay() {
    let (network, owner) = (memory(), Owner::new());
    let replica = owner.replica(&network, owner.credentials(7, 5)).await;
    let other = Owner::new().credentials(8, 5);
    assert!(matches!(replica.renew(other), Err(RenewError::NotServed)));
    let early = Validity::new(now() + 86_400, now() + 2 * 86_400).unwrap();
    let late = Validity::new(now() - 2 * 86_400, now() - 86_400).unwrap();
    for (validity, expected) in [(early, DelegationError::NotYetValid), (late, DelegationError::Expired)] {
        let refused = replica.renew(owner.credentials_for(8, 5, validity));
        assert!(matches!(&refused, Err(RenewError::Delegation(error)) if *error == expected), "{refused:?}");
    }
    let dialler = Node::builder(Identity::generate(), Arc::clone(&network)).bind().await.unwrap();
    let session = dialler.connect_anonymously(owner.service.address()).await.unwrap();
    assert_eq!(session.delegation().unwrap().serial(), 7);
}
