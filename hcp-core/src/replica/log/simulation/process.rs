//! A node's process: started from its disk, told what happens, and what its machine says is done.

use std::time::Duration;

use rand::RngExt;

use super::application::{self, Application};
use super::disk::Writing;
use super::faults::{self, Fault};
use super::{Checked, Event, Node, START, WALL, World, between};
use crate::replica::log::machine::{Input, Machine, Output, Stop, Unfold};
use crate::replica::log::storage::{Batch, BatchId, Outcome};
use crate::replica::place::{LogId, NodeId};

impl World {
    pub(super) fn wall(&self, node: usize) -> u64 {
        let elapsed = (self.now - START).as_millis() as u64;
        (WALL + elapsed).saturating_add_signed(self.nodes[node].skew)
    }

    /// Tells a node's machine something, and does what it says.
    pub(super) fn tell(&mut self, node: usize, input: Input) -> Checked {
        let (now, wall) = (self.now, self.wall(node));
        let Some(machine) = self.nodes[node].machine.as_mut() else { return Ok(()) };
        machine.handle(now, wall, input);
        self.drain(node)
    }

    pub(super) fn drain(&mut self, node: usize) -> Checked {
        while let Some(output) = self.nodes[node].machine.as_mut().and_then(Machine::poll_output) {
            self.do_output(node, output)?;
        }
        let Some(machine) = self.nodes[node].machine.as_ref() else { return Ok(()) };
        let due = machine.poll_timeout();
        if due < self.nodes[node].ticks {
            self.nodes[node].ticks = due;
            let life = self.nodes[node].life;
            self.at(due.max(self.now), Event::Tick { node, life });
        }
        self.check_bounds(node)
    }

    fn do_output(&mut self, node: usize, output: Output) -> Checked {
        let life = self.nodes[node].life;
        match output {
            Output::Write(batch, what) => self.begin_write(node, batch, *what),
            Output::Read(read, what) => {
                let delay = self.nodes[node].latency / 2;
                self.after(delay, Event::Read { node, life, read, what });
            }
            Output::Send(to, message) => self.send(node, to, message)?,
            Output::Unlink(to, why) => self.unlink(node, to, why)?,
            Output::Deliver(delivery) => {
                if let Some(handed) = &mut self.handed {
                    let ids = delivery.items.iter().filter_map(|item| application::decode(&item.body));
                    handed.extend(ids.map(|(id, _)| (node, id, self.now)));
                }
                let most = self.honest_and_latest();
                let run = |node: &Node| node.machine.as_ref().map(Machine::log);
                // Who goes on in another log has seen all that it holds, whatever its application was handed.
                let goes_on = self.plan.faults.contains(&Fault::Remove);
                let runs: Vec<Option<LogId>> = self.nodes.iter().filter(|_| !goes_on).map(run).collect();
                if !self.is_hostile(node) {
                    let application = &mut self.nodes[node].application;
                    application.deliver(
                        &delivery,
                        (most.0, most.1, &runs),
                        &self.oracle,
                        &self.cast,
                        &mut self.counts,
                    )?;
                }
                if self.rng.random_bool(0.9) {
                    self.nodes[node].application.take(delivery.position);
                    self.at(self.now, Event::Handed { node, life });
                } else {
                    self.nodes[node].application.take(delivery.position);
                    let delay = between(&mut self.rng, 1, 50);
                    self.after(delay, Event::Handed { node, life });
                }
            }
            Output::Split(split) => self.nodes[node].application.split(&split),
            Output::Appended { id, place } => {
                if let Some(entry) = self.nodes[node].appends.get(&id).copied() {
                    self.oracle.durable(entry, node, place);
                    self.counts.note("entries durable");
                }
            }
            Output::Refused { id, why } => {
                if let Some(entry) = self.nodes[node].appends.remove(&id) {
                    self.oracle.refused(entry);
                    self.counts.note(faults::refusal(why));
                }
            }
            Output::Replicated { log, by, seq } => self.replicated(node, log, by, seq),
            Output::Manifest(manifest) => {
                let version = manifest.contents().version() as usize;
                let node = &mut self.nodes[node];
                node.manifest = node.manifest.max(version - 1);
            }
            Output::Fold(delivery, splits) => {
                let shadow = &mut self.nodes[node].shadow;
                splits.iter().for_each(|split| shadow.split(split));
                shadow.fold(&delivery);
            }
            Output::Unfold(unfold) => {
                self.counts.note("folds given up");
                let this = &mut self.nodes[node];
                if unfold == Unfold::Checkpoint {
                    let state = this.disk.state()?;
                    this.sealed = state.and_then(|state| Application::from_bytes(&state)).unwrap_or_default();
                }
                this.shadow = this.sealed.clone();
            }
            Output::Seal(asked) => {
                let lies = self.is_hostile(node) && !self.healed && self.rng.random_bool(0.5);
                let this = &mut self.nodes[node];
                this.sealed = this.shadow.clone();
                let mut state = this.shadow.to_bytes();
                if lies {
                    state.push(0);
                    self.counts.note("lies: false votes");
                }
                let (length, pieces) = (state.len() as u64, this.disk.seal(&state));
                self.after(Duration::from_millis(5), Event::Sealed { node, life, asked, length, pieces });
            }
            Output::Stable(_) => {
                self.counts.note("checkpoints stable");
                self.nodes[node].made = true;
            }
            Output::Stopped(why) => {
                let made = std::mem::take(&mut self.nodes[node].made) && why == Stop::Reload;
                self.counts.note(if made { "branches dropped for a checkpoint" } else { faults::stop(why) });
                if why == Stop::Reload {
                    self.crash(node, faults::Torn::Lost);
                    self.at(self.now, Event::Start { node });
                } else {
                    self.nodes[node].stopped = Some(why);
                }
            }
        }
        Ok(())
    }

