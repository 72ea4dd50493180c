//! Replicas that link over the memory network.

#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use hcp_core::identity::{Identity, LogKey, OnionAddress};
use hcp_core::network::{BoxedTransport, DialError, ListenError, Listener, MemoryNetwork, Network};
use hcp_core::node::{Access, Node};
use hcp_core::replica::{
    AppendError, Applied, Event, Links, MAX_ENTRY, Member, NodeId, PROTOCOL, Replica, SetMembersError, Subscription,
};

/// What outlives a node's process: keys and disk.
struct Machine {
    identity: Identity,
    key: LogKey,
    folder: tempfile::TempDir,
}

impl Machine {
    fn new() -> Self {
        Self { identity: Identity::generate(), key: LogKey::generate(), folder: tempfile::tempdir().unwrap() }
    }

    fn member(&self) -> Member {
        Member { address: self.identity.address(), node: NodeId(self.key.public_key()) }
    }

    fn database(&self) -> std::path::PathBuf {
        self.folder.path().join("log.db")
    }

    async fn start(&self, cluster: &Cluster) -> Running {
        self.start_on(cluster, Arc::clone(&cluster.network)).await
    }

    async fn start_on(&self, cluster: &Cluster, network: Arc<dyn Network>) -> Running {
        let members = cluster.machines.iter().map(Self::member).collect();
        let replica = Replica::open(self.database(), cluster.service, self.key.clone(), members).await.unwrap();
        let node = Node::builder(self.identity.clone(), network)
            .protocol(PROTOCOL, Access::Identified, replica.handler())
            .bind()
            .await
            .unwrap();
        Running { links: replica.link(&node), _node: node, replica }
    }
}

struct Running {
    replica: Replica,
    links: Links,
    _node: Node,
}

impl Running {
    async fn stop(self) {
        drop(self.links);
        self.replica.shutdown().await;
    }
}

struct Cluster {
    machines: Vec<Machine>,
    service: OnionAddress,
    network: Arc<dyn Network>,
}

impl Cluster {
    fn new(nodes: usize) -> Self {
        Self {
            machines: (0..nodes).map(|_| Machine::new()).collect(),
            service: Identity::generate().address(),
            network: Arc::new(MemoryNetwork::new()),
        }
    }

    async fn start(&self) -> Vec<Running> {
        let mut running = Vec::new();
        for machine in &self.machines {
            running.push(machine.start(self).await);
        }
        running
    }
}

async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), what).await.expect("within 30 s")
}

async fn next_entry(subscription: &mut Subscription) -> Applied {
    loop {
        if let Event::Entry(applied) = soon(subscription.next()).await.unwrap().expect("an event") {
            return applied;
        }
    }
}

async fn read(subscription: &mut Subscription, count: usize) -> Vec<String> {
    let mut texts = Vec::new();
    for _ in 0..count {
        texts.push(String::from_utf8(next_entry(subscription).await.entry.to_vec()).unwrap());
    }
    texts
}

async fn all_linked(running: &[Running]) {
    for node in running {
        soon(node.replica.peers().wait_for(|peers| peers.live() == running.len() - 1)).await.unwrap();
    }
}

#[tokio::test]
async fn what_one_node_appends_all_nodes_deliver_and_receipt() {
    let cluster = Cluster::new(3);
    let running = cluster.start().await;
    all_linked(&running).await;
    let receipt = running[0].replica.append("hello").await.unwrap();
    assert_eq!(soon(receipt.replicated(2)).await.unwrap(), 2);
    let place = receipt.durable().await.unwrap();
    for node in &running {
        let applied = next_entry(&mut node.replica.subscribe()).await;
        assert_eq!((&applied.entry[..], applied.write.place), (&b"hello"[..], place));
        assert_eq!(applied.append.is_some(), node.replica.log() == place.log);
    }
}

#[tokio::test]
async fn a_lone_node_is_durable_and_claims_no_replicas() {
    let cluster = Cluster::new(3);
    let alone = cluster.machines[0].start(&cluster).await;
    let receipt = alone.replica.append("alone").await.unwrap();
    assert_eq!(soon(receipt.replicated_to_live(1)).await.unwrap(), 0);
    let waiting = tokio::time::timeout(Duration::from_millis(100), receipt.replicated(1)).await;
    assert!(waiting.is_err(), "nobody else is there to hold it");
}

