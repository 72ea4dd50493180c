//! The task that joins the machine with Tor, the links and the owner's grants: it tells what happened and carries out what is
//! decided.
//!
//! Invariants: outputs are carried out in their order; nothing here waits for the network, which tasks do that end with the
//! driver; every task has a deadline or an end that the machine decides.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};

use super::clock::{boottime, wall};
use super::links::Links;
use super::machine::{Input, Machine, NotEstablished, Output, Place, Slot, UploadId};
use super::probe::probe;
#[cfg(feature = "testing")]
use super::replicated::Misbehaviour;
use super::roster::{Role, Roster};
use super::status::Teller;
use crate::identity::manifest::{Manifest, Member};
use crate::identity::{DiscoveryKey, OnionAddress};
use crate::network::onion::{
    DirectoryView, EstablishError, OnionBackend, Period, PeriodMaterial, Point, PointSecrets, RelayId, Tag, Upload,
    UploadReport,
};
use crate::network::{Network, OnionPart};
use crate::node::Node;
use crate::owner::Holdings;

/// What reaches the driver.
pub(super) enum Event {
    /// Something for the machine.
    Input(Box<Input>),
    /// Behave badly, for tests of the others.
    #[cfg(feature = "testing")]
    Misbehave(Misbehaviour),
    /// Leave in order.
    Shutdown,
}

impl From<Input> for Event {
    fn from(input: Input) -> Self {
        Self::Input(Box::new(input))
    }
}

/// What a node of a service runs.
pub(super) struct Driver {
    pub(super) node: Node,
    pub(super) service: OnionAddress,
    pub(super) machine: Machine,
    pub(super) part: OnionPart,
    pub(super) holdings: watch::Receiver<Arc<Holdings>>,
    pub(super) links: Arc<Links>,
    pub(super) roster: watch::Sender<Roster>,
    pub(super) events: mpsc::Sender<Event>,
    pub(super) teller: Teller,
}

/// The tasks of a driver.
#[derive(Default)]
struct Tasks {
    all: JoinSet<()>,
    points: HashMap<Slot, AbortHandle>,
    dialling: HashMap<OnionAddress, AbortHandle>,
    choices: Choices,
}

impl Driver {
    /// Runs until the machine has stopped.
    pub(super) async fn run(mut self, mut inputs: mpsc::Receiver<Event>) {
        let mut tasks = Tasks::default();
        let mut view = self.part.backend.view();
        self.take_holdings(&mut tasks);
        self.look(&view.borrow_and_update().clone());
        loop {
            if self.carry_out(&mut tasks) {
                return;
            }
            self.teller.tell(boottime(), &self.machine, &self.part, &self.holdings.borrow());
            let wait = self.machine.poll_timeout().saturating_sub(boottime());
            tokio::select! {
                event = inputs.recv() => match event {
                    Some(Event::Input(input)) => self.handle(*input),
                    #[cfg(feature = "testing")]
                    Some(Event::Misbehave(what)) => match what {
                        Misbehaviour::Mute => self.links.mute(true),
                        Misbehaviour::Unmute => self.links.mute(false),
                        Misbehaviour::AnnounceGarbage => self.machine.announce_garbage(),
                    },
                    // The sender in `self` keeps the channel open.
                    Some(Event::Shutdown) | None => self.handle(Input::Shutdown),
                },
                Ok(()) = view.changed() => self.look(&view.borrow_and_update().clone()),
                Some(_) = tasks.all.join_next() => {}
                Ok(()) = self.holdings.changed() => self.take_holdings(&mut tasks),
                () = sleep(wait) => self.handle(Input::Tick),
            }
        }
    }

    fn handle(&mut self, input: Input) {
        self.machine.handle(boottime(), wall(), input);
    }

    /// Takes in what the consensus says.
    fn look(&mut self, view: &DirectoryView) {
        self.handle(Input::View(view.clone()));
        let gone: Vec<RelayId> = self.machine.relays().filter(|relay| !self.part.backend.is_listed(*relay)).collect();
        for relay in gone {
            self.handle(Input::RelayGone(relay));
        }
        self.tell_material(view);
    }

    fn tell_material(&mut self, view: &DirectoryView) {
        let holdings = Arc::clone(&self.holdings.borrow());
        let granted = |from: Option<Period>| {
            let next = |period: &Period| period.next().filter(|next| holdings.material(*next).is_some());
            std::iter::successors(from.filter(|from| holdings.material(*from).is_some()), next).take(MAX_AHEAD)
        };
        let periods: BTreeSet<_> = view.periods.iter().flat_map(|view| granted(Some(view.period))).collect();
        self.handle(Input::Material(periods));
    }