    fn replicated(&mut self, node: usize, log: LogId, by: NodeId, seq: u64) {
        let Some(by) = self.cast.index(&by) else { return };
        if !self.is_hostile(by) && !self.is_hostile(node) {
            self.oracle.replicated(log, by, seq);
            self.counts.note("receipts");
        }
    }

    /// Starts a node's process from its disk.
    pub(super) fn start(&mut self, node: usize) -> Checked {
        if self.nodes[node].machine.is_some() || self.nodes[node].gone {
            return Ok(());
        }
        let seed: [u8; 32] = self.rng.random();
        let (now, wall) = (self.now, self.wall(node));
        let config = self.cast.config(node, self.nodes[node].manifest);
        let opened = self.nodes[node].disk.open(config, now, wall, seed);
        let (machine, rows, again) = opened.map_err(|error| format!("node {node} cannot open its disk: {error}"))?;
        for body in &again {
            if let Some((id, _)) = application::decode(body) {
                self.counts.note("entries appended again");
                self.oracle.moved.insert(id);
            }
        }
        let state = self.nodes[node].disk.state()?;
        let state = state.map(|state| Application::from_bytes(&state).ok_or("a state that cannot be read"));
        let restored = state.transpose()?.unwrap_or_default();
        let mut application = restored.clone();
        application.retention = self.plan.retention > 0.0;
        let most = self.honest_and_latest();
        if !self.is_hostile(node) {
            for (delivery, splits) in &rows {
                splits.iter().for_each(|split| application.split(split));
                application.deliver(delivery, (most.0, most.1, &[]), &self.oracle, &self.cast, &mut self.counts)?;
            }
            application.hand_everything();
            if self.plan.retention > 0.0 {
                application.trust(&self.oracle, most.0);
            }
        }
        let this = &mut self.nodes[node];
        this.life += 1;
        this.made = false;
        this.ticks = Duration::MAX;
        this.machine = Some(machine);
        this.stopped = None;
        this.writing = None;
        this.appends.clear();
        this.application = application;
        (this.shadow, this.sealed) = (restored.clone(), restored);
        self.drain(node)?;
        self.crash_soon(node, !again.is_empty());
        for other in 0..self.nodes.len() {
            if other != node {
                let delay = between(&mut self.rng, 20, 800);
                self.after(delay, Event::Dial { one: node.min(other), two: node.max(other) });
            }
        }
        Ok(())
    }

    fn begin_write(&mut self, node: usize, batch: BatchId, what: Batch) {
        let this = &mut self.nodes[node];
        let life = this.life;
        let delay = this.latency.mul_f64(self.rng.random_range(0.5..2.0));
        this.writing = Some(Writing { what });
        self.after(delay, Event::Written { node, life, batch });
    }

    pub(super) fn finish_write(&mut self, node: usize, batch: BatchId) -> Checked {
        let this = &mut self.nodes[node];
        let Some(writing) = this.writing.take() else { return Ok(()) };
        let outcome = if this.disk.is_full() {
            self.counts.note("writes refused by a full disk");
            Outcome::Full
        } else {
            this.disk.write(&writing.what);
            Outcome::Done
        };
        self.tell(node, Input::Stored(batch, outcome))?;
        if writing.what.checkpoint.is_some() && outcome == Outcome::Done {
            self.nodes[node].made = false;
        }
        Ok(())
    }
}
