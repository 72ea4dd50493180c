//! The server: one task that owns the shared state, the world, and all clients of this node.
//!
//! Invariants: the world changes only by applied entries; nothing here waits for the log, a disk or a client. A client's
//! next line is looked at once its earlier ones were processed, and one that changes state counts as processed when its
//! entry has been applied. The echo of a message is sent once another live node, if there is one, holds it; the echoes
//! of one client keep their order. A node that begins without a log serves nobody before it has what the others have.

mod announce;
pub(crate) mod client;
mod holding;
mod line;
pub(crate) mod reply;
mod requests;
pub(crate) mod welcome;

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures::FutureExt;
use hcp_core::replica::{Incarnation, LogId, NodeId, Replica, StateMachine, Turn, Write};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::Instant;

use self::client::Spoken;
pub(crate) use self::client::{Client, ClientId, Phase, Shared};
pub(crate) use self::line::{Caps, Line};
use crate::client::STOPS;
use crate::commands::{self, Flow};
use crate::entry::Entry;
use crate::log::{Log, LogEvent, LogFailure, append_with_room};
use crate::message::{Message, ParseMessageError};
use crate::names::{Folded, UserId};
use crate::world::World;
use crate::world::change::Change;

/// How long a node may be unreachable before its users are hidden: long enough for a circuit to be rebuilt, short enough
/// that nobody talks to ghosts for long.
pub const LAPSE: Duration = Duration::from_secs(20);
/// Messages of one client that may wait to be applied or confirmed; its further lines wait.
pub const UNCONFIRMED: usize = 256;

/// What the server is told at its start. Everything but `own` and `max_clients` must be the same on every node.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// The one server name.
    pub name: String,
    /// The network's name.
    pub network: String,
    /// The message of the day; empty for none.
    pub motd: Vec<String>,
    /// Messages that a channel keeps for those who join; 0 keeps none.
    pub history: usize,
    /// Whether CTCP requests other than ACTION are passed on.
    pub ctcp: bool,
    /// Whether the username and real name that a client sends are shown.
    pub real_names: bool,
    /// What message ids are derived from.
    pub msgid_key: [u8; 32],
    /// Clients that this node serves at a time.
    pub max_clients: usize,
}

impl ServerConfig {
    /// The key of message ids for the service at `address`.
    pub fn derive_msgid_key(address: &str, name: &str) -> [u8; 32] {
        blake3::derive_key("hcp-irc 2026 msgid", format!("{address}\0{name}").as_bytes())
    }
}

/// What a connection tells the server.
#[derive(Debug)]
pub(crate) enum Input {
    Open { id: ClientId, out: mpsc::Sender<Bytes>, shared: Arc<Shared> },
    Line { id: ClientId, line: Result<Message, ParseMessageError> },
    Gone { id: ClientId, reason: String },
}

/// Hands connections to the server; cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle {
    pub(crate) input: mpsc::Sender<Input>,
    pub(crate) name: Arc<str>,
    pub(crate) slots: Arc<Semaphore>,
    max_clients: usize,
    next: Arc<AtomicU64>,
    clients: watch::Receiver<usize>,
    ready: watch::Receiver<bool>,
}

impl Handle {
    /// Watches how many clients are registered here.
    pub fn clients(&self) -> watch::Receiver<usize> {
        self.clients.clone()
    }

    /// Watches whether the server has caught up with its log and serves clients.
    pub fn ready(&self) -> watch::Receiver<bool> {
        self.ready.clone()
    }

    /// Waits, once the server has ended, until its connections have: they still write what the server said last.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub async fn idle(&self) {
        let all = u32::try_from(self.max_clients).unwrap_or(u32::MAX);
        let _ = tokio::time::timeout(crate::client::GOODBYE, self.slots.acquire_many(all)).await;
    }

    pub(crate) fn next_id(&self) -> ClientId {
        self.next.fetch_add(1, Ordering::Relaxed)
    }
}

/// An entry that the log has not taken yet.
#[derive(Debug)]
struct Append {
    entry: Bytes,
    /// The number under which the server wants to be told that another node holds it.
    confirm: Option<u64>,
}