#[tokio::test]
async fn a_node_that_was_away_catches_up_and_gives_what_it_wrote_alone() {
    let cluster = Cluster::new(3);
    let mut running = cluster.start().await;
    all_linked(&running).await;
    let first = running[2].replica.append("before").await.unwrap();
    soon(first.replicated(2)).await.unwrap();
    running.pop().unwrap().stop().await;
    for i in 0..500 {
        running[i % 2].replica.append(format!("while away {i}")).await.unwrap();
    }
    let last = running[0].replica.append("last").await.unwrap();
    soon(last.replicated(1)).await.unwrap();
    // Written while nobody could be reached, on the machine that was away.
    let lonely = Cluster { machines: Vec::new(), service: cluster.service, network: Arc::new(MemoryNetwork::new()) };
    let away = cluster.machines[2].start(&lonely).await;
    away.replica.append("written alone").await.unwrap().durable().await.unwrap();
    away.stop().await;

    let back = cluster.machines[2].start(&cluster).await;
    let mut texts = read(&mut back.replica.subscribe(), 503).await;
    let mut at_first = read(&mut running[0].replica.subscribe(), 503).await;
    texts.sort();
    at_first.sort();
    assert_eq!(texts, at_first);
    assert!(texts.contains(&"written alone".to_owned()));
}

#[tokio::test]
async fn delivery_is_causal_and_identical_entries_are_delivered_once() {
    let cluster = Cluster::new(3);
    let running = cluster.start().await;
    all_linked(&running).await;
    // Each node answers what it was handed: an answer must never stand before its question, anywhere.
    const ROUNDS: usize = 60;
    let mut answering = Vec::new();
    for (i, node) in running.iter().enumerate() {
        let replica = node.replica.clone();
        answering.push(tokio::spawn(async move {
            let mut subscription = replica.subscribe();
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
        let mut subscription = node.replica.subscribe();
        let mut latest: Option<Applied> = None;
        for round in 0..ROUNDS {
            let applied = next_entry(&mut subscription).await;
            assert_eq!(String::from_utf8_lossy(&applied.entry), round.to_string());
            if let Some(before) = latest.replace(applied.clone()) {
                assert!(applied.write.past.has_seen(&before.write.place), "an answer has seen its question");
                assert!(!before.write.past.has_seen(&applied.write.place));
                assert!(before.write.stamp < applied.write.stamp);
            }
        }
    }
}

/// A network on which one address cannot be dialled.
#[derive(Debug)]
struct Without(OnionAddress, Arc<dyn Network>);

impl Network for Without {
    fn dial(&self, address: OnionAddress, port: u16) -> BoxFuture<'_, Result<BoxedTransport, DialError>> {
        if address == self.0 {
            return Box::pin(async { Err(DialError::NotFound) });
        }
        self.1.dial(address, port)
    }

    fn listen<'a>(&'a self, identity: &'a Identity, ports: &'a [u16]) -> BoxFuture<'a, Result<Listener, ListenError>> {
        self.1.listen(identity, ports)
    }
}

#[tokio::test]
async fn two_nodes_that_cannot_reach_each_other_converge_through_a_third() {
    let cluster = Cluster::new(3);
    let [a, b, c] = &cluster.machines[..] else { panic!("three machines") };
    let without = |machine: &Machine| -> Arc<dyn Network> {
        Arc::new(Without(machine.identity.address(), Arc::clone(&cluster.network)))
    };
    let at_a = a.start_on(&cluster, without(c)).await;
    let at_b = b.start(&cluster).await;
    let at_c = c.start_on(&cluster, without(a)).await;
    soon(at_b.replica.peers().wait_for(|peers| peers.live() == 2)).await.unwrap();
    at_a.replica.append("from a").await.unwrap();
    let mut subscription = at_b.replica.subscribe();
    assert_eq!(next_entry(&mut subscription).await.entry, "from a");
    at_b.replica.append("an answer").await.unwrap();
    assert_eq!(at_c.replica.peers().borrow().live(), 1);
    let waited = tokio::time::Instant::now();
    assert_eq!(read(&mut at_c.replica.subscribe(), 2).await, ["from a", "an answer"]);
    assert!(waited.elapsed() < Duration::from_secs(5), "{:?}", waited.elapsed());
}

