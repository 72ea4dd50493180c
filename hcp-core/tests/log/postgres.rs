//! Logs in PostgreSQL, on one server for all nodes and on one for each, while servers are killed, frozen and started again.

#[path = "../../src/replica/log/store/postgres/tests/cluster.rs"]
#[allow(dead_code, reason = "the store's own tests need more of it")]
mod cluster;

use std::time::Duration;

use hcp_core::replica::{Disk, Event, Frontier, ReceiptError, Storage};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use self::cluster::Cluster as Server;
use crate::harness::{Cluster, Running, all_linked, soon, until};
use crate::load::{Counts, Reading, Step, write};

const NODES: usize = 3;
/// Entries of one node that are not durable yet.
const AT_ONCE: usize = 16;

/// How nodes and servers go together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    /// One server, with a role and a schema for each node.
    Shared,
    /// A server for each node, which is all its own.
    Apart,
}

/// Nodes and their servers.
struct Service {
    cluster: Cluster,
    servers: Vec<Server>,
    shape: Shape,
}

impl Service {
    async fn new(shape: Shape) -> Self {
        let mut cluster = Cluster::new(NODES);
        let mut servers = Vec::new();
        for (node, machine) in cluster.machines.iter_mut().enumerate() {
            if node == 0 || shape == Shape::Apart {
                servers.push(Server::start().await);
            }
            let (connection, schema) = match shape {
                Shape::Shared => (servers[0].provision(&schema(node)).await, schema(node)),
                Shape::Apart => (servers[node].superuser(), schema(node)),
            };
            machine.storage = Some(Storage::postgres(&connection, &schema).unwrap());
        }
        Self { cluster, servers, shape }
    }

    fn server(&mut self, node: usize) -> &mut Server {
        &mut self.servers[if self.shape == Shape::Shared { 0 } else { node }]
    }

    /// Segments that a node's schema has.
    async fn segments(&mut self, node: usize) -> i64 {
        let sql = format!("SELECT count(*) FROM {}.segments", schema(node));
        self.server(node).as_operator(async |client| client.query_one(&sql, &[]).await).await.get(0)
    }
}

fn schema(node: usize) -> String {
    format!("node{node}")
}

/// A node that writes and reads all the time.
struct Load {
    durable: watch::Receiver<u64>,
    writing: JoinHandle<()>,
    reading: Reading,
}

impl Load {
    fn start(node: usize, running: &Running) -> Self {
        let (tell, durable) = watch::channel(0);
        let tell = move |step: Step, number: u64| {
            assert_eq!(step, Step::Durable);
            tell.send_if_modified(|most| std::mem::replace(most, number.max(*most)) < number);
        };
        let tell = std::sync::Arc::new(tell);
        let tell = move |step, number| tell(step, number);
        let writing = tokio::spawn(write(running.replica.clone(), (node as u8, 0), AT_ONCE, 0, tell));
        Self { durable, writing, reading: Reading::start(running.replica.subscribe(Frontier::start())) }
    }

    /// Waits for so many more durable entries.
    async fn more(&mut self, entries: u64) {
        let before = *self.durable.borrow();
        soon(self.durable.wait_for(|number| *number >= before + entries)).await.expect("it goes on writing");
    }
}

/// What is durable at each.
fn durable(loads: &[Load]) -> Counts {
    loads.iter().enumerate().map(|(node, load)| ((node as u8, 0), *load.durable.borrow())).collect()
}