/// An entry on its way through the log; entries come back in the order in which they went.
#[derive(Debug, Default)]
struct InFlight {
    client: Option<ClientId>,
    blocks: bool,
    echo: Option<u64>,
    nick: Option<Folded>,
    channel: Option<Folded>,
    /// Whom a private message was for, if its sender is to be told that it reached nobody.
    recipient: Option<String>,
}

/// The server of this node.
#[derive(Debug)]
pub struct Server {
    pub(crate) config: ServerConfig,
    pub(crate) world: World,
    pub(crate) clients: HashMap<ClientId, Client>,
    pub(crate) own: LogId,
    /// The clients that have not sent all that registration needs, oldest first.
    new_clients: BTreeSet<ClientId>,
    by_user: HashMap<UserId, ClientId>,
    /// The clients of this node in each channel.
    rooms: HashMap<Folded, BTreeSet<ClientId>>,
    log: Log,
    input: mpsc::Receiver<Input>,
    outbox: VecDeque<Append>,
    in_flight: VecDeque<InFlight>,
    /// Nicknames and channels that entries on their way will take; the next client waits or is told.
    taken_nicks: HashSet<Folded>,
    taken_channels: HashSet<Folded>,
    stalled: VecDeque<ClientId>,
    doomed: Vec<(ClientId, &'static str)>,
    echo_owners: HashMap<u64, ClientId>,
    next_echo: u64,
    down: HashMap<NodeId, Instant>,
    caught_up: bool,
    /// Since when this node, which began with nothing, waits for what the others have before it serves clients.
    holding: Option<Instant>,
    /// Entries since this node last asked for a checkpoint.
    since_checkpoint: u64,
    /// What the manifest has clients shown.
    shown: Option<watch::Receiver<ServerConfig>>,
    count: watch::Sender<usize>,
    ready: watch::Sender<bool>,
}

impl Server {
    /// Makes a server over a replicated log and the handle by which connections reach it.
    pub fn new(config: ServerConfig, replica: Replica) -> (Self, Handle) {
        let holding = holding::began_empty(&replica.status().borrow()).then(Instant::now);
        let log = Log::new(replica);
        let (sender, input) = mpsc::channel(INPUT_QUEUE);
        let (count, clients) = watch::channel(0);
        let (ready, is_ready) = watch::channel(false);
        let handle = Handle {
            input: sender,
            name: config.name.as_str().into(),
            slots: Arc::new(Semaphore::new(config.max_clients)),
            max_clients: config.max_clients,
            next: Arc::default(),
            clients,
            ready: is_ready,
        };
        let server = Self {
            world: World::new(log.own(), config.history),
            config,
            clients: HashMap::new(),
            own: log.own(),
            new_clients: BTreeSet::new(),
            by_user: HashMap::new(),
            rooms: HashMap::new(),
            log,
            input,
            outbox: VecDeque::new(),
            in_flight: VecDeque::new(),
            taken_nicks: HashSet::new(),
            taken_channels: HashSet::new(),
            stalled: VecDeque::new(),
            doomed: Vec::new(),
            echo_owners: HashMap::new(),
            next_echo: 0,
            down: HashMap::new(),
            caught_up: false,
            holding,
            since_checkpoint: 0,
            shown: None,
            count,
            ready,
        };
        (server, handle)
    }

    /// Has clients shown the message of the day of whatever configuration comes, and CTCP and names treated by it. The rest of
    /// it counts at the next start.
    #[must_use]
    pub fn showing(self, shown: watch::Receiver<ServerConfig>) -> Self {
        Self { shown: Some(shown), ..self }
    }

    /// The state of a log without entries, for the replica; `history` as in [`ServerConfig`].
    pub fn state(history: usize) -> impl StateMachine {
        World::new(LogId { node: NodeId([0; 32]), incarnation: Incarnation([0; 16]) }, history)
    }

