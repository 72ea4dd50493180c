//! Checkpoints: what all have seen gives way to a state, and who was away loads it.

use std::sync::Arc;
use std::time::Duration;

use hcp_core::node::{Access, Node};
use hcp_core::replica::{Event, Follower, Frontier, PROTOCOL};

use crate::harness::{Cluster, Notes, Running, all_linked, next_entry, nowhere, read, soon, until};

#[tokio::test(start_paused = true)]
async fn a_node_that_was_away_loads_the_state_and_appends_again_what_it_wrote_alone() {
    let cluster = Cluster::new(3);
    let mut running = cluster.start_all().await;
    all_linked(&running).await;
    let receipt = running[2].replica.append("topic=before").await.unwrap();
    soon(receipt.replicated(2)).await.unwrap();
    running.pop().unwrap().stop().await;

    // It writes alone, is away, and meanwhile the others go on without what it knows.
    let alone = cluster.start_on(2, &cluster.manifest, nowhere()).await;
    alone.replica.append("+alone").await.unwrap().durable().await.unwrap();
    alone.stop().await;
    for i in 0..200 {
        running[i % 2].replica.append(format!("n{}={i}", i % 10)).await.unwrap();
    }
    let mut states = checkpoint(&running, 201).await;
    // A subscriber from the beginning is given the state, and nothing that it stands for.
    let mut late = running[0].replica.subscribe(Frontier::start());
    assert!(matches!(soon(late.next()).await, Ok(Some(Event::State(_)))));
    // One that has read on goes on, without.
    running[1].replica.append("+after").await.unwrap();
    assert_eq!(read(&mut late, 1).await, ["+after"]);
    for state in &mut states {
        until(state, |notes| notes.count == 202).await;
    }

    let back = cluster.start(2).await;
    let mut there = back.follow();
    until(&mut there, |notes| notes.count == 203).await;
    for state in &mut states {
        until(state, |notes| notes.count == 203).await;
    }
    for state in &states {
        assert_eq!(state.state(), there.state());
    }
    let notes = there.state();
    assert!(notes.set.contains(&"alone".to_owned()) && notes.set.contains(&"after".to_owned()));
    assert_eq!((notes.value("topic"), notes.value("n9")), (Some("before"), Some("199")));
    // Everybody goes on, and the next checkpoint comes about with all three.
    let receipt = back.replica.append("topic=after").await.unwrap();
    assert_eq!(soon(receipt.replicated(2)).await.unwrap(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_application_that_kept_its_own_state_goes_on_behind_a_checkpoint() {
    let cluster = Cluster::new(1);
    let node = cluster.start(0).await;
    let mut state = node.follow();
    for i in 0..20 {
        node.replica.append(format!("a={i}")).await.unwrap();
    }
    until(&mut state, |notes| notes.count == 20).await;
    node.replica.retain().await.unwrap();
    soon(node.replica.status().wait_for(|status| status.checkpoint)).await.unwrap();
    // The segment that asked is read too, though nothing in it is the application's.
    node.replica.append("a=20").await.unwrap();
    until(&mut state, |notes| notes.count == 21).await;
    let (frontier, kept) = (state.frontier().clone(), state.state().clone());
    node.replica.append("a=end").await.unwrap().durable().await.unwrap();
    node.stop().await;

    let node = cluster.start(0).await;
    // Nothing is repeated, and no state takes the place of what is there.
    let mut subscription = node.replica.subscribe(frontier);
    let mut seen = Vec::new();
    loop {
        match soon(subscription.next()).await.unwrap().unwrap() {
            Event::Entry(applied) => seen.push(applied.entry),
            Event::State(_) => panic!("a state instead of what is there"),
            Event::CaughtUp => break,
            _ => {}
        }
    }
    assert_eq!(seen, ["a=end"]);
    // From the beginning the state comes first, and it is the same.
    let mut anew = node.follow();
    until(&mut anew, |notes| notes.value("a") == Some("end")).await;
    assert_eq!((anew.state().count, kept.count), (22, 21));
}

/// Every node asks again and again while all write, one dies at times; all agree in the end, and nobody stalls.
#[tokio::test(start_paused = true)]
async fn checkpoints_come_about_while_everybody_writes_and_one_is_killed_at_times() {
    const ROUNDS: usize = 12;
    let cluster = Cluster::new(3);
    let mut running = cluster.start_all().await;
    all_linked(&running).await;
    let mut written = 0;
    for round in 0..ROUNDS {
        for i in 0..30 {
            let receipt = running[i % 3].replica.append(format!("r{}={round} {i}", i % 5)).await.unwrap();
            written += 1;
            if i % 10 == 9 {
                soon(receipt.replicated(1)).await.unwrap();
            }
        }
        running[round % 3].replica.retain().await.unwrap();
        if round % 4 == 3 {
            let dying = round % 3;
            // What is not durable anywhere would not count.
            let last = running[dying].replica.append("+last").await.unwrap();
            written += 1;
            soon(last.replicated(2)).await.unwrap();
            drop(running.remove(dying));
            running.insert(dying, cluster.start(dying).await);
            all_linked(&running).await;
        }
        tokio::time::advance(Duration::from_millis(700)).await;
    }
    let mut states: Vec<_> = running.iter().map(Running::follow).collect();
    for state in &mut states {
        until(state, |notes| notes.count == written).await;
    }
    assert_eq!(states[0].state(), states[1].state());
    assert_eq!(states[0].state(), states[2].state());
    for node in &running {
        assert!(node.replica.status().borrow().checkpoint);
    }
}

/// Opening the log again behind a checkpoint must not make what its reader was not handed count as read.
#[tokio::test(start_paused = true)]
async fn what_was_not_read_does_not_count_as_seen_after_the_log_was_opened_again() {
    let cluster = Cluster::new(3);
    let mut running = cluster.start_all().await;
    all_linked(&running).await;
    let Running { replica, links, node } = running.pop().unwrap();
    let mut follower = Follower::new(replica.subscribe(Frontier::start()), Notes::default());
    for i in 0..300 {
        let receipt = running[i % 2].replica.append(format!("n{}={i}", i % 10)).await.unwrap();
        if i % 3 == 0 {
            soon(receipt.replicated(2)).await.unwrap();
        }
    }
    until(&mut follower, |notes| notes.count == 300).await;
    // It is cut off while a checkpoint is made.
    drop((links, node));
    let mut peers = replica.peers();
    soon(peers.wait_for(|peers| peers.live() == 0)).await.unwrap();
    for i in 0..20 {
        running[i % 2].replica.append(format!("m{}={i}", i % 10)).await.unwrap().replicated(1).await.unwrap();
    }
    let before = replica.log();
    checkpoint(&running, 320).await;
    let node = loop {
        let builder = Node::builder(cluster.machines[2].identity.clone(), Arc::clone(&cluster.network));
        match builder.protocol(PROTOCOL, Access::Identified, replica.handler()).bind().await {
            Ok(node) => break node,
            Err(_) => tokio::task::yield_now().await,
        }
    };
    let _links = replica.link(&node);
    let opened_again = async {
        while replica.log() == before {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    soon(opened_again).await;
    until(&mut follower, |notes| notes.count == 320).await;
    soon(peers.wait_for(|peers| peers.live() == 2)).await.unwrap();
    // Its reader reads on no more.
    soon(running[0].replica.append("x=1").await.unwrap().replicated(2)).await.unwrap();
    soon(replica.append("x=2").await.unwrap().replicated(2)).await.unwrap();
    let mut reader = running[0].replica.subscribe(Frontier::start());
    let mut first = None;
    loop {
        let applied = next_entry(&mut reader).await;
        match &applied.entry[..] {
            b"x=1" => first = Some(applied.write.spot),
            b"x=2" => break assert!(!applied.write.past.has_seen(&first.expect("it was stored first"))),
            _ => {}
        }
    }
}

/// Has two nodes make a checkpoint of so many entries; gives what reads them.
async fn checkpoint(running: &[Running], count: u64) -> Vec<Follower<Notes>> {
    let mut states: Vec<_> = running.iter().map(Running::follow).collect();
    for state in &mut states {
        until(state, |notes| notes.count >= count).await;
    }
    running[0].replica.retain().await.unwrap();
    // A node signs once its application has read up to the request.
    let signed = async {
        for node in running {
            node.replica.status().wait_for(|status| status.checkpoint).await.unwrap();
        }
    };
    let [one, other] = &mut states[..] else { panic!("two nodes run") };
    let read_on = async {
        loop {
            tokio::select! {
                read = one.next() => drop(read.unwrap()),
                read = other.next() => drop(read.unwrap()),
            }
        }
    };
    soon(async {
        tokio::select! { () = signed => {}, () = read_on => {} }
    })
    .await;
    states
}