async fn converge_and_prune(shape: Shape) {
    let mut service = Service::new(shape).await;
    let mut running = service.cluster.start_all().await;
    all_linked(&running).await;
    for i in 0..300 {
        let receipt = running[i % NODES].replica.append(format!("n{}={i}", i % 10)).await.unwrap();
        if i % 20 == 0 {
            soon(receipt.replicated(2)).await.unwrap();
        }
    }
    let mut states: Vec<_> = running.iter().map(Running::follow).collect();
    for state in &mut states {
        until(state, |notes| notes.count == 300).await;
    }
    let before = service.segments(0).await;
    assert!(before > 30, "{before}");
    running[0].replica.retain().await.unwrap();
    let mut following: Vec<_> = states
        .into_iter()
        .map(|mut state| {
            tokio::spawn(async move {
                until(&mut state, |notes| notes.value("end").is_some()).await;
                state.state().clone()
            })
        })
        .collect();
    for node in &running {
        soon(node.replica.status().wait_for(|status| status.checkpoint)).await.unwrap();
    }
    for node in 0..NODES {
        let pruned = async {
            while service.segments(node).await > before / 2 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        soon(pruned).await;
    }
    // Who starts again, and who comes anew, go on from the state.
    following.remove(0).abort();
    running.remove(0).stop().await;
    running.insert(0, service.cluster.start(0).await);
    all_linked(&running).await;
    let mut late = running[0].replica.subscribe(Frontier::start());
    assert!(matches!(soon(late.next()).await, Ok(Some(Event::State(_)))));
    let again = tokio::spawn({
        let mut again = running[0].follow();
        async move {
            until(&mut again, |notes| notes.value("end").is_some()).await;
            again.state().clone()
        }
    });
    let last = running[0].replica.append("end=here").await.unwrap();
    assert_eq!(soon(last.replicated(2)).await.unwrap(), 2);
    let state = again.await.unwrap();
    assert_eq!(state.count, 301);
    for following in following {
        assert_eq!(soon(following).await.unwrap(), state);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_on_one_server_converge_and_prune() {
    converge_and_prune(Shape::Shared).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_with_servers_of_their_own_converge_and_prune() {
    converge_and_prune(Shape::Apart).await;
}

/// Stops writing, and sees that everybody has delivered all that was durable, once; also when it is opened again.
async fn nothing_is_lacking(service: &Service, running: Vec<Running>, mut loads: Vec<Load>) {
    for load in &mut loads {
        load.more(1).await;
        load.writing.abort();
    }
    let all = durable(&loads);
    for load in &mut loads {
        load.reading.until(&all).await;
    }
    for node in running {
        assert!(node.replica.status().borrow().stopped.is_none());
        soon(node.stop()).await;
    }
    for node in 0..NODES {
        let again = service.cluster.start(node).await;
        Reading::start(again.replica.subscribe(Frontier::start())).until(&all).await;
        again.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_of_all_is_killed_under_load_and_everybody_goes_on() {
    let mut service = Service::new(Shape::Shared).await;
    let running = service.cluster.start_all().await;
    all_linked(&running).await;
    let mut loads: Vec<_> = running.iter().enumerate().map(|(node, running)| Load::start(node, running)).collect();
    for round in 0..5 {
        for load in &mut loads {
            load.more(20 + 7 * round).await;
        }
        service.servers[0].kill();
        // What comes meanwhile waits; nobody is refused, and everybody is told.
        let mut waiting = Vec::new();
        for node in &running {
            let deadline = Instant::now() + Duration::from_millis(300);
            let receipt = soon(node.replica.append("while it is away")).await.unwrap();
            let reached = receipt.replicated_up_to(1, deadline).await;
            assert!(matches!(reached, Err(ReceiptError::NotYetDurable)), "{reached:?}");
            soon(node.replica.status().wait_for(|status| status.disk == Disk::Away)).await.unwrap();
            waiting.push(receipt);
        }
        service.servers[0].restart().await;
        for (node, receipt) in running.iter().zip(waiting) {
            soon(receipt.replicated(2)).await.unwrap();
            soon(node.replica.status().wait_for(|status| status.disk == Disk::Good)).await.unwrap();
        }
    }
    nothing_is_lacking(&service, running, loads).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_nodes_own_server_is_killed_and_the_others_are_not_disturbed() {
    let mut service = Service::new(Shape::Apart).await;
    let running = service.cluster.start_all().await;
    all_linked(&running).await;
    let mut loads: Vec<_> = running.iter().enumerate().map(|(node, running)| Load::start(node, running)).collect();
    for victim in [0, 2, 0] {
        for load in &mut loads {
            load.more(30).await;
        }
        service.servers[victim].kill();
        soon(running[victim].replica.status().wait_for(|status| status.disk == Disk::Away)).await.unwrap();
        let waits = running[victim].replica.append("while it is away").await.unwrap();
        let others = (0..NODES).filter(|node| *node != victim);
        for node in others.clone() {
            // What they write gets from one to the other, and is read.
            loads[node].more(100).await;
            let receipt = running[node].replica.append("meanwhile").await.unwrap();
            soon(receipt.replicated(1)).await.unwrap();
            assert_eq!(running[node].replica.status().borrow().disk, Disk::Good);
        }
        let all = others.map(|node| ((node as u8, 0), *loads[node].durable.borrow())).collect();
        for node in (0..NODES).filter(|node| *node != victim) {
            loads[node].reading.until(&all).await;
        }
        let status = running[victim].replica.status();
        assert!(status.borrow().stopped.is_none() && status.borrow().disk == Disk::Away);
        service.servers[victim].restart().await;
        soon(waits.replicated(2)).await.unwrap();
    }
    nothing_is_lacking(&service, running, loads).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_shuts_down_while_its_server_is_away() {
    let mut service = Service::new(Shape::Shared).await;
    let node = service.cluster.start(0).await;
    node.replica.append("before").await.unwrap().durable().await.unwrap();
    service.servers[0].kill();
    let waits = node.replica.append("while it is away").await.unwrap();
    soon(node.stop()).await;
    assert!(matches!(soon(waits.durable()).await, Err(ReceiptError::Closed)));
    service.servers[0].restart().await;
    let again = service.cluster.start(0).await;
    let mut state = again.follow();
    until(&mut state, |notes| notes.count >= 1).await;
    again.replica.append("after").await.unwrap().durable().await.unwrap();
    again.stop().await;
}

/// Frozen, it takes connections and says nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_frozen_is_away_until_it_is_thawed_and_keeps_no_replica_from_shutting_down() {
    let service = Service::new(Shape::Apart).await;
    let running = service.cluster.start_all().await;
    all_linked(&running).await;
    let mut loads: Vec<_> = running.iter().enumerate().map(|(node, running)| Load::start(node, running)).collect();
    for load in &mut loads {
        load.more(30).await;
    }
    service.servers[1].freeze();
    soon(running[1].replica.status().wait_for(|status| status.disk == Disk::Away)).await.unwrap();
    for node in [0, 2] {
        loads[node].more(50).await;
        assert_eq!(running[node].replica.status().borrow().disk, Disk::Good);
    }
    service.servers[1].thaw();
    loads[1].more(50).await;
    soon(running[1].replica.status().wait_for(|status| status.disk == Disk::Good)).await.unwrap();

    // What it is asked meanwhile ends all the same.
    let last = running[1].replica.clone();
    loads.iter().for_each(|load| load.writing.abort());
    let mut late = last.subscribe(Frontier::start());
    service.servers[1].freeze();
    let waits = last.append("while it is frozen").await.unwrap();
    let (waits, late, ()) = soon(async { tokio::join!(waits.durable(), late.next(), last.shutdown()) }).await;
    assert!(matches!(waits, Err(ReceiptError::Closed | ReceiptError::Stopped(_))), "{waits:?}");
    assert!(matches!(late, Ok(None)), "{late:?}");
    service.servers[1].thaw();
    let mut running = running;
    running.remove(1);
    running.insert(1, service.cluster.start(1).await);
    all_linked(&running).await;
    let all = durable(&loads);
    for node in running {
        Reading::start(node.replica.subscribe(Frontier::start())).until(&all).await;
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_checkpoint_is_loaded_by_a_node_whose_server_takes_no_connection_for_a_while() {
    let service = Service::new(Shape::Shared).await;
    let mut running = service.cluster.start_all().await;
    all_linked(&running).await;
    running.pop().unwrap().stop().await;
    for i in 0..200 {
        running[i % 2].replica.append(format!("n{}={i}", i % 10)).await.unwrap();
    }
    let mut states: Vec<_> = running.iter().map(Running::follow).collect();
    for state in &mut states {
        until(state, |notes| notes.count == 200).await;
    }
    running[0].replica.retain().await.unwrap();
    let following: Vec<_> = states
        .into_iter()
        .map(|mut state| tokio::spawn(async move { until(&mut state, |notes| notes.value("end").is_some()).await }))
        .collect();
    for node in &running {
        soon(node.replica.status().wait_for(|status| status.checkpoint)).await.unwrap();
    }

    // It has a connection to write the state by, and gets none to open its log anew behind it.
    let limit = async |connections: i32| {
        let sql = format!("ALTER ROLE {} CONNECTION LIMIT {connections}", schema(2));
        service.servers[0].as_operator(async |client| client.batch_execute(&sql).await).await;
    };
    let replica = service.cluster.open(2, &service.cluster.manifest).await.unwrap();
    limit(0).await;
    let back = service.cluster.serve(2, replica, service.cluster.network.clone()).await;
    let mut there = back.follow();
    soon(back.replica.status().wait_for(|status| status.disk == Disk::Away)).await.unwrap();
    assert!(back.replica.status().borrow().stopped.is_none());
    let waits = back.replica.append("+patient").await.unwrap();
    limit(-1).await;
    until(&mut there, |notes| notes.count == 201).await;
    assert!(there.state().set.contains(&"patient".to_owned()));
    soon(waits.replicated(2)).await.unwrap();
    running[0].replica.append("end=here").await.unwrap();
    until(&mut there, |notes| notes.value("end").is_some()).await;
    for following in following {
        soon(following).await.unwrap();
    }
    assert!(back.replica.status().borrow().checkpoint && back.replica.status().borrow().stopped.is_none());
    for node in running.into_iter().chain([back]) {
        node.stop().await;
    }
}
