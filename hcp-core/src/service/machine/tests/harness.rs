//! A machine, what it is told by hand, and what stands in for its relays, directories and peers.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::*;

pub(super) const WALL: u64 = 1_790_000_000;

pub(super) fn address(seed: u8) -> OnionAddress {
    Identity::from_seed(&[seed; 32]).address()
}

pub(super) fn period(after: u64) -> Period {
    // The one that holds the wall clock's present.
    Period { number: (WALL - 43_200) / 86_400 + after, length: 1_440, offset: 43_200 }
}

pub(super) fn unsigned() -> Sign {
    Arc::new(|_| [0; 64])
}

pub(super) struct Harness {
    pub(super) machine: Machine,
    pub(super) now: Duration,
    pub(super) wall: u64,
    pub(super) peers: Vec<OnionAddress>,
    pub(super) counts: BTreeMap<OnionAddress, u64>,
    /// Runs of peers that are not in their first.
    pub(super) runs: BTreeMap<OnionAddress, u64>,
    /// What the machine last sent to each.
    pub(super) sent: BTreeMap<OnionAddress, u64>,
    /// Peers that are heard from.
    pub(super) alive: Vec<OnionAddress>,
    pub(super) relays: u8,
    /// There is no other relay.
    pub(super) crowded: bool,
    /// So many points come to the relay of the one before.
    pub(super) twins: u8,
    pub(super) outputs: Vec<Output>,
    pub(super) up: BTreeMap<Slot, RelayId>,
    pub(super) uploads: Vec<(Duration, usize)>,
    /// Directories that never answer.
    pub(super) mute: Vec<RelayId>,
    /// Uploads to them alone, which go on.
    pub(super) pending: usize,
    /// The second of what directories have.
    pub(super) revisions: BTreeMap<Period, u64>,
    /// Nothing can be uploaded.
    pub(super) unable: bool,
}

impl Harness {
    pub(super) fn new(peers: u8) -> Self {
        let peers: Vec<_> = (0..peers).map(|peer| address(20 + peer)).collect();
        let me = address(10);
        let members = peers.iter().copied().chain([me]).map(|member| (member, Role::Publisher));
        let config = Config { service: address(1), me, sign: unsigned(), roster: Roster::new(members).unwrap() };
        let now = Duration::from_secs(5_000);
        let machine = Machine::new(config, now, WALL * 1_000, [3; 32]);
        let mut harness = Self {
            machine,
            now,
            wall: WALL * 1_000,
            alive: peers.clone(),
            peers,
            counts: BTreeMap::new(),
            runs: BTreeMap::new(),
            sent: BTreeMap::new(),
            relays: 0,
            crowded: false,
            twins: 0,
            outputs: Vec::new(),
            up: BTreeMap::new(),
            uploads: Vec::new(),
            mute: Vec::new(),
            pending: 0,
            revisions: BTreeMap::new(),
            unable: false,
        };
        harness.tell(Input::Material((0..3).map(period).collect()));
        let directories: Vec<_> = (0..6).map(|index| RelayId([200 + index; 32])).collect();
        let views = [0, 1].map(|after| PeriodView { period: period(after), directories: directories.clone() });
        harness.tell(Input::View(DirectoryView { periods: views.to_vec() }));
        for peer in harness.peers.clone() {
            harness.tell(Input::LinkUp(peer));
        }
        harness
    }