    /// Runs until `stop` resolves or the log fails.
    ///
    /// On a stop the users of this node quit, so that the other nodes need not wait for them to lapse.
    ///
    /// # Errors
    /// The log's failure. Nothing that was echoed is lost.
    ///
    /// # Cancel safety
    /// Not cancel-safe: dropping the future drops all clients; the log keeps what it has.
    pub async fn run(mut self, stop: impl Future<Output = ()>) -> Result<(), LogFailure> {
        tokio::pin!(stop);
        let mut inputs = Vec::with_capacity(BATCH);
        let mut tick = tokio::time::interval(Duration::from_secs(1));
        let mut stopping: Option<Instant> = None;
        let replica = self.log.replica();
        loop {
            let serving = *self.ready.borrow() && stopping.is_none();
            let waiting = self.outbox.front().map(|append| append.entry.clone());
            let has_waiting = waiting.is_some();
            tokio::select! {
                event = self.log.next() => {
                    self.on_event(event?)?;
                    self.hand_over()?;
                    for _ in 1..BATCH {
                        let Some(event) = self.log.next().now_or_never() else {
                            self.stop_holding();
                            break;
                        };
                        self.on_event(event?)?;
                        self.hand_over()?;
                    }
                }
                received = self.input.recv_many(&mut inputs, BATCH), if serving || stopping.is_some() => {
                    // The handle that `serve` holds keeps the queue open; without one there is nobody to serve.
                    if received == 0 {
                        return Ok(());
                    }
                    for input in inputs.drain(..) {
                        match (&stopping, &input) {
                            // Its sender's end says it to who has just come.
                            (Some(_), Input::Open { .. } | Input::Line { .. }) => {}
                            _ => self.on_input(input),
                        }
                    }
                }
                receipt = append_with_room(&replica, waiting.unwrap_or_default()), if has_waiting => {
                    if let Some(append) = self.outbox.pop_front() {
                        self.log.appended(receipt?, append.confirm);
                    }
                }
                _ = tick.tick() => self.on_tick(),
                () = tokio::time::sleep(LOOK), if self.holding.is_some() => self.stop_holding(),
                () = &mut stop, if stopping.is_none() => {
                    let ids: Vec<_> = self.clients.keys().copied().collect();
                    for id in ids {
                        self.close(id, STOPS);
                    }
                    stopping = Some(Instant::now() + STOP_DEADLINE);
                }
            }
            self.follow_settings();
            self.settle();
            self.hand_over()?;
            let said = self.in_flight.is_empty() && self.log.is_confirmed();
            if stopping.is_some_and(|deadline| said || Instant::now() > deadline) {
                return Ok(());
            }
        }
    }
}

impl Server {
    fn on_event(&mut self, event: LogEvent) -> Result<(), LogFailure> {
        match event {
            LogEvent::Entry { write, entry, turn, own } => self.on_applied(&write, &entry, turn, own),
            // Where this node stood counts no more.
            LogEvent::State(_) if self.caught_up || self.log.own() != self.own => self.begin_anew(),
            LogEvent::State(state) => self.world.replace(&state)?,
            LogEvent::Split(split) => self.world.split(&split),
            LogEvent::Began(log) if log.node == self.own.node && log == self.log.own() && log != self.own => {
                self.begin_anew();
            }
            LogEvent::Began(log) => {
                let changes = self.world.began(log);
                self.announce_now(changes);
            }
            LogEvent::CaughtUp => {
                self.caught_up = true;
                self.append(InFlight::default(), Entry::Start, None);
            }
            LogEvent::Peer { node, run: Some(incarnation) } => {
                self.down.remove(&node);
                let changes = self.world.restore(LogId { node, incarnation });
                self.announce_now(changes);
            }
            LogEvent::Peer { node, run: None } => {
                self.down.entry(node).or_insert_with(|| Instant::now() + LAPSE);
            }
            LogEvent::Confirmed(token) => self.on_confirmed(token),
        }
        Ok(())
    }

    /// Goes on as if the process had just started: what this node's users did is the work of a log that counts no more.
    fn begin_anew(&mut self) {
        tracing::warn!("this node was left behind; its clients are to connect again");
        for client in self.clients.values_mut() {
            // Nobody hears of their leaving but by the new run.
            client.phase = Phase::New;
        }
        let ids: Vec<_> = self.clients.keys().copied().collect();
        for id in ids {
            self.close(id, "This node was left behind; connect again");
        }
        self.by_user.clear();
        self.outbox.clear();
        self.in_flight.clear();
        self.taken_nicks.clear();
        self.taken_channels.clear();
        self.stalled.clear();
        self.doomed.clear();
        self.echo_owners.clear();
        self.down.clear();
        self.log.begin_anew();
        self.own = self.log.own();
        self.world = World::new(self.own, self.config.history);
        self.caught_up = false;
        self.holding = Some(Instant::now());
        self.ready.send_replace(false);
    }

