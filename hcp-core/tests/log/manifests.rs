//! Manifests through the log: shared configuration, members that come and go, lowest versions.

use hcp_core::identity::manifest::{Contents, SoftwareVersion};
use hcp_core::replica::{AdoptError, AppendError, Event, Frontier, LinkRefusal, OpenReplicaError, Stopped};

use crate::harness::{Cluster, all_linked, next_entry, read, soon};

fn shared(text: &str) -> impl FnOnce(Contents) -> Contents {
    let text = text.as_bytes().to_vec();
    move |contents| contents.shared(text).unwrap()
}

#[tokio::test(start_paused = true)]
async fn one_signed_manifest_changes_what_all_nodes_share() {
    let cluster = Cluster::new(3);
    let running = cluster.start_all().await;
    all_linked(&running).await;
    let second = cluster.sign(2, &[0, 1, 2], shared("motd: be kind"));
    running[1].replica.adopt(second.clone()).await.unwrap();
    for node in &running {
        let counts = |manifest: &hcp_core::identity::manifest::Manifest| manifest.contents().version() == 2;
        let mut manifest = node.replica.manifest();
        let manifest = soon(manifest.wait_for(counts)).await.unwrap().clone();
        assert_eq!(manifest.contents().shared_configuration(), b"motd: be kind");
    }
    // One that is rolled back is refused, and so is one that somebody else signed.
    let refused = running[0].replica.adopt(cluster.manifest.clone()).await.unwrap_err();
    assert!(matches!(refused, AdoptError::Older { counts: 2 }), "{refused:?}");
    assert!(matches!(running[0].replica.adopt(second).await, Err(AdoptError::Older { counts: 2 })));
    let other = Cluster::new(1);
    assert!(matches!(running[0].replica.adopt(other.sign(9, &[0], |c| c)).await, Err(AdoptError::Foreign)));
    // A node that starts with the old file goes on with what the log has.
    let mut running = running;
    running.remove(0).stop().await;
    let back = cluster.start_with(0, &cluster.manifest).await;
    assert_eq!(back.replica.manifest().borrow().contents().version(), 2);
    soon(back.replica.status().wait_for(|status| status.manifest == 2)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_version_that_was_signed_twice_is_named_and_resolved_alike() {
    let cluster = Cluster::new(2);
    let running = cluster.start_all().await;
    all_linked(&running).await;
    let (one, other) = (cluster.sign(2, &[0, 1], shared("one")), cluster.sign(2, &[0, 1], shared("other")));
    let wins = if one.supersedes(&other) { one.clone() } else { other.clone() };
    let _ = running[0].replica.adopt(one).await;
    let _ = running[1].replica.adopt(other).await;
    for node in &running {
        let mut manifest = node.replica.manifest();
        soon(manifest.wait_for(|now| now.to_bytes() == wins.to_bytes())).await.unwrap();
    }
    let named = |status: &hcp_core::replica::ReplicaStatus| status.manifest_conflict == Some(2);
    let knows = running.iter().map(|node| node.replica.status());
    let mut knows: Vec<_> = knows.collect();
    let (first, second) = knows.split_at_mut(1);
    soon(async {
        tokio::select! { _ = first[0].wait_for(named) => {}, _ = second[0].wait_for(named) => {} }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn members_come_and_go_while_all_run() {
    let cluster = Cluster::new(3);
    let first = cluster.sign(1, &[0, 1], |contents| contents);
    let running = [cluster.start_with(0, &first).await, cluster.start_with(1, &first).await];
    running[0].linked_with(1).await;
    running[0].replica.append("before").await.unwrap();
    // The newcomer brings the manifest that names it to one of them, by the owner's hand.
    let second = cluster.sign(2, &[0, 1, 2], |contents| contents);
    running[0].replica.adopt(second.clone()).await.unwrap();
    let third = cluster.start_with(2, &second).await;
    for node in [&running[0], &running[1], &third] {
        node.linked_with(2).await;
    }
    let mut read_by_third = third.replica.subscribe(Frontier::start());
    assert_eq!(read(&mut read_by_third, 1).await, ["before"]);
    let receipt = third.replica.append("from the new one").await.unwrap();
    assert_eq!(soon(receipt.replicated(2)).await.unwrap(), 2);

    // It goes, and the others go on.
    let last = cluster.sign(3, &[0, 1], |contents| contents);
    running[1].replica.adopt(last).await.unwrap();
    for node in &running {
        node.linked_with(1).await;
        assert_eq!(node.replica.peers().borrow().iter().count(), 1);
    }
    let after = running[1].replica.append("after").await.unwrap();
    assert_eq!(soon(after.replicated(1)).await.unwrap(), 1);
    let mut all = read(&mut running[0].replica.subscribe(Frontier::start()), 3).await;
    all.sort();
    assert_eq!(all, ["after", "before", "from the new one"]);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_hears_of_its_removal_says_so_and_can_be_read() {
    let cluster = Cluster::new(2);
    let running = cluster.start_all().await;
    all_linked(&running).await;
    running[1].replica.append("kept").await.unwrap().durable().await.unwrap();
    let alone = cluster.sign(2, &[0], |contents| contents);
    running[1].replica.adopt(alone).await.unwrap();
    assert!(matches!(soon(running[1].replica.stopped()).await, Some(Stopped::Removed)));
    let refused = running[1].replica.append("more").await.unwrap_err();
    assert!(matches!(refused, AppendError::Stopped(Stopped::Removed)), "{refused:?}");
    assert_eq!(next_entry(&mut running[1].replica.subscribe(Frontier::start())).await.entry, "kept");
    running[1].replica.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_version_below_the_lowest_is_refused_by_name_on_both_sides() {
    let mut cluster = Cluster::new(2);
    cluster.machines[1].software = SoftwareVersion::new(0, 2, 0);
    let lowest = SoftwareVersion::new(0, 2, 0);
    let raised = cluster.sign(2, &[0, 1], |contents| contents.lowest_software(lowest));
    // The older one does not know of it yet, and so starts.
    let old = cluster.start(0).await;
    let new = cluster.start_with(1, &raised).await;
    let says = |why: LinkRefusal| {
        move |peers: &hcp_core::replica::Peers| peers.iter().any(|(_, state)| state.refusal == Some(why) && !state.live)
    };
    soon(new.replica.peers().wait_for(says(LinkRefusal::PeerTooOld))).await.unwrap();
    soon(old.replica.peers().wait_for(says(LinkRefusal::TooOld))).await.unwrap();
    let text = LinkRefusal::PeerTooOld.to_string();
    assert!(text.contains("version below the lowest"), "{text}");
    old.stop().await;
    let refused = cluster.open(0, &raised).await.unwrap_err();
    assert!(matches!(refused, OpenReplicaError::TooOld { .. }), "{refused:?}");
}

/// The new version writes a kind of entry that the old one passes over, stores and passes on.
#[tokio::test(start_paused = true)]
async fn a_rolling_update_loses_nothing_that_the_older_version_does_not_know() {
    let mut cluster = Cluster::new(3);
    let mut running = cluster.start_all().await;
    all_linked(&running).await;
    running[0].replica.append("topic=old").await.unwrap();
    // Node 2 is updated first and writes something new; then it dies, so that only old nodes pass it on.
    running.pop().unwrap().stop().await;
    cluster.machines[2].software = SoftwareVersion::new(0, 2, 0);
    let updated = cluster.start(2).await;
    updated.linked_with(2).await;
    let receipt = updated.replica.append("\u{1}a kind of the new version").await.unwrap();
    assert_eq!(soon(receipt.replicated(2)).await.unwrap(), 2);
    updated.stop().await;
    for machine in [0, 1] {
        let mut state = running[0].follow();
        while state.state().count < 2 {
            soon(state.next()).await.unwrap();
        }
        assert_eq!(state.state().value("topic"), Some("old"), "what is not known changes nothing");
        running.remove(0).stop().await;
        cluster.machines[machine].software = SoftwareVersion::new(0, 2, 0);
        running.push(cluster.start(machine).await);
    }
    // The floor rises after all run it.
    let lowest = SoftwareVersion::new(0, 2, 0);
    let raised = cluster.sign(2, &[0, 1, 2], |contents| contents.lowest_software(lowest));
    running[0].replica.adopt(raised).await.unwrap();
    running.push(cluster.start(2).await);
    for node in &running {
        node.linked_with(2).await;
        let mut subscription = node.replica.subscribe(Frontier::start());
        let mut kinds = Vec::new();
        while kinds.len() < 2 {
            if let Some(Event::Entry(applied)) = soon(subscription.next()).await.unwrap() {
                kinds.push(applied.entry[0]);
            }
        }
        assert!(kinds.contains(&1), "what the old nodes passed on is there");
    }
}
