//! Nodes that converge, whoever was away, and what an append promises.

use std::time::Duration;

use hcp_core::identity::Identity;
use hcp_core::node::Node;
use hcp_core::replica::{AppendError, Frontier, MAX_ENTRY, PROTOCOL};
use tokio::time::Instant;

use crate::harness::{Cluster, Running, all_linked, next_entry, nowhere, read, soon, until};

#[tokio::test(start_paused = true)]
async fn what_one_node_appends_all_nodes_deliver_and_receipt() {
    let cluster = Cluster::new(3);
    let running = cluster.start_all().await;
    all_linked(&running).await;
    let receipt = running[0].replica.append("hello").await.unwrap();
    assert_eq!(soon(receipt.replicated(2)).await.unwrap(), 2);
    let place = receipt.durable().await.unwrap();
    for node in &running {
        let applied = next_entry(&mut node.replica.subscribe(Frontier::start())).await;
        assert_eq!(&applied.entry[..], b"hello");
        let spot = applied.write.spot;
        assert_eq!((spot.writer.log, spot.seq, spot.index), (place.log, place.seq, place.index));
        let own = node.replica.log() == place.log;
        assert_eq!(applied.append, own.then_some(receipt.id()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_lone_node_is_durable_and_claims_no_replicas() {
    let cluster = Cluster::new(3);
    let alone = cluster.start(0).await;
    let receipt = alone.replica.append("alone").await.unwrap();
    soon(receipt.durable()).await.unwrap();
    assert_eq!(soon(receipt.replicated_to_live(1)).await.unwrap(), 0);
    let began = Instant::now();
    assert_eq!(receipt.replicated_up_to(2, began + Duration::from_secs(5)).await.unwrap(), 0);
    assert_eq!(began.elapsed(), Duration::from_secs(5));
    // With one other node it says one, at the deadline, and two never.
    let other = cluster.start(1).await;
    let reached = tokio::spawn(async move {
        // In a task of its own, as a server waits.
        receipt.replicated_up_to(2, Instant::now() + Duration::from_secs(20)).await
    });
    assert_eq!(reached.await.unwrap().unwrap(), 1);
    drop(other);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_was_away_catches_up_and_gives_what_it_wrote_alone() {
    let cluster = Cluster::new(3);
    let mut running = cluster.start_all().await;
    all_linked(&running).await;
    let first = running[2].replica.append("before").await.unwrap();
    soon(first.replicated(2)).await.unwrap();
    running.pop().unwrap().stop().await;
    for i in 0..500 {
        running[i % 2].replica.append(format!("while away {i}")).await.unwrap();
    }
    let last = running[0].replica.append("last").await.unwrap();
    soon(last.replicated(1)).await.unwrap();
    let away = cluster.start_on(2, &cluster.manifest, nowhere()).await;
    away.replica.append("written alone").await.unwrap().durable().await.unwrap();
    away.stop().await;

    let back = cluster.start(2).await;
    let mut texts = read(&mut back.replica.subscribe(Frontier::start()), 503).await;
    let mut at_first = read(&mut running[0].replica.subscribe(Frontier::start()), 503).await;
    texts.sort();
    at_first.sort();
    assert_eq!(texts, at_first);
    assert!(texts.contains(&"written alone".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn two_sides_of_a_split_write_on_and_agree_when_it_heals() {
    let cluster = Cluster::new(3);
    let mut running = cluster.start_all().await;
    all_linked(&running).await;
    let receipt = running[0].replica.append("topic=first").await.unwrap();
    soon(receipt.replicated(2)).await.unwrap();
    let mut states: Vec<_> = running.iter().map(Running::follow).collect();
    for state in &mut states {
        until(state, |notes| notes.value("topic") == Some("first")).await;
    }
    // The one with the lowest address dials both others.
    running[0].links = None;
    running[0].linked_with(0).await;
    for (node, state) in running.iter().zip(&mut states) {
        for i in 0..3 {
            let entry = format!("topic={} {i}", node.replica.node().0[0]);
            node.replica.append(entry.clone()).await.unwrap().durable().await.unwrap();
            until(state, |notes| notes.registers["topic"].values().any(|(.., value)| entry.ends_with(value))).await;
        }
        node.replica.append("+both").await.unwrap().durable().await.unwrap();
    }
    assert!(running[1].replica.append("during").await.unwrap().replicated(1).await.unwrap() >= 1);
    running[0].links = Some(running[0].replica.link(&running[0].node));
    for state in &mut states {
        until(state, |notes| notes.count == 14).await;
    }
    assert_eq!(states[0].state(), states[1].state());
    assert_eq!(states[0].state(), states[2].state());
    assert!(states[0].state().registers["topic"].values().len() >= 2, "what was written apart is kept");
    assert!(states[0].state().set.contains(&"both".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn delivery_is_causal_and_identical_entries_are_delivered_once() {
    const ROUNDS: usize = 60;
    let cluster = Cluster::new(3);
    let running = cluster.start_all().await;
    all_linked(&running).await;
    // Each node answers what it was handed: an answer must never stand before its question, anywhere.
    let mut answering = Vec::new();
    for (i, node) in running.iter().enumerate() {
        let replica = node.replica.clone();
        answering.push(tokio::spawn(async move {
            let mut subscription = replica.subscribe(Frontier::start());
            if i == 0 {
                replica.append("0").await.unwrap();
            }
            loop {
                let applied = next_entry(&mut subscription).await;
                let round: usize = String::from_utf8_lossy(&applied.entry).parse().unwrap();
                if round + 1 == ROUNDS {
                    return;
                }
                if (round + 1) % 3 == i {
                    replica.append((round + 1).to_string()).await.unwrap();
                }
            }
        }));
    }
    for task in answering {
        soon(task).await.unwrap();
    }
    for node in &running {
        let mut subscription = node.replica.subscribe(Frontier::start());
        let mut latest = None;
        for round in 0..ROUNDS {
            let applied = next_entry(&mut subscription).await;
            assert_eq!(String::from_utf8_lossy(&applied.entry), round.to_string());
            if let Some(before) = latest.replace(applied.write.clone()) {
                assert!(applied.write.past.has_seen(&before.spot), "an answer has seen its question");
                assert!(!before.past.has_seen(&applied.write.spot));
                assert!(before.stamp < applied.write.stamp);
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn strangers_get_no_link() {
    let cluster = Cluster::new(2);
    let running = cluster.start_all().await;
    all_linked(&running).await;
    let node = Node::builder(Identity::generate(), cluster.network.clone()).bind().await.unwrap();
    let session = node.connect(cluster.machines[0].identity.address()).await.unwrap();
    let mut stream = session.open(PROTOCOL).await.unwrap();
    assert!(soon(stream.recv()).await.is_err(), "a stranger's stream is reset");
    assert_eq!(running[0].replica.peers().borrow().live(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_entry_beyond_the_limit_is_refused_and_one_at_the_limit_is_carried() {
    let cluster = Cluster::new(2);
    let running = cluster.start_all().await;
    all_linked(&running).await;
    let length = MAX_ENTRY + 1;
    let error = running[0].replica.append(vec![0; length]).await.unwrap_err();
    assert!(matches!(error, AppendError::TooLong { length: l } if l == length));
    let mut receipts = Vec::new();
    for _ in 0..100 {
        receipts.push(running[0].replica.append(vec![7; MAX_ENTRY]).await.unwrap());
    }
    for receipt in receipts {
        soon(receipt.replicated(1)).await.unwrap();
    }
    let entry = next_entry(&mut running[1].replica.subscribe(Frontier::start())).await.entry;
    assert_eq!(entry.len(), MAX_ENTRY);
}

/// Each has more to give than a connection's pipe and all windows hold together.
#[tokio::test(start_paused = true)]
async fn two_sides_with_much_to_give_over_a_small_pipe_finish() {
    const EACH: usize = 400;
    let cluster = Cluster::new(2);
    for machine in 0..2 {
        let alone = cluster.start_on(machine, &cluster.manifest, nowhere()).await;
        for i in 0..EACH {
            let mut entry = vec![machine as u8; 32_000];
            entry[1] = i as u8;
            alone.replica.append(entry).await.unwrap();
        }
        alone.stop().await;
    }
    let running = cluster.start_all().await;
    for node in &running {
        let mut subscription = node.replica.subscribe(Frontier::start());
        let mut got = [0; 2];
        for _ in 0..2 * EACH {
            got[usize::from(next_entry(&mut subscription).await.entry[0])] += 1;
        }
        assert_eq!(got, [EACH; 2]);
    }
    let all_told =
        |status: &hcp_core::replica::ReplicaStatus| status.peers.values().all(|peer| peer.live && peer.lag == Some(0));
    for node in &running {
        soon(node.replica.status().wait_for(all_told)).await.unwrap();
    }
}