#[tokio::test]
async fn a_restart_begins_an_incarnation_that_everybody_hears_of() {
    let cluster = Cluster::new(2);
    let mut running = cluster.start().await;
    all_linked(&running).await;
    let old = running[1].replica.log();
    running.pop().unwrap().stop().await;
    running.push(cluster.machines[1].start(&cluster).await);
    let new = running[1].replica.log();
    assert_ne!(old, new);
    assert_eq!(old.node, new.node);
    let mut subscription = running[0].replica.subscribe();
    let mut began = Vec::new();
    while began.last() != Some(&new) {
        if let Some(Event::Began(log)) = soon(subscription.next()).await.unwrap() {
            began.push(log);
        }
    }
    assert!(began.contains(&old));
}

#[tokio::test]
async fn strangers_and_members_of_other_services_get_no_link() {
    let cluster = Cluster::new(2);
    let running = cluster.start().await;
    all_linked(&running).await;
    // The same members, as another service: hellos do not fit.
    let stranger = Machine::new();
    let other = Cluster {
        machines: vec![stranger, Machine::new()],
        service: cluster.service,
        network: Arc::clone(&cluster.network),
    };
    let intruder = other.machines[0].start(&other).await;
    let node = Node::builder(Identity::generate(), Arc::clone(&cluster.network)).bind().await.unwrap();
    let session = node.connect(cluster.machines[0].identity.address()).await.unwrap();
    let mut stream = session.open(PROTOCOL).await.unwrap();
    assert!(soon(stream.recv()).await.is_err(), "a stranger's stream is reset");
    assert_eq!(intruder.replica.peers().borrow().live(), 0);
    assert_eq!(running[0].replica.peers().borrow().live(), 1);
}

#[tokio::test]
async fn an_entry_beyond_the_limit_is_refused_and_one_at_the_limit_is_carried() {
    let cluster = Cluster::new(2);
    let running = cluster.start().await;
    all_linked(&running).await;
    let length = MAX_ENTRY + 1;
    let error = running[0].replica.append(vec![0; length]).await.unwrap_err();
    assert!(matches!(error, AppendError::TooLong { length: l } if l == length));
    let mut receipts = Vec::new();
    for _ in 0..20 {
        receipts.push(running[0].replica.append(vec![7; MAX_ENTRY]).await.unwrap());
    }
    for receipt in receipts {
        soon(receipt.replicated(1)).await.unwrap();
    }
    assert_eq!(next_entry(&mut running[1].replica.subscribe()).await.entry.len(), MAX_ENTRY);
}

#[tokio::test]
async fn own_entries_carry_the_number_of_their_append() {
    let cluster = Cluster::new(1);
    let node = cluster.machines[0].start(&cluster).await;
    let mut subscription = node.replica.subscribe();
    let mut wanted = HashMap::new();
    for i in 0..2_000 {
        let receipt = node.replica.append(i.to_string()).await.unwrap();
        wanted.insert(receipt.id(), i.to_string());
    }
    for _ in 0..2_000 {
        let applied = next_entry(&mut subscription).await;
        let text = String::from_utf8(applied.entry.to_vec()).unwrap();
        assert_eq!(wanted.remove(&applied.append.expect("an own entry")), Some(text));
    }
}

#[tokio::test]
async fn a_database_of_another_service_is_refused() {
    let cluster = Cluster::new(1);
    let machine = &cluster.machines[0];
    machine.start(&cluster).await.stop().await;
    let other = Identity::generate().address();
    let opened = Replica::open(Path::new(&machine.database()), other, machine.key.clone(), Vec::new()).await;
    assert!(opened.is_err());
}

/// Opens a machine's replica with these members, whoever else there is.
async fn start_with(cluster: &Cluster, machine: usize, members: &[usize]) -> Running {
    let of = |member: &usize| cluster.machines[*member].member();
    let (machine, members) = (&cluster.machines[machine], members.iter().map(of).collect());
    let replica = Replica::open(machine.database(), cluster.service, machine.key.clone(), members).await.unwrap();
    let node = Node::builder(machine.identity.clone(), Arc::clone(&cluster.network)).protocol(
        PROTOCOL,
        Access::Identified,
        replica.handler(),
    );
    let node = node.bind().await.unwrap();
    Running { links: replica.link(&node), _node: node, replica }
}