    /// Takes over what a later manifest has clients shown.
    fn follow_settings(&mut self) {
        let Some(shown) = &mut self.shown else { return };
        if shown.has_changed().unwrap_or(false) {
            let now = shown.borrow_and_update();
            self.config.motd.clone_from(&now.motd);
            (self.config.ctcp, self.config.real_names) = (now.ctcp, now.real_names);
        }
    }

    /// Has what the log's entries made take their place, now and then. One node would do to ask for all; the others ask less
    /// often, and so it does not matter whether that one does.
    fn prune(&mut self) {
        self.since_checkpoint += 1;
        let due = PRUNE_AFTER.saturating_mul(1 + self.log.rank() as u64);
        if self.caught_up && self.since_checkpoint >= due && self.log.retain() {
            self.since_checkpoint = 0;
        }
    }

    fn on_applied(&mut self, write: &Write, entry: &[u8], turn: Turn, own: bool) {
        self.prune();
        let flight = if own { self.in_flight.pop_front() } else { None };
        let changes = match turn {
            Turn::First => self.world.apply(write, entry),
            Turn::Repeated => self.world.apply_again(write, entry),
        };
        let time = self.world.time(write.stamp.millis);
        let mut spoken = None;
        for change in changes {
            match change {
                Change::Said { user, target, said } => spoken = self.announce_message(user, &target, said),
                change => self.announce(time, change),
            }
        }
        if let Some(flight) = flight {
            self.on_landed(flight, spoken);
        }
        if !self.caught_up {
            return;
        }
        if self.world.is_current(&self.own) {
            if self.holding.is_none() {
                self.ready.send_if_modified(|ready| !std::mem::replace(ready, true));
            }
        } else if self.in_flight.is_empty() {
            // A run of this node that was lost with its disk turned up and counts as the later one.
            self.append(InFlight::default(), Entry::Start, None);
        }
    }

    /// An entry of this node was applied: whoever waited for that goes on.
    fn on_landed(&mut self, flight: InFlight, spoken: Option<Spoken>) {
        if let Some(nick) = &flight.nick {
            self.taken_nicks.remove(nick);
        }
        if let Some(channel) = &flight.channel {
            self.taken_channels.remove(channel);
        }
        let Some(id) = flight.client else { return };
        if let Some(recipient) = flight.recipient.filter(|_| spoken.is_none()) {
            self.no_such_nick(id, &recipient);
        }
        let Some(client) = self.clients.get_mut(&id) else { return };
        client.unapplied -= 1;
        client.waiting -= usize::from(flight.blocks);
        if let Some(token) = flight.echo {
            match client.echoes.iter_mut().find(|echo| echo.token == token) {
                Some(echo) if spoken.is_some() => echo.spoken = spoken,
                // The message reached nobody: its channel was recreated or its recipient quit meanwhile.
                _ => client.echoes.retain(|echo| echo.token != token),
            }
            self.flush_echoes(id);
        }
        let lost = |client: &Client| client.phase == Phase::Connecting && client.waiting == 0;
        if self.clients.get(&id).is_some_and(lost) {
            self.doomed.push((id, "The server process is starting anew; connect again"));
        }
        self.advance(id);
    }

    fn on_confirmed(&mut self, token: u64) {
        let Some(id) = self.echo_owners.remove(&token) else { return };
        let Some(client) = self.clients.get_mut(&id) else { return };
        if let Some(echo) = client.echoes.iter_mut().find(|echo| echo.token == token) {
            echo.confirmed = true;
        }
        self.flush_echoes(id);
        self.advance(id);
    }

