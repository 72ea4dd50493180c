//! The whole way over a private Tor network.

use hcp_core::testing::PrivateTorNetwork;
use hcp_demo::Place;
use std::time::Duration;

use serde_json::json;

use crate::world::{Person, World};

/// A descriptor that was fetched at the wrong moment costs minutes.
pub(crate) const TOR_DEADLINE: Duration = Duration::from_secs(300);

/// A world on the private Tor network that all tests share.
pub(crate) async fn world() -> World {
    let network = PrivateTorNetwork::shared().await.expect("a private Tor network");
    let place = Place::PrivateTor(network.description_file().to_owned());
    World::on(tempfile::tempdir().unwrap(), place, TOR_DEADLINE)
}

#[tokio::test]
async fn two_people_meet_talk_and_queue_over_tor() {
    let world = world().await;
    let (mut alice, mut bob) = world.friends(&[]).await;
    alice.send("bob", "through six relays").await;
    bob.send("alice", "and back").await;
    tokio::join!(bob.receives(&["through six relays"]), alice.receives(&["and back"]));

    let (profile, address) = bob.stop().await;
    let id = alice.send("bob", "while you were away").await;
    let bob = Person::again(profile, address, &[], TOR_DEADLINE).await;
    alice.ask(json!({"command": "contact_connect", "contact": "bob"})).await;
    bob.receives(&["while you were away"]).await;
    alice.message_state(&id, "delivered").await;
    assert!(bob.profile.folder().join("tor-private/state").is_dir(), "Tor keeps its state beside the profile");
}