/// Of two members the one with the lower address dials: the newcomer dials both, or is dialled by both.
#[tokio::test]
async fn members_that_come_are_linked_and_those_that_go_are_cut_off_while_all_run() {
    for newcomer in [0, 2] {
        come_and_go(newcomer).await;
    }
}

async fn come_and_go(newcomer: usize) {
    let mut cluster = Cluster::new(3);
    cluster.machines.sort_by_key(|machine| machine.identity.address());
    let old: Vec<usize> = (0..3).filter(|machine| *machine != newcomer).collect();
    let tell = async |running: &Running, members: &[usize]| {
        let members = members.iter().map(|member| cluster.machines[*member].member()).collect();
        running.replica.set_members(members).await.unwrap();
    };
    let nodes = [start_with(&cluster, old[0], &old).await, start_with(&cluster, old[1], &old).await];
    all_linked(&nodes).await;
    nodes[0].replica.append("before").await.unwrap();
    for node in &nodes {
        tell(node, &[0, 1, 2]).await;
        assert_eq!(node.replica.peers().borrow().iter().count(), 2);
    }
    let third = start_with(&cluster, newcomer, &[0, 1, 2]).await;
    let newcomer = cluster.machines[newcomer].member();
    for node in [&nodes[0], &nodes[1], &third] {
        soon(node.replica.peers().wait_for(|peers| peers.live() == 2)).await.unwrap();
    }
    let mut read_by_third = third.replica.subscribe();
    assert_eq!(read(&mut read_by_third, 1).await, ["before"]);
    let receipt = third.replica.append("from the new one").await.unwrap();
    assert_eq!(soon(receipt.replicated(2)).await.unwrap(), 2);

    // It goes, and nobody has to start again; that it has not heard of it does not help it.
    let mut watched = third.replica.peers();
    for node in &nodes {
        tell(node, &old).await;
        assert_eq!(node.replica.peers().borrow().state(&newcomer.node), None);
    }
    soon(watched.wait_for(|peers| peers.live() == 0)).await.unwrap();
    let lost = third.replica.append("to nobody").await.unwrap();
    nodes[1].replica.append("after").await.unwrap();
    let mut all = read(&mut nodes[0].replica.subscribe(), 3).await;
    all.sort();
    assert_eq!(all, ["after", "before", "from the new one"]);
    let heard = tokio::time::timeout(Duration::from_secs(2), lost.replicated(1)).await;
    assert!(heard.is_err(), "somebody took in what a former member wrote: {heard:?}");

    let twice = vec![newcomer, newcomer];
    assert_eq!(nodes[0].replica.set_members(twice).await, Err(SetMembersError::DuplicateMember));
    nodes[0].replica.shutdown().await;
    assert_eq!(nodes[0].replica.set_members(vec![newcomer]).await, Err(SetMembersError::Closed));
}

/// Whoever adopts a manifest without somebody first must not wait for what the others have from it.
#[tokio::test]
async fn what_a_former_member_wrote_is_still_taken_from_others() {
    let cluster = Cluster::new(3);
    // The first knows the third, and never had a link with it.
    let first = start_with(&cluster, 0, &[0, 1, 2]).await;
    let members = |which: &[usize]| which.iter().map(|member| cluster.machines[*member].member()).collect();
    first.replica.set_members(members(&[0])).await.unwrap();
    let second = start_with(&cluster, 1, &[1, 2]).await;
    let third = start_with(&cluster, 2, &[1, 2]).await;
    let receipt = third.replica.append("the last words").await.unwrap();
    soon(receipt.replicated(1)).await.unwrap();
    drop(third);
    first.replica.set_members(members(&[0, 1])).await.unwrap();
    second.replica.set_members(members(&[0, 1])).await.unwrap();
    second.replica.append("and what came after them").await.unwrap();
    assert_eq!(read(&mut first.replica.subscribe(), 2).await, ["the last words", "and what came after them"]);
}
