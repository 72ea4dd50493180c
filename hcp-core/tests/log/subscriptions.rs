//! Reading from a frontier on.

use hcp_core::replica::{Event, Frontier};

use crate::harness::{Cluster, all_linked, next_entry, read, soon};

#[tokio::test(start_paused = true)]
async fn a_subscription_goes_on_where_an_earlier_run_left_it_without_repeats() {
    let cluster = Cluster::new(2);
    let mut running = cluster.start_all().await;
    all_linked(&running).await;
    // At once, so that several stand in one segment.
    let mut receipts = Vec::new();
    for i in 0..50 {
        receipts.push(running[i % 2].replica.append(format!("{i}")).await.unwrap());
    }
    for receipt in receipts {
        soon(receipt.replicated(1)).await.unwrap();
    }
    let mut read_before = Vec::new();
    let mut frontier = Frontier::start().to_bytes();
    for part in [3, 1, 20] {
        let from = Frontier::from_bytes(&frontier).unwrap();
        let mut subscription = running[0].replica.subscribe(from);
        read_before.extend(read(&mut subscription, part).await);
        frontier = subscription.frontier().to_bytes();
        running.remove(0).stop().await;
        running.insert(0, cluster.start(0).await);
    }
    // The frontier means the same on another node.
    let from = Frontier::from_bytes(&frontier).unwrap();
    let elsewhere = read(&mut running[1].replica.subscribe(from.clone()), 26).await;
    let here = read(&mut running[0].replica.subscribe(from), 26).await;
    for rest in [elsewhere, here] {
        let mut all: Vec<usize> = read_before.iter().chain(&rest).map(|text| text.parse().unwrap()).collect();
        all.sort_unstable();
        assert_eq!(all, (0..50).collect::<Vec<_>>());
    }
}

#[tokio::test(start_paused = true)]
async fn everybody_hears_of_a_run_that_begins() {
    let cluster = Cluster::new(2);
    let mut running = cluster.start_all().await;
    all_linked(&running).await;
    let old = running[1].replica.log();
    running.pop().unwrap().stop().await;
    running.push(cluster.start(1).await);
    let new = running[1].replica.log();
    assert_ne!(old, new);
    assert_eq!(old.node, new.node);
    let mut subscription = running[0].replica.subscribe(Frontier::start());
    let mut began = Vec::new();
    while began.last() != Some(&new) {
        if let Some(Event::Began(log)) = soon(subscription.next()).await.unwrap() {
            began.push(log);
        }
    }
    assert!(began.contains(&old));
}

#[tokio::test(start_paused = true)]
async fn what_was_stored_ends_with_caught_up() {
    let cluster = Cluster::new(1);
    let node = cluster.start(0).await;
    for i in 0..3 {
        node.replica.append(i.to_string()).await.unwrap().durable().await.unwrap();
    }
    let mut subscription = node.replica.subscribe(Frontier::start());
    read(&mut subscription, 3).await;
    assert!(matches!(soon(subscription.next()).await, Ok(Some(Event::CaughtUp))));
    node.replica.append("more").await.unwrap();
    assert_eq!(next_entry(&mut subscription).await.entry, "more");
    node.replica.shutdown().await;
    assert!(matches!(soon(subscription.next()).await, Ok(None)));
}