    /// Acts on what the owner granted: members and material.
    fn take_holdings(&mut self, tasks: &mut Tasks) {
        let roster = self.holdings.borrow_and_update().manifest().and_then(roster_of);
        if let Some(roster) = roster
            && *self.roster.borrow() != roster
        {
            self.acquaint();
            self.roster.send_replace(roster.clone());
            self.handle(Input::Roster(roster));
        }
        self.dial_members(tasks);
        let view = self.part.backend.view().borrow().clone();
        self.tell_material(&view);
    }

    /// Dials what only members find as one of them.
    fn acquaint(&self) {
        let holdings = self.holdings.borrow();
        if let Some(manifest) = holdings.manifest() {
            acquaint(self.node.network(), manifest, &holdings.discovery_key());
        }
    }

    fn material(&self, period: Period) -> Option<PeriodMaterial> {
        self.holdings.borrow().material(period)
    }

    fn dial_members(&mut self, tasks: &mut Tasks) {
        let me = self.node.address();
        let members: HashSet<OnionAddress> = self.machine.roster().iter().map(|(member, _)| member).collect();
        tasks.dialling.retain(|member, task| {
            let stays = members.contains(member);
            if !stays {
                task.abort();
            }
            stays
        });
        self.links.close_removed();
        for member in members.into_iter().filter(|member| me < *member) {
            let (links, node) = (Arc::clone(&self.links), self.node.clone());
            let all = &mut tasks.all;
            tasks.dialling.entry(member).or_insert_with(|| all.spawn(links.keep(node, member)));
        }
    }

    /// Carries out what is decided; `true` once the machine has stopped.
    fn carry_out(&mut self, tasks: &mut Tasks) -> bool {
        while let Some(output) = self.machine.poll_output() {
            match output {
                Output::Establish { slot, place, secrets, seen, until } => {
                    let choices = tasks.choices.clone();
                    let point = Establishing { slot, place, secrets, seen, until, choices };
                    let task = point.run(Arc::clone(&self.part.backend), self.events.clone());
                    tasks.points.retain(|_, task| !task.is_finished());
                    tasks.points.insert(slot, tasks.all.spawn(task));
                }
                Output::Withdraw(slot) => {
                    if let Some(task) = tasks.points.remove(&slot) {
                        task.abort();
                    }
                }
                Output::Upload { upload, period, not_before, listings } => match self.material(period) {
                    Some(material) => {
                        let upload_all = upload_all(
                            Arc::clone(&self.part.backend),
                            self.events.clone(),
                            upload,
                            Upload {
                                material,
                                not_before,
                                clients: self.machine.roster().clients().cloned(),
                                listings,
                            },
                        );
                        drop(tasks.all.spawn(upload_all));
                    }
                    // It was there when the machine was told so: what ended meanwhile, it will be told.
                    None => self.handle(Input::Uploaded { upload, report: UploadReport::default() }),
                },
                Output::Send(member, message) => self.links.send(member, &message),
                Output::Redial(member) => self.links.close(member),
                Output::Probe(nonce) => {
                    let (node, service, sign) = (self.node.clone(), self.service, self.machine.signer());
                    drop(tasks.all.spawn(async move {
                        // Who was reached says so.
                        let _reached_somebody = probe(node, service, nonce, |message| sign(message)).await;
                    }));
                }
                Output::Check(point) => {
                    let (check, events) = (self.part.backend.check(point.relay, point.id), self.events.clone());
                    drop(tasks.all.spawn(async move {
                        let answer = check.await;
                        let _ = events.send(Event::from(Input::Checked { point, answer })).await;
                    }));
                }
                Output::Notice(notice) => self.teller.notice(notice),
                Output::Stopped => return true,
            }
        }
        false
    }
}

/// An introduction point from the wish for it to its end.
struct Establishing {
    slot: Slot,
    place: Place,
    secrets: PointSecrets,
    seen: Vec<Tag>,
    until: Option<Duration>,
    choices: Choices,
}

/// Relays that were chosen for points of which the machine does not know yet: those that begin together go to different ones.
#[derive(Clone, Default)]
struct Choices(Arc<Mutex<HashSet<RelayId>>>);