    fn flush_echoes(&mut self, id: ClientId) {
        loop {
            let Some(client) = self.clients.get_mut(&id) else { return };
            let ready = client.echoes.front().is_some_and(|echo| echo.confirmed && echo.spoken.is_some());
            let Some(echo) = ready.then(|| client.echoes.pop_front()).flatten() else { return };
            if let (Some(user), Some(spoken)) = (client.user, echo.spoken) {
                let mut line = self.echo_line(user, &spoken);
                self.send(id, &mut line);
            }
        }
    }

    fn on_input(&mut self, input: Input) {
        match input {
            Input::Open { id, out, shared } => {
                let bound = (self.config.max_clients / NEW_SHARE).max(1);
                if self.new_clients.len() >= bound
                    && let Some(oldest) = self.new_clients.first().copied()
                {
                    self.close(oldest, "Others wait to register; connect again");
                }
                self.new_clients.insert(id);
                self.clients.insert(id, Client::new(out, shared));
            }
            Input::Line { id, line } => {
                if let Some(client) = self.clients.get_mut(&id) {
                    client.pending.push_back(line);
                    self.advance(id);
                }
            }
            Input::Gone { id, reason } => self.close(id, &reason),
        }
    }

    fn on_tick(&mut self) {
        let now = Instant::now();
        let lapsed: Vec<NodeId> = self.down.iter().filter(|(_, at)| **at <= now).map(|(node, _)| *node).collect();
        for node in lapsed {
            self.down.remove(&node);
            let changes = self.world.lapse(node);
            self.announce_now(changes);
        }
    }

    /// Hands entries to the log as far as it takes them.
    fn hand_over(&mut self) -> Result<(), LogFailure> {
        while let Some(append) = self.outbox.front() {
            if !self.log.try_append(&append.entry, append.confirm)? {
                break;
            }
            self.outbox.pop_front();
        }
        Ok(())
    }

    /// Does what event handlers left for later: drops clients, tries stalled ones again.
    fn settle(&mut self) {
        for (id, reason) in std::mem::take(&mut self.doomed) {
            self.close(id, reason);
        }
        for id in std::mem::take(&mut self.stalled) {
            if let Some(client) = self.clients.get_mut(&id) {
                client.stalled = false;
                self.advance(id);
            }
        }
        let registered = self.by_user.len();
        self.count.send_if_modified(|count| std::mem::replace(count, registered) != registered);
    }

    /// Processes a client's lines until one has to wait.
    fn advance(&mut self, id: ClientId) {
        loop {
            let Some(client) = self.clients.get_mut(&id) else { return };
            if client.waiting > 0 || client.stalled {
                return;
            }
            let Some(line) = client.pending.pop_front() else { return };
            let flow = if client.unapplied < UNCONFIRMED && client.echoes.len() < UNCONFIRMED {
                commands::run(self, id, &line)
            } else {
                Flow::Retry
            };
            let Some(client) = self.clients.get_mut(&id) else { return };
            match flow {
                Flow::Done => client.shared.credits.add_permits(1),
                Flow::Retry => {
                    client.pending.push_front(line);
                    client.stalled = true;
                    self.stalled.push_back(id);
                    return;
                }
            }
        }
    }

    fn append(&mut self, flight: InFlight, entry: Entry, confirm: Option<u64>) {
        if let Some(client) = flight.client.and_then(|id| self.clients.get_mut(&id)) {
            client.unapplied += 1;
            client.waiting += usize::from(flight.blocks);
        }
        self.in_flight.push_back(flight);
        self.outbox.push_back(Append { entry: entry.encode(), confirm });
    }
}

/// Milliseconds since 1970.
pub(crate) fn now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// The file of the log in a node's home.
pub(crate) const LOG: &str = "log.db";
/// How often it is looked at whether a node that waits for the others may serve.
const LOOK: Duration = Duration::from_millis(50);
/// Entries after which what they made takes their place: some megabytes of log.
const PRUNE_AFTER: u64 = 10_000;
/// Events or inputs handled before the rest gets its turn.
const BATCH: usize = 256;
/// Inputs of all connections that wait for the server; connections wait when it is full.
const INPUT_QUEUE: usize = 1024;
/// Clients that are not registered may be one in this many of all: whoever only opens connections displaces others who do.
const NEW_SHARE: usize = 4;
/// How long a stop waits for its last entries.
const STOP_DEADLINE: Duration = Duration::from_secs(5);
