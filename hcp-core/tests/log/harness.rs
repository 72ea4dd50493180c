//! Nodes of one service, which are started, killed and cut off.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use hcp_core::identity::delegation::OwnerKey;
use hcp_core::identity::manifest::{Contents, Manifest, Member, Role, SoftwareVersion};
use hcp_core::identity::{Identity, LogKey};
use hcp_core::network::{ListenError, MemoryNetwork, Network};
use hcp_core::node::{Access, BindError, Node};
use hcp_core::replica::{
    Applied, Event, Follower, Frontier, Links, MemoryDisk, OpenReplicaError, PROTOCOL, Register, Replica, RestoreError,
    Set, Split, Spot, Stamp, StateMachine, Storage, Subscription, Turn,
};

/// What outlives a node's process: keys and disk.
pub(crate) struct Machine {
    pub(crate) identity: Identity,
    pub(crate) key: LogKey,
    pub(crate) disk: MemoryDisk,
    /// In place of that disk.
    pub(crate) storage: Option<Storage>,
    pub(crate) software: SoftwareVersion,
}

impl Machine {
    fn new() -> Self {
        let software = SoftwareVersion::new(0, 1, 0);
        Self {
            identity: Identity::generate(),
            key: LogKey::generate(),
            disk: MemoryDisk::new(),
            storage: None,
            software,
        }
    }

    pub(crate) fn member(&self) -> Member {
        Member::new(self.identity.address(), self.key.public_key(), Role::Publisher).unwrap()
    }
}

/// A service with all that could be its nodes, in the order of their addresses: of two the first one dials.
pub(crate) struct Cluster {
    pub(crate) machines: Vec<Machine>,
    pub(crate) owner: OwnerKey,
    pub(crate) service: Identity,
    pub(crate) manifest: Manifest,
    pub(crate) network: Arc<dyn Network>,
}

impl Cluster {
    pub(crate) fn new(nodes: usize) -> Self {
        let mut machines: Vec<_> = (0..nodes).map(|_| Machine::new()).collect();
        machines.sort_by_key(|machine| machine.identity.address());
        let (owner, service) = (OwnerKey::generate(), Identity::generate());
        let members = machines.iter().map(Machine::member).collect();
        let contents = Contents::new(1, members).unwrap();
        let manifest = Manifest::sign(&owner, service.address(), contents).unwrap();
        Self { machines, owner, service, manifest, network: Arc::new(MemoryNetwork::new()) }
    }

    /// What the owner signs for these machines.
    pub(crate) fn sign(&self, version: u64, machines: &[usize], change: impl FnOnce(Contents) -> Contents) -> Manifest {
        let members = machines.iter().map(|machine| self.machines[*machine].member()).collect();
        let contents = change(Contents::new(version, members).unwrap());
        Manifest::sign(&self.owner, self.service.address(), contents).unwrap()
    }

    pub(crate) async fn open(&self, machine: usize, manifest: &Manifest) -> Result<Replica, OpenReplicaError> {
        let machine = &self.machines[machine];
        loop {
            let storage = machine.storage.clone().unwrap_or_else(|| Storage::memory(&machine.disk));
            let builder = Replica::builder(storage, machine.key.clone(), self.owner.public_key(), manifest.clone());
            match builder.software(machine.software).state_machine(Notes::default).open().await {
                // The process before is not quite dead.
                Err(OpenReplicaError::Store(hcp_core::replica::StoreError::InUse)) => tokio::task::yield_now().await,
                opened => return opened,
            }
        }
    }

    pub(crate) async fn start(&self, machine: usize) -> Running {
        self.start_with(machine, &self.manifest).await
    }

    pub(crate) async fn start_with(&self, machine: usize, manifest: &Manifest) -> Running {
        self.start_on(machine, manifest, Arc::clone(&self.network)).await
    }

    /// Starts a node on a network of its own, or on everybody's.
    pub(crate) async fn start_on(&self, machine: usize, manifest: &Manifest, network: Arc<dyn Network>) -> Running {
        let replica = self.open(machine, manifest).await.unwrap();
        self.serve(machine, replica, network).await
    }

    /// Links a replica that is open with the others.
    pub(crate) async fn serve(&self, machine: usize, replica: Replica, network: Arc<dyn Network>) -> Running {
        let identity = &self.machines[machine].identity;
        let bound = loop {
            let builder = Node::builder(identity.clone(), Arc::clone(&network));
            match builder.protocol(PROTOCOL, Access::Identified, replica.handler()).bind().await {
                Err(BindError::Listen(ListenError::InUse)) => tokio::task::yield_now().await,
                bound => break bound,
            }
        };
        let node = bound.unwrap();
        Running { links: Some(replica.link(&node)), node, replica }
    }

    pub(crate) async fn start_all(&self) -> Vec<Running> {
        let mut running = Vec::new();
        for machine in 0..self.machines.len() {
            running.push(self.start(machine).await);
        }
        running
    }
}