/// A relay that no other point is put at as long as this lives.
struct Choice {
    relay: RelayId,
    choices: Choices,
}

impl Choices {
    /// Chooses one outside of the first of these sets, or else of the next, and so on.
    fn choose(&self, backend: &dyn OnionBackend, none_of: &[HashSet<RelayId>]) -> Option<Choice> {
        let mut chosen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let relay = none_of.iter().find_map(|not| backend.choose(&(not | &*chosen)))?;
        chosen.insert(relay);
        Some(Choice { relay, choices: self.clone() })
    }
}

impl Drop for Choice {
    fn drop(&mut self) {
        self.choices.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.relay);
    }
}

impl Establishing {
    async fn run(self, backend: Arc<dyn OnionBackend>, events: mpsc::Sender<Event>) {
        let Self { slot, place, secrets, seen, until, choices } = self;
        let (relay, chosen, choice) = match place {
            Place::At(relay) => (Some(relay), false, None),
            Place::Choose { none_of } => {
                let choice = choices.choose(&*backend, &none_of);
                (choice.as_ref().map(|choice| choice.relay), true, choice)
            }
        };
        let still = Box::new(move || until.is_none_or(|until| boottime() <= until));
        let established = match relay {
            Some(relay) => match backend.establish(relay, secrets, seen, still).await {
                Ok(point) => Ok(point),
                Err(EstablishError::NotListed) if !chosen => Err(NotEstablished::NotListed),
                Err(_) => Err(NotEstablished::Failed),
            },
            None => Err(NotEstablished::NoRelay),
        };
        let mut point = match established {
            Ok(point) => point,
            Err(why) => {
                let _ = events.send(Event::from(Input::EstablishFailed { slot, why })).await;
                return;
            }
        };
        let relay = point.description.relay;
        if events.send(Event::from(Input::Established { slot, relay })).await.is_err() {
            return;
        }
        drop(choice);
        let Point { accepted, closed, .. } = &mut point;
        let closed = async {
            // A backend that is gone has closed it too.
            let _ = closed.wait_for(|closed| *closed).await;
        };
        tokio::pin!(closed);
        loop {
            let tag = tokio::select! {
                biased;
                Some(tag) = accepted.recv() => tag,
                () = &mut closed => break,
            };
            if events.send(Event::from(Input::Introduced { slot, tag })).await.is_err() {
                return;
            }
        }
        while let Ok(tag) = accepted.try_recv() {
            let _ = events.send(Event::from(Input::Introduced { slot, tag })).await;
        }
        let _ = events.send(Event::from(Input::Closed(slot))).await;
    }
}

async fn upload_all(backend: Arc<dyn OnionBackend>, events: mpsc::Sender<Event>, id: UploadId, upload: Upload) {
    let directories = upload.listings.iter().flat_map(|(directories, _)| directories).copied().collect();
    let report = timeout(UPLOAD_DEADLINE, backend.upload(upload)).await;
    let report = report.unwrap_or(UploadReport { failed: directories, ..UploadReport::default() });
    let _ = events.send(Event::from(Input::Uploaded { upload: id, report })).await;
}

/// What a manifest says of points and descriptors; none when it has more members than a service can have.
pub(super) fn roster_of(manifest: &Manifest) -> Option<Roster> {
    let role = |publishes| if publishes { Role::Publisher } else { Role::Listed };
    let (members, clients) = (manifest.contents().members(), manifest.contents().clients());
    let roster = members.iter().map(|member| (member.address(), role(member.is_publisher())));
    let roster = Roster::new(roster).ok()?;
    if clients.is_empty() {
        return Some(roster);
    }
    // Members dial the service as clients do, to see whether it is reachable.
    Some(roster.restricted_to(clients.iter().copied().chain(members.iter().filter_map(Member::discovery_key))))
}

/// Has `network` dial with a member's key what only members find.
pub(super) fn acquaint(network: &dyn Network, manifest: &Manifest, key: &DiscoveryKey) {
    if !manifest.contents().clients().is_empty() {
        network.use_discovery_key(manifest.service(), key);
    }
    for member in manifest.contents().members() {
        network.use_discovery_key(member.address(), key);
    }
}

/// Periods ahead that the machine is told of: a month on the public network.
const MAX_AHEAD: usize = 31;
/// The backend has deadlines of its own for each directory; this is for one that does not keep them.
const UPLOAD_DEADLINE: Duration = Duration::from_secs(110);
