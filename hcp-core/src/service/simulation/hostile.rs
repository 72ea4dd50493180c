//! A member that lies: it announces points that are not there and others every few seconds, claims what it was never given,
//! and floods.

use std::time::Duration;

use rand::RngExt;

use super::{Counts, World};
use crate::network::onion::{PointDescription, PointId, PointSecrets, RelayId};
use crate::service::gossip::{Answer, Entrust, Message, Publication, Record, SignedRecord, Tags};
use crate::service::tuning::MAX_POINTS;

/// How often the points that it announces are others: more often than a set of points takes to settle.
const CHANGES: Duration = Duration::from_secs(4);

impl World {
    /// What it sends in the place of a message.
    pub(super) fn corrupt(&mut self, from: usize, to: usize, message: Message) -> Vec<Message> {
        let others: Vec<_> = {
            let mut points: Vec<_> =
                self.owners.iter().filter(|(_, owner)| **owner != from).map(|(id, _)| *id).collect();
            points.sort_unstable();
            points
        };
        let mut messages = vec![message];
        let record = match &messages[0] {
            Message::Record(record) if record.member() == self.nodes[from].address => {
                self.truth = Some((**record.record()).clone());
                self.lie(from, &others)
            }
            Message::Heartbeat(_) => self.lie(from, &others),
            _ => None,
        };
        match record {
            Some(record) if matches!(messages[0], Message::Record(_)) => messages[0] = record,
            Some(record) => messages.push(record),
            None => {}
        }
        if others.is_empty() || !self.rng.random_bool(0.2) {
            return messages;
        }
        let point = others[self.rng.random_range(0..others.len())];
        let nonce: u64 = self.rng.random();
        let lie = match self.rng.random_range(0..9) {
            0 => Message::Ask { point, nonce },
            1 => Message::Promise { point, nonce, answer: Answer::KeepsAway(60_000) },
            2 => Message::Release(point),
            3 => Message::Forget(point),
            4 => Message::Heard(self.rng.random()),
            5 => Message::Reached(self.nodes[from].address),
            6 => Message::Held(vec![(point, 5)]),
            7 => Message::Tags(Tags { point, first: 0, tags: vec![[1; 32]; 256] }),
            _ => Message::Entrust(Entrust {
                incarnation: if nonce.is_multiple_of(20) { 1 } else { self.nodes[from].incarnation },
                relay: super::relay(self.rng.random_range(0..60)),
                secrets: PointSecrets::from_bytes(&self.rng.random::<[[u8; 32]; 2]>().concat().try_into().unwrap()),
                holders: vec![self.nodes[to].address],
                before: 0,
            }),
        };
        Counts::note(&mut self.counts, "lies: messages");
        messages.push(lie);
        messages
    }

    /// What it says of itself at this time, the same to everybody.
    fn lie(&mut self, from: usize, others: &[PointId]) -> Option<Message> {
        let turn = ((self.now - super::START).as_millis() / CHANGES.as_millis()) as u64;
        let mut lie: Record = self.truth.clone()?;
        self.counts.note("lies: claims and publications");
        lie.version = lie.version * 100_000 + turn;
        lie.taken = others.iter().copied().take(60).collect();
        // As many points as a record holds, some of them not even at a relay.
        lie.points.truncate(MAX_POINTS - 1);
        let missing = MAX_POINTS - lie.points.len();
        lie.points.extend(self.garbage(from, turn).into_iter().take(missing));
        let publication =
            |period| Publication { period, set: [7; 32], rotation: 9, at: u64::MAX, left_out: Vec::new() };
        lie.publications = self.periods.iter().copied().map(publication).collect();
        lie.holds = self.periods.clone();
        let sign: crate::service::gossip::Sign = std::sync::Arc::new(|_| [0; 64]);
        let address = self.nodes[from].address;
        Some(Message::Record(SignedRecord::sign(super::service(), address, lie, &[], &sign)))
    }

    fn garbage(&mut self, from: usize, turn: u64) -> Vec<PointDescription> {
        (0..MAX_POINTS as u8)
            .map(|index| {
                let mut bytes = [index + 1; PointSecrets::LEN];
                bytes[..8].copy_from_slice(&turn.to_be_bytes());
                let secrets = PointSecrets::from_bytes(&bytes);
                self.owners.insert(secrets.id(), from);
                secrets.describe(RelayId([250 + index; 32]))
            })
            .collect()
    }
}