/// A network where nobody else is.
pub(crate) fn nowhere() -> Arc<dyn Network> {
    Arc::new(MemoryNetwork::new())
}

pub(crate) struct Running {
    pub(crate) replica: Replica,
    pub(crate) links: Option<Links>,
    pub(crate) node: Node,
}

impl Running {
    pub(crate) async fn stop(self) {
        drop(self.links);
        self.replica.shutdown().await;
    }

    pub(crate) async fn linked_with(&self, peers: usize) {
        soon(self.replica.peers().wait_for(|all| all.live() == peers)).await.unwrap();
    }

    pub(crate) fn follow(&self) -> Follower<Notes> {
        Follower::new(self.replica.subscribe(Frontier::start()), Notes::default())
    }
}

/// Waits for something that must come; under paused time that is a matter of steps.
pub(crate) async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(120), what).await.expect("within two minutes")
}

pub(crate) async fn next_entry(subscription: &mut Subscription) -> Applied {
    loop {
        if let Event::Entry(applied) = soon(subscription.next()).await.unwrap().expect("an event") {
            return applied;
        }
    }
}

pub(crate) async fn read(subscription: &mut Subscription, count: usize) -> Vec<String> {
    let mut texts = Vec::new();
    for _ in 0..count {
        texts.push(String::from_utf8(next_entry(subscription).await.entry.to_vec()).unwrap());
    }
    texts
}

pub(crate) async fn all_linked(running: &[Running]) {
    for node in running {
        node.linked_with(running.len() - 1).await;
    }
}

/// Follows until a state fits.
pub(crate) async fn until(follower: &mut Follower<Notes>, fits: impl Fn(&Notes) -> bool) {
    while !fits(follower.state()) {
        soon(follower.next()).await.unwrap().expect("the log goes on");
    }
}

/// An application: `name=value` writes a register, `+x` and `-x` a set, and every entry is counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Notes {
    pub(crate) registers: BTreeMap<String, Register<String>>,
    pub(crate) set: Set<String>,
    pub(crate) count: u64,
}

impl Notes {
    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        self.registers.get(name)?.value().map(String::as_str)
    }
}

impl StateMachine for Notes {
    fn apply(&mut self, applied: &Applied) {
        let text = String::from_utf8_lossy(&applied.entry).into_owned();
        self.count += u64::from(applied.turn == Turn::First);
        if let Some((name, value)) = text.split_once('=') {
            self.registers.entry(name.to_owned()).or_default().write(&applied.write, value.to_owned());
        } else if let Some(element) = text.strip_prefix('+') {
            self.set.insert(&applied.write, element.to_owned());
        } else if let Some(element) = text.strip_prefix('-') {
            self.set.remove(&applied.write, &element.to_owned());
        }
    }

    fn split(&mut self, split: &Split) {
        self.registers.values_mut().for_each(|register| register.split(split));
        self.set.split(split);
    }

    fn checkpoint(&self) -> Vec<u8> {
        let mut out = format!("{}\n", self.count);
        let hex = |spot: Spot| spot.to_bytes().map(|byte| format!("{byte:02x}")).concat();
        for (name, register) in &self.registers {
            for (spot, stamp, value) in register.values() {
                out += &format!("={name}\t{}\t{}\t{}\t{value}\n", hex(spot), stamp.millis, stamp.counter);
            }
        }
        for (element, spot) in self.set.additions() {
            out += &format!("+{element}\t{}\n", hex(spot));
        }
        out.into_bytes()
    }

    fn restore(&mut self, state: &[u8]) -> Result<(), RestoreError> {
        let text = std::str::from_utf8(state).map_err(|_| RestoreError)?;
        *self = Self::read(text).ok_or(RestoreError)?;
        Ok(())
    }
}

impl Notes {
    fn read(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let count = lines.next()?.parse().ok()?;
        let (mut registers, mut set) = (BTreeMap::<_, Vec<_>>::new(), Vec::new());
        for line in lines {
            let fields: Vec<&str> = line.split('\t').collect();
            match (line.as_bytes().first()?, &fields[..]) {
                (b'=', [name, spot, millis, counter, value]) => {
                    let stamp = Stamp { millis: millis.parse().ok()?, counter: counter.parse().ok()? };
                    let written = (spot_of(spot)?, stamp, (*value).to_owned());
                    registers.entry(name[1..].to_owned()).or_default().push(written);
                }
                (b'+', [element, spot]) => set.push((element[1..].to_owned(), spot_of(spot)?)),
                _ => return None,
            }
        }
        let registers = registers.into_iter().map(|(name, values)| (name, values.into_iter().collect())).collect();
        Some(Self { registers, set: set.into_iter().collect(), count })
    }
}

fn spot_of(hex: &str) -> Option<Spot> {
    let bytes: Option<Vec<u8>> =
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(hex.get(at..at + 2)?, 16).ok()).collect();
    Some(Spot::from_bytes(&bytes?.try_into().ok()?))
}