    pub(super) fn tell(&mut self, input: Input) {
        self.machine.handle(self.now, self.wall, input);
        while let Some(output) = self.machine.poll_output() {
            match &output {
                Output::Establish { slot, place: Place::Choose { .. }, .. } if self.crowded => {
                    let failed = Input::EstablishFailed { slot: *slot, why: NotEstablished::NoRelay };
                    self.machine.handle(self.now, self.wall, failed);
                }
                Output::Establish { slot, place, .. } => {
                    let relay = match place {
                        Place::At(relay) => *relay,
                        Place::Choose { .. } => {
                            self.relays += u8::from(self.twins == 0);
                            self.twins = self.twins.saturating_sub(1);
                            RelayId([self.relays; 32])
                        }
                    };
                    self.up.insert(*slot, relay);
                    self.machine.handle(self.now, self.wall, Input::Established { slot: *slot, relay });
                }
                Output::Withdraw(slot) => {
                    self.up.remove(slot);
                }
                Output::Upload { upload, period, not_before, listings } => {
                    self.uploads.push((self.now, listings.iter().map(|(_, points)| points.len()).sum()));
                    let all = listings.iter().flat_map(|(at, _)| at.iter().copied());
                    let (failed, accepted): (Vec<_>, Vec<_>) = all.partition(|at| self.mute.contains(at));
                    if accepted.is_empty() {
                        self.pending += 1;
                        self.outputs.push(output);
                        continue;
                    }
                    let has = self.revisions.entry(*period).or_default();
                    let report = match () {
                        () if self.unable => UploadReport::default(),
                        () if *has >= *not_before => UploadReport { refused: accepted, ..UploadReport::default() },
                        () => UploadReport { accepted, failed, ..UploadReport::default() },
                    };
                    if !report.accepted.is_empty() {
                        *has = *not_before;
                    }
                    self.machine.handle(self.now, self.wall, Input::Uploaded { upload: *upload, report });
                }
                Output::Send(to, Message::Heartbeat(heartbeat)) => {
                    self.sent.insert(*to, heartbeat.sent);
                    continue;
                }
                _ => {}
            }
            self.outputs.push(output);
        }
    }

    pub(super) fn beat(&mut self, peer: OnionAddress) {
        let run = self.run_of(peer);
        let count = self.counts.entry(peer).or_default();
        *count += 1;
        let heartbeat = Heartbeat {
            sent: *count,
            echo: self.sent.get(&peer).map(|sent| Echo { sent: *sent, held: self.now.as_millis() as u64 - sent }),
            wall: self.wall,
            pulse: Pulse::sign(address(1), peer, run, *count, &unsigned()),
            seeking: Vec::new(),
            sightings: Vec::new(),
        };
        self.tell(Input::Message(peer, Message::Heartbeat(heartbeat)));
    }

    pub(super) fn run_of(&self, peer: OnionAddress) -> u64 {
        self.runs.get(&peer).copied().unwrap_or(1)
    }

    /// Lets time pass in steps of a quarter second; those who live are heard.
    pub(super) fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        while self.now < until {
            self.step(Duration::from_millis(250));
        }
    }

    pub(super) fn step(&mut self, by: Duration) {
        self.now += by;
        self.wall += by.as_millis() as u64;
        for peer in self.alive.clone() {
            self.beat(peer);
        }
        self.tell(Input::Tick);
    }

    /// Hours, with a look now and then; nobody is asked whether anybody lives.
    pub(super) fn pass_alone(&mut self, time: Duration) {
        assert!(self.alive.is_empty());
        let until = self.now + time;
        while self.now < until {
            self.step(Duration::from_secs(20).min(until - self.now));
        }
    }

    pub(super) fn take(&mut self) -> Vec<Output> {
        std::mem::take(&mut self.outputs)
    }

    pub(super) fn record(&mut self, peer: OnionAddress, version: u64, points: Vec<PointDescription>) {
        self.record_of(peer, version, points, Vec::new());
    }

    pub(super) fn record_of(
        &mut self,
        peer: OnionAddress,
        version: u64,
        points: Vec<PointDescription>,
        publications: Vec<Publication>,
    ) {
        let record = Record {
            incarnation: 1,
            version,
            points,
            holds: Vec::new(),
            publications,
            taken: Vec::new(),
            stopping: false,
        };
        let signed = SignedRecord::sign(address(1), peer, record, &[], &unsigned());
        self.tell(Input::Message(peer, Message::Record(signed)));
    }
}
