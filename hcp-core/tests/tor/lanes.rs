//! Lanes of a session: circuits of their own, on which bulk travels.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use hcp_core::identity::Identity;
use hcp_core::identity::delegation::{OwnerCertificate, OwnerKey, ReplicaCredentials, Round, SessionKey, Validity};
use hcp_core::network::{HCP_PORT, Network as _};
use hcp_core::node::{Access, Node, Service, Session, Stream};
use hcp_core::session::Priority;

use super::harness::{eventually, joined, reachable, testnet, within};

#[tokio::test(flavor = "multi_thread")]
async fn bulk_travels_on_lanes_over_tor_and_they_find_a_session_that_began_before_a_renewal() {
    let testnet = testnet().await;
    let ((server, _a), (client, _b)) = tokio::join!(joined(testnet), joined(testnet));
    let (service, owner) = (Identity::generate(), OwnerKey::generate());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let valid = Validity::new(now - 86_400, now + 86_400).unwrap();
    let certificate = OwnerCertificate::issue(&service, owner.public_key(), valid);
    let credentials = |serial| {
        let key = SessionKey::generate();
        let round = Round::new(serial, 1, valid).unwrap();
        let delegation = owner.delegate(service.address(), key.public_key(), round);
        ReplicaCredentials::new(service.address(), certificate.clone(), delegation, key).unwrap()
    };
    let listener = reachable(server.listen(&service, &[HCP_PORT]).await.unwrap()).await;
    let offer = Service::new(listener, credentials(1)).protocol("test/sum/1", Access::Anyone, sum);
    let replica = Node::builder(Identity::generate(), Arc::new(server)).service(offer).bind().await.unwrap();
    let dialler = Node::builder(Identity::generate(), Arc::new(client)).lanes(2).bind().await.unwrap();
    let session = within(200, dialler.connect_anonymously(service.address())).await.unwrap();

    replica.renew(credentials(2)).unwrap();
    let mut bulk = session.open_with("test/sum/1", Priority::Bulk).await.unwrap();
    eventually(200, || session.stats().lanes == 2 && replica.stats().lanes_joined == 2).await;
    for number in 0..40u64 {
        bulk.send([&number.to_be_bytes()[..], &[7; 60_000]].concat()).await.unwrap();
    }
    bulk.finish().await;
    assert_eq!(within(200, bulk.recv()).await.unwrap().unwrap()[..], (0..40u64).sum::<u64>().to_be_bytes());
    assert_eq!(session.delegation().unwrap().serial(), 1);
    let newer = within(200, dialler.connect_anonymously(service.address())).await.unwrap();
    assert_eq!(newer.delegation().unwrap().serial(), 2);
}

/// Expects messages with numbers that go up, and says in the end what these come to.
async fn sum(mut stream: Stream, _session: Session) {
    let mut numbers = Vec::new();
    while let Ok(Some(message)) = stream.recv().await {
        numbers.push(u64::from_be_bytes(message[..8].try_into().unwrap()));
    }
    assert!(numbers.is_sorted(), "{numbers:?}");
    let _ = stream.send(numbers.iter().sum::<u64>().to_be_bytes().to_vec()).await;
    stream.finish().await;
}
